//! ServiceGroup: where addresses come from and how they are announced.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    address::{IpFamily, PoolType, as_network},
    duration::GoDuration,
    pool::Pool,
    refusal::Refusal,
};

/// A pool of addresses and how they are announced. Read only from the namespace that PureLB is installed in.
/// Exactly one of local, remote and external.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "purelb.io",
    version = "v2",
    kind = "ServiceGroup",
    plural = "servicegroups",
    shortname = "sg",
    shortname = "sgs",
    category = "purelb",
    namespaced,
    status = "ServiceGroupStatus",
    derive = "PartialEq",
    doc = "A pool of addresses for Services of type LoadBalancer, and how they are announced.",
    printcolumn(
        name = "Announce",
        type_ = "string",
        json_path = ".status.announce",
        description = "Where the addresses are announced"
    ),
    printcolumn(
        name = "IPAM",
        type_ = "string",
        json_path = ".status.ipam",
        description = "Who keeps the books of the addresses"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether the group is understood and used"
    ),
    printcolumn(
        name = "Allocated-V4",
        type_ = "integer",
        json_path = ".status.allocatedIPv4",
        description = "IPv4 addresses in use"
    ),
    printcolumn(
        name = "Allocated-V6",
        type_ = "integer",
        json_path = ".status.allocatedIPv6",
        description = "IPv6 addresses in use"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].message",
        description = "Why the group is refused",
        priority = 1
    ),
    printcolumn(
        name = "Addresses",
        type_ = "string",
        json_path = ".status.addresses",
        description = "The address ranges",
        priority = 1
    ),
    printcolumn(
        name = "Available-V4",
        type_ = "integer",
        json_path = ".status.availableIPv4",
        description = "IPv4 addresses that are free",
        priority = 1
    ),
    printcolumn(
        name = "Available-V6",
        type_ = "integer",
        json_path = ".status.availableIPv6",
        description = "IPv6 addresses that are free",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.local) ? 1 : 0) + (has(self.remote) ? 1 : 0) + (has(self.external) ? 1 : 0) == 1")
        .message("exactly one of local, remote and external must be set"),
    validation = Rule::new("!(has(self.enforceNamespaces) && self.enforceNamespaces) || (has(self.namespaces) && size(self.namespaces) > 0)")
        .message("enforceNamespaces needs a list of namespaces to enforce"),
    validation = Rule::new("!(has(self.namespaceDefault) && self.namespaceDefault) || (has(self.namespaces) && size(self.namespaces) > 0)")
        .message("namespaceDefault needs a list of namespaces to be the default of")
)]
pub struct ServiceGroupSpec {
    /// Addresses on the nodes' own subnets, announced on the interface of one node by ARP and neighbour
    /// discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalPools>,
    /// Addresses that are on no node's subnet, held on the dummy interface of the nodes and announced to routers
    /// by BGP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemotePools>,
    /// Addresses that an IPAM sidecar of the allocator hands out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalPools>,
    /// Namespaces whose Services this group serves when they name no group. Empty: it is nobody's default by
    /// namespace. Services of two namespaces that are listed may share an address (purelb.io/allow-shared-ip).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1024),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
    /// Makes namespaces a boundary: those namespaces use only their own groups, and this group and all others that
    /// list them serve only Services of the namespaces that they list. Addresses that are held already are never revoked.
    #[serde(default)]
    pub enforce_namespaces: bool,
    /// Where several groups list a namespace: this is the one for Services that name no group. Without exactly one
    /// of them marked so they are served by the group named default, with a warning.
    #[serde(default)]
    pub namespace_default: bool,
    /// How long the addresses of a Service that is deleted, or that is no longer of type LoadBalancer, wait for it:
    /// created again under the same namespace and name within that time, it gets the same ones. Meanwhile nobody
    /// else does. As 10m; absent or 0: not at all. Of one group at most 500 addresses wait; beyond that those
    /// that have waited longest are freed. It is a convenience, not a promise: nothing waits after a deletion that
    /// no allocator has seen, because none was running or because the one that decides was killed within a second
    /// of it. An address that must stay is asked for with purelb.io/addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky_for: Option<GoDuration>,
}

