//! The FSM of RFC 4271 §8.2.2, state by state and event by event.

use super::*;
use State::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};

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
    let prefix = "198.51.100.0/24".parse().unwrap();
    let family = Family::Ipv4Unicast;
    wire::update::encode_reach(family, &next_hop, &attributes, [prefix], &context, usize::MAX, &mut bytes)
        .unwrap();
    let origin = bytes.windows(3).position(|octets| octets == [0x40, 1, 1]).unwrap();
    let mut bench = Bench::in_state(Established);
    bench.receive(Direction::Outgoing, &broken(bytes, origin + 3, 9));
    let status = bench.peer.status();
    assert_eq!((status.state, status.received), (Established, [0, 0]));
    assert!(status.last_error.unwrap().starts_with("malformed UPDATE received: "));
}
