//! Addresses of local pools while agents are replaced, and on a node that goes: always one node answers for them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use e2e::on_link::{
    mac_of, none_lost, on_the_wire, steady, wait_announcer, wait_holder, wait_told, with_service,
};
use lab::{PATIENCE, Run};

#[test]
fn agents_of_a_daemon_set_that_are_replaced_one_by_one_keep_their_local_addresses_and_cost_no_packet() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    lab.cluster.make_daemon_set().unwrap();
    let nodes: Vec<String> = lab.topology.nodes.iter().map(|node| node.name.clone()).collect();
    for node in &nodes {
        lab.cluster.agent(node).unwrap().kill().unwrap();
        wait_told(&mut lab, "alive", node, |lab| lab.start_agent(node).unwrap());
    }
    let homes: Vec<String> = addresses.iter().map(|address| wait_holder(&lab, *address)).collect();
    let pings = steady(&lab, &addresses);
    let seen = on_the_wire(&mut lab, &addresses, |lab| {
        for node in &nodes {
            let status = lab.cluster.agent(node).unwrap().terminate(PATIENCE).unwrap();
            assert!(status.success(), "{status}");
            wait_told(lab, "alive", node, |lab| lab.start_agent(node).unwrap());
        }
    });
    for (home, macs) in homes.iter().zip(&seen) {
        assert_eq!(*macs, [mac_of(&lab, home)]);
    }
    none_lost(pings);
}

#[test]
fn a_node_that_is_about_to_go_hands_its_local_addresses_over_and_gets_them_back_when_it_stays() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let address = addresses[0];
    let node = wait_holder(&lab, address);
    let taint = |lab: &lab::DataCentre<'_>, suffix: &str| {
        let word = format!("node.cloudprovider.kubernetes.io/shutdown{suffix}");
        lab.cluster.kubectl().run(&["taint", "node", &node, &word]).unwrap();
    };
    let mut other = String::new();
    let seen = on_the_wire(&mut lab, &[address], |lab| {
        taint(lab, "=:NoSchedule");
        other = e2e::on_link::wait_taken_over(lab, address, &node);
        wait_announcer(lab, address, &other);
        lab.wait_on_nodes(address, &[&other]).unwrap();
        taint(lab, "-");
        wait_announcer(lab, address, &node);
        lab.wait_on_nodes(address, &[&node]).unwrap();
    });
    assert_eq!(seen, [[mac_of(&lab, &node), mac_of(&lab, &other), mac_of(&lab, &node)]]);
}
