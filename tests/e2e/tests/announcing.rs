//! Who announces what: families, policy Local, labels and selectors on nodes, and what others do to our addresses.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::IpAddr;

use e2e::{INSTALL_NAMESPACE, service, with_one_router};
use lab::{DataCentre, Run, pods::Readiness};
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node1", "node2"];

fn apply(lab: &DataCentre<'_>, manifest: &Value) {
    lab.cluster.kubectl().apply(&manifest.to_string()).unwrap();
}

fn announced(lab: &DataCentre<'_>, manifest: &Value) -> Vec<IpAddr> {
    apply(lab, manifest);
    let name = manifest["metadata"]["name"].as_str().unwrap();
    let addresses = lab.wait_addresses("default", name).unwrap();
    lab.wait_routes(&addresses, &NODES).unwrap();
    addresses
}

#[test]
fn a_dual_stack_service_is_announced_in_both_families_over_one_session() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let mut manifest = service("my-app", &json!({}));
    manifest["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    manifest["spec"]["ipFamilies"] = json!(["IPv6", "IPv4"]);
    let addresses = announced(&lab, &manifest);
    assert!(
        addresses[0].is_ipv6() && addresses[1].is_ipv4(),
        "{addresses:?} in the order of spec.ipFamilies"
    );
    let sessions = lab.routers[0].sessions().unwrap();
    assert_eq!(
        sessions.iter().filter(|session| session.is_established()).count(),
        2,
        "one a node: {sessions:?}"
    );
    for address in &addresses {
        lab.wait_on_nodes(*address, &NODES).unwrap();
    }
}

#[test]
fn a_local_service_is_announced_where_a_pod_is_ready_and_keeps_its_address_where_one_drains() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let mut manifest = service("my-app", &json!({ "purelb.io/service-group": "routed" }));
    manifest["spec"]["externalTrafficPolicy"] = json!("Local");
    apply(&lab, &manifest);
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    // One that is announced and came later: so the Local one was looked at, and nobody announces it.
    announced(&lab, &service("cluster-wide", &json!({})));
    lab.wait_routes(&addresses, &[]).unwrap();

    let kubectl = lab.cluster.kubectl();
    let mut workload = lab.deploy("default", "my-app", &addresses, &["node1"]).unwrap();
    lab.wait_routes(&addresses, &["node1"]).unwrap();
    lab.wait_on_nodes(addresses[0], &["node1"]).unwrap();
    workload.start(&run, &lab.topology, "node2").unwrap();
    workload.publish(kubectl).unwrap();
    lab.wait_routes(&addresses, &NODES).unwrap();

    workload.set_readiness("node1", Readiness::Draining);
    workload.publish(kubectl).unwrap();
    lab.wait_routes(&addresses, &["node2"]).unwrap();
    // Flows in flight finish: the route is gone, the address is not.
    lab.wait_on_nodes(addresses[0], &NODES).unwrap();
    workload.stop("node1").unwrap();
    workload.publish(kubectl).unwrap();
    lab.wait_on_nodes(addresses[0], &["node2"]).unwrap();

    workload.set_readiness("node2", Readiness::NotReady);
    workload.publish(kubectl).unwrap();
    lab.wait_routes(&addresses, &[]).unwrap();
    lab.wait_on_nodes(addresses[0], &[]).unwrap();
}

#[test]
fn a_node_that_is_excluded_from_load_balancers_announces_nothing_until_it_is_included_again() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let addresses = announced(&lab, &service("my-app", &json!({})));
    let label = |suffix: &str| {
        let word = format!("node.kubernetes.io/exclude-from-external-load-balancers{suffix}");
        lab.cluster.kubectl().run(&["label", "node", "node1", &word]).unwrap();
    };
    label("=true");
    lab.wait_routes(&addresses, &["node2"]).unwrap();
    label("-");
    lab.wait_routes(&addresses, &NODES).unwrap();
}

#[test]
fn a_peer_is_of_the_nodes_that_its_selectors_match() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let addresses = announced(&lab, &service("my-app", &json!({})));
    let patch = |selectors: Value| {
        let patch = json!({ "spec": { "nodeSelectors": selectors } }).to_string();
        let words = ["patch", "bgppeer", "router1", "-n", INSTALL_NAMESPACE, "--type=merge", "-p", &patch];
        lab.cluster.kubectl().run(&words).unwrap();
    };
    patch(json!([{ "matchLabels": { "kubernetes.io/hostname": "node2" } }]));
    lab.wait_routes(&addresses, &["node2"]).unwrap();
    patch(json!(null));
    lab.wait_routes(&addresses, &NODES).unwrap();
}

#[test]
fn an_address_that_somebody_removes_comes_back() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let addresses = announced(&lab, &service("my-app", &json!({})));
    let node = &lab.node("node1").unwrap().namespace;
    node.ip(&format!("address del {}/32 dev kube-lb0", addresses[0])).unwrap();
    lab.wait_on_nodes(addresses[0], &NODES).unwrap();
    node.ip("link del kube-lb0").unwrap();
    lab.wait_on_nodes(addresses[0], &NODES).unwrap();
    lab.wait_routes(&addresses, &NODES).unwrap();
}
