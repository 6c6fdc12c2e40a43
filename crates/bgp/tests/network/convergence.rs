//! Random disturbance, from a seed that a failure prints: it always converges.

use bgp::{
    bfd::{self, Diagnostic, Report, State as BfdState, Verdict},
    config::GracefulRestartConfig,
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

/// What each speaker should have been told by the other, once all is quiet.
fn check_tables(net: &Network, a: &str, b: &str) {
    for (by, to) in [(a, b), (b, a)] {
        let table = net.table(to, by).unwrap();
        let expected: BTreeSet<IpNet> =
            net.speaker(by).loc_rib().routes().map(|route| route.prefix).collect();
        assert_eq!(told(net, to, by), expected, "what {by} told {to}");
        let helper = net.helper(to, by).unwrap();
        assert_eq!(helper.routes(net.now()), expected, "what {to} keeps of {by}, over restarts");
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

/// A process ends, with or without a word, and another one with the same peers and routes takes its place.
fn restart(net: &mut Network, random: &mut StdRng, name: &str, peer: &PeerConfig) {
    let routes: Vec<Route> = net.speaker(name).loc_rib().routes().collect();
    match random.random_range(0..3) {
        0 => net.with(name, |speaker, now| speaker.stop(&ShutdownMode::Restart, now)),
        1 => net.with(name, |speaker, now| speaker.stop(&ShutdownMode::Administrative(String::new()), now)),
        _ => {}
    }
    net.restart(
        name,
        &SpeakerConfig { await_routes: Some(Duration::from_secs(20)), ..SpeakerConfig::default() },
    );
    let kept: Vec<Family> = Family::ALL.into_iter().filter(|_| random.random_bool(0.7)).collect();
    net.with(name, |speaker, now| speaker.restarted(&kept, now));
    set_peers(net, name, std::slice::from_ref(peer));
    let later = net.now() + Duration::from_millis(random.random_range(0..2000));
    net.run_to(later);
    net.with(name, |speaker, _| speaker.replace_all(&routes));
}

fn tell_bfd(net: &mut Network, name: &str, peer: &str, report: Report) {
    net.with(name, |speaker, now| speaker.handle_bfd(peer, report, now));
}

/// What BFD may say of a path.
fn random_report(random: &mut StdRng) -> Report {
    let failed = Verdict::Failed(Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);
    let (state, verdict) = match random.random_range(0..7) {
        0 => (BfdState::Down, Verdict::Unknown),
        1 => (BfdState::Init, failed),
        2 => (BfdState::AdminDown, Verdict::Disabled),
        3 | 4 => (BfdState::Down, failed),
        _ => (BfdState::Up, Verdict::Works),
    };
    Report { state, verdict, obstacle: None }
}

/// One random thing that happens to two speakers.
fn disturb(net: &mut Network, random: &mut StdRng, peers: &[PeerConfig; 2]) {
    let which = usize::from(random.random_bool(0.5));
    let (name, other) = [("a", "b"), ("b", "a")][which];
    match random.random_range(0..14) {
        12 | 13 => tell_bfd(net, name, other, random_report(random)),
        9 => restart(net, random, name, &peers[which]),
        10 => net.ask_refresh(name, other, Family::ALL[usize::from(random.random_bool(0.5))]),
        11 => {
            let graceful_shutdown = random.random_bool(0.5);
            set_peers(net, name, &[PeerConfig { graceful_shutdown, ..peers[which].clone() }]);
        }
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
    let watched = |random: &mut StdRng, config| PeerConfig {
        graceful_restart: random.random_bool(0.5).then(GracefulRestartConfig::default),
        bfd: random.random_bool(0.5).then(bfd::Config::default),
        ..config
    };
    let a = watched(&mut random, config("a", "b"));
    let b = watched(&mut random, config("b", "a"));
    let b = PeerConfig { passive: random.random_bool(0.2), ..b };
    let peers = [a, b];
    set_peers(&mut net, "a", &peers[..1]);
    set_peers(&mut net, "b", &peers[1..]);
    for _ in 0..random.random_range(0..25) {
        disturb(&mut net, &mut random, &peers);
    }
    // Nobody is about to leave any more.
    set_peers(&mut net, "a", &peers[..1]);
    set_peers(&mut net, "b", &peers[1..]);
    net.heal("a", "b");
    net.lose_none();
    net.listen("a", true);
    net.listen("b", true);
    // Whatever BFD has said last: a session is not kept down for ever for want of it.
    for (name, peer) in [("a", "b"), ("b", "a")] {
        if random.random_bool(0.5) {
            tell_bfd(&mut net, name, peer, random_report(&mut random));
        }
    }
    // The longest way back: the rest of a hold time, then idle hold and a few collisions.
    let end = net.now() + Duration::from_secs(600);
    assert!(net.run_until(end, |net| net.is_up("a", "b")), "seed {seed}: {:?}", net.peer("a", "b"));
    let quiet = net.now() + Duration::from_secs(200);
    net.run_to(quiet);
    assert!(net.is_up("a", "b"), "seed {seed}: it does not stay up");
    check_tables(&net, "a", "b");
}

/// One after the other things happen to a speaker whose router does graceful restart; at no moment is a route missing.
fn keeps_every_route(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut net = network(seed, &["a", "b"]);
    net.set_delay(Duration::ZERO, Duration::from_millis(random.random_range(0..50)));
    let graceful = |config| PeerConfig { graceful_restart: Some(GracefulRestartConfig::default()), ..config };
    let mut peer = graceful(config("a", "b"));
    set_peers(&mut net, "b", &[graceful(passive("b", "a"))]);
    set_peers(&mut net, "a", std::slice::from_ref(&peer));
    let mut routes: Vec<Route> = (0..30).map(|host| with_med(&format!("198.51.100.{host}/32"), 0)).collect();
    routes.extend((0..30).map(|host| with_med(&format!("2001:db8:1::{host}/128"), 0)));
    let all: BTreeSet<IpNet> = routes.iter().map(|route| route.prefix).collect();
    net.with("a", |speaker, _| speaker.replace_all(&routes));
    for round in 0..8 {
        let end = net.now() + Duration::from_secs(110);
        let is_settled = net.run_until(end, |net| {
            let kept = net.helper("b", "a").map(|helper| helper.routes(net.now())).unwrap_or_default();
            assert!(round == 0 || kept == all, "seed {seed}, round {round}: {} routes are left", kept.len());
            let is_told = net.speaker("a").undrained().next().is_none();
            net.is_up("a", "b")
                && is_told
                && net.table("b", "a").is_some_and(|table| table.end_of_rib.len() == 2)
        });
        assert!(is_settled, "seed {seed}, round {round}: {:?}", net.peer("a", "b"));
        settle(&mut net);
        match random.random_range(0..5) {
            0 | 1 => {
                if random.random_bool(0.5) {
                    net.with("a", |speaker, now| speaker.stop(&ShutdownMode::Restart, now));
                }
                net.restart(
                    "a",
                    &SpeakerConfig { await_routes: Some(at(60).since(at(0))), ..SpeakerConfig::default() },
                );
                net.with("a", |speaker, now| speaker.restarted(&Family::ALL, now));
                set_peers(&mut net, "a", std::slice::from_ref(&peer));
                net.with("a", |speaker, _| speaker.replace_all(&routes));
            }
            2 => net.reset("a", "b"),
            3 => {
                peer.router_id = RouterId::new([10, 0, 1, random.random_range(1..255)].into()).unwrap();
                set_peers(&mut net, "a", std::slice::from_ref(&peer));
            }
            _ => {
                net.ask_refresh("b", "a", Family::ALL[usize::from(random.random_bool(0.5))]);
                let at = random.random_range(0..routes.len());
                routes[at] = with_med(&routes[at].prefix.to_string(), round + 1);
                announce(&mut net, "a", &routes[at..=at]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn two_speakers_converge_whatever_happens_between_them(seed in any::<u64>()) {
        converges(seed);
    }

    #[test]
    fn a_router_that_does_graceful_restart_misses_no_route_at_any_moment(seed in any::<u64>()) {
        keeps_every_route(seed);
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
