//! `advertisements` of a BGPPeer: which routes go to the router, and with what.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which routes a router gets, and with what attributes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Advertisement {
    /// Only addresses of these groups. Empty: of every remote group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub service_groups: Vec<String>,
    /// Only addresses of Services that it matches. Absent: of every Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// Communities to add: 64512:100, large ones as 64512:1:2, route targets and origins as rt:64512:100 and
    /// soo:64512:100, or well-known names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(max = 32),
            regex(
                pattern = r"^([0-9]{1,5}:[0-9]{1,5}|[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}|(rt|soo):[0-9]{1,10}:[0-9]{1,10}|no-export|no-advertise|no-export-subconfed|no-peer|graceful-shutdown|accept-own|llgr-stale|no-llgr|blackhole)$"
            )
        )
    )]
    pub communities: Vec<String>,
    /// LOCAL_PREF, on iBGP sessions only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub med: Option<u32>,
    /// How many times more our AS number is put in front of the AS_PATH.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub as_path_prepend: Option<u8>,
    /// Adds a link bandwidth community weighted by this. With externalTrafficPolicy Cluster every node weighs the
    /// same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_bandwidth: Option<LinkBandwidth>,
    /// Next hop to announce, for routes of its family. Absent: this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$"))]
    pub next_hop: Option<String>,
    /// What Services may set for themselves on these routes, with the annotations purelb.io/bgp-communities,
    /// bgp-local-pref, bgp-med, bgp-prepend and bgp-peers. Empty: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow_service_overrides: Vec<ServiceOverride>,
}

/// What a Service may set for itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum ServiceOverride {
    /// purelb.io/bgp-communities: communities to add, comma-separated.
    Communities,
    /// purelb.io/bgp-local-pref: LOCAL_PREF.
    LocalPref,
    /// purelb.io/bgp-med: MULTI_EXIT_DISC.
    Med,
    /// purelb.io/bgp-prepend: how many times more our AS number is put in front of the AS_PATH.
    Prepend,
    /// purelb.io/bgp-peers: the only BGPPeers that get the Service's routes, comma-separated.
    Peers,
}

/// What weighs a node's link bandwidth community.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LinkBandwidth {
    /// How many ready endpoints of the Service are on the node.
    Endpoints,
}
