//! The FSM of RFC 4271 §8.2.2, state by state and event by event, and collisions of two connections (§6.8).

use super::*;
use crate::{
    capabilities::Capabilities,
    config::PeerAsn,
    message::{Open, RefreshSubtype, RouteRefresh},
    notification::{self as codes, Code},
    types::{Asn, Family, HoldTime},
    wire::{self, EncodeContext, Received},
};
use State::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};

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
    closed: Vec<ConnectionId>,
    notifications: Vec<Code>,
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
    let prefix = "198.51.100.0/24".parse().unwrap();
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
            peer: Peer::new(Arc::new(config), 1, now),
            ids: Ids::default(),
            now,
            loc_rib: LocRib::default(),
            dial: None,
            closed: Vec::new(),
            notifications: Vec::new(),
            keepalives: 0,
        }
    }

    /// A peer in a state, by the shortest way, over a connection that we have opened.
    fn in_state(state: State) -> Bench {
        let mut bench = Bench::new(config());
        if state > Idle {
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
        (bench.closed, bench.notifications, bench.keepalives) = (Vec::new(), Vec::new(), 0);
        bench
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
        self.peer.handle_dialed(id, Ok(LOCAL), self.now);
        self.settle();
    }

    fn accept(&mut self) -> bool {
        let id = self.ids.next();
        let is_taken = self.peer.handle_accepted(id, LOCAL, self.now);
        self.settle();
        is_taken
    }

    fn receive(&mut self, direction: Direction, bytes: &[u8]) {
        if let Some(id) = self.peer.connection(direction).map(|connection| connection.id) {
            self.peer.handle_received(id, bytes, &self.loc_rib, self.now);
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

/// The events of §8.1 by number. Not among them: 3 to 7 and 20, optional ones that are not used; 12, because
/// DelayOpen is off; 14 and 15, which are for the driver to decide.
type Input = (&'static str, fn(&mut Bench));

const INPUTS: [Input; 19] = [
    ("1 ManualStart", Bench::start),
    ("2 ManualStop", |bench| {
        bench.peer.stop(&Notification::new(codes::CEASE_ADMINISTRATIVE_SHUTDOWN), bench.now);
        bench.settle();
    }),
    ("9 ConnectRetryTimer_Expires", |bench| bench.expire(Timer::ConnectRetry)),
    ("10 HoldTimer_Expires", |bench| bench.expire(Timer::Hold)),
    ("11 KeepaliveTimer_Expires", |bench| bench.expire(Timer::Keepalive)),
    ("13 IdleHoldTimer_Expires", |bench| {
        if bench.peer.state() == Idle {
            bench.peer.timers.start(Timer::IdleHold, bench.now);
        }
        bench.expire(Timer::IdleHold);
    }),
    ("16 Tcp_CR_Acked", |bench| {
        if bench.dial.is_some() {
            bench.dial_succeeds();
        }
    }),
    ("17 TcpConnectionConfirmed", |bench| {
        let is_expected = !matches!(bench.peer.state(), Idle | Established);
        assert_eq!(bench.accept(), is_expected);
    }),
    ("18 TcpConnectionFails", Bench::tcp_fails),
    ("19 BGPOpen", |bench| bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 90))),
    ("21 BGPHeaderErr", |bench| bench.receive(Direction::Outgoing, &[0; 19])),
    ("22 BGPOpenMsgErr", |bench| {
        bench.receive(Direction::Outgoing, &broken(open_of(THEIRS, OUR_ID + 1, 90), 19, 3));
    }),
    ("23 OpenCollisionDump", |bench| {
        bench.peer.handle(Direction::Outgoing, Event::OpenCollisionDump, bench.now);
        bench.peer.settle(bench.now);
        bench.settle();
    }),
    ("24 NotifMsgVerErr", |bench| {
        bench.receive(Direction::Outgoing, &notification(codes::OPEN_UNSUPPORTED_VERSION));
    }),
    ("25 NotifMsg", |bench| {
        bench.receive(Direction::Outgoing, &notification(codes::CEASE_ADMINISTRATIVE_RESET));
    }),
    ("26 KeepAliveMsg", |bench| bench.receive(Direction::Outgoing, &keepalive())),
    ("27 UpdateMsg", |bench| bench.receive(Direction::Outgoing, &update())),
    ("28 UpdateMsgErr", |bench| bench.receive(Direction::Outgoing, &broken(update(), 20, 255))),
    ("ROUTE-REFRESH", |bench| bench.receive(Direction::Outgoing, &refresh())),
];

/// The states of the columns below.
const COLUMNS: [State; 6] = [Idle, Connect, Active, OpenSent, OpenConfirm, Established];

type Cell = (State, Option<Code>);

/// By event (rows) and state (columns): the next state, and the NOTIFICATION that goes out.
fn table() -> [[Cell; 6]; 19] {
    use codes::{
        CEASE_ADMINISTRATIVE_SHUTDOWN as CEASE, CEASE_CONNECTION_COLLISION as COLLISION,
        CONNECTION_NOT_SYNCHRONIZED as HEADER, FSM_UNEXPECTED_IN_ESTABLISHED as FSM3,
        FSM_UNEXPECTED_IN_OPEN_CONFIRM as FSM2, FSM_UNEXPECTED_IN_OPEN_SENT as FSM1,
        HOLD_TIMER_EXPIRED as HOLD, OPEN_UNSUPPORTED_VERSION as VERSION,
        UPDATE_MALFORMED_ATTRIBUTE_LIST as LIST,
    };
    let to = |state| (state, None);
    let down = |code| (Idle, Some(code));
    let (idle, connect, active) = (to(Idle), to(Connect), to(Active));
    let (sent, confirm, established) = (to(OpenSent), to(OpenConfirm), to(Established));
    [
        [connect, connect, active, sent, confirm, established],
        [idle, idle, idle, down(CEASE), down(CEASE), down(CEASE)],
        [idle, connect, connect, sent, confirm, established],
        [idle, connect, active, down(HOLD), down(HOLD), down(HOLD)],
        [idle, connect, active, sent, confirm, established],
        [connect, connect, active, sent, confirm, established],
        [idle, sent, active, sent, confirm, established],
        [idle, sent, sent, sent, confirm, established],
        [idle, active, active, active, idle, idle],
        [idle, connect, active, confirm, down(FSM2), down(FSM3)],
        [idle, connect, active, down(HEADER), down(HEADER), down(HEADER)],
        [idle, connect, active, down(VERSION), down(VERSION), down(FSM3)],
        [
            idle,
            connect,
            active,
            (Active, Some(COLLISION)),
            (Active, Some(COLLISION)),
            (Active, Some(COLLISION)),
        ],
        [idle, connect, active, idle, idle, idle],
        [idle, connect, active, idle, idle, idle],
        [idle, connect, active, down(FSM1), established, established],
        [idle, connect, active, down(FSM1), down(FSM2), established],
        [idle, connect, active, down(FSM1), down(FSM2), down(LIST)],
        [idle, connect, active, down(FSM1), down(FSM2), established],
    ]
}

#[test]
fn every_event_in_every_state_does_what_the_rfc_says() {
    for ((name, input), row) in INPUTS.iter().zip(table()) {
        for (before, (after, code)) in COLUMNS.into_iter().zip(row) {
            let mut bench = Bench::in_state(before);
            input(&mut bench);
            assert_eq!(bench.peer.state(), after, "event {name} in {before}");
            assert_eq!(
                bench.notifications.first().copied(),
                code,
                "NOTIFICATION of event {name} in {before}"
            );
            let is_lost = before >= OpenSent && after < OpenSent;
            assert_eq!(bench.closed.len(), usize::from(is_lost), "connections closed by {name} in {before}");
            if *name != "2 ManualStop" && (before, after) != (Idle, Idle) {
                let is_waiting = bench.peer.poll_timeout().is_some();
                assert!(is_waiting, "nothing would ever happen after {name} in {before}");
            }
        }
    }
}

#[test]
fn the_keepalive_timer_sends_a_keepalive_and_goes_on() {
    for state in [OpenConfirm, Established] {
        let mut bench = Bench::in_state(state);
        for count in 1..4 {
            bench.expire(Timer::Keepalive);
            assert_eq!(bench.keepalives, count);
        }
    }
}

#[test]
fn a_silent_peer_after_open_is_given_up_after_four_minutes() {
    let mut bench = Bench::in_state(OpenSent);
    bench.now = Time::ZERO + Duration::from_secs(239);
    bench.peer.handle_timeout(&mut bench.ids, bench.now);
    assert_eq!(bench.peer.state(), OpenSent);
    bench.now = Time::ZERO + Duration::from_secs(240);
    bench.peer.handle_timeout(&mut bench.ids, bench.now);
    bench.settle();
    assert_eq!(
        (bench.peer.state(), bench.notifications.as_slice()),
        (Idle, &[codes::HOLD_TIMER_EXPIRED][..])
    );
    assert!(bench.peer.status().last_error.unwrap().contains("nothing came from the peer"));
}

#[test]
fn the_smaller_hold_time_runs_and_keepalives_come_three_times_as_often() {
    let mut bench = Bench::in_state(OpenSent);
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 9));
    bench.receive(Direction::Outgoing, &keepalive());
    assert_eq!(bench.peer.status().hold_time, HoldTime::new(9));
    let next = bench.peer.poll_timeout().unwrap().since(bench.now);
    assert!((2250..=3000).contains(&next.as_millis()), "{next:?}");
    bench.now = Time::ZERO + Duration::from_secs(9);
    bench.peer.handle_timeout(&mut bench.ids, bench.now);
    bench.settle();
    assert_eq!(bench.notifications, [codes::HOLD_TIMER_EXPIRED]);
}

