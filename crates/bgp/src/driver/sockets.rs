//! All sockets of a speaker as one source of news, which gives everyone a turn.

use std::{
    collections::HashMap,
    task::{Context, Poll},
};

use super::{
    Wake,
    tcp::{Connection, Listeners},
};
use crate::speaker::ConnectionId;

/// What the kernel may have news of.
pub(super) struct Sockets<'a> {
    pub(super) connections: &'a HashMap<ConnectionId, Connection>,
    /// Absent while nothing is accepted.
    pub(super) listeners: Option<&'a Listeners>,
    /// Counts up.
    pub(super) turn: usize,
}

impl Sockets<'_> {
    /// The next news. Those who connect and those who are connected take turns: neither keeps the others waiting.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Wake> {
        let is_accepts_turn = self.turn.is_multiple_of(2);
        let accepted = if is_accepts_turn { self.poll_accept(context) } else { Poll::Pending };
        let first = if accepted.is_pending() { self.poll_connections(context) } else { accepted };
        if first.is_pending() { self.poll_accept(context) } else { first }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<Wake> {
        let Some(listeners) = self.listeners else { return Poll::Pending };
        listeners.poll_accept(self.turn / 2, context).map(Wake::Accepted)
    }

    /// Which connections can be read or written, all of them at once so that none is preferred.
    fn poll_connections(&self, context: &mut Context<'_>) -> Poll<Wake> {
        let ready: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| Some((*id, connection.poll_ready(context)?)))
            .collect();
        if ready.is_empty() { Poll::Pending } else { Poll::Ready(Wake::Sockets(ready)) }
    }
}
