//! Communities as people write them: RFC 1997, RFC 4360 and RFC 8092, the well-known names of IANA's registry,
//! and the link bandwidth extended community.
//!
//! What a router does on account of one is the router's; here they are only numbers with names.

use std::{fmt, str::FromStr};

use crate::{route::RouteAttributes, types::Asn};

/// A community of one of the three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997: four octets, written `64512:100` or by a well-known name.
    Standard(u32),
    /// RFC 4360: eight octets; route targets are written `rt:64512:100`, route origins `soo:64512:100`.
    Extended([u8; 8]),
    /// RFC 8092: three times four octets, written `64512:1:2`.
    Large(u32, u32, u32),
}

/// The names of the IANA registry "BGP Well-known Communities" that routers know.
const WELL_KNOWN: [(&str, u32); 9] = [
    // RFC 8326
    ("graceful-shutdown", 0xFFFF_0000),
    // RFC 7611
    ("accept-own", 0xFFFF_0001),
    // RFC 9494
    ("llgr-stale", 0xFFFF_0006),
    ("no-llgr", 0xFFFF_0007),
    // RFC 7999
    ("blackhole", 0xFFFF_029A),
    // RFC 1997
    ("no-export", 0xFFFF_FF01),
    ("no-advertise", 0xFFFF_FF02),
    ("no-export-subconfed", 0xFFFF_FF03),
    // RFC 3765
    ("no-peer", 0xFFFF_FF04),
];

/// RFC 8326 §4: routes with it are to be left for others.
pub const GRACEFUL_SHUTDOWN: Community = Community::Standard(0xFFFF_0000);

/// Subtypes of RFC 4360 §4 and §5.
const ROUTE_TARGET: u8 = 0x02;
const ROUTE_ORIGIN: u8 = 0x03;
/// Subtype of the link bandwidth extended community.
const LINK_BANDWIDTH: u8 = 0x04;
/// RFC 4360 §2: the bit of the type that says non-transitive across ASes.
const NON_TRANSITIVE: u8 = 0x40;

/// Text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no community: expected one like 64512:100, a large one like 64512:1:2, rt:64512:100 or \
     soo:64512:100, or one of graceful-shutdown, accept-own, llgr-stale, no-llgr, blackhole, no-export, \
     no-advertise, no-export-subconfed, no-peer"
)]
pub struct ParseCommunityError(String);

impl FromStr for Community {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Community, ParseCommunityError> {
        parse(text).ok_or_else(|| ParseCommunityError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Community> {
    if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
        return Some(Community::Standard(*value));
    }
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["rt", asn, value] => extended(ROUTE_TARGET, number(asn)?, number(value)?),
        ["soo", asn, value] => extended(ROUTE_ORIGIN, number(asn)?, number(value)?),
        [high, low] => {
            let (high, low) = (u16::try_from(number(high)?).ok()?, u16::try_from(number(low)?).ok()?);
            Some(Community::Standard(u32::from(high) << 16 | u32::from(low)))
        }
        [global, first, second] => Some(Community::Large(number(global)?, number(first)?, number(second)?)),
        _ => None,
    }
}

/// Digits only: what `u32` takes beside them, a plus sign, nobody means.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// RFC 4360 §3.1 for an AS number of two octets, RFC 5668 §2 for one of four.
fn extended(subtype: u8, asn: u32, value: u32) -> Option<Community> {
    let mut octets = [0; 8];
    let [kind, sub, rest @ ..] = &mut octets;
    *sub = subtype;
    let [a, b, c, d] = value.to_be_bytes();
    *rest = match u16::try_from(asn) {
        Ok(asn) => {
            let [high, low] = asn.to_be_bytes();
            [high, low, a, b, c, d]
        }
        Err(_) => {
            *kind = 0x02;
            let [low_a, low_b] = u16::try_from(value).ok()?.to_be_bytes();
            let [w, x, y, z] = asn.to_be_bytes();
            [w, x, y, z, low_a, low_b]
        }
    };
    Some(Community::Extended(octets))
}

/// The link bandwidth extended community: the AS that attaches it (AS_TRANS where it does not fit two octets) and
/// octets a second as an IEEE float. It is transitive towards another AS, where a non-transitive one would be
/// dropped, and non-transitive inside ours.
pub fn link_bandwidth(asn: Asn, octets_per_second: f32, is_external: bool) -> Community {
    let kind = if is_external { 0 } else { NON_TRANSITIVE };
    let [high, low] = asn.two_octets().to_be_bytes();
    let [a, b, c, d] = octets_per_second.to_be_bytes();
    Community::Extended([kind, LINK_BANDWIDTH, high, low, a, b, c, d])
}

/// Whether it is a link bandwidth, of either kind.
pub(crate) fn is_link_bandwidth([kind, subtype, ..]: &[u8; 8]) -> bool {
    matches!(*kind, 0 | NON_TRANSITIVE) && *subtype == LINK_BANDWIDTH
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Community::Standard(value) => match WELL_KNOWN.iter().find(|(_, known)| known == value) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", value >> 16, value & 0xFFFF),
            },
            Community::Extended([kind @ (0 | NON_TRANSITIVE), LINK_BANDWIDTH, high, low, rate @ ..]) => {
                let asn = u16::from_be_bytes([*high, *low]);
                let scope = if *kind == 0 { "" } else { " (non-transitive)" };
                write!(f, "link-bandwidth:{asn}:{}{scope}", f32::from_be_bytes(*rate))
            }
            Community::Extended([0, subtype @ (ROUTE_TARGET | ROUTE_ORIGIN), high, low, value @ ..]) => {
                let name = if *subtype == ROUTE_TARGET { "rt" } else { "soo" };
                write!(f, "{name}:{}:{}", u16::from_be_bytes([*high, *low]), u32::from_be_bytes(*value))
            }
            Community::Extended([0x02, subtype @ (ROUTE_TARGET | ROUTE_ORIGIN), a, b, c, d, high, low]) => {
                let name = if *subtype == ROUTE_TARGET { "rt" } else { "soo" };
                let (asn, value) = (u32::from_be_bytes([*a, *b, *c, *d]), u16::from_be_bytes([*high, *low]));
                write!(f, "{name}:{asn}:{value}")
            }
            Community::Extended(octets) => write!(f, "0x{:016x}", u64::from_be_bytes(*octets)),
            Community::Large(global, first, second) => write!(f, "{global}:{first}:{second}"),
        }
    }
}

