//! Capabilities (RFC 5492): what is offered, what a peer offers, and what both make of it.

use crate::types::{Asn, Family};

/// The capabilities of one OPEN that are understood here; others are ignored, as RFC 5492 §3 asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Multiprotocol Extensions (code 1): families, unknown ones left out, in the order received.
    pub multiprotocol: Vec<Family>,
    /// 4-octet AS number (code 65).
    pub four_octet_asn: Option<u32>,
    /// Route Refresh (code 2).
    pub route_refresh: bool,
    /// Enhanced Route Refresh (code 70).
    pub enhanced_route_refresh: bool,
    /// Extended Next Hop Encoding (code 5, RFC 8950): families that may have an IPv6 next hop
    /// (only IPv4 unicast means anything).
    pub extended_next_hop: Vec<Family>,
    /// Extended Message (code 6, RFC 8654).
    pub extended_message: bool,
    /// Graceful Restart (code 64, RFC 4724, RFC 8538).
    pub graceful_restart: Option<GracefulRestart>,
    /// Host name of the FQDN capability (code 73), for people to read; never sent.
    pub hostname: Option<String>,
}

/// The Graceful Restart capability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted.
    pub restarting: bool,
    /// N bit (RFC 8538): NOTIFICATIONs and hold timer expiry are handled gracefully.
    pub notification: bool,
    /// Restart Time in seconds, at most 4095.
    pub restart_time_secs: u16,
    /// Families, each with its F bit (forwarding state preserved).
    pub families: Vec<(Family, bool)>,
}

/// What holds on a session after both OPENs: computed once, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The smaller of both hold times.
    pub hold_time: crate::types::HoldTime,
    /// Families both sides opened, in the order of [`Family::ALL`].
    pub families: Vec<Family>,
    /// AS numbers in AS_PATH are 4 octets wide.
    pub four_octet_asn: bool,
    /// The peer takes ROUTE-REFRESH.
    pub route_refresh: bool,
    /// IPv4 prefixes may have an IPv6 next hop.
    pub extended_next_hop: bool,
    /// Messages of up to 65,535 octets may be sent.
    pub extended_message: bool,
    /// What the peer said of graceful restart, where both offered it.
    pub graceful_restart: Option<GracefulRestart>,
}
