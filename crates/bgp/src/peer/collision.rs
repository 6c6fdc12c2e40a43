//! Two connections to one peer, of which one may live (RFC 4271 §6.8, RFC 6286 §2.3).

use super::Peer;
use crate::{
    fsm::{
        connection::{Connection, Direction},
        event::Event,
    },
    status::State,
    types::{RouterId, Time},
};

impl Peer {
    /// RFC 4271 §6.8, with RFC 6286 §2.3: of two connections whose OPENs have come the one lives that the
    /// speaker with the larger identifier has opened. Resolved before our KEEPALIVE confirms the loser to the
    /// peer, which would lose an Established session by it.
    pub(super) fn on_opened(&mut self, direction: Direction, now: Time) {
        let wins = self.wins(direction);
        let other = self.connection(direction.other()).map(Connection::state);
        match other {
            Some(State::Established) if direction == Direction::Incoming && self.may_restart() => {
                self.handle(direction.other(), Event::PeerRestarts, now);
                if let Some(connection) = self.connection_mut(direction) {
                    connection.confirm(now);
                }
            }
            Some(State::Established) => {
                self.handle(direction, Event::OpenCollisionDump, now);
            }
            Some(State::OpenConfirm) if !wins => {
                self.handle(direction, Event::OpenCollisionDump, now);
            }
            _ => {
                if other == Some(State::OpenConfirm) {
                    self.handle(direction.other(), Event::OpenCollisionDump, now);
                }
                if wins {
                    self.abort_dial();
                }
                if let Some(connection) = self.connection_mut(direction) {
                    connection.confirm(now);
                }
            }
        }
    }

    /// RFC 4724 §4.2: a peer that keeps its forwarding state, and connects while its session is Established here, has
    /// restarted without a word. Where the session is one that we opened the new connection's OPEN is awaited: it
    /// may be a late one, which a peer that is there gives up again.
    pub(super) fn may_restart(&self) -> bool {
        let mut sessions = self.connections.iter().flatten().filter_map(Connection::session);
        sessions.any(|session| session.opened.negotiated.restarts_gracefully())
    }

    /// Whether a connection of this direction wins a collision; its OPEN has come.
    fn wins(&self, direction: Direction) -> bool {
        let Some(opened) = self.connection(direction).and_then(Connection::opened) else { return false };
        let ours = (self.config.router_id, self.config.local_asn.value());
        let theirs: (RouterId, u32) = (opened.open.router_id, opened.open.asn);
        (ours > theirs) == (direction == Direction::Outgoing)
    }
}
