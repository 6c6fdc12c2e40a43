//! Received UPDATEs: every error of RFC 4271 §6.3 and what RFC 7606 makes of it.

use crate::{
    message::ReceivedUpdate,
    notification::{
        Code, Notification, UPDATE_ATTRIBUTE_LENGTH, UPDATE_INVALID_NETWORK_FIELD, UPDATE_INVALID_ORIGIN,
        UPDATE_MALFORMED_ATTRIBUTE_LIST, UPDATE_OPTIONAL_ATTRIBUTE, UPDATE_UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE,
    },
    types::Family,
    wire::DecodeContext,
};

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
const PREFIX: &[u8] = &[32, 203, 0, 113, 1];
/// MP_REACH_NLRI with 2001:db8::/32 and the default route.
const MP_REACH: &[u8] = &[
    0x80, 14, 27, 0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 32, 0x20, 1, 0xd,
    0xb8, 0,
];
const MP_UNREACH: &[u8] = &[0x80, 15, 8, 0, 2, 1, 32, 0x20, 1, 0xd, 0xb8];

fn context() -> DecodeContext {
    DecodeContext {
        four_octet_asn: true,
        extended_next_hop: false,
        families: Family::ALL.to_vec(),
        is_ebgp: true,
    }
}

fn body(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = u16::try_from(withdrawn.len()).unwrap().to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    body
}

fn decode(body: &[u8]) -> Result<ReceivedUpdate, Notification> {
    super::decode(body, &context())
}

/// A route with the mandatory attributes and this one.
fn with(attribute: &[u8]) -> Vec<u8> {
    body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, attribute], PREFIX)
}

fn kept(update: &ReceivedUpdate) -> bool {
    (update.reach, update.unreach) == ([1, 0], [0, 0])
}

fn withdrawn(update: &ReceivedUpdate) -> bool {
    (update.reach, update.unreach) == ([0, 0], [1, 0])
}

fn reset(body: &[u8]) -> (Code, Vec<u8>) {
    let error = decode(body).expect_err("a reset");
    (error.code(), error.data)
}

#[test]
fn prefixes_of_both_families_are_counted() {
    let withdrawals = [&[0][..], &[8, 10], &[9, 10, 128]].concat();
    let announced = [PREFIX, &[24, 198, 51, 100]].concat();
    let update =
        decode(&body(&withdrawals, &[MP_REACH, ORIGIN, AS_PATH, NEXT_HOP, MP_UNREACH], &announced)).unwrap();
    let expected = ReceivedUpdate { reach: [2, 2], unreach: [3, 1], ..ReceivedUpdate::default() };
    assert_eq!(update, expected);
}

#[test]
fn an_empty_update_is_the_end_of_rib_of_ipv4_and_an_empty_mp_unreach_that_of_its_family() {
    let cases: [(&[&[u8]], Option<Family>); 5] = [
        (&[], Some(Family::Ipv4Unicast)),
        (&[&[0x80, 15, 3, 0, 1, 1]], Some(Family::Ipv4Unicast)),
        (&[&[0x80, 15, 3, 0, 2, 1]], Some(Family::Ipv6Unicast)),
        (&[&[0x90, 15, 0, 3, 0, 2, 1]], Some(Family::Ipv6Unicast)),
        (&[&[0x80, 15, 3, 0, 2, 1], &[0x80, 4, 4, 0, 0, 0, 0]], None),
    ];
    for (attributes, expected) in cases {
        let update = decode(&body(&[], attributes, &[])).unwrap();
        assert_eq!(
            (update.end_of_rib, update.reach, update.unreach),
            (expected, [0; 2], [0; 2]),
            "{attributes:?}"
        );
    }
    assert_eq!(decode(&body(&[], &[MP_UNREACH], &[])).unwrap().end_of_rib, None);
    assert_eq!(decode(&body(PREFIX, &[], &[])).unwrap().end_of_rib, None);
}

