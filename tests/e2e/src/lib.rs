//! What the end-to-end tests share: manifests as text, and routers that misbehave. The tests themselves are in
//! `tests/`; each builds its own lab, so that they can run side by side and in any order.
//!
//! The binaries under test are found beside the test's own executable: `cargo build -p apiserver -p allocator -p
//! agent -p lab -p ipam-file` comes first, as `make test` does.

pub mod hostile;
pub mod on_link;

use std::net::IpAddr;

use lab::{DataCentre, Error, Result, Run, control_plane::Choice, data_centre::Plan, router::Software};
use serde_json::{Value, json};

/// The namespace of our own objects.
pub const INSTALL_NAMESPACE: &str = lab::cluster::INSTALL_NAMESPACE;

/// A lab with so many nodes and FRR as its only router, with the pools of the manifests and a session of each
/// node with the router.
///
/// # Errors
/// When a part does not start.
pub fn with_one_router(run: &Run, nodes: u8) -> Result<DataCentre<'_>> {
    with_router_of(run, nodes, 65001)
}

/// The same with a router of this AS. The nodes' own is 64512.
///
/// # Errors
/// When a part does not start.
pub fn with_router_of(run: &Run, nodes: u8, asn: u32) -> Result<DataCentre<'_>> {
    let mut plan = Plan::with_nodes(nodes);
    plan.routers = vec![(Software::Frr, asn)];
    let lab = DataCentre::start(run, &plan, Choice::from_environment(None))?;
    apply_file(&lab, "servicegroups.yaml")?;
    let router = lab.topology.routers.first().ok_or_else(|| Error::unmet("no router"))?;
    lab.cluster.kubectl().apply(&peer("router1", asn, router.addresses.v4.into()).to_string())?;
    let names = lab.topology.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>();
    lab.wait_node_statuses(&names)?;
    Ok(lab)
}

/// A lab with so many nodes and one router, whose agents are of a DaemonSet as those of the chart are, decide by
/// themselves how they end, and find this in their environment beside that.
///
/// # Errors
/// When a part does not start.
pub fn with_daemon_set<'r>(
    run: &'r Run,
    nodes: u8,
    router: (Software, u32),
    environment: &[(&str, &str)],
) -> Result<DataCentre<'r>> {
    let mut plan = Plan::with_nodes(nodes);
    plan.routers = vec![router];
    let mut lab = DataCentre::build(run, &plan, Choice::from_environment(None))?;
    apply_file(&lab, "servicegroups.yaml")?;
    let host = lab.topology.routers.first().ok_or_else(|| Error::unmet("no router"))?;
    let peer = peer("router1", router.1, host.addresses.v4.into());
    lab.cluster.kubectl().apply(&peer.to_string())?;
    lab.cluster.make_daemon_set()?;
    for (name, value) in environment {
        lab.cluster.agent_environment.insert((*name).into(), (*value).into());
    }
    lab.start_allocator()?;
    let names = lab.topology.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    names.iter().try_for_each(|node| lab.start_agent(node))?;
    lab.wait_node_statuses(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(lab)
}

/// A lab with an API server and the allocator, and nobody to announce anything.
///
/// # Errors
/// When a part does not start.
pub fn with_allocator_only(run: &Run) -> Result<DataCentre<'_>> {
    let mut plan = Plan::with_nodes(1);
    plan.routers.clear();
    let mut lab = DataCentre::build(run, &plan, Choice::from_environment(None))?;
    lab.start_allocator()?;
    apply_file(&lab, "servicegroups.yaml")?;
    Ok(lab)
}

/// Applies a file of `tests/lab/manifests`.
///
/// # Errors
/// When it is refused.
pub fn apply_file(lab: &DataCentre<'_>, name: &str) -> Result<()> {
    let path = lab::cluster::source_root().join("tests/lab/manifests").join(name);
    lab.cluster.kubectl().run(&["apply", "-f", &path.display().to_string()]).map(drop)
}

/// A BGPPeer with the short timers of the lab.
pub fn peer(name: &str, asn: u32, address: IpAddr) -> Value {
    json!({
        "apiVersion": "bgp.purelb.io/v1",
        "kind": "BGPPeer",
        "metadata": { "name": name, "namespace": INSTALL_NAMESPACE },
        "spec": {
            "myASN": 64512, "peerASN": asn, "peerAddress": address,
            "holdTime": "3s", "keepaliveTime": "1s", "connectTime": "1s",
        },
    })
}

/// A Service of type LoadBalancer in the namespace `default`, IPv4, with these annotations.
pub fn service(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default", "annotations": annotations },
        "spec": { "type": "LoadBalancer", "selector": { "app": name }, "ports": [{ "port": 80 }] },
    })
}

/// A ServiceGroup with one remote IPv4 pool.
pub fn service_group(name: &str, subnet: &str, pool: &str) -> Value {
    json!({
        "apiVersion": "purelb.io/v2",
        "kind": "ServiceGroup",
        "metadata": { "name": name, "namespace": INSTALL_NAMESPACE },
        "spec": { "remote": { "v4pool": { "subnet": subnet, "pool": pool, "aggregation": "/32" } } },
    })
}
