//! One peer: its two connection slots (RFC 4271 §8.2.2), what happens to them, and what is remembered of it from one
//! session to the next. How it gets a connection is in `acquire`, which of two lives in `collision` (§6.8).
//!
//! Guarantees: never more than one session; a peer that is not stopped always has a connection, a dial under
//! way, or a timer running that leads to one (a passive peer: is listening).

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::BytesMut;

use crate::{
    config::PeerConfig,
    fsm::{
        connection::{Connection, ConnectionId, Direction},
        event::{Closed, Event, Next, Outcome},
        timers::{Jitter, Timer, Timers},
    },
    notification::{self as codes, Notification},
    rate::RateLimit,
    rib::{adj_rib_out::AdjRibOut, loc_rib::LocRib},
    status::State,
    types::Time,
};
use acquire::Acquire;
pub(crate) use acquire::Admission;
use continuity::Continuity;
pub(crate) use continuity::Restart;
use history::History;
use path::Path;

mod acquire;
mod collision;
mod continuity;
mod history;
mod path;
mod report;
#[cfg(test)]
mod tests;

/// A session that lasted so long takes the idle hold back to its start.
const STABLE: Duration = Duration::from_secs(60);

/// What a peer wants done about TCP.
#[derive(Debug)]
pub(crate) enum Action {
    /// Open a connection.
    Dial(ConnectionId),
    /// Forget a dial under way.
    Abort(ConnectionId),
    /// Send these last octets, then close.
    Close(ConnectionId, BytesMut),
    /// Tell that the peer is in this state now.
    Changed(State),
}

/// A peer.
#[derive(Debug)]
pub(crate) struct Peer {
    config: Arc<PeerConfig>,
    acquire: Acquire,
    /// By direction.
    connections: [Option<Connection>; 2],
    /// How often connections are opened from its address.
    inbound: RateLimit,
    timers: Timers,
    jitter: Jitter,
    /// How often in a row the peer was lost without a stable session between.
    losses: u32,
    continuity: Continuity,
    path: Path,
    history: History,
    /// To be done by the driver.
    pub(crate) actions: Vec<Action>,
    /// What ended sessions leave behind, to be released from the Loc-RIB.
    pub(crate) ended: Vec<AdjRibOut>,
}

impl Peer {
    /// A stopped peer. `restart`: it may have routes of ours from before.
    pub(crate) fn new(config: Arc<PeerConfig>, seed: u64, restart: Option<Restart>, now: Time) -> Peer {
        Peer {
            config,
            acquire: Acquire::Idle,
            connections: [None, None],
            inbound: acquire::inbound_limit(),
            timers: Timers::default(),
            jitter: Jitter::new(seed),
            losses: 0,
            continuity: Continuity::new(restart),
            path: Path::default(),
            history: History::new(now),
            actions: Vec::new(),
            ended: Vec::new(),
        }
    }

    pub(crate) fn config(&self) -> &Arc<PeerConfig> {
        &self.config
    }

    /// The furthest state among the connections.
    pub(crate) fn state(&self) -> State {
        let acquiring = match self.acquire {
            Acquire::Idle => State::Idle,
            Acquire::Connect(_) => State::Connect,
            Acquire::Active => State::Active,
        };
        self.connections.iter().flatten().map(Connection::state).fold(acquiring, State::max)
    }

    /// Whether a connection, or a dial under way, is this peer's.
    pub(crate) fn owns(&self, id: ConnectionId) -> bool {
        self.acquire == Acquire::Connect(id) || self.direction(id).is_some()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let connections = self.connections.iter().flatten().filter_map(Connection::poll_timeout);
        connections.chain(self.timers.next()).min()
    }

    /// Events 2 and 8: every connection is closed with this NOTIFICATION, the peer forgets our routes, and nothing
    /// is begun.
    pub(crate) fn stop(&mut self, notification: &Notification, now: Time) {
        self.end(&Event::Stop(notification.clone()), now);
    }

    /// The same to come back: a peer that can keeps our routes.
    pub(crate) fn pause(&mut self, notification: &Notification, now: Time) {
        self.end(&Event::Pause(notification.clone()), now);
    }

