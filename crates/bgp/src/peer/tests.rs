//! A peer under test: what it is told, and what it says.

use super::*;
use crate::{
    bfd,
    capabilities::Capabilities,
    config::PeerAsn,
    message::{Open, RefreshSubtype, RouteRefresh},
    notification::{self as codes, Code},
    types::{Asn, Family, HoldTime, RouterId},
    wire::{self, EncodeContext, Received},
};
use State::{Active, Established, OpenConfirm, OpenSent};

mod collisions;
mod octets;
mod path;
mod restarts;
mod states;
mod timers;

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const OURS: u32 = 64512;
const THEIRS: u32 = 64513;
/// Our router ID; the peer's is one larger or smaller.
const OUR_ID: u8 = 5;

/// A peer under test and what it has said.
struct Bench {
    peer: Peer,
    ids: Ids,
    now: Time,
    loc_rib: LocRib,
    dial: Option<ConnectionId>,
    /// How many connections have come up.
    opened: usize,
    closed: Vec<ConnectionId>,
    notifications: Vec<Code>,
    /// NOTIFICATIONs that are counted and not, or not any more, among these.
    noted_elsewhere: u64,
    keepalives: usize,
}

fn config() -> PeerConfig {
    let router_id = RouterId::new([10, 0, 0, OUR_ID].into()).unwrap();
    let peer_asn = PeerAsn::Exactly(Asn::new(THEIRS).unwrap());
    PeerConfig::new("router", "192.0.2.2".parse().unwrap(), router_id, Asn::new(OURS).unwrap(), peer_asn)
}

fn open_of(asn: u32, id: u8, hold_time: u16) -> BytesMut {
    let capabilities = Capabilities {
        multiprotocol: Family::ALL.to_vec(),
        four_octet_asn: Some(asn),
        route_refresh: true,
        ..Capabilities::default()
    };
    let router_id = RouterId::new([10, 0, 0, id].into()).unwrap();
    let hold_time = HoldTime::new(hold_time).unwrap();
    let mut bytes = BytesMut::new();
    wire::encode_open(&Open { asn, hold_time, router_id, capabilities }, &mut bytes);
    bytes
}

fn keepalive() -> BytesMut {
    let mut bytes = BytesMut::new();
    wire::encode_keepalive(&mut bytes);
    bytes
}

fn notification(code: Code) -> BytesMut {
    let mut bytes = BytesMut::new();
    wire::encode_notification(&Notification::new(code), &mut bytes);
    bytes
}

fn update() -> BytesMut {
    let mut bytes = BytesMut::new();
    let context = EncodeContext { four_octet_asn: true, max_length: wire::frame::MAX_LENGTH };
    let prefix: ipnet::IpNet = "198.51.100.0/24".parse().unwrap();
    wire::update::encode_unreach(Family::Ipv4Unicast, [prefix], &context, usize::MAX, &mut bytes);
    bytes
}

fn refresh() -> BytesMut {
    let mut bytes = BytesMut::new();
    wire::encode_route_refresh(
        &RouteRefresh { afi: 1, safi: 1, subtype: RefreshSubtype::Request },
        &mut bytes,
    );
    bytes
}

/// A message with one octet replaced.
fn broken(mut message: BytesMut, at: usize, octet: u8) -> BytesMut {
    message[at] = octet;
    message
}

impl Bench {
    fn new(config: PeerConfig) -> Bench {
        let now = Time::ZERO;
        Bench {
            peer: Peer::new(Arc::new(config), 1, None, now),
            ids: Ids::default(),
            now,
            loc_rib: LocRib::default(),
            dial: None,
            opened: 0,
            closed: Vec::new(),
            notifications: Vec::new(),
            noted_elsewhere: 0,
            keepalives: 0,
        }
    }

