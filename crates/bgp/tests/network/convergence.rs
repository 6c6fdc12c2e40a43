//! Random disturbance, from a seed that a failure prints: it always converges.

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
