//! Local pools while machines do not hear each other, as a client on the subnet sees it and as its link saw it: nodes
//! without an API server, halves of a subnet, and hosts that nobody reckoned with.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use e2e::{
    INSTALL_NAMESPACE,
    on_link::{
        check_healed, dual_stack, holders, mac_of, nodes, none_lost, now, on_the_wire, steady,
        told_on_the_wire, wait_announcer, wait_healed, wait_holder, wait_taken_over, with_service,
    },
};
use lab::{DataCentre, Error, PATIENCE, Run, require, until};
use serde_json::json;

fn pause_api_server(lab: &mut DataCentre<'_>, is_paused: bool) {
    let control_plane = &mut lab.cluster.control_plane;
    let name = ["apiserver", "kube-apiserver"].into_iter().find(|name| control_plane.process(name).is_some());
    let server = control_plane.process(name.unwrap()).unwrap();
    if is_paused { server.pause().unwrap() } else { server.resume().unwrap() }
}

#[test]
fn without_an_api_server_a_holder_that_dies_is_replaced_and_the_service_says_so_afterwards() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let victim = wait_holder(&lab, addresses[0]);
    let mut heirs = Vec::new();
    on_the_wire(&mut lab, &addresses, |lab| {
        pause_api_server(lab, true);
        lab.topology.unplug(&victim).unwrap();
        lab.cluster.agent(&victim).unwrap().kill().unwrap();
        heirs.push(wait_taken_over(lab, addresses[0], &victim));
        pause_api_server(lab, false);
        wait_announcer(lab, addresses[0], &heirs[0]);
    });
}

#[test]
fn a_node_that_only_the_api_server_does_not_hear_keeps_its_addresses() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let address = addresses[0];
    let node = wait_holder(&lab, address);
    let by_mac = on_the_wire(&mut lab, &[address], |lab| {
        let (host, control) = (lab.node(&node).unwrap().clone(), lab.topology.control.clone());
        lab.topology.blackhole(&host, &control).unwrap();
        // What comes meanwhile it does not hear of: the others take what they are elected for.
        let later = dual_stack(lab, "later", "onlink");
        lab.wait_on_nodes(address, &[&node]).unwrap();
        lab.topology.heal(&host).unwrap();
        later.iter().for_each(|address| drop(wait_holder(lab, *address)));
        lab.wait_on_nodes(address, &[&node]).unwrap();
    });
    assert_eq!(by_mac, [[mac_of(&lab, &node)]]);
}

#[test]
fn when_halves_of_a_subnet_find_each_other_again_one_holder_is_left_and_it_is_the_elected_one() {
    let run = Run::start().unwrap();
    let (mut lab, addresses) = with_service(&run, 3);
    let address = addresses[0];
    let home = wait_holder(&lab, address);
    let names: Vec<String> = lab.topology.nodes.iter().map(|node| node.name.clone()).collect();
    // The client is with the third node. The two hear each other, and do not take themselves for cut off.
    let other = names.iter().find(|name| **name != home).unwrap();
    let third = names.iter().find(|name| **name != home && *name != other).unwrap();
    let island = [home.as_str(), other.as_str()];
    let mut healed = now();
    let seen = told_on_the_wire(&mut lab, &[address], |lab| {
        lab.topology.split(&island).unwrap();
        until(format!("{address} on both sides"), PATIENCE, || {
            let holders = holders(lab, address)?;
            require!(holders.contains(&home) && holders.contains(third), "it is on {holders:?}");
            Ok::<_, Error>(())
        })
        .unwrap();
        healed = now();
        lab.topology.rejoin(&island).unwrap();
        wait_healed(lab, address, &home);
    });
    check_healed(&seen, healed, &mac_of(&lab, &home));
}