    /// A peer in a state, by the shortest way, over a connection that we have opened.
    fn in_state(state: State) -> Bench {
        let mut bench = Bench::new(config());
        if state > State::Idle {
            bench.start();
        }
        if state == Active {
            bench.dial_fails();
        }
        if state >= OpenSent {
            bench.dial_succeeds();
        }
        if state >= OpenConfirm {
            bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 90));
        }
        if state >= Established {
            bench.receive(Direction::Outgoing, &keepalive());
        }
        assert_eq!(bench.peer.state(), state);
        // A second loss, so that Idle lasts long enough to be seen.
        bench.peer.losses = 1;
        bench.forget_the_past();
        bench
    }

    /// From now on only what happens from now on is seen.
    fn forget_the_past(&mut self) {
        self.opened = self.peer.connections.iter().flatten().count();
        self.noted_elsewhere += self.notifications.len() as u64;
        (self.closed, self.notifications, self.keepalives) = (Vec::new(), Vec::new(), 0);
    }

    fn tell_bfd(&mut self, state: bfd::State, verdict: bfd::Verdict) {
        let report = bfd::Report { state, verdict, obstacle: None };
        self.peer.handle_bfd(report, &mut self.ids, self.now);
        self.settle();
    }

    fn reconfigure(&mut self, is_reset: bool, change: impl FnOnce(&mut PeerConfig)) {
        let mut config = PeerConfig::clone(self.peer.config());
        change(&mut config);
        self.peer.reconfigure(Arc::new(config), is_reset, &self.loc_rib, &mut self.ids, self.now);
        self.settle();
    }

    fn start(&mut self) {
        self.peer.start(&mut self.ids, self.now);
        self.settle();
    }

    fn dial_fails(&mut self) {
        let id = self.dial.take().unwrap();
        self.peer.handle_dialed(id, Err("refused".to_owned()), self.now);
        self.settle();
    }

    fn dial_succeeds(&mut self) {
        let id = self.dial.take().unwrap();
        self.opened += 1;
        self.peer.handle_dialed(id, Ok(LOCAL), self.now);
        self.settle();
    }

    fn accept(&mut self) -> bool {
        let id = self.ids.next();
        let admission = self.peer.handle_accepted(id, LOCAL, self.now);
        let is_taken = admission == Admission::Taken;
        self.opened += usize::from(is_taken);
        if admission == Admission::Collides {
            // The speaker says it, which has no connection for it.
            self.noted_elsewhere += 1;
        }
        self.settle();
        is_taken
    }

    fn receive(&mut self, direction: Direction, bytes: &[u8]) {
        if let Some(id) = self.peer.connection(direction).map(|connection| connection.id) {
            self.peer.handle_received(id, bytes, self.now);
        }
        self.settle();
    }

    fn tcp_fails(&mut self) {
        match self.peer.connection(Direction::Outgoing).map(|connection| connection.id) {
            Some(id) => self.peer.handle_closed(id, "reset".to_owned(), self.now),
            None if self.dial.is_some() => self.dial_fails(),
            None => {}
        }
        self.settle();
    }

    /// Lets a timer of the peer or of its own connection expire alone; nothing where it does not run.
    fn expire(&mut self, timer: Timer) {
        let connection = self.peer.connection_mut(Direction::Outgoing);
        let Some(event) = connection.and_then(|connection| connection.expire(timer, self.now)) else {
            if self.peer.timers.is_running(timer) {
                self.peer.timers = Timers::default();
                self.peer.timers.start(timer, self.now);
                self.peer.handle_timeout(&mut self.ids, self.now);
            }
            return self.settle();
        };
        self.peer.handle(Direction::Outgoing, event, self.now);
        self.peer.settle(self.now);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((_, bytes)) = self.peer.poll_transmit(&mut self.loc_rib, true, self.now) {
            self.read(&bytes);
        }
        for action in std::mem::take(&mut self.peer.actions) {
            match action {
                Action::Dial(id) => self.dial = Some(id),
                Action::Abort(id) => {
                    assert_eq!(self.dial.take(), Some(id), "only a dial under way is aborted");
                }
                Action::Close(id, farewell) => {
                    self.closed.push(id);
                    self.read(&farewell);
                }
                Action::Changed(_) => {}
            }
        }
        let counted = self.peer.status().notifications.sent.into_values().sum::<u64>();
        assert_eq!(
            counted - self.noted_elsewhere,
            self.notifications.len() as u64,
            "what was sent is counted"
        );
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while let Some(length) = wire::frame::next(bytes, wire::frame::MAX_LENGTH).unwrap() {
            match wire::decode(&bytes[..length], &wire::DecodeContext::default()).unwrap() {
                Received::Notification(notification) => self.notifications.push(notification.code()),
                Received::Keepalive => self.keepalives += 1,
                _ => {}
            }
            bytes = &bytes[length..];
        }
    }

    fn states(&self) -> [Option<State>; 2] {
        Direction::ALL.map(|direction| self.peer.connection(direction).map(Connection::state))
    }
}
