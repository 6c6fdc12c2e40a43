//! Speakers on an in-memory wire with virtual time: what a session does as a whole, and that whatever happens
//! it converges.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use bgp::{
    attributes::NextHop,
    config::{OwnNextHops, PeerAsn, PeerConfig, ShutdownMode, SpeakerConfig},
    route::{ExportPolicy, Route, RouteAttributes, RouteClass},
    status::State,
    testing::{Network, at},
    types::{Asn, Family, HoldTime, RouterId},
};
use ipnet::IpNet;
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

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

#[test]
fn end_of_rib_of_every_family_follows_the_first_table_also_when_it_is_empty() {
    let mut net = session();
    settle(&mut net);
    assert_eq!(net.table("b", "a").unwrap().end_of_rib, [(Family::Ipv4Unicast, 0), (Family::Ipv6Unicast, 0)]);
    net.reset("a", "b");
    announce(&mut net, "a", &[route("198.51.100.1/32", 0), route("2001:db8:1::/64", 0)]);
    assert!(net.run_until(at(60), |net| net.is_up("a", "b")));
    settle(&mut net);
    assert_eq!(net.table("b", "a").unwrap().end_of_rib, [(Family::Ipv4Unicast, 2), (Family::Ipv6Unicast, 2)]);
}

#[test]
fn a_speaker_that_awaits_its_routes_tells_nothing_before_the_first_replace_all() {
    let mut net = network(1, &["b"]);
    net.add("a", address("a"), &SpeakerConfig { await_routes: true, ..SpeakerConfig::default() });
    set_peers(&mut net, "b", &[passive("b", "a")]);
    set_peers(&mut net, "a", &[config("a", "b")]);
    announce(&mut net, "a", &[route("198.51.100.1/32", 0)]);
    net.run_to(at(200));
    assert!(net.is_up("a", "b"), "keepalives go on meanwhile");
    assert_eq!(net.table("b", "a").unwrap().updates, 0);
    net.with("a", |speaker, _| speaker.replace_all(&[route("198.51.100.2/32", 0)]));
    settle(&mut net);
    assert_eq!(told(&net, "b", "a"), prefixes(&["198.51.100.2/32"]));
    assert_eq!(net.table("b", "a").unwrap().end_of_rib.len(), 2);
}

#[test]
fn a_replace_all_that_changes_nothing_causes_nothing_on_the_wire() {
    let mut net = session();
    let routes = [route("198.51.100.1/32", 0), route("2001:db8:1::/64", 1)];
    net.with("a", |speaker, _| speaker.replace_all(&routes));
    settle(&mut net);
    let before = net.table("b", "a").unwrap().updates;
    net.with("a", |speaker, _| speaker.replace_all(&routes));
    // Another class and other attributes that this peer would see in the same way.
    announce(&mut net, "a", &[route("198.51.100.1/32", 7)]);
    settle(&mut net);
    assert_eq!(net.table("b", "a").unwrap().updates, before);
}

#[test]
fn changed_attributes_are_told_and_unknown_prefixes_are_never_withdrawn() {
    let mut net = session();
    announce(&mut net, "a", &[with_med("198.51.100.1/32", 1)]);
    settle(&mut net);
    announce(&mut net, "a", &[with_med("198.51.100.1/32", 2)]);
    // Comes and goes before anything could be sent: the peer never hears of it.
    net.with("a", |speaker, _| {
        speaker.announce(&[route("198.51.100.2/32", 0)]);
        speaker.withdraw(&["198.51.100.2/32".parse().unwrap(), "198.51.100.3/32".parse().unwrap()]);
    });
    settle(&mut net);
    let table = net.table("b", "a").unwrap();
    let (next_hop, attributes) = table.routes.values().next().unwrap();
    assert_eq!((attributes.med, attributes.as_path.as_slice()), (Some(2), &[64512][..]));
    assert_eq!(*next_hop, NextHop::V4("192.0.2.1".parse().unwrap()));
    assert_eq!((table.routes.len(), table.announced, table.withdrawn), (1, 2, 0));
}

