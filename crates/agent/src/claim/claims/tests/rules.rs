//! Claiming, handing over and giving up, rule by rule.

use netlink::{Address, AddressFlags, Kind, Lifetime};

use super::{
    super::LinkState,
    one::{Did, INTERFACE, LAST, OTHER, OURS, One, STRANGER, THIRD, ip, ms},
};
use crate::claim::{Input, Message, Report, action::AddFailure, message::NO_REQUEST};

const HELD: Did = Did::Report(Report::Held(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))));
const RELEASED: Did =
    Did::Report(Report::Released(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))));

fn request() -> Message {
    Message::Request(LAST, vec![ip()])
}

fn released() -> Message {
    Message::Released(LAST, vec![ip()])
}

#[test]
fn two_probes_20_ms_apart_without_answer_and_it_is_added_after_50() {
    let mut one = One::new();
    one.wants("me");
    assert_eq!(one.timeline(ms(1_000)), [(0, Did::Probe), (20, Did::Probe), (50, Did::Add)]);
}

#[test]
fn a_live_member_that_answers_is_asked_and_its_release_is_taken_up_at_once() {
    for kind in [Kind::Answer, Kind::Announcement] {
        let mut one = One::new();
        one.wants("me");
        one.hears(OTHER, kind);
        assert_eq!(one.did(), [Did::Probe, Did::Send("other", request())]);
        one.is_told("third", released());
        assert_eq!(one.did(), [], "not whom it was asked of");
        one.is_told("other", released());
        assert_eq!(one.did(), [Did::Add]);
    }
}

#[test]
fn a_member_that_does_not_release_is_asked_again_ever_more_slowly() {
    let mut one = One::new();
    one.wants("me");
    let mut asked = Vec::new();
    for _ in 0..8 {
        one.hears(OTHER, Kind::Answer);
        let line = one.timeline(ms(300));
        assert!(line.contains(&(0, Did::Send("other", request()))), "{line:?}");
        asked.push(one.now);
        while !one.timeline(ms(1)).iter().any(|(_, did)| *did == Did::Probe) {
            assert!(one.now - asked[asked.len() - 1] < ms(1_100));
        }
    }
    let pauses: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] < ms(450) && pauses[6] > ms(900), "{pauses:?}");
}

#[test]
fn what_a_dead_members_kernel_answers_for_is_left_to_it_and_looked_at_each_second() {
    let mut one = One::new();
    one.members(false, true);
    one.wants("me");
    for _ in 0..5 {
        assert_eq!(one.did(), [Did::Probe]);
        one.hears(OTHER, Kind::Answer);
        one.run_for(ms(999));
        assert_eq!(one.did(), []);
        one.run_for(ms(1));
    }
    // It lives again: it is asked at once.
    one.hears(OTHER, Kind::Answer);
    one.did();
    one.members(true, true);
    one.hears(OTHER, Kind::Answer);
    assert_eq!(one.did(), [Did::Probe, Did::Send("other", request())]);
}

#[test]
fn a_holder_keeps_the_address_until_the_winner_asks_and_says_when_it_is_gone() {
    let mut one = One::holding();
    one.wants("other");
    let offer = [(0, Did::Send("other", Message::Holding(vec![ip()])))];
    assert_eq!(one.timeline(ms(10_000)), offer, "nobody has taken it yet");
    one.is_told("other", request());
    assert_eq!(one.did(), [Did::Remove, RELEASED]);
    one.is_told("third", Message::Holding(vec![ip()]));
    assert_eq!(one.did(), [], "the kernel still has it");
    one.removed();
    assert_eq!(one.did(), [Did::Send("other", released())]);
    assert_eq!(one.timeline(ms(10_000)), []);
}

#[test]
fn a_winner_gives_nothing_away_and_says_so_when_it_is_no_longer_one() {
    let mut one = One::holding();
    one.is_told("other", request());
    assert_eq!(one.did(), []);
    one.wants("other");
    assert_eq!(one.did(), [Did::Send("other", Message::Holding(vec![ip()]))]);
    one.is_told("other", request());
    assert_eq!(one.did(), [Did::Remove, RELEASED]);
}

#[test]
fn who_was_refused_asks_again_when_the_holder_offers_it() {
    let mut one = One::new();
    one.wants("me");
    one.hears(OTHER, Kind::Answer);
    one.run_for(ms(301));
    one.did();
    one.is_told("other", Message::Holding(vec![ip()]));
    assert_eq!(one.did(), [Did::Send("other", request())]);
}

