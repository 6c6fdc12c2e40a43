//! The routers of the lab, proven with a second BIRD as announcer: what they say about sessions, next hops and
//! prefixes is what was announced to them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeSet, fs, net::IpAddr};

use ipnet::IpNet;
use lab::{
    Host, Process, Router, RouterConfig, Run, Topology,
    router::{Family, Session, Software},
    secs,
};

/// A BIRD on a node that announces two static routes, over an IPv4 session to router1 and an IPv6 session to
/// router2.
fn announce(run: &Run, node: &Host) -> Process {
    let config = format!(
        r#"
router id {id};
log stderr all;
protocol device {{ }}
protocol static {{ ipv4; route 198.51.100.1/32 blackhole; route 203.0.113.1/32 blackhole; }}
protocol static {{ ipv6; route fd00:51::1/128 blackhole; }}
template bgp tor {{
    local as 64512;
    ipv4 {{ import none; export where source = RTS_STATIC; next hop address {v4}; }};
    ipv6 {{ import none; export where source = RTS_STATIC; next hop address {v6}; }};
    hold time 3; connect delay time 1; connect retry time 1;
}}
protocol bgp r1 from tor {{ neighbor 172.30.1.1 as 65001; }}
protocol bgp r2 from tor {{ neighbor fd00:30:1::2 as 4200000002; }}
"#,
        id = node.addresses.v4,
        v4 = node.addresses.v4,
        v6 = node.addresses.v6
    );
    let path = run.folder().join(format!("{}.conf", node.name));
    fs::write(&path, config).unwrap();
    let mut bird = node.namespace.command("bird");
    bird.arg("-f").arg("-c").arg(&path).arg("-s").arg(path.with_extension("ctl"));
    Process::spawn(&node.name, bird, run.log(&node.name)).unwrap()
}

fn config(local_as: u32) -> RouterConfig {
    let pools = ["198.51.100.0/24", "fd00:51::/64"].map(|pool| pool.parse().unwrap());
    let nodes = (1..=3).map(lab::topology::node_addresses).collect();
    RouterConfig { local_as, node_as: 64512, nodes, pools: pools.into() }
}

fn addresses(nodes: &[Host], family: Family) -> BTreeSet<IpAddr> {
    let of = |node: &Host| match family {
        Family::Ipv4 => node.addresses.v4.into(),
        Family::Ipv6 => node.addresses.v6.into(),
    };
    nodes.iter().map(of).collect()
}

#[test]
fn both_routers_report_sessions_next_hops_and_counts_of_what_is_announced() {
    let run = Run::start().unwrap();
    let topology = Topology::build(&run, 3, 2).unwrap();
    let frr = Router::start(&run, &topology.routers[0], Software::Frr, config(65001)).unwrap();
    let bird = Router::start(&run, &topology.routers[1], Software::Bird, config(4_200_000_002)).unwrap();
    assert!(frr.version().unwrap().starts_with("FRRouting 8"), "{:?}", frr.version());
    assert!(bird.version().unwrap().starts_with("BIRD 2"), "{:?}", bird.version());
    assert!(!frr.sessions().unwrap().iter().any(Session::is_established));

    let mut speakers = topology.nodes.iter().map(|node| announce(&run, node)).collect::<Vec<_>>();
    let nodes = topology.nodes.iter().collect::<Vec<_>>();
    frr.wait_established(&addresses(&topology.nodes, Family::Ipv4), secs(30)).unwrap();
    bird.wait_established(&addresses(&topology.nodes, Family::Ipv6), secs(30)).unwrap();

    for prefix in ["198.51.100.1/32", "fd00:51::1/128"] {
        let prefix = prefix.parse::<IpNet>().unwrap();
        let family = Family::of(prefix);
        for router in [&frr, &bird] {
            router.wait_next_hops(prefix, &nodes, secs(30)).unwrap();
            assert_eq!(router.prefix_count(family).unwrap(), 1, "{} keeps to its pools", router.name());
        }
    }
    let outside = "203.0.113.1/32".parse().unwrap();
    for router in [&frr, &bird] {
        assert_eq!(router.next_hops(outside).unwrap(), BTreeSet::new(), "{}", router.name());
    }

    speakers[1].kill().unwrap();
    for router in [&frr, &bird] {
        router.wait_next_hops("198.51.100.1/32".parse().unwrap(), &[nodes[0], nodes[2]], secs(20)).unwrap();
    }
}

#[test]
fn a_configuration_that_the_router_refuses_is_an_error_that_shows_its_words() {
    let run = Run::start().unwrap();
    let topology = Topology::build(&run, 0, 1).unwrap();
    let mut impossible = config(65001);
    impossible.node_as = 0;
    let error = Router::start(&run, &topology.routers[0], Software::Frr, impossible).unwrap_err();
    assert!(error.to_string().contains("remote-as 0"), "{error}");
}
