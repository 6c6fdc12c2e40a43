//! Frames against the RFCs, octet by octet, and against octets of any kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{Heard, Kind, frame};
use crate::mac::Mac;

/// What makes a frame invalid, and how.
type Break = (&'static str, fn(&mut Vec<u8>));

const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x0a]);
const OTHER: Mac = Mac([0x02, 0, 0, 0, 0, 0x0b]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn heard(address: &str, mac: Mac, kind: Kind) -> Option<Heard> {
    Some(Heard { address: ip(address), mac, kind })
}

#[test]
fn rfc_5227_an_arp_announcement_has_the_address_as_sender_and_as_target() {
    let frames = frame::announcements(MAC, ip("192.0.2.1"), true);
    let request = octets(
        "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001
         02000000000a c0000201 000000000000 c0000201",
    );
    // RFC 5944 §4.6: a reply has the new address as target hardware address, too.
    let reply = octets(
        "ffffffffffff 02000000000a 0806 0001 0800 06 04 0002
         02000000000a c0000201 02000000000a c0000201",
    );
    assert_eq!(frames, [request, reply]);
}

#[test]
fn rfc_5227_an_arp_probe_has_no_sender_address() {
    let expected = octets(
        "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001
         02000000000a 00000000 000000000000 c0000201",
    );
    assert_eq!(frame::probe(MAC, ip("192.0.2.1")), expected);
}

#[test]
fn rfc_4861_an_unsolicited_advertisement_goes_to_all_nodes_with_override_and_the_mac() {
    let frames = frame::announcements(MAC, ip("2001:db8::1"), false);
    let expected = octets(
        "333300000001 02000000000a 86dd 60000000 0020 3a ff
         20010db8000000000000000000000001 ff020000000000000000000000000001
         88 00 f921 20000000 20010db8000000000000000000000001 02 01 02000000000a",
    );
    assert_eq!(frames, [expected]);
    let [of_router] = &frame::announcements(MAC, ip("2001:db8::1"), true)[..] else { panic!("one frame") };
    assert_eq!(of_router[58], 0xa0, "Router and Override");
    assert_eq!(frame::read(of_router), heard("2001:db8::1", MAC, Kind::Announcement));
}

#[test]
fn rfc_4862_a_probe_comes_from_nobody_and_goes_to_the_solicited_node_group() {
    let expected = octets(
        "3333ff345678 02000000000a 86dd 60000000 0018 3a ff
         00000000000000000000000000000000 ff0200000000000000000001ff345678
         87 00 8d96 00000000 20010db8000000000000000012345678",
    );
    assert_eq!(frame::probe(MAC, ip("2001:db8::1234:5678")), expected);
}

#[test]
fn what_is_sent_is_heard_by_others_for_what_it_is() {
    for address in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(frame::read(&frame::probe(MAC, ip(address))), heard(address, MAC, Kind::Probe));
        for frame in frame::announcements(MAC, ip(address), false) {
            assert_eq!(frame::read(&frame), heard(address, MAC, Kind::Announcement));
        }
    }
    let answer = frame::answer(MAC, ip("192.0.2.1"), OTHER, false);
    assert_eq!(answer[..6], OTHER.0, "to the prober alone");
    assert_eq!(frame::read(&answer), heard("192.0.2.1", MAC, Kind::Answer));
    // RFC 4861 §7.2.4: the prober has no address, so all nodes are told.
    let answer = frame::answer(MAC, ip("2001:db8::1"), OTHER, false);
    assert_eq!(frame::read(&answer), heard("2001:db8::1", MAC, Kind::Announcement));
}

#[test]
fn an_ordinary_question_claims_nothing() {
    let mut question = frame::probe(MAC, ip("192.0.2.1"));
    question[28..32].copy_from_slice(&[192, 0, 2, 7]);
    assert_eq!(frame::read(&question), None);
}

/// A solicited answer, as a kernel gives it to a host that has an address.
fn solicited() -> Vec<u8> {
    octets(
        "02000000000b 02000000000a 86dd 60000000 0020 3a ff
         20010db8000000000000000000000001 20010db8000000000000000000000002
         88 00 8a6a 60000000 20010db8000000000000000000000001 02 01 02000000000a",
    )
}