#[test]
fn families_that_were_not_negotiated_are_ignored() {
    let only = |family| DecodeContext { families: vec![family], ..context() };
    let both = body(PREFIX, &[MP_REACH, ORIGIN, AS_PATH, NEXT_HOP, MP_UNREACH], PREFIX);
    let update = super::decode(&both, &only(Family::Ipv4Unicast)).unwrap();
    assert_eq!((update.reach, update.unreach), ([1, 0], [1, 0]));
    let update = super::decode(&both, &only(Family::Ipv6Unicast)).unwrap();
    assert_eq!((update.reach, update.unreach), ([0, 2], [0, 1]));
    let end_of_rib = body(&[], &[], &[]);
    assert_eq!(super::decode(&end_of_rib, &only(Family::Ipv6Unicast)).unwrap().end_of_rib, None);
    // Its next hop and prefixes are not ours to understand.
    let vpn = &[0x80, 14, 6, 0, 1, 128, 99, 1, 2];
    let update = decode(&body(&[], &[vpn, ORIGIN, AS_PATH], &[])).unwrap();
    assert_eq!(
        update.faults,
        ["prefixes of AFI 1, SAFI 128, which was not negotiated, are ignored: discarded"]
    );
}

#[test]
fn lengths_that_exceed_the_message_are_malformed_attribute_list() {
    let cases: [&[u8]; 5] = [&[0, 1, 0, 0], &[0, 0, 0, 1], &[255, 255, 0, 0], &[0, 2, 8, 10, 0], &[0, 0, 0]];
    for body in cases {
        assert_eq!(reset(body), (UPDATE_MALFORMED_ATTRIBUTE_LIST, vec![]), "{body:?}");
    }
}

#[test]
fn a_prefix_that_cannot_be_read_resets_the_session_with_invalid_network_field() {
    for prefix in [&[33, 1, 2, 3, 4, 5][..], &[255], &[32, 1, 2, 3], &[8], &[0, 1]] {
        let mandatory = [ORIGIN, AS_PATH, NEXT_HOP];
        assert_eq!(
            reset(&body(&[], &mandatory, prefix)),
            (UPDATE_INVALID_NETWORK_FIELD, vec![]),
            "{prefix:?}"
        );
        assert_eq!(reset(&body(prefix, &[], &[])), (UPDATE_INVALID_NETWORK_FIELD, vec![]), "{prefix:?}");
    }
}

