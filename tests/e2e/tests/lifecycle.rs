//! Programs that crash, restart and end, a Service that changes its mind, and an API server that goes away: what
//! is held stays held, what is given up is cleaned up.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use e2e::{service, with_one_router, with_router_of};
use lab::{Capture, DataCentre, Error, PATIENCE, Run, require, secs, until};
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node1", "node2"];

/// A Service with its addresses in the router's table from all nodes.
fn announced(lab: &DataCentre<'_>, name: &str) -> Vec<IpAddr> {
    lab.cluster.kubectl().apply(&service(name, &json!({})).to_string()).unwrap();
    let addresses = lab.wait_addresses("default", name).unwrap();
    lab.wait_routes(&addresses, &NODES).unwrap();
    addresses
}

/// Looks again and again for a while, and fails at the first moment when the router's table is not this.
fn routes_stay(lab: &DataCentre<'_>, addresses: &[IpAddr], nodes: &[&str], during: Duration) {
    let hosts = nodes.iter().map(|node| lab.node(node).unwrap()).collect::<Vec<_>>();
    let end = Instant::now() + during;
    while Instant::now() < end {
        for address in addresses {
            let next_hops = lab.routers[0].next_hops((*address).into()).unwrap();
            assert!(lab::router::are_hosts(&next_hops, &hosts), "{address} is reached over {next_hops:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_api_server_that_goes_away_and_comes_back_costs_no_route() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let addresses = announced(&lab, "before");
    // Cut off: packets vanish, connections hang. Five hold times, and longer than a Lease lives.
    let capture = Capture::start(&run, lab.routers[0].host(), "eth0", "tcp port 179").unwrap();
    lab.topology.unplug("control").unwrap();
    routes_stay(&lab, &addresses, &NODES, secs(16));
    let captured = capture.finish().unwrap();
    // The router's own End-of-RIB may come as late as it likes. FRR asks for everything again five seconds after it has
    // read its configuration; whoever is asked answers, but takes nothing back.
    let router = lab.routers[0].host().addresses.v4;
    let nothing = Vec::<String>::new();
    let is_asked =
        captured.packets(&format!("bgp.type == 5 && ip.src == {router}"), &["ip.src"]).unwrap() != nothing;
    let only = if is_asked { " && bgp.update.withdrawn_routes.length > 0" } else { "" };
    let by_nodes = format!("bgp.type == 2 && ip.src != {router}{only}");
    assert_eq!(captured.packets(&by_nodes, &["ip.src"]).unwrap(), nothing, "a node has sent an UPDATE");
    assert_ne!(
        captured.packets("bgp.type == 4", &["ip.src"]).unwrap(),
        Vec::<String>::new(),
        "sessions went on"
    );
    lab.topology.plug("control").unwrap();
    announced(&lab, "after");
    routes_stay(&lab, &addresses, &NODES, secs(1));
    lab.cluster.kubectl().run(&["delete", "service", "before"]).unwrap();
    lab.wait_routes(&addresses, &[]).unwrap();
}

#[test]
fn an_api_server_that_hangs_costs_no_route() {
    let run = Run::start().unwrap();
    let mut lab = with_one_router(&run, 2).unwrap();
    let addresses = announced(&lab, "before");
    let name = ["apiserver", "kube-apiserver"]
        .into_iter()
        .find(|name| lab.cluster.control_plane.process(name).is_some());
    let name = name.unwrap();
    lab.cluster.control_plane.process(name).unwrap().pause().unwrap();
    routes_stay(&lab, &addresses, &NODES, secs(8));
    lab.cluster.control_plane.process(name).unwrap().resume().unwrap();
    announced(&lab, "after");
    lab.wait_routes(&addresses, &NODES).unwrap();
}

#[test]
fn a_killed_agent_adopts_its_addresses_and_removes_those_that_were_given_up_meanwhile_and_the_router_never_misses_it()
 {
    let run = Run::start().unwrap();
    let mut lab = with_one_router(&run, 2).unwrap();
    let (kept, given_up) = (announced(&lab, "kept"), announced(&lab, "given-up"));
    lab.cluster.agent("node1").unwrap().kill().unwrap();
    lab.cluster.kubectl().run(&["delete", "service", "given-up"]).unwrap();
    // What a killed agent leaves stays on the node, and the router forwards to it (RFC 4724).
    lab.wait_on_nodes(given_up[0], &["node1"]).unwrap();
    lab.wait_routes(&given_up, &["node1"]).unwrap();
    routes_stay(&lab, &kept, &NODES, secs(5));
    lab.start_agent("node1").unwrap();
    lab.wait_routes(&kept, &NODES).unwrap();
    lab.wait_on_nodes(kept[0], &NODES).unwrap();
    lab.wait_on_nodes(given_up[0], &[]).unwrap();
    lab.wait_routes(&given_up, &[]).unwrap();
}

#[test]
fn an_agent_that_is_asked_to_end_withdraws_and_removes_its_addresses() {
    let run = Run::start().unwrap();
    let mut lab = with_one_router(&run, 2).unwrap();
    let addresses = announced(&lab, "my-app");
    let status = lab.cluster.agent("node1").unwrap().terminate(PATIENCE).unwrap();
    assert!(status.success(), "{status}: {}", lab.cluster.agent("node1").unwrap().tail(10));
    lab.wait_routes(&addresses, &["node2"]).unwrap();
    lab.wait_on_nodes(addresses[0], &["node2"]).unwrap();
}

#[test]
fn an_agent_that_ends_for_good_marks_its_routes_as_about_to_leave_before_it_withdraws_them() {
    let run = Run::start().unwrap();
    // Within one AS, where LOCAL_PREF is told, too.
    let mut lab = with_router_of(&run, 1, 64512).unwrap();
    lab.cluster.kubectl().apply(&service("my-app", &json!({})).to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    lab.wait_routes(&addresses, &["node1"]).unwrap();
    let node = IpAddr::from(lab.node("node1").unwrap().addresses.v4);
    let capture = Capture::start(&run, lab.routers[0].host(), "eth0", "tcp port 179").unwrap();
    let status = lab.cluster.agent("node1").unwrap().terminate(PATIENCE).unwrap();
    assert!(status.success(), "{status}: {}", lab.cluster.agent("node1").unwrap().tail(10));
    lab.wait_routes(&addresses, &[]).unwrap();
    // RFC 8326 §4.2: the community 65535:0, and within an AS the lowest preference.
    let community = "bgp.update.path_attribute.community";
    let marked = format!(
        "ip.src == {node} && bgp.update.path_attribute.local_pref == 0 && ({community}_wellknown == 0xffff0000 || \
         ({community}_as == 65535 && {community}_value == 0))"
    );
    let ended = format!("ip.src == {node} && bgp.notify.major_error == 6");
    let captured = capture.finish().unwrap();
    let times = |filter: &str| -> Vec<f64> {
        let lines = captured.packets(filter, &["frame.time_epoch"]).unwrap();
        lines.iter().map(|line| line.parse().unwrap()).collect()
    };
    let (marked, ended) = (times(&marked), times(&ended));
    assert!(!marked.is_empty(), "no route was marked");
    assert!(ended.iter().all(|end| marked[0] < *end) && !ended.is_empty(), "{marked:?}, {ended:?}");
}

#[test]
fn a_service_that_is_no_load_balancer_any_more_gives_its_address_back() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let addresses = announced(&lab, "my-app");
    let kubectl = lab.cluster.kubectl();
    kubectl.run(&["patch", "service", "my-app", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]).unwrap();
    lab.wait_routes(&addresses, &[]).unwrap();
    lab.wait_on_nodes(addresses[0], &[]).unwrap();
    let released = kubectl.wait(
        "an empty status and no annotation of ours",
        &["service", "my-app"],
        PATIENCE,
        |object| {
            let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
            require!(ingress.is_none_or(Vec::is_empty), "ingress {ingress:?}");
            let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
            let ours = annotations.into_iter().flatten().find(|(key, _)| key.starts_with("purelb.io/"));
            require!(ours.is_none(), "annotation {ours:?}");
            Ok(())
        },
    );
    released.unwrap();
    // The lowest free address is the one that was given back.
    assert_eq!(announced(&lab, "next"), addresses);
}

#[test]
fn an_allocator_that_restarts_changes_nothing() {
    let run = Run::start().unwrap();
    let mut lab = with_one_router(&run, 2).unwrap();
    let addresses = announced(&lab, "my-app");
    let version = |lab: &DataCentre<'_>| {
        let object = lab.cluster.kubectl().get(&["service", "my-app"]).unwrap();
        object["metadata"]["resourceVersion"].clone()
    };
    let before = version(&lab);
    lab.cluster.allocator().unwrap().kill().unwrap();
    lab.start_allocator().unwrap();
    // It decides again, so it has read the Service that it found.
    let others = announced(&lab, "later");
    assert_ne!(others, addresses);
    assert_eq!(version(&lab), before, "nothing was written to the Service that holds its address");
    until("the route of the Service that was there before", secs(5), || {
        let next_hops = lab.routers[0].next_hops(addresses[0].into())?;
        require!(next_hops.len() == 2, "next hops {next_hops:?}");
        Ok::<_, Error>(())
    })
    .unwrap();
}

#[test]
fn a_router_behind_a_blackhole_is_given_up_after_the_hold_time_and_taken_back() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let addresses = announced(&lab, "my-app");
    let (node, router) = (lab.node("node1").unwrap(), lab.routers[0].host());
    lab.topology.blackhole(node, router).unwrap();
    lab.wait_routes(&addresses, &["node2"]).unwrap();
    let words = ["bgpnodestatus", "node1", "-n", e2e::INSTALL_NAMESPACE];
    let status = lab.cluster.kubectl().wait("the reason in the status", &words, PATIENCE, |status| {
        let peer = status.pointer("/status/peers/0").unwrap_or(&Value::Null);
        require!(peer["state"] != "Established", "{peer}");
        let error = peer["lastError"].as_str().unwrap_or_default();
        require!(error.to_lowercase().contains("hold timer expired"), "{peer}");
        Ok(())
    });
    status.unwrap();
    lab.topology.heal(node).unwrap();
    lab.wait_routes(&addresses, &NODES).unwrap();
}
