//! One TCP connection to a peer, from the moment it is up: OpenSent, OpenConfirm, Established (RFC 4271
//! §8.2.2, FSM error subcodes of RFC 6608, send hold timer of RFC 9687).
//!
//! In: octets, events, timers. Out: octets, and an [`Outcome`] for the peer, which alone knows of the other
//! connection.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::BytesMut;

use super::{
    event::{Event, Next, Outcome, Told},
    state::{Opened, Session, State},
    timers::{Jitter, Timer, Timers},
};
use crate::{
    capabilities::{self, Capabilities, RestartState},
    config::PeerConfig,
    export::Exporter,
    message::{Open, RefreshSubtype, RouteRefresh},
    notification::{self as codes, Notification},
    rib::loc_rib::LocRib,
    status,
    types::{Family, HoldTime, Time},
    wire::{self, DecodeContext},
};

/// Hold time until the peer's OPEN says otherwise (§8.2.2, Connect state: "a HoldTimer value of 4 minutes is
/// suggested").
const LARGE_HOLD_TIME: Duration = Duration::from_secs(240);

/// Error codes by the kind of the message that was in error (RFC 4271 §4.5, RFC 7313 §5).
const OPEN_ERROR: u8 = 2;
const UPDATE_ERROR: u8 = 3;
const ROUTE_REFRESH_ERROR: u8 = 7;

/// Names a connection, or the attempt to make one, for as long as the speaker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// We did.
    Outgoing,
    /// The peer did.
    Incoming,
}

impl Direction {
    pub(crate) const ALL: [Direction; 2] = [Direction::Outgoing, Direction::Incoming];

