//! What a peer is told of our own restart (RFC 4724 §4.1, RFC 8538 §4), so that it keeps what it has of us.

use crate::{
    capabilities::RestartState,
    config::GracefulRestartConfig,
    types::{Family, Time},
};

/// That this process goes on where another has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restart {
    /// When it was said.
    pub(crate) at: Time,
    /// By family: what the other process announced has been forwarded all the time.
    pub(crate) kept: [bool; 2],
}

/// What of us the peer may have from before its next session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Continuity {
    restart: Option<Restart>,
    has_been_up: bool,
}

impl Continuity {
    pub(super) fn new(restart: Option<Restart>) -> Continuity {
        Continuity { restart, has_been_up: false }
    }

    /// What an OPEN of this moment says.
    pub(super) fn state(&self, offered: Option<GracefulRestartConfig>, now: Time) -> RestartState {
        // Beyond the restart time no peer has anything left of what the other process told it.
        let is_recent = |restart: &Restart| {
            offered.is_some_and(|offered| now.since(restart.at) <= offered.restart_time.duration())
        };
        let restart = self.restart.filter(is_recent);
        RestartState {
            is_restarting: restart.is_some(),
            // RFC 8538 §4: a session that is lost and comes back with both ends alive has F set.
            is_forwarding: match restart {
                _ if self.has_been_up => [true; Family::ALL.len()],
                Some(restart) => restart.kept,
                None => [false; Family::ALL.len()],
            },
        }
    }

    /// A session is up: from now on what the peer has is this process's.
    pub(super) fn on_established(&mut self) {
        self.has_been_up = true;
    }

    /// End-of-RIB of every family has been said: the restart is over for this peer.
    pub(super) fn on_end_of_rib(&mut self) {
        self.restart = None;
    }
}
