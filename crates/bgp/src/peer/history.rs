//! What is remembered of a peer from one session to the next.

use crate::{status::State, types::Time};

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
    /// The last thing that says why: a NOTIFICATION of either side, the end of an Established session.
    reason: Option<String>,
    /// What has kept us from a connection since: it says less, and must not hide the reason.
    obstacle: Option<String>,
}

impl History {
    pub(super) fn new(now: Time) -> History {
        let (state, since) = (State::Idle, now);
        History { state, since, flaps: 0, updates_sent: 0, reason: None, obstacle: None }
    }

    /// A reason, which makes everything before it old.
    pub(super) fn on_reason(&mut self, reason: String) {
        self.reason = Some(reason);
        self.obstacle = None;
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
