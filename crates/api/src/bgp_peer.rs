//! BGPPeer: one router to peer with, from every node that its selectors match.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::GoDuration, selector::selector_matches};
pub use advertisement::{Advertisement, LinkBandwidth, ServiceOverride};

mod advertisement;

/// One router to peer with, from every node that nodeSelectors match.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "bgp.purelb.io",
    version = "v1",
    kind = "BGPPeer",
    plural = "bgppeers",
    shortname = "bgpp",
    category = "purelb",
    namespaced,
    status = "BGPPeerStatus",
    derive = "PartialEq",
    doc = "One router to peer with by BGP, from every node that its selectors match.",
    printcolumn(
        name = "Peer",
        type_ = "string",
        json_path = ".spec.peerAddress",
        description = "The router's address"
    ),
    printcolumn(
        name = "Interface",
        type_ = "string",
        json_path = ".spec.interface",
        description = "The interface of an unnumbered session",
        priority = 1
    ),
    printcolumn(
        name = "Peer-ASN",
        type_ = "integer",
        format = "int64",
        json_path = ".spec.peerASN",
        description = "The router's AS"
    ),
    printcolumn(
        name = "My-ASN",
        type_ = "integer",
        format = "int64",
        json_path = ".spec.myASN",
        description = "Our AS"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.matchedNodes",
        description = "Nodes that peer with it"
    ),
    printcolumn(
        name = "Established",
        type_ = "integer",
        json_path = ".status.establishedNodes",
        description = "Nodes whose session is established"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether the peer is understood and used"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether every node's session is established"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].message",
        description = "Why the peer is refused",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.peerASN) != has(self.dynamicASN)")
        .message("exactly one of peerASN and dynamicASN must be set"),
    validation = Rule::new("self.myASN != 23456 && (!has(self.peerASN) || self.peerASN != 23456)")
        .message("AS 23456 stands for numbers of four octets (RFC 6793) and is nobody's"),
    validation = Rule::new("has(self.peerAddress) != has(self.interface)")
        .message("exactly one of peerAddress and interface must be set"),
    validation = Rule::new("!(has(self.ebgpMultiHop) && has(self.ttlSecurity))")
        .message("ebgpMultiHop and ttlSecurity exclude each other"),
    validation = Rule::new("!has(self.keepaliveTime) || !has(self.holdTime) || duration(self.holdTime) == duration('0s') || duration(self.keepaliveTime) < duration(self.holdTime)")
        .message("keepaliveTime must be shorter than holdTime")
)]
pub struct BGPPeerSpec {
    /// Our AS number on this session.
    #[serde(rename = "myASN")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub my_asn: u32,
    /// The router's AS number. Exactly one of peerASN and dynamicASN.
    #[serde(rename = "peerASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub peer_asn: Option<u32>,
    /// Takes the router's AS number from its OPEN: internal, it must be ours; external, it must not be ours.
    #[serde(rename = "dynamicASN", skip_serializing_if = "Option::is_none")]
    pub dynamic_asn: Option<DynamicAsn>,
    /// The router's IPv4 or IPv6 address; with %interface where it is link-local. Exactly one of peerAddress and
    /// interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-fA-F:.]+(%[^/%\s]{1,15})?$"))]
    pub peer_address: Option<String>,
    /// Unnumbered: the interface on which the router's IPv6 link-local address is learnt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[^/%\s]+$"))]
    pub interface: Option<String>,
    /// The router's TCP port.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub peer_port: u16,
    /// Our address on this session. Absent: the kernel's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$"))]
    pub source_address: Option<String>,
    /// Our BGP Identifier, written as an IPv4 address. Absent: the node's InternalIP, or a number derived from
    /// the node's name where it has no IPv4 address.
    #[serde(rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "ipv4"), length(max = 15))]
    #[x_kube(validation = Rule::new("self != '0.0.0.0'").message("routerID must not be 0.0.0.0"))]
    pub router_id: Option<String>,
    /// The nodes that peer with the router: those that any of the selectors matches. Empty: every node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub node_selectors: Vec<LabelSelector>,
    /// Hold Time to propose (RFC 4271): 0s for none, or 3s to 65535s.
    #[serde(default = "default_hold_time")]
    #[x_kube(validation = Rule::new("duration(self) == duration('0s') || (duration(self) >= duration('3s') && duration(self) <= duration('65535s'))").message("holdTime is 0s, or 3s to 65535s"))]
    pub hold_time: GoDuration,
    /// Time between KEEPALIVE messages. Absent, or longer: a third of the negotiated Hold Time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("keepaliveTime is at least 1s"))]
    pub keepalive_time: Option<GoDuration>,
    /// ConnectRetryTime: how long between attempts to connect.
    #[serde(default = "default_connect_time")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('65535s')").message("connectTime is 1s to 65535s"))]
    pub connect_time: GoDuration,
    /// Never connects, but waits for the router to.
    #[serde(default)]
    pub passive: bool,
    /// Secret of type kubernetes.io/basic-auth in the same namespace whose password, of at most 80 octets, is the
    /// TCP MD5 key (RFC 2385). While it cannot be used there is no session; when it changes, this session alone
    /// is established anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretReference>,
    /// How many hops away an eBGP router may be. Absent: directly connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub ebgp_multi_hop: Option<u8>,
    /// Generalized TTL Security (RFC 5082): how many hops away the router may be; packets from further are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security: Option<u8>,
    /// Address families to offer. Either may run over a session of the other family.
    #[serde(default = "default_families")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub address_families: Vec<AddressFamily>,
    /// Bidirectional Forwarding Detection (RFC 5880). Absent: none. Taken away, what runs goes on unheeded until the
    /// router lets go of it, too: take it away here first, and no session is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdConfig>,
    /// Graceful restart (RFC 4724, RFC 8538). Absent: on, with the defaults of its fields. A change counts from the next
    /// session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestart>,
    /// Our role towards a router of another AS (RFC 9234). A router with a role that does not go with it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<BgpRole>,
    /// With role: a router that says no role of its own is refused, too (strict mode).
    #[serde(default)]
    pub strict_role: bool,
    /// What is announced, and with what. Empty: every address of remote groups, without extras.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub advertisements: Vec<Advertisement>,
}

