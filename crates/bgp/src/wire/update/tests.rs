//! UPDATE: packing, the octets of our attributes, and what a reader makes of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Packed, encode_reach, inspect};
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
