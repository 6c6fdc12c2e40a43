//! Speakers on an in-memory wire with virtual time: what a session does as a whole, and that whatever happens
//! it converges.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod convergence;
mod refresh;
mod restarts;
mod routes;
mod sessions;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use bgp::{
    attributes::NextHop,
    config::{OwnNextHops, PeerAsn, PeerConfig, Role, RoleConfig, ShutdownMode, SpeakerConfig},
    route::{ExportPolicy, Route, RouteAttributes, RouteClass},
    status::State,
    testing::{Network, at},
    types::{Asn, Family, HoldTime, RouterId},
};
use ipnet::IpNet;

fn address(name: &str) -> IpAddr {
    match name {
        "a" => "192.0.2.1",
        "b" => "192.0.2.2",
        "c" => "192.0.2.3",
        _ => panic!("no such speaker"),
    }
    .parse()
    .unwrap()
}

fn asn(name: &str) -> Asn {
    Asn::new(64512 + u32::from(name.as_bytes()[0] - b'a')).unwrap()
}

/// What `name` is told of `peer`.
fn config(name: &str, peer: &str) -> PeerConfig {
    let id = 1 + name.as_bytes()[0] - b'a';
    let router_id = RouterId::new([10, 0, 0, id].into()).unwrap();
    PeerConfig {
        next_hops: OwnNextHops { ipv4: None, ipv6: Some("2001:db8::1".parse().unwrap()) },
        connect_retry_time: Duration::from_secs(10),
        ..PeerConfig::new(peer, address(peer), router_id, asn(name), PeerAsn::Exactly(asn(peer)))
    }
}

fn passive(name: &str, peer: &str) -> PeerConfig {
    PeerConfig { passive: true, ..config(name, peer) }
}

fn network(seed: u64, names: &[&str]) -> Network {
    let mut net = Network::new(seed);
    for name in names {
        net.add(name, address(name), &SpeakerConfig::default());
    }
    net
}

fn set_peers(net: &mut Network, name: &str, peers: &[PeerConfig]) {
    net.with(name, |speaker, now| speaker.set_peers(peers.to_vec(), now)).unwrap();
}

fn announce(net: &mut Network, name: &str, routes: &[Route]) {
    net.with(name, |speaker, _| speaker.announce(routes));
}

/// `a` dials `b`; both know each other.
fn session() -> Network {
    let mut net = network(1, &["a", "b"]);
    set_peers(&mut net, "b", &[passive("b", "a")]);
    set_peers(&mut net, "a", &[config("a", "b")]);
    assert!(net.run_until(at(1), |net| net.is_up("a", "b")));
    net
}

fn settle(net: &mut Network) {
    let soon = net.now() + Duration::from_millis(500);
    net.run_to(soon);
}

fn route(prefix: &str, class: u32) -> Route {
    let attributes = Arc::new(RouteAttributes::default());
    Route { prefix: prefix.parse().unwrap(), class: RouteClass(class), attributes }
}

fn with_med(prefix: &str, med: u32) -> Route {
    let attributes = Arc::new(RouteAttributes { med: Some(med), ..RouteAttributes::default() });
    Route { attributes, ..route(prefix, 0) }
}

fn told(net: &Network, to: &str, by: &str) -> BTreeSet<IpNet> {
    net.table(to, by).unwrap().routes.keys().copied().collect()
}

fn prefixes(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