/// Where the router's AS number comes from when it is not configured.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum DynamicAsn {
    /// It must be ours: iBGP.
    Internal,
    /// It must not be ours: eBGP.
    External,
}

/// A Secret in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// An address family of BGP.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressFamily {
    /// IPv4 unicast routes.
    #[serde(rename = "ipv4-unicast")]
    Ipv4Unicast,
    /// IPv6 unicast routes.
    #[serde(rename = "ipv6-unicast")]
    Ipv6Unicast,
}

/// Bidirectional Forwarding Detection with the router (RFC 5880, RFC 5881, RFC 5883).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BfdConfig {
    /// Desired Min TX Interval.
    #[serde(default = "default_bfd_interval")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10ms') && duration(self) <= duration('60s')").message("transmitInterval is 10ms to 60s"))]
    pub transmit_interval: GoDuration,
    /// Required Min RX Interval.
    #[serde(default = "default_bfd_interval")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10ms') && duration(self) <= duration('60s')").message("receiveInterval is 10ms to 60s"))]
    pub receive_interval: GoDuration,
    /// Detect Mult: how many packets in a row may be lost.
    #[serde(default = "default_detect_multiplier")]
    #[schemars(range(min = 1, max = 255))]
    pub detect_multiplier: u8,
    /// Sends nothing until the router does.
    #[serde(default)]
    pub passive: bool,
    /// The router is several hops away (RFC 5883), and this is the lowest TTL of its packets that is accepted.
    /// Absent: as many hops away as ebgpMultiHop or ttlSecurity says, or one, with TTL 255 (RFC 5881).
    #[serde(rename = "minimumTTL", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<u8>,
}

