//! Which datagram is for which session, and which for none.

use super::*;

fn target(name: &str, address: &str, scope: u32, path: Path) -> Target {
    Target {
        name: name.into(),
        address: address.parse().unwrap(),
        scope,
        source_address: None,
        config: Config { path, ..config(100, 100, 3) },
    }
}

fn sessions() -> Sessions {
    let mut sessions = Sessions::new(7);
    sessions.set_targets(
        vec![
            target("one", "192.0.2.1", 0, Path::SingleHop),
            target("far", "198.51.100.1", 0, Path::Multihop { min_ttl: 250 }),
            target("left", "fe80::1", 2, Path::SingleHop),
            target("right", "fe80::1", 3, Path::SingleHop),
        ],
        Time::ZERO,
    );
    while sessions.poll_report().is_some() {}
    sessions
}

fn hello() -> [u8; packet::LENGTH] {
    Packet { your_discriminator: None, ..packet(State::Down) }.encode()
}

fn datagram<'a>(from: &str, payload: &'a [u8]) -> Datagram<'a> {
    let from = from.parse().unwrap();
    Datagram { from, interface: 2, ttl: Some(255), port: SINGLE_HOP_PORT, payload }
}

/// Who took it.
fn taken(sessions: &mut Sessions, datagram: &Datagram<'_>) -> Result<String, Dropped> {
    sessions.handle_datagram(datagram, Time::ZERO)?;
    Ok(sessions.poll_report().expect("its state has changed").0.to_string())
}

/// The discriminator that a session sends.
fn discriminator(sessions: &mut Sessions, name: &str) -> NonZeroU32 {
    let mut found = None;
    while let Some(transmit) = sessions.poll_transmit(Time::ZERO) {
        if &*transmit.target.name == name {
            assert_eq!(transmit.session, transmit.packet.my_discriminator);
            found = Some(transmit.session);
        }
    }
    found.expect("it sends")
}

#[test]
fn a_first_packet_is_found_by_its_address_also_where_that_is_mapped() {
    for from in ["192.0.2.1", "::ffff:192.0.2.1"] {
        assert_eq!(taken(&mut sessions(), &datagram(from, &hello())), Ok("one".to_owned()));
    }
}

#[test]
fn link_local_addresses_are_told_apart_by_their_interface() {
    let hello = hello();
    let on = |interface| Datagram { interface, ..datagram("fe80::1", &hello) };
    assert_eq!(taken(&mut sessions(), &on(2)), Ok("left".to_owned()));
    assert_eq!(taken(&mut sessions(), &on(3)), Ok("right".to_owned()));
    assert_eq!(taken(&mut sessions(), &on(4)), Err(Dropped::Source("fe80::1".parse().unwrap())));
}

#[test]
fn a_stranger_and_a_discriminator_of_nobody_are_dropped() {
    let mut sessions = sessions();
    let source = "192.0.2.9".parse().unwrap();
    assert_eq!(taken(&mut sessions, &datagram("192.0.2.9", &hello())), Err(Dropped::Source(source)));
    let unknown = packet(State::Down).encode();
    assert_eq!(
        taken(&mut sessions, &datagram("192.0.2.1", &unknown)),
        Err(Dropped::Discriminator(number(5)))
    );
}

#[test]
fn a_discriminator_alone_finds_its_session() {
    let mut sessions = sessions();
    let ours = discriminator(&mut sessions, "one");
    let octets = Packet { your_discriminator: Some(ours), ..packet(State::Init) }.encode();
    assert_eq!(taken(&mut sessions, &datagram("192.0.2.77", &octets)), Ok("one".to_owned()));
}

#[test]
fn a_single_hop_takes_nothing_from_another_link_once_its_own_is_known() {
    let mut sessions = sessions();
    let ours = discriminator(&mut sessions, "one");
    let hello = hello();
    let on = |interface| Datagram { interface, ..datagram("192.0.2.1", &hello) };
    sessions.set_link(ours, 3);
    assert_eq!(taken(&mut sessions, &on(2)), Err(Dropped::Interface(2)));
    let obstacle = sessions.poll_report().expect("it says why").1.obstacle;
    assert_eq!(obstacle, Some(Dropped::Interface(2)));
    assert_eq!(taken(&mut sessions, &on(3)), Ok("one".to_owned()));
    sessions.set_link(ours, 0);
    sessions.handle_datagram(&on(2), Time::ZERO).expect("nobody knows which link it is");
}