#[test]
fn what_was_released_to_an_earlier_request_is_no_answer_to_this_one() {
    let mut one = One::new();
    one.wants("me");
    one.hears(OTHER, Kind::Answer);
    one.did();
    one.run_for(ms(300));
    // It offers it after that, and is asked anew.
    one.is_told("other", Message::Holding(vec![ip()]));
    // `LAST` is still the first request's number: the test has not seen the second yet.
    one.is_told("other", released());
    assert_eq!(one.did(), [Did::Send("other", request())]);
    one.is_told("other", released());
    assert_eq!(one.did(), [Did::Add]);
}

#[test]
fn an_offer_and_a_release_that_cross_a_request_leave_no_doubt() {
    let mut one = One::new();
    one.wants("me");
    one.hears(OTHER, Kind::Answer);
    one.did();
    one.is_told("other", Message::Holding(vec![ip()]));
    one.is_told("other", released());
    let did = one.did();
    assert!(did.contains(&Did::Add), "asked a second time, and answered the first: {did:?}");
    one.is_told("other", Message::Released(NO_REQUEST, vec![ip()]));
    assert_eq!(one.timeline(ms(200)), [], "what the second time has brought");
}

#[test]
fn who_is_asked_for_what_it_does_not_hold_says_so_and_the_wire_is_asked_again() {
    let mut one = One::new();
    one.wants("other");
    one.is_told("other", request());
    assert_eq!(one.did(), [Did::Send("other", Message::Released(NO_REQUEST, vec![ip()]))]);
    let mut one = One::new();
    one.wants("me");
    one.hears(OTHER, Kind::Answer);
    one.did();
    one.is_told("other", Message::Released(NO_REQUEST, vec![ip()]));
    assert_eq!(one.timeline(ms(60)), [(0, Did::Probe), (20, Did::Probe), (50, Did::Add)]);
}

#[test]
fn a_member_that_answers_for_what_it_says_it_does_not_hold_is_reported_after_three_seconds() {
    let mut one = One::new();
    one.wants("me");
    let start = one.now;
    let mut did = Vec::new();
    while one.now < start + ms(4_500) {
        // As many nodes answer as there are; the first is asked.
        one.hears(OTHER, Kind::Answer);
        one.hears(THIRD, Kind::Answer);
        let now: Vec<_> = one.timeline(ms(10)).into_iter().map(|(_, did)| did).collect();
        if now.contains(&Did::Send("other", request())) {
            one.is_told("other", Message::Released(NO_REQUEST, vec![ip()]));
        }
        did.extend(now);
    }
    let reports: Vec<_> = did.iter().filter(|did| matches!(did, Did::Report(_))).collect();
    assert_eq!(reports, [&Did::Report(Report::Unheld(ip(), "other".into()))]);
    assert!(!did.contains(&Did::Add), "it answers");
    let requests = did.iter().filter(|did| **did == Did::Send("other", request())).count();
    assert!((4..12).contains(&requests), "ever more slowly: {requests}");
    let line = one.timeline(ms(6_000));
    assert!(line.iter().any(|(_, did)| *did == Did::Add), "it answers no more: {line:?}");
    assert!(line.iter().any(|(_, did)| *did == Did::Report(Report::ConflictEnded(ip()))), "{line:?}");
}

#[test]
fn a_winner_that_takes_no_messages_is_given_way_to_at_once() {
    let mut one = One::holding();
    one.members(true, false);
    one.wants("other");
    assert_eq!(one.did(), [Did::Remove, RELEASED]);
}

#[test]
fn nothing_is_claimed_in_a_silence_that_says_nothing_and_what_was_held_comes_back_in_it() {
    let mut one = One::new();
    one.claims.handle(Input::Alone(vec![INTERFACE]), one.now);
    one.wants("me");
    let line = one.timeline(ms(5_000));
    assert!(line.len() > 5 && line.iter().all(|(_, did)| *did == Did::Probe), "{line:?}");
    one.claims.on_sound(INTERFACE, one.now);
    assert_eq!(one.timeline(ms(60)), [(0, Did::Probe), (20, Did::Probe), (50, Did::Add)]);
    let mut one = One::new();
    one.claims.handle(Input::Alone(vec![INTERFACE]), one.now);
    one.wants("me");
    one.run_for(ms(1_000));
    one.did();
    one.claims.handle(Input::Alone(vec![]), one.now);
    assert_eq!(one.did(), [Did::Probe], "another node is heard");
    let mut one = One::holding();
    one.claims.handle(Input::Alone(vec![INTERFACE]), one.now);
    assert_eq!(one.timeline(ms(5_000)), []);
    let address = one.address();
    one.claims.on_address_removed(&address, one.now);
    assert_eq!(one.timeline(ms(60)), [(0, Did::Probe), (20, Did::Probe), (50, Did::Add)]);
}