    fn end(&mut self, event: &Event, now: Time) {
        self.go_idle();
        for direction in Direction::ALL {
            self.handle(direction, event.clone(), now);
        }
        self.timers = Timers::default();
        self.settle(now);
    }

    /// Another configuration, with a new session where it needs one.
    pub(crate) fn reconfigure(
        &mut self,
        config: Arc<PeerConfig>,
        is_reset: bool,
        loc_rib: &LocRib,
        ids: &mut Ids,
        now: Time,
    ) {
        if config.bfd.is_none() {
            self.forget_path(ids, now);
        }
        if is_reset {
            if (config.address, config.scope) == (self.config.address, self.config.scope) {
                self.pause(&Notification::new(codes::CEASE_OTHER_CONFIGURATION_CHANGE), now);
            } else {
                self.stop(&Notification::new(codes::CEASE_PEER_DECONFIGURED), now);
                self.continuity = Continuity::new(None);
            }
            self.path.is_held_down = false;
            self.config = config;
            self.losses = 0;
            return self.start(ids, now);
        }
        self.config = config;
        for connection in self.connections.iter_mut().flatten() {
            connection.reconfigure(&self.config, loc_rib);
        }
        if self.config.passive {
            self.abort_dial();
        } else if self.state() == State::Active {
            self.dial(ids, now);
        }
        self.settle(now);
    }

    /// Octets from the peer.
    pub(crate) fn handle_received(&mut self, id: ConnectionId, bytes: &[u8], now: Time) {
        let Some(direction) = self.direction(id) else { return };
        if let Some(connection) = self.connection_mut(direction) {
            connection.receive(bytes);
        }
        while let Some(event) = self.connection_mut(direction).and_then(Connection::received) {
            if let Outcome::Refresh(family) = self.handle(direction, event, now)
                && let Some(session) = self.connection_mut(direction).and_then(Connection::session_mut)
            {
                session.refresh(family);
            }
        }
        self.settle(now);
    }

    /// Event 18: TCP says that a connection is over.
    pub(crate) fn handle_closed(&mut self, id: ConnectionId, reason: String, now: Time) {
        if let Some(direction) = self.direction(id) {
            self.handle(direction, Event::TcpConnectionFails(reason), now);
            self.settle(now);
        }
    }

    /// The socket has taken so many octets.
    pub(crate) fn handle_transmitted(&mut self, id: ConnectionId, octets: usize, now: Time) {
        if let Some(connection) = self.direction(id).and_then(|direction| self.connection_mut(direction)) {
            connection.transmitted(octets, now);
        }
    }

    /// Everything whose time has come.
    pub(crate) fn handle_timeout(&mut self, ids: &mut Ids, now: Time) {
        for direction in Direction::ALL {
            while let Some(event) = self.connection_mut(direction).and_then(|it| it.expired(now)) {
                self.handle(direction, event, now);
            }
        }
        while let Some(timer) = self.timers.take_expired(now) {
            match timer {
                // Event 9: in Connect the dial is dropped for a new one, in Active one is begun.
                Timer::ConnectRetry => {
                    self.on_unanswered();
                    self.dial(ids, now);
                }
                // Event 13.
                Timer::IdleHold => self.start(ids, now),
                Timer::Hold | Timer::Keepalive | Timer::SendHold => {}
            }
        }
        self.settle(now);
    }

    /// What the peer has been told, on each session: where changes of the Loc-RIB are marked.
    pub(crate) fn adj_ribs_out(&mut self) -> impl Iterator<Item = &mut AdjRibOut> {
        let sessions = self.connections.iter_mut().flatten().filter_map(Connection::session_mut);
        sessions.map(|session| &mut session.adj_rib_out)
    }

    /// The next octets to send, if there are any. `is_complete`: the Loc-RIB is, so End-of-RIB may be said.
    pub(crate) fn poll_transmit(
        &mut self,
        loc_rib: &mut LocRib,
        is_complete: bool,
        now: Time,
    ) -> Option<(ConnectionId, BytesMut)> {
        self.connections.iter_mut().flatten().find_map(|connection| {
            let bytes = connection.produce(loc_rib, is_complete, now);
            if connection.session().is_some_and(|session| session.adj_rib_out.is_end_of_rib_sent()) {
                self.continuity.on_end_of_rib();
            }
            (!bytes.is_empty()).then_some((connection.id, bytes))
        })
    }

