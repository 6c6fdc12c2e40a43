//! What `zettabgp` 0.6.0 does wrong, each with what this layer makes of the same octets.
//!
//! Both halves are asserted where the wrong one ends by itself: a test that fails after an update of the crate says
//! which piece of this layer can go.

use std::{
    net::Ipv4Addr,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::BytesMut;
use ipnet::IpNet;
use zettabgp::{
    BgpCapability, BgpMessage, BgpSessionParams, BgpTransportMode,
    afi::{BgpAddr, BgpAddrV4, BgpAddrs},
    error::BgpError,
    message::{
        BgpOpenMessage, BgpUpdateMessage,
        attributes::{
            BgpAttr, BgpAttrItem,
            aspath::{BgpAS, BgpASitem, BgpASpath},
            community::{BgpLargeCommunity, BgpLargeCommunityList},
            multiproto::BgpMPUpdates,
        },
        notification::BgpNotificationMessage,
    },
};

use crate::{
    attributes::{Attributes, NextHop},
    capabilities::{Capabilities, negotiate},
    config::PeerAsn,
    message::{Open, ReceivedUpdate},
    notification::{
        BAD_MESSAGE_LENGTH, CEASE_ADMINISTRATIVE_SHUTDOWN, Notification, OPEN_BAD_PEER_AS,
        UPDATE_MALFORMED_ATTRIBUTE_LIST, UPDATE_OPTIONAL_ATTRIBUTE,
    },
    types::{Asn, Family, HoldTime, RouterId},
    wire::{self, DecodeContext, EncodeContext, Received, frame, session_params, update},
};

const CONTEXT: EncodeContext = EncodeContext { four_octet_asn: true, max_length: frame::MAX_LENGTH };
const ORIGIN: [u8; 4] = [0x40, 1, 1, 0];
const AS_PATH: [u8; 9] = [0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0];
const NEXT_HOP: [u8; 7] = [0x40, 3, 4, 192, 0, 2, 1];
const PREFIX: [u8; 5] = [32, 203, 0, 113, 1];

fn message(code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(code);
    message.extend(body);
    message
}

/// The body of an UPDATE.
fn update_body(attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    body
}

fn decode_update(body: &[u8]) -> Result<ReceivedUpdate, Notification> {
    let context = DecodeContext {
        four_octet_asn: true,
        extended_next_hop: true,
        families: Family::ALL.to_vec(),
        is_ebgp: true,
    };
    match wire::decode(&message(2, body), &context)? {
        Received::Update(update) => Ok(update),
        other => panic!("{other:?}"),
    }
}

fn decode_open(body: &[u8]) -> Result<Open, Notification> {
    match wire::decode(&message(1, body), &DecodeContext::default())? {
        Received::Open(open) => Ok(open),
        other => panic!("{other:?}"),
    }
}

fn open_body(parameters: &[u8]) -> Vec<u8> {
    let mut body = vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, u8::try_from(parameters.len()).unwrap()];
    body.extend(parameters);
    body
}

/// What `zettabgp` makes of the body of a message: `None` where it panics.
fn theirs<M: BgpMessage>(params: &BgpSessionParams, body: &[u8], empty: M) -> Option<Result<M, BgpError>> {
    let mut decoded = empty;
    catch_unwind(AssertUnwindSafe(|| decoded.decode_from(params, body).map(|()| decoded))).ok()
}

fn their_update(body: &[u8]) -> Option<Result<BgpUpdateMessage, BgpError>> {
    theirs(&session_params(true), body, BgpUpdateMessage::new())
}

fn host_route() -> IpNet {
    "203.0.113.1/32".parse().unwrap()
}

