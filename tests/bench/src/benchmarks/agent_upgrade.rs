//! The agents of a cluster are replaced one by one, as the rollout of a DaemonSet does it, while a client sends a thousand
//! packets a second through a router to addresses of both families: how many are lost, behind each router.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use lab::{
    DataCentre, PATIENCE, Run,
    cluster::INSTALL_NAMESPACE,
    control_plane::Choice,
    data_centre::{NODE_AS, Plan},
    router::Software,
    traffic::{Sink, Stream},
};
use serde_json::json;

use super::{Benchmark, Entry};
use crate::{context::Context, figure::Sample};

pub(super) const ENTRY: Entry = Entry {
    name: "agent_upgrade",
    also: &[],
    about: "all agents replaced one by one under 1,000 packets/s: packets lost, behind each router",
    prepare,
};

const ROUTERS: [(&str, Software); 3] =
    [("frr", Software::Frr), ("bird", Software::Bird), ("gobgp", Software::GoBgp)];
const ROUTER_AS: u32 = 65001;
const NODES: u8 = 3;
/// The shortest time of traffic, in packets.
const LEAST: u64 = 5000;

struct AgentUpgrade;

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    for (program, package) in [("lbnodeagent", "agent"), ("allocator", "allocator"), ("lab", "lab")] {
        context.program(program, package)?;
    }
    Ok(Box::new(AgentUpgrade))
}

impl Benchmark for AgentUpgrade {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for (name, software) in ROUTERS {
            let (sent, lost) = upgrade(software)?;
            // Exact below 2^53.
            samples.push(Sample::ceiling(
                format!("agent_upgrade_{name}_lost"),
                lost as f64,
                "packets lost",
                0.0,
            ));
            samples.push(Sample::note(format!("agent_upgrade_{name}_sent"), sent as f64, "packets"));
        }
        Ok(samples)
    }
}

/// How many packets were sent, and how many of them lost.
fn upgrade(software: Software) -> Result<(u64, u64)> {
    let run = Run::start()?;
    let (mut lab, addresses) = build(&run, software, "Cluster")?;
    let nodes: Vec<String> = lab.topology.nodes.iter().map(|node| node.name.clone()).collect();
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    // GoBGP takes one way of several.
    if software != Software::GoBgp {
        lab.wait_routes(&addresses, &names)?;
    }
    let client = lab.topology.client.namespace.clone();
    let sink = Sink::start_on(lab.topology.nodes.iter().map(|node| &node.namespace))?;
    sink.wait_reachable(&client, &addresses)?;
    // Flows enough that every node has some.
    let flows: Vec<_> = addresses.iter().cycle().take(32).copied().collect();
    let stream = Stream::start(&client, &flows, &sink)?;
    for node in &nodes {
        let status = lab.cluster.agent(node)?.terminate(PATIENCE)?;
        ensure!(status.success(), "the agent of {node} ended with {status}");
        lab.start_agent(node)?;
    }
    stream.wait_arrived(&sink, LEAST)?;
    Ok(stream.finish(&sink)?)
}

/// A cluster whose agents are of a DaemonSet, behind one router, with a Service of both families and of this
/// externalTrafficPolicy, which has its addresses.
pub(super) fn build<'r>(
    run: &'r Run,
    software: Software,
    policy: &str,
) -> Result<(DataCentre<'r>, Vec<IpAddr>)> {
    let mut plan = Plan::with_nodes(NODES);
    plan.routers = vec![(software, ROUTER_AS)];
    let mut lab = DataCentre::build(run, &plan, Choice::InMemory)?;
    configure(&lab, policy)?;
    lab.cluster.make_daemon_set()?;
    lab.start_allocator()?;
    let nodes: Vec<String> = lab.topology.nodes.iter().map(|node| node.name.clone()).collect();
    nodes.iter().try_for_each(|node| lab.start_agent(node))?;
    lab.wait_node_statuses(&nodes.iter().map(String::as_str).collect::<Vec<_>>())?;
    let addresses = lab.wait_addresses("default", "my-app")?;
    Ok((lab, addresses))
}

fn configure(lab: &DataCentre<'_>, policy: &str) -> Result<()> {
    let group = json!({
        "apiVersion": "purelb.io/v2",
        "kind": "ServiceGroup",
        "metadata": { "name": "default", "namespace": INSTALL_NAMESPACE },
        "spec": { "remote": {
            "v4pool": { "pool": "198.51.100.0/24", "subnet": "198.51.100.0/24", "aggregation": "/32" },
            "v6pool": { "pool": "2001:db8:51::/120", "subnet": "2001:db8:51::/64", "aggregation": "/128" },
        }},
    });
    let router = lab.routers.iter().map(|router| router.host().addresses.v4);
    let peers = router.map(|address| {
        json!({
            "apiVersion": "bgp.purelb.io/v1",
            "kind": "BGPPeer",
            "metadata": { "name": "router1", "namespace": INSTALL_NAMESPACE },
            "spec": { "myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address },
        })
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "my-app", "namespace": "default" },
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": policy, "ipFamilyPolicy": "RequireDualStack", "selector": { "app": "my-app" },
            "ports": [{ "port": 80 }],
        },
    });
    let items: Vec<_> = peers.chain([group, service]).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    lab.cluster.kubectl().apply(&list.to_string())?;
    Ok(())
}