    pub(crate) fn other(self) -> Direction {
        match self {
            Direction::Outgoing => Direction::Incoming,
            Direction::Incoming => Direction::Outgoing,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(super) config: Arc<PeerConfig>,
    local_address: IpAddr,
    /// What we said; the hold time proposed stays what it was when the configuration changes.
    pub(super) sent: Open,
    pub(super) state: State,
    pub(super) timers: Timers,
    pub(super) jitter: Jitter,
    pub(super) decoding: DecodeContext,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    /// Octets handed to the driver that the socket has not yet taken.
    pub(super) in_flight: usize,
}

impl Connection {
    /// TCP is up (events 16 and 17): our OPEN goes out.
    pub(crate) fn open(
        id: ConnectionId,
        config: Arc<PeerConfig>,
        local_address: IpAddr,
        restart: &RestartState,
        jitter: Jitter,
        now: Time,
    ) -> Connection {
        let sent = Open {
            asn: config.local_asn.value(),
            hold_time: config.hold_time,
            router_id: config.router_id,
            capabilities: Capabilities::offer(&config, restart),
        };
        let mut output = BytesMut::new();
        wire::encode_open(&sent, &mut output);
        let mut timers = Timers::default();
        timers.start(Timer::Hold, now + LARGE_HOLD_TIME);
        Connection {
            id,
            config,
            local_address: local_address.to_canonical(),
            sent,
            state: State::OpenSent,
            timers,
            jitter,
            decoding: DecodeContext::default(),
            input: BytesMut::new(),
            output,
            in_flight: 0,
        }
    }

    pub(crate) fn state(&self) -> status::State {
        self.state.name()
    }

    pub(crate) fn opened(&self) -> Option<&Opened> {
        self.state.opened()
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.state {
            State::Established(session) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Established(session) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The event of a timer that has expired by `now`.
    pub(crate) fn expired(&mut self, now: Time) -> Option<Event> {
        loop {
            match self.timers.take_expired(now)? {
                Timer::Hold => return Some(Event::HoldTimerExpires),
                Timer::Keepalive => return Some(Event::KeepaliveTimerExpires),
                Timer::SendHold => return Some(Event::SendHoldTimerExpires),
                // Timers of the peer, never started here.
                Timer::ConnectRetry | Timer::IdleHold => {}
            }
        }
    }

    /// The event of one timer, as if it had expired.
    #[cfg(test)]
    pub(crate) fn expire(&mut self, timer: Timer, now: Time) -> Option<Event> {
        let is_running = self.timers.is_running(timer);
        let others = std::mem::take(&mut self.timers);
        self.timers.start(timer, now);
        let event = self.expired(now).filter(|_| is_running);
        self.timers = others;
        event
    }

    /// The FSM. After `Outcome::Closed` the connection is good for [`Connection::into_output`] only.
    pub(crate) fn handle(&mut self, event: Event, now: Time) -> Outcome {
        match event {
            Event::Stop(notification) => self.stop(notification),
            Event::Pause(notification) => self.pause(notification),
            Event::PeerRestarts => {
                let error = "the peer has connected anew, so it has restarted".to_owned();
                self.closed(Some(error), Next::Active, None)
            }
            Event::OpenCollisionDump => {
                // No error: the other connection goes on.
                let notification = Notification::new(codes::CEASE_CONNECTION_COLLISION);
                self.dismiss(&notification, None, Next::Active)
            }
            Event::HoldTimerExpires => {
                let error = format!("nothing came from the peer within its hold time, in {}", self.state());
                self.close(Notification::new(codes::HOLD_TIMER_EXPIRED), Some(error))
            }
            Event::SendHoldTimerExpires => {
                let error = "the peer's TCP has taken nothing for the send hold time".to_owned();
                self.close(Notification::new(codes::SEND_HOLD_TIMER_EXPIRED), Some(error))
            }
            Event::KeepaliveTimerExpires => {
                self.send_keepalive(now);
                Outcome::Stay
            }
            Event::TcpConnectionFails(reason) => {
                // A router that does not know us closes the connection without a word.
                let (hint, next) = match self.state {
                    State::OpenSent => (" before the peer's OPEN came", Next::Active),
                    _ => ("", Next::Idle),
                };
                let error = format!("TCP connection lost in {}{hint}: {reason}", self.state());
                self.closed(Some(error), next, None)
            }
            Event::MessageError(notification) => match (notification.code, &self.state) {
                // What a message says wrongly does not matter where the message itself has no place.
                (UPDATE_ERROR | ROUTE_REFRESH_ERROR, State::Established(_)) => self.close(notification, None),
                (UPDATE_ERROR | ROUTE_REFRESH_ERROR, _) | (OPEN_ERROR, State::Established(_)) => {
                    self.unexpected()
                }
                // Deviation: in Established RFC 4271 §8.2.2 makes an FSM error of a header error, too; §6.1 says
                // what is wrong, and so does everyone.
                _ => self.close(notification, None),
            },
            // Deviation: RFC 4271 §8.2.2 answers a NOTIFICATION in OpenSent with an FSM error; §6.4 forbids to
            // answer one at all, and nobody does.
            Event::NotifMsg(notification) => {
                let error = format!("received NOTIFICATION: {notification}");
                self.closed(Some(error), Next::Idle, Some(Told::Received(notification.code)))
            }
            Event::BgpOpen(open) => self.on_open(open),
            Event::KeepAliveMsg => self.on_keepalive(now),
            Event::UpdateMsg(update) => {
                let Some(session) = self.session_mut() else { return self.unexpected() };
                session.count(&update);
                self.restart_hold(now);
                // RFC 7606: the session goes on, and someone has to be told.
                match update.faults.into_iter().next() {
                    Some(fault) => Outcome::Fault(fault),
                    None => Outcome::Stay,
                }
            }
            Event::RouteRefreshMsg(refresh) => self.on_route_refresh(refresh),
        }
    }

    /// The peer has resolved collisions in favour of this connection: KEEPALIVE goes out, OpenConfirm begins.
    pub(crate) fn confirm(&mut self, now: Time) {
        if let State::OpenReceived(opened) = std::mem::replace(&mut self.state, State::OpenSent) {
            self.transition(State::OpenConfirm(opened), now);
        }
    }

    /// A configuration that needs no new session: it counts from now on, the hold time from the next session.
    pub(crate) fn reconfigure(&mut self, config: &Arc<PeerConfig>, loc_rib: &LocRib) {
        self.config = Arc::clone(config);
        let Some(opened) = self.session().map(|session| session.opened.clone()) else { return };
        let exporter = self.exporter(&opened);
        if let Some(session) = self.session_mut()
            && session.exporter != exporter
        {
            session.exporter = exporter;
            session.adj_rib_out.mark_all(loc_rib);
        }
    }

    /// Event 19.
    fn on_open(&mut self, open: Open) -> Outcome {
        let State::OpenSent = self.state else { return self.unexpected() };
        let is_strict = self.config.role.is_some_and(|role| role.is_strict);
        let roles = capabilities::check_roles(&self.sent.capabilities, &open.capabilities, is_strict);
        let negotiated = capabilities::negotiate(&self.sent, &open, self.config.peer_asn);
        match negotiated.and_then(|negotiated| roles.map(|()| negotiated)) {
            Ok(negotiated) => {
                self.state = State::OpenReceived(Opened { negotiated, open });
                Outcome::Opened
            }
            Err(notification) => {
                let detail = self.refusal(&notification, &open);
                self.close(notification, detail)
            }
        }
    }

    /// Event 26.
    fn on_keepalive(&mut self, now: Time) -> Outcome {
        match std::mem::replace(&mut self.state, State::OpenSent) {
            State::OpenConfirm(opened) => {
                let exporter = self.exporter(&opened);
                self.transition(State::Established(Box::new(Session::new(opened, exporter))), now);
                Outcome::Established
            }
            State::Established(session) => {
                self.state = State::Established(session);
                self.restart_hold(now);
                Outcome::Stay
            }
            before @ (State::OpenSent | State::OpenReceived(_)) => {
                self.state = before;
                self.unexpected()
            }
        }
    }

    fn on_route_refresh(&mut self, refresh: RouteRefresh) -> Outcome {
        let Some(session) = self.session() else { return self.unexpected() };
        // RFC 2918 §4: a request for a family that is not open is ignored, like (RFC 7313 §5) other subtypes.
        let is_open = |family: &Family| session.opened.negotiated.families.contains(family);
        match Family::from_afi_safi(refresh.afi, refresh.safi).filter(is_open) {
            Some(family) if refresh.subtype == RefreshSubtype::Request => Outcome::Refresh(family),
            _ => Outcome::Stay,
        }
    }

    /// The one door between states: does everything that entering a state takes.
    fn transition(&mut self, next: State, now: Time) {
        self.state = next;
        if let State::OpenConfirm(opened) = &self.state {
            let is_ebgp = opened.negotiated.peer_asn != self.config.local_asn;
            self.decoding = DecodeContext::new(&opened.negotiated, is_ebgp);
            self.send_keepalive(now);
        }
        self.restart_hold(now);
    }

    fn exporter(&self, opened: &Opened) -> Exporter {
        Exporter {
            local_asn: self.config.local_asn,
            is_internal: opened.negotiated.peer_asn == self.config.local_asn,
            local_address: self.local_address,
            extended_next_hop: opened.negotiated.extended_next_hop,
            families: opened.negotiated.families.clone(),
            next_hops: self.config.next_hops,
            is_downwards: self.config.role.is_some_and(|it| it.role.is_downwards()),
            is_leaving: self.config.graceful_shutdown,
            policy: self.config.export.clone(),
        }
    }

    pub(super) fn hold_time(&self) -> HoldTime {
        self.opened().map_or(self.sent.hold_time, |opened| opened.negotiated.hold_time)
    }

    /// Not before the OPEN: until then the large hold time runs, whatever comes.
    fn restart_hold(&mut self, now: Time) {
        let Some(opened) = self.opened() else { return };
        match opened.negotiated.hold_time.duration() {
            Some(time) => self.timers.start(Timer::Hold, now + time),
            None => self.timers.stop(Timer::Hold),
        }
    }

    fn send_keepalive(&mut self, now: Time) {
        wire::encode_keepalive(&mut self.output);
        self.start_keepalive(now);
    }

    /// §4.4 and §10: a third of the hold time or less, jittered; never where the hold time is zero.
    pub(super) fn start_keepalive(&mut self, now: Time) {
        let Some(hold) = self.hold_time().duration() else { return self.timers.stop(Timer::Keepalive) };
        let time = self.config.keepalive_time.map_or(hold / 3, |configured| configured.min(hold / 3));
        // Not more often than once a second.
        let time = time.max(Duration::from_secs(1));
        self.timers.start(Timer::Keepalive, now + self.jitter.apply(time));
    }
}
