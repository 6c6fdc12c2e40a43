//! Our side: a speaker of `bgp` with its tokio driver, on a thread in its own namespace.

use std::{
    net::Ipv6Addr,
    sync::{Arc, mpsc},
    time::Duration,
};

use bgp::{
    config::{PeerConfig, ShutdownMode, SpeakerConfig},
    driver::{self, Handle},
    route::Route,
    status::{PeerStatus, State},
};
use ipnet::IpNet;
use lab::{Error, Host, Result, require, until};
use netlink::RouterDiscovery;
use tokio::runtime::{Builder, Runtime};

/// A running speaker.
#[derive(Debug)]
pub struct Speaker {
    handle: Handle,
    runtime: Runtime,
}

/// A speaker that stands still until this is dropped.
#[derive(Debug)]
pub struct Frozen {
    _thaw: mpsc::Sender<()>,
}

impl Speaker {
    /// Starts one without peers and routes.
    ///
    /// # Errors
    /// When it cannot listen where it is told to.
    pub fn start(host: &Host, config: SpeakerConfig) -> Result<Self> {
        let namespace = host.namespace.clone();
        // One thread: the speaker can be frozen by keeping it.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || namespace.join().expect("the namespace lives as long as its run"))
            .enable_all()
            .build()
            .map_err(Error::io("starting a runtime"))?;
        // Spawned, so that the sockets are opened on the thread in the namespace.
        let spawned = runtime.block_on(runtime.spawn(async { driver::spawn(config) }));
        let handle =
            spawned.map_err(|error| Error::parse("the runtime", error))?.map_err(Error::io("listening"))?;
        Ok(Self { handle, runtime })
    }

    /// Listens to Router Advertisements on an interface, and advertises there, from now on; the router's address.
    ///
    /// # Errors
    /// When none is heard in time.
    pub fn discover(&self, interface: &'static str, timeout: Duration) -> Result<Ipv6Addr> {
        let (heard, found) = mpsc::channel();
        self.runtime.spawn(async move {
            let mut discovery = RouterDiscovery::open(interface)?;
            loop {
                let router = discovery.changed().await?;
                if heard.send(router).is_err() {
                    // Nobody asks any more, but the router still wants to hear us.
                    while discovery.changed().await.is_ok() {}
                    return std::io::Result::Ok(());
                }
            }
        });
        found.recv_timeout(timeout).map_err(|error| Error::parse("Router Advertisements", error))
    }

    /// Makes these the only peers.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn set_peers(&self, peers: Vec<PeerConfig>) -> Result<()> {
        self.runtime
            .block_on(self.handle.set_peers(peers))
            .map_err(|error| Error::parse("the speaker", error))
    }

    /// Announces routes.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn announce(&self, routes: Vec<Route>) -> Result<()> {
        self.runtime
            .block_on(self.handle.announce(routes))
            .map_err(|error| Error::parse("the speaker", error))
    }

    /// Withdraws prefixes.
    ///
    /// # Errors
    /// When the speaker has ended.
    pub fn withdraw(&self, prefixes: Vec<IpNet>) -> Result<()> {
        self.runtime
            .block_on(self.handle.withdraw(prefixes))
            .map_err(|error| Error::parse("the speaker", error))
    }

    /// Ends it.
    pub fn shut_down(&self, mode: ShutdownMode) {
        self.runtime.block_on(self.handle.shutdown(mode));
    }

    /// The state of its one peer.
    ///
    /// # Errors
    /// When it has none.
    pub fn peer(&self) -> Result<PeerStatus> {
        let status = Arc::clone(&self.handle.watch_status().borrow());
        status.peers.first().cloned().ok_or_else(|| Error::unmet("the speaker has no peer"))
    }

    /// Waits until the status of its peer is as wanted, and returns it.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub fn wait(
        &self,
        what: &str,
        timeout: Duration,
        is_wanted: impl Fn(&PeerStatus) -> bool,
    ) -> Result<PeerStatus> {
        until(format!("{what} in the speaker's status"), timeout, || {
            let peer = self.peer()?;
            require!(is_wanted(&peer), "{}, last error {:?}", peer.state, peer.last_error);
            Ok::<_, Error>(peer)
        })
    }

    /// Waits until its session is down, or came back, with this in its last error.
    ///
    /// # Errors
    /// When it does not say so in time.
    pub fn wait_error(&self, words: &str, timeout: Duration) -> Result<PeerStatus> {
        let says = |peer: &PeerStatus| peer.last_error.as_ref().is_some_and(|error| error.contains(words));
        self.wait(&format!("last error {words:?}"), timeout, says)
    }

    /// Waits until its session is up.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_established(&self, timeout: Duration) -> Result<PeerStatus> {
        self.wait("an established session", timeout, |peer| peer.state == State::Established)
    }

    /// Lets it stand still, sockets open, as a process does under SIGSTOP.
    ///
    /// # Errors
    /// When its thread has ended.
    pub fn freeze(&self) -> Result<Frozen> {
        let (thaw, wait) = mpsc::channel::<()>();
        let (frozen, is_frozen) = mpsc::channel();
        self.runtime.spawn(async move {
            let _ = frozen.send(());
            // Until the other end is dropped.
            let _ = wait.recv();
        });
        is_frozen.recv().map_err(|error| Error::parse("the speaker's thread", error))?;
        Ok(Frozen { _thaw: thaw })
    }
}
