//! Heartbeats, and a group fed with them while time passes. The input is a list of records: an octet that says what
//! happens and how much time passes before, and behind some of them octets behind their length. Most are signed as a
//! member would, so that the time goes into what is behind the tag.
#![no_main]

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use heartbeat::{
    Config, Event, Group, Id, Keys, Local, MAX_PAYLOAD, Name, Time,
    testing::sign,
    wire::{Binding, Datagram, HEADER_OCTETS, Header, MAX_OCTETS, Parts},
};
use libfuzzer_sys::fuzz_target;

const SUBNET: &str = "192.0.2.0/24";
const BOOT: u64 = 77;

fuzz_target!(|input: &[u8]| {
    let keys = Keys::parse(b"the key of the fuzz target").expect("it is long enough");
    let _ = Header::peek(input);
    let binding = Binding { group: SUBNET, sender: "a", receiver: "us" };
    assert!(Datagram::decode(input, &keys, binding).is_err(), "nobody has signed it");
    let mut now = Time::from_micros(1_000_000);
    let mut group = group(keys.clone(), now);
    let mut sequence = 0;
    let mut rest = input;
    while let Some((&what, behind)) = rest.split_first() {
        rest = behind;
        now = now + Duration::from_millis(1 << (what >> 4));
        match what & 7 {
            0 | 1 => group.handle_timeout(now),
            2 => group.set_members(&members(what >> 3), now),
            3 => group.set_ready(what & 8 != 0, now),
            4 => drop(group.send("a", input.get(..usize::from(what) * 8).unwrap_or_default(), now)),
            5 if what >> 3 == 31 => group.leave(now),
            _ => {
                let Some((&length, behind)) = rest.split_first() else { return };
                let (octets, behind) = behind.split_at(behind.len().min(usize::from(length)));
                rest = behind;
                let sender = if what & 8 == 0 { "a" } else { "b" };
                sequence += 1;
                let octets = signed(octets, what & 7 == 7, sequence, sender, &keys);
                let _ = group.handle_datagram(address(sender), &octets, now);
            }
        }
        drain(&mut group, now, &keys);
    }
});

fn group(keys: Keys, now: Time) -> Group {
    let config = Config::new(Duration::from_millis(100), 5, keys).expect("the defaults can work");
    let local = Local {
        group: SUBNET.to_owned(),
        name: "us".into(),
        address: address("us"),
        mac: [2; 6],
        boot: BOOT,
    };
    let mut group = Group::new(config, local, now, 1);
    group.set_members(&members(3), now);
    group
}

/// Bits say who is one.
fn members(which: u8) -> BTreeMap<Name, SocketAddr> {
    let names = ["a", "b", "c", "d", "us"].into_iter().enumerate();
    let members = names.filter(|(bit, _)| which >> bit & 1 != 0);
    members.map(|(_, name)| (Name::from(name), address(name))).collect()
}

fn address(name: &str) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, name.as_bytes()[0]], 7934))
}

/// A header of the octets and parts of the octets, or a good header in front of parts of the octets.
fn signed(octets: &[u8], is_raw: bool, sequence: u64, sender: &str, keys: &Keys) -> Vec<u8> {
    let binding = Binding { group: SUBNET, sender, receiver: "us" };
    if is_raw {
        return sign(octets.to_vec(), keys, binding);
    }
    let (first, parts) = octets.split_first().unwrap_or((&0, &[]));
    let header = Header {
        is_ready: first & 1 != 0,
        is_leaving: first & 2 != 0,
        wants_answer: first & 4 != 0,
        group: group_octets(),
        sender: Id::of(sender),
        boot: u64::from(first >> 5),
        echo: if first & 8 == 0 { BOOT } else { 0 },
        sequence,
        incarnation: u32::from(first >> 4 & 1),
        mac: [3; 6],
        interval_millis: u16::from(*first),
        multiplier: first >> 4,
    };
    let mut said = Datagram { header, parts: Parts::default() }.encode(keys, binding);
    said.truncate(HEADER_OCTETS);
    said.extend_from_slice(parts);
    sign(said, keys, binding)
}

/// As the group itself writes it.
fn group_octets() -> [u8; 4] {
    let hash = Id::of(SUBNET).0;
    [hash[0], hash[1], hash[2], hash[3]]
}

/// What there is to send now is little and can be read, and the group does not want to be called for nothing.
fn drain(group: &mut Group, now: Time, keys: &Keys) {
    for _ in 0..4 {
        let sent = std::iter::from_fn(|| group.poll_transmit()).map(|(to, octets)| {
            assert!(octets.len() <= MAX_OCTETS);
            let receiver = ["a", "b", "c", "d"].into_iter().find(|name| address(name) == to).expect("a member");
            let binding = Binding { group: SUBNET, sender: "us", receiver };
            Datagram::decode(&octets, keys, binding).expect("what it writes can be read");
        });
        assert!(sent.count() < 64, "it does not end to send");
        while let Some(event) = group.poll_event() {
            if let Event::Payload { octets, .. } = event {
                assert!(octets.len() <= MAX_PAYLOAD * 2);
            }
        }
        if group.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        group.handle_timeout(now);
    }
    panic!("it would be called for ever");
}
