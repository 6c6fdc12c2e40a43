//! The Services of a large cluster, as their owners write them: what the allocator's benchmarks allocate.
//!
//! Three quarters IPv4, a fifth dual stack, the rest IPv6; half of them from the group `default` by silence, the
//! others from three groups by annotation; one in twenty shares its address with three others of its namespace;
//! one in a hundred asks for a very address. Names, labels and ports as Helm charts write them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The namespaces that the Services are in.
pub(crate) const NAMESPACES: usize = 50;

/// Every so many is one of four that share.
const SHARING: usize = 20;
/// How many share an address.
const SHARERS: usize = 4;
/// Every so many asks for a very address.
const ASKING: usize = 100;

/// The groups: three with one pool a family, `edge` with several.
pub(crate) const GROUPS: [&str; 4] = ["default", "edge", "internal", "voice"];

/// The spec of a ServiceGroup of [`GROUPS`].
pub(crate) fn group(name: &str) -> Value {
    let number = GROUPS.iter().position(|known| *known == name).unwrap_or_default();
    let pool = |range: String, subnet: String, length: &str| json!({ "pool": range, "subnet": subnet, "aggregation": length });
    let v4 = |prefix: String| pool(prefix.clone(), prefix, "/32");
    let v6 = format!("fd00:{number}::/64");
    let v6pools = [pool(v6.clone(), v6, "/128")];
    let v4pools = match name {
        // The first is full soon. The last is where very addresses are asked for: nothing else gets that far.
        "edge" => ["10.80.0.0/19", "10.82.0.0/15", "10.84.0.0/15"].map(|prefix| v4(prefix.to_owned())).into(),
        _ => vec![v4(format!("10.{}.0.0/15", 16 * (number + 1)))],
    };
    json!({ "remote": { "v4pools": v4pools, "v6pools": v6pools } })
}

/// The namespace of a Service.
pub(crate) fn namespace(number: usize) -> String {
    // Those that share a key are in one namespace.
    namespace_number(number / (SHARING * SHARERS) % NAMESPACES)
}

/// The name of a namespace.
pub(crate) fn namespace_number(number: usize) -> String {
    format!("team-{number:02}")
}

/// The name of a Service.
pub(crate) fn name(number: usize) -> String {
    format!("frontend-{number:06}")
}

/// How many addresses the first `count` Services hold when all of them are served.
pub(crate) fn addresses(count: usize) -> usize {
    let families = |object: &Value| object["spec"]["ipFamilies"].as_array().map_or(0, Vec::len);
    let shared = (0..count).filter(|number| number.is_multiple_of(SHARING));
    let keys: BTreeSet<usize> = shared.map(|number| number / (SHARING * SHARERS)).collect();
    let alone = (0..count).filter(|number| !number.is_multiple_of(SHARING));
    keys.len() + alone.map(|number| families(&service(number))).sum::<usize>()
}

/// Service number `number`, as its owner creates it.
pub(crate) fn service(number: usize) -> Value {
    let name = name(number);
    let mut annotations = Map::new();
    let mut annotate =
        |name: &str, value: String| annotations.insert(format!("purelb.io/{name}"), value.into());
    let (mut families, mut policy) = match number % 20 {
        0..15 => (json!(["IPv4"]), "SingleStack"),
        15..19 => (json!(["IPv4", "IPv6"]), "PreferDualStack"),
        _ => (json!(["IPv6"]), "SingleStack"),
    };
    let mut ports = vec![json!({ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 })];
    if number % ASKING == 7 {
        let address = 0x0a54_0000 + u32::try_from(number / ASKING).unwrap_or_default() % (1 << 17);
        annotate("addresses", std::net::Ipv4Addr::from(address).to_string());
        (families, policy) = (json!(["IPv4"]), "SingleStack");
    } else if number.is_multiple_of(2) {
        annotate("service-group", GROUPS[1 + number / 2 % (GROUPS.len() - 1)].to_owned());
    } else {
        ports.push(json!({ "name": "https", "port": 443, "protocol": "TCP", "targetPort": 8443 }));
    }
    if number.is_multiple_of(SHARING) {
        let (sharer, key) = (number / SHARING % SHARERS, number / (SHARING * SHARERS));
        annotate("allow-shared-ip", format!("share-{key}"));
        annotate("service-group", "internal".to_owned());
        ports = vec![json!({ "name": "tcp", "port": 8000 + sharer, "protocol": "TCP" })];
        (families, policy) = (json!(["IPv4"]), "SingleStack");
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace(number),
            "annotations": annotations,
            "labels": {
                "app.kubernetes.io/name": "frontend",
                "app.kubernetes.io/instance": name,
                "app.kubernetes.io/managed-by": "Helm",
                "helm.sh/chart": "frontend-1.2.3",
            },
        },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "externalTrafficPolicy": "Cluster",
            "ipFamilies": families,
            "ipFamilyPolicy": policy,
            "ports": ports,
            "selector": { "app.kubernetes.io/instance": name },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_share_hold_one_address_and_dual_stack_holds_two() {
        // Four share, of which the first is alone at first.
        assert_eq!((addresses(1), addresses(2)), (1, 2));
        // Of 20, four are dual stack and one shares.
        assert_eq!(addresses(20), 19 + 4 + 1);
        assert_eq!(addresses(80), 4 * (19 + 4) + 1, "the four that share hold one");
    }
}
