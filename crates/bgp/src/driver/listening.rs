//! Listening of a driver: as long as it is asked for, tried again where the kernel refuses, and what becomes of who
//! connects.

use std::{io, net::SocketAddr};

use tokio::{
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    Driver,
    tcp::{self, Connection, Listeners},
};
use crate::speaker::Accepted;

/// How long until listening is tried again after it failed.
const LISTEN_RETRY: Duration = Duration::from_secs(5);

/// How long nothing is accepted after that failed: there may be no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Driver {
    /// Listens while it is asked for: always where the configuration says so, else while a peer is passive.
    pub(super) fn listen(&mut self) {
        let is_asked_for = self.config.listen_always || !self.config.listen.is_empty();
        let is_wanted = is_asked_for || self.speaker.passive_peers().next().is_some();
        let are_keys_new = std::mem::take(&mut self.are_keys_new);
        let listening = match is_wanted {
            false => Ok(Listeners::default()),
            true if self.listeners.is_empty() => {
                if self.listen_retry.is_some_and(|at| at > Instant::now()) {
                    return;
                }
                let bound = match self.config.listen.as_slice() {
                    [] => Listeners::bind_any(self.config.listen_port),
                    addresses => Listeners::bind(addresses),
                };
                bound.and_then(|listeners| listeners.signed(self.speaker.md5_keys()))
            }
            true if are_keys_new => std::mem::take(&mut self.listeners).signed(self.speaker.md5_keys()),
            true => return,
        };
        (self.listeners, self.listen_retry, self.listen_error) = match listening {
            Ok(listeners) => (listeners, None, None),
            // Better nobody than someone unsigned.
            Err(error) => {
                (Listeners::default(), Some(Instant::now() + LISTEN_RETRY), Some(error.to_string()))
            }
        };
    }

    /// Whether anything has changed.
    pub(super) fn on_accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) -> bool {
        let now = self.clock.now();
        self.accepting.take(now);
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                self.accepting.close_until(now + ACCEPT_PAUSE);
                return false;
            }
        };
        let local = match tcp::local_address(&stream) {
            Ok(local) => local,
            // It is gone again.
            Err(_) => return false,
        };
        match self.speaker.handle_accepted(from, local, now) {
            Accepted::Taken(id, peer) => {
                self.connections.insert(id, Connection::new(stream));
                let applied = self.connections.get(&id).map(|connection| connection.apply_options(&peer));
                if let Some(Err(error)) = applied {
                    self.on_lost(id, &format!("cannot set its socket options: {error}"));
                }
            }
            Accepted::Refused(farewell) if farewell.is_empty() => {
                tracing::debug!(%from, "refused a connection: no peer's, or one of too many");
                return false;
            }
            Accepted::Refused(farewell) => {
                self.farewells.spawn(Connection::new(stream).farewell(farewell));
            }
        }
        true
    }
}