#[test]
fn what_is_wanted_no_more_is_removed_at_once_whoever_was_elected() {
    for elected in ["me", "other"] {
        let mut one = One::holding();
        one.wants(elected);
        one.did();
        one.claims.handle(Input::Wanted(ip(), None), one.now);
        assert_eq!(one.did(), [Did::Remove, RELEASED]);
        one.removed();
        assert_eq!(one.timeline(ms(10_000)), []);
    }
}

#[test]
fn a_claim_under_way_ends_with_the_wish() {
    let mut one = One::new();
    one.wants("me");
    one.wants("other");
    one.run_for(ms(1_000));
    assert_eq!(one.did(), [Did::Probe]);
    // Already with the kernel: it is taken away again as soon as it is there.
    let mut one = One::new();
    one.wants("me");
    one.run_for(ms(50));
    one.claims.handle(Input::WantedAll(vec![]), one.now);
    one.did();
    one.added();
    assert_eq!(one.did(), [Did::Remove]);
}

#[test]
fn of_two_members_that_ask_at_once_the_lower_link_layer_address_goes_on() {
    let mut one = One::new();
    one.wants("me");
    one.run_for(ms(10));
    one.hears(THIRD, Kind::Probe);
    let rest = [(0, Did::Probe), (0, Did::Answer(THIRD)), (10, Did::Probe), (40, Did::Add)];
    assert_eq!(one.timeline(ms(60)), rest);
    let mut one = One::new();
    one.wants("me");
    one.hears(OTHER, Kind::Probe);
    assert_eq!(one.did(), [Did::Probe]);
    one.run_for(ms(79));
    assert_eq!(one.did(), [], "it makes way");
}

#[test]
fn who_is_about_to_have_it_answers_as_if_it_had() {
    let mut one = One::new();
    one.wants("me");
    one.run_for(ms(50));
    one.did();
    for mac in [OTHER, THIRD, STRANGER] {
        one.hears(mac, Kind::Probe);
        assert_eq!(one.did(), [Did::Answer(mac)]);
    }
}

#[test]
fn a_decision_that_comes_late_is_made_anew() {
    let mut one = One::new();
    one.wants("me");
    one.run_for(ms(20));
    one.did();
    // The process stood still.
    one.now += ms(500);
    one.claims.handle_timeout(one.now);
    assert_eq!(one.timeline(ms(60)), [(0, Did::Probe), (20, Did::Probe), (50, Did::Add)]);
    let prefix = one.address().prefix;
    one.claims.on_added(INTERFACE, prefix, Err(AddFailure::Stale), one.now);
    assert_eq!(one.did(), [Did::Probe]);
}

#[test]
fn a_probe_that_could_not_be_sent_is_no_silence() {
    let mut one = One::new();
    one.wants("me");
    one.claims.on_not_sent(ip(), one.now);
    let line = one.timeline(ms(200));
    assert!(!line.iter().any(|(at, did)| *did == Did::Add && *at < 100), "{line:?}");
}

#[test]
fn an_answer_that_comes_too_late_takes_the_address_off_again() {
    for mac in [OTHER, STRANGER] {
        let mut one = One::new();
        one.members(false, true);
        one.wants("me");
        one.run_for(ms(50));
        one.hears(mac, Kind::Answer);
        one.did();
        one.added();
        let did = one.did();
        assert!(did.contains(&Did::Remove), "{did:?}");
        one.removed();
        assert!(!one.timeline(ms(999)).iter().any(|(_, did)| *did == Did::Probe));
        one.run_for(ms(1));
        assert_eq!(one.did(), [Did::Probe]);
    }
}

#[test]
fn leaving_keeps_what_nobody_asks_for_two_seconds() {
    let mut one = One::holding();
    one.claims.handle(Input::Leave, one.now);
    assert_eq!(one.timeline(ms(1_999)), []);
    assert!(!one.claims.has_left());
    assert_eq!(one.timeline(ms(1)), [(1, Did::Remove), (1, RELEASED)]);
    assert!(!one.claims.has_left());
    one.removed();
    assert!(one.claims.has_left());
    let mut one = One::holding();
    one.claims.handle(Input::Leave, one.now);
    one.is_told("third", request());
    one.did();
    one.removed();
    assert_eq!(one.did(), [Did::Send("third", released())]);
    assert!(one.claims.has_left());
}

#[test]
fn leftovers_are_held_if_wanted_whoever_is_elected_and_else_removed_after_the_first_listing() {
    for elected in ["me", "other"] {
        let mut one = One::new();
        let leftover = one.address();
        one.claims.on_addresses(INTERFACE, &[leftover], one.now);
        assert_eq!(one.did(), []);
        one.wants(elected);
        let did = one.did();
        assert!(did.contains(&HELD) && !did.contains(&Did::Remove), "{did:?}");
        assert!(did.contains(&Did::Send("other", Message::Holding(vec![ip()]))), "{did:?}");
        assert_eq!(one.timeline(ms(1)), [(0, Did::Add)], "its lifetime begins anew");
    }
    let mut one = One::new();
    let leftover = one.address();
    one.claims.on_addresses(INTERFACE, &[leftover], one.now);
    one.claims.handle(Input::WantedAll(vec![]), one.now);
    assert_eq!(one.did(), [Did::Remove]);
}