#[test]
fn a_multiprotocol_attribute_that_cannot_be_read_resets_the_session_with_that_attribute() {
    let cases: [(&str, &[u8]); 12] = [
        ("empty reach", &[0x80, 14, 0]),
        ("reach of four octets", &[0x80, 14, 4, 0, 2, 1, 0]),
        ("no next hop", &[0x80, 14, 5, 0, 2, 1, 0, 0]),
        ("next hop past the end", &[0x80, 14, 5, 0, 2, 1, 16, 0]),
        ("IPv4 next hop for IPv6", &[0x80, 14, 9, 0, 2, 1, 4, 192, 0, 2, 1, 0]),
        (
            "IPv6 next hop for IPv4, not negotiated",
            &[0x80, 14, 21, 0, 1, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        ),
        ("no reserved octet", &[0x80, 14, 8, 0, 1, 1, 4, 192, 0, 2, 1]),
        ("prefix past the end", &[0x80, 14, 10, 0, 1, 1, 4, 192, 0, 2, 1, 0, 8]),
        ("prefix too long", &[0x80, 14, 15, 0, 1, 1, 4, 192, 0, 2, 1, 0, 33, 1, 2, 3, 4, 5]),
        ("empty unreach", &[0x80, 15, 0]),
        ("unreach of two octets", &[0x80, 15, 2, 0, 2]),
        ("withdrawn prefix past the end", &[0x80, 15, 5, 0, 2, 1, 16, 1]),
    ];
    for (name, attribute) in cases {
        let body = body(&[], &[attribute, ORIGIN, AS_PATH], &[]);
        assert_eq!(reset(&body), (UPDATE_OPTIONAL_ATTRIBUTE, attribute.to_vec()), "{name}");
    }
}

#[test]
fn an_ipv6_next_hop_for_ipv4_is_taken_where_it_was_negotiated() {
    let context = DecodeContext { extended_next_hop: true, ..context() };
    let hop = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for hops in [1, 2] {
        let next_hop = hop.repeat(hops);
        let value = [&[0, 1, 1, u8::try_from(next_hop.len()).unwrap()], &next_hop[..], &[0], PREFIX].concat();
        let attribute = [&[0x80, 14, u8::try_from(value.len()).unwrap()], &value[..]].concat();
        let update = super::decode(&body(&[], &[&attribute, ORIGIN, AS_PATH], &[]), &context).unwrap();
        assert!(kept(&update) && update.faults.is_empty(), "{update:?}");
    }
}

#[test]
fn multiprotocol_attributes_that_occur_twice_reset_the_session_and_others_count_once() {
    for twice in [MP_REACH, MP_UNREACH] {
        let body = body(&[], &[twice, ORIGIN, AS_PATH, twice], &[]);
        assert_eq!(reset(&body), (UPDATE_MALFORMED_ATTRIBUTE_LIST, vec![]));
    }
    // The second one is not even looked at.
    let update = decode(&with(&[0x40, 1, 1, 77])).unwrap();
    assert!(kept(&update), "{update:?}");
    assert_eq!(update.faults, ["attribute 1 occurs twice: discarded"]);
    let unknown = [0xc0, 200, 1, 0, 0xc0, 200, 1, 0];
    assert!(kept(&decode(&with(&unknown)).unwrap()));
}

#[test]
fn an_attribute_that_is_not_known_has_to_be_optional() {
    for flags in [0x80, 0xc0, 0xe0, 0x90 | 0x40] {
        let attribute: &[u8] = if flags & 0x10 == 0 { &[flags, 99, 1, 7] } else { &[flags, 99, 0, 1, 7] };
        let update = decode(&with(attribute)).unwrap();
        assert!(kept(&update) && update.faults.is_empty(), "{flags:#x}: {update:?}");
    }
    let attribute = [0x40, 99, 1, 7];
    assert_eq!(reset(&with(&attribute)), (UPDATE_UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE, attribute.to_vec()));
}

#[test]
fn errors_in_an_attribute_withdraw_its_routes() {
    type Case = (&'static str, &'static [u8], &'static [u8], &'static [u8]);
    let cases: [Case; 20] = [
        ("ORIGIN of two octets", &[0x40, 1, 2, 0, 0], AS_PATH, NEXT_HOP),
        ("ORIGIN of no octets", &[0x40, 1, 0], AS_PATH, NEXT_HOP),
        ("ORIGIN 3", &[0x40, 1, 1, 3], AS_PATH, NEXT_HOP),
        ("ORIGIN optional", &[0xc0, 1, 1, 0], AS_PATH, NEXT_HOP),
        ("ORIGIN not transitive", &[0x00, 1, 1, 0], AS_PATH, NEXT_HOP),
        ("ORIGIN missing", &[], AS_PATH, NEXT_HOP),
        ("AS_PATH with an unknown segment", ORIGIN, &[0x40, 2, 6, 5, 1, 0, 0, 0xfc, 0], NEXT_HOP),
        ("AS_PATH with a confederation", ORIGIN, &[0x40, 2, 6, 3, 1, 0, 0, 0xfc, 0], NEXT_HOP),
        ("AS_PATH with an empty segment", ORIGIN, &[0x40, 2, 2, 2, 0], NEXT_HOP),
        ("AS_PATH with a segment past its end", ORIGIN, &[0x40, 2, 6, 2, 2, 0, 0, 0xfc, 0], NEXT_HOP),
        ("AS_PATH with a stray octet", ORIGIN, &[0x40, 2, 7, 2, 1, 0, 0, 0xfc, 0, 2], NEXT_HOP),
        ("AS_PATH with AS 0", ORIGIN, &[0x40, 2, 10, 2, 2, 0, 0, 0xfc, 0, 0, 0, 0, 0], NEXT_HOP),
        ("AS_PATH optional", ORIGIN, &[0xc0, 2, 0], NEXT_HOP),
        ("AS_PATH missing", ORIGIN, &[], NEXT_HOP),
        ("NEXT_HOP of three octets", ORIGIN, AS_PATH, &[0x40, 3, 3, 192, 0, 2]),
        (
            "NEXT_HOP of sixteen octets",
            ORIGIN,
            AS_PATH,
            &[0x40, 3, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ),
        ("NEXT_HOP 0.0.0.0", ORIGIN, AS_PATH, &[0x40, 3, 4, 0, 0, 0, 0]),
        ("NEXT_HOP multicast", ORIGIN, AS_PATH, &[0x40, 3, 4, 224, 0, 0, 1]),
        ("NEXT_HOP broadcast", ORIGIN, AS_PATH, &[0x40, 3, 4, 255, 255, 255, 255]),
        ("NEXT_HOP missing", ORIGIN, AS_PATH, &[]),
    ];
    for (name, origin, as_path, next_hop) in cases {
        let update = decode(&body(&[], &[origin, as_path, next_hop], PREFIX)).expect(name);
        assert!(withdrawn(&update), "{name}: {update:?}");
        assert_eq!(update.faults.len(), 1, "{name}: {update:?}");
        assert!(update.faults[0].ends_with("the routes are treated as withdrawn"), "{name}: {update:?}");
    }
}

#[test]
fn errors_in_optional_attributes_withdraw_or_discard_as_rfc_7606_7_says() {
    let withdraws: [&[u8]; 13] = [
        &[0x80, 4, 3, 0, 0, 0],
        &[0xc0, 4, 4, 0, 0, 0, 0],
        &[0xc0, 8, 0],
        &[0xc0, 8, 3, 0, 0, 0],
        &[0x80, 8, 4, 0, 0, 0, 0],
        &[0xc0, 16, 0],
        &[0xc0, 16, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xc0, 25, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xc0, 32, 0],
        &[0xc0, 32, 4, 0, 0, 0, 0],
        &[0x80, 32, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xc0, 35, 0],
        &[0xc0, 35, 3, 0, 0, 0],
    ];
    for attribute in withdraws {
        let update = decode(&with(attribute)).unwrap();
        assert!(withdrawn(&update), "{attribute:?}: {update:?}");
    }
    let discards: [&[u8]; 11] = [
        &[0x40, 6, 1, 0],
        &[0xc0, 6, 0],
        &[0xc0, 7, 6, 0, 1, 10, 0, 0, 1],
        &[0x40, 7, 8, 0, 0, 0, 1, 10, 0, 0, 1],
        &[0xc0, 7, 8, 0, 0, 0, 0, 10, 0, 0, 1],
        &[0x40, 17, 0],
        &[0xc0, 18, 1, 0],
        // From an external peer these are not even looked at.
        &[0x40, 5, 1, 0],
        &[0x40, 5, 4, 0, 0, 0, 100],
        &[0x80, 9, 1, 0],
        &[0x80, 10, 0],
    ];
    for attribute in discards {
        let update = decode(&with(attribute)).unwrap();
        assert!(kept(&update) && update.faults.len() == 1, "{attribute:?}: {update:?}");
        assert!(update.faults[0].ends_with(": discarded"), "{attribute:?}: {update:?}");
    }
}

#[test]
fn attributes_of_an_internal_peer_are_checked_too() {
    let context = DecodeContext { is_ebgp: false, ..context() };
    for attribute in
        [&[0x40, 5, 4, 0, 0, 0, 100][..], &[0x80, 9, 4, 10, 0, 0, 1], &[0x80, 10, 4, 10, 0, 0, 1]]
    {
        let update = super::decode(&with(attribute), &context).unwrap();
        assert!(kept(&update) && update.faults.is_empty(), "{attribute:?}: {update:?}");
    }
    for attribute in [&[0x40, 5, 1, 0][..], &[0x80, 9, 1, 0], &[0x80, 10, 0], &[0x80, 10, 3, 0, 0, 0]] {
        let update = super::decode(&with(attribute), &context).unwrap();
        assert!(withdrawn(&update), "{attribute:?}: {update:?}");
    }
}

#[test]
fn a_two_octet_session_has_two_octet_paths() {
    let context = DecodeContext { four_octet_asn: false, ..context() };
    let path = &[0x40, 2, 6, 2, 2, 0xfc, 0, 0x5b, 0xa0];
    let aggregator = &[0xc0, 7, 6, 0xfc, 0, 10, 0, 0, 1];
    let as4_path = &[0xc0, 17, 6, 2, 1, 0xfa, 0x56, 0xea, 1];
    let body = body(&[], &[ORIGIN, path, NEXT_HOP, aggregator, as4_path], PREFIX);
    let update = super::decode(&body, &context).unwrap();
    assert!(kept(&update) && update.faults.is_empty(), "{update:?}");
    assert!(withdrawn(&decode(&body).unwrap()), "read as a 4-octet path it is cut short");
}

#[test]
fn as4_path_costs_only_itself() {
    // RFC 6793 §6: malformed, and §4.1: from a speaker that should not send it.
    let two_octet = DecodeContext { four_octet_asn: false, ..context() };
    let path = &[0x40, 2, 4, 2, 1, 0xfc, 0];
    let cases: [&[u8]; 5] = [
        &[0xc0, 17, 2, 2, 1],
        &[0xc0, 17, 7, 2, 1, 0, 0, 0xfc, 0, 0],
        &[0xc0, 17, 6, 2, 1, 0, 0, 0, 0],
        &[0xc0, 17, 6, 3, 1, 0, 0, 0xfc, 0],
        &[0x40, 17, 6, 2, 1, 0, 0, 0xfc, 0],
    ];
    for as4_path in cases {
        let body = body(&[], &[ORIGIN, path, NEXT_HOP, as4_path], PREFIX);
        let update = super::decode(&body, &two_octet).unwrap();
        assert!(kept(&update) && update.faults.len() == 1, "{as4_path:?}: {update:?}");
    }
    let update = decode(&with(&[0xc0, 17, 6, 2, 1, 0, 0, 0xfc, 0])).unwrap();
    assert!(kept(&update), "{update:?}");
    assert_eq!(update.faults, ["AS4_PATH on a session with 4-octet AS numbers: discarded"]);
}

#[test]
fn a_list_that_ends_within_an_attribute_withdraws_what_the_message_announces() {
    for end in [&[0x40][..], &[0x40, 99], &[0xc0, 8, 4, 0], &[0xd0, 8, 0], &[0xd0, 8, 0, 4, 0]] {
        let update = decode(&with(end)).unwrap();
        assert!(withdrawn(&update), "{end:?}: {update:?}");
    }
}

#[test]
fn an_error_without_a_reachable_prefix_resets_the_session() {
    // RFC 7606 §5.2
    let origin = &[0x40, 1, 1, 9];
    assert_eq!(reset(&body(&[], &[origin], &[])), (UPDATE_INVALID_ORIGIN, origin.to_vec()));
    let med = &[0x80, 4, 1, 0];
    assert_eq!(reset(&body(PREFIX, &[med], &[])), (UPDATE_ATTRIBUTE_LENGTH, med.to_vec()));
    let truncated = body(&[], &[MP_UNREACH, &[0x40]], &[]);
    assert_eq!(reset(&truncated), (UPDATE_MALFORMED_ATTRIBUTE_LIST, vec![]));
    // What would only be discarded resets nothing, and MP_UNREACH_NLRI alone withdraws in any case.
    assert!(decode(&body(PREFIX, &[&[0x40, 6, 1, 0]], &[])).is_ok());
    let flags = [&[0xc0], &MP_UNREACH[1..]].concat();
    assert_eq!(decode(&body(&[], &[&flags], &[])).unwrap().unreach, [0, 1]);
}

#[test]
fn the_strongest_verdict_holds() {
    let med = &[0x80, 4, 1, 0];
    let aggregate = &[0x40, 6, 1, 0];
    let update = decode(&body(&[], &[aggregate, med, ORIGIN, AS_PATH, NEXT_HOP], PREFIX)).unwrap();
    assert!(withdrawn(&update) && update.faults.len() == 2, "{update:?}");
    let unknown = &[0x40, 99, 0];
    assert_eq!(
        reset(&body(&[], &[aggregate, med, unknown, ORIGIN, AS_PATH, NEXT_HOP], PREFIX)).0,
        UPDATE_UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE
    );
}

#[test]
fn a_next_hop_in_mp_reach_that_is_no_host_withdraws() {
    let hop = |octets: &[u8]| {
        let mut value = vec![0, 2, 1, u8::try_from(octets.len()).unwrap()];
        value.extend(octets);
        value.extend([0, 0]);
        let attribute = [&[0x80, 14, u8::try_from(value.len()).unwrap()], &value[..]].concat();
        decode(&body(&[], &[&attribute, ORIGIN, AS_PATH], &[])).unwrap()
    };
    assert_eq!(hop(&[0; 16]).unreach, [0, 1]);
    assert_eq!(hop(&[0xff; 16]).unreach, [0, 1]);
    let mut link_local_only = [0; 32];
    link_local_only[16] = 0xfe;
    assert_eq!(hop(&link_local_only).reach, [0, 1]);
}

#[test]
fn a_message_full_of_faults_tells_the_first_eight() {
    let list = [0xc0, 200, 0].repeat(1000);
    let update = decode(&body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &list], PREFIX)).unwrap();
    assert!(kept(&update));
    assert_eq!(update.faults.len(), 8);
}