#[test]
fn hold_time_zero_means_no_hold_timer_and_no_keepalives() {
    let mut bench = Bench::in_state(OpenSent);
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 0));
    bench.receive(Direction::Outgoing, &keepalive());
    assert_eq!(bench.peer.state(), Established);
    assert_eq!(bench.keepalives, 1, "the one that confirms the OPEN");
    // What has been sent is taken, so that not even the send hold timer runs.
    let connection = bench.peer.connection_mut(Direction::Outgoing).unwrap();
    connection.transmitted(usize::MAX, bench.now);
    assert_eq!(bench.peer.poll_timeout(), None);
}

#[test]
fn a_socket_that_takes_nothing_loses_the_session_after_the_send_hold_time() {
    let mut bench = Bench::in_state(Established);
    for secs in (0..500).step_by(20) {
        bench.now = Time::ZERO + Duration::from_secs(secs);
        bench.receive(Direction::Outgoing, &keepalive());
        bench.peer.handle_timeout(&mut bench.ids, bench.now);
        bench.settle();
        assert_eq!(bench.notifications.is_empty(), secs < 480, "at {secs} s");
    }
    assert_eq!(bench.notifications, [codes::SEND_HOLD_TIMER_EXPIRED]);
}

#[test]
fn a_wrong_as_is_refused_in_words() {
    for (asn, name) in [(64999, "AS 64999"), (THEIRS + 65_536, "AS 130049")] {
        let mut bench = Bench::in_state(OpenSent);
        bench.receive(Direction::Outgoing, &open_of(asn, OUR_ID + 1, 90));
        assert_eq!(bench.notifications, [codes::OPEN_BAD_PEER_AS]);
        let error = bench.peer.status().last_error.unwrap();
        assert!(error.contains(name) && error.contains("AS 64513 is configured"), "{error}");
    }
}

