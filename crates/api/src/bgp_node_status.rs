//! BGPNodeStatus: what a node's BGP speaker says of its sessions. One per node, named after it, owned by the
//! Node, in the install namespace, written only by that node's agent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nothing: a BGPNodeStatus has only a status.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "bgp.purelb.io",
    version = "v1",
    kind = "BGPNodeStatus",
    plural = "bgpnodestatuses",
    singular = "bgpnodestatus",
    shortname = "bgpns",
    category = "purelb",
    namespaced,
    status = "BGPNodeStatusStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "What a node's BGP speaker says of its sessions. Written by the node's agent.",
    printcolumn(
        name = "Router-ID",
        type_ = "string",
        json_path = ".status.routerID",
        description = "The node's BGP Identifier"
    ),
    printcolumn(
        name = "Peers",
        type_ = "integer",
        json_path = ".status.configuredPeers",
        description = "How many peers the node should have a session with"
    ),
    printcolumn(
        name = "Established",
        type_ = "integer",
        json_path = ".status.establishedPeers",
        description = "How many of the sessions are established"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether every session is established"
    ),
    printcolumn(
        name = "Updated",
        type_ = "date",
        json_path = ".status.lastUpdated",
        description = "When this was written"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPNodeStatusSpec {}

/// What a node's BGP speaker says of its sessions.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BGPNodeStatusStatus {
    /// The node.
    #[serde(default)]
    pub node_name: String,
    /// The node's BGP Identifier.
    #[serde(rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// How many entries `peers` has.
    #[serde(default)]
    pub configured_peers: i64,
    /// How many of them are established.
    #[serde(default)]
    pub established_peers: i64,
    /// One entry a peer that this node should have a session with, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub peers: Vec<NodePeerStatus>,
    /// Ready: whether every session is established.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// When this was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Time>,
}

/// One session.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodePeerStatus {
    /// Name of the BGPPeer.
    pub name: String,
    /// The router's address; absent while an unnumbered peer's is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Our AS number.
    #[serde(rename = "localASN")]
    pub local_asn: u32,
    /// The router's AS number, as configured or as learnt.
    #[serde(rename = "peerASN", skip_serializing_if = "Option::is_none")]
    pub peer_asn: Option<u32>,
    /// State of the session (RFC 4271).
    pub state: SessionState,
    /// When the session entered the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Address families of the session; empty unless it is established.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<crate::bgp_peer::AddressFamily>,
    /// How many prefixes the router has been sent.
    #[serde(default)]
    pub advertised: PrefixCounts,
    /// Prefixes that the router has announced in this session: dropped, and withdrawals are not subtracted.
    #[serde(default)]
    pub received: PrefixCounts,
    /// Negotiated Hold Time; absent unless the session is established.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<crate::duration::GoDuration>,
    /// Whether graceful restart was negotiated.
    #[serde(default)]
    pub graceful_restart: bool,
    /// State of the BFD session; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bfd_state: Option<BfdState>,
    /// The last error in words: a NOTIFICATION sent or received, why TCP failed, or why the peer is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How often an established session was lost.
    #[serde(default)]
    pub flaps: i64,
}

/// How many prefixes, by family.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PrefixCounts {
    /// IPv4 prefixes.
    #[serde(default)]
    pub ipv4: i64,
    /// IPv6 prefixes.
    #[serde(default)]
    pub ipv6: i64,
}

/// State of a BGP session (RFC 4271 §8.2.2).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// Not trying.
    #[default]
    Idle,
    /// Waiting for TCP to connect.
    Connect,
    /// Waiting to try again, or for the router to connect.
    Active,
    /// OPEN is sent.
    OpenSent,
    /// The router's OPEN is accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

/// State of a BFD session (RFC 5880 §4.1).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BfdState {
    /// Held down on purpose.
    AdminDown,
    /// Down.
    Down,
    /// The router is heard.
    Init,
    /// Up.
    Up,
}