/// Our UPDATE for one route with these attributes.
fn our_update(attributes: &Attributes, context: &EncodeContext) -> Vec<u8> {
    let mut out = BytesMut::new();
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    update::encode_reach(
        Family::Ipv4Unicast,
        &next_hop,
        attributes,
        [host_route()],
        context,
        usize::MAX,
        &mut out,
    )
    .unwrap();
    out.to_vec()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn z1_as_path_goes_out_as_as_sequence() {
    let mut value = [0; 16];
    let path = BgpASpath { value: vec![BgpASitem::from(64512)] };
    let length = path.encode_to(&session_params(true), &mut value).unwrap();
    assert_eq!(value[..length], [1, 1, 0, 0, 0xfc, 0], "AS_SET");

    let ours = our_update(&Attributes { as_path: vec![64512], ..Attributes::default() }, &CONTEXT);
    assert!(contains(&ours, &[0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0]), "{ours:02x?}");
}

#[test]
fn z2_a_path_of_several_numbers_is_one_segment() {
    let ours =
        our_update(&Attributes { as_path: vec![64512, 64513, 64514], ..Attributes::default() }, &CONTEXT);
    assert!(
        contains(&ours, &[0x40, 2, 14, 2, 3, 0, 0, 0xfc, 0, 0, 0, 0xfc, 1, 0, 0, 0xfc, 2]),
        "{ours:02x?}"
    );
}

#[test]
fn z3_a_stray_octet_in_as_path_ends_and_costs_only_the_routes() {
    // There it never returns while its memory grows, so it is not called here.
    let stray = [0x40, 2, 7, 2, 1, 0, 0, 0xfc, 0, 2];
    let update = decode_update(&update_body(&[&ORIGIN, &stray, &NEXT_HOP], &PREFIX)).unwrap();
    assert_eq!((update.reach, update.unreach), ([0, 0], [1, 0]));
}

#[test]
fn z4_attributes_that_are_too_short_do_not_panic() {
    let cases: [(&str, &[u8]); 7] = [
        ("AS_PATH segment shorter than one AS", &[0x40, 2, 3, 2, 1, 0]),
        ("MP_REACH_NLRI empty", &[0x80, 14, 0]),
        ("MP_REACH_NLRI with a next hop past its end", &[0x80, 14, 5, 0, 2, 1, 16, 0]),
        ("MP_REACH_NLRI that ends with its next hop", &[0x80, 14, 8, 0, 1, 1, 4, 192, 0, 2, 1]),
        ("MP_UNREACH_NLRI of two octets", &[0x80, 15, 2, 0, 1]),
        ("COMMUNITIES of three octets", &[0xc0, 8, 3, 0, 0, 0]),
        ("ONLY_TO_CUSTOMER of one octet", &[0xc0, 35, 1, 0]),
    ];
    for (name, attribute) in cases {
        let body = update_body(&[attribute], &[]);
        assert!(their_update(&body).is_none(), "{name}: no panic any more");
        let error = decode_update(&body).expect_err(name);
        assert_eq!(error.code, 3, "{name}");
    }
    let truncated = update_body(&[&[0x40]], &[]);
    assert!(their_update(&truncated).is_none(), "truncated header: no panic any more");
    assert_eq!(decode_update(&truncated).unwrap_err().code(), UPDATE_MALFORMED_ATTRIBUTE_LIST);
}

#[test]
fn z4_a_prefix_length_beyond_248_does_not_panic() {
    // Measured here: the number of octets is computed in an u8, which overflows where overflows are checked.
    let body = update_body(&[&ORIGIN, &AS_PATH, &NEXT_HOP], &[255, 0]);
    assert!(!matches!(their_update(&body), Some(Ok(_))));
    assert_eq!(decode_update(&body).unwrap_err().code(), crate::notification::UPDATE_INVALID_NETWORK_FIELD);
}

#[test]
fn z5_lengths_are_checked_on_the_way_in_and_kept_on_the_way_out() {
    let mut header = message(4, &[]);
    header[17] = 18;
    assert!(!matches!(
        catch_unwind(AssertUnwindSafe(|| session_params(true).decode_message_head(&header))),
        Ok(Err(_))
    ));
    assert_eq!(frame::next(&header, frame::MAX_LENGTH).unwrap_err().code(), BAD_MESSAGE_LENGTH);

    let hosts = |count: u32| (0..count).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n));
    let mut theirs = BgpUpdateMessage::new();
    theirs.updates = BgpAddrs::IPV4U(hosts(5000).map(|host| BgpAddrV4::new(host, 32)).collect());
    let written = theirs.encode_to(&session_params(true), &mut vec![0; 65_536]).unwrap();
    assert!(written > frame::MAX_LENGTH, "it has learnt to split: {written} octets");

    let mut out = BytesMut::new();
    let nlri = hosts(5000).map(|host| IpNet::new_assert(host.into(), 32));
    update::encode_unreach(Family::Ipv4Unicast, nlri, &CONTEXT, usize::MAX, &mut out);
    let mut rest = &out[..];
    while !rest.is_empty() {
        let length = frame::next(rest, frame::MAX_LENGTH).unwrap().unwrap();
        rest = &rest[length..];
    }
}

