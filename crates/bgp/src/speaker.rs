//! The speaker: the aggregate of Loc-RIB and peers, and all that a driver deals with.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;

pub use crate::fsm::connection::ConnectionId;
use crate::{
    bfd,
    config::{PeerConfig, PeerName, PeerSetError, ShutdownMode, SpeakerConfig},
    fsm::timers::Jitter,
    md5::Md5Key,
    notification::{self as codes, Notification},
    peer::{Action, Admission, Ids, Peer, Restart},
    rib::{adj_rib_out::AdjRibOut, changes::Changes, loc_rib::LocRib},
    route::Route,
    status::{SpeakerStatus, State},
    types::{Family, Time},
    wire,
};

/// All of BGP but the sockets and the clock (RFC 4271).
///
/// - **In**, what happened: [`handle_dialed`](Speaker::handle_dialed),
///   [`handle_accepted`](Speaker::handle_accepted), [`handle_received`](Speaker::handle_received),
///   [`handle_transmitted`](Speaker::handle_transmitted), [`handle_closed`](Speaker::handle_closed),
///   [`handle_bfd`](Speaker::handle_bfd), [`handle_timeout`](Speaker::handle_timeout).
/// - **Commands**, what is wanted: [`restarted`](Speaker::restarted), [`set_peers`](Speaker::set_peers),
///   [`announce`](Speaker::announce), [`withdraw`](Speaker::withdraw), [`apply`](Speaker::apply),
///   [`replace_all`](Speaker::replace_all),
///   [`stop`](Speaker::stop).
/// - **Out**, what to do, drained after every call of the above until all three have nothing more:
///   [`poll_event`](Speaker::poll_event), [`poll_transmit`](Speaker::poll_transmit), and then
///   [`poll_timeout`](Speaker::poll_timeout) for when to call `handle_timeout`.
/// - **Read**: [`status`](Speaker::status), [`undrained`](Speaker::undrained),
///   [`passive_peers`](Speaker::passive_peers), [`bfd_targets`](Speaker::bfd_targets).
///
/// # Guarantees
/// No call blocks, reads a clock or panics on what a peer sends. Memory does not grow with what a peer sends, nor
/// with how slowly it reads: octets are produced only while few wait for its socket.
///
/// # Assumptions
/// `now` never goes back. Octets are sent in the order in which they were polled, those of [`Event::Close`] last.
#[derive(Debug)]
pub struct Speaker {
    loc_rib: LocRib,
    peers: BTreeMap<PeerName, Peer>,
    ids: Ids,
    seeds: Jitter,
    loading: Loading,
    /// This process goes on where another has ended.
    restart: Option<Restart>,
    ending: Ending,
    events: VecDeque<Event>,
    /// Whose octets were polled last.
    last_served: Option<PeerName>,
}

/// Whether the Loc-RIB is what is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loading {
    /// Not before the first `replace_all`, or so long after there are peers.
    Awaited(Duration),
    /// Not before the first `replace_all`, or then (Selection_Deferral_Timer, RFC 4724 §4.1).
    Until(Time),
    Complete,
}

/// How far the end has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    Running,
    /// Routes are marked; the sessions end then, with this text (RFC 8326 §4.2).
    Draining(Time, String),
    Stopped,
}

/// Something for the driver to do or to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Open a TCP connection to this peer and answer with `handle_dialed`.
    Dial(ConnectionId, Arc<PeerConfig>),
    /// Forget this dial; it needs no answer any more.
    Abort(ConnectionId),
    /// Send these octets behind all others of this connection and close it. It needs no `handle_closed`.
    Close(ConnectionId, Bytes),
    /// A peer has changed its state; for logs.
    Changed(PeerName, State),
    /// The routes were not complete in time ([`SpeakerConfig::await_routes`]): peers are told that what there is is all.
    RoutesOverdue,
}

/// Octets for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where they go.
    pub connection: ConnectionId,
    /// Whole messages.
    pub bytes: Bytes,
}

/// What became of a connection that someone opened to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is this peer's connection.
    Taken(ConnectionId, Arc<PeerConfig>),
    /// Send these octets, which may be none, and close it.
    Refused(Bytes),
}