/// Pools of addresses on the nodes' own subnets.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.v4pool) || has(self.v6pool) || (has(self.v4pools) && size(self.v4pools) > 0) || (has(self.v6pools) && size(self.v6pools) > 0)")
        .message("at least one of v4pool, v6pool, v4pools and v6pools must be set"),
    validation = Rule::new("!(has(self.multiPool) && self.multiPool && has(self.balancePools) && self.balancePools)")
        .message("multiPool and balancePools are mutually exclusive")
)]
pub struct LocalPools {
    /// The pool of IPv4 addresses. Shorthand for v4pools with one entry; comes before those of v4pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.pool.contains(':') && !self.subnet.contains(':')").message("v4pool needs IPv4 addresses"))]
    pub v4pool: Option<AddressPool>,
    /// The pool of IPv6 addresses. Shorthand for v6pools with one entry; comes before those of v6pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.pool.contains(':') && self.subnet.contains(':')").message("v6pool needs IPv6 addresses"))]
    pub v6pool: Option<AddressPool>,
    /// Pools of IPv4 addresses, used in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(p, !p.pool.contains(':') && !p.subnet.contains(':'))").message("v4pools need IPv4 addresses"))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub v4pools: Vec<AddressPool>,
    /// Pools of IPv6 addresses, used in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(p, p.pool.contains(':') && p.subnet.contains(':'))").message("v6pools need IPv6 addresses"))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub v6pools: Vec<AddressPool>,
    /// Gives a Service one address from every pool of a family that is on the subnet of a live node, so that it is
    /// reachable in every subnet. Pools without a free address or a live node are left out. A Service gains
    /// addresses later only when it is annotated with purelb.io/re-evaluate. Excludes balancePools.
    #[serde(default)]
    pub multi_pool: bool,
    /// Takes each new address from the pool of its family that has the fewest addresses in use, counted, whatever
    /// the size of the pools; of equals the first. Excludes multiPool.
    #[serde(default)]
    pub balance_pools: bool,
    /// Leaves out the second look for duplicates of IPv6 addresses. A node asks the subnet twice before it takes an address,
    /// and without this once more a second later. The kernel is never asked to look itself, because it would not use the
    /// address meanwhile.
    #[serde(default, rename = "skipIPv6DAD")]
    pub skip_ipv6_dad: bool,
}

/// Pools of addresses that are on no node's subnet.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.v4pool) || has(self.v6pool) || (has(self.v4pools) && size(self.v4pools) > 0) || (has(self.v6pools) && size(self.v6pools) > 0)")
        .message("at least one of v4pool, v6pool, v4pools and v6pools must be set"),
    validation = Rule::new("!(has(self.multiPool) && self.multiPool && has(self.balancePools) && self.balancePools)")
        .message("multiPool and balancePools are mutually exclusive")
)]
pub struct RemotePools {
    /// The pool of IPv4 addresses. Shorthand for v4pools with one entry; comes before those of v4pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.pool.contains(':') && !self.subnet.contains(':')").message("v4pool needs IPv4 addresses"))]
    pub v4pool: Option<AddressPool>,
    /// The pool of IPv6 addresses. Shorthand for v6pools with one entry; comes before those of v6pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.pool.contains(':') && self.subnet.contains(':')").message("v6pool needs IPv6 addresses"))]
    pub v6pool: Option<AddressPool>,
    /// Pools of IPv4 addresses, used in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(p, !p.pool.contains(':') && !p.subnet.contains(':'))").message("v4pools need IPv4 addresses"))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub v4pools: Vec<AddressPool>,
    /// Pools of IPv6 addresses, used in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(p, p.pool.contains(':') && p.subnet.contains(':'))").message("v6pools need IPv6 addresses"))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub v6pools: Vec<AddressPool>,
    /// Gives a Service one address from every pool of a family. Pools without a free address are left out. A
    /// Service gains addresses later only when it is annotated with purelb.io/re-evaluate. Excludes balancePools.
    #[serde(default)]
    pub multi_pool: bool,
    /// Takes each new address from the pool of its family that has the fewest addresses in use, counted, whatever
    /// the size of the pools; of equals the first. Excludes multiPool.
    #[serde(default)]
    pub balance_pools: bool,
}

