//! OPEN: every error of RFC 4271 §6.2, capabilities good and bad, RFC 9072.

use bytes::BytesMut;

use super::*;
use crate::{
    capabilities::{GracefulRestart, LongLivedFamily},
    notification::{Code, OPEN_BAD_ROUTER_ID},
    types::Family,
    wire::{self, DecodeContext, Received, frame},
};

/// The body of an OPEN of AS 65001 with these optional parameters, length included.
fn body(parameters: &[u8]) -> Vec<u8> {
    let mut body = vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, u8::try_from(parameters.len()).unwrap()];
    body.extend(parameters);
    body
}

/// One parameter of type 2 that holds these octets.
fn with_capabilities(capabilities: &[u8]) -> Vec<u8> {
    let mut parameters = vec![2, u8::try_from(capabilities.len()).unwrap()];
    parameters.extend(capabilities);
    body(&parameters)
}

fn capabilities_of(capabilities: &[u8]) -> Capabilities {
    decode(&with_capabilities(capabilities)).unwrap().capabilities
}

fn everything() -> Open {
    Open {
        asn: 4_200_000_001,
        hold_time: HoldTime::DEFAULT,
        router_id: RouterId::new([10, 0, 0, 1].into()).unwrap(),
        capabilities: Capabilities {
            multiprotocol: Family::ALL.to_vec(),
            other_families: false,
            four_octet_asn: Some(4_200_000_001),
            route_refresh: true,
            enhanced_route_refresh: true,
            extended_next_hop: vec![Family::Ipv4Unicast],
            extended_message: true,
            graceful_restart: Some(GracefulRestart {
                restarting: true,
                notification: true,
                restart_time_secs: 4095,
                families: vec![(Family::Ipv4Unicast, true), (Family::Ipv6Unicast, false)],
            }),
            long_lived: vec![LongLivedFamily {
                family: Family::Ipv4Unicast,
                is_forwarding: true,
                stale_time_secs: 0x00ff_fffe,
            }],
            roles: vec![3],
            hostname: None,
        },
    }
}

#[test]
fn an_open_with_every_capability_reads_as_it_was_written() {
    let open = everything();
    let mut out = BytesMut::new();
    wire::encode_open(&open, &mut out);
    assert_eq!(frame::next(&out, frame::MAX_LENGTH), Ok(Some(out.len())));
    assert_eq!(wire::decode(&out, &DecodeContext::default()), Ok(Received::Open(open)));
}

#[test]
fn the_octets_of_an_open_are_those_of_the_rfcs() {
    let mut out = BytesMut::new();
    encode(&everything(), &mut out);
    #[rustfmt::skip]
    let expected = [
        4, 0x5b, 0xa0, 0, 90, 10, 0, 0, 1, 58, 2, 56, // AS_TRANS, and one parameter
        1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, // RFC 4760 §8
        2, 0, // RFC 2918 §2
        5, 6, 0, 1, 0, 1, 0, 2, // RFC 8950 §4
        6, 0, // RFC 8654 §3
        9, 1, 3, // RFC 9234 §4.1
        64, 10, 0xcf, 0xff, 0, 1, 1, 0x80, 0, 2, 1, 0, // RFC 4724 §3, RFC 8538 §2
        71, 7, 0, 1, 1, 0x80, 0xff, 0xff, 0xfe, // RFC 9494 §3.1
        65, 4, 0xfa, 0x56, 0xea, 0x01, // RFC 6793 §3
        70, 0, // RFC 7313 §3.1
    ];
    assert_eq!(out[..], expected);
}

#[test]
fn an_open_without_capabilities_has_no_empty_parameter() {
    let open = Open { asn: 65001, capabilities: Capabilities::default(), ..everything() };
    let mut out = BytesMut::new();
    encode(&open, &mut out);
    assert_eq!(out[..], body(&[]));
    assert_eq!(decode(&out), Ok(open));
}

#[test]
fn a_restart_time_beyond_twelve_bits_is_written_as_the_largest() {
    let mut open = everything();
    open.capabilities.graceful_restart =
        Some(GracefulRestart { restart_time_secs: 5000, ..GracefulRestart::default() });
    let mut out = BytesMut::new();
    encode(&open, &mut out);
    let restart = decode(&out).unwrap().capabilities.graceful_restart.unwrap();
    assert_eq!((restart.restart_time_secs, restart.restarting), (4095, false));
}