#[test]
fn each_loss_without_a_stable_session_doubles_the_idle_hold_time() {
    let mut bench = Bench::new(config());
    bench.start();
    let mut idle = Vec::new();
    for _ in 0..9 {
        bench.dial_succeeds();
        bench.receive(Direction::Outgoing, &notification(codes::CEASE_ADMINISTRATIVE_SHUTDOWN));
        let until = bench.peer.poll_timeout().unwrap();
        idle.push(until.since(bench.now).as_secs_f64());
        bench.now = until;
        bench.peer.handle_timeout(&mut bench.ids, bench.now);
        bench.settle();
    }
    let full = [0., 1., 2., 4., 8., 16., 32., 60., 60.];
    assert!(idle.iter().zip(full).all(|(got, full)| (full * 0.75..=full).contains(got)), "{idle:?}");
}

#[test]
fn a_stable_session_takes_the_idle_hold_back() {
    let mut bench = Bench::in_state(Established);
    bench.peer.losses = 5;
    bench.now = Time::ZERO + Duration::from_secs(61);
    bench.tcp_fails();
    assert_eq!(bench.peer.poll_timeout(), Some(bench.now));
    assert_eq!(bench.peer.status().flaps, 1);
}

#[test]
fn a_passive_peer_never_dials_and_takes_connections() {
    let mut bench = Bench::new(PeerConfig { passive: true, ..config() });
    bench.start();
    assert_eq!((bench.peer.state(), bench.dial), (Active, None));
    assert!(!bench.peer.timers.is_running(Timer::ConnectRetry));
    assert!(bench.accept());
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID + 1, 90));
    bench.receive(Direction::Incoming, &keepalive());
    assert_eq!(bench.peer.state(), Established);
}