#[test]
fn z6_an_error_has_a_verdict_a_subcode_and_the_attribute() {
    let origin = [0x40, 1, 1, 9];
    let body = update_body(&[&origin, &AS_PATH, &NEXT_HOP], &PREFIX);
    assert!(matches!(their_update(&body), Some(Err(_))), "all of it is lost");
    let update = decode_update(&body).unwrap();
    assert_eq!(update.unreach, [1, 0]);
    assert_eq!(update.faults, ["ORIGIN is 9, expected 0, 1 or 2: the routes are treated as withdrawn"]);

    let mp_unreach = [0x80, 15, 2, 0, 1];
    let error = decode_update(&update_body(&[&mp_unreach], &[])).unwrap_err();
    assert_eq!((error.code(), &error.data[..]), (UPDATE_OPTIONAL_ATTRIBUTE, &mp_unreach[..]));
}

#[test]
fn z7_a_domain_name_in_the_fqdn_capability_does_not_cost_the_session() {
    let fqdn = [2, 11, 73, 9, 3, b'l', b'a', b'b', 4, b't', b'e', b's', b't'];
    let body = open_body(&fqdn);
    assert!(matches!(theirs(&session_params(true), &body, BgpOpenMessage::new()), Some(Err(_))));
    assert_eq!(decode_open(&body).unwrap().capabilities.hostname.as_deref(), Some("lab"));
}

#[test]
fn z8_capabilities_it_does_not_know_are_read_and_written() {
    let sent = Open {
        asn: 65001,
        hold_time: HoldTime::DEFAULT,
        router_id: RouterId::new([10, 0, 0, 1].into()).unwrap(),
        capabilities: Capabilities {
            multiprotocol: vec![Family::Ipv4Unicast],
            four_octet_asn: Some(65001),
            extended_next_hop: vec![Family::Ipv4Unicast],
            extended_message: true,
            ..Capabilities::default()
        },
    };
    let mut out = BytesMut::new();
    wire::encode_open(&sent, &mut out);
    assert_eq!(decode_open(&out[19..]), Ok(sent));
    let read = theirs(&session_params(true), &out[19..], BgpOpenMessage::new()).unwrap().unwrap();
    assert_eq!(read.caps, [BgpCapability::SafiIPv4u, BgpCapability::CapASN32(65001)]);

    // RFC 9072
    let extended = open_body(&[255, 0, 5, 2, 0, 2, 2, 0]);
    assert!(matches!(theirs(&session_params(true), &extended, BgpOpenMessage::new()), Some(Err(_))));
    assert!(decode_open(&extended).unwrap().capabilities.route_refresh);
}

#[test]
fn z9_an_ipv6_next_hop_is_not_cut_to_an_ipv4_address_or_to_one_half() {
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let attribute = [&[0x80, 14, 26, 0, 1, 1, 16][..], &v6, &[0], &PREFIX].concat();
    let read = their_update(&update_body(&[&attribute], &[])).unwrap().unwrap();
    let false_hop = BgpAddr::V4(Ipv4Addr::new(0x20, 1, 0xd, 0xb8));
    let [BgpAttrItem::MPUpdates(BgpMPUpdates { nexthop, .. })] = &read.attrs[..] else { panic!("{read:?}") };
    assert_eq!(*nexthop, false_hop);

    let context = DecodeContext {
        four_octet_asn: true,
        extended_next_hop: true,
        families: Family::ALL.to_vec(),
        is_ebgp: true,
    };
    let global = std::net::Ipv6Addr::from(v6);
    for link_local in [None, Some("fe80::1".parse().unwrap())] {
        let next_hop = NextHop::V6 { global, link_local };
        let attributes = Attributes { as_path: vec![64512], ..Attributes::default() };
        let mut out = BytesMut::new();
        let family = Family::Ipv4Unicast;
        update::encode_reach(family, &next_hop, &attributes, [host_route()], &CONTEXT, usize::MAX, &mut out)
            .unwrap();
        let nlri = vec![host_route()];
        let expected = crate::message::Update::Reach { family, next_hop, attributes, nlri };
        assert_eq!(update::inspect::update(&out, &context), Ok(vec![expected]));
        let Ok(Received::Update(update)) = wire::decode(&out, &context) else { panic!("not an UPDATE") };
        assert_eq!((update.reach, update.faults), ([1, 0], vec![]));
    }
}