#[test]
fn a_long_lived_stale_time_beyond_24_bits_is_written_as_the_largest_rfc_9494_section_3() {
    let mut open = everything();
    open.capabilities.long_lived[0] =
        LongLivedFamily { family: Family::Ipv6Unicast, is_forwarding: false, stale_time_secs: 0x0100_0001 };
    let mut out = BytesMut::new();
    encode(&open, &mut out);
    let long_lived = decode(&out).unwrap().capabilities.long_lived;
    assert_eq!((long_lived[0].stale_time_secs, long_lived[0].is_forwarding), (0x00ff_ffff, false));
}

#[test]
fn every_error_of_an_open_is_answered_as_rfc_4271_6_2_says() {
    let changed = |at: usize, octets: &[u8]| {
        let mut body = body(&[]);
        body[at..at + octets.len()].copy_from_slice(octets);
        body
    };
    let cases: [(&str, Vec<u8>, Code, &[u8]); 15] = [
        ("version 3", changed(0, &[3]), OPEN_UNSUPPORTED_VERSION, &[0, 4]),
        ("version 5", changed(0, &[5]), OPEN_UNSUPPORTED_VERSION, &[0, 4]),
        ("hold time 1", changed(3, &[0, 1]), OPEN_UNACCEPTABLE_HOLD_TIME, &[0, 1]),
        ("hold time 2", changed(3, &[0, 2]), OPEN_UNACCEPTABLE_HOLD_TIME, &[0, 2]),
        ("router ID 0", changed(5, &[0; 4]), OPEN_BAD_ROUTER_ID, &[0; 4]),
        ("parameters longer than the message", changed(9, &[1]), OPEN_UNSPECIFIC, &[]),
        ("parameters shorter than the message", [body(&[]), vec![2]].concat(), OPEN_UNSPECIFIC, &[]),
        ("a parameter without a length", body(&[2]), OPEN_UNSPECIFIC, &[]),
        ("a parameter past the end", body(&[2, 3, 2, 0]), OPEN_UNSPECIFIC, &[]),
        ("an unknown parameter", body(&[3, 1, 0]), OPEN_UNSUPPORTED_OPTIONAL_PARAMETER, &[]),
        ("authentication", body(&[1, 0]), OPEN_UNSUPPORTED_OPTIONAL_PARAMETER, &[]),
        ("a capability without a length", with_capabilities(&[2]), OPEN_UNSPECIFIC, &[]),
        ("a capability past its parameter", with_capabilities(&[2, 1]), OPEN_UNSPECIFIC, &[]),
        ("extended, no length", body(&[255, 255]), OPEN_UNSPECIFIC, &[]),
        ("extended, wrong length", body(&[255, 255, 0, 6, 2, 0, 2, 2, 0, 9]), OPEN_UNSPECIFIC, &[]),
    ];
    for (name, body, code, data) in cases {
        let error = decode(&body).expect_err(name);
        assert_eq!((error.code(), &error.data[..]), (code, data), "{name}");
    }
}

#[test]
fn a_peer_may_say_as_0_and_that_is_for_the_session_to_refuse() {
    assert_eq!(decode(&[4, 0, 0, 0, 90, 10, 0, 0, 1, 0]).unwrap().asn, 0);
    assert_eq!(decode(&with_capabilities(&[65, 4, 0, 0, 0, 0])).unwrap().asn, 0);
}

#[test]
fn the_four_octet_capability_replaces_the_two_octet_field() {
    let open = decode(&with_capabilities(&[65, 4, 0, 1, 0, 0])).unwrap();
    assert_eq!((open.asn, open.capabilities.four_octet_asn), (65536, Some(65536)));
}

#[test]
fn a_broken_or_unknown_capability_is_dropped_and_the_others_count() {
    let broken: [&[u8]; 18] = [
        &[1, 3, 0, 1, 0],
        &[1, 0],
        &[2, 1, 0],
        &[5, 5, 0, 1, 0, 1, 0],
        &[6, 1, 0],
        &[9, 0],
        &[9, 2, 3, 3],
        &[64, 0],
        &[64, 1, 0],
        &[64, 5, 0, 0, 0, 1, 1],
        &[65, 2, 0, 1],
        &[65, 0],
        &[70, 1, 0],
        &[71, 0],
        &[71, 6, 0, 1, 1, 0, 0, 9],
        &[73, 0],
        &[73, 2, 9, b'a'],
        &[131, 2, 1, 2],
    ];
    for capability in broken {
        let found = capabilities_of(&[&[1, 4, 0, 2, 0, 1], capability, &[2, 0]].concat());
        let expected = Capabilities {
            multiprotocol: vec![Family::Ipv6Unicast],
            route_refresh: true,
            ..Capabilities::default()
        };
        assert_eq!(found, expected, "{capability:?}");
    }
}

