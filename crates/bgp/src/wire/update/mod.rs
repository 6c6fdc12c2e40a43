//! UPDATE (RFC 4271 §4.3, RFC 4760): packed as full as it gets on the way out, checked and counted on the way in.

mod attributes;
mod decode;
mod encode;
#[cfg(any(test, feature = "testing"))]
pub mod inspect;
mod neighbours;
mod path_attributes;
#[cfg(test)]
mod received;
#[cfg(test)]
mod tests;

pub(super) use decode::decode;
pub(crate) use encode::Template;
pub use encode::{EncodeError, Packed, encode_end_of_rib, encode_reach, encode_unreach};
pub use neighbours::Neighbours;

/// Attribute type codes (IANA, BGP Path Attributes).
pub(super) mod code {
    pub(in crate::wire) const ORIGIN: u8 = 1;
    pub(in crate::wire) const AS_PATH: u8 = 2;
    pub(in crate::wire) const NEXT_HOP: u8 = 3;
    pub(in crate::wire) const MULTI_EXIT_DISC: u8 = 4;
    pub(in crate::wire) const LOCAL_PREF: u8 = 5;
    pub(in crate::wire) const ATOMIC_AGGREGATE: u8 = 6;
    pub(in crate::wire) const AGGREGATOR: u8 = 7;
    pub(in crate::wire) const COMMUNITIES: u8 = 8;
    pub(in crate::wire) const ORIGINATOR_ID: u8 = 9;
    pub(in crate::wire) const CLUSTER_LIST: u8 = 10;
    pub(in crate::wire) const MP_REACH_NLRI: u8 = 14;
    pub(in crate::wire) const MP_UNREACH_NLRI: u8 = 15;
    pub(in crate::wire) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(in crate::wire) const AS4_PATH: u8 = 17;
    pub(in crate::wire) const AS4_AGGREGATOR: u8 = 18;
    pub(in crate::wire) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(in crate::wire) const LARGE_COMMUNITIES: u8 = 32;
    pub(in crate::wire) const ONLY_TO_CUSTOMER: u8 = 35;
}

/// Attribute flags (RFC 4271 §4.3).
pub(super) mod flags {
    pub(in crate::wire) const OPTIONAL: u8 = 0x80;
    pub(in crate::wire) const TRANSITIVE: u8 = 0x40;
    pub(in crate::wire) const EXTENDED_LENGTH: u8 = 0x10;
    pub(in crate::wire) const WELL_KNOWN: u8 = TRANSITIVE;
    pub(in crate::wire) const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;
}
