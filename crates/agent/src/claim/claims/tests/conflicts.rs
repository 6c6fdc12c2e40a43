//! Two that hold the same, and strangers.

use netlink::Kind;

use super::one::{Did, OTHER, One, STRANGER, THIRD, ip, ms};
use crate::claim::{Input, Message, Report};

fn holding() -> Message {
    Message::Holding(vec![ip()])
}

fn released_to(name: &'static str) -> Did {
    Did::Send(name, Message::Released(vec![ip()]))
}

#[test]
fn of_two_members_that_hold_it_the_winner_keeps_it_and_else_the_first_by_name() {
    // Who is elected, who holds it, too, and whether it stays here; `me` comes before `other` and `third`.
    for (elected, rival, is_kept) in [
        ("me", "other", true),
        ("other", "other", false),
        ("third", "other", true),
        ("third", "third", false),
    ] {
        let mut by_message = One::holding();
        by_message.wants(elected);
        by_message.is_told(rival, holding());
        let mut by_wire = One::holding();
        by_wire.wants(elected);
        by_wire.hears(if rival == "other" { OTHER } else { THIRD }, Kind::Announcement);
        for mut one in [by_message, by_wire] {
            let did = one.did();
            match is_kept {
                true => {
                    assert_eq!(did, [Did::Send(if rival == "other" { "other" } else { "third" }, holding())]);
                }
                false => {
                    assert_eq!(did[0], Did::Remove);
                    one.removed();
                    assert!(one.did().contains(&released_to(if rival == "other" {
                        "other"
                    } else {
                        "third"
                    })));
                }
            }
        }
    }
}

#[test]
fn a_rival_is_told_again_and_again_until_it_gives_up_and_then_all_are_told() {
    let mut one = One::holding();
    one.announcing.enabled = true;
    one.wants("me");
    one.is_told("other", holding());
    let told =
        |line: &[(u128, Did)]| line.iter().filter(|(_, did)| *did == Did::Send("other", holding())).count();
    let line = one.timeline(ms(1_000));
    assert_eq!(told(&line), 6, "{line:?}");
    one.is_told("other", Message::Released(vec![ip()]));
    let line = one.timeline(ms(3_000));
    assert_eq!(told(&line), 0, "{line:?}");
    assert_eq!(
        line.iter().filter(|(_, did)| *did == Did::Announce).count(),
        4,
        "at once, and the burst: {line:?}"
    );
}

#[test]
fn a_rival_that_is_heard_of_no_more_is_forgotten() {
    let mut one = One::holding();
    one.is_told("other", holding());
    let last = one.timeline(ms(60_000)).last().unwrap().0;
    assert!(last <= 3_000, "{last}");
    one.is_told("other", holding());
    one.did();
    one.members(false, true);
    assert_eq!(one.timeline(ms(10_000)), [], "dead");
}

#[test]
fn members_that_come_are_told_what_is_held_and_those_that_were_dead_have_it_announced_too() {
    let mut one = One::holding();
    one.announcing.enabled = true;
    one.wants("me");
    one.run_for(ms(5_000));
    one.members(false, true);
    one.did();
    one.members(true, true);
    assert_eq!(one.timeline(ms(100)), [(0, Did::Send("other", holding())), (0, Did::Announce)]);
}

#[test]
fn rfc_5227_section_2_4_b_it_is_defended_once_and_left_to_a_stranger_that_insists() {
    let mut one = One::holding();
    one.announcing.enabled = true;
    one.wants("me");
    one.hears(STRANGER, Kind::Announcement);
    assert_eq!(one.timeline(ms(10)), [(0, Did::Announce)]);
    one.run_for(ms(10_000));
    one.hears(STRANGER, Kind::Announcement);
    assert_eq!(one.timeline(ms(10)), [(0, Did::Announce)], "ten seconds later it is another matter");
    one.hears(STRANGER, Kind::Announcement);
    let expected =
        [Did::Report(Report::Conflict(ip(), STRANGER)), Did::Remove, Did::Report(Report::Released(ip()))];
    assert_eq!(one.did(), expected);
    one.removed();
    assert_eq!(one.timeline(ms(4_999)), []);
    one.run_for(ms(1));
    assert_eq!(one.did(), [Did::Probe], "each five seconds it is looked whether it is still there");
}

#[test]
fn a_stranger_is_reported_after_three_seconds_and_no_more_when_it_is_gone() {
    let mut one = One::new();
    one.wants("me");
    let conflict = Did::Report(Report::Conflict(ip(), STRANGER));
    let start = one.now;
    loop {
        let did = one.did();
        if did.contains(&conflict) {
            break;
        }
        if did.contains(&Did::Probe) {
            one.hears(STRANGER, Kind::Answer);
        }
        one.run_for(ms(1));
        assert!(one.now - start < ms(4_500));
    }
    assert!(one.now - start >= ms(3_000));
    let line = one.timeline(ms(6_000));
    let ended = Did::Report(Report::ConflictEnded(ip()));
    assert!(
        line.iter().any(|(_, did)| *did == ended) && line.iter().any(|(_, did)| *did == Did::Add),
        "{line:?}"
    );
    // So, too, if nobody wants the address any more.
    let mut one = One::holding();
    one.hears(STRANGER, Kind::Announcement);
    one.hears(STRANGER, Kind::Announcement);
    one.did();
    one.removed();
    one.claims.handle(Input::WantedAll(vec![]), one.now);
    assert_eq!(one.did(), [ended]);
}

#[test]
fn an_unknown_that_becomes_a_member_is_no_stranger() {
    let mut one = One::new();
    one.claims.handle(Input::Members(vec![]), one.now);
    one.wants("me");
    one.hears(OTHER, Kind::Answer);
    one.did();
    one.members(true, true);
    one.hears(OTHER, Kind::Answer);
    assert_eq!(one.did(), [Did::Probe, Did::Send("other", Message::Request(vec![ip()]))]);
}

#[test]
fn a_payload_that_is_none_changes_nothing() {
    let mut one = One::holding();
    one.claims.handle(Input::Payload { from: "other".into(), octets: vec![9, 9] }, one.now);
    one.is_told("other", Message::Holding(vec!["192.0.2.77".parse().unwrap()]));
    assert_eq!(one.did(), []);
}