/// Graceful restart (RFC 4724, RFC 8538).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GracefulRestart {
    /// Whether it is offered.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Restart Time: how long the router keeps our routes while we are away, 1s to 4095s.
    #[serde(default = "default_restart_time")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('4095s')").message("restartTime is 1s to 4095s"))]
    pub restart_time: GoDuration,
    /// Long-lived Stale Time (RFC 9494): how long beyond restartTime the router keeps our routes as a last resort, where
    /// it has no better ones; whole seconds, 1s to 16777215s. Absent: not offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('16777215s')").message("longLivedStaleTime is 1s to 16777215s"))]
    pub long_lived_stale_time: Option<GoDuration>,
    /// Whether the router keeps our routes, too, when the session ends by the hold timer or a NOTIFICATION (RFC 8538).
    /// Then only BFD tells it that a node has died, else it sends packets there for restartTime. Absent: where bfd
    /// is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification: Option<bool>,
}

/// Our role towards a router (RFC 9234).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum BgpRole {
    /// We are its provider.
    Provider,
    /// We are a route server to it.
    RouteServer,
    /// We are a client of it, a route server.
    RouteServerClient,
    /// We are its customer.
    Customer,
    /// We are its peer.
    Peer,
}

/// What became of a peer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerStatus {
    /// Accepted: whether the peer is understood and used. Ready: whether every matched node's session is
    /// established; its message names the nodes where it is not, and those whose agent does not live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many nodes the selectors match.
    #[serde(default)]
    pub matched_nodes: i64,
    /// How many of them have an established session, and an agent that lives to say so.
    #[serde(default)]
    pub established_nodes: i64,
}

impl BGPPeerSpec {
    /// Whether the peer is for a node with these labels: no selector, or any that matches.
    pub fn matches_node(&self, labels: &BTreeMap<String, String>) -> bool {
        self.node_selectors.is_empty() || self.node_selectors.iter().any(|s| selector_matches(s, labels))
    }
}

const fn yes() -> bool {
    true
}

const fn default_port() -> u16 {
    179
}

const fn default_hold_time() -> GoDuration {
    GoDuration::from_secs(90)
}

const fn default_connect_time() -> GoDuration {
    GoDuration::from_secs(10)
}

fn default_families() -> Vec<AddressFamily> {
    vec![AddressFamily::Ipv4Unicast, AddressFamily::Ipv6Unicast]
}

const fn default_bfd_interval() -> GoDuration {
    GoDuration::from_millis(300)
}

const fn default_detect_multiplier() -> u8 {
    3
}

const fn default_restart_time() -> GoDuration {
    GoDuration::from_secs(120)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',').filter_map(|l| l.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn absent_fields_have_the_documented_defaults() {
        let spec: BGPPeerSpec =
            serde_norway::from_str("{myASN: 4294967295, peerASN: 64513, peerAddress: 192.0.2.1}").unwrap();
        assert_eq!((spec.my_asn, spec.peer_port), (4_294_967_295, 179));
        assert_eq!(
            (spec.hold_time, spec.connect_time),
            (GoDuration::from_secs(90), GoDuration::from_secs(10))
        );
        assert_eq!(spec.address_families, default_families());
        assert_eq!((spec.bfd, spec.graceful_restart, spec.keepalive_time), (None, None, None));
        let bfd: BfdConfig = serde_norway::from_str("{}").unwrap();
        assert_eq!((bfd.transmit_interval, bfd.detect_multiplier), (GoDuration::from_millis(300), 3));
    }

    #[test]
    fn node_selectors_are_ored_and_none_means_every_node() {
        let spec = |selectors: &str| -> BGPPeerSpec {
            serde_norway::from_str(&format!("{{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1{selectors}}}"))
                .unwrap()
        };
        assert!(spec("").matches_node(&labels("")));
        let two = spec(
            ", nodeSelectors: [{matchLabels: {rack: a}}, {matchExpressions: [{key: edge, operator: Exists}]}]",
        );
        assert!(two.matches_node(&labels("rack=a")) && two.matches_node(&labels("edge=")));
        assert!(!two.matches_node(&labels("rack=b")));
    }
}
