//! Properties of the codec: what is written reads the same, messages are as full as they get, and no octets from
//! outside break anything.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::{collection::vec, option, prelude::*, sample::subsequence};
use zettabgp::afi::{BgpAddrV4, BgpAddrV6, encode_bgpitems_to};

use super::{DecodeContext, EncodeContext, Received, decode, frame, update};
use crate::{
    attributes::{Attributes, NextHop},
    capabilities::{Capabilities, GracefulRestart, LongLivedFamily},
    message::{Open, RefreshSubtype, RouteRefresh, Update},
    notification::Notification,
    types::{Family, HoldTime, RouterId},
};

fn v4_net() -> impl Strategy<Value = IpNet> {
    (any::<u32>(), 0_u8..=32)
        .prop_map(|(bits, length)| Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), length).trunc().into())
}

fn v6_net() -> impl Strategy<Value = IpNet> {
    (any::<u128>(), 0_u8..=128)
        .prop_map(|(bits, length)| Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length).trunc().into())
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort();
    values.dedup();
    values
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (
        vec(1_u32.., 0..300),
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        vec(any::<u32>(), 0..70),
        vec(any::<[u8; 8]>(), 0..40),
        vec(any::<(u32, u32, u32)>(), 0..25),
        option::of(any::<u32>()),
    )
        .prop_map(|(as_path, med, local_pref, communities, extended, large, only_to_customer)| {
            Attributes {
                as_path,
                med,
                local_pref,
                communities: sorted(communities),
                extended_communities: sorted(extended),
                large_communities: sorted(large),
                only_to_customer,
            }
        })
}

/// Addresses that can be a host's.
fn next_hop_v4() -> impl Strategy<Value = NextHop> {
    (1_u32 << 24..224 << 24).prop_map(|bits| NextHop::V4(Ipv4Addr::from_bits(bits)))
}

fn next_hop_v6() -> impl Strategy<Value = NextHop> {
    (1_u128..0xff << 120, option::of(any::<u128>())).prop_map(|(global, link_local)| NextHop::V6 {
        global: Ipv6Addr::from_bits(global),
        link_local: link_local.map(Ipv6Addr::from_bits),
    })
}

/// Family, next hop and prefixes that go together.
fn routes() -> impl Strategy<Value = (Family, NextHop, Vec<IpNet>)> {
    prop_oneof![
        (next_hop_v4(), vec(v4_net(), 1..2000)).prop_map(|(hop, nlri)| (Family::Ipv4Unicast, hop, nlri)),
        (next_hop_v6(), vec(v4_net(), 1..2000)).prop_map(|(hop, nlri)| (Family::Ipv4Unicast, hop, nlri)),
        (next_hop_v6(), vec(v6_net(), 1..700)).prop_map(|(hop, nlri)| (Family::Ipv6Unicast, hop, nlri)),
    ]
}

fn encode_context() -> impl Strategy<Value = EncodeContext> {
    let max_length = prop_oneof![Just(frame::MAX_LENGTH), Just(frame::MAX_EXTENDED_LENGTH)];
    (any::<bool>(), max_length)
        .prop_map(|(four_octet_asn, max_length)| EncodeContext { four_octet_asn, max_length })
}

fn decode_context() -> impl Strategy<Value = DecodeContext> {
    let families = subsequence(Family::ALL.to_vec(), 0..=2);
    (any::<[bool; 3]>(), families).prop_map(|([four_octet_asn, extended_next_hop, is_ebgp], families)| {
        DecodeContext { four_octet_asn, extended_next_hop, families, is_ebgp }
    })
}

fn reader(context: &EncodeContext) -> DecodeContext {
    DecodeContext {
        four_octet_asn: context.four_octet_asn,
        extended_next_hop: true,
        families: Family::ALL.to_vec(),
        is_ebgp: false,
    }
}

/// The same families for long.
fn long_lived(restart: Option<&GracefulRestart>) -> Vec<LongLivedFamily> {
    let of = |restart: &GracefulRestart| {
        let stale_time_secs = u32::from(restart.restart_time_secs) << 12 | 1;
        let of = |&(family, is_forwarding)| LongLivedFamily { family, is_forwarding, stale_time_secs };
        restart.families.iter().map(of).collect()
    };
    restart.map(of).unwrap_or_default()
}

