//! Another member as this one sees it: what it has said of itself, when it was heard, and what it is owed.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    config::{Id, Mac, Name},
    hearing::Hearing,
    stream::{Incoming, Outgoing},
    time::Time,
    wire::{Answer, Death, Header},
};

/// Nobody may ask to be suspected sooner.
const MIN_PATIENCE: Duration = Duration::from_millis(20);

/// Whether a member lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was heard of it yet.
    Unknown,
    /// It was heard in time.
    Alive,
    /// It is silent, and the others have not said yet what they hear: it counts as alive.
    Suspected,
    /// It was silent for too long, to everybody who was asked.
    Dead,
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether it lives.
    pub standing: Standing,
    /// It can take addresses. A member that hears nobody is not ready.
    pub is_ready: bool,
    /// It is about to end.
    pub is_leaving: bool,
    /// Link-layer address of its interface; zeros until it was heard of.
    pub mac: Mac,
}

impl State {
    /// Whether it counts as alive.
    pub fn is_alive(&self) -> bool {
        matches!(self.standing, Standing::Alive | Standing::Suspected)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: Id,
    pub(crate) address: SocketAddr,
    pub(crate) state: State,
    pub(crate) incarnation: u32,
    /// While it is dead: which process and up to which incarnation.
    pub(crate) death: Option<Death>,
    pub(crate) hearing: Hearing,
    /// When it was heard last, and when another has heard it last.
    pub(crate) heard: Option<Time>,
    pub(crate) word: Option<Time>,
    /// How long it may be silent, by what it says itself.
    pub(crate) patience: Duration,
    pub(crate) duty: Duty,
    pub(crate) suspicion: Option<Suspicion>,
    /// When it is asked for a sign of life next.
    pub(crate) probe_at: Option<Time>,
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
    pub(crate) owed: Owed,
    /// When it was last answered although it did not name this process, or told that it is dead.
    pub(crate) corrected: Option<Time>,
}

/// What this member has to do with another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Duty {
    /// It gets our heartbeats.
    pub(crate) is_recipient: bool,
    /// Since when its heartbeats are waited for.
    pub(crate) watched_since: Option<Time>,
    /// Since when an answer of it is waited for.
    pub(crate) asked_since: Option<Time>,
}

/// A silent member, and what the others say.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    pub(crate) since: Time,
    /// Whom we have asked; `true`: has not heard it either.
    pub(crate) asked: BTreeMap<Name, Option<bool>>,
}

/// What goes into the next datagram to a member, which is sent when there is anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    /// A sign of life, if nothing else.
    pub(crate) anything: bool,
    pub(crate) wants_answer: bool,
    pub(crate) ack: bool,
    pub(crate) questions: Vec<Id>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) death: Option<Death>,
    /// The process to name, where it is not the one that is known.
    pub(crate) echo: Option<u64>,
}

impl Owed {
    pub(crate) fn is_empty(&self) -> bool {
        let Owed { anything, wants_answer, ack, questions, answers, death, echo } = self;
        let is_any = *anything || *wants_answer || *ack || death.is_some() || echo.is_some();
        !is_any && questions.is_empty() && answers.is_empty()
    }
}

impl Member {
    pub(crate) fn new(
        id: Id,
        address: SocketAddr,
        hearing: Hearing,
        base: u32,
        patience: Duration,
    ) -> Member {
        let state = State { standing: Standing::Unknown, is_ready: false, is_leaving: false, mac: [0; 6] };
        Member {
            id,
            address,
            state,
            incarnation: 0,
            death: None,
            hearing,
            heard: None,
            word: None,
            patience,
            duty: Duty::default(),
            suspicion: None,
            probe_at: None,
            outgoing: Outgoing::new(base),
            incoming: Incoming::default(),
            owed: Owed::default(),
            corrected: None,
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.standing == Standing::Dead
    }

    /// The last sign of life, from itself or by another's word.
    pub(crate) fn sign(&self) -> Option<Time> {
        self.heard.max(self.word)
    }

    /// When its silence becomes a suspicion.
    pub(crate) fn deadline(&self) -> Option<Time> {
        if self.is_dead() {
            return None;
        }
        let watched = self.duty.watched_since.map(|since| self.sign().map_or(since, |sign| sign.max(since)));
        let since = watched.or(self.duty.asked_since)?;
        Some(since + self.patience)
    }

    /// It is heard now, directly.
    pub(crate) fn on_sign(&mut self, now: Time) {
        self.heard = Some(now);
        self.duty.asked_since = None;
        self.probe_at = None;
        self.suspicion = None;
    }

    /// Takes what it says of itself; whether that changes how it stands.
    pub(crate) fn learn(&mut self, header: &Header) -> bool {
        let before = self.state;
        self.state.is_ready = header.is_ready;
        self.state.is_leaving = header.is_leaving;
        self.state.mac = header.mac;
        self.incarnation = self.incarnation.max(header.incarnation);
        let interval = Duration::from_millis(u64::from(header.interval_millis));
        self.patience = (interval * u32::from(header.multiplier)).max(MIN_PATIENCE);
        self.state != before
    }

    /// Whether it was heard, by us, so lately that its silence is none.
    pub(crate) fn is_heard(&self, now: Time, interval: Duration) -> bool {
        self.heard.is_some_and(|heard| now.since(heard) + self.slack(interval) < self.patience)
    }

    /// How long before its deadline a member is almost silent: half of our interval, if that is little to it.
    pub(crate) fn slack(&self, interval: Duration) -> Duration {
        (interval / 2).min(self.patience / 4)
    }
}