#[test]
fn a_single_hop_takes_ttl_255_alone() {
    let hello = hello();
    let with = |ttl| Datagram { ttl, ..datagram("192.0.2.1", &hello) };
    assert_eq!(taken(&mut sessions(), &with(Some(254))), Err(Dropped::Ttl { ttl: 254, least: 255 }));
    assert_eq!(taken(&mut sessions(), &with(None)), Err(Dropped::TtlUnknown));
}

#[test]
fn why_packets_of_a_peer_are_dropped_is_told_once_and_until_one_is_taken() {
    let mut sessions = sessions();
    let hello = hello();
    let with = |ttl| Datagram { ttl: Some(ttl), ..datagram("192.0.2.1", &hello) };
    for ttl in [64, 63] {
        sessions.handle_datagram(&with(ttl), Time::ZERO).unwrap_err();
    }
    let obstacle = |report: Option<(PeerName, Report)>| report.map(|(_, report)| report.obstacle);
    assert_eq!(obstacle(sessions.poll_report()), Some(Some(Dropped::Ttl { ttl: 64, least: 255 })));
    assert_eq!(sessions.poll_report(), None);
    sessions.handle_datagram(&with(255), Time::ZERO).unwrap();
    assert_eq!(obstacle(sessions.poll_report()), Some(None));
}

#[test]
fn a_multihop_takes_its_minimum_ttl_on_its_own_port() {
    let hello = hello();
    let with = |ttl, port| Datagram { ttl: Some(ttl), port, ..datagram("198.51.100.1", &hello) };
    assert_eq!(taken(&mut sessions(), &with(250, MULTIHOP_PORT)), Ok("far".to_owned()));
    let low = Err(Dropped::Ttl { ttl: 249, least: 250 });
    assert_eq!(taken(&mut sessions(), &with(249, MULTIHOP_PORT)), low);
    let source = "198.51.100.1".parse().unwrap();
    assert_eq!(taken(&mut sessions(), &with(255, SINGLE_HOP_PORT)), Err(Dropped::Source(source)));
}

#[test]
fn a_session_that_is_named_on_the_wrong_interface_or_port_is_not_reached() {
    let mut sessions = sessions();
    let ours = discriminator(&mut sessions, "left");
    let octets = Packet { your_discriminator: Some(ours), ..packet(State::Init) }.encode();
    let astray = Datagram { interface: 3, ..datagram("fe80::1", &octets) };
    assert_eq!(taken(&mut sessions, &astray), Err(Dropped::Interface(3)));
    let astray = Datagram { port: MULTIHOP_PORT, ..datagram("fe80::1", &octets) };
    assert_eq!(taken(&mut sessions, &astray), Err(Dropped::Port(MULTIHOP_PORT)));
}

#[test]
fn discriminators_are_random_and_unique() {
    let many: Vec<_> =
        (0..200u8).map(|n| target(&format!("p{n}"), &format!("192.0.2.{n}"), 0, Path::SingleHop)).collect();
    let drawn = |seed| {
        let mut sessions = Sessions::new(seed);
        sessions.set_targets(many.clone(), Time::ZERO);
        let mut drawn = std::collections::BTreeSet::new();
        while let Some(transmit) = sessions.poll_transmit(Time::ZERO) {
            drawn.insert(transmit.session);
        }
        drawn
    };
    let (first, second) = (drawn(1), drawn(2));
    assert_eq!((first.len(), second.len()), (200, 200));
    assert!(first.is_disjoint(&second));
}

#[test]
fn a_session_goes_on_where_only_its_intervals_change() {
    let mut sessions = sessions();
    let before = discriminator(&mut sessions, "one");
    let mut slower = target("one", "192.0.2.1", 0, Path::SingleHop);
    slower.config.transmit_interval = Duration::from_millis(900);
    sessions.set_targets(vec![slower.clone()], Time::ZERO);
    assert!(sessions.has(before));
    slower.address = "192.0.2.2".parse().unwrap();
    sessions.set_targets(vec![slower], Time::ZERO);
    assert!(!sessions.has(before), "another address is another session");
}

