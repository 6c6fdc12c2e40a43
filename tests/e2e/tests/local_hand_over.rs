//! Local pools where addresses change their node though nothing fails, or must not change anything at all: a client on
//! the subnet that sends all the time loses nothing but what the change of a link-layer address costs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;

use e2e::{
    apply_file,
    on_link::{mac_of, none_lost, on_the_wire, steady, wait_announcer, wait_holder, with_service},
};
use lab::{DataCentre, Error, PATIENCE, Pings, Run, require, until};

/// How long the client was without an answer: each hand-over costs the time that the wire takes for it.
fn tell_outage(pings: Vec<Pings>) {
    for pings in pings {
        let asked = pings.finish().unwrap();
        eprintln!("{} of {} packets lost, at most for {:?}", asked.lost(), asked.sent(), asked.outage());
    }
}

#[test]
fn a_node_that_is_labelled_to_announce_nothing_hands_its_addresses_over() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let address = addresses[0];
    let node = wait_holder(&lab, address);
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    let pings = steady(&lab, &[address]);
    let mut heir = node.clone();
    let seen = on_the_wire(&mut lab, &[address], |lab| {
        lab.cluster.kubectl().run(&["label", "node", &node, &format!("{label}=true")]).unwrap();
        until(format!("{address} to leave {node}"), PATIENCE, || {
            heir = wait_holder(lab, address);
            require!(heir != node, "it is still there");
            Ok::<_, Error>(())
        })
        .unwrap();
        wait_announcer(lab, address, &heir);
        lab.cluster.kubectl().run(&["label", "node", &node, &format!("{label}-")]).unwrap();
        lab.wait_on_nodes(address, &[&node]).unwrap();
        wait_announcer(lab, address, &node);
    });
    let (home, away) = (mac_of(&lab, &node), mac_of(&lab, &heir));
    assert_eq!(seen, [[home.clone(), away, home]]);
    tell_outage(pings);
}

#[test]
fn a_service_group_that_is_deleted_leaves_local_addresses_as_they_are() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 2);
    let nodes: Vec<String> = addresses.iter().map(|address| wait_holder(&lab, *address)).collect();
    let on = |lab: &DataCentre<'_>, node: &str| {
        let node = lab.topology.nodes.iter().find(|it| it.name == node).unwrap();
        let shown = node.namespace.ip_show(&["-brief", "address"]).unwrap();
        addresses
            .iter()
            .filter_map(|address| {
                shown.split_whitespace().find(|it| it.starts_with(&format!("{address}/"))).map(str::to_owned)
            })
            .collect::<Vec<_>>()
    };
    let planned = |lab: &DataCentre<'_>| {
        let count = |node: &lab::Host| {
            let log = fs::read_to_string(lab.run.log(&format!("{}-agent", node.name))).unwrap();
            log.lines().filter(|line| line.contains(": planned ") && line.contains("default/my-app")).count()
        };
        lab.topology.nodes.iter().map(count).collect::<Vec<_>>()
    };
    let before: Vec<_> = nodes.iter().map(|node| on(&lab, node)).collect();
    let pings = steady(&lab, &addresses);
    on_the_wire(&mut lab, &addresses, |lab| {
        let wait_planned = |lab: &DataCentre<'_>, plans: &[usize]| {
            until("every node to plan anew", PATIENCE, || {
                let now = planned(lab);
                require!(now.iter().zip(plans).all(|(now, before)| now > before), "{plans:?}, then {now:?}");
                Ok::<_, Error>(())
            })
            .unwrap();
        };
        let plans = planned(lab);
        lab.cluster.kubectl().run(&["delete", "servicegroup", "onlink", "-n", "purelb-system"]).unwrap();
        wait_planned(lab, &plans);
        assert_eq!(nodes.iter().map(|node| on(lab, node)).collect::<Vec<_>>(), before);
        // The claims hear of plans in their order: what follows from the first has followed before the second.
        let plans = planned(lab);
        apply_file(lab, "local-pools.yaml").unwrap();
        wait_planned(lab, &plans);
    });
    assert_eq!(nodes.iter().map(|node| on(&lab, node)).collect::<Vec<_>>(), before);
    none_lost(pings);
}

#[test]
fn a_node_that_joins_takes_its_addresses_only_when_it_is_there_to_answer_for_them() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 2);
    let address = addresses[0];
    let node = wait_holder(&lab, address);
    lab.cluster.agent(&node).unwrap().terminate(PATIENCE).unwrap();
    let other = wait_holder(&lab, address);
    assert_ne!(other, node);
    let pings = steady(&lab, &[address]);
    let seen = on_the_wire(&mut lab, &[address], |lab| {
        lab.start_agent(&node).unwrap();
        lab.wait_on_nodes(address, &[&node]).unwrap();
        wait_announcer(lab, address, &node);
    });
    assert_eq!(seen, [[mac_of(&lab, &other), mac_of(&lab, &node)]]);
    tell_outage(pings);
}
