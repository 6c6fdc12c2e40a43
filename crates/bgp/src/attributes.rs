//! Path attributes as plain values (RFC 4271 §5, RFC 1997, RFC 4360, RFC 8092, RFC 9234).

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The attributes of a route as they go out on one session, but for the next hop. ORIGIN is always IGP: a
/// route must look the same from every node, or a router's multipath leaves nodes out.
///
/// Equal meaning is equal value: communities are sorted and without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attributes {
    /// AS_PATH: one AS_SEQUENCE, nearest AS first; empty on iBGP (RFC 4271 §5.1.2).
    pub as_path: Vec<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF: iBGP only (RFC 4271 §5.1.5).
    pub local_pref: Option<u32>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<u32>,
    /// EXTENDED COMMUNITIES (RFC 4360), eight octets each.
    pub extended_communities: Vec<[u8; 8]>,
    /// LARGE_COMMUNITIES (RFC 8092): global administrator, two local data parts.
    pub large_communities: Vec<(u32, u32, u32)>,
    /// ONLY_TO_CUSTOMER (RFC 9234 §5): the AS from which on a route may only go to customers.
    pub only_to_customer: Option<u32>,
}

/// The next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NextHop {
    /// NEXT_HOP for IPv4.
    V4(Ipv4Addr),
    /// In MP_REACH_NLRI: a global address, with the link-local one behind it where the peer is on the same
    /// subnet (RFC 2545 §3). For IPv4 prefixes only where RFC 8950 was negotiated.
    V6 {
        /// Global address (or the link-local one where there is no other).
        global: Ipv6Addr,
        /// Link-local address.
        link_local: Option<Ipv6Addr>,
    },
}