#[test]
fn a_session_that_is_taken_away_says_admin_down_until_it_is_heard_or_the_detection_time_is_over() {
    for is_heard in [true, false] {
        let mut sessions = sessions();
        let ours = discriminator(&mut sessions, "one");
        let says = |state| Packet { your_discriminator: Some(ours), ..packet(state) }.encode();
        for state in [State::Init, State::Up] {
            sessions.handle_datagram(&datagram("192.0.2.1", &says(state)), Time::ZERO).unwrap();
        }
        while sessions.poll_transmit(Time::ZERO).is_some() {}
        sessions.set_targets(Vec::new(), ms(10));
        let told = sessions.poll_transmit(ms(10)).unwrap().packet;
        assert_eq!(told.state, State::AdminDown);
        assert!(sessions.has(ours) && !sessions.is_empty());
        if is_heard {
            sessions.handle_datagram(&datagram("192.0.2.1", &says(State::Down)), ms(11)).unwrap();
        } else {
            sessions.handle_timeout(ms(309));
            assert!(sessions.has(ours), "3 × 100 ms");
            sessions.handle_timeout(ms(310));
        }
        assert!(sessions.is_empty());
    }
}

/// Sessions of which that with 192.0.2.1 is Up, what we call it, and a packet of the router in a state.
fn up() -> (Sessions, NonZeroU32, impl Fn(State) -> [u8; packet::LENGTH]) {
    let mut sessions = sessions();
    let ours = discriminator(&mut sessions, "one");
    let says = move |state| Packet { your_discriminator: Some(ours), ..packet(state) }.encode();
    for state in [State::Init, State::Up] {
        sessions.handle_datagram(&datagram("192.0.2.1", &says(state)), Time::ZERO).unwrap();
    }
    while sessions.poll_report().is_some() {}
    while sessions.poll_transmit(Time::ZERO).is_some() {}
    (sessions, ours, says)
}

fn unwatched(address: &str) -> BTreeMap<PeerName, (IpAddr, u32)> {
    BTreeMap::from([("one".into(), (address.parse().unwrap(), 0))])
}

#[test]
fn a_session_that_nobody_asks_about_any_more_goes_on_in_silence_until_the_router_lets_go_of_it() {
    for last in [Some(State::Down), Some(State::AdminDown), None] {
        let (mut sessions, ours, says) = up();
        sessions.replace_targets(Vec::new(), &unwatched("192.0.2.1"), ms(10));
        let goes_on = sessions.poll_transmit(ms(110)).unwrap().packet;
        assert_eq!((goes_on.my_discriminator, goes_on.state), (ours, State::Up));
        assert_eq!(sessions.ports(), [(false, SINGLE_HOP_PORT)].into());
        match last {
            Some(state) => {
                sessions.handle_datagram(&datagram("192.0.2.1", &says(state)), ms(120)).unwrap();
            }
            None => sessions.handle_timeout(ms(1000)),
        }
        assert!(sessions.is_empty(), "{last:?}");
        assert_eq!(sessions.poll_report(), None, "{last:?}");
    }
}

#[test]
fn a_session_that_was_let_go_on_is_asked_about_again_and_tells_how_it_stands() {
    let (mut sessions, ours, _) = up();
    sessions.replace_targets(Vec::new(), &unwatched("192.0.2.1"), ms(10));
    sessions.set_targets(vec![target("one", "192.0.2.1", 0, Path::SingleHop)], ms(20));
    let (name, report) = sessions.poll_report().unwrap();
    assert_eq!((&*name, report.verdict), ("one", Verdict::Works));
    assert!(sessions.has(ours));
}

#[test]
fn a_session_of_a_peer_that_is_gone_or_elsewhere_says_admin_down() {
    for others in [BTreeMap::new(), unwatched("192.0.2.77")] {
        let (mut sessions, _, _) = up();
        sessions.replace_targets(Vec::new(), &unwatched("192.0.2.1"), ms(10));
        sessions.replace_targets(Vec::new(), &others, ms(20));
        assert_eq!(sessions.poll_transmit(ms(20)).unwrap().packet.state, State::AdminDown);
    }
}