/// Consecutive addresses and the subnet around them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressPool {
    /// The addresses: a CIDR as 192.0.2.0/28, or first and last address as 192.0.2.10-192.0.2.20. A CIDR with bits
    /// behind its prefix is read as its network.
    #[schemars(length(max = 96), regex(pattern = r"^[0-9a-fA-F:.]+(/[0-9]{1,3}| *- *[0-9a-fA-F:.]+)$"))]
    pub pool: String,
    /// The subnet that contains the pool, as 192.0.2.0/24.
    #[schemars(length(max = 48), regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$"))]
    pub subnet: String,
    /// Prefix length that is put on the interface and announced: default, which is the subnet's, or /N. For
    /// externalTrafficPolicy Local it must be /32 for IPv4 and /128 for IPv6.
    #[serde(default = "default_aggregation")]
    #[schemars(regex(pattern = r"^(default|/([89]|[1-9][0-9]|1[01][0-9]|12[0-8]))$"))]
    pub aggregation: String,
}

/// An IPAM sidecar that hands out the addresses.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExternalPools {
    /// Name of the provider, for people to read.
    #[schemars(length(min = 1, max = 253))]
    pub provider: String,
    /// Path of the sidecar's Unix socket in the allocator's pod.
    #[serde(default = "default_socket")]
    #[schemars(length(max = 107), regex(pattern = r"^/.+$"))]
    pub socket: String,
    /// Where the addresses are announced: local or remote.
    pub announce: PoolType,
}

/// What became of a group. Written by the allocator.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceGroupStatus {
    /// Where the addresses are announced: local or remote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<PoolType>,
    /// Who keeps the books of the addresses: PureLB or the name of the IPAM provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<String>,
    /// The address ranges that are handed out, first-last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// IPv4 addresses in use; those in reservations are among them.
    #[serde(default, rename = "allocatedIPv4")]
    pub allocated_ipv4: i64,
    /// IPv6 addresses in use; those in reservations are among them.
    #[serde(default, rename = "allocatedIPv6")]
    pub allocated_ipv6: i64,
    /// IPv4 addresses that are free: neither in use nor reserved. Absent where an IPAM provider does not know.
    #[serde(rename = "availableIPv4", skip_serializing_if = "Option::is_none")]
    pub available_ipv4: Option<i64>,
    /// IPv6 addresses that are free: neither in use nor reserved; more than 9223372036854775807 are shown as that. Absent where an IPAM
    /// provider does not know.
    #[serde(rename = "availableIPv6", skip_serializing_if = "Option::is_none")]
    pub available_ipv6: Option<i64>,
    /// Namespaces whose Services are served from this group where they name none: spec.namespaces as it was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound_namespaces: Vec<String>,
    /// Addresses of the group for which a stranger answers on the wire of a live node, the first 64 of them. They
    /// are not handed out until that ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<GroupConflict>,
    /// Addresses that wait for their Service to come back, see stickyFor; by address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<ReservedAddress>,
    /// External groups: Services, as namespace/name, that the IPAM provider may have given addresses to. A name is
    /// written before the provider is asked and goes when it has confirmed the release, so that nothing is lost
    /// when the allocator is not there; no need to edit it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub external_services: Vec<String>,
    /// External groups: the socket of the IPAM provider that the names in externalServices belong to. Written by the
    /// allocator with them; no need to edit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_socket: Option<String>,
    /// IPAM providers that spec.external.socket has named before and that may still have given addresses to
    /// Services. They are released there when the Services need them no more, and the entry goes when nothing is
    /// left. An entry that is removed is forgotten with the releases that are owed there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_providers: Vec<FormerProvider>,
    /// Accepted: whether the group is understood and used, with the reason when it is not. AddressConflict: whether
    /// strangers answer for addresses of the group. ProviderReady: whether the IPAM provider of an external group
    /// answers. FormerProvidersSettled: whether those it has had before have all their addresses back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// An address of the group for which a stranger answers on the wire.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GroupConflict {
    /// The address.
    pub address: String,
    /// The node that has seen the answer.
    pub node: String,
    /// Who answers.
    pub link_layer_address: String,
}

