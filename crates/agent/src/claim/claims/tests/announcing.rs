//! Announcements: when, how many, how fast, and when not.

use std::time::Instant;

use netlink::Mac;

use super::{
    super::{Claims, LinkState},
    one::{ADDRESSING, Did, INTERFACE, One, ms},
};
use crate::claim::{Action, Announcing, Elected, Input, Message, Wanted};

/// When it was announced, in milliseconds after it was added.
fn announced(announcing: Announcing, seconds: u64) -> Vec<u128> {
    let mut one = One::new();
    one.announcing = announcing;
    one.wants("me");
    one.run_for(ms(50));
    one.did();
    one.added();
    let line = one.timeline(ms(seconds * 1_000));
    line.into_iter().filter(|(_, did)| *did == Did::Announce).map(|(at, _)| at).collect()
}

#[test]
fn once_at_once_then_the_burst_of_the_configuration() {
    assert_eq!(announced(Announcing::default(), 60), [0, 100, 600, 1_100]);
    let other = Announcing { initial_delay: ms(0), count: 2, interval: ms(30), ..Announcing::default() };
    assert_eq!(announced(other, 60), [0, 0, 30]);
    assert_eq!(announced(Announcing { enabled: false, ..Announcing::default() }, 60), []);
}

#[test]
fn an_announcement_that_could_not_be_sent_stays_due() {
    let mut one = One::new();
    one.announcing = Announcing { count: 1, ..Announcing::default() };
    one.wants("me");
    one.run_for(ms(50));
    one.did();
    one.added();
    let mut sent = Vec::new();
    let start = one.now;
    for attempt in 0..20 {
        let line = one.timeline(ms(50));
        let announced = line.iter().filter(|(_, did)| *did == Did::Announce).count();
        sent.push(announced);
        // The first four times the kernel has no room.
        if attempt < 4 && announced > 0 {
            one.claims.on_not_announced(super::one::ip(), one.now);
        }
    }
    assert_eq!(sent.iter().sum::<usize>(), 6, "four in vain, then the first and the burst: {sent:?}");
    assert_eq!(one.now - start, ms(1_000));
}

#[test]
fn a_refresh_goes_on_with_jitter_as_long_as_it_is_held() {
    let refresh = Announcing { count: 1, refresh: Some(ms(10_000)), ..Announcing::default() };
    let all = announced(refresh, 100);
    let pauses: Vec<_> = all[1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() >= 8 && pauses.iter().all(|pause| (9_000..=11_000).contains(pause)), "{pauses:?}");
    assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]), "{pauses:?}");
}

#[test]
fn a_burst_stops_at_once_when_the_address_is_given_up_and_is_silent_when_another_is_elected() {
    let mut one = One::new();
    one.announcing = Announcing::default();
    one.wants("me");
    one.run_for(ms(50));
    one.added();
    one.run_for(ms(100));
    one.did();
    one.is_told("other", Message::Request(super::one::LAST, vec![super::one::ip()]));
    one.wants("other");
    one.did();
    assert_eq!(one.timeline(ms(700)), [], "verified before it is sent");
    one.is_told("other", Message::Request(super::one::LAST, vec![super::one::ip()]));
    one.did();
    one.removed();
    one.did();
    assert_eq!(one.timeline(ms(5_000)), []);
}

#[test]
fn a_carrier_that_is_back_has_everything_announced_anew() {
    let mut one = One::holding();
    one.announcing = Announcing::default();
    one.wants("me");
    for is_usable in [false, true] {
        one.claims.on_link(INTERFACE, Some(LinkState { mac: super::one::OURS, is_usable }), one.now);
    }
    let count = one.timeline(ms(5_000)).iter().filter(|(_, did)| *did == Did::Announce).count();
    assert_eq!(count, 4);
}

#[test]
fn a_thousand_addresses_are_announced_at_once_each_and_then_no_more_than_500_a_second() {
    let start = Instant::now();
    let mut claims = Claims::new("me", 1);
    claims.on_link(INTERFACE, Some(LinkState { mac: Mac([2; 6]), is_usable: true }), start);
    let wanted = |number: u32| Wanted {
        interface: INTERFACE,
        prefix: format!("10.0.{}.{}/16", number / 250, number % 250 + 1).parse().unwrap(),
        addressing: ADDRESSING,
        announcing: Announcing::default(),
        elected: Elected::Us,
    };
    claims.handle(Input::WantedAll((0..1_000).map(wanted).collect()), start);
    let (mut now, mut announced) = (start, Vec::new());
    while now < start + ms(20_000) {
        while let Some(action) = claims.poll_action() {
            match action {
                Action::Add { interface, prefix, .. } => claims.on_added(interface, prefix, Ok(()), now),
                Action::Announce { address, .. } => announced.push((now - start, address)),
                _ => {}
            }
        }
        let Some(at) = claims.poll_timeout() else { break };
        now = at.max(now);
        claims.handle_timeout(now);
    }
    assert_eq!(announced.len(), 4_000);
    assert!(announced[..1_000].iter().all(|(at, _)| *at == ms(50)), "the first of each at once");
    // Each is two frames.
    for window in announced[1_000..].windows(501) {
        assert!(window[500].0 - window[0].0 >= ms(1_000), "{:?}", window[0]);
    }
}
