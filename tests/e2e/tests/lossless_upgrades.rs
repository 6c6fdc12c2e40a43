//! Agents that are asked to end and decide by themselves: those that are replaced cost no packet, those that go for
//! good clean up.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, net::IpAddr};

use e2e::{INSTALL_NAMESPACE, service, with_daemon_set};
use lab::{
    DataCentre, Error, PATIENCE, Run,
    cluster::{DAEMON_SET, daemon_set},
    require,
    router::Software,
    traffic::{Sink, Stream},
    until,
};
use serde_json::json;

const NODES: [&str; 2] = ["node1", "node2"];

/// A Service of both families.
fn applied(lab: &DataCentre<'_>) -> Vec<IpAddr> {
    let mut service = service("my-app", &json!({}));
    service["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    lab.cluster.kubectl().apply(&service.to_string()).unwrap();
    lab.wait_addresses("default", "my-app").unwrap()
}

/// Waits until the router has the addresses from both nodes. GoBGP takes one way of several.
fn wait_known(lab: &DataCentre<'_>, software: Software, addresses: &[IpAddr]) {
    if software != Software::GoBgp {
        return lab.wait_routes(addresses, &NODES).unwrap();
    }
    lab.wait_node_statuses(&NODES).unwrap();
    for address in addresses {
        until(format!("{address} at the router"), PATIENCE, || {
            require!(lab.routers[0].next_hops((*address).into())?.len() == 1, "not there");
            Ok::<_, Error>(())
        })
        .unwrap();
    }
}

/// Waits until the agent of a node has written this.
fn wait_logged(lab: &mut DataCentre<'_>, node: &str, words: &str) {
    let log = lab.cluster.agent(node).unwrap().log().to_owned();
    until(format!("{words:?} in the log of {node}"), PATIENCE, || {
        let text = fs::read_to_string(&log).map_err(Error::path(&log))?;
        require!(text.contains(words), "not there");
        Ok::<_, Error>(())
    })
    .unwrap();
}

/// SIGTERM, and the end in good order.
fn terminate(lab: &mut DataCentre<'_>, node: &str) {
    let agent = lab.cluster.agent(node).unwrap();
    let status = agent.terminate(PATIENCE).unwrap();
    assert!(status.success(), "{status}: {}", agent.tail(10));
}

fn agents_are_replaced_one_by_one_behind(software: Software) {
    let run = Run::start().unwrap();
    let mut lab = with_daemon_set(&run, 2, (software, 65001), &[]).unwrap();
    let addresses = applied(&lab);
    wait_known(&lab, software, &addresses);
    let client = lab.topology.client.namespace.clone();
    let sink = Sink::start_on(lab.topology.nodes.iter().map(|node| &node.namespace)).unwrap();
    sink.wait_reachable(&client, &addresses).unwrap();
    let stream = Stream::start(&client, &addresses, &sink).unwrap();
    for node in NODES {
        terminate(&mut lab, node);
        wait_logged(&mut lab, node, "another agent follows");
        // As a DaemonSet does it: the next one goes when this one is ready.
        lab.start_agent(node).unwrap();
    }
    stream.wait_arrived(&sink, 2000).unwrap();
    let (sent, lost) = stream.finish(&sink).unwrap();
    assert_eq!(lost, 0, "of {sent} packets");
    wait_known(&lab, software, &addresses);
}

#[test]
fn agents_that_are_replaced_one_by_one_behind_frr_cost_no_packet() {
    agents_are_replaced_one_by_one_behind(Software::Frr);
}

#[test]
fn agents_that_are_replaced_one_by_one_behind_bird_cost_no_packet() {
    agents_are_replaced_one_by_one_behind(Software::Bird);
}

#[test]
fn agents_that_are_replaced_one_by_one_behind_gobgp_cost_no_packet() {
    agents_are_replaced_one_by_one_behind(Software::GoBgp);
}

#[test]
fn agents_leave_for_good_when_their_daemon_set_is_for_other_nodes_or_deleted_even_if_nobody_can_be_asked() {
    let run = Run::start().unwrap();
    let mut lab = with_daemon_set(&run, 2, (Software::Frr, 65001), &[]).unwrap();
    let addresses = applied(&lab);
    wait_known(&lab, Software::Frr, &addresses);
    let elsewhere = daemon_set(&json!({ "kubernetes.io/hostname": "node2" }));
    lab.cluster.kubectl().apply(&elsewhere.to_string()).unwrap();
    wait_logged(&mut lab, "node1", "home=Elsewhere");
    terminate(&mut lab, "node1");
    lab.wait_routes(&addresses, &["node2"]).unwrap();
    lab.wait_on_nodes(addresses[0], &["node2"]).unwrap();
    lab.cluster.kubectl().run(&["delete", "daemonset", DAEMON_SET, "-n", INSTALL_NAMESPACE]).unwrap();
    wait_logged(&mut lab, "node2", "home=Deleted");
    lab.topology.unplug("control").unwrap();
    terminate(&mut lab, "node2");
    lab.topology.plug("control").unwrap();
    lab.wait_routes(&addresses, &[]).unwrap();
    lab.wait_on_nodes(addresses[0], &[]).unwrap();
}
