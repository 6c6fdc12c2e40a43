//! Collisions of two connections (RFC 4271 §6.8).

use super::*;
use State::{Active, Connect, Established, OpenConfirm, OpenSent};

/// Both connections are in OpenSent.
fn collision() -> Bench {
    let mut bench = Bench::in_state(Connect);
    assert!(bench.accept());
    bench.dial_succeeds();
    assert_eq!(bench.states(), [Some(OpenSent), Some(OpenSent)]);
    bench
}

#[test]
fn of_two_connections_that_of_the_larger_identifier_lives_whichever_opens_first() {
    for (their_id, winner) in [(OUR_ID + 1, Direction::Incoming), (OUR_ID - 1, Direction::Outgoing)] {
        for first in Direction::ALL {
            let mut bench = collision();
            bench.receive(first, &open_of(THEIRS, their_id, 90));
            bench.receive(first.other(), &open_of(THEIRS, their_id, 90));
            let states = bench.states();
            assert_eq!(states[winner as usize], Some(OpenConfirm), "ID {their_id}, first {first:?}");
            assert_eq!(states[winner.other() as usize], None, "ID {their_id}, first {first:?}");
            assert_eq!(bench.notifications, [codes::CEASE_CONNECTION_COLLISION]);
        }
    }
}

#[test]
fn equal_identifiers_are_decided_by_the_as_number() {
    // RFC 6286 §2.3: the peer's AS is the larger one.
    let mut bench = collision();
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID, 90));
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID, 90));
    assert_eq!(bench.states(), [None, Some(OpenConfirm)]);
}

#[test]
fn the_loser_of_a_collision_is_never_confirmed() {
    let mut bench = collision();
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID + 1, 90));
    assert_eq!(bench.keepalives, 1);
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 90));
    assert_eq!(bench.keepalives, 1, "a KEEPALIVE would bring up at the peer what is closed next");
}

#[test]
fn an_established_session_wins_over_a_connection_with_the_better_identifier() {
    let mut bench = collision();
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 90));
    bench.receive(Direction::Outgoing, &keepalive());
    assert_eq!(bench.states(), [Some(Established), None], "the other one is closed at once");
    assert_eq!(bench.notifications, [codes::CEASE_CONNECTION_COLLISION]);
    assert!(!bench.accept(), "and no new one is taken");
    let status = bench.peer.status();
    assert_eq!(status.notifications.sent, [(6, 2)].into(), "and the peer is told");
}

#[test]
fn a_confirmed_winner_aborts_the_dial_under_way() {
    let mut bench = Bench::in_state(Connect);
    bench.accept();
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID + 1, 90));
    assert_eq!(bench.dial, None);
    let mut bench = Bench::in_state(Connect);
    bench.accept();
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID - 1, 90));
    assert!(bench.dial.is_some(), "our own connection would win");
}

#[test]
fn a_newer_connection_of_the_peer_takes_the_place_of_its_older_one() {
    let mut bench = Bench::in_state(Active);
    assert!(bench.accept());
    let older = bench.peer.connection(Direction::Incoming).unwrap().id;
    assert!(bench.accept());
    assert_eq!((bench.closed.as_slice(), bench.peer.state()), (&[older][..], OpenSent));
}

#[test]
fn the_loss_of_one_connection_leaves_the_other_alone() {
    let mut bench = collision();
    bench.receive(Direction::Incoming, &notification(codes::CEASE_CONNECTION_REJECTED));
    assert_eq!(bench.states(), [Some(OpenSent), None]);
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 90));
    bench.receive(Direction::Outgoing, &keepalive());
    assert_eq!(bench.peer.state(), Established);
}

#[test]
fn of_connections_without_end_from_a_peers_address_few_are_taken_and_one_later_is_again() {
    for state in [Active, OpenSent] {
        let mut bench = Bench::in_state(state);
        let taken = (0..1000).filter(|_| bench.accept()).count();
        assert_eq!(taken, 20, "in {state}");
        assert!(bench.peer.status().last_error.unwrap().contains("connects more often"));
        assert!(bench.closed.len() < 20, "each new one replaces the one before");
        bench.now = bench.now + Duration::from_secs(1);
        assert!(bench.accept(), "in {state}");
    }
}
