//! Local pools while one node or its agent fails, as a client on the subnet sees it and as its link saw it: the address
//! is answered for, and never by two.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Instant;

use e2e::on_link::{
    check_healed, mac_of, none_lost, now, on_the_wire, steady, told_on_the_wire, wait_announcer, wait_healed,
    wait_holder, wait_taken_over, wait_told, with_service,
};
use lab::{Error, PATIENCE, Run, faults::Muted, require, secs, until};

/// The agents' port for heartbeats.
const HEARTBEATS: u16 = 7473;

#[test]
fn an_agent_that_is_killed_alone_leaves_its_addresses_to_its_kernel_and_the_next_one_adopts_them() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let address = addresses[0];
    let node = wait_holder(&lab, address);
    let pings = steady(&lab, &[address]);
    let holders = on_the_wire(&mut lab, &[address], |lab| {
        wait_told(lab, "dead", &node, |lab| lab.cluster.agent(&node).unwrap().kill().unwrap());
        // Whoever would take it asks the wire first, and the kernel of the dead agent's node answers.
        lab.wait_on_nodes(address, &[&node]).unwrap();
        wait_told(lab, "alive", &node, |lab| lab.start_agent(&node).unwrap());
        lab.wait_on_nodes(address, &[&node]).unwrap();
        wait_announcer(lab, address, &node);
    });
    assert_eq!(holders, [[mac_of(&lab, &node)]]);
    none_lost(pings);
}

#[test]
fn an_agent_that_stands_still_for_a_while_keeps_its_addresses() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let address = addresses[1];
    let node = wait_holder(&lab, address);
    let pings = steady(&lab, &[address]);
    let holders = on_the_wire(&mut lab, &[address], |lab| {
        wait_told(lab, "dead", &node, |lab| lab.cluster.agent(&node).unwrap().pause().unwrap());
        lab.wait_on_nodes(address, &[&node]).unwrap();
        wait_told(lab, "alive", &node, |lab| lab.cluster.agent(&node).unwrap().resume().unwrap());
        lab.wait_on_nodes(address, &[&node]).unwrap();
    });
    assert_eq!(holders, [[mac_of(&lab, &node)]]);
    none_lost(pings);
}

#[test]
fn a_cable_that_is_pulled_and_put_back_moves_the_addresses_away_and_back_again() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let before: Vec<String> = addresses.iter().map(|address| wait_holder(&lab, *address)).collect();
    let mut between = Vec::new();
    let seen = on_the_wire(&mut lab, &addresses, |lab| {
        lab.topology.unplug(&before[0]).unwrap();
        for address in
            addresses.iter().zip(&before).filter(|(_, node)| **node == before[0]).map(|(it, _)| *it)
        {
            between.push(wait_taken_over(lab, address, &before[0]));
            // Nobody can hear who has no carrier: it gives up what it cannot serve. Who comes back sooner than a second
            // after that could not be told from one that never was away.
            wait_healed(lab, address, &between[between.len() - 1]);
        }
        lab.topology.plug(&before[0]).unwrap();
        for (address, node) in addresses.iter().zip(&before) {
            lab.wait_on_nodes(*address, &[node]).unwrap();
        }
    });
    let home = mac_of(&lab, &before[0]);
    assert_eq!(seen[0], [home.clone(), mac_of(&lab, &between[0]), home]);
}

#[test]
fn heartbeats_that_are_lost_one_way_move_no_address_while_its_holder_answers() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let address = addresses[0];
    let node = wait_holder(&lab, address);
    let pings = steady(&lab, &[address]);
    let holders = on_the_wire(&mut lab, &[address], |lab| {
        let host = lab.node(&node).unwrap().clone();
        wait_told(lab, "dead", &node, |lab| lab.topology.mute(&host, Muted::Udp(HEARTBEATS)).unwrap());
        lab.wait_on_nodes(address, &[&node]).unwrap();
        wait_told(lab, "alive", &node, |lab| lab.topology.unmute(&host).unwrap());
        lab.wait_on_nodes(address, &[&node]).unwrap();
    });
    assert_eq!(holders, [[mac_of(&lab, &node)]]);
    none_lost(pings);
}

