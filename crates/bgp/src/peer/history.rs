//! What is remembered of a peer from one session to the next.

use std::time::Duration;

use crate::{
    fsm::event::Told,
    status::{Notifications, State},
    types::Time,
};

/// Malformed UPDATEs are told no more often: who sends them must not have us say something new each time.
const FAULT_PAUSE: Duration = Duration::from_secs(60);

/// What outlives sessions.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// The state as last told.
    pub(super) state: State,
    /// Since when.
    pub(super) since: Time,
    /// How often an Established session was lost.
    pub(super) flaps: u64,
    /// UPDATEs sent in sessions that are over.
    pub(super) updates_sent: u64,
    /// NOTIFICATIONs of either side.
    pub(super) notifications: Notifications,
    /// The last thing that says why: a NOTIFICATION of either side, the end of an Established session.
    reason: Option<String>,
    /// What has kept us from a connection since: it says less, and must not hide the reason.
    obstacle: Option<String>,
    /// When a malformed UPDATE was told last, and how many have come since.
    fault_at: Option<Time>,
    faults_since: u64,
}

impl History {
    pub(super) fn new(now: Time) -> History {
        let (state, since) = (State::Idle, now);
        History {
            state,
            since,
            flaps: 0,
            updates_sent: 0,
            notifications: Notifications::default(),
            reason: None,
            obstacle: None,
            fault_at: None,
            faults_since: 0,
        }
    }

    /// A NOTIFICATION was sent or received.
    pub(super) fn on_notification(&mut self, told: Told) {
        let (counts, code) = match told {
            Told::Sent(code) => (&mut self.notifications.sent, code),
            Told::Received(code) => (&mut self.notifications.received, code),
        };
        *counts.entry(code).or_default() += 1;
    }

    /// A reason, which makes everything before it old.
    pub(super) fn on_reason(&mut self, reason: String) {
        self.reason = Some(reason);
        self.obstacle = None;
    }

    /// An UPDATE that is malformed and does not cost the session (RFC 7606).
    pub(super) fn on_fault(&mut self, fault: &str, now: Time) {
        if self.fault_at.is_some_and(|at| now.since(at) < FAULT_PAUSE) {
            self.faults_since += 1;
            return;
        }
        self.fault_at = Some(now);
        let before = match std::mem::take(&mut self.faults_since) {
            0 => String::new(),
            count => format!(" (and {count} more before)"),
        };
        self.on_reason(format!("malformed UPDATE received: {fault}{before}"));
    }

    /// A dial that failed, or a connection that ended before the peer said anything.
    pub(super) fn on_obstacle(&mut self, obstacle: String) {
        self.obstacle = Some(obstacle);
    }

    /// Both in words: a router that was shut down with a text refuses connections afterwards, and its text has
    /// to stay.
    pub(super) fn last_error(&self) -> Option<String> {
        match (&self.reason, &self.obstacle) {
            (Some(reason), Some(obstacle)) => Some(format!("{reason}; since then: {obstacle}")),
            (reason, obstacle) => reason.as_ref().or(obstacle.as_ref()).cloned(),
        }
    }
}
