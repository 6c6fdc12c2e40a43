//! The FSM of RFC 4271 §8.2.2, state by state and event by event.

use std::array::repeat;

use super::{
    restarts::{bench as restartable, theirs},
    *,
};
use crate::bfd::{self, Diagnostic, Verdict};
use State::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};

type Column = (&'static str, fn() -> Bench);

/// What a peer is in when something happens: the states of RFC 4271 §8.2.2, and those kinds of them in which more has
/// been agreed on, or is known, than in the others.
const COLUMNS: [Column; 9] = [
    ("Idle", || Bench::in_state(Idle)),
    ("Idle for want of BFD (RFC 5882 §3.2)", || {
        let mut bench = Bench::in_state(Established);
        bench.tell_bfd(bfd::State::Down, EXPIRED);
        bench
    }),
    ("Connect", || Bench::in_state(Connect)),
    ("Active", || Bench::in_state(Active)),
    ("OpenSent", || Bench::in_state(OpenSent)),
    ("OpenConfirm", || Bench::in_state(OpenConfirm)),
    ("Established", || Bench::in_state(Established)),
    ("Established, routes stay over a restart (RFC 4724)", || restartable(theirs(false), Established)),
    ("Established, and over a NOTIFICATION (RFC 8538)", || restartable(theirs(true), Established)),
];

/// The next state, and the NOTIFICATION that goes out.
type Cell = (State, Option<Code>);

/// What happens, and what comes of it in each column.
type Row = (&'static str, fn(&mut Bench), [Cell; COLUMNS.len()]);

const EXPIRED: Verdict = Verdict::Failed(Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);

const fn to(state: State) -> Cell {
    (state, None)
}

const fn down(code: Code) -> Cell {
    (Idle, Some(code))
}

const I: Cell = to(Idle);
const C: Cell = to(Connect);
const A: Cell = to(Active);
const S: Cell = to(OpenSent);
const O: Cell = to(OpenConfirm);
const E: Cell = to(Established);

/// Where there is no connection yet nothing changes; where there is one, this.
fn connected<const N: usize>(cells: [Cell; N]) -> [Cell; COLUMNS.len()] {
    let mut row = [I, I, C, A, S, O, E, E, E];
    row[COLUMNS.len() - N..].copy_from_slice(&cells);
    row
}

/// The events of §8.1 by number. Not among them: 3 to 7 and 20, optional ones that are not used; 12, because
/// DelayOpen is off; 14 and 15, which are for the driver to decide.
fn events() -> Vec<Row> {
    use codes::{
        CEASE_CONNECTION_COLLISION as COLLISION, CONNECTION_NOT_SYNCHRONIZED as HEADER,
        FSM_UNEXPECTED_IN_ESTABLISHED as FSM3, FSM_UNEXPECTED_IN_OPEN_CONFIRM as FSM2,
        FSM_UNEXPECTED_IN_OPEN_SENT as FSM1, HOLD_TIMER_EXPIRED as HOLD, OPEN_UNSUPPORTED_VERSION as VERSION,
        SEND_HOLD_TIMER_EXPIRED as SEND_HOLD, UPDATE_MALFORMED_ATTRIBUTE_LIST as LIST,
    };
    const OUT: Direction = Direction::Outgoing;
    let unexpected = [down(FSM1), down(FSM2), down(FSM3), down(FSM3), down(FSM3)];
    let [fsm1, fsm2, fsm3, ..] = unexpected;
    vec![
        ("1 ManualStart", Bench::start, [C, C, C, A, S, O, E, E, E]),
        ("9 ConnectRetryTimer_Expires", |it| it.expire(Timer::ConnectRetry), [I, I, C, C, S, O, E, E, E]),
        ("10 HoldTimer_Expires", |it| it.expire(Timer::Hold), connected(repeat::<_, 5>(down(HOLD)))),
        ("11 KeepaliveTimer_Expires", |it| it.expire(Timer::Keepalive), connected([])),
        ("13 IdleHoldTimer_Expires", idle_hold_timer_expires, [C, C, C, A, S, O, E, E, E]),
        ("16 Tcp_CR_Acked", dial_under_way_succeeds, [I, I, S, A, S, O, E, E, E]),
        ("17 TcpConnectionConfirmed", accept_as_expected, [I, I, S, S, S, O, E, E, E]),
        (
            "17 and 19 there: the peer connects anew (RFC 4271 §6.8, RFC 4724 §4.2)",
            |it| {
                accept_as_expected(it);
                it.receive(Direction::Incoming, &open_of(THEIRS, OUR_ID + 1, 90));
            },
            [I, I, O, O, O, (OpenConfirm, Some(COLLISION)), E, O, O],
        ),
        ("18 TcpConnectionFails", Bench::tcp_fails, [I, I, A, A, A, I, I, I, I]),
        (
            "19 BGPOpen",
            |it| it.receive(OUT, &open_of(THEIRS, OUR_ID + 1, 90)),
            connected([O, fsm2, fsm3, fsm3, fsm3]),
        ),
        ("21 BGPHeaderErr", |it| it.receive(OUT, &[0; 19]), connected(repeat::<_, 5>(down(HEADER)))),
        (
            "22 BGPOpenMsgErr",
            |it| it.receive(OUT, &broken(open_of(THEIRS, OUR_ID + 1, 90), 19, 3)),
            connected([down(VERSION), down(VERSION), fsm3, fsm3, fsm3]),
        ),
        ("23 OpenCollisionDump", collision_dump, connected(repeat::<_, 5>((Active, Some(COLLISION))))),
        (
            "24 NotifMsgVerErr",
            |it| it.receive(OUT, &notification(codes::OPEN_UNSUPPORTED_VERSION)),
            connected([I; 5]),
        ),
        (
            "25 NotifMsg",
            |it| it.receive(OUT, &notification(codes::CEASE_ADMINISTRATIVE_RESET)),
            connected([I; 5]),
        ),
        ("26 KeepAliveMsg", |it| it.receive(OUT, &keepalive()), connected([fsm1, E, E, E, E])),
        ("27 UpdateMsg", |it| it.receive(OUT, &update()), connected([fsm1, fsm2, E, E, E])),
        (
            "28 UpdateMsgErr",
            |it| it.receive(OUT, &broken(update(), 20, 255)),
            connected([fsm1, fsm2, down(LIST), down(LIST), down(LIST)]),
        ),
        (
            "29 SendHoldTimer_Expires (RFC 9687)",
            |it| it.expire(Timer::SendHold),
            connected(repeat::<_, 5>(down(SEND_HOLD))),
        ),
        ("ROUTE-REFRESH (RFC 2918)", |it| it.receive(OUT, &refresh()), connected([fsm1, fsm2, E, E, E])),
    ]
}

/// What the operator wants (events 2 and 8, and another configuration).
fn administrative_events() -> Vec<Row> {
    use codes::{
        CEASE_ADMINISTRATIVE_RESET as RESET, CEASE_ADMINISTRATIVE_SHUTDOWN as SHUTDOWN,
        CEASE_HARD_RESET as HARD, CEASE_OTHER_CONFIGURATION_CHANGE as CHANGE,
    };
    let again = (Connect, Some(CHANGE));
    let (shutdown, reset) = (down(SHUTDOWN), down(RESET));
    vec![
        (
            "2 ManualStop",
            |it| {
                it.peer.stop(&Notification::new(codes::CEASE_ADMINISTRATIVE_SHUTDOWN), it.now);
                it.settle();
            },
            [I, I, I, I, shutdown, shutdown, shutdown, shutdown, down(HARD)],
        ),
        (
            "8 AutomaticStop, to come back",
            |it| {
                it.peer.pause(&Notification::new(codes::CEASE_ADMINISTRATIVE_RESET), it.now);
                it.settle();
            },
            // To a router that keeps routes over a lost connection alone nothing is said.
            [I, I, I, I, reset, reset, reset, I, reset],
        ),
        (
            "a configuration that needs a new session",
            |it| it.reconfigure(true, |_| {}),
            [C, C, C, C, again, again, again, C, again],
        ),
        (
            "a configuration that does not",
            |it| it.reconfigure(false, |config| config.bfd = Some(bfd::Config::default())),
            [I, I, C, C, S, O, E, E, E],
        ),
        (
            "a passive configuration",
            |it| {
                it.reconfigure(false, |config| {
                    (config.passive, config.bfd) = (true, Some(bfd::Config::default()));
                });
            },
            [I, I, A, A, S, O, E, E, E],
        ),
        (
            "a configuration without BFD",
            |it| it.reconfigure(false, |config| config.bfd = None),
            [I, C, C, C, S, O, E, E, E],
        ),
    ]
}

/// What BFD says of the path (RFC 5882).
fn path_events() -> Vec<Row> {
    use codes::{CEASE_BFD_DOWN as BFD, CEASE_HARD_RESET as HARD};
    vec![
        ("BFD Up", |it| it.tell_bfd(bfd::State::Up, Verdict::Works), [I, C, C, A, S, O, E, E, E]),
        (
            "BFD Down",
            |it| it.tell_bfd(bfd::State::Down, EXPIRED),
            // RFC 5882 §4.3.2.2: this is no restart, so nothing is to be kept.
            [I, I, I, I, down(BFD), down(BFD), down(BFD), down(BFD), down(HARD)],
        ),
        (
            "BFD AdminDown there (RFC 5882 §4.2)",
            |it| it.tell_bfd(bfd::State::Down, Verdict::Disabled),
            [I, C, C, A, S, O, E, E, E],
        ),
        (
            "BFD Down, and never Up before",
            |it| it.tell_bfd(bfd::State::Down, Verdict::Unknown),
            [I, I, C, A, S, O, E, E, E],
        ),
    ]
}

fn idle_hold_timer_expires(bench: &mut Bench) {
    if bench.peer.state() == Idle {
        bench.peer.timers.start(Timer::IdleHold, bench.now);
    }
    bench.expire(Timer::IdleHold);
}

fn dial_under_way_succeeds(bench: &mut Bench) {
    if bench.dial.is_some() {
        bench.dial_succeeds();
    }
}

fn accept_as_expected(bench: &mut Bench) {
    let is_expected = match bench.peer.state() {
        Idle => false,
        Established => bench.peer.may_restart(),
        _ => true,
    };
    assert_eq!(bench.accept(), is_expected);
}

fn collision_dump(bench: &mut Bench) {
    bench.peer.handle(Direction::Outgoing, Event::OpenCollisionDump, bench.now);
    bench.peer.settle(bench.now);
    bench.settle();
}

#[test]
fn every_event_in_every_state_does_what_the_rfcs_say() {
    let rows = [events(), administrative_events(), path_events()].concat();
    for (event, input, row) in rows {
        for ((before, make), (after, code)) in COLUMNS.into_iter().zip(row) {
            let mut bench = make();
            // A second loss, so that Idle lasts long enough to be seen.
            bench.peer.losses = 1;
            bench.forget_the_past();
            input(&mut bench);
            assert_eq!(bench.peer.state(), after, "{event} in {before}");
            assert_eq!(bench.notifications.first().copied(), code, "NOTIFICATION of {event} in {before}");
            let left = bench.peer.connections.iter().flatten().count();
            assert_eq!(bench.opened - bench.closed.len(), left, "connections after {event} in {before}");
            let is_stopped = event.contains("Stop") || (before, after) == ("Idle", Idle);
            let is_waiting = bench.peer.poll_timeout().is_some();
            let is_listening = bench.peer.config().passive && after == Active;
            assert!(
                is_waiting || is_stopped || is_listening,
                "nothing would ever happen after {event} in {before}"
            );
        }
    }
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

#[test]
fn a_message_of_more_than_4096_octets_is_taken_behind_the_open_rfc_8654_section_4() {
    let mut long = notification(codes::CEASE_ADMINISTRATIVE_RESET);
    long.resize(5000, 0);
    long[16..18].copy_from_slice(&5000_u16.to_be_bytes());
    for state in [OpenConfirm, Established] {
        let mut bench = Bench::in_state(state);
        bench.receive(Direction::Outgoing, &long);
        assert_eq!((bench.peer.state(), bench.notifications.as_slice()), (Idle, &[][..]), "{state}");
    }
    let mut bench = Bench::in_state(OpenSent);
    bench.receive(Direction::Outgoing, &long);
    assert_eq!(bench.notifications, [codes::BAD_MESSAGE_LENGTH]);
}

#[test]
fn a_malformed_attribute_costs_the_routes_and_not_the_session() {
    // RFC 7606 §7.1: ORIGIN of value 9, in an UPDATE with one prefix.
    let mut bytes = BytesMut::new();
    let context = EncodeContext { four_octet_asn: true, max_length: wire::frame::MAX_LENGTH };
    let next_hop = crate::attributes::NextHop::V4("192.0.2.2".parse().unwrap());
    let attributes = crate::attributes::Attributes { as_path: vec![THEIRS], ..Default::default() };
    let prefix: ipnet::IpNet = "198.51.100.0/24".parse().unwrap();
    let family = Family::Ipv4Unicast;
    wire::update::encode_reach(family, &next_hop, &attributes, [prefix], &context, usize::MAX, &mut bytes)
        .unwrap();
    let origin = bytes.windows(3).position(|octets| octets == [0x40, 1, 1]).unwrap();
    let mut bench = Bench::in_state(Established);
    bench.receive(Direction::Outgoing, &broken(bytes.clone(), origin + 3, 9));
    let first = bench.peer.status();
    assert_eq!((first.state, first.received), (Established, [0, 0]));
    assert!(first.last_error.as_ref().unwrap().starts_with("malformed UPDATE received: "));
    // Faults that differ are not something new each time.
    for value in [5, 6, 7, 8] {
        bench.receive(Direction::Outgoing, &broken(bytes.clone(), origin + 3, value));
        assert_eq!(bench.peer.status(), first);
    }
    bench.now = bench.now + Duration::from_secs(60);
    bench.receive(Direction::Outgoing, &broken(bytes, origin + 3, 7));
    let later = bench.peer.status().last_error.unwrap();
    assert!(later.ends_with("(and 4 more before)"), "{later}");
}
