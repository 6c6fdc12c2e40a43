//! Graceful restart (RFC 4724, RFC 8538): what a router keeps of our routes while we are away. The router is the one of
//! `testing::Helper`, which does what the RFCs ask of a receiving speaker and nothing else.

use bgp::{config::GracefulRestartConfig, types::RestartTime};

use super::*;

const ROUTES: [&str; 2] = ["198.51.100.1/32", "2001:db8:1::/64"];

fn graceful(config: PeerConfig) -> PeerConfig {
    PeerConfig { graceful_restart: Some(GracefulRestartConfig::default()), ..config }
}

fn awaiting() -> SpeakerConfig {
    SpeakerConfig { await_routes: Some(Duration::from_secs(300)), ..SpeakerConfig::default() }
}

fn routes() -> Vec<Route> {
    ROUTES.iter().map(|prefix| route(prefix, 0)).collect()
}

/// `a` has told `b`, which is the router, both routes; both ends do graceful restart.
fn told_session() -> Network {
    let mut net = network(1, &["a", "b"]);
    set_peers(&mut net, "b", &[graceful(passive("b", "a"))]);
    set_peers(&mut net, "a", &[graceful(config("a", "b"))]);
    announce(&mut net, "a", &routes());
    assert!(net.run_until(at(1), |net| net.is_up("a", "b")));
    settle(&mut net);
    assert_eq!(kept(&net), prefixes(&ROUTES));
    assert!(net.peer("a", "b").graceful_restart);
    net
}

/// What `b` forwards to `a` now.
fn kept(net: &Network) -> BTreeSet<IpNet> {
    net.helper("b", "a").map(|helper| helper.routes(net.now())).unwrap_or_default()
}

fn stale(net: &Network) -> BTreeSet<IpNet> {
    net.helper("b", "a").map(|helper| helper.stale(net.now())).unwrap_or_default()
}

fn stop(net: &mut Network, mode: &ShutdownMode) {
    net.with("a", |speaker, now| speaker.stop(mode, now));
    settle(net);
}

/// The next process of `a` comes up, having kept the addresses of these families.
fn come_back(net: &mut Network, kept: &[Family]) {
    net.restart("a", &awaiting());
    net.with("a", |speaker, now| speaker.restarted(kept, now));
    set_peers(net, "a", &[graceful(config("a", "b"))]);
    let end = net.now() + Duration::from_secs(20);
    assert!(net.run_until(end, |net| net.is_up("a", "b")), "{:?}", net.peer("a", "b"));
    settle(net);
}

#[test]
fn a_planned_restart_keeps_every_route_with_the_n_bit_and_says_why_rfc_8538() {
    let mut net = told_session();
    stop(&mut net, &ShutdownMode::Restart);
    assert!(net.peer("b", "a").last_error.unwrap().contains("administrative reset (6/4)"));
    assert_eq!((kept(&net), stale(&net)), (prefixes(&ROUTES), prefixes(&ROUTES)));
    come_back(&mut net, &Family::ALL);
    assert_eq!(stale(&net), prefixes(&ROUTES), "nothing is dropped before the routes are complete");
    net.with("a", |speaker, _| speaker.replace_all(&routes()));
    settle(&mut net);
    assert_eq!((kept(&net), stale(&net)), (prefixes(&ROUTES), prefixes(&[])));
    assert_eq!(net.helper("b", "a").unwrap().restarts_seen, 1);
}

#[test]
fn a_process_that_dies_without_a_word_keeps_every_route() {
    let mut net = told_session();
    come_back(&mut net, &Family::ALL);
    assert_eq!(stale(&net), prefixes(&ROUTES));
    net.with("a", |speaker, _| speaker.replace_all(&routes()[..1]));
    settle(&mut net);
    assert_eq!((kept(&net), stale(&net)), (prefixes(&ROUTES[..1]), prefixes(&[])), "what is gone goes");
}

#[test]
fn a_family_whose_forwarding_state_was_not_kept_is_dropped_at_once_rfc_4724_section_4_2() {
    let mut net = told_session();
    come_back(&mut net, &[Family::Ipv6Unicast]);
    assert_eq!(kept(&net), prefixes(&ROUTES[1..]));
}

#[test]
fn a_first_start_has_neither_r_nor_f_bit() {
    let mut net = told_session();
    net.restart("a", &awaiting());
    set_peers(&mut net, "a", &[graceful(config("a", "b"))]);
    assert!(net.run_until(at(30), |net| net.is_up("a", "b")));
    assert_eq!(kept(&net), prefixes(&[]), "nothing of before is forwarded any more");
    assert_eq!(net.helper("b", "a").unwrap().restarts_seen, 0);
}

