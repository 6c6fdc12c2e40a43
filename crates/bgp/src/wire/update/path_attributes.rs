//! Path attributes of our own routes, as bytes.
//!
//! Values are encoded by `zettabgp` where it does it right. Headers are written here, because it sets the extended
//! length on every AS_PATH and community list and the Partial bit on LARGE_COMMUNITIES, and AS_PATH is, because
//! it writes AS_SEQUENCE as AS_SET.

use bytes::{BufMut, BytesMut};
use zettabgp::message::attributes::{
    BgpAttr,
    community::{BgpCommunity, BgpCommunityList, BgpLargeCommunity, BgpLargeCommunityList},
    extcommunity::{BgpExtCommunity, BgpExtCommunityList},
    localpref::BgpLocalpref,
    med::BgpMED,
    nexthop::BgpNextHop,
    origin::{BgpAttrOrigin, BgpOrigin},
};

use super::{code, flags};
use crate::{
    attributes::Attributes,
    types::Asn,
    wire::{EncodeContext, session_params},
};

/// AS_PATH segment type (RFC 4271 §4.3).
const AS_SEQUENCE: u8 = 2;
/// Longest segment: its length is one octet.
const MAX_SEGMENT: usize = 255;

/// Appends every attribute in the order of their codes, as RFC 4271 §5 recommends. `next_hop` is NEXT_HOP; without
/// it the next hop is in MP_REACH_NLRI, which is not written here.
pub(super) fn encode(
    attributes: &Attributes,
    next_hop: Option<std::net::Ipv4Addr>,
    context: &EncodeContext,
    out: &mut BytesMut,
) {
    put_known(code::ORIGIN, flags::WELL_KNOWN, 1, &BgpOrigin { value: BgpAttrOrigin::Igp }, out);
    put_as_path(&attributes.as_path, context.four_octet_asn, out);
    if let Some(next_hop) = next_hop {
        put_known(code::NEXT_HOP, flags::WELL_KNOWN, 4, &BgpNextHop { value: next_hop.into() }, out);
    }
    if let Some(value) = attributes.med {
        put_known(code::MULTI_EXIT_DISC, flags::OPTIONAL, 4, &BgpMED { value }, out);
    }
    if let Some(value) = attributes.local_pref {
        put_known(code::LOCAL_PREF, flags::WELL_KNOWN, 4, &BgpLocalpref { value }, out);
    }
    put_communities(attributes, out);
    put_extended_communities(attributes, out);
    // RFC 6793 §4.2.2: only where AS_TRANS stands for a number.
    if !context.four_octet_asn && attributes.as_path.iter().any(|asn| *asn > u32::from(u16::MAX)) {
        put_segments(code::AS4_PATH, flags::OPTIONAL_TRANSITIVE, &attributes.as_path, true, out);
    }
    put_large_communities(attributes, out);
    // Four octets on every session (RFC 9234 §5).
    if let Some(asn) = attributes.only_to_customer {
        put_header(code::ONLY_TO_CUSTOMER, flags::OPTIONAL_TRANSITIVE, 4, out);
        out.put_u32(asn);
    }
}

fn put_communities(attributes: &Attributes, out: &mut BytesMut) {
    let value: std::collections::BTreeSet<_> =
        attributes.communities.iter().map(|value| BgpCommunity { value: *value }).collect();
    if !value.is_empty() {
        let length = value.len() * 4;
        put_known(code::COMMUNITIES, flags::OPTIONAL_TRANSITIVE, length, &BgpCommunityList { value }, out);
    }
}

fn put_extended_communities(attributes: &Attributes, out: &mut BytesMut) {
    let value: std::collections::BTreeSet<_> = attributes
        .extended_communities
        .iter()
        .map(|&[ctype, subtype, a0, a1, b0, b1, b2, b3]| BgpExtCommunity {
            ctype,
            subtype,
            a: u16::from_be_bytes([a0, a1]),
            b: u32::from_be_bytes([b0, b1, b2, b3]),
        })
        .collect();
    if !value.is_empty() {
        let length = value.len() * 8;
        let list = BgpExtCommunityList { value };
        put_known(code::EXTENDED_COMMUNITIES, flags::OPTIONAL_TRANSITIVE, length, &list, out);
    }
}

fn put_large_communities(attributes: &Attributes, out: &mut BytesMut) {
    let value: std::collections::BTreeSet<_> = attributes
        .large_communities
        .iter()
        .map(|&(ga, ldp1, ldp2)| BgpLargeCommunity { ga, ldp1, ldp2 })
        .collect();
    if !value.is_empty() {
        let length = value.len() * 12;
        let list = BgpLargeCommunityList { value };
        put_known(code::LARGE_COMMUNITIES, flags::OPTIONAL_TRANSITIVE, length, &list, out);
    }
}

fn put_as_path(path: &[u32], four_octet_asn: bool, out: &mut BytesMut) {
    put_segments(code::AS_PATH, flags::WELL_KNOWN, path, four_octet_asn, out);
}

/// One AS_SEQUENCE, or several where there are more than 255 AS numbers: the last ones written are full, so that a
/// router can prepend to the first (RFC 4271 §5.1.2).
fn put_segments(code: u8, flags: u8, path: &[u32], four_octet_asn: bool, out: &mut BytesMut) {
    let width = if four_octet_asn { 4 } else { 2 };
    let segments = path.len().div_ceil(MAX_SEGMENT);
    put_header(code, flags, segments * 2 + path.len() * width, out);
    let (first, full) = path.split_at(path.len() % MAX_SEGMENT);
    for segment in std::iter::once(first).filter(|first| !first.is_empty()).chain(full.chunks(MAX_SEGMENT)) {
        out.put_u8(AS_SEQUENCE);
        out.put_u8(u8::try_from(segment.len()).expect("a segment has at most 255 AS numbers"));
        for asn in segment {
            if four_octet_asn {
                out.put_u32(*asn);
            } else {
                out.put_u16(Asn::new(*asn).map_or(0, Asn::two_octets));
            }
        }
    }
}

/// An attribute whose value of `length` octets `zettabgp` writes.
fn put_known(code: u8, flags: u8, length: usize, attribute: &impl BgpAttr, out: &mut BytesMut) {
    put_header(code, flags, length, out);
    let start = out.len();
    out.put_bytes(0, length);
    attribute
        .encode_to(&session_params(true), out.get_mut(start..).unwrap_or_default())
        .expect("the value is exactly as long as the room it gets");
}

/// Flags, code and length; the length is extended only where it has to be. One beyond 65,535 can't be written: it
/// makes the message too long, which is found by the caller, so what it says here goes nowhere.
fn put_header(code: u8, attribute_flags: u8, length: usize, out: &mut BytesMut) {
    if let Ok(length) = u8::try_from(length) {
        out.put_slice(&[attribute_flags, code, length]);
    } else {
        out.put_slice(&[attribute_flags | flags::EXTENDED_LENGTH, code]);
        out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
    }
}