/// With the checksum that is right for what else is in it.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[56..58].copy_from_slice(&[0, 0]);
    let length = u32::try_from(frame.len() - 54).unwrap().to_be_bytes();
    let mut all = frame[22..54].to_vec();
    all.extend(length);
    all.extend([0, 0, 0, 58]);
    all.extend(&frame[54..]);
    if all.len() % 2 == 1 {
        all.push(0);
    }
    let mut sum: u32 = all.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn rfc_4861_section_7_1_2_advertisements_that_are_not_valid_are_not_heard() {
    assert_eq!(frame::read(&solicited()), heard("2001:db8::1", MAC, Kind::Answer));
    let breaks: [Break; 7] = [
        ("hop limit 254", |frame| frame[21] = 254),
        ("code 1", |frame| frame[55] = 1),
        ("an option of length 0", |frame| frame[79] = 0),
        ("an option longer than the message", |frame| frame[79] = 2),
        ("a group as target", |frame| frame[62] = 0xff),
        ("a group as sender", |frame| frame[80] = 0x33),
        ("solicited, and to a group", |frame| frame[38..40].copy_from_slice(&[0xff, 0x02])),
    ];
    for (what, break_it) in breaks {
        let mut frame = solicited();
        break_it(&mut frame);
        assert_eq!(frame::read(&summed(frame)), None, "{what}");
    }
    let mut wrong_sum = solicited();
    wrong_sum[57] ^= 1;
    assert_eq!(frame::read(&wrong_sum), None);
    assert_eq!(frame::read(&solicited()[..80]), None, "cut short");
    let padded = [solicited(), vec![0; 6]].concat();
    assert!(frame::read(&padded).is_some(), "what pads the frame is not the packet");
}

#[test]
fn rfc_4861_section_7_1_1_a_question_with_a_sender_is_no_probe() {
    let probe = frame::probe(MAC, ip("2001:db8::1"));
    let breaks: [Break; 3] = [
        ("from an address", |frame| frame[37] = 1),
        ("to another group", |frame| frame[53] = 9),
        ("with a link-layer address", |frame| {
            frame[19] = 0x20;
            frame.extend([1, 1, 2, 0, 0, 0, 0, 0x0a]);
        }),
    ];
    for (what, break_it) in breaks {
        let mut frame = probe.clone();
        break_it(&mut frame);
        assert_eq!(frame::read(&summed(frame)), None, "{what}");
    }
    // RFC 7527: a nonce tells looped probes apart; what it says does not matter here.
    let mut with_nonce = probe;
    with_nonce[19] = 0x20;
    with_nonce.extend([14, 1, 9, 8, 7, 6, 5, 4]);
    assert_eq!(frame::read(&summed(with_nonce)), heard("2001:db8::1", MAC, Kind::Probe));
}

#[test]
fn arp_of_other_networks_and_of_nobody_is_not_heard() {
    let announcement = frame::announcements(MAC, ip("192.0.2.1"), false).remove(0);
    for (at, value) in [(15, 6), (16, 0x86), (18, 8), (19, 16), (21, 3), (22, 0x33)] {
        let mut frame = announcement.clone();
        frame[at] = value;
        assert_eq!(frame::read(&frame), None, "octet {at} is {value}");
    }
    for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        assert_eq!(frame::read(&frame::probe(MAC, ip(address))), None, "{address}");
    }
    assert_eq!(frame::read(&announcement[..41]), None, "cut short");
}

proptest! {
    #[test]
    fn any_octets_are_read_or_passed_over(octets in proptest::collection::vec(any::<u8>(), 0..120)) {
        frame::read(&octets);
    }

    #[test]
    fn a_damaged_frame_is_read_or_passed_over(at in 0usize..86, octet in any::<u8>(), length in 0usize..100) {
        for mut frame in [solicited(), frame::probe(MAC, ip("192.0.2.1"))] {
            let last = frame.len() - 1;
            frame[at.min(last)] = octet;
            frame.truncate(length);
            frame::read(&frame);
        }
    }

    #[test]
    fn one_changed_octet_of_an_advertisement_breaks_its_checksum(at in 22usize..86, by in 1u8..) {
        let mut frame = solicited();
        frame[at] ^= by;
        prop_assert_eq!(frame::read(&frame), None);
    }

    #[test]
    fn every_address_is_asked_for_and_announced(
        v4 in any::<u32>().prop_map(Ipv4Addr::from).prop_filter("a host's", |ip| {
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
        }),
        v6 in any::<u128>().prop_map(Ipv6Addr::from).prop_filter("a host's", |ip| {
            !ip.is_unspecified() && !ip.is_multicast()
        }),
        is_router in any::<bool>(),
    ) {
        for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
            let probe = frame::read(&frame::probe(MAC, address));
            prop_assert_eq!(probe, Some(Heard { address, mac: MAC, kind: Kind::Probe }));
            for frame in frame::announcements(MAC, address, is_router) {
                let announcement = Heard { address, mac: MAC, kind: Kind::Announcement };
                prop_assert_eq!(frame::read(&frame), Some(announcement));
            }
        }
    }
}
