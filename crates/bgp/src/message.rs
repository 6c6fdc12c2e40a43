//! BGP messages as plain values (RFC 4271 §4). No bytes here: `wire` turns them into bytes and back.

use crate::{
    attributes::{Attributes, NextHop},
    capabilities::Capabilities,
    types::{Family, RouterId},
};
use ipnet::IpNet;

/// An OPEN message. A received one has passed the checks of RFC 4271 §6.2 that need no configuration
/// (version, hold time not 1 or 2, router ID not 0, options well-formed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: that of the 4-octet AS capability where it has one, else the 2-octet field.
    /// A plain number, because a peer can send 0 (RFC 7607), which the FSM answers with Bad Peer AS.
    pub asn: u32,
    /// Proposed hold time in seconds: 0 or at least 3.
    pub hold_time: crate::types::HoldTime,
    /// BGP Identifier.
    pub router_id: RouterId,
    /// Everything in the optional parameters that is understood.
    pub capabilities: Capabilities,
}

/// What is left of an UPDATE. This speaker announces only, so a received UPDATE is counted, checked and
/// dropped; what is sent is one of the three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Prefixes of one family with one attribute set and one next hop. Never empty when sent.
    Reach {
        /// Family of every prefix.
        family: Family,
        /// Next hop, in NEXT_HOP or in MP_REACH_NLRI as family and session want it.
        next_hop: NextHop,
        /// Path attributes but for the next hop.
        attributes: Attributes,
        /// The prefixes.
        nlri: Vec<IpNet>,
    },
    /// Prefixes of one family that are withdrawn. Never empty when sent.
    Unreach {
        /// Family of every prefix.
        family: Family,
        /// The prefixes.
        nlri: Vec<IpNet>,
    },
    /// End-of-RIB (RFC 4724 §2).
    EndOfRib(Family),
}

/// What an UPDATE from a peer comes to: how many prefixes, and what RFC 7606 makes of its errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedUpdate {
    /// Prefixes announced, by family (index: position in [`Family::ALL`]).
    pub reach: [usize; 2],
    /// Prefixes withdrawn, by family, including those of a treat-as-withdraw.
    pub unreach: [usize; 2],
    /// The message was an End-of-RIB of this family.
    pub end_of_rib: Option<Family>,
    /// Why attributes were discarded or the routes treated as withdrawn (RFC 7606 §2), in words.
    pub faults: Vec<String>,
}

/// A ROUTE-REFRESH message (RFC 2918, subtypes of RFC 7313).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// AFI as received; a family that is not spoken is ignored.
    pub afi: u16,
    /// SAFI as received.
    pub safi: u8,
    /// Normal request or demarcation.
    pub subtype: RefreshSubtype,
}

/// Message Subtype of a ROUTE-REFRESH (RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshSubtype {
    /// 0: send me everything again.
    Request,
    /// 1: Beginning of Route Refresh.
    Begin,
    /// 2: End of Route Refresh.
    End,
    /// Any other: the message is ignored (RFC 7313 §5).
    Unknown(u8),
}