#[test]
fn leaving_for_good_is_a_hard_reset_with_the_text_inside_and_takes_the_routes_along() {
    let mut net = told_session();
    stop(&mut net, &ShutdownMode::Administrative("drained".to_owned()));
    let error = net.peer("b", "a").last_error.unwrap();
    assert!(error.contains("hard reset (6/9): cease: administrative shutdown (6/2): \"drained\""), "{error}");
    assert_eq!(kept(&net), prefixes(&[]));
}

#[test]
fn a_peer_taken_out_of_the_configuration_forgets_the_routes() {
    let mut net = told_session();
    set_peers(&mut net, "a", &[]);
    settle(&mut net);
    assert!(net.peer("b", "a").last_error.unwrap().contains("peer de-configured"));
    assert_eq!(kept(&net), prefixes(&[]));
}

#[test]
fn another_configuration_of_the_peer_and_a_lost_link_cost_no_route() {
    let mut net = told_session();
    let router_id = RouterId::new([10, 0, 0, 77].into()).unwrap();
    set_peers(&mut net, "a", &[graceful(PeerConfig { router_id, ..config("a", "b") })]);
    let watch = |net: &mut Network, secs| {
        let end = net.now() + Duration::from_secs(secs);
        net.run_until(end, |net| {
            assert_eq!(kept(net), prefixes(&ROUTES), "at {:?}", net.now());
            net.is_up("a", "b") && stale(net).is_empty()
        })
    };
    settle(&mut net);
    assert!(watch(&mut net, 60));
    assert_eq!(net.peer("a", "b").flaps, 1);
    net.reset("a", "b");
    assert!(watch(&mut net, 60));
    assert_eq!(net.helper("b", "a").unwrap().restarts_seen, 0, "no process has restarted");
}

#[test]
fn the_r_bit_is_set_until_end_of_rib_and_no_longer_than_the_restart_time() {
    let mut net = told_session();
    come_back(&mut net, &Family::ALL);
    net.reset("a", "b");
    settle(&mut net);
    let end = net.now() + Duration::from_secs(30);
    assert!(net.run_until(end, |net| net.is_up("a", "b")));
    assert_eq!(net.helper("b", "a").unwrap().restarts_seen, 2, "the first table has not been told");
    net.with("a", |speaker, _| speaker.replace_all(&routes()));
    settle(&mut net);
    net.reset("a", "b");
    let end = net.now() + Duration::from_secs(60);
    assert!(net.run_until(end, |net| net.is_up("a", "b")));
    assert_eq!(net.helper("b", "a").unwrap().restarts_seen, 2, "now it has");

    let mut net = told_session();
    net.listen("b", false);
    net.restart("a", &awaiting());
    net.with("a", |speaker, now| speaker.restarted(&Family::ALL, now));
    set_peers(&mut net, "a", &[graceful(config("a", "b"))]);
    net.run_to(at(200));
    assert_eq!(kept(&net), prefixes(&[]), "the router has waited for its restart time");
    net.listen("b", true);
    assert!(net.run_until(at(230), |net| net.is_up("a", "b")));
    assert_eq!(net.helper("b", "a").unwrap().restarts_seen, 0);
}

#[test]
fn routes_are_told_at_once_and_end_of_rib_waits_for_all_of_them_but_not_for_ever() {
    let mut net = told_session();
    come_back(&mut net, &Family::ALL);
    announce(&mut net, "a", &routes()[..1]);
    settle(&mut net);
    assert_eq!((told(&net, "b", "a"), stale(&net)), (prefixes(&ROUTES[..1]), prefixes(&ROUTES[1..])));
    assert_eq!(net.speaker("a").undrained().count(), 0, "all that can be told is told");
    let end = net.now() + Duration::from_secs(298);
    net.run_to(end);
    assert_eq!(net.table("b", "a").unwrap().end_of_rib, []);
    let end = net.now() + Duration::from_secs(2);
    net.run_to(end);
    assert_eq!(net.table("b", "a").unwrap().end_of_rib.len(), 2, "Selection_Deferral_Timer, RFC 4724 §4.1");
}

