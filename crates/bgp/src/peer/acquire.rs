//! How a peer gets a connection: Idle, Connect and Active of RFC 4271 §8.2.2, ConnectRetryTimer and IdleHoldTimer; and
//! what becomes of connections that are opened from its address, which may be many: each that is taken costs an OPEN
//! and a socket that lingers for its last words, so only so many are.

use std::{net::IpAddr, time::Duration};

use bytes::BytesMut;

use super::{Action, Ids, Peer};
use crate::{
    fsm::{
        connection::{ConnectionId, Direction},
        event::{Event, Told},
        timers::Timer,
    },
    notification as codes,
    rate::RateLimit,
    status::State,
    types::Time,
};

/// The longest IdleHoldTime (Deviation: RFC 4271 §8.1.1 leaves damping open; a speaker with no routes of others
/// to protect wants its session back soon).
const MAX_IDLE_HOLD: Duration = Duration::from_secs(60);

/// The shortest ConnectRetryTime.
const MIN_CONNECT_RETRY: Duration = Duration::from_millis(100);

/// How many connections from the peer's address are looked at at once: more than a router opens that tries again and
/// again.
const INBOUND_BURST: u32 = 20;

/// And how often one more.
const INBOUND_INTERVAL: Duration = Duration::from_millis(200);

/// The limit to connections that are opened from a peer's address.
pub(super) const fn inbound_limit() -> RateLimit {
    RateLimit::new(INBOUND_BURST, INBOUND_INTERVAL)
}

/// What becomes of a connection that the peer has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is used.
    Taken,
    /// The Established session goes on; the peer may be told.
    Collides,
    /// It is closed without a word.
    Refused,
}

/// What is done for a connection while there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acquire {
    /// Nothing: stopped, or until IdleHoldTimer expires. Connections are refused.
    Idle,
    /// A dial is under way.
    Connect(ConnectionId),
    /// Listening, until ConnectRetryTimer expires.
    Active,
}

impl Peer {
    /// Events 1, 3 and their passive kin: start, or start again.
    pub(crate) fn start(&mut self, ids: &mut Ids, now: Time) {
        if self.acquire == Acquire::Idle {
            self.timers.stop(Timer::IdleHold);
            self.path.is_held_down = false;
            self.acquire = Acquire::Active;
            if !self.config.passive {
                self.dial(ids, now);
            }
        }
        self.settle(now);
    }

    /// Event 16, or 18 in Connect: a dial has ended.
    pub(crate) fn handle_dialed(&mut self, id: ConnectionId, result: Result<IpAddr, String>, now: Time) {
        if self.acquire != Acquire::Connect(id) {
            // Aborted while it succeeded: nobody wants this connection.
            self.actions.push(Action::Close(id, BytesMut::new()));
            return;
        }
        // Deviation: §8.2.2 goes to Idle when a dial fails in Connect. Active still takes the peer's own
        // connection, and ConnectRetryTimer leads back here all the same.
        self.acquire = Acquire::Active;
        match result {
            Ok(local) => self.open(id, Direction::Outgoing, local, now),
            Err(reason) => {
                self.timers.stop(Timer::ConnectRetry);
                let (address, port) = (self.config.address, self.config.port);
                self.history.on_obstacle(format!("cannot connect to {address} port {port}: {reason}"));
            }
        }
        self.settle(now);
    }

    /// Event 17: the peer has connected.
    pub(crate) fn handle_accepted(&mut self, id: ConnectionId, local: IpAddr, now: Time) -> Admission {
        if !self.inbound.take(now) {
            let address = self.config.address;
            self.history.on_obstacle(format!(
                "{address} connects more often than {INBOUND_BURST} times at once and once every \
                 {INBOUND_INTERVAL:?}: the others are refused"
            ));
            return Admission::Refused;
        }
        match self.state() {
            // §8.2.2: "refuses all incoming BGP connections".
            State::Idle => return Admission::Refused,
            // §6.8: an Established session wins over any new connection, unless the peer may have restarted.
            State::Established if !self.may_restart() => {
                self.history.on_notification(Told::Sent(codes::CEASE_CONNECTION_COLLISION.0));
                return Admission::Collides;
            }
            _ => {}
        }
        // A peer dials one connection at a time, so an older one of its own is dead to it.
        let is_session = self.connection(Direction::Incoming).is_some_and(|it| it.session().is_some());
        let event = if is_session { Event::PeerRestarts } else { Event::OpenCollisionDump };
        self.handle(Direction::Incoming, event, now);
        self.open(id, Direction::Incoming, local, now);
        self.settle(now);
        Admission::Taken
    }

    /// None after a stable session, then 1 s, and twice as long after each further loss.
    pub(super) fn idle_hold_time(&mut self) -> Duration {
        let time = match self.losses {
            0 => Duration::ZERO,
            losses => Duration::from_secs(1 << (losses - 1).min(6)).min(MAX_IDLE_HOLD),
        };
        self.losses += 1;
        self.jitter.apply(time)
    }

    /// ConnectRetryTime with its jitter, and never so short that dialling is all that is done.
    pub(super) fn connect_retry_time(&mut self) -> Duration {
        self.jitter.apply(self.config.connect_retry_time.max(MIN_CONNECT_RETRY))
    }

    pub(super) fn dial(&mut self, ids: &mut Ids, now: Time) {
        self.abort_dial();
        let id = ids.next();
        self.acquire = Acquire::Connect(id);
        self.actions.push(Action::Dial(id));
        let time = self.connect_retry_time();
        self.timers.start(Timer::ConnectRetry, now + time);
    }

    /// ConnectRetryTimer has expired while a dial was under way.
    pub(super) fn on_unanswered(&mut self) {
        if let Acquire::Connect(_) = self.acquire {
            let (address, port) = (self.config.address, self.config.port);
            let silence = self.config.silence(self.config.connect_retry_time);
            self.history.on_obstacle(format!("cannot connect to {address} port {port}: {silence}"));
        }
    }

    pub(super) fn abort_dial(&mut self) {
        if let Acquire::Connect(id) = self.acquire {
            self.acquire = Acquire::Active;
            self.actions.push(Action::Abort(id));
        }
    }

    pub(super) fn go_idle(&mut self) {
        self.abort_dial();
        self.acquire = Acquire::Idle;
    }
}
