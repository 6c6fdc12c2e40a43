use std::sync::Arc;

use api::Refusal;
use bgp::{
    config::PeerAsn,
    types::{Asn, HoldTime, RouterId},
};

use super::*;

fn asn(value: u32) -> Asn {
    Asn::new(value).unwrap()
}

fn peer(config: Result<PeerConfig, Refusal>) -> Peer {
    Peer {
        name: "tor1".to_owned(),
        local_asn: 64512,
        address: Some("192.0.2.1".to_owned()),
        config,
        advertisements: Vec::new(),
    }
}

fn config() -> PeerConfig {
    let router_id = RouterId::new([10, 0, 0, 7].into()).unwrap();
    PeerConfig::new("tor1", [192, 0, 2, 1].into(), router_id, asn(64512), PeerAsn::External)
}

/// The speaker's word on the peer: a session that is up, with everything that there is.
fn up() -> PeerStatus {
    PeerStatus {
        name: Arc::from("tor1"),
        address: [192, 0, 2, 1].into(),
        local_asn: asn(64512),
        local_router_id: RouterId::new([10, 0, 0, 7].into()).unwrap(),
        peer_asn: Some(asn(65001)),
        peer_router_id: RouterId::new([10, 0, 0, 1].into()),
        state: State::Established,
        since: Time::from_micros(7_900_000),
        families: vec![Family::Ipv4Unicast],
        advertised: [3, 0],
        received: [8, 9],
        unsendable: [0, 0],
        unsendable_reason: None,
        hold_time: HoldTime::new(30),
        graceful_restart: true,
        bfd: Some(bgp::bfd::State::Up),
        bfd_obstacle: None,
        end_of_rib_sent: true,
        last_error: Some("sent NOTIFICATION: hold timer expired (4/0)".to_owned()),
        flaps: 2,
        updates_sent: 5,
        notifications: Default::default(),
    }
}

fn status(peers: &[Peer], speaker: &SpeakerStatus) -> BGPNodeStatusStatus {
    let node = NodeInput { name: "n1".to_owned(), ..NodeInput::default() };
    let wall =
        |time: Time| Timestamp::from_microsecond(1_000_000_000 + i64::try_from(time.as_micros()).unwrap());
    node_status(&node, peers, speaker, Vec::new(), |time| wall(time).unwrap())
}

/// What is written of a session that the speaker says this of.
fn session(config: PeerConfig, said: PeerStatus) -> NodePeerStatus {
    let speaker = SpeakerStatus { peers: vec![said], ..SpeakerStatus::default() };
    status(&[peer(Ok(config))], &speaker).peers.remove(0)
}

#[test]
fn a_refused_peer_is_listed_with_its_refusal() {
    let status = status(&[peer(Err(Refusal::unsupported("spec.role")))], &SpeakerStatus::default());
    assert_eq!(status.peers[0].state, SessionState::Idle);
    assert!(status.peers[0].last_error.as_ref().unwrap().contains("spec.role"), "{status:?}");
    assert!(!condition::is_true(&status.conditions, condition::READY));
}

#[test]
fn everything_that_is_known_of_a_session_that_is_up_is_written() {
    let speaker = SpeakerStatus { peers: vec![up()], ..SpeakerStatus::default() };
    let status = status(&[peer(Ok(config()))], &speaker);
    let expected = NodePeerStatus {
        name: "tor1".to_owned(),
        address: Some("192.0.2.1".to_owned()),
        local_asn: 64512,
        peer_asn: Some(65001),
        state: SessionState::Established,
        since: Some(KubeTime(Timestamp::from_second(1_007).unwrap())),
        families: vec![AddressFamily::Ipv4Unicast],
        advertised: PrefixCounts { ipv4: 3, ipv6: 0 },
        received: PrefixCounts { ipv4: 8, ipv6: 9 },
        hold_time: Some(GoDuration::from_secs(30)),
        graceful_restart: true,
        bfd_state: Some(BfdState::Up),
        last_error: Some("sent NOTIFICATION: hold timer expired (4/0)".to_owned()),
        flaps: 2,
    };
    assert_eq!(status.peers, [expected]);
    assert_eq!((status.configured_peers, status.established_peers), (1, 1));
    assert_eq!(status.router_id.as_deref(), Some("10.0.0.7"));
    assert!(condition::is_true(&status.conditions, condition::READY));
}

#[test]
fn every_state_of_bgp_and_of_bfd_has_its_word() {
    let states = [State::Idle, State::Connect, State::Active, State::OpenSent, State::OpenConfirm];
    for state in states {
        let written = session(config(), PeerStatus { state, ..up() });
        assert_eq!(format!("{:?}", written.state), state.to_string());
        assert_eq!(written.hold_time, None, "negotiated with nobody yet in {state}");
    }
    use bgp::bfd::State as Bfd;
    for state in [Bfd::AdminDown, Bfd::Down, Bfd::Init, Bfd::Up] {
        let written = session(config(), PeerStatus { bfd: Some(state), ..up() });
        assert_eq!(written.bfd_state.map(|word| format!("{word:?}")), Some(format!("{state:?}")));
    }
    let plain = session(config(), PeerStatus { bfd: None, graceful_restart: false, ..up() });
    assert_eq!((plain.bfd_state, plain.graceful_restart), (None, false));
}

#[test]
fn the_last_error_is_what_keeps_a_session_from_its_work_before_what_ended_it_once() {
    let ended = up().last_error.unwrap();
    let unsendable = PeerStatus {
        unsendable: [0, 4],
        unsendable_reason: Some("no IPv6 next hop".to_owned()),
        bfd_obstacle: Some("TTL 254".to_owned()),
        ..up()
    };
    assert_eq!(session(config(), unsendable.clone()).last_error.as_deref(), Some("no IPv6 next hop"));
    let blocked = PeerStatus { unsendable: [0, 0], ..unsendable };
    assert_eq!(session(config(), blocked).last_error.as_deref(), Some("TTL 254"), "nothing is unsendable");
    assert_eq!(session(config(), up()).last_error, Some(ended.clone()));
    assert_eq!(session(config(), PeerStatus { last_error: None, ..up() }).last_error, None);

    // That nobody listens, or that BFD hears nothing, concerns those who wait for it.
    let passive = PeerConfig { passive: true, ..config() };
    let told = |config: &PeerConfig, said: PeerStatus| {
        let speaker = SpeakerStatus {
            peers: vec![said],
            listen_error: Some("port 179 is taken".to_owned()),
            bfd_error: Some("port 3784 is taken".to_owned()),
            ..SpeakerStatus::default()
        };
        status(&[peer(Ok(config.clone()))], &speaker).peers[0].last_error.clone().unwrap()
    };
    let waiting = PeerStatus { state: State::Active, ..up() };
    assert_eq!(told(&passive, waiting.clone()), "port 179 is taken");
    assert_eq!(told(&config(), waiting), ended);
    assert_eq!(told(&passive, up()), ended);
    let deaf = PeerStatus { bfd: Some(bgp::bfd::State::Down), ..up() };
    assert_eq!(told(&config(), deaf), "port 3784 is taken");
}
