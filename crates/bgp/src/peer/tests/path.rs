//! What BGP makes of BFD (RFC 5882).

use super::*;
use crate::bfd::{self, Diagnostic, Verdict};

const EXPIRED: Verdict = Verdict::Failed(Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);

#[test]
fn a_bfd_failure_ends_the_session_at_once_with_cease_bfd_down() {
    for state in [OpenSent, OpenConfirm, Established] {
        let mut bench = Bench::in_state(state);
        bench.tell_bfd(bfd::State::Up, Verdict::Works);
        bench.tell_bfd(bfd::State::Down, EXPIRED);
        assert_eq!(bench.notifications, [codes::CEASE_BFD_DOWN]);
        assert_eq!(bench.peer.state(), State::Idle);
        let status = bench.peer.status();
        assert_eq!(status.bfd, Some(bfd::State::Down));
        assert_eq!(status.last_error.unwrap(), "BFD down: control detection time expired (1)");
    }
}

#[test]
fn after_a_bfd_failure_the_session_waits_for_bfd() {
    let mut bench = Bench::in_state(Established);
    bench.tell_bfd(bfd::State::Down, EXPIRED);
    bench.tell_bfd(bfd::State::Init, EXPIRED);
    assert_eq!((bench.peer.state(), bench.dial), (State::Idle, None));
    assert!(!bench.accept(), "nor is the router let in");
    bench.tell_bfd(bfd::State::Up, Verdict::Works);
    assert_eq!(bench.peer.state(), State::Connect);
}

#[test]
fn a_router_that_begins_with_bfd_only_once_established_is_not_waited_for_for_ever() {
    let mut bench = Bench::in_state(Established);
    bench.tell_bfd(bfd::State::Down, EXPIRED);
    let due = bench.peer.poll_timeout().unwrap();
    assert!((7..=60).contains(&due.since(bench.now).as_secs()), "{due:?}");
    bench.now = due;
    bench.peer.handle_timeout(&mut bench.ids, due);
    bench.settle();
    assert_eq!(bench.peer.state(), State::Connect);
}

#[test]
fn after_a_stable_session_a_bfd_failure_keeps_it_down_as_short_as_the_first_one() {
    let mut bench = Bench::in_state(Established);
    bench.peer.losses = 9;
    bench.now = bench.now + STABLE;
    bench.tell_bfd(bfd::State::Down, EXPIRED);
    let due = bench.peer.poll_timeout().unwrap();
    assert_eq!(due.since(bench.now), Duration::from_secs(10));
}

#[test]
fn a_session_is_established_before_bfd_is_up() {
    let mut bench = Bench::in_state(State::Connect);
    bench.tell_bfd(bfd::State::Down, Verdict::Unknown);
    bench.dial_succeeds();
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 90));
    bench.receive(Direction::Outgoing, &keepalive());
    assert_eq!(bench.peer.state(), Established);
}

#[test]
fn admin_down_is_no_failure_and_ends_the_wait_for_bfd() {
    let mut bench = Bench::in_state(Established);
    bench.tell_bfd(bfd::State::Down, Verdict::Disabled);
    assert_eq!((bench.peer.state(), bench.notifications.len()), (Established, 0));
    bench.tell_bfd(bfd::State::Up, Verdict::Works);
    bench.tell_bfd(bfd::State::Down, EXPIRED);
    assert_eq!(bench.peer.state(), State::Idle);
    bench.tell_bfd(bfd::State::Down, Verdict::Disabled);
    assert_eq!(bench.peer.state(), State::Connect);
}

#[test]
fn a_peer_without_bfd_any_more_is_not_held_down_by_it() {
    let mut bench = Bench::in_state(Established);
    bench.tell_bfd(bfd::State::Down, EXPIRED);
    let config = Arc::new(config());
    bench.peer.reconfigure(config, false, &bench.loc_rib, &mut bench.ids, bench.now);
    bench.settle();
    assert_eq!((bench.peer.state(), bench.peer.status().bfd), (State::Connect, None));
}

#[test]
fn a_peer_that_is_stopped_stays_stopped_whatever_bfd_says() {
    let mut bench = Bench::in_state(Established);
    bench.peer.stop(&Notification::new(codes::CEASE_ADMINISTRATIVE_SHUTDOWN), bench.now);
    bench.settle();
    for verdict in [EXPIRED, Verdict::Works, Verdict::Disabled] {
        bench.tell_bfd(bfd::State::Down, verdict);
        assert_eq!((bench.peer.state(), bench.peer.poll_timeout()), (State::Idle, None));
    }
}

#[test]
fn a_wait_that_bfd_is_no_reason_for_is_not_ended_by_it() {
    let mut bench = Bench::in_state(Established);
    bench.tcp_fails();
    assert_eq!(bench.peer.state(), State::Idle);
    bench.tell_bfd(bfd::State::Up, Verdict::Works);
    assert_eq!(bench.peer.state(), State::Idle);
}