/// An IPAM provider that an external group had before.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct FormerProvider {
    /// Path of its socket.
    pub socket: String,
    /// To whom it may have given addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<FormerlyServed>,
}

/// A Service to which an IPAM provider may have given addresses.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct FormerlyServed {
    /// Namespace and name of the Service, as my-namespace/my-app.
    pub service: String,
    /// What it has surely been given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// An address that waits for its Service to come back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct ReservedAddress {
    /// The address.
    pub address: String,
    /// Namespace and name of the Service, as my-namespace/my-app.
    pub service: String,
    /// When it is free for everybody.
    pub until: Time,
}

fn default_aggregation() -> String {
    "default".to_owned()
}

fn default_socket() -> String {
    "/var/run/purelb/ipam.sock".to_owned()
}

/// The pools of a local or remote group, with where each stands in the spec.
#[derive(Clone, Debug)]
pub struct PoolsView<'a> {
    /// Which of the two.
    pub pool_type: PoolType,
    /// Path, family and text of each pool; the singular form first.
    pub pools: Vec<(String, IpFamily, &'a AddressPool)>,
    /// `multiPool`.
    pub multi_pool: bool,
    /// `balancePools`.
    pub balance_pools: bool,
}

impl ServiceGroupSpec {
    /// The pools of a local or remote group; `None` for an external one and for one that is none of the three.
    pub fn pools(&self) -> Option<PoolsView<'_>> {
        let (pool_type, multi_pool, balance_pools, singles, lists) = match (&self.local, &self.remote) {
            (Some(l), _) => (
                PoolType::Local,
                l.multi_pool,
                l.balance_pools,
                [&l.v4pool, &l.v6pool],
                [&l.v4pools, &l.v6pools],
            ),
            (None, Some(r)) => (
                PoolType::Remote,
                r.multi_pool,
                r.balance_pools,
                [&r.v4pool, &r.v6pool],
                [&r.v4pools, &r.v6pools],
            ),
            (None, None) => return None,
        };
        let mut pools = Vec::new();
        for ((family, name), (single, list)) in [(IpFamily::IPv4, "v4pool"), (IpFamily::IPv6, "v6pool")]
            .into_iter()
            .zip(singles.into_iter().zip(lists))
        {
            pools.extend(single.iter().map(|pool| (format!("spec.{pool_type}.{name}"), family, pool)));
            let listed = list.iter().enumerate();
            pools.extend(listed.map(|(i, pool)| (format!("spec.{pool_type}.{name}s[{i}]"), family, pool)));
        }
        Some(PoolsView { pool_type, pools, multi_pool, balance_pools })
    }

    /// Where the spec has a CIDR with bits behind its prefix, and what it is read as.
    pub fn remarks(&self) -> Vec<String> {
        let pools = self.pools().map(|view| view.pools).unwrap_or_default();
        let fields = pools
            .iter()
            .flat_map(|(path, _, pool)| [(path, "pool", &pool.pool), (path, "subnet", &pool.subnet)]);
        let read = fields.filter_map(|(path, field, text)| Some((path, field, text, as_network(text)?)));
        read.map(|(path, field, text, network)| format!("{path}.{field}: {text} is read as {network}"))
            .collect()
    }

    /// Every pool of a local or remote group, understood. Both controllers read groups with this.
    ///
    /// # Errors
    ///
    /// The first pool that makes no sense, pools that overlap each other, or a group that is not exactly one of
    /// local, remote and external, or has no pool. Empty for an external group.
    pub fn parse_pools(&self) -> Result<Vec<Pool>, Refusal> {
        let kinds = [self.local.is_some(), self.remote.is_some(), self.external.is_some()];
        if kinds.into_iter().filter(|set| *set).count() != 1 {
            return Err(Refusal::invalid("spec", "exactly one of local, remote and external must be set"));
        }
        let Some(view) = self.pools() else { return Ok(Vec::new()) };
        let path = format!("spec.{}", view.pool_type);
        if view.pools.is_empty() {
            return Err(Refusal::invalid(
                path,
                "at least one of v4pool, v6pool, v4pools and v6pools must be set",
            ));
        }
        if view.multi_pool && view.balance_pools {
            return Err(Refusal::invalid(
                path,
                "multiPool and balancePools are mutually exclusive: set one of them",
            ));
        }
        let mut parsed: Vec<Pool> = Vec::with_capacity(view.pools.len());
        for (path, family, spec) in &view.pools {
            let pool = Pool::parse(spec, *family, view.pool_type, path)?;
            if let Some(other) = parsed.iter().find(|other| other.range.overlaps(&pool.range)) {
                let message = format!("{} overlaps with {} of the same group", pool.range, other.range);
                return Err(Refusal::invalid(format!("{path}.pool"), message));
            }
            parsed.push(pool);
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> ServiceGroupSpec {
        serde_norway::from_str(yaml).unwrap()
    }

    #[test]
    fn pools_come_with_their_paths_singular_form_first() {
        let spec = spec(
            "remote: {v4pools: [{pool: 198.51.100.0/28, subnet: 198.51.100.0/24}], \
             v4pool: {pool: 192.0.2.0/28, subnet: 192.0.2.0/24}, v6pool: {pool: 'fd00::/64', subnet: 'fd00::/64'}}",
        );
        let view = spec.pools().unwrap();
        let paths: Vec<_> = view.pools.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(paths, ["spec.remote.v4pool", "spec.remote.v4pools[0]", "spec.remote.v6pool"]);
        assert_eq!(spec.parse_pools().unwrap().len(), 3);
    }

    #[test]
    fn a_cidr_with_bits_behind_its_prefix_is_remarked_upon() {
        let spec = spec("remote: {v4pools: [{pool: 192.0.2.5/28, subnet: 192.0.2.0/24}]}");
        assert_eq!(spec.remarks(), ["spec.remote.v4pools[0].pool: 192.0.2.5/28 is read as 192.0.2.0/28"]);
        assert!(spec.parse_pools().is_ok());
    }

    #[test]
    fn a_group_of_no_kind_or_two_kinds_is_refused() {
        let pool = "{v4pool: {pool: 192.0.2.0/28, subnet: 192.0.2.0/24}}";
        for yaml in ["{}".to_owned(), format!("{{local: {pool}, remote: {pool}}}")] {
            assert_eq!(spec(&yaml).parse_pools().unwrap_err().path, "spec");
        }
    }

    #[test]
    fn multi_pool_and_balance_pools_exclude_each_other() {
        let pool = "v4pool: {pool: 192.0.2.0/28, subnet: 192.0.2.0/24}";
        for kind in ["local", "remote"] {
            let both = spec(&format!("{kind}: {{{pool}, multiPool: true, balancePools: true}}"));
            let refusal = both.parse_pools().unwrap_err();
            assert_eq!(refusal.path, format!("spec.{kind}"));
            assert!(refusal.message.contains("mutually exclusive"), "{refusal}");
        }
    }

    #[test]
    fn pools_of_one_group_that_overlap_are_refused() {
        let spec = spec(
            "local: {v4pools: [{pool: 192.0.2.0/28, subnet: 192.0.2.0/24}, \
             {pool: 192.0.2.8-192.0.2.20, subnet: 192.0.2.0/24}]}",
        );
        assert_eq!(spec.parse_pools().unwrap_err().path, "spec.local.v4pools[1].pool");
    }
}
