//! What a provider may have given to one Service, and which call comes next. Pure.
//!
//! The next call follows from the state, whatever led there: what is given and not kept is released, what is
//! wanted is asked for, one call at a time.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Answer, Ask};

/// What to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// One address.
    One(IpAddr),
    /// Everything that the Service has from the group.
    All,
}

/// What is to be done next for an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes.
    Wait,
    /// The name of the Service has to be written down before the provider is asked.
    Record,
    /// Ask.
    Allocate(Ask),
    /// Release.
    Release(Released),
    /// The provider holds nothing for the Service: its name can go.
    Close,
}

/// What a provider may have given to one Service.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// What it has surely given.
    given: BTreeSet<IpAddr>,
    /// It may have given more: a call whose fate is unknown, or the record of an earlier term.
    unknown: bool,
    /// It has refused several addresses at once. All or nothing is what it has promised; that is made sure of.
    in_doubt: bool,
    /// What is to be asked.
    ask: Option<Ask>,
    /// The answer is there and not yet decided about.
    answered: bool,
    /// A call is under way.
    in_flight: bool,
    /// A release that may still take effect: nothing is asked before it is confirmed.
    unconfirmed: Option<Released>,
    /// That release has just not been confirmed: a moment of peace before it is tried again.
    is_paused: bool,
    /// Releases in a row that were not confirmed.
    failures: u32,
    /// When the Service was created: who comes first.
    pub created: i64,
}

impl Account {
    /// Of a Service that publishes these addresses of the group.
    pub fn publishing(created: i64, addresses: &[IpAddr]) -> Account {
        Account { given: addresses.iter().copied().collect(), created, ..Account::default() }
    }

    /// Of a name that is written down; what the provider has given is unknown.
    pub fn recorded() -> Account {
        Account { unknown: true, created: i64::MIN, ..Account::default() }
    }

    /// The group has another provider now: here nothing is asked any more. What the Service publishes of the group has
    /// been given. What it wants and has not got, to be asked of the other one.
    pub fn retire(&mut self, published: &[IpAddr]) -> Option<Ask> {
        self.given.extend(published);
        self.ask.take()
    }

    /// Whether there may be something that has to be given back some day.
    pub fn may_hold(&self) -> bool {
        self.in_flight || self.unknown || self.in_doubt || !self.given.is_empty() || self.is_unconfirmed()
    }

    /// The Service wants something; what it wanted before is of no matter any more.
    pub fn wants(&mut self, ask: Ask) {
        self.ask = Some(ask);
    }

    /// The Service wants nothing any more.
    pub fn wants_nothing(&mut self) {
        self.ask = None;
    }

    /// What it wants while no call is under way.
    pub fn pending(&self) -> Option<&Ask> {
        self.ask.as_ref().filter(|_| !self.in_flight)
    }

    /// The Service has been decided about with the answer, used or not.
    pub fn decided(&mut self) {
        self.answered = false;
    }

    /// What it has surely given.
    pub fn given(&self) -> &BTreeSet<IpAddr> {
        &self.given
    }

    /// A status shows these addresses of the group: then they were given.
    pub fn publishes(&mut self, addresses: &[IpAddr]) {
        self.given.extend(addresses);
    }

    /// What comes next. `kept` is what the Service holds of the group, `None` while that is not certain.
    pub fn next(&self, kept: Option<&[IpAddr]>, is_recorded: bool) -> Action {
        if self.in_flight || self.is_paused {
            return Action::Wait;
        }
        if let Some(release) = self.unconfirmed {
            return Action::Release(release);
        }
        if let Some(ask) = &self.ask {
            return if is_recorded { Action::Allocate(ask.clone()) } else { Action::Record };
        }
        let Some(kept) = kept.filter(|_| !self.answered) else { return Action::Wait };
        if kept.is_empty() {
            let holds = self.unknown || self.in_doubt || !self.given.is_empty();
            return if holds { Action::Release(Released::All) } else { Action::Close };
        }
        let superfluous = self.given.iter().find(|address| !kept.contains(address));
        superfluous.map_or(Action::Wait, |address| Action::Release(Released::One(*address)))
    }

    /// A call has begun.
    pub fn on_sent(&mut self) {
        self.in_flight = true;
    }

    /// The answer to a question. Whether it is of use: the Service still wants just that.
    pub fn on_answer(&mut self, answer: &Answer, is_fate_known: bool) -> bool {
        self.in_flight = false;
        self.given.extend(&answer.given);
        self.unknown |= !is_fate_known;
        self.in_doubt |= answer.problem.is_some() && answer.ask.len() > 1;
        let is_wanted = self.ask.as_ref() == Some(&answer.ask);
        if is_wanted {
            self.ask = None;
            self.answered = true;
        }
        is_wanted
    }

    /// The answer to a release. Whether somebody else may have what was released: where that is only what a refusal
    /// may have left, whoever was refused would ask, be refused and release for ever.
    pub fn on_released(&mut self, released: Released, is_confirmed: bool) -> bool {
        self.in_flight = false;
        if !is_confirmed {
            self.unconfirmed = Some(released);
            self.is_paused = true;
            self.failures = self.failures.saturating_add(1);
            return false;
        }
        self.unconfirmed = None;
        self.failures = 0;
        match released {
            Released::All => {
                let is_freed = self.unknown || !self.given.is_empty();
                self.given.clear();
                (self.unknown, self.in_doubt) = (false, false);
                is_freed
            }
            Released::One(address) => {
                self.given.remove(&address);
                true
            }
        }
    }

    /// A release has not even been sent. It is tried again after a pause, unless it is not to be by then.
    pub fn on_unsent(&mut self) {
        (self.in_flight, self.is_paused) = (false, true);
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether a release may still take effect.
    pub fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// Releases in a row that were not confirmed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after such a release is over.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }
}
