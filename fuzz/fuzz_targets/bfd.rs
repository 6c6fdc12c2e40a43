//! BFD packets, and a session fed with them while time passes. The input is a list of records: an octet that says
//! what happens and how much time passes before, and behind some of them a packet of 24 octets.
#![no_main]

use std::{num::{NonZeroU8, NonZeroU32}, time::Duration};

use bgp::{
    bfd::{Config, Packet, Session, packet::LENGTH},
    types::Time,
};
use libfuzzer_sys::fuzz_target;

const OURS: NonZeroU32 = NonZeroU32::new(5).expect("not 0");

fuzz_target!(|input: &[u8]| {
    if let Ok(packet) = Packet::decode(input) {
        assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }
    let Some((&choice, mut rest)) = input.split_first() else { return };
    let mut now = Time::ZERO;
    let mut session = Session::new(config(choice), OURS, u64::from(choice), now);
    while let Some((&what, behind)) = rest.split_first() {
        rest = behind;
        now = now + Duration::from_millis(1 << (what >> 4));
        match what & 3 {
            0 => session.handle_timeout(now),
            1 => session.configure(config(what)),
            2 if what & 0x0c == 0x0c => session.disable(),
            _ => {
                let Some((octets, behind)) = rest.split_first_chunk::<LENGTH>() else { return };
                rest = behind;
                if let Ok(packet) = Packet::decode(octets) {
                    session.handle_received(&packet, now);
                }
            }
        }
        drain(&mut session, now);
    }
});

fn config(choice: u8) -> Config {
    let interval = |bits: u8| Duration::from_millis(u64::from(bits) * 250);
    Config {
        transmit_interval: interval(choice & 7),
        receive_interval: interval(choice >> 3 & 7),
        detect_mult: NonZeroU8::MIN.saturating_add(choice >> 6),
        passive: choice & 0x40 != 0,
        ..Config::default()
    }
}

/// What there is to send now is little, and the session does not want to be called for nothing.
fn drain(session: &mut Session, now: Time) {
    for _ in 0..3 {
        session.handle_timeout(now);
        match session.poll_transmit(now) {
            Some(packet) => assert_eq!(Packet::decode(&packet.encode()), Ok(packet)),
            None => {
                assert!(session.poll_timeout().is_none_or(|at| at > now), "it would be called for ever");
                return;
            }
        }
    }
    assert!(session.poll_transmit(now).is_none(), "it does not end to send");
}
