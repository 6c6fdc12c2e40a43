//! What a peer is told of the routes.

use super::*;

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
fn a_speaker_that_awaits_its_routes_tells_those_it_has_and_no_end_of_rib_before_the_first_replace_all() {
    let mut net = network(1, &["b"]);
    net.add(
        "a",
        address("a"),
        &SpeakerConfig { await_routes: Some(Duration::from_secs(300)), ..SpeakerConfig::default() },
    );
    set_peers(&mut net, "b", &[passive("b", "a")]);
    set_peers(&mut net, "a", &[config("a", "b")]);
    announce(&mut net, "a", &[route("198.51.100.1/32", 0)]);
    net.run_to(at(200));
    assert!(net.is_up("a", "b"), "keepalives go on meanwhile");
    assert_eq!(told(&net, "b", "a"), prefixes(&["198.51.100.1/32"]));
    assert_eq!(net.table("b", "a").unwrap().end_of_rib, []);
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
    let communities = (0..20_000).collect();
    let attributes = Arc::new(RouteAttributes { communities, ..RouteAttributes::default() });
    announce(&mut net, "a", &[Route { attributes, ..route("198.51.100.1/32", 0) }]);
    settle(&mut net);
    assert_eq!(told(&net, "b", "a"), prefixes(&["198.51.100.2/32"]));
    let status = net.peer("a", "b");
    assert_eq!((status.advertised, status.unsendable), ([1, 0], [1, 0]));
    assert!(status.unsendable_reason.unwrap().contains("communities"));
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
