//! One node's claims in the hands of a test, with one address.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use netlink::{Address, AddressFlags, Addressing, Heard, Kind, Lifetime, Mac, PROTOCOL};

use super::super::{Claims, LinkState};
use crate::claim::{Action, Announcing, Elected, Input, Member, Message, Report, Wanted};

pub(super) const INTERFACE: u32 = 2;
pub(super) const OURS: Mac = Mac([2, 0, 0, 0, 0, 5]);
/// Of the member `other`, before ours in order, and of `third`, behind it.
pub(super) const OTHER: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(super) const THIRD: Mac = Mac([2, 0, 0, 0, 0, 9]);
pub(super) const STRANGER: Mac = Mac([6, 0, 0, 0, 0, 6]);

pub(super) const ADDRESSING: Addressing = Addressing {
    no_prefix_route: true,
    no_dad: true,
    lifetime: Lifetime::Limited { valid_secs: 300, preferred_secs: 300 },
};

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn ip() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

/// What a test calls the request that was made last, by either side.
pub(super) const LAST: u32 = 1;

pub(super) struct One {
    pub(super) claims: Claims,
    /// The number of the last request of ours.
    asked: u32,
    pub(super) now: Instant,
    pub(super) announcing: Announcing,
    pub(super) skips_dad: bool,
}

/// What was done, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Probe,
    Answer(Mac),
    Announce,
    Add,
    Remove,
    Send(&'static str, Message),
    Report(Report),
}

impl One {
    /// With the members `other` and `third`, and wanting nothing.
    pub(super) fn new() -> One {
        One::named("me")
    }

    pub(super) fn named(name: &str) -> One {
        let now = Instant::now();
        let announcing = Announcing { enabled: false, ..Announcing::default() };
        let mut one = One { claims: Claims::new(name, 1), asked: 0, now, announcing, skips_dad: true };
        one.claims.handle(Input::Interfaces(vec![INTERFACE]), now);
        one.claims.on_link(INTERFACE, Some(LinkState { mac: OURS, is_usable: true }), now);
        one.members(true, true);
        one
    }

    /// Holding the address for which it is elected.
    pub(super) fn holding() -> One {
        let mut one = One::new();
        one.wants("me");
        one.run_for(ms(60));
        assert_eq!(one.did(), [Did::Probe, Did::Probe, Did::Add]);
        one.added();
        assert_eq!(one.did(), [Did::Report(Report::Held(ip()))]);
        one
    }

    pub(super) fn members(&mut self, is_other_alive: bool, takes_messages: bool) {
        let member = |name: &str, mac, is_alive| Member {
            name: name.into(),
            macs: vec![mac],
            is_alive,
            takes_messages: takes_messages && is_alive,
        };
        let all = vec![member("other", OTHER, is_other_alive), member("third", THIRD, true)];
        self.claims.handle(Input::Members(all), self.now);
    }

    pub(super) fn wants(&mut self, elected: &str) {
        let elected = if elected == "me" { Elected::Us } else { Elected::Other(elected.into()) };
        let prefix = "192.0.2.1/24".parse().unwrap();
        let (addressing, announcing) = (Addressing { no_dad: self.skips_dad, ..ADDRESSING }, self.announcing);
        let wanted = Wanted { interface: INTERFACE, prefix, addressing, announcing, elected };
        self.claims.handle(Input::WantedAll(vec![wanted]), self.now);
    }

    pub(super) fn hears(&mut self, mac: Mac, kind: Kind) {
        self.claims.on_heard(INTERFACE, &Heard { address: ip(), mac, kind }, self.now);
    }

    pub(super) fn is_told(&mut self, from: &str, message: Message) {
        let from: Arc<str> = from.into();
        let message = match message {
            Message::Released(LAST, addresses) => Message::Released(self.asked, addresses),
            other => other,
        };
        for octets in message.encode() {
            self.claims.handle(Input::Payload { from: from.clone(), octets }, self.now);
        }
    }

    pub(super) fn address(&self) -> Address {
        Address {
            index: INTERFACE,
            prefix: "192.0.2.1/24".parse().unwrap(),
            protocol: Some(PROTOCOL),
            flags: AddressFlags::default(),
            is_link_local: false,
            lifetime: ADDRESSING.lifetime,
        }
    }

    pub(super) fn added(&mut self) {
        let address = self.address();
        self.claims.on_added(INTERFACE, address.prefix, Ok(()), self.now);
    }

    pub(super) fn removed(&mut self) {
        let address = self.address();
        self.claims.on_removed(INTERFACE, address.prefix, true, self.now);
    }

    /// Lets time pass and does what is due in it.
    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.claims.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.claims.handle_timeout(self.now);
        }
        self.now = end;
    }

    pub(super) fn did(&mut self) -> Vec<Did> {
        let name = |to: Arc<str>| if &*to == "other" { "other" } else { "third" };
        let actions: Vec<_> = std::iter::from_fn(|| self.claims.poll_action()).collect();
        actions
            .into_iter()
            .map(|action| match action {
                Action::Probe { .. } => Did::Probe,
                Action::Answer { to, .. } => Did::Answer(to),
                Action::Announce { .. } => Did::Announce,
                Action::Add { .. } => Did::Add,
                Action::Remove { .. } => Did::Remove,
                Action::Send { to, message: Message::Request(number, addresses), .. } => {
                    self.asked = number;
                    Did::Send(name(to), Message::Request(LAST, addresses))
                }
                Action::Send { to, message, .. } => Did::Send(name(to), message),
                Action::Report(report) => Did::Report(report),
            })
            .collect()
    }

    /// When, in milliseconds from here, it does what.
    pub(super) fn timeline(&mut self, time: Duration) -> Vec<(u128, Did)> {
        let (start, end) = (self.now, self.now + time);
        let mut line = Vec::new();
        loop {
            let at = self.now.duration_since(start).as_millis();
            line.extend(self.did().into_iter().map(|did| (at, did)));
            match self.claims.poll_timeout().filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.claims.handle_timeout(self.now);
                }
                None => break,
            }
        }
        self.now = end;
        line
    }
}