#[test]
fn a_route_that_changes_while_the_first_table_is_told_is_never_dropped_by_end_of_rib() {
    let many = |med| -> Vec<Route> {
        (0..20_000_u32)
            .map(|host| with_med(&format!("10.{}.{}.{}/32", host >> 16, host >> 8 & 255, host & 255), med))
            .collect()
    };
    let mut net = network(1, &["a", "b"]);
    set_peers(&mut net, "b", &[graceful(passive("b", "a"))]);
    announce(&mut net, "a", &many(1));
    set_peers(&mut net, "a", &[graceful(config("a", "b"))]);
    assert!(
        net.run_until(at(60), |net| net.speaker("a").undrained().next().is_none() && net.is_up("a", "b"))
    );
    let all = kept(&net);
    assert_eq!(all.len(), 20_000);
    come_back(&mut net, &Family::ALL);
    net.with("a", |speaker, _| speaker.replace_all(&many(1)));
    // Everything changes again and again while the peer still takes what was before.
    for med in 2..5 {
        let soon = net.now() + Duration::from_micros(300);
        net.run_to(soon);
        announce(&mut net, "a", &many(med));
        assert_eq!(kept(&net), all);
    }
    let end = net.now() + Duration::from_secs(60);
    assert!(net.run_until(end, |net| {
        assert_eq!(kept(net).len(), all.len());
        net.speaker("a").undrained().next().is_none()
    }));
    assert_eq!((kept(&net), stale(&net)), (all, prefixes(&[])));
}

#[test]
fn a_peer_that_connects_anew_has_restarted_and_its_old_session_gives_way_rfc_4724_section_4_2() {
    // Whoever has dialled the first session: the router dies without a FIN and dials when it is back.
    for (dials, waits) in [("a", "b"), ("b", "a")] {
        let mut net = network(1, &["a", "b"]);
        set_peers(&mut net, waits, &[graceful(passive(waits, dials))]);
        set_peers(&mut net, dials, &[graceful(config(dials, waits))]);
        announce(&mut net, "a", &routes());
        assert!(net.run_until(at(1), |net| net.is_up("a", "b")));
        settle(&mut net);
        net.cut("a", "b");
        net.restart("b", &SpeakerConfig::default());
        net.with("b", |speaker, now| speaker.restarted(&Family::ALL, now));
        net.forget_connections("a", "b");
        net.heal("a", "b");
        set_peers(&mut net, "b", &[graceful(config("b", "a"))]);
        assert!(
            net.run_until(at(30), |net| net.is_up("a", "b")),
            "{dials} dialled: {:?}",
            net.peer("a", "b")
        );
        settle(&mut net);
        assert_eq!(told(&net, "b", "a"), prefixes(&ROUTES));
        let error = net.peer("a", "b").last_error.unwrap();
        assert!(error.contains("has restarted"), "{error}");
    }
}

#[test]
fn a_restart_time_reaches_the_peer_as_configured() {
    let mut net = told_session();
    let restart_time = RestartTime::new(10).unwrap();
    let offered = GracefulRestartConfig { restart_time, ..GracefulRestartConfig::default() };
    set_peers(&mut net, "a", &[PeerConfig { graceful_restart: Some(offered), ..config("a", "b") }]);
    settle(&mut net);
    assert!(net.is_up("a", "b") && net.peer("a", "b").flaps == 0, "no session is ended for it");
    net.reset("a", "b");
    assert!(net.run_until(at(60), |net| net.is_up("a", "b") && stale(net).is_empty()));
    stop(&mut net, &ShutdownMode::Restart);
    assert_eq!(kept(&net), prefixes(&ROUTES));
    let gone = net.now() + Duration::from_secs(11);
    net.run_to(gone);
    assert_eq!(kept(&net), prefixes(&[]));
}

#[test]
fn a_peer_without_graceful_restart_gets_the_notification_and_its_routes_at_once_when_we_are_back() {
    let mut net = network(1, &["a", "b"]);
    set_peers(&mut net, "b", &[passive("b", "a")]);
    set_peers(&mut net, "a", &[graceful(config("a", "b"))]);
    announce(&mut net, "a", &routes());
    assert!(net.run_until(at(1), |net| net.is_up("a", "b")));
    settle(&mut net);
    assert!(!net.peer("a", "b").graceful_restart);
    stop(&mut net, &ShutdownMode::Restart);
    assert!(net.peer("b", "a").last_error.unwrap().contains("administrative reset (6/4)"));
    assert_eq!(kept(&net), prefixes(&[]));
    come_back(&mut net, &Family::ALL);
    announce(&mut net, "a", &routes()[..1]);
    settle(&mut net);
    assert_eq!(kept(&net), prefixes(&ROUTES[..1]), "there is no global deferral");
}