#[test]
fn what_others_have_put_on_the_interface_is_neither_claimed_nor_removed() {
    let mut one = One::new();
    let foreign = Address { protocol: None, ..one.address() };
    one.wants("other");
    one.claims.on_addresses(INTERFACE, &[foreign], one.now);
    one.wants("me");
    one.claims.handle(Input::WantedAll(vec![]), one.now);
    assert_eq!(one.timeline(ms(5_000)), []);
}

#[test]
fn lifetimes_begin_anew_at_half_and_never_when_it_may_be_too_late() {
    let mut one = One::holding();
    assert_eq!(one.timeline(ms(149_999)), []);
    assert_eq!(one.timeline(ms(1)), [(1, Did::Add)]);
    one.added();
    assert_eq!(one.timeline(ms(150_000)), [(150_000, Did::Add)]);
    let prefix = one.address().prefix;
    one.claims.on_added(INTERFACE, prefix, Err(AddFailure::Refused), one.now);
    assert_eq!(one.timeline(ms(1_000)), [(1_000, Did::Add)], "again soon");
    let mut one = One::holding();
    one.now += ms(299_000);
    one.claims.handle_timeout(one.now);
    assert_eq!(one.timeline(ms(900)), [], "it may have expired, and be another's");
}

#[test]
fn who_takes_it_off_gets_it_put_back_after_a_probe_and_less_eagerly_each_time() {
    let mut one = One::holding();
    let address = one.address();
    one.claims.on_address_removed(&address, one.now);
    assert_eq!(one.timeline(ms(60)), [(0, Did::Probe), (20, Did::Probe), (50, Did::Add)]);
    one.added();
    assert_eq!(one.did(), [], "nobody was told that it was away");
    one.claims.on_address_removed(&address, one.now);
    let line = one.timeline(ms(500));
    assert!(line.iter().any(|(at, did)| *did == Did::Add && *at >= 130), "{line:?}");
}

#[test]
fn without_carrier_it_is_given_up_after_400_ms_and_a_flap_is_survived() {
    let link = |is_usable| Some(LinkState { mac: OURS, is_usable });
    let mut one = One::holding();
    one.claims.on_link(INTERFACE, link(false), one.now);
    assert_eq!(one.timeline(ms(399)), []);
    one.claims.on_link(INTERFACE, link(true), one.now);
    assert_eq!(one.timeline(ms(5_000)), []);
    one.claims.on_link(INTERFACE, link(false), one.now);
    assert_eq!(one.timeline(ms(400)), [(400, Did::Remove), (400, RELEASED)]);
    one.removed();
    assert_eq!(one.timeline(ms(5_000)), [], "nobody can be asked");
    one.claims.on_link(INTERFACE, link(true), one.now);
    assert_eq!(one.did(), [Did::Probe]);
}

#[test]
fn an_address_that_is_still_tentative_is_neither_told_nor_announced_and_a_duplicate_is_given_up() {
    let mut one = One::new();
    one.announcing.enabled = true;
    one.wants("me");
    one.run_for(ms(50));
    one.did();
    let flags = AddressFlags { is_tentative: true, ..AddressFlags::default() };
    let tentative = Address { flags, ..one.address() };
    one.claims.on_address(&tentative, one.now);
    one.added();
    assert_eq!(one.timeline(ms(900)), []);
    one.hears(STRANGER, Kind::Probe);
    assert_eq!(one.did(), [Did::Answer(STRANGER)], "the kernel does not answer yet");
    let usable = one.address();
    one.claims.on_address(&usable, one.now);
    assert_eq!(one.timeline(ms(10)), [(0, HELD), (0, Did::Announce)]);
    let flags = AddressFlags { is_duplicate: true, ..AddressFlags::default() };
    let duplicate = Address { flags, ..one.address() };
    one.claims.on_address(&duplicate, one.now);
    assert_eq!(one.did(), [Did::Remove, RELEASED]);
}

#[test]
fn an_address_for_which_lifetimes_come_gets_one() {
    let mut one = One::new();
    let forever = Address { lifetime: Lifetime::Permanent, ..one.address() };
    one.claims.on_addresses(INTERFACE, &[forever], one.now);
    one.wants("me");
    one.did();
    assert_eq!(one.timeline(ms(1)), [(0, Did::Add)]);
}