impl Speaker {
    /// A speaker without peers and routes.
    pub fn new(config: &SpeakerConfig) -> Speaker {
        Speaker {
            loc_rib: LocRib::default(),
            peers: BTreeMap::new(),
            ids: Ids::default(),
            seeds: Jitter::new(config.seed),
            loading: config.await_routes.map_or(Loading::Complete, Loading::Awaited),
            restart: None,
            ending: Ending::Running,
            events: VecDeque::new(),
            last_served: None,
        }
    }

    /// This process goes on where another has ended, which peers to come are told (RFC 4724 §4.1: Restart State bit);
    /// of the families in `kept` everything that it announced has been forwarded all the time (F bit).
    pub fn restarted(&mut self, kept: &[Family], now: Time) {
        self.restart = Some(Restart { at: now, kept: Family::ALL.map(|family| kept.contains(&family)) });
    }

    /// Adds routes or replaces those with the same prefixes.
    pub fn announce(&mut self, routes: &[Route]) {
        let mut changes = Changes::default();
        routes.iter().for_each(|route| changes.announce(route));
        self.apply(&changes);
    }

    /// Removes the routes of these prefixes.
    pub fn withdraw(&mut self, prefixes: &[IpNet]) {
        let mut changes = Changes::default();
        prefixes.iter().for_each(|prefix| changes.withdraw(prefix));
        self.apply(&changes);
    }

    /// Adds and removes routes, in the order in which that was written down.
    pub fn apply(&mut self, changes: &Changes) {
        let mut ribs = adj_ribs_out(&mut self.peers);
        self.loc_rib
            .apply(changes, |block, members| ribs.iter_mut().for_each(|rib| rib.mark(block, members)));
    }

    /// Makes these the only routes. What is as it was causes nothing on the wire.
    pub fn replace_all(&mut self, routes: &[Route]) {
        self.loading = Loading::Complete;
        let mut ribs = adj_ribs_out(&mut self.peers);
        self.loc_rib
            .replace_all(routes, |block, members| ribs.iter_mut().for_each(|rib| rib.mark(block, members)));
    }