#[test]
fn a_holder_that_is_not_heard_any_more_is_replaced_and_is_the_only_one_again_once_it_is_heard() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let address = addresses[1];
    let node = wait_holder(&lab, address);
    let host = lab.node(&node).unwrap().clone();
    let mut healed = now();
    let seen = told_on_the_wire(&mut lab, &[address], |lab| {
        lab.topology.mute(&host, Muted::Everything).unwrap();
        // Not heard, it may keep the address: its answers reach nobody.
        wait_taken_over(lab, address, &node);
        healed = now();
        lab.topology.unmute(&host).unwrap();
        wait_healed(lab, address, &node);
    });
    check_healed(&seen, healed, &mac_of(&lab, &node));
}

#[test]
fn a_node_that_hears_nothing_takes_no_address_from_those_that_are_heard() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let address = addresses[0];
    let node = wait_holder(&lab, address);
    let deaf = lab.topology.nodes.iter().find(|it| it.name != node).unwrap().clone();
    let pings = steady(&lab, &[address]);
    let holders = on_the_wire(&mut lab, &[address], |lab| {
        let silence = format!("not claimed: nothing is heard on the link address={address}");
        // The others are dead to it, so it is elected; they hear that it lives, and that it is not ready.
        lab.topology.deafen(&deaf).unwrap();
        until(format!("{} to have asked a wire that it does not hear", deaf.name), PATIENCE, || {
            let log = std::fs::read_to_string(lab.run.log(&format!("{}-agent", deaf.name))).unwrap();
            require!(log.contains(&silence), "it has not");
            Ok::<_, Error>(())
        })
        .unwrap();
        lab.wait_on_nodes(address, &[&node]).unwrap();
        wait_told(lab, "alive", &deaf.name, |lab| lab.topology.undeafen(&deaf).unwrap());
        lab.wait_on_nodes(address, &[&node]).unwrap();
    });
    assert_eq!(holders, [[mac_of(&lab, &node)]]);
    none_lost(pings);
}

#[test]
fn agents_that_are_restarted_one_after_the_other_cost_no_packet() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    // On SIGTERM another agent follows.
    lab.cluster.agent_environment.insert("PURELB_ON_SHUTDOWN".into(), "keep".into());
    let nodes: Vec<String> = lab.topology.nodes.iter().map(|node| node.name.clone()).collect();
    for node in &nodes {
        lab.cluster.agent(node).unwrap().kill().unwrap();
        wait_told(&mut lab, "alive", node, |lab| lab.start_agent(node).unwrap());
    }
    let homes: Vec<String> = addresses.iter().map(|address| wait_holder(&lab, *address)).collect();
    let pings = steady(&lab, &addresses);
    let holders = on_the_wire(&mut lab, &addresses, |lab| {
        for node in &nodes {
            lab.cluster.agent(node).unwrap().terminate(PATIENCE).unwrap();
            wait_told(lab, "alive", node, |lab| lab.start_agent(node).unwrap());
        }
    });
    for (home, holders) in homes.iter().zip(&holders) {
        assert_eq!(*holders, [mac_of(&lab, home)]);
    }
    none_lost(pings);
}

#[test]
fn an_address_that_someone_deletes_from_its_node_is_put_back() {
    let run = Run::start().unwrap();
    let (lab, addresses) = with_service(&run, 2);
    for address in addresses {
        let node = wait_holder(&lab, address);
        let host = &lab.node(&node).unwrap().namespace;
        let length = if address.is_ipv4() { 24 } else { 64 };
        let start = Instant::now();
        host.ip(&format!("address del {address}/{length} dev eth0")).unwrap();
        // The bar is 100 ms; here it is only told, for the machine may have other things to do.
        until(format!("{address} to be back"), secs(10), || {
            require!(host.ip_show(&["-brief", "address"])?.contains(&format!(" {address}/")), "it is not");
            Ok::<_, Error>(())
        })
        .unwrap();
        eprintln!("{address} was back on {node} after {:?}", start.elapsed());
    }
}