#[test]
fn a_family_that_is_not_spoken_is_left_out_and_remembered_as_such() {
    for (afi, safi) in [(1, 128), (25, 70), (1, 2), (16388, 71)] {
        let [high, low] = u16::to_be_bytes(afi);
        let found = capabilities_of(&[1, 4, high, low, 0, safi]);
        assert!(found.multiprotocol.is_empty() && found.other_families, "AFI {afi}, SAFI {safi}");
        assert!(found.families().is_empty(), "AFI {afi}, SAFI {safi}");
    }
}

#[test]
fn families_that_are_said_twice_count_once() {
    let twice = [1, 4, 0, 1, 0, 1, 1, 4, 0, 1, 0, 1, 5, 12, 0, 1, 0, 1, 0, 2, 0, 1, 0, 1, 0, 2];
    let found = capabilities_of(&twice);
    assert_eq!(found.multiprotocol, [Family::Ipv4Unicast]);
    assert_eq!(found.extended_next_hop, [Family::Ipv4Unicast]);
    let restart = capabilities_of(&[64, 10, 0, 9, 0, 1, 1, 0x80, 0, 1, 1, 0]).graceful_restart.unwrap();
    assert_eq!(restart.families, [(Family::Ipv4Unicast, true)]);
}

#[test]
fn every_role_that_is_said_counts_once() {
    assert_eq!(capabilities_of(&[9, 1, 3, 9, 1, 3, 9, 1, 200]).roles, [3, 200]);
}

#[test]
fn only_an_ipv6_next_hop_for_unicast_is_an_extended_next_hop() {
    let cases = [[0, 1, 0, 1, 0, 1], [0, 1, 0, 128, 0, 2], [0, 1, 1, 1, 0, 2]];
    for triple in cases {
        let found = capabilities_of(&[&[5, 6], &triple[..]].concat());
        assert!(found.extended_next_hop.is_empty(), "{triple:?}");
    }
}

#[test]
fn a_host_name_is_read_without_control_characters() {
    let found = capabilities_of(&[73, 7, 3, b'a', 7, b'b', 2, b'x', b'y']);
    assert_eq!(found.hostname.as_deref(), Some("a\u{fffd}b"));
}

#[test]
fn capabilities_may_come_in_many_parameters() {
    let open = decode(&body(&[2, 6, 1, 4, 0, 1, 0, 1, 2, 6, 1, 4, 0, 2, 0, 1, 2, 2, 2, 0])).unwrap();
    assert_eq!(open.capabilities.multiprotocol, Family::ALL);
    assert!(open.capabilities.route_refresh);
}

#[test]
fn extended_optional_parameters_are_read() {
    let extended = |said: u8, length: u8, parameters: &[u8]| {
        let mut body = body(&[]);
        body[9] = said;
        body.extend([255, 0, length]);
        body.extend(parameters);
        body
    };
    let parameters = [2, 0, 2, 2, 0, 2, 0, 2, 70, 0];
    // RFC 9072 §2: the length before the marker is ignored unless it is 0.
    for said in [1, 255] {
        let capabilities = decode(&extended(said, 10, &parameters)).unwrap().capabilities;
        assert!(capabilities.route_refresh && capabilities.enhanced_route_refresh);
    }
    for wrong in [extended(255, 11, &parameters), extended(255, 9, &parameters), extended(0, 10, &parameters)]
    {
        assert_eq!(decode(&wrong).unwrap_err().code(), OPEN_UNSPECIFIC, "{wrong:?}");
    }
}

#[test]
fn more_capabilities_than_a_parameter_holds_are_written_extended() {
    for (length, extended) in [(252, false), (253, false), (254, true), (300, true)] {
        // Unknown capabilities of no length; an odd one out is one octet long.
        let mut capabilities = [200, 0].repeat(length / 2);
        if length % 2 == 1 {
            let last = capabilities.len() - 1;
            capabilities[last] = 1;
            capabilities.push(0);
        }
        let mut out = BytesMut::from(&body(&[])[..9]);
        encode_parameters(&capabilities, &mut out);
        assert_eq!(out[10] == EXTENDED, extended, "{length} octets");
        assert_eq!(
            decode(&out).map(|open| open.capabilities),
            Ok(Capabilities::default()),
            "{length} octets"
        );
    }
}
