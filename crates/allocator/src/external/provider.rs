//! Whether a provider answers. Takes `now`, reads no clock.
//!
//! One call that fails makes it failing: everybody who asks is told at once, nobody waits for a deadline of their
//! own. After a pause it is probed with `Stats`, which no Service can spoil; when that is answered, whoever waits
//! is let through again, oldest first and a few at a time.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::inputs::{ServiceKey, Word};

/// How many calls to one provider are under way at once.
pub const CONCURRENCY: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// After this those whom it has refused ask again: what it did not like may be configured on its side.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// A place in the queue: creation of the Service, the group, the Service.
pub type Turn = (i64, Word, ServiceKey);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It has answered last time, or has not been asked yet.
    Answering,
    /// It has not: why, and when it is probed.
    Failing { why: String, due: Instant, is_probed: bool },
}

/// One provider: one socket.
#[derive(Debug)]
pub struct Provider {
    state: State,
    failures: u32,
    in_flight: usize,
    queue: BTreeSet<Turn>,
    /// When those whom it has refused ask again.
    refused_due: Option<Instant>,
}

impl Default for Provider {
    fn default() -> Provider {
        Provider {
            state: State::Answering,
            failures: 0,
            in_flight: 0,
            queue: BTreeSet::new(),
            refused_due: None,
        }
    }
}

impl Provider {
    /// Why it does not answer.
    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Answering => None,
            State::Failing { why, .. } => Some(why),
        }
    }

    /// Somebody has something to ask or to release.
    pub fn enqueue(&mut self, turn: Turn) {
        self.queue.insert(turn);
    }

    /// How many have.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Whose turn it is, if another call may begin.
    pub fn next_turn(&mut self) -> Option<Turn> {
        let may = self.state == State::Answering && self.in_flight < CONCURRENCY;
        if may { self.queue.pop_first() } else { None }
    }

    /// A call has begun.
    pub fn on_sent(&mut self) {
        self.in_flight += 1;
    }

    /// A call has ended. Whether the provider has just stopped answering.
    pub fn on_done(&mut self, failure: Option<String>, now: Instant, jitter: f64) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        match failure {
            None => {
                self.failures = 0;
                false
            }
            Some(why) => self.fail(why, now, jitter),
        }
    }

    fn fail(&mut self, why: String, now: Instant, jitter: f64) -> bool {
        let was_answering = self.state == State::Answering;
        // What else was under way when it failed is the same failure.
        if was_answering || matches!(self.state, State::Failing { is_probed: true, .. }) {
            let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(8)).min(LAST_PAUSE);
            self.failures = self.failures.saturating_add(1);
            let due = now + pause.mul_f64(jitter.clamp(0.5, 1.0));
            self.state = State::Failing { why, due, is_probed: false };
            // When it is back everybody asks again.
            self.refused_due = None;
        }
        was_answering
    }

    /// Whether a probe is due; it counts as begun then.
    pub fn begins_probe(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Failing { due, is_probed, .. } if !*is_probed && *due <= now => {
                *is_probed = true;
                true
            }
            _ => false,
        }
    }

    /// When the next probe is due.
    pub fn next_probe(&self) -> Option<Instant> {
        match &self.state {
            State::Failing { due, is_probed: false, .. } => Some(*due),
            _ => None,
        }
    }

    /// Whether it is time for those whom it has refused to ask again.
    pub fn retries_refused(&mut self, now: Instant) -> bool {
        if self.state != State::Answering {
            return false;
        }
        let is_due = self.refused_due.is_some_and(|due| due <= now);
        if is_due || self.refused_due.is_none() {
            self.refused_due = Some(now + REFUSED_PAUSE);
        }
        is_due
    }

    /// A `Stats` call has ended, a probe or not. Whether the provider answers again since this.
    pub fn on_stats(&mut self, failure: Option<String>, now: Instant, jitter: f64) -> bool {
        match (failure, &self.state) {
            (Some(why), _) => {
                self.fail(why, now, jitter);
                false
            }
            (None, State::Failing { .. }) => {
                self.state = State::Answering;
                true
            }
            (None, State::Answering) => false,
        }
    }
}