impl RouteAttributes {
    /// Adds communities of any kind; the lists stay sorted and without duplicates.
    pub fn add_communities(&mut self, communities: impl IntoIterator<Item = Community>) {
        for community in communities {
            match community {
                Community::Standard(value) => insert(&mut self.communities, value),
                Community::Extended(octets) => insert(&mut self.extended_communities, octets),
                Community::Large(global, first, second) => {
                    insert(&mut self.large_communities, (global, first, second));
                }
            }
        }
    }
}

fn insert<T: Ord>(sorted: &mut Vec<T>, value: T) {
    if let Err(place) = sorted.binary_search(&value) {
        sorted.insert(place, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_are_read_and_written_as_routers_do() {
        for (text, community) in [
            ("64512:100", Community::Standard(0xFC00_0064)),
            ("0:0", Community::Standard(0)),
            ("no-export", Community::Standard(0xFFFF_FF01)),
            ("no-peer", Community::Standard(0xFFFF_FF04)),
            ("graceful-shutdown", GRACEFUL_SHUTDOWN),
            ("blackhole", Community::Standard(65535 << 16 | 666)),
            ("4200000000:1:2", Community::Large(4_200_000_000, 1, 2)),
            ("rt:64512:4000000000", Community::Extended([0, 2, 0xFC, 0, 0xEE, 0x6B, 0x28, 0])),
            ("soo:4200000000:7", Community::Extended([2, 3, 0xFA, 0x56, 0xEA, 0, 0, 7])),
        ] {
            assert_eq!(text.parse(), Ok(community), "{text}");
            assert_eq!(community.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_community_is_refused_with_what_would_be_one() {
        for text in [
            "",
            "64512",
            "65536:1",
            "1:65536",
            "1:2:3:4",
            "1:2:4294967296",
            "+1:2",
            "a:b",
            "No-Export",
            "rt:4200000000:65536",
            "lb:1:2",
        ] {
            let error = text.parse::<Community>().unwrap_err().to_string();
            assert!(error.contains("64512:1:2") && error.contains("no-export"), "{text}: {error}");
        }
    }

    #[test]
    fn link_bandwidth_is_a_float_and_transitive_only_between_ases() {
        let asn = Asn::new(64512).unwrap();
        let inside = link_bandwidth(asn, 125_000_000.0, false);
        assert_eq!(inside, Community::Extended([0x40, 0x04, 0xFC, 0x00, 0x4C, 0xEE, 0x6B, 0x28]));
        let outside = link_bandwidth(Asn::new(4_200_000_000).unwrap(), 1.0, true);
        assert_eq!(outside, Community::Extended([0x00, 0x04, 0x5B, 0xA0, 0x3F, 0x80, 0, 0]), "AS_TRANS");
        assert_eq!(outside.to_string(), "link-bandwidth:23456:1");
    }

    #[test]
    fn attributes_keep_their_communities_sorted_and_once() {
        let mut attributes = RouteAttributes::default();
        let texts = ["64512:2", "64512:1", "64512:2", "1:2:3", "rt:1:2"];
        attributes.add_communities(texts.iter().map(|text| text.parse().unwrap()));
        assert_eq!(attributes.communities, [0xFC00_0001, 0xFC00_0002]);
        assert_eq!(attributes.large_communities, [(1, 2, 3)]);
        assert_eq!(attributes.extended_communities.len(), 1);
    }
}
