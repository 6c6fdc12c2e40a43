//! The programs that the lab runs in its namespaces: pods that answer behind a router's equal-cost routes, a
//! client that never stops asking, a proxy between namespaces.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
};

use lab::{
    Capture, Error, Process, Run, Topology,
    helpers::{binary, probe},
    pods::Workload,
    require, secs, until,
};

const ADDRESS: &str = "198.51.100.1";

/// Two nodes with the address, a router with an equal-cost route to it over both.
fn behind_ecmp(run: &Run) -> Topology {
    let topology = Topology::build(run, 2, 1).unwrap();
    for node in &topology.nodes {
        node.namespace.ip(&format!("address add {ADDRESS}/32 dev lo")).unwrap();
    }
    let hops = topology.nodes.iter().map(|node| format!("nexthop via {}", node.addresses.v4));
    let hops = hops.collect::<Vec<_>>().join(" ");
    topology.routers[0].namespace.ip(&format!("route add {ADDRESS}/32 {hops}")).unwrap();
    topology
}

#[test]
fn pods_on_all_nodes_answer_and_a_cut_link_shows_as_lost_requests() {
    let run = Run::start().unwrap();
    let topology = behind_ecmp(&run);
    let address = ADDRESS.parse::<IpAddr>().unwrap();
    let mut workload = Workload::new("default", "my-app", 80, &[address]);
    for node in ["node1", "node2"] {
        workload.start(&run, &topology, node).unwrap();
    }
    let file = run.folder().join("attempts");
    let mut command = topology.client.namespace.command(binary("lab").unwrap());
    let target = SocketAddr::new(address, 80).to_string();
    command
        .args(["probe", "--interface", "eth1", "--patience-ms", "200", "--target", &target, "--out"])
        .arg(&file);
    let _probe = Process::spawn("probe", command, run.log("probe")).unwrap();
    let answering = |since| {
        let attempts = probe::attempts_since(&file, since)?;
        let lost = attempts.iter().filter(|attempt| attempt.error.is_some()).count();
        let nodes = attempts.into_iter().filter_map(|attempt| attempt.node).collect::<BTreeSet<_>>();
        Ok::<_, Error>((nodes, lost))
    };
    until("answers of both nodes", secs(20), || {
        let (nodes, lost) = answering(0)?;
        require!(nodes.len() == 2 && lost == 0, "answers of {nodes:?}, {lost} lost");
        Ok::<_, Error>(())
    })
    .unwrap();
    topology.unplug("node2").unwrap();
    let cut = probe::unix_ms(std::time::SystemTime::now());
    until("lost requests and answers of node1 alone", secs(20), || {
        let (nodes, lost) = answering(cut)?;
        require!(
            nodes == BTreeSet::from(["node1".to_owned()]) && lost > 3,
            "answers of {nodes:?}, {lost} lost"
        );
        Ok::<_, Error>(())
    })
    .unwrap();
}

#[test]
fn the_proxy_carries_connections_from_loopback_into_a_namespace() {
    let run = Run::start().unwrap();
    let topology = Topology::build(&run, 1, 0).unwrap();
    let node = &topology.nodes[0];
    let mut workload = Workload::new("default", "my-app", 80, &[node.addresses.v4.into()]);
    workload.start(&run, &topology, "node1").unwrap();
    let ready = run.folder().join("ready");
    let mut command = Command::new(binary("lab").unwrap());
    command.args(["proxy", "--listen", "127.0.0.1:0", "--connect-in", node.namespace.name(), "--connect"]);
    command
        .arg(format!("{}:80", node.addresses.v4))
        .args(["--home", node.namespace.name(), "--ready"])
        .arg(&ready);
    let mut proxy = Process::spawn("proxy", command, run.log("proxy")).unwrap();
    let at = until("the proxy", secs(10), || {
        proxy.check_running()?;
        let text = fs::read_to_string(&ready).map_err(Error::path(&ready))?;
        text.parse::<SocketAddr>().map_err(|error| Error::parse("the proxy", error))
    })
    .unwrap();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(r#"{"pod":"my-app-node1","node":"node1","client":"172.30.1.11"}"#), "{answer}");
    drop(run);
    until("the proxy to end with its run", secs(5), || proxy.check_running().err().ok_or("running")).unwrap();
}

#[test]
fn a_capture_has_what_went_over_the_interface() {
    let run = Run::start().unwrap();
    let topology = Topology::build(&run, 2, 0).unwrap();
    let (one, two) = (&topology.nodes[0], &topology.nodes[1]);
    let capture = Capture::start(&run, two, "eth0", "icmp").unwrap();
    let to = two.addresses.v4.to_string();
    lab::command::run(one.namespace.command("ping").args(["-c2", "-i0.01", "-W2", &to])).unwrap();
    let packets = capture.finish().unwrap().packets("icmp.type == 8", &["ip.src", "ip.dst"]).unwrap();
    assert_eq!(packets, ["172.30.1.11\t172.30.1.12"; 2]);
}
