//! LBNodeAgent: how node agents put addresses on interfaces.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;

/// How node agents put addresses on interfaces. Where several match a node, one with a nodeSelector beats one
/// without; then the first by namespace and name.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "purelb.io",
    version = "v2",
    kind = "LBNodeAgent",
    plural = "lbnodeagents",
    shortname = "lbna",
    shortname = "lbnas",
    category = "purelb",
    namespaced,
    status = "LBNodeAgentStatus",
    derive = "PartialEq",
    doc = "How node agents put addresses on interfaces.",
    printcolumn(
        name = "Local-Interface",
        type_ = "string",
        json_path = ".spec.local.localInterface",
        description = "Where local addresses go"
    ),
    printcolumn(
        name = "Dummy-Interface",
        type_ = "string",
        json_path = ".spec.local.dummyInterface",
        description = "Where remote addresses go"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether the object is understood and used"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether nodes can use the interfaces that it selects"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].message",
        description = "Why the object is refused",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct LBNodeAgentSpec {
    /// The nodes that this is for. Absent: every node that no more specific one is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// The interfaces and how addresses are put on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalInterfaces>,
}

/// The interfaces and how addresses are put on them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LocalInterfaces {
    /// Interface for the addresses of local pools: default, which is that of the default route with the lowest
    /// metric, or a regular expression for interface names.
    #[serde(default = "default_local_interface")]
    #[schemars(length(min = 1, max = 253))]
    pub local_interface: String,
    /// More interfaces whose subnets this node serves, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 15)))]
    pub interfaces: Vec<String>,
    /// Interface for the addresses of remote pools; created where it is absent.
    #[serde(default = "default_dummy_interface")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[^/\s]+$"))]
    pub dummy_interface: String,
    /// How a local address is made known when it has moved to this node, by IPv4 gratuitous ARP and IPv6
    /// unsolicited Neighbor Advertisement alike. Absent: the defaults of its fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub garp_config: Option<GarpConfig>,
    /// Lifetimes and flags of the addresses. Absent: the defaults of its fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_config: Option<AddressConfig>,
}

impl Default for LocalInterfaces {
    fn default() -> LocalInterfaces {
        LocalInterfaces {
            local_interface: default_local_interface(),
            interfaces: Vec::new(),
            dummy_interface: default_dummy_interface(),
            garp_config: None,
            address_config: None,
        }
    }
}

/// How a local address is made known when it has moved to this node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GarpConfig {
    /// Whether anything is sent.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How long after the address is on the interface the burst begins. One announcement more is sent at once, so
    /// that a failover does not wait for it.
    #[serde(default = "default_initial_delay")]
    pub initial_delay: GoDuration,
    /// How many the burst has.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 60))]
    pub count: u8,
    /// How long between two.
    #[serde(default = "default_interval")]
    pub interval: GoDuration,
    /// Whether each is sent only if this node still is the one that announces the address.
    #[serde(default = "yes")]
    pub verify_before_send: bool,
}

impl Default for GarpConfig {
    fn default() -> GarpConfig {
        GarpConfig {
            enabled: yes(),
            initial_delay: default_initial_delay(),
            count: default_count(),
            interval: default_interval(),
            verify_before_send: yes(),
        }
    }
}

/// Lifetimes and flags of addresses, by interface.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressConfig {
    /// Of addresses of local pools. Absent: validLifetime 300, renewed, and noPrefixRoute. IPv6 ones are deprecated
    /// from the start (RFC 4862 section 5.5.4) unless preferredLifetime says otherwise: they answer, but the node itself
    /// starts no connection from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_interface: Option<InterfaceAddressConfig>,
    /// Of addresses of remote pools. Absent: permanent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dummy_interface: Option<InterfaceAddressConfig>,
}

/// Lifetimes and flags of the addresses on one interface.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.validLifetime) || !has(self.preferredLifetime) || self.validLifetime == 0 || self.preferredLifetime <= self.validLifetime")
        .message("preferredLifetime must not be longer than validLifetime")
)]
pub struct InterfaceAddressConfig {
    /// Valid lifetime in seconds, renewed while the address is held: 0 for ever, or at least 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4_294_967_294_i64))]
    #[x_kube(validation = Rule::new("self == 0 || self >= 60").message("validLifetime is 0 for ever, or at least 60 seconds"))]
    pub valid_lifetime: Option<u32>,
    /// Preferred lifetime in seconds, not longer than validLifetime: while it lasts the node may choose an IPv6 address
    /// as the source of its own connections. 0: never, but for ever on dummyInterface where validLifetime is 0. Absent:
    /// 0 for IPv6 addresses on localInterface, otherwise that of validLifetime.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4_294_967_294_i64))]
    pub preferred_lifetime: Option<u32>,
    /// Whether the kernel makes no route for the prefix of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_prefix_route: Option<bool>,
}

/// What became of the object.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LBNodeAgentStatus {
    /// Accepted: whether the object is understood and used, with the reason when it is not. Ready: whether the nodes that
    /// it is for can use the interfaces that it selects for addresses of local pools, with the nodes and what is wrong
    /// where they cannot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn default_local_interface() -> String {
    "default".to_owned()
}

fn default_dummy_interface() -> String {
    "kube-lb0".to_owned()
}

const fn yes() -> bool {
    true
}

const fn default_initial_delay() -> GoDuration {
    GoDuration::from_millis(100)
}

const fn default_count() -> u8 {
    3
}

const fn default_interval() -> GoDuration {
    GoDuration::from_millis(500)
}
