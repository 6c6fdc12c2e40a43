//! Two that hold the same, and strangers.

use netlink::Kind;

use super::one::{Did, LAST, OTHER, One, STRANGER, THIRD, ip, ms};
use crate::claim::{Input, Message, Report, message::NO_REQUEST};

fn holding() -> Message {
    Message::Holding(vec![ip()])
}

fn released_to(name: &'static str) -> Did {
    Did::Send(name, Message::Released(NO_REQUEST, vec![ip()]))
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
        by_message.did();
        by_message.is_told(rival, holding());
        let mut by_wire = One::holding();
        by_wire.wants(elected);
        by_wire.did();
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
    one.is_told("other", Message::Released(NO_REQUEST, vec![ip()]));
    let line = one.timeline(ms(3_000));
    assert_eq!(told(&line), 0, "{line:?}");
    assert_eq!(
        line.iter().filter(|(_, did)| *did == Did::Announce).count(),
        4,
        "at once, and the burst: {line:?}"
    );
}

#[test]
fn a_node_that_leaves_makes_way_for_any_member_that_holds_the_same() {
    let mut one = One::holding();
    one.claims.handle(Input::Leave, one.now);
    one.is_told("third", holding());
    assert!(
        one.did().contains(&Did::Remove),
        "though its name comes first, and nobody has told it who is elected"
    );
}

#[test]
fn what_has_come_here_is_asked_for_once_more_after_a_second_and_given_back_to_whom_cannot_be_asked() {
    for (mac, again) in [(OTHER, 1_000), (STRANGER, 1_000)] {
        let mut one = One::new();
        one.skips_dad = false;
        one.members(false, true);
        one.wants("me");
        one.run_for(ms(60));
        one.added();
        one.did();
        assert_eq!(one.timeline(ms(1_000)), [(1_000, Did::Probe)]);
        one.hears(mac, Kind::Answer);
        assert!(one.did().contains(&Did::Remove));
        one.removed();
        let line = one.timeline(ms(again));
        assert_eq!(line.last(), Some(&(u128::from(again), Did::Probe)), "{line:?}");
    }
    let mut one = One::holding();
    assert_eq!(one.timeline(ms(2_000)), [], "skipIPv6DAD");
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
    assert_eq!(one.timeline(ms(990)), [], "the other frame of the same announcement");
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
fn of_two_members_dead_to_each_other_that_announce_the_same_the_one_with_the_later_name_gives_up() {
    // Our name comes before `other`'s and `third`'s.
    let mut one = One::holding();
    one.announcing.enabled = true;
    one.wants("me");
    one.run_for(ms(5_000));
    one.members(false, true);
    one.did();
    let mut said = 0;
    for _ in 0..200 {
        one.hears(OTHER, Kind::Announcement);
        let did = one.timeline(ms(10));
        assert!(did.iter().all(|(_, did)| *did == Did::Announce), "{did:?}");
        said += did.len();
    }
    assert_eq!(said, 10, "each 200 ms");
    let mut one = One::named("zeta");
    one.wants("me");
    one.run_for(ms(60));
    one.added();
    one.members(false, true);
    one.hears(OTHER, Kind::Announcement);
    one.run_for(ms(999));
    one.hears(OTHER, Kind::Announcement);
    assert!(!one.did().contains(&Did::Remove));
    one.run_for(ms(1));
    one.hears(OTHER, Kind::Announcement);
    assert!(one.did().contains(&Did::Remove));
}

#[test]
fn what_one_releases_and_another_has_answered_for_too_is_asked_for_again() {
    let mut one = One::new();
    one.wants("me");
    one.hears(OTHER, Kind::Answer);
    one.hears(THIRD, Kind::Answer);
    one.did();
    one.is_told("other", Message::Released(LAST, vec![ip()]));
    assert_eq!(one.did(), [Did::Probe]);
    one.hears(THIRD, Kind::Answer);
    assert_eq!(one.did(), [Did::Send("third", Message::Request(LAST, vec![ip()]))]);
}

#[test]
fn a_release_that_is_read_too_late_is_no_word_to_rely_on() {
    let mut one = One::new();
    one.wants("me");
    one.hears(OTHER, Kind::Answer);
    one.did();
    // As a process that was stopped meanwhile finds it.
    one.now += ms(301);
    one.is_told("other", Message::Released(LAST, vec![ip()]));
    assert_eq!(one.did(), [Did::Probe]);
}

#[test]
fn two_that_probe_and_do_not_know_each_other_are_told_apart_by_their_macs() {
    let mut one = One::new();
    one.claims.handle(Input::Members(vec![]), one.now);
    one.wants("me");
    one.did();
    one.hears(OTHER, Kind::Probe);
    assert_eq!(one.did(), [Did::Probe], "its comes first: begun anew");
    one.hears(THIRD, Kind::Probe);
    assert_eq!(one.timeline(ms(19)), [], "ours comes first, and it may be a client of the holder");
    assert_eq!(one.timeline(ms(1)), [(1, Did::Probe), (1, Did::Answer(THIRD))]);
    one.hears(THIRD, Kind::Probe);
    assert_eq!(one.timeline(ms(30)), [(0, Did::Answer(THIRD)), (30, Did::Add)], "nobody has answered");
}

#[test]
fn a_client_that_asks_while_the_holders_answer_is_on_its_way_hears_nothing_of_who_asks_too() {
    let mut one = One::new();
    one.wants("me");
    one.hears(STRANGER, Kind::Probe);
    one.hears(OTHER, Kind::Answer);
    one.hears(STRANGER, Kind::Probe);
    assert_eq!(one.did(), [Did::Probe, Did::Send("other", Message::Request(LAST, vec![ip()]))]);
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
    one.run_for(ms(1_000));
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
    assert_eq!(one.did(), [Did::Probe, Did::Send("other", Message::Request(LAST, vec![ip()]))]);
}

#[test]
fn a_payload_that_is_none_changes_nothing() {
    let mut one = One::holding();
    one.claims.handle(Input::Payload { from: "other".into(), octets: vec![9, 9] }, one.now);
    one.is_told("other", Message::Holding(vec!["192.0.2.77".parse().unwrap()]));
    assert_eq!(one.did(), []);
}