    /// The Established session, where it has something left to say or the socket something to take.
    pub(crate) fn undrained(&self, is_complete: bool) -> Option<ConnectionId> {
        let mut connections = self.connections.iter().flatten();
        let established = connections.find(|connection| connection.session().is_some())?;
        (!established.is_drained(is_complete)).then_some(established.id)
    }

    fn direction(&self, id: ConnectionId) -> Option<Direction> {
        Direction::ALL
            .into_iter()
            .find(|direction| self.connection(*direction).is_some_and(|connection| connection.id == id))
    }

    fn connection(&self, direction: Direction) -> Option<&Connection> {
        self.connections[direction as usize].as_ref()
    }

    fn connection_mut(&mut self, direction: Direction) -> Option<&mut Connection> {
        self.connections[direction as usize].as_mut()
    }

    fn open(&mut self, id: ConnectionId, direction: Direction, local: IpAddr, now: Time) {
        let jitter = Jitter::new(self.jitter.next());
        let restart = self.continuity.state(self.config.graceful_restart, now);
        let connection = Connection::open(id, Arc::clone(&self.config), local, &restart, jitter, now);
        self.connections[direction as usize] = Some(connection);
    }

    /// Hands an event to a connection and does what it comes to.
    fn handle(&mut self, direction: Direction, event: Event, now: Time) -> Outcome {
        let Some(connection) = self.connection_mut(direction) else { return Outcome::Stay };
        match connection.handle(event, now) {
            Outcome::Opened => self.on_opened(direction, now),
            Outcome::Established => {
                self.continuity.on_established();
                // §6.8: whatever else there is loses.
                self.abort_dial();
                self.handle(direction.other(), Event::OpenCollisionDump, now);
            }
            Outcome::Fault(fault) => {
                self.history.on_fault(&fault, now);
            }
            Outcome::Closed(closed) => self.on_closed(direction, closed, now),
            outcome => return outcome,
        }
        Outcome::Stay
    }

    fn on_closed(&mut self, direction: Direction, closed: Closed, now: Time) {
        let Some(connection) = self.connections[direction as usize].take() else { return };
        self.actions.push(Action::Close(connection.id, connection.into_output()));
        if let Some(told) = closed.told {
            self.history.on_notification(told);
        }
        match closed.error {
            // Event 18 before the peer has said anything: no reason, but one more vain attempt.
            Some(error) if closed.next == Next::Active => self.history.on_obstacle(error),
            Some(error) => self.history.on_reason(error),
            None => {}
        }
        if let Some(session) = closed.session {
            self.history.flaps += 1;
            self.history.updates_sent += session.counters.updates_sent;
            self.ended.push(session.adj_rib_out);
            if now.since(self.history.since) >= STABLE {
                self.losses = 0;
            }
        }
        let is_alone = self.connections.iter().all(Option::is_none) && self.acquire == Acquire::Active;
        if is_alone && closed.next == Next::Idle {
            self.go_idle();
            let time = self.idle_hold_time();
            self.timers.start(Timer::IdleHold, now + time);
        }
    }

    /// After every event: ConnectRetryTimer runs exactly while a dial of ours could help, and a change of state
    /// is remembered with its time.
    fn settle(&mut self, now: Time) {
        let is_confirmed = self.state() > State::OpenSent;
        let may_dial = self.acquire != Acquire::Idle
            && !self.config.passive
            && self.connection(Direction::Outgoing).is_none()
            && !is_confirmed;
        if !may_dial {
            self.timers.stop(Timer::ConnectRetry);
        } else if !self.timers.is_running(Timer::ConnectRetry) {
            let time = self.connect_retry_time();
            self.timers.start(Timer::ConnectRetry, now + time);
        }
        if self.state() != self.history.state {
            self.history.state = self.state();
            self.history.since = now;
            self.actions.push(Action::Changed(self.history.state));
        }
    }
}

/// The source of connection names.
#[derive(Debug, Default)]
pub(crate) struct Ids(u64);

impl Ids {
    pub(crate) fn next(&mut self) -> ConnectionId {
        self.0 += 1;
        ConnectionId(self.0)
    }
}
