//! How sessions come up, go down and come up again.

use super::*;

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
fn the_text_of_a_shutdown_stays_while_the_router_refuses_connections() {
    let mut net = session();
    net.with("b", |speaker, now| speaker.stop(&ShutdownMode::Administrative("drained".to_owned()), now));
    net.run_to(at(300));
    let error = net.peer("a", "b").last_error.unwrap();
    let (reason, since) = error.split_once("; since then: ").unwrap();
    assert!(reason.contains("administrative shutdown") && reason.contains("drained"), "{error}");
    assert!(since.contains("OpenSent") || since.contains("cannot connect"), "{error}");
    net.listen("b", false);
    net.run_to(at(600));
    let error = net.peer("a", "b").last_error.unwrap();
    assert!(error.contains("drained") && error.contains("; since then: cannot connect"), "{error}");
    assert_eq!(error.matches("since then").count(), 1, "only the last attempt counts: {error}");
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
fn a_drain_marks_every_route_gives_routers_their_time_and_then_leaves_rfc_8326() {
    let mut net = session();
    announce(&mut net, "a", &[route("198.51.100.1/32", 0)]);
    settle(&mut net);
    let mode = ShutdownMode::Drain { text: "drained".to_owned(), wait: Duration::from_secs(30) };
    net.with("a", |speaker, now| speaker.stop(&mode, now));
    // Whatever is set meanwhile is marked, too.
    set_peers(&mut net, "a", &[PeerConfig { hold_time: HoldTime::new(30).unwrap(), ..config("a", "b") }]);
    announce(&mut net, "a", &[route("198.51.100.2/32", 0)]);
    settle(&mut net);
    let marked = |net: &Network| {
        let routes = &net.table("b", "a").unwrap().routes;
        assert!(routes.values().all(|(_, attributes)| attributes.communities == [0xffff_0000]), "{routes:?}");
        routes.len()
    };
    assert_eq!(marked(&net), 2);
    assert!(!net.speaker("a").is_stopped());
    let end = net.now() + Duration::from_secs(29);
    net.run_to(end);
    assert!(net.is_up("a", "b"));
    settle(&mut net);
    settle(&mut net);
    assert!(net.speaker("a").is_stopped());
    let error = net.peer("b", "a").last_error.unwrap();
    assert!(error.contains("administrative shutdown") && error.contains("drained"), "{error}");
}

#[test]
fn roles_that_do_not_go_together_are_refused_in_words_rfc_9234() {
    let with = |role, config| {
        let role = Some(RoleConfig { role, is_strict: true });
        PeerConfig { role, ..config }
    };
    let mut net = network(1, &["a", "b"]);
    set_peers(&mut net, "b", &[with(Role::Provider, passive("b", "a"))]);
    set_peers(&mut net, "a", &[with(Role::Peer, config("a", "b"))]);
    net.run_to(at(5));
    let error = net.peer("a", "b").last_error.unwrap() + &net.peer("b", "a").last_error.unwrap();
    assert!(error.contains("role mismatch (2/11)") && error.contains("must be"), "{error}");
    set_peers(&mut net, "a", &[with(Role::Customer, config("a", "b"))]);
    announce(&mut net, "a", &[route("198.51.100.1/32", 0)]);
    announce(&mut net, "b", &[route("198.51.100.2/32", 0)]);
    assert!(net.run_until(at(90), |net| net.is_up("a", "b")));
    settle(&mut net);
    let otc = |to, by| net.table(to, by).unwrap().routes.values().next().unwrap().1.only_to_customer;
    assert_eq!((otc("b", "a"), otc("a", "b")), (None, Some(64513)), "only the provider's routes are marked");
}