#[test]
fn another_export_policy_withdraws_what_it_filters_without_a_reset() {
    let mut net = session();
    announce(&mut net, "a", &[route("198.51.100.1/32", 1), route("198.51.100.2/32", 2)]);
    settle(&mut net);
    let since = net.peer("a", "b").since;
    let only =
        |class| ExportPolicy::Classes(BTreeMap::from([(RouteClass(class), RouteAttributes::default())]));
    set_peers(&mut net, "a", &[PeerConfig { export: only(2), ..config("a", "b") }]);
    settle(&mut net);
    assert_eq!(told(&net, "b", "a"), prefixes(&["198.51.100.2/32"]));
    set_peers(&mut net, "a", &[PeerConfig { export: only(1), ..config("a", "b") }]);
    settle(&mut net);
    assert_eq!(told(&net, "b", "a"), prefixes(&["198.51.100.1/32"]));
    let status = net.peer("a", "b");
    assert_eq!((status.since, status.flaps, status.advertised), (since, 0, [1, 0]));
    assert_eq!(net.table("b", "a").unwrap().withdrawn_unknown, 0);
}

#[test]
fn timers_and_next_hops_change_without_a_reset_and_another_router_id_resets() {
    let mut net = session();
    announce(&mut net, "a", &[route("2001:db8:1::/64", 0)]);
    settle(&mut net);
    let next_hops = OwnNextHops { ipv4: None, ipv6: Some("2001:db8::9".parse().unwrap()) };
    let hold_time = HoldTime::new(30).unwrap();
    set_peers(&mut net, "a", &[PeerConfig { next_hops, hold_time, ..config("a", "b") }]);
    settle(&mut net);
    assert!(net.is_up("a", "b"));
    let (next_hop, _) = net.table("b", "a").unwrap().routes.values().next().unwrap();
    assert_eq!(*next_hop, NextHop::V6 { global: "2001:db8::9".parse().unwrap(), link_local: None });
    assert_eq!(net.peer("a", "b").hold_time, HoldTime::new(90), "counts from the next session");
    let router_id = RouterId::new([10, 0, 0, 77].into()).unwrap();
    set_peers(&mut net, "a", &[PeerConfig { router_id, hold_time, ..config("a", "b") }]);
    settle(&mut net);
    assert!(net.peer("b", "a").last_error.unwrap().contains("other configuration change"));
    assert!(net.run_until(at(60), |net| net.is_up("a", "b")));
    assert_eq!(net.peer("b", "a").peer_router_id, Some(router_id));
    assert_eq!(net.peer("a", "b").hold_time, HoldTime::new(30));
}

#[test]
fn peers_that_stay_as_they_are_are_not_touched_when_others_change() {
    let mut net = network(1, &["a", "b", "c"]);
    set_peers(&mut net, "b", &[passive("b", "a")]);
    set_peers(&mut net, "c", &[passive("c", "a")]);
    set_peers(&mut net, "a", &[config("a", "b"), config("a", "c")]);
    assert!(net.run_until(at(1), |net| net.is_up("a", "b") && net.is_up("a", "c")));
    let before = net.peer("a", "b");
    settle(&mut net);
    set_peers(&mut net, "a", &[config("a", "b")]);
    settle(&mut net);
    assert!(net.peer("c", "a").last_error.unwrap().contains("peer de-configured"));
    set_peers(&mut net, "a", &[config("a", "b"), config("a", "c")]);
    assert!(net.run_until(at(30), |net| net.is_up("a", "c")));
    let after = net.peer("a", "b");
    assert_eq!((after.since, after.state), (before.since, State::Established));
}

