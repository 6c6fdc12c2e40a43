//! The handle of a running speaker: what a program calls.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use ipnet::IpNet;
use tokio::sync::{oneshot, watch};

use super::{
    clock::Clock,
    inbox::{Answer, Command, Done, Sender},
};
use crate::{
    config::{PeerConfig, PeerSetError, ShutdownMode},
    route::Route,
    status::SpeakerStatus,
    types::{Family, Time},
};

/// Why a call on a [`Handle`] did nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The speaker has been shut down.
    #[error("the BGP speaker has been shut down")]
    Stopped,
    /// The set of peers contradicts itself; the peers are as they were.
    #[error(transparent)]
    Peers(#[from] PeerSetError),
}

/// A running speaker. Clones are cheap and mean the same speaker, which ends when it is shut down or the last
/// clone is dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: Arc<Sender>,
    status: watch::Receiver<Arc<SpeakerStatus>>,
    clock: Clock,
    listening: Arc<[SocketAddr]>,
}

impl Handle {
    pub(super) fn new(
        inbox: Sender,
        status: watch::Receiver<Arc<SpeakerStatus>>,
        clock: Clock,
        listening: Vec<SocketAddr>,
    ) -> Handle {
        Handle { inbox: Arc::new(inbox), status, clock, listening: listening.into() }
    }

    /// The addresses of [`crate::config::SpeakerConfig::listen`] as bound: port 0 has become a real one.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Adds routes, or replaces those with the same prefixes. The call itself only leaves a note, and what it returns
    /// is ready once they are in the Loc-RIB; it need not be awaited. Calls made without awaiting each share their
    /// messages as the routes of one call do, so one route a call (`announce([route])`) costs little more than
    /// all in one.
    pub fn announce(&self, routes: impl AsRef<[Route]>) -> Done<'_> {
        let routes = routes.as_ref();
        self.inbox.change(|changes| routes.iter().for_each(|route| changes.announce(route)))
    }

    /// Removes the routes of these prefixes; those there are none of are passed over. Like [`Handle::announce`], it
    /// need not be awaited; the last word on a prefix counts, whichever call it comes from.
    pub fn withdraw(&self, prefixes: impl AsRef<[IpNet]>) -> Done<'_> {
        let prefixes = prefixes.as_ref();
        self.inbox.change(|changes| prefixes.iter().for_each(|prefix| changes.withdraw(prefix)))
    }

    /// Makes these the only routes. A route that is as it was causes nothing on the wire. With the first call the
    /// routes are complete ([`crate::config::SpeakerConfig::await_routes`]).
    pub fn replace_all(&self, routes: Vec<Route>) -> Done<'_> {
        self.inbox.send(Command::ReplaceAll(routes))
    }

    /// Says that this process goes on where another has ended: peers that are set from now on are told so (RFC 4724,
    /// R bit), and that everything the other one announced of the families in `kept` has been forwarded all the
    /// time (F bit), so that they keep it. Only true words keep routers from sending into a void.
    pub fn restarted(&self, kept: Vec<Family>) -> Done<'_> {
        self.inbox.send(Command::Restarted(kept))
    }

    /// Makes these the only peers. A peer whose configuration is as it was is not touched.
    pub async fn set_peers(&self, peers: Vec<PeerConfig>) -> Result<(), Error> {
        self.call(|done| Command::SetPeers(peers, done)).await
    }

    /// Waits until the sockets of all peers that are Established now have taken everything there is to tell
    /// them. A peer that goes down is no longer waited for.
    pub async fn barrier(&self) -> Result<(), Error> {
        self.call(Command::Barrier).await
    }

    /// The state of every peer: the newest value, and a wake-up for every change. While routes change one after the other
    /// their counts may be a second old, but not behind [`Handle::barrier`].
    pub fn watch_status(&self) -> watch::Receiver<Arc<SpeakerStatus>> {
        self.status.clone()
    }

    /// Now, on the time line of the status.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// A time of the status as wall-clock time, as of the wall clock now.
    pub fn system_time(&self, time: Time) -> SystemTime {
        self.clock.system_time(time)
    }

    /// Ends every session and then the speaker. Returns when the last word to each peer has been taken by its
    /// socket, or a second later where it is not. A speaker that has ended already is no error.
    pub async fn shutdown(&self, mode: ShutdownMode) {
        let _ = self.call(|done| Command::Shutdown(mode, done)).await;
    }

    async fn call(&self, command: impl FnOnce(Answer) -> Command) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        // Where the speaker has stopped, the sender of the answer is gone.
        self.inbox.send(command(done));
        Ok(answer.await.map_err(|_| Error::Stopped)??)
    }
}
