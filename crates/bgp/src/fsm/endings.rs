//! How a connection ends: what the peer is told (NOTIFICATION codes of RFC 4271 §4.5, FSM error subcodes of RFC 6608,
//! graceful restart and Hard Reset of RFC 8538), and what status says of it in words.

use super::{
    connection::Connection,
    event::{Closed, Next, Outcome, Told},
    state::State,
    timers::Timers,
};
use crate::{
    config::{PeerAsn, Role},
    message::Open,
    notification::{self as codes, Notification},
    types::Family,
    wire,
};

impl Connection {
    /// Ends for good. RFC 8538 §3: where NOTIFICATIONs leave routes as they are only a Hard Reset takes them along.
    pub(super) fn stop(&mut self, notification: Notification) -> Outcome {
        match self.session() {
            Some(session) if session.opened.negotiated.takes_notifications_gracefully() => {
                self.close(Notification::hard_reset(&notification), None)
            }
            _ => self.close(notification, None),
        }
    }

    /// Ends to come back. Before the session is up the peer may still have what an earlier one told it, and what it
    /// can take is not known: it hears nothing then, either.
    pub(super) fn pause(&mut self, notification: Notification) -> Outcome {
        let is_silent = match self.session() {
            Some(session) => {
                let negotiated = &session.opened.negotiated;
                negotiated.graceful_restart.is_some() && !negotiated.takes_notifications_gracefully()
            }
            None => self.sent.capabilities.graceful_restart.is_some(),
        };
        if is_silent {
            let error = format!("closed for a graceful restart of ours: {notification}");
            self.closed(Some(error), Next::Idle, None)
        } else {
            self.close(notification, None)
        }
    }

    /// A message that this state does not take (RFC 6608).
    pub(super) fn unexpected(&mut self) -> Outcome {
        let code = match self.state {
            State::OpenSent | State::OpenReceived(_) => codes::FSM_UNEXPECTED_IN_OPEN_SENT,
            State::OpenConfirm(_) => codes::FSM_UNEXPECTED_IN_OPEN_CONFIRM,
            State::Established(_) => codes::FSM_UNEXPECTED_IN_ESTABLISHED,
        };
        self.close(Notification::new(code), None)
    }

    /// Sends a NOTIFICATION, its reason in words behind it in `last_error`, and ends the connection.
    pub(super) fn close(&mut self, notification: Notification, detail: Option<String>) -> Outcome {
        let error = match detail {
            Some(detail) => format!("{detail}; sent NOTIFICATION: {notification}"),
            None => format!("sent NOTIFICATION: {notification}"),
        };
        self.dismiss(&notification, Some(error), Next::Idle)
    }

    /// Sends a NOTIFICATION and ends the connection.
    pub(super) fn dismiss(
        &mut self,
        notification: &Notification,
        error: Option<String>,
        next: Next,
    ) -> Outcome {
        wire::encode_notification(notification, &mut self.output);
        self.closed(error, next, Some(Told::Sent(notification.code)))
    }

    pub(super) fn closed(&mut self, error: Option<String>, next: Next, told: Option<Told>) -> Outcome {
        let session = match std::mem::replace(&mut self.state, State::OpenSent) {
            State::Established(session) => Some(session),
            _ => None,
        };
        self.timers = Timers::default();
        Outcome::Closed(Closed { error, next, told, session })
    }

    /// What is wrong with an OPEN, as far as the NOTIFICATION alone does not say it.
    pub(super) fn refusal(&self, notification: &Notification, open: &Open) -> Option<String> {
        let expected = match self.config.peer_asn {
            PeerAsn::Exactly(asn) => format!("AS {asn}"),
            PeerAsn::Internal => format!("our own AS {}", self.config.local_asn),
            PeerAsn::External => format!("any AS but our own {}", self.config.local_asn),
        };
        match notification.code() {
            codes::OPEN_BAD_PEER_AS => {
                Some(format!("the peer says it is AS {}, but {expected} is configured", open.asn))
            }
            codes::OPEN_BAD_ROUTER_ID => {
                Some(format!("the peer has our own router ID {}", self.config.router_id))
            }
            codes::OPEN_ROLE_MISMATCH => {
                let ours = self.config.role?.role;
                let said = open.capabilities.roles.iter().map(|value| match Role::from_value(*value) {
                    Some(role) => role.to_string(),
                    None => format!("role {value}"),
                });
                let theirs = said.collect::<Vec<_>>().join(" and ");
                let theirs = if theirs.is_empty() { "none".to_owned() } else { theirs };
                let expected = ours.counterpart();
                Some(format!("our role is {ours}, so the peer's must be {expected}: it says {theirs}"))
            }
            codes::OPEN_UNSUPPORTED_CAPABILITY => {
                let ours: Vec<String> = self.config.families.iter().map(Family::to_string).collect();
                Some(format!("the peer opens none of the configured families {}", ours.join(", ")))
            }
            _ => None,
        }
    }
}
