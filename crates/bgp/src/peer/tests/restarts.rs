//! How connections end for a restart, and what OPENs say of it (RFC 4724, RFC 8538).

use super::*;
use crate::{
    capabilities::{GracefulRestart, RestartState},
    config::GracefulRestartConfig,
    types::RestartTime,
};

/// A peer that offers graceful restart, in a state; its OPEN says this of graceful restart.
pub(super) fn bench(theirs: Option<GracefulRestart>, state: State) -> Bench {
    let offered = Some(GracefulRestartConfig::default());
    let mut bench = Bench::new(PeerConfig { graceful_restart: offered, ..config() });
    bench.start();
    bench.dial_succeeds();
    if state >= OpenConfirm {
        bench.receive(Direction::Outgoing, &open_with(theirs));
    }
    if state >= Established {
        bench.receive(Direction::Outgoing, &keepalive());
    }
    assert_eq!(bench.peer.state(), state);
    bench
}

fn open_with(graceful_restart: Option<GracefulRestart>) -> BytesMut {
    let capabilities = Capabilities {
        multiprotocol: Family::ALL.to_vec(),
        four_octet_asn: Some(THEIRS),
        graceful_restart,
        ..Capabilities::default()
    };
    let router_id = RouterId::new([10, 0, 0, OUR_ID + 1].into()).unwrap();
    let mut bytes = BytesMut::new();
    let open = Open { asn: THEIRS, hold_time: HoldTime::DEFAULT, router_id, capabilities };
    wire::encode_open(&open, &mut bytes);
    bytes
}

pub(super) fn theirs(notification: bool) -> Option<GracefulRestart> {
    let families = vec![(Family::Ipv4Unicast, true)];
    Some(GracefulRestart { notification, restart_time_secs: 60, families, restarting: false })
}

fn pause(bench: &mut Bench) {
    bench.peer.pause(&Notification::new(codes::CEASE_ADMINISTRATIVE_RESET), bench.now);
    bench.settle();
    assert_eq!((bench.peer.state(), bench.peer.connections.iter().flatten().count()), (State::Idle, 0));
}

#[test]
fn a_planned_restart_closes_without_a_word_where_a_notification_would_cost_the_routes() {
    let reset = &[codes::CEASE_ADMINISTRATIVE_RESET][..];
    let cases = [
        (None, Established, reset),
        (theirs(true), Established, reset),
        (theirs(false), Established, &[]),
        // The peer may have routes of an earlier session, and what it said then is forgotten.
        (theirs(true), OpenSent, &[]),
        (None, OpenConfirm, &[]),
    ];
    for (theirs, state, expected) in cases {
        let mut bench = bench(theirs.clone(), state);
        pause(&mut bench);
        assert_eq!(bench.notifications, expected, "{theirs:?} in {state}");
    }
    let mut bench = Bench::in_state(OpenSent);
    pause(&mut bench);
    assert_eq!(bench.notifications, reset, "without an offer there is nothing to be saved");
}

#[test]
fn a_hard_reset_goes_only_to_a_peer_that_has_set_the_n_bit_rfc_8538_section_4() {
    let shutdown = Notification::with_text(codes::CEASE_ADMINISTRATIVE_SHUTDOWN, "bye");
    let cases = [
        (None, codes::CEASE_ADMINISTRATIVE_SHUTDOWN),
        (theirs(false), codes::CEASE_ADMINISTRATIVE_SHUTDOWN),
        (theirs(true), codes::CEASE_HARD_RESET),
    ];
    for (theirs, expected) in cases {
        let mut bench = bench(theirs.clone(), Established);
        bench.peer.stop(&shutdown, bench.now);
        bench.settle();
        assert_eq!(bench.notifications, [expected], "{theirs:?}");
    }
}

#[test]
fn errors_are_never_hard_resets() {
    let mut bench = bench(theirs(true), Established);
    bench.expire(Timer::Hold);
    assert_eq!(bench.notifications, [codes::HOLD_TIMER_EXPIRED]);
}

#[test]
fn a_new_connection_of_a_peer_that_keeps_no_forwarding_state_loses_against_its_session() {
    let helper_only = Some(GracefulRestart { restart_time_secs: 120, ..GracefulRestart::default() });
    for theirs in [None, helper_only] {
        let mut bench = bench(theirs, Established);
        assert!(!bench.accept());
        assert_eq!(bench.peer.state(), Established);
    }
}

#[test]
fn a_late_connection_of_a_restarting_peer_costs_the_session_only_with_its_open() {
    let mut bench = bench(theirs(false), Established);
    assert!(bench.accept());
    assert_eq!(bench.states(), [Some(Established), Some(OpenSent)]);
    // Given up again, as the loser of a collision is.
    let id = bench.peer.connection(Direction::Incoming).unwrap().id;
    bench.peer.handle_closed(id, "closed by the peer".to_owned(), bench.now);
    bench.settle();
    assert_eq!(bench.states(), [Some(Established), None]);
    assert!(bench.accept());
    bench.receive(Direction::Incoming, &open_with(theirs(false)));
    assert_eq!(bench.states(), [None, Some(OpenConfirm)]);
    assert_eq!(bench.notifications, [], "a NOTIFICATION could reach the new process");
    bench.receive(Direction::Incoming, &keepalive());
    assert_eq!((bench.peer.state(), bench.peer.status().flaps), (Established, 1));
}

#[test]
fn what_an_open_says_of_a_restart_follows_from_what_has_happened() {
    let secs = |secs| Time::ZERO + Duration::from_secs(secs);
    let offered = Some(GracefulRestartConfig {
        restart_time: RestartTime::new(10).unwrap(),
        ..GracefulRestartConfig::default()
    });
    let says = |is_restarting, is_forwarding| RestartState { is_restarting, is_forwarding };
    let first = Continuity::new(None);
    assert_eq!(first.state(offered, secs(0)), says(false, [false, false]));
    let mut again = Continuity::new(Some(Restart { at: secs(5), kept: [true, false] }));
    assert_eq!(again.state(offered, secs(15)), says(true, [true, false]));
    assert_eq!(again.state(offered, secs(16)), says(false, [false, false]), "nothing is left at the peer");
    again.on_established();
    assert_eq!(again.state(offered, secs(15)), says(true, [true, true]), "what it has is this process's");
    again.on_end_of_rib();
    assert_eq!(again.state(offered, secs(15)), says(false, [true, true]), "RFC 8538 §4");
}