fn open() -> impl Strategy<Value = Open> {
    let restart = (any::<[bool; 4]>(), 0_u16..4096, subsequence(Family::ALL.to_vec(), 0..=2)).prop_map(
        |([restarting, notification, first, second], restart_time_secs, families)| GracefulRestart {
            restarting,
            notification,
            restart_time_secs,
            families: families.into_iter().zip([first, second]).collect(),
        },
    );
    let lists = (subsequence(Family::ALL.to_vec(), 0..=2), subsequence(Family::ALL.to_vec(), 0..=2));
    let hold_time = any::<u16>().prop_filter_map("1 and 2 are no hold times", HoldTime::new);
    (any::<u32>(), any::<[bool; 4]>(), option::of(restart), lists, hold_time, 1_u32..).prop_map(
        |(asn, [four_octet, refresh, enhanced, extended], graceful_restart, lists, hold_time, id)| Open {
            asn: if four_octet { asn } else { asn & 0xffff },
            hold_time,
            router_id: RouterId::new(Ipv4Addr::from_bits(id)).unwrap(),
            capabilities: Capabilities {
                multiprotocol: lists.0,
                four_octet_asn: four_octet.then_some(asn),
                route_refresh: refresh,
                enhanced_route_refresh: enhanced,
                extended_next_hop: lists.1,
                extended_message: extended,
                long_lived: long_lived(graceful_restart.as_ref()),
                roles: if extended { vec![u8::from(refresh), 200] } else { Vec::new() },
                graceful_restart,
                ..Capabilities::default()
            },
        },
    )
}

/// Cuts a buffer into messages; every one of them is whole.
fn split(mut bytes: &[u8], max_length: usize) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (message, rest) = bytes.split_at(frame::next(bytes, max_length).unwrap().unwrap());
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// Octets of a prefix as `zettabgp` writes them.
fn their_octets(nlri: &[IpNet]) -> Vec<u8> {
    let mut buffer = vec![0; nlri.len() * 17];
    let mut length = 0;
    for prefix in nlri {
        let rest = &mut buffer[length..];
        length += match prefix {
            IpNet::V4(net) => encode_bgpitems_to(&[BgpAddrV4::new(net.addr(), net.prefix_len())], rest),
            IpNet::V6(net) => encode_bgpitems_to(&[BgpAddrV6::new(net.addr(), net.prefix_len())], rest),
        }
        .unwrap();
    }
    buffer.truncate(length);
    buffer
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn routes_read_as_they_were_written_and_every_message_is_full(
        (family, next_hop, nlri) in routes(),
        attributes in attributes(),
        context in encode_context(),
    ) {
        let mut out = BytesMut::new();
        let packed =
            update::encode_reach(family, &next_hop, &attributes, nlri.iter().copied(), &context, usize::MAX, &mut out).unwrap();
        let messages = split(&out, context.max_length);
        prop_assert_eq!((packed.messages, packed.octets, packed.prefixes), (messages.len(), out.len(), nlri.len()));
        let mut read = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let updates = update::inspect::update(message, &reader(&context)).unwrap();
            let [Update::Reach { family: f, next_hop: h, attributes: a, nlri: n }] = &updates[..] else {
                panic!("{updates:?}")
            };
            prop_assert_eq!((f, h, a), (&family, &next_hop, &attributes));
            read.extend_from_slice(n);
            if index + 1 < messages.len() {
                let next = their_octets(&nlri[read.len()..=read.len()]).len();
                prop_assert!(message.len() + next > context.max_length, "the next prefix would have fitted");
            }
        }
        prop_assert_eq!(read, nlri);
    }

    #[test]
    fn prefixes_are_the_octets_that_zettabgp_writes(nlri in vec(v4_net(), 1..700), nlri6 in vec(v6_net(), 1..230)) {
        let context = EncodeContext { four_octet_asn: true, max_length: frame::MAX_LENGTH };
        let mut out = BytesMut::new();
        update::encode_unreach(Family::Ipv4Unicast, nlri.iter().copied(), &context, usize::MAX, &mut out);
        prop_assert_eq!(&out[21..out.len() - 2], &their_octets(&nlri)[..]);
        out.clear();
        update::encode_unreach(Family::Ipv6Unicast, nlri6.iter().copied(), &context, usize::MAX, &mut out);
        prop_assert_eq!(&out[30..], &their_octets(&nlri6)[..]);
    }

    #[test]
    fn host_bits_do_not_go_out(bits: u32, length in 0_u8..=32) {
        let context = EncodeContext { four_octet_asn: true, max_length: frame::MAX_LENGTH };
        let net = Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), length);
        let [mut dirty, mut clean] = [BytesMut::new(), BytesMut::new()];
        update::encode_unreach(Family::Ipv4Unicast, [IpNet::V4(net)], &context, usize::MAX, &mut dirty);
        update::encode_unreach(Family::Ipv4Unicast, [IpNet::V4(net.trunc())], &context, usize::MAX, &mut clean);
        prop_assert_eq!(dirty, clean);
    }

    #[test]
    fn an_open_reads_as_it_was_written(open in open()) {
        let mut out = BytesMut::new();
        super::encode_open(&open, &mut out);
        prop_assert_eq!(split(&out, frame::MAX_LENGTH).len(), 1);
        prop_assert_eq!(decode(&out, &DecodeContext::default()), Ok(Received::Open(open)));
    }

    #[test]
    fn a_notification_reads_as_it_was_written(code: u8, subcode: u8, data in vec(any::<u8>(), 0..4075)) {
        let notification = Notification { code, subcode, data };
        let mut out = BytesMut::new();
        super::encode_notification(&notification, &mut out);
        prop_assert_eq!(split(&out, frame::MAX_LENGTH).len(), 1);
        prop_assert_eq!(decode(&out, &DecodeContext::default()), Ok(Received::Notification(notification)));
    }

    #[test]
    fn keepalive_and_route_refresh_read_as_they_were_written(afi: u16, safi: u8, subtype in 0_u8..5) {
        let subtype = match subtype {
            0 => RefreshSubtype::Request,
            1 => RefreshSubtype::Begin,
            2 => RefreshSubtype::End,
            other => RefreshSubtype::Unknown(other),
        };
        let refresh = RouteRefresh { afi, safi, subtype };
        let mut out = BytesMut::new();
        super::encode_keepalive(&mut out);
        super::encode_route_refresh(&refresh, &mut out);
        let read: Vec<_> =
            split(&out, frame::MAX_LENGTH).iter().map(|m| decode(m, &DecodeContext::default())).collect();
        prop_assert_eq!(read, [Ok(Received::Keepalive), Ok(Received::RouteRefresh(refresh))]);
    }
}