#[test]
fn families_that_only_one_side_opens_are_not_sent() {
    let mut net = network(1, &["a", "b"]);
    set_peers(&mut net, "b", &[PeerConfig { families: vec![Family::Ipv6Unicast], ..passive("b", "a") }]);
    set_peers(&mut net, "a", &[config("a", "b")]);
    announce(&mut net, "a", &[route("198.51.100.1/32", 0), route("2001:db8:1::/64", 0)]);
    net.run_to(at(2));
    assert_eq!(told(&net, "b", "a"), prefixes(&["2001:db8:1::/64"]));
    assert_eq!(net.table("b", "a").unwrap().end_of_rib.len(), 1);
    let status = net.peer("a", "b");
    assert_eq!((status.families, status.advertised), (vec![Family::Ipv6Unicast], [0, 1]));
}

#[test]
fn routes_without_a_next_hop_are_not_sent_and_reported() {
    let mut net = network(1, &["a", "b"]);
    set_peers(&mut net, "b", &[passive("b", "a")]);
    set_peers(&mut net, "a", &[PeerConfig { next_hops: OwnNextHops::default(), ..config("a", "b") }]);
    announce(&mut net, "a", &[route("198.51.100.1/32", 0), route("2001:db8:1::/64", 0)]);
    net.run_to(at(2));
    assert_eq!(told(&net, "b", "a"), prefixes(&["198.51.100.1/32"]));
    let status = net.peer("a", "b");
    assert_eq!((status.advertised, status.unsendable), ([1, 0], [0, 1]));
    assert!(status.unsendable_reason.unwrap().contains("IPv6 next hop"));
    net.with("a", |speaker, _| speaker.withdraw(&["2001:db8:1::/64".parse().unwrap()]));
    settle(&mut net);
    assert_eq!(net.peer("a", "b").unsendable, [0, 0]);
    assert_eq!(net.table("b", "a").unwrap().withdrawn, 0);
}

#[test]
fn attributes_that_no_message_holds_are_reported_and_what_was_told_before_is_withdrawn() {
    let mut net = session();
    announce(&mut net, "a", &[with_med("198.51.100.1/32", 1), with_med("198.51.100.2/32", 1)]);
    settle(&mut net);
    let communities = (0..1100).collect();
    let attributes = Arc::new(RouteAttributes { communities, ..RouteAttributes::default() });
    announce(&mut net, "a", &[Route { attributes, ..route("198.51.100.1/32", 0) }]);
    settle(&mut net);
    assert_eq!(told(&net, "b", "a"), prefixes(&["198.51.100.2/32"]));
    let status = net.peer("a", "b");
    assert_eq!((status.advertised, status.unsendable), ([1, 0], [1, 0]));
    assert!(status.unsendable_reason.unwrap().contains("communities"));
}

#[test]
fn a_cut_link_loses_the_session_by_the_hold_timer_and_heals() {
    let mut net = session();
    announce(&mut net, "a", &[route("198.51.100.1/32", 0)]);
    net.run_to(at(100));
    assert!(net.is_up("a", "b"), "keepalives keep it up");
    net.cut("a", "b");
    net.run_to(at(160));
    assert!(net.is_up("a", "b"), "for less than the hold time");
    net.run_to(at(195));
    assert_ne!(net.peer("a", "b").state, State::Established);
    assert_ne!(net.peer("b", "a").state, State::Established);
    assert!(net.peer("a", "b").last_error.unwrap().contains("hold time"));
    net.heal("a", "b");
    assert!(net.run_until(at(300), |net| net.is_up("a", "b")));
    settle(&mut net);
    assert_eq!(told(&net, "b", "a"), prefixes(&["198.51.100.1/32"]));
    assert_eq!(net.peer("a", "b").flaps, 1);
}

#[test]
fn a_router_that_never_answers_is_dialled_again_and_again() {
    let mut net = network(1, &["a", "b"]);
    set_peers(&mut net, "b", &[passive("b", "a")]);
    net.cut("a", "b");
    set_peers(&mut net, "a", &[config("a", "b")]);
    net.run_to(at(100));
    assert!(net.peer("a", "b").state < State::OpenSent);
    net.heal("a", "b");
    assert!(net.run_until(at(126), |net| net.is_up("a", "b")));
}