#[test]
fn z10_classic_nlri_is_ipv4_on_a_session_over_ipv6_too() {
    assert_eq!(session_params(true).peer_mode, BgpTransportMode::IPv4);
    let mut params = session_params(true);
    params.peer_mode = BgpTransportMode::IPv6;
    let body = [0, 5, 32, 203, 0, 113, 1, 0, 0];
    let read = theirs(&params, &body, BgpUpdateMessage::new()).unwrap().unwrap();
    assert!(matches!(read.withdraws, BgpAddrs::IPV6U(_)), "{read:?}");
    assert_eq!(decode_update(&body).unwrap().unreach, [1, 0]);
}

#[test]
fn z11_a_withdrawn_default_route_is_no_path_identifier() {
    assert!(!session_params(true).fuzzy_pathid);
    let mut params = session_params(true);
    params.fuzzy_pathid = true;
    // 0.0.0.0/0, twice, and 10.0.0.0/8.
    let body = [0, 6, 0, 0, 8, 10, 8, 11, 0, 0];
    let read = theirs(&params, &body, BgpUpdateMessage::new());
    assert!(!matches!(read, Some(Ok(BgpUpdateMessage { withdraws: BgpAddrs::IPV4U(_), .. }))), "{read:?}");
    assert_eq!(decode_update(&body).unwrap().unreach, [4, 0]);
}

#[test]
fn z12_a_notification_carries_all_its_data() {
    let sent = Notification::with_text(CEASE_ADMINISTRATIVE_SHUTDOWN, "maintenance");
    let mut out = BytesMut::new();
    wire::encode_notification(&sent, &mut out);
    let read = theirs(&session_params(true), &out[19..], BgpNotificationMessage::new()).unwrap().unwrap();
    assert_eq!(read.data, u16::from_be_bytes([11, b'm']), "two octets of data");
    assert_eq!(wire::decode(&out, &DecodeContext::default()), Ok(Received::Notification(sent)));
}

#[test]
fn z13_as_65536_is_not_as_1() {
    assert_eq!(BgpAS::new(65536), BgpAS::new(1));
    let open = |asn| Open {
        asn,
        hold_time: HoldTime::DEFAULT,
        router_id: RouterId::new([10, 0, 0, u8::try_from(asn % 251).unwrap()].into()).unwrap(),
        capabilities: Capabilities { four_octet_asn: Some(asn), ..Capabilities::default() },
    };
    let one = PeerAsn::Exactly(Asn::new(1).unwrap());
    assert_eq!(negotiate(&open(64512), &open(65536), one).unwrap_err().code(), OPEN_BAD_PEER_AS);
    assert!(negotiate(&open(65536), &open(1), PeerAsn::Internal).is_err());
    assert!(negotiate(&open(65536), &open(1), PeerAsn::External).is_ok());
}

#[test]
fn z14_flags_and_lengths_of_attributes_are_the_plain_ones() {
    let list = BgpLargeCommunityList { value: [BgpLargeCommunity { ga: 1, ldp1: 2, ldp2: 3 }].into() };
    assert_eq!(list.attr().flags, 0xf0, "Partial and Extended Length");
    let attributes = Attributes {
        as_path: vec![64512],
        communities: vec![0x0001_0002],
        extended_communities: vec![[0, 2, 0, 1, 0, 0, 0, 2]],
        large_communities: vec![(1, 2, 3)],
        ..Attributes::default()
    };
    let ours = our_update(&attributes, &CONTEXT);
    for header in [&[0x40, 2, 6][..], &[0xc0, 8, 4], &[0xc0, 16, 8], &[0xc0, 32, 12]] {
        assert!(contains(&ours, header), "{header:02x?} in {ours:02x?}");
    }
}

#[test]
fn z15_an_attribute_that_nobody_asks_for_is_not_decoded() {
    // ATTR_SET (RFC 6368): an origin AS, and the first octet of an attribute.
    let value = [0, 0, 0xfc, 0, 0x40];
    let params = session_params(true);
    let theirs = catch_unwind(AssertUnwindSafe(|| {
        BgpAttrItem::decode_from(&params, 128, 0xc0, value.len(), &value).is_err()
    }));
    assert!(theirs.is_err(), "it panics: {theirs:?}");
    let attr_set = [&[0xc0, 128, 5][..], &value].concat();
    let body = update_body(&[&ORIGIN, &AS_PATH, &NEXT_HOP, &attr_set], &PREFIX);
    let context =
        DecodeContext { four_octet_asn: true, families: Family::ALL.to_vec(), ..DecodeContext::default() };
    let read = update::inspect::update(&message(2, &body), &context);
    assert_eq!(read.map(|updates| updates.len()), Ok(1));
}