    /// Makes these the only peers. Equal configurations touch nothing; one that differs in what needs no new
    /// session ([`PeerConfig::needs_reset`]) keeps its session.
    pub fn set_peers(&mut self, configs: Vec<PeerConfig>, now: Time) -> Result<(), PeerSetError> {
        PeerConfig::check_set(&configs)?;
        if let Loading::Awaited(time) = self.loading
            && !configs.is_empty()
        {
            self.loading = Loading::Until(now + time);
        }
        let wanted: BTreeMap<PeerName, PeerConfig> =
            configs.into_iter().map(|config| (PeerName::clone(&config.name), config)).collect();
        let gone: Vec<PeerName> =
            self.peers.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(mut peer) = self.peers.remove(&name) {
                peer.stop(&Notification::new(codes::CEASE_PEER_DECONFIGURED), now);
                collect(&mut peer, &mut self.loc_rib, &mut self.events);
            }
        }
        let is_draining = matches!(self.ending, Ending::Draining(..));
        for (name, mut config) in wanted {
            config.graceful_shutdown |= is_draining;
            self.set_peer(name, config, now);
        }
        self.settle();
        Ok(())
    }

    /// Ends every session, at once or after having drained; then [`is_stopped`](Speaker::is_stopped), and the speaker
    /// does nothing any more but send what is left.
    pub fn stop(&mut self, mode: &ShutdownMode, now: Time) {
        self.ending = match mode {
            ShutdownMode::Drain { text, wait } => {
                self.mark_leaving(now);
                Ending::Draining(now + *wait, text.clone())
            }
            ShutdownMode::Administrative(text) => {
                let notification = Notification::with_text(codes::CEASE_ADMINISTRATIVE_SHUTDOWN, text);
                self.peers.values_mut().for_each(|peer| peer.stop(&notification, now));
                Ending::Stopped
            }
            ShutdownMode::Restart => {
                let notification = Notification::new(codes::CEASE_ADMINISTRATIVE_RESET);
                self.peers.values_mut().for_each(|peer| peer.pause(&notification, now));
                Ending::Stopped
            }
        };
        self.settle();
    }

    /// Whether everything has ended that was to end.
    pub fn is_stopped(&self) -> bool {
        self.ending == Ending::Stopped
    }

    fn mark_leaving(&mut self, now: Time) {
        for peer in self.peers.values_mut() {
            let config = PeerConfig { graceful_shutdown: true, ..PeerConfig::clone(peer.config()) };
            peer.reconfigure(Arc::new(config), false, &self.loc_rib, &mut self.ids, now);
        }
    }

    /// A dial has ended: with the address of our end, or with why not.
    pub fn handle_dialed(&mut self, id: ConnectionId, result: Result<IpAddr, String>, now: Time) {
        match self.peer_of(id) {
            Some(peer) => peer.handle_dialed(id, result, now),
            // Aborted while it succeeded.
            None if result.is_ok() => self.events.push_back(Event::Close(id, Bytes::new())),
            None => {}
        }
        self.settle();
    }

    /// Someone has connected. Unknown sources are refused before they can say anything.
    pub fn handle_accepted(&mut self, from: SocketAddr, local: IpAddr, now: Time) -> Accepted {
        let Some(peer) = self.peers.values_mut().find(|peer| peer.config().is_at(from)) else {
            return Accepted::Refused(Bytes::new());
        };
        let id = self.ids.next();
        let accepted = match peer.handle_accepted(id, local, now) {
            Admission::Taken => Accepted::Taken(id, Arc::clone(peer.config())),
            Admission::Collides => {
                let mut farewell = BytesMut::new();
                let notification = Notification::new(codes::CEASE_CONNECTION_COLLISION);
                wire::encode_notification(&notification, &mut farewell);
                Accepted::Refused(farewell.freeze())
            }
            // Idle, or too many, and without a word: a NOTIFICATION would send the peer to Idle, too, and two speakers
            // that refuse each other in turns never meet.
            Admission::Refused => Accepted::Refused(Bytes::new()),
        };
        self.settle();
        accepted
    }

    /// Octets have come.
    pub fn handle_received(&mut self, id: ConnectionId, bytes: &[u8], now: Time) {
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.owns(id)) {
            peer.handle_received(id, bytes, now);
        }
        self.settle();
    }

    /// The socket has taken so many octets of what was polled.
    pub fn handle_transmitted(&mut self, id: ConnectionId, octets: usize, now: Time) {
        if let Some(peer) = self.peer_of(id) {
            peer.handle_transmitted(id, octets, now);
        }
    }

    /// TCP has ended, for this reason in words.
    pub fn handle_closed(&mut self, id: ConnectionId, reason: impl Into<String>, now: Time) {
        if let Some(peer) = self.peer_of(id) {
            peer.handle_closed(id, reason.into(), now);
        }
        self.settle();
    }

    /// How the BFD session of a peer stands.
    pub fn handle_bfd(&mut self, name: &str, report: bfd::Report, now: Time) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.handle_bfd(report, &mut self.ids, now);
        }
        self.settle();
    }

    /// The keys of those peers that sign (RFC 2385), by address.
    pub fn md5_keys(&self) -> BTreeMap<IpAddr, Md5Key> {
        let configs = self.peers.values().map(|peer| peer.config());
        configs.filter_map(|it| Some((it.address.to_canonical(), it.md5_key.clone()?))).collect()
    }

    /// The peers whose path BFD is to watch.
    pub fn bfd_targets(&self) -> Vec<bfd::Target> {
        self.peers.values().filter_map(|peer| peer.config().bfd_target()).collect()
    }

    /// Where the other peers are, by name: address and scope.
    pub fn unwatched_peers(&self) -> BTreeMap<PeerName, (IpAddr, u32)> {
        let configs = self.peers.values().map(|peer| peer.config()).filter(|config| config.bfd.is_none());
        configs.map(|it| (PeerName::clone(&it.name), (it.address, it.scope))).collect()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        if matches!(self.loading, Loading::Until(time) if time <= now) {
            self.loading = Loading::Complete;
            self.events.push_back(Event::RoutesOverdue);
        }
        if let Ending::Draining(until, text) = &self.ending
            && *until <= now
        {
            let text = text.clone();
            self.stop(&ShutdownMode::Administrative(text), now);
        }
        for peer in self.peers.values_mut() {
            if peer.poll_timeout().is_some_and(|at| at <= now) {
                peer.handle_timeout(&mut self.ids, now);
            }
        }
        self.settle();
    }

    /// When to call `handle_timeout` next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let deferral = match self.loading {
            Loading::Until(time) if !self.is_stopped() => Some(time),
            _ => None,
        };
        let drained = match self.ending {
            Ending::Draining(until, _) => Some(until),
            Ending::Running | Ending::Stopped => None,
        };
        self.peers.values().filter_map(Peer::poll_timeout).chain(deferral).chain(drained).min()
    }

    /// The next thing to do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next octets to send. UPDATEs are made here, from what the Loc-RIB holds now.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        let is_complete = self.loading == Loading::Complete;
        let loc_rib = &mut self.loc_rib;
        let mut poll = |(name, peer): (&PeerName, &mut Peer)| {
            let (connection, bytes) = peer.poll_transmit(loc_rib, is_complete, now)?;
            Some((PeerName::clone(name), Transmit { connection, bytes: bytes.freeze() }))
        };
        // Peers take turns, so that one that reads as fast as we write does not keep the others waiting.
        let behind = match &self.last_served {
            Some(last) => (Bound::Excluded(PeerName::clone(last)), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let found = self.peers.range_mut(behind).find_map(&mut poll);
        let (name, transmit) = found.or_else(|| self.peers.iter_mut().find_map(&mut poll))?;
        self.last_served = Some(name);
        Some(transmit)
    }

    /// What is to be told of every peer.
    pub fn status(&self) -> SpeakerStatus {
        SpeakerStatus {
            peers: self.peers.values().map(Peer::status).collect(),
            loc_rib: self.loc_rib.counts(),
            listen_error: None,
            bfd_error: None,
        }
    }

    /// Our own routes.
    pub fn loc_rib(&self) -> &LocRib {
        &self.loc_rib
    }

    /// Established sessions whose peer has not yet been told everything, or whose socket has not yet taken it.
    pub fn undrained(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        let is_complete = self.loading == Loading::Complete;
        self.peers.values().filter_map(move |peer| peer.undrained(is_complete))
    }

    /// How many Established connections each peer has, of which there must never be two.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn sessions(&self) -> BTreeMap<PeerName, usize> {
        self.peers.iter().map(|(name, peer)| (PeerName::clone(name), peer.sessions())).collect()
    }

    /// Whether a peer is offered graceful restart, and if so with the N bit.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn offers_graceful_restart(&self, peer: &str) -> Option<bool> {
        self.peers.get(peer)?.config().graceful_restart.map(|_| true)
    }

    /// Peers that only listening can reach.
    pub fn passive_peers(&self) -> impl Iterator<Item = &PeerConfig> + '_ {
        self.peers.values().map(|peer| &**peer.config()).filter(|config| config.passive)
    }

    fn set_peer(&mut self, name: PeerName, config: PeerConfig, now: Time) {
        if let Some(peer) = self.peers.get_mut(&name) {
            if **peer.config() == config {
                return;
            }
            let is_reset = peer.config().needs_reset(&config);
            return peer.reconfigure(Arc::new(config), is_reset, &self.loc_rib, &mut self.ids, now);
        }
        let mut peer = Peer::new(Arc::new(config), self.seeds.next(), self.restart, now);
        peer.start(&mut self.ids, now);
        self.peers.insert(name, peer);
    }

    fn peer_of(&mut self, id: ConnectionId) -> Option<&mut Peer> {
        self.peers.values_mut().find(|peer| peer.owns(id))
    }

    fn settle(&mut self) {
        for peer in self.peers.values_mut() {
            collect(peer, &mut self.loc_rib, &mut self.events);
        }
    }
}

/// Of every session.
fn adj_ribs_out(peers: &mut BTreeMap<PeerName, Peer>) -> Vec<&mut AdjRibOut> {
    peers.values_mut().flat_map(Peer::adj_ribs_out).collect()
}

/// Takes what a peer wants done.
fn collect(peer: &mut Peer, loc_rib: &mut LocRib, events: &mut VecDeque<Event>) {
    for ended in peer.ended.drain(..) {
        ended.release(loc_rib);
    }
    let config = Arc::clone(peer.config());
    events.extend(peer.actions.drain(..).map(|action| match action {
        Action::Dial(id) => Event::Dial(id, Arc::clone(&config)),
        Action::Abort(id) => Event::Abort(id),
        Action::Close(id, farewell) => Event::Close(id, farewell.freeze()),
        Action::Changed(state) => Event::Changed(PeerName::clone(&config.name), state),
    }));
}
