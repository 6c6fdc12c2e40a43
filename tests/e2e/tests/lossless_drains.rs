//! Nodes that go: what their router has of their routes meanwhile, read from its own table, and what it costs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, fs, net::IpAddr};

use e2e::{service, with_daemon_set};
use lab::{
    DataCentre, Error, PATIENCE, Result, Run, command,
    pods::Readiness,
    require,
    router::Software,
    traffic::{Sink, Stream},
    until,
};
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node1", "node2"];
const TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// So long routes are marked before they are withdrawn: long enough to be looked at in between.
const WAIT: (&str, &str) = ("PURELB_DRAIN_WAIT", "4s");

/// A lab with two nodes and a router in their own AS, where LOCAL_PREF is told, too, and a Service that it has from both.
fn drained(run: &Run) -> (DataCentre<'_>, IpAddr) {
    let lab = with_daemon_set(run, 2, (Software::Frr, 64512), &[WAIT]).unwrap();
    lab.cluster.kubectl().apply(&service("my-app", &json!({})).to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    lab.wait_routes(&addresses, &NODES).unwrap();
    (lab, addresses[0])
}

/// What the router's table has of an address, by the node that told it: LOCAL_PREF, and whether it is marked.
fn paths(lab: &DataCentre<'_>, address: IpAddr) -> Result<BTreeMap<String, (u64, bool)>> {
    let words = format!("show bgp ipv4 unicast {address}/32 json");
    let shown = command::run(&mut lab.routers[0].cli(&words))?;
    let shown: Value = serde_json::from_str(&shown).map_err(|error| Error::parse("vtysh", error))?;
    let paths = shown["paths"].as_array().into_iter().flatten().filter_map(|path| {
        let peer: IpAddr = path["peer"]["peerId"].as_str()?.parse().ok()?;
        let node = lab.topology.nodes.iter().find(|node| IpAddr::from(node.addresses.v4) == peer)?;
        let communities = path["community"]["string"].as_str().unwrap_or_default();
        let is_marked = communities.split(' ').any(|community| community == "graceful-shutdown");
        Some((node.name.clone(), (path["locPrf"].as_u64()?, is_marked)))
    });
    Ok(paths.collect())
}

/// Waits until the router's table has exactly these paths.
fn wait_paths(lab: &DataCentre<'_>, address: IpAddr, expected: &[(&str, (u64, bool))]) {
    let expected: BTreeMap<_, _> = expected.iter().map(|(node, path)| ((*node).to_owned(), *path)).collect();
    until(format!("{address} with {expected:?}"), PATIENCE, || {
        let paths = paths(lab, address)?;
        require!(paths == expected, "{paths:?}");
        Ok(())
    })
    .unwrap();
}

const PLAIN: (u64, bool) = (100, false);
const MARKED: (u64, bool) = (0, true);

#[test]
fn a_node_that_is_about_to_go_marks_its_routes_then_withdraws_them_and_has_them_back_unmarked() {
    let run = Run::start().unwrap();
    let (mut lab, address) = drained(&run);
    let kubectl = lab.cluster.kubectl().clone();
    wait_paths(&lab, address, &[("node1", PLAIN), ("node2", PLAIN)]);
    kubectl.run(&["cordon", "node1"]).unwrap();
    kubectl.run(&["taint", "node", "node1", &format!("{TAINT}=1700000000:NoSchedule")]).unwrap();
    wait_paths(&lab, address, &[("node1", MARKED), ("node2", PLAIN)]);
    // It has taken the other way, and this one is still there.
    lab.routers[0].wait_next_hops(address.into(), &[lab.node("node2").unwrap()], PATIENCE).unwrap();
    wait_paths(&lab, address, &[("node2", PLAIN)]);
    lab.wait_on_nodes(address, &["node2"]).unwrap();
    kubectl.run(&["taint", "node", "node1", &format!("{TAINT}-")]).unwrap();
    wait_paths(&lab, address, &[("node1", PLAIN), ("node2", PLAIN)]);
    // A mark that is taken away in time withdraws nothing.
    let label = |suffix: &str| {
        let word = format!("node.kubernetes.io/exclude-from-external-load-balancers{suffix}");
        kubectl.run(&["label", "node", "node1", &word]).unwrap();
    };
    label("=true");
    wait_paths(&lab, address, &[("node1", MARKED), ("node2", PLAIN)]);
    label("-");
    wait_paths(&lab, address, &[("node1", PLAIN), ("node2", PLAIN)]);
    kubectl.run(&["delete", "node", "node1"]).unwrap();
    wait_paths(&lab, address, &[("node1", MARKED), ("node2", PLAIN)]);
    wait_paths(&lab, address, &[("node2", PLAIN)]);
    // Cordon was none of the reasons.
    let log = fs::read_to_string(lab.cluster.agent("node1").unwrap().log()).unwrap();
    let marked: Vec<_> = log.lines().filter(|line| line.contains("routes are marked")).collect();
    let reasons = [TAINT, "is labelled", "is deleted"];
    let is_said = marked.iter().zip(reasons).all(|(line, reason)| line.contains(reason));
    assert!(marked.len() == reasons.len() && is_said, "{marked:#?}");
}

#[test]
fn a_node_that_is_drained_and_then_ends_costs_no_packet() {
    let run = Run::start().unwrap();
    let (mut lab, address) = drained(&run);
    let client = lab.topology.client.namespace.clone();
    let sink = Sink::start_on(lab.topology.nodes.iter().map(|node| &node.namespace)).unwrap();
    sink.wait_reachable(&client, &[address]).unwrap();
    // So many flows that some are on the node that goes.
    let stream = Stream::start(&client, &[address; 16], &sink).unwrap();
    let kubectl = lab.cluster.kubectl().clone();
    kubectl.run(&["cordon", "node1"]).unwrap();
    kubectl.run(&["taint", "node", "node1", "node.kubernetes.io/out-of-service=:NoExecute"]).unwrap();
    wait_paths(&lab, address, &[("node1", MARKED), ("node2", PLAIN)]);
    wait_paths(&lab, address, &[("node2", PLAIN)]);
    let agent = lab.cluster.agent("node1").unwrap();
    let status = agent.terminate(PATIENCE).unwrap();
    assert!(status.success(), "{status}: {}", agent.tail(10));
    lab.wait_on_nodes(address, &["node2"]).unwrap();
    stream.wait_arrived(&sink, 8000).unwrap();
    let (sent, lost) = stream.finish(&sink).unwrap();
    assert_eq!(lost, 0, "of {sent} packets");
}

#[test]
fn pods_of_a_local_service_that_are_replaced_node_by_node_cost_no_packet() {
    let run = Run::start().unwrap();
    let lab = with_daemon_set(&run, 3, (Software::Frr, 65001), &[("PURELB_LINGER", "1s")]).unwrap();
    let nodes = ["node1", "node2", "node3"];
    let mut local = service("my-app", &json!({ "purelb.io/service-group": "routed" }));
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    lab.cluster.kubectl().apply(&local.to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    let mut workload = lab.deploy("default", "my-app", &addresses, &nodes).unwrap();
    lab.wait_routes(&addresses, &nodes).unwrap();
    let client = lab.topology.client.namespace.clone();
    // What comes to a node without the address is lost.
    let sink = Sink::start_on(lab.topology.nodes.iter().map(|node| &node.namespace)).unwrap();
    sink.wait_reachable(&client, &addresses).unwrap();
    let stream = Stream::start(&client, &[addresses[0]; 16], &sink).unwrap();
    for node in nodes {
        let others: Vec<_> = nodes.into_iter().filter(|other| *other != node).collect();
        workload.set_readiness(node, Readiness::Draining);
        workload.publish(lab.cluster.kubectl()).unwrap();
        lab.wait_routes(&addresses, &others).unwrap();
        lab.wait_on_nodes(addresses[0], &nodes).unwrap();
        workload.stop(node).unwrap();
        workload.publish(lab.cluster.kubectl()).unwrap();
        lab.wait_on_nodes(addresses[0], &others).unwrap();
        workload.start(&run, &lab.topology, node).unwrap();
        workload.publish(lab.cluster.kubectl()).unwrap();
        lab.wait_routes(&addresses, &nodes).unwrap();
    }
    stream.wait_arrived(&sink, 5000).unwrap();
    let (sent, lost) = stream.finish(&sink).unwrap();
    assert_eq!(lost, 0, "of {sent} packets");
}

#[test]
fn the_only_pod_of_a_local_service_that_moves_costs_no_packet_though_kube_proxy_is_slow_where_it_moves_to() {
    let run = Run::start().unwrap();
    let lab = with_daemon_set(&run, 2, (Software::Frr, 65001), &[]).unwrap();
    let mut local = service("my-app", &json!({ "purelb.io/service-group": "routed" }));
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    lab.cluster.kubectl().apply(&local.to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    let mut workload = lab.deploy("default", "my-app", &addresses, &["node1"]).unwrap();
    lab.wait_routes(&addresses, &["node1"]).unwrap();
    // Whoever asks kube-proxy there gets no answer, and announces when it has waited as long as it may.
    let service = lab.cluster.kubectl().get(&["service", "my-app"]).unwrap();
    let port = service["spec"]["healthCheckNodePort"].as_u64().unwrap();
    let chain = format!("chain input {{ type filter hook input priority -10; tcp dport {port} drop; }}");
    let node2 = &lab.node("node2").unwrap().namespace;
    let table = format!("table inet kube_proxy {{\n{chain}\n}}\n");
    command::run_with_input(node2.command("nft").args(["-f", "-"]), &table).unwrap();
    let client = lab.topology.client.namespace.clone();
    let sink = Sink::start_on(lab.topology.nodes.iter().map(|node| &node.namespace)).unwrap();
    sink.wait_reachable(&client, &addresses).unwrap();
    let stream = Stream::start(&client, &addresses, &sink).unwrap();
    // The new one is ready and the old one terminates: one event.
    workload.start(&run, &lab.topology, "node2").unwrap();
    workload.set_readiness("node1", Readiness::Draining);
    workload.publish(lab.cluster.kubectl()).unwrap();
    lab.wait_routes(&addresses, &["node2"]).unwrap();
    stream.wait_arrived(&sink, 4000).unwrap();
    let (sent, lost) = stream.finish(&sink).unwrap();
    assert_eq!(lost, 0, "of {sent} packets");
}
