//! Local pools: addresses on the nodes' own subnet, as a client on that subnet sees them, and as its link saw them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::IpAddr;

use e2e::on_link::{
    ask, dual_stack, forget, mac_of, nodes, on_the_wire, wait_announcer, wait_answer, wait_holder,
};
use lab::{DataCentre, Run, pods::Workload};

/// Nodes with a Service of both families on their own subnet, a pod behind it on every node.
fn lab(run: &Run, count: u8) -> (DataCentre<'_>, Vec<IpAddr>, Workload) {
    let lab = nodes(run, count);
    let addresses = dual_stack(&lab, "my-app", "onlink");
    let nodes: Vec<&str> = lab.topology.nodes.iter().map(|node| node.name.as_str()).collect();
    let workload = lab.deploy("default", "my-app", &addresses, &nodes).unwrap();
    addresses.iter().for_each(|address| drop(wait_holder(&lab, *address)));
    (lab, addresses, workload)
}

#[test]
fn one_node_of_the_subnet_answers_for_an_address_and_says_so() {
    let run = Run::start().unwrap();
    let (mut lab, addresses, _workload) = lab(&run, 3);
    let holders = on_the_wire(&mut lab, &addresses, |lab| {
        for address in &addresses {
            let node = wait_answer(lab, *address);
            wait_announcer(lab, *address, &node);
            lab.wait_on_nodes(*address, &[&node]).unwrap();
            forget(lab, *address);
            assert_eq!(ask(lab, *address).unwrap(), node);
        }
    });
    for (address, holders) in addresses.iter().zip(holders) {
        assert_eq!(holders, [mac_of(&lab, &ask(&lab, *address).unwrap())], "{address}");
    }
    let told = lab.wait_event("default", "my-app", "Announcing").unwrap();
    assert!(told.contains("on eth0"), "{told}");
    lab.cluster.kubectl().run(&["delete", "service", "my-app"]).unwrap();
    for address in &addresses {
        lab.wait_on_nodes(*address, &[]).unwrap();
    }
}

#[test]
fn when_the_holder_dies_another_node_answers_and_never_two() {
    let run = Run::start().unwrap();
    let (mut lab, addresses, _workload) = lab(&run, 3);
    let before: Vec<String> = addresses.iter().map(|address| wait_answer(&lab, *address)).collect();
    let victim = before[0].clone();
    let macs: Vec<String> = before.iter().map(|node| mac_of(&lab, node)).collect();
    let mut after = Vec::new();
    let holders = on_the_wire(&mut lab, &addresses, |lab| {
        for (address, node) in addresses.iter().zip(&before) {
            assert_eq!(wait_answer(lab, *address), *node);
        }
        lab.topology.unplug(&victim).unwrap();
        lab.cluster.agent(&victim).unwrap().kill().unwrap();
        after = addresses.iter().map(|address| wait_answer(lab, *address)).collect();
    });
    for (number, address) in addresses.iter().enumerate() {
        assert_ne!(after[number], victim, "{address}");
        wait_announcer(&lab, *address, &after[number]);
        let mut expected = vec![macs[number].clone(), mac_of(&lab, &after[number])];
        expected.dedup();
        assert_eq!(holders[number], expected, "{address}: what it did not hold has not moved");
    }
}
