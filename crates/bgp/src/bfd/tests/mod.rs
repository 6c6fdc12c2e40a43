//! The rules of RFC 5880 §6.8 one by one, which packet is for which session, and two ends in a network with loss.

mod demultiplexing;
mod network;
mod rules;

use std::{
    collections::BTreeMap,
    num::{NonZeroU8, NonZeroU32},
};

use super::{session::Session, *};
use crate::{fsm::timers::Jitter, types::Time};

/// So many milliseconds after the start.
fn ms(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn config(transmit: u64, receive: u64, detect_mult: u8) -> Config {
    Config {
        transmit_interval: Duration::from_millis(transmit),
        receive_interval: Duration::from_millis(receive),
        detect_mult: NonZeroU8::new(detect_mult).unwrap(),
        ..Config::default()
    }
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// A packet of the other side, which calls the session 9 and knows that we call it 5.
fn packet(state: State) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: number(9),
        your_discriminator: Some(number(5)),
        desired_min_tx: 100_000,
        required_min_rx: 100_000,
        required_min_echo_rx: 0,
    }
}

fn session(config: Config) -> Session {
    Session::new(config, number(5), 42, Time::ZERO)
}

/// A session that is Up since `now`, its Poll Sequence answered.
fn up(config: Config, now: Time) -> Session {
    let mut session = session(config);
    session.handle_received(&packet(State::Init), now);
    session.handle_received(&Packet { is_final: true, ..packet(State::Up) }, now);
    assert_eq!(session.report(), Report { state: State::Up, verdict: Verdict::Works, obstacle: None });
    while session.poll_transmit(now).is_some() {}
    session
}

/// What it sends until `end`, with the times.
fn sent(session: &mut Session, end: Time) -> Vec<(Time, Packet)> {
    let mut sent = Vec::new();
    while let Some(at) = session.poll_timeout().filter(|at| *at <= end) {
        session.handle_timeout(at);
        sent.extend(session.poll_transmit(at).map(|packet| (at, packet)));
    }
    sent
}