#[test]
fn a_router_that_refuses_is_dialled_again_and_the_reason_is_told() {
    let mut net = network(1, &["a", "b"]);
    net.listen("b", false);
    set_peers(&mut net, "b", &[passive("b", "a")]);
    set_peers(&mut net, "a", &[config("a", "b")]);
    net.run_to(at(30));
    assert_eq!(
        net.peer("a", "b").last_error.unwrap(),
        "cannot connect to 192.0.2.2 port 179: Connection refused"
    );
    net.listen("b", true);
    assert!(net.run_until(at(41), |net| net.is_up("a", "b")));
}

#[test]
fn an_administrative_shutdown_reaches_the_peer_with_its_text() {
    let mut net = session();
    net.with("a", |speaker, now| speaker.stop(&ShutdownMode::Administrative("drained".to_owned()), now));
    settle(&mut net);
    let error = net.peer("b", "a").last_error.unwrap();
    assert!(error.contains("administrative shutdown") && error.contains("drained"), "{error}");
    assert_eq!(net.peer("a", "b").state, State::Idle);
    assert_eq!(net.speaker("a").poll_timeout(), None, "a stopped speaker does nothing any more");
}

#[test]
fn an_internal_peer_gets_local_pref_and_an_empty_as_path() {
    let mut net = network(1, &["a", "b"]);
    let local_asn = asn("a");
    let peer_asn = PeerAsn::Internal;
    set_peers(&mut net, "b", &[PeerConfig { local_asn, peer_asn, ..passive("b", "a") }]);
    set_peers(&mut net, "a", &[PeerConfig { peer_asn, ..config("a", "b") }]);
    announce(&mut net, "a", &[route("198.51.100.1/32", 0)]);
    net.run_to(at(2));
    let (_, attributes) = net.table("b", "a").unwrap().routes.values().next().unwrap();
    assert_eq!((attributes.as_path.len(), attributes.local_pref), (0, Some(100)));
}

#[test]
fn a_slow_peer_gets_the_last_state_and_not_the_way_there() {
    const COUNT: usize = 20_000;
    let mut net = session();
    settle(&mut net);
    net.cut("a", "b");
    let hosts = |med| {
        let attributes = Arc::new(RouteAttributes { med: Some(med), ..RouteAttributes::default() });
        let prefix = |host: u128| IpNet::new(IpAddr::V6((0x2001_0db8 << 96 | host).into()), 128).unwrap();
        let class = RouteClass(0);
        (0..COUNT as u128)
            .map(|host| Route { prefix: prefix(host), class, attributes: Arc::clone(&attributes) })
            .collect::<Vec<_>>()
    };
    // More than what may wait for the socket, then changes of everything, again and again.
    (0..6).for_each(|med| announce(&mut net, "a", &hosts(med)));
    net.heal("a", "b");
    assert!(net.run_until(at(60), |net| net.speaker("a").undrained().next().is_none()));
    let table = net.table("b", "a").unwrap();
    assert_eq!(table.routes.len(), COUNT);
    assert!(table.routes.values().all(|(_, attributes)| attributes.med == Some(5)));
    assert!(table.announced < 2 * COUNT, "{} announcements for {COUNT} routes", table.announced);
}

/// What each speaker should have been told by the other, once all is quiet.
fn check_tables(net: &Network, a: &str, b: &str) {
    for (by, to) in [(a, b), (b, a)] {
        let table = net.table(to, by).unwrap();
        let expected: BTreeSet<IpNet> =
            net.speaker(by).loc_rib().routes().map(|route| route.prefix).collect();
        assert_eq!(told(net, to, by), expected, "what {by} told {to}");
        assert_eq!(table.withdrawn_unknown, 0);
        for route in net.speaker(by).loc_rib().routes() {
            let (_, attributes) = &table.routes[&route.prefix];
            assert_eq!(
                (attributes.med, &attributes.communities),
                (route.attributes.med, &route.attributes.communities)
            );
        }
    }
}

