//! UPDATE: packing, the octets of our attributes, and what a reader makes of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{EncodeError, Packed, encode_end_of_rib, encode_reach, encode_unreach, inspect};
use crate::{
    attributes::{Attributes, NextHop},
    message::Update,
    types::Family,
    wire::{DecodeContext, EncodeContext, frame},
};

const CONTEXT: EncodeContext = EncodeContext { four_octet_asn: true, max_length: frame::MAX_LENGTH };

fn plain() -> Attributes {
    Attributes { as_path: vec![64512], ..Attributes::default() }
}

fn v4_hosts(count: u32) -> impl Iterator<Item = IpNet> {
    (0..count).map(|n| Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0a00_0000 + n), 32).into())
}

fn v6_hosts(count: u32) -> impl Iterator<Item = IpNet> {
    (0..count)
        .map(|n| Ipv6Net::new_assert(Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(n)), 128).into())
}

fn v4_hop() -> NextHop {
    NextHop::V4([192, 0, 2, 1].into())
}

fn v6_hop() -> NextHop {
    NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None }
}

fn reader(context: &EncodeContext) -> DecodeContext {
    DecodeContext {
        four_octet_asn: context.four_octet_asn,
        extended_next_hop: true,
        families: Family::ALL.to_vec(),
        is_ebgp: false,
    }
}

/// The messages in `bytes`, cut as a receiver cuts them.
fn messages(mut bytes: &[u8], context: &EncodeContext) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let length = frame::next(bytes, context.max_length).unwrap().expect("the last message is whole");
        let (message, rest) = bytes.split_at(length);
        messages.push(message.to_vec());
        bytes = rest;
    }
    messages
}

fn inspect_all(bytes: &[u8], context: &EncodeContext) -> Vec<Update> {
    let reader = reader(context);
    messages(bytes, context).iter().flat_map(|message| inspect::update(message, &reader).unwrap()).collect()
}

#[test]
fn a_hundred_thousand_ipv4_host_routes_take_124_messages_of_810() {
    let mut out = BytesMut::new();
    let packed = encode_reach(
        Family::Ipv4Unicast,
        &v4_hop(),
        &plain(),
        v4_hosts(100_000),
        &CONTEXT,
        usize::MAX,
        &mut out,
    )
    .unwrap();
    assert_eq!(packed, Packed { messages: 124, octets: 505_332, prefixes: 100_000 });
    assert_eq!(out.len(), 505_332);
    let updates = inspect_all(&out, &CONTEXT);
    let Some(Update::Reach { nlri, attributes, next_hop, .. }) = updates.first() else {
        panic!("{updates:?}")
    };
    assert_eq!((nlri.len(), attributes, next_hop), (810, &plain(), &v4_hop()));
}

#[test]
fn a_hundred_thousand_ipv6_host_routes_take_422_messages_of_237() {
    let mut out = BytesMut::new();
    let packed = encode_reach(
        Family::Ipv6Unicast,
        &v6_hop(),
        &plain(),
        v6_hosts(100_000),
        &CONTEXT,
        usize::MAX,
        &mut out,
    )
    .unwrap();
    assert_eq!(packed, Packed { messages: 422, octets: 1_725_742, prefixes: 100_000 });
    let updates = inspect_all(&out, &CONTEXT);
    let Some(Update::Reach { nlri, attributes, next_hop, .. }) = updates.first() else {
        panic!("{updates:?}")
    };
    assert_eq!((nlri.len(), attributes, next_hop), (237, &plain(), &v6_hop()));
}

