//! Names that users, tools and both controllers rely on: annotations, labels, classes, reasons.

/// `spec.loadBalancerClass` of a Service that asks for us by name.
pub const LOAD_BALANCER_CLASS: &str = "purelb.io/purelb";
/// The same in manifests for PureLB whose resources are `purelb.io/v2`: the field is immutable, so Services with it
/// could not move over.
const LOAD_BALANCER_CLASS_V2: &str = "purelb.io/purelbv2";

/// Whether a Service with this `spec.loadBalancerClass` asks for us.
pub fn is_our_class(class: &str) -> bool {
    class == LOAD_BALANCER_CLASS || class == LOAD_BALANCER_CLASS_V2
}

/// Value of the setting `defaultAnnouncer` with which Services without a class are ours, too, and value of
/// [`annotation::ALLOCATED_BY`].
pub const PURELB: &str = "PureLB";
/// ServiceGroup that serves a Service which names none.
pub const DEFAULT_SERVICE_GROUP: &str = "default";
/// Namespace of our own objects unless a setting says otherwise.
pub const INSTALL_NAMESPACE: &str = "purelb-system";
/// Who the allocator is in `metadata.managedFields` and in events.
pub const ALLOCATOR_FIELD_MANAGER: &str = "purelb-allocator";
/// Lease whose holder allocates addresses.
pub const ALLOCATOR_LEASE: &str = "purelb-allocator";
/// A node agent's Lease is called so, followed by the node's name.
pub const NODE_LEASE_PREFIX: &str = "purelb-";
/// Port of `/metrics`, `/healthz` and `/readyz`.
pub const METRICS_PORT: u16 = 7472;

/// Annotations on Services and Leases.
pub mod annotation {
    /// Set by users: the ServiceGroup to allocate from.
    pub const SERVICE_GROUP: &str = "purelb.io/service-group";
    /// Set by users: the very addresses to allocate, comma-separated.
    pub const ADDRESSES: &str = "purelb.io/addresses";
    /// Set by users: the sharing key.
    pub const ALLOW_SHARED_IP: &str = "purelb.io/allow-shared-ip";
    /// Set by users: `"true"` keeps policy Local on a local pool.
    pub const ALLOW_LOCAL: &str = "purelb.io/allow-local";
    /// Set by users: overrides the group's `multiPool`.
    pub const MULTI_POOL: &str = "purelb.io/multi-pool";
    /// Set by users: `"true"` asks for one fresh evaluation.
    pub const RE_EVALUATE: &str = "purelb.io/re-evaluate";
    /// Of PureLB's own program, without effect here: `skipIPv6DAD` of the ServiceGroup counts.
    pub const SKIP_IPV6_DAD: &str = "purelb.io/skip-ipv6-dad";
    /// Of PureLB's own program, without effect here: which node announces is elected.
    pub const NODE_AFFINITY: &str = "purelb.io/node-affinity";
    /// Set by users, where a BGPPeer allows it: communities to add, comma-separated.
    pub const BGP_COMMUNITIES: &str = "purelb.io/bgp-communities";
    /// Set by users, where a BGPPeer allows it: LOCAL_PREF.
    pub const BGP_LOCAL_PREF: &str = "purelb.io/bgp-local-pref";
    /// Set by users, where a BGPPeer allows it: MULTI_EXIT_DISC.
    pub const BGP_MED: &str = "purelb.io/bgp-med";
    /// Set by users, where a BGPPeer allows it: how often the AS number is prepended.
    pub const BGP_PREPEND: &str = "purelb.io/bgp-prepend";
    /// Set by users, where a BGPPeer allows it: the BGPPeers that get the routes, comma-separated.
    pub const BGP_PEERS: &str = "purelb.io/bgp-peers";
    /// Set by us: [`super::PURELB`].
    pub const ALLOCATED_BY: &str = "purelb.io/allocated-by";
    /// Set by us: the ServiceGroup that gave the addresses.
    pub const ALLOCATED_FROM: &str = "purelb.io/allocated-from";
    /// Set by us: `local` or `remote`.
    pub const POOL_TYPE: &str = "purelb.io/pool-type";
    /// Set by us: who announces the IPv4 addresses of a local pool. See [`crate::announcing`].
    pub const ANNOUNCING_IPV4: &str = "purelb.io/announcing-IPv4";
    /// Set by us: who announces the IPv6 addresses of a local pool. See [`crate::announcing`].
    pub const ANNOUNCING_IPV6: &str = "purelb.io/announcing-IPv6";
    /// On a node's Lease: comma-separated subnets of the node's interfaces. See [`crate::node_lease`].
    pub const SUBNETS: &str = "purelb.io/subnets";
    /// On a node's Lease: where the node hears heartbeats. See [`crate::node_lease`].
    pub const HEARTBEAT: &str = "purelb.io/heartbeat";
    /// On a node's Lease: the Ethernet addresses that the node answers with. See [`crate::node_lease`].
    pub const LINK_LAYER_ADDRESSES: &str = "purelb.io/link-layer-addresses";
    /// On a node's Lease: the LBNodeAgent that is for the node, and what of it cannot be used there. See
    /// [`crate::node_agent_use`].
    pub const NODE_AGENT: &str = "purelb.io/node-agent";
    /// On a node's Lease: addresses of ours for which a stranger answers on the node's wire. See
    /// [`crate::node_lease`].
    pub const ADDRESS_CONFLICTS: &str = "purelb.io/address-conflicts";
}

/// Labels.
pub mod label {
    /// On our Leases, with the value [`APP_VALUE`].
    pub const APP: &str = "app";
    /// See [`APP`].
    pub const APP_VALUE: &str = "purelb";
    /// On our pods: `allocator` or `lbnodeagent`.
    pub const COMPONENT: &str = "component";
    /// Kubernetes' own: a node with this label announces nothing.
    pub const EXCLUDE_FROM_LOAD_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
}

/// Reasons of events.
pub mod event {
    /// A Service got addresses.
    pub const ADDRESS_ASSIGNED: &str = "AddressAssigned";
    /// A Service gave addresses back.
    pub const ADDRESS_RELEASED: &str = "AddressReleased";
    /// A Service cannot have what it asks for; the message says why and what would do.
    pub const ALLOCATION_FAILED: &str = "AllocationFailed";
    /// `externalTrafficPolicy: Local` was reset to `Cluster`.
    pub const LOCAL_OVERRIDDEN: &str = "LocalOverridden";
    /// Configuration that works, but hardly as meant, or that is refused.
    pub const CONFIGURATION_WARNING: &str = "ConfigurationWarning";
    /// An object is refused; the message says what would be accepted.
    pub const CONFIG_ERROR: &str = "ConfigError";
    /// A node announces an address.
    pub const ANNOUNCING: &str = "Announcing";
    /// A node no longer announces an address.
    pub const WITHDRAWN: &str = "Withdrawn";
}
