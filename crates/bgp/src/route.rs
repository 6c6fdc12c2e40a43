//! Routes of our own, and which peer gets which of them with what attributes.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::attributes::NextHop;

/// One route of the Loc-RIB. Setting a route for a prefix that has one replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The prefix, host bits zero.
    pub prefix: IpNet,
    /// Which advertisements it may match: the export policies of peers look it up.
    pub class: RouteClass,
    /// Attributes that go to every peer, shared between routes that have the same.
    pub attributes: Arc<RouteAttributes>,
}

/// An opaque group of routes that the export policies treat alike; what it stands for is the caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteClass(pub u32);

/// What is added to the attributes of a route: by the route itself, or by a peer's export policy, which
/// overrides single values and adds communities.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteAttributes {
    /// COMMUNITIES, sorted.
    pub communities: Vec<u32>,
    /// EXTENDED COMMUNITIES, sorted.
    pub extended_communities: Vec<[u8; 8]>,
    /// LARGE_COMMUNITIES, sorted.
    pub large_communities: Vec<(u32, u32, u32)>,
    /// LOCAL_PREF, sent on iBGP only; 100 where absent.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How many times the own AS is prepended beyond the one of RFC 4271.
    pub prepend: u8,
    /// Next hop instead of the session's own address.
    pub next_hop: Option<NextHop>,
}

/// Which routes a peer gets, and what is added for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportPolicy {
    /// Every route as it is.
    All,
    /// Only the classes listed, each with these additions.
    Classes(BTreeMap<RouteClass, RouteAttributes>),
}