#[test]
fn an_address_that_a_stranger_has_is_not_claimed_but_reported_and_claimed_once_it_is_free() {
    let run = Run::start().unwrap();
    let lab = nodes(&run, 2);
    let stranger = lab.topology.control.namespace.clone();
    // The lowest free ones, which the Service gets.
    let taken = ["172.30.1.100/24", "fd00:30:1::100/64"];
    for address in taken {
        stranger.ip(&format!("address add {address} dev eth0 nodad")).unwrap();
    }
    let addresses = dual_stack(&lab, "my-app", "onlink");
    assert_eq!(
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["172.30.1.100", "fd00:30:1::100"]
    );
    let mac = stranger.ip_show(&["-brief", "link", "show", "eth0"]).unwrap();
    let mac = mac.split_whitespace().nth(2).unwrap();
    let kubectl = lab.cluster.kubectl();
    for address in &addresses {
        let words = ["leases", "-n", INSTALL_NAMESPACE];
        kubectl
            .wait(&format!("{address} in the conflicts of a Lease"), &words, PATIENCE, |leases| {
                let items = leases["items"].as_array().into_iter().flatten();
                let told = items.filter_map(|lease| {
                    lease["metadata"]["annotations"]["purelb.io/address-conflicts"].as_str()
                });
                let told: Vec<&str> = told.collect();
                let is_told =
                    told.iter().any(|text| text.contains(&address.to_string()) && text.contains(mac));
                require!(is_told, "{told:?}");
                Ok(())
            })
            .unwrap();
        lab.wait_on_nodes(*address, &[]).unwrap();
    }
    for address in taken {
        stranger.ip(&format!("address del {address} dev eth0")).unwrap();
    }
    addresses.iter().for_each(|address| drop(wait_holder(&lab, *address)));
}

#[test]
fn of_several_subnets_each_gets_an_address_from_a_node_that_is_on_it() {
    let run = Run::start().unwrap();
    let lab = nodes(&run, 3);
    for (number, node) in lab.topology.nodes.iter().enumerate().skip(1) {
        let lines = format!(
            "address add 172.30.2.{}/24 dev eth0\naddress add fd00:30:2::{}/64 dev eth0 nodad",
            number + 10,
            number + 10
        );
        node.namespace.ip(&lines).unwrap();
    }
    let pool = |network: u8| {
        json!({
            "subnet": format!("172.30.{network}.0/24"), "pool": format!("172.30.{network}.210-172.30.{network}.219"),
            "aggregation": "default",
        })
    };
    let group = json!({
        "apiVersion": "purelb.io/v2",
        "kind": "ServiceGroup",
        "metadata": { "name": "everywhere", "namespace": INSTALL_NAMESPACE },
        "spec": { "local": { "v4pools": [pool(1), pool(2)], "multiPool": true } },
    });
    let kubectl = lab.cluster.kubectl();
    kubectl.apply(&group.to_string()).unwrap();
    let has_subnet = |leases: &serde_json::Value| {
        let items = leases["items"].as_array().into_iter().flatten();
        let subnets =
            items.filter_map(|lease| lease["metadata"]["annotations"]["purelb.io/subnets"].as_str());
        let count = subnets.filter(|subnets| subnets.contains("172.30.2.0/24")).count();
        require!(count == 2, "on {count} nodes");
        Ok(())
    };
    let words = ["leases", "-n", INSTALL_NAMESPACE];
    kubectl.wait("the second subnet in two Leases", &words, PATIENCE, has_subnet).unwrap();
    let service = e2e::service("my-app", &json!({ "purelb.io/service-group": "everywhere" }));
    kubectl.apply(&service.to_string()).unwrap();
    let addresses = until("an address of each subnet", PATIENCE, || {
        let addresses = lab.addresses("default", "my-app")?;
        require!(addresses.len() == 2, "{addresses:?}");
        Ok::<_, Error>(addresses)
    })
    .unwrap();
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    assert!(
        texts.contains(&"172.30.1.210".to_owned()) && texts.contains(&"172.30.2.210".to_owned()),
        "{texts:?}"
    );
    for address in &addresses {
        let holder = wait_holder(&lab, *address);
        assert!(
            address.to_string().starts_with("172.30.1.") || holder != "node1",
            "{address} is on {holder}"
        );
    }
    none_lost(steady(&lab, &addresses[..1]));
}
