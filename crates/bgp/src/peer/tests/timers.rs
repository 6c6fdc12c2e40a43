//! Timers, and what their expiry is told as.

use super::*;
use State::{Active, Established, Idle, OpenConfirm, OpenSent};

#[test]
fn the_keepalive_timer_sends_a_keepalive_and_goes_on() {
    for state in [OpenConfirm, Established] {
        let mut bench = Bench::in_state(state);
        for count in 1..4 {
            bench.expire(Timer::Keepalive);
            assert_eq!(bench.keepalives, count);
        }
    }
}

#[test]
fn a_silent_peer_after_open_is_given_up_after_four_minutes() {
    let mut bench = Bench::in_state(OpenSent);
    bench.now = Time::ZERO + Duration::from_secs(239);
    bench.peer.handle_timeout(&mut bench.ids, bench.now);
    assert_eq!(bench.peer.state(), OpenSent);
    bench.now = Time::ZERO + Duration::from_secs(240);
    bench.peer.handle_timeout(&mut bench.ids, bench.now);
    bench.settle();
    assert_eq!(
        (bench.peer.state(), bench.notifications.as_slice()),
        (Idle, &[codes::HOLD_TIMER_EXPIRED][..])
    );
    assert!(bench.peer.status().last_error.unwrap().contains("nothing came from the peer"));
}

#[test]
fn the_smaller_hold_time_runs_and_keepalives_come_three_times_as_often() {
    let mut bench = Bench::in_state(OpenSent);
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 9));
    bench.receive(Direction::Outgoing, &keepalive());
    assert_eq!(bench.peer.status().hold_time, HoldTime::new(9));
    let next = bench.peer.poll_timeout().unwrap().since(bench.now);
    assert!((2250..=3000).contains(&next.as_millis()), "{next:?}");
    bench.now = Time::ZERO + Duration::from_secs(9);
    bench.peer.handle_timeout(&mut bench.ids, bench.now);
    bench.settle();
    assert_eq!(bench.notifications, [codes::HOLD_TIMER_EXPIRED]);
}

#[test]
fn hold_time_zero_means_no_hold_timer_and_no_keepalives() {
    let mut bench = Bench::in_state(OpenSent);
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 0));
    bench.receive(Direction::Outgoing, &keepalive());
    assert_eq!(bench.peer.state(), Established);
    assert_eq!(bench.keepalives, 1, "the one that confirms the OPEN");
    // What has been sent is taken, so that not even the send hold timer runs.
    let connection = bench.peer.connection_mut(Direction::Outgoing).unwrap();
    connection.transmitted(usize::MAX, bench.now);
    assert_eq!(bench.peer.poll_timeout(), None);
}

#[test]
fn a_socket_that_takes_nothing_loses_the_session_after_the_send_hold_time() {
    let mut bench = Bench::in_state(Established);
    for secs in (0..500).step_by(20) {
        bench.now = Time::ZERO + Duration::from_secs(secs);
        bench.receive(Direction::Outgoing, &keepalive());
        bench.peer.handle_timeout(&mut bench.ids, bench.now);
        bench.settle();
        assert_eq!(bench.notifications.is_empty(), secs < 480, "at {secs} s");
    }
    assert_eq!(bench.notifications, [codes::SEND_HOLD_TIMER_EXPIRED]);
}

#[test]
fn a_wrong_as_is_refused_in_words() {
    for (asn, name) in [(64999, "AS 64999"), (THEIRS + 65_536, "AS 130049")] {
        let mut bench = Bench::in_state(OpenSent);
        bench.receive(Direction::Outgoing, &open_of(asn, OUR_ID + 1, 90));
        assert_eq!(bench.notifications, [codes::OPEN_BAD_PEER_AS]);
        let error = bench.peer.status().last_error.unwrap();
        assert!(error.contains(name) && error.contains("AS 64513 is configured"), "{error}");
    }
}

#[test]
fn each_loss_without_a_stable_session_doubles_the_idle_hold_time() {
    let mut bench = Bench::new(config());
    bench.start();
    let mut idle = Vec::new();
    for _ in 0..9 {
        bench.dial_succeeds();
        bench.receive(Direction::Outgoing, &notification(codes::CEASE_ADMINISTRATIVE_SHUTDOWN));
        let until = bench.peer.poll_timeout().unwrap();
        idle.push(until.since(bench.now).as_secs_f64());
        bench.now = until;
        bench.peer.handle_timeout(&mut bench.ids, bench.now);
        bench.settle();
    }
    let full = [0., 1., 2., 4., 8., 16., 32., 60., 60.];
    assert!(idle.iter().zip(full).all(|(got, full)| (full * 0.75..=full).contains(got)), "{idle:?}");
}

#[test]
fn a_stable_session_takes_the_idle_hold_back() {
    let mut bench = Bench::in_state(Established);
    bench.peer.losses = 5;
    bench.now = Time::ZERO + Duration::from_secs(61);
    bench.tcp_fails();
    assert_eq!(bench.peer.poll_timeout(), Some(bench.now));
    assert_eq!(bench.peer.status().flaps, 1);
}

#[test]
fn a_passive_peer_never_dials_and_takes_connections() {
    let mut bench = Bench::new(PeerConfig { passive: true, ..config() });
    bench.start();
    assert_eq!((bench.peer.state(), bench.dial), (Active, None));
    assert!(!bench.peer.timers.is_running(Timer::ConnectRetry));
    assert!(bench.accept());
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID + 1, 90));
    bench.receive(Direction::Incoming, &keepalive());
    assert_eq!(bench.peer.state(), Established);
}