fn random_route(random: &mut StdRng) -> Route {
    let host: u8 = random.random_range(0..40);
    let prefix = if host.is_multiple_of(2) {
        format!("198.51.100.{host}/32")
    } else {
        format!("2001:db8:1::{host}/128")
    };
    let attributes = RouteAttributes {
        med: random.random_bool(0.5).then(|| random.random_range(0..3)),
        communities: (0..random.random_range(0..3)).collect(),
        ..RouteAttributes::default()
    };
    Route { attributes: Arc::new(attributes), ..route(&prefix, random.random_range(0..3)) }
}

/// One random thing that happens to two speakers.
fn disturb(net: &mut Network, random: &mut StdRng) {
    let name = if random.random_bool(0.5) { "a" } else { "b" };
    match random.random_range(0..9) {
        0 => net.cut("a", "b"),
        1 | 2 => net.heal("a", "b"),
        3 => net.reset("a", "b"),
        4 => net.lose_after(random.random_range(0..2000)),
        5 => net.listen(name, random.random_bool(0.7)),
        6 => {
            let routes: Vec<_> = (0..random.random_range(0..30)).map(|_| random_route(random)).collect();
            net.with(name, |speaker, _| speaker.replace_all(&routes));
        }
        7 => {
            let prefix = random_route(random).prefix;
            net.with(name, |speaker, _| speaker.withdraw(&[prefix]));
        }
        _ => {
            let routes: Vec<_> = (0..random.random_range(1..10)).map(|_| random_route(random)).collect();
            announce(net, name, &routes);
        }
    }
    let pause = Duration::from_millis(random.random_range(0..30_000));
    let until = net.now() + pause;
    net.run_to(until);
}

/// Two speakers that both dial, disturbed at random; then peace, and the session has to come up and stay.
fn converges(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut net = network(seed, &["a", "b"]);
    net.set_delay(Duration::ZERO, Duration::from_millis(random.random_range(0..300)));
    let is_passive = random.random_bool(0.2);
    set_peers(&mut net, "a", &[config("a", "b")]);
    set_peers(&mut net, "b", &[PeerConfig { passive: is_passive, ..config("b", "a") }]);
    for _ in 0..random.random_range(0..25) {
        disturb(&mut net, &mut random);
    }
    net.heal("a", "b");
    net.lose_none();
    net.listen("a", true);
    net.listen("b", true);
    // The longest way back: the rest of a hold time, then idle hold and a few collisions.
    let end = net.now() + Duration::from_secs(600);
    assert!(net.run_until(end, |net| net.is_up("a", "b")), "seed {seed}: {:?}", net.peer("a", "b"));
    let quiet = net.now() + Duration::from_secs(200);
    net.run_to(quiet);
    assert!(net.is_up("a", "b"), "seed {seed}: it does not stay up");
    check_tables(&net, "a", "b");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn two_speakers_converge_whatever_happens_between_them(seed in any::<u64>()) {
        converges(seed);
    }
}

#[test]
fn two_speakers_that_dial_at_the_same_moment_end_with_one_session() {
    for seed in 0..50 {
        let mut net = network(seed, &["a", "b"]);
        set_peers(&mut net, "a", &[config("a", "b")]);
        set_peers(&mut net, "b", &[config("b", "a")]);
        assert!(net.run_until(at(60), |net| net.is_up("a", "b")), "seed {seed}");
        let flaps = net.peer("a", "b").flaps;
        net.run_to(at(300));
        assert_eq!((net.is_up("a", "b"), net.peer("a", "b").flaps), (true, flaps), "seed {seed}");
    }
}