/// Both connections are in OpenSent.
fn collision() -> Bench {
    let mut bench = Bench::in_state(Connect);
    assert!(bench.accept());
    bench.dial_succeeds();
    assert_eq!(bench.states(), [Some(OpenSent), Some(OpenSent)]);
    bench
}

#[test]
fn of_two_connections_that_of_the_larger_identifier_lives_whichever_opens_first() {
    for (their_id, winner) in [(OUR_ID + 1, Direction::Incoming), (OUR_ID - 1, Direction::Outgoing)] {
        for first in Direction::ALL {
            let mut bench = collision();
            bench.receive(first, &open_of(THEIRS, their_id, 90));
            bench.receive(first.other(), &open_of(THEIRS, their_id, 90));
            let states = bench.states();
            assert_eq!(states[winner as usize], Some(OpenConfirm), "ID {their_id}, first {first:?}");
            assert_eq!(states[winner.other() as usize], None, "ID {their_id}, first {first:?}");
            assert_eq!(bench.notifications, [codes::CEASE_CONNECTION_COLLISION]);
        }
    }
}

#[test]
fn equal_identifiers_are_decided_by_the_as_number() {
    // RFC 6286 §2.3: the peer's AS is the larger one.
    let mut bench = collision();
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID, 90));
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID, 90));
    assert_eq!(bench.states(), [None, Some(OpenConfirm)]);
}

#[test]
fn the_loser_of_a_collision_is_never_confirmed() {
    let mut bench = collision();
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID + 1, 90));
    assert_eq!(bench.keepalives, 1);
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 90));
    assert_eq!(bench.keepalives, 1, "a KEEPALIVE would bring up at the peer what is closed next");
}

#[test]
fn an_established_session_wins_over_a_connection_with_the_better_identifier() {
    let mut bench = collision();
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 90));
    bench.receive(Direction::Outgoing, &keepalive());
    assert_eq!(bench.states(), [Some(Established), None], "the other one is closed at once");
    assert_eq!(bench.notifications, [codes::CEASE_CONNECTION_COLLISION]);
    assert!(!bench.accept(), "and no new one is taken");
}

#[test]
fn a_confirmed_winner_aborts_the_dial_under_way() {
    let mut bench = Bench::in_state(Connect);
    bench.accept();
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID + 1, 90));
    assert_eq!(bench.dial, None);
    let mut bench = Bench::in_state(Connect);
    bench.accept();
    bench.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID - 1, 90));
    assert!(bench.dial.is_some(), "our own connection would win");
}

#[test]
fn a_newer_connection_of_the_peer_takes_the_place_of_its_older_one() {
    let mut bench = Bench::in_state(Active);
    assert!(bench.accept());
    let older = bench.peer.connection(Direction::Incoming).unwrap().id;
    assert!(bench.accept());
    assert_eq!((bench.closed.as_slice(), bench.peer.state()), (&[older][..], OpenSent));
}

#[test]
fn the_loss_of_one_connection_leaves_the_other_alone() {
    let mut bench = collision();
    bench.receive(Direction::Incoming, &notification(codes::CEASE_CONNECTION_REJECTED));
    assert_eq!(bench.states(), [Some(OpenSent), None]);
    bench.receive(Direction::Outgoing, &open_of(THEIRS, OUR_ID + 1, 90));
    bench.receive(Direction::Outgoing, &keepalive());
    assert_eq!(bench.peer.state(), Established);
}

#[test]
fn a_stopped_peer_refuses_connections_and_forgets_its_dial() {
    let mut bench = Bench::in_state(Connect);
    bench.peer.stop(&Notification::new(codes::CEASE_PEER_DECONFIGURED), bench.now);
    bench.settle();
    assert_eq!((bench.peer.state(), bench.dial, bench.peer.poll_timeout()), (Idle, None, None));
    assert!(!bench.accept());
}

#[test]
fn a_message_in_pieces_is_put_together() {
    let mut bench = Bench::in_state(OpenSent);
    for octet in open_of(THEIRS, OUR_ID + 1, 90).iter().chain(&keepalive()) {
        bench.receive(Direction::Outgoing, &[*octet]);
    }
    assert_eq!(bench.peer.state(), Established);
}