#[test]
fn withdrawals_are_packed_as_full() {
    let mut out = BytesMut::new();
    let packed = encode_unreach(Family::Ipv4Unicast, v4_hosts(100_000), &CONTEXT, usize::MAX, &mut out);
    // 23 octets of frame, 814 prefixes of 5 octets.
    assert_eq!(packed, Packed { messages: 123, octets: 123 * 23 + 500_000, prefixes: 100_000 });
    let updates = inspect_all(&out, &CONTEXT);
    let expected = v4_hosts(100_000).collect::<Vec<_>>();
    let withdrawn: Vec<IpNet> = updates.iter().flat_map(withdrawals).collect();
    assert_eq!(withdrawn, expected);

    out.clear();
    let packed = encode_unreach(Family::Ipv6Unicast, v6_hosts(1000), &CONTEXT, usize::MAX, &mut out);
    // 30 octets of frame, 239 prefixes of 17 octets.
    assert_eq!(packed, Packed { messages: 5, octets: 5 * 30 + 17_000, prefixes: 1000 });
    let withdrawn: Vec<IpNet> = inspect_all(&out, &CONTEXT).iter().flat_map(withdrawals).collect();
    assert_eq!(withdrawn, v6_hosts(1000).collect::<Vec<_>>());
}

fn withdrawals(update: &Update) -> Vec<IpNet> {
    match update {
        Update::Unreach { nlri, .. } => nlri.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn extended_messages_take_more() {
    let context = EncodeContext { max_length: frame::MAX_EXTENDED_LENGTH, ..CONTEXT };
    let mut out = BytesMut::new();
    let packed = encode_reach(
        Family::Ipv4Unicast,
        &v4_hop(),
        &plain(),
        v4_hosts(100_000),
        &context,
        usize::MAX,
        &mut out,
    );
    // (65,535 - 43) / 5 = 13,098 prefixes.
    assert_eq!(packed, Ok(Packed { messages: 8, octets: 8 * 43 + 500_000, prefixes: 100_000 }));
    assert_eq!(inspect_all(&out, &context).len(), 8);
}

#[test]
fn nothing_to_send_is_no_message() {
    let mut out = BytesMut::new();
    let none = std::iter::empty::<IpNet>;
    let packed =
        encode_reach(Family::Ipv4Unicast, &v4_hop(), &plain(), none(), &CONTEXT, usize::MAX, &mut out);
    assert_eq!(packed, Ok(Packed::default()));
    assert_eq!(
        encode_unreach(Family::Ipv6Unicast, none(), &CONTEXT, usize::MAX, &mut out),
        Packed::default()
    );
    assert!(out.is_empty());
}

#[test]
fn what_is_in_the_buffer_stays() {
    let mut out = BytesMut::from(&b"before"[..]);
    encode_reach(Family::Ipv4Unicast, &v4_hop(), &plain(), v4_hosts(2), &CONTEXT, usize::MAX, &mut out)
        .unwrap();
    assert_eq!(out[..6], b"before"[..]);
    assert_eq!(inspect_all(&out[6..], &CONTEXT).len(), 1);
}

#[test]
fn attributes_that_leave_no_room_for_a_prefix_are_an_error() {
    let with = |communities: u32| Attributes { communities: (0..communities).collect(), ..plain() };
    let mut out = BytesMut::new();
    // 43 octets without communities, 4 of header, 4 for each.
    let longest = (4096 - 43 - 4 - 5) / 4;
    let packed = encode_reach(
        Family::Ipv4Unicast,
        &v4_hop(),
        &with(longest),
        v4_hosts(2),
        &CONTEXT,
        usize::MAX,
        &mut out,
    )
    .unwrap();
    assert_eq!(packed.messages, 2);
    assert_eq!(inspect_all(&out, &CONTEXT).len(), 2);
    out.clear();
    for communities in [longest + 1, 20_000] {
        let attributes = with(communities);
        let error = encode_reach(
            Family::Ipv4Unicast,
            &v4_hop(),
            &attributes,
            v4_hosts(2),
            &CONTEXT,
            usize::MAX,
            &mut out,
        );
        let octets = 47 + usize::try_from(communities).unwrap() * 4;
        assert_eq!(error, Err(EncodeError::AttributesTooLong { octets, max_length: 4096 }));
        assert!(out.is_empty());
    }
}

#[test]
fn an_ipv6_prefix_never_gets_an_ipv4_next_hop() {
    let mut out = BytesMut::new();
    let error =
        encode_reach(Family::Ipv6Unicast, &v4_hop(), &plain(), v6_hosts(1), &CONTEXT, usize::MAX, &mut out);
    assert_eq!((error, out.len()), (Err(EncodeError::NextHopFamily), 0));
}

#[test]
fn end_of_rib_reads_as_such() {
    let mut out = BytesMut::new();
    encode_end_of_rib(Family::Ipv4Unicast, &mut out);
    encode_end_of_rib(Family::Ipv6Unicast, &mut out);
    assert_eq!(out.len(), 23 + 29);
    let expected = Family::ALL.map(Update::EndOfRib);
    assert_eq!(inspect_all(&out, &CONTEXT), expected);
}

#[test]
fn a_two_octet_peer_gets_as_trans_and_as4_path_only_where_they_are_needed() {
    let context = EncodeContext { four_octet_asn: false, ..CONTEXT };
    let octets = |path: &[u32]| {
        let attributes = Attributes { as_path: path.to_vec(), ..Attributes::default() };
        let mut out = BytesMut::new();
        encode_reach(
            Family::Ipv4Unicast,
            &v4_hop(),
            &attributes,
            v4_hosts(1),
            &context,
            usize::MAX,
            &mut out,
        )
        .unwrap();
        let updates = inspect_all(&out, &context);
        assert!(matches!(&updates[..], [Update::Reach { attributes: read, .. }] if *read == attributes));
        out
    };
    let has = |bytes: &[u8], wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    let small = octets(&[64512, 1]);
    assert!(has(&small, &[0x40, 2, 6, 2, 2, 0xfc, 0, 0, 1]) && !has(&small, &[0xc0, 17]), "{small:02x?}");
    let large = octets(&[4_200_000_001, 1]);
    assert!(has(&large, &[0x40, 2, 6, 2, 2, 0x5b, 0xa0, 0, 1]), "{large:02x?}");
    assert!(has(&large, &[0xc0, 17, 10, 2, 2, 0xfa, 0x56, 0xea, 1, 0, 0, 0, 1]), "{large:02x?}");
}

#[test]
fn a_path_of_more_than_255_numbers_has_full_segments_behind_the_first() {
    for length in [255, 256, 600] {
        let attributes = Attributes { as_path: (1..=length).collect(), ..Attributes::default() };
        let mut out = BytesMut::new();
        encode_reach(
            Family::Ipv4Unicast,
            &v4_hop(),
            &attributes,
            v4_hosts(1),
            &CONTEXT,
            usize::MAX,
            &mut out,
        )
        .unwrap();
        // Behind the frame, ORIGIN, and the header of AS_PATH, which has an extended length.
        assert_eq!(out[23 + 4 + 4..][..2], [2, u8::try_from((length - 1) % 255 + 1).unwrap()]);
        let updates = inspect_all(&out, &CONTEXT);
        assert!(matches!(&updates[..], [Update::Reach { attributes: read, .. }] if *read == attributes));
    }
}

#[test]
fn no_message_is_begun_beyond_the_limit_and_the_rest_goes_into_the_next_call() {
    let mut whole = BytesMut::new();
    encode_reach(Family::Ipv4Unicast, &v4_hop(), &plain(), v4_hosts(5000), &CONTEXT, usize::MAX, &mut whole)
        .unwrap();
    let mut out = BytesMut::new();
    let (mut calls, mut sent) = (0, 0);
    while sent < 5000 {
        let left = v4_hosts(5000).skip(sent);
        let limit = out.len() + 6000;
        let packed =
            encode_reach(Family::Ipv4Unicast, &v4_hop(), &plain(), left, &CONTEXT, limit, &mut out).unwrap();
        assert!(packed.messages <= 2, "{packed:?}");
        calls += 1;
        sent += packed.prefixes;
    }
    assert_eq!((calls, sent, out), (4, 5000, whole));
    let mut full = BytesMut::from(&b"full"[..]);
    assert_eq!(encode_unreach(Family::Ipv4Unicast, v4_hosts(1), &CONTEXT, 4, &mut full), Packed::default());
}