/// A frame around any body, so that the decoders behind the header are reached.
fn framed(code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(code);
    message.extend(body);
    message
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_framed_or_refused(bytes in vec(any::<u8>(), 0..64), marker in 0_usize..=16) {
        let buffer = [&[0xff; 16][..marker], &bytes].concat();
        if let Ok(Some(length)) = frame::next(&buffer, frame::MAX_LENGTH) {
            prop_assert!((19..=buffer.len()).contains(&length));
        }
    }

    #[test]
    fn any_body_decodes_or_is_refused(
        code in 1_u8..=5,
        body in vec(any::<u8>(), 0..200),
        context in decode_context(),
    ) {
        // What is asserted is that this returns.
        let _ = decode(&framed(code, &body), &context);
    }

    #[test]
    fn a_changed_update_decodes_or_is_refused(
        (family, next_hop, nlri) in routes(),
        attributes in attributes(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        context in decode_context(),
    ) {
        let mut out = BytesMut::new();
        let encode = EncodeContext { four_octet_asn: context.four_octet_asn, max_length: frame::MAX_LENGTH };
        let nlri = nlri.into_iter().take(20);
        update::encode_reach(family, &next_hop, &attributes, nlri, &encode, usize::MAX, &mut out).unwrap();
        let mut message = split(&out, frame::MAX_LENGTH)[0].to_vec();
        for (at, octet) in changes {
            let body = message.len() - 19;
            message[19 + at.index(body)] = octet;
        }
        if let Ok(Received::Update(update)) = decode(&message, &context) {
            let counted = update.reach.iter().chain(&update.unreach).sum::<usize>();
            prop_assert!(counted <= message.len());
        }
        // The reader of tests hands to zettabgp only what was checked.
        let _ = update::inspect::update(&message, &context);
    }

    #[test]
    fn a_changed_open_decodes_or_is_refused(
        open in open(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut out = BytesMut::new();
        super::encode_open(&open, &mut out);
        for (at, octet) in changes {
            let body = out.len() - 19;
            out[19 + at.index(body)] = octet;
        }
        let _ = decode(&out, &DecodeContext::default());
    }
}
