//! List and map semantics of the built-in kinds: merge keys, list types, atomic maps, and the few defaults
//! that keys need. The Go types carry them as struct tags; here they are a table.

use serde_json::{Value, json};

/// One field: definition suffix, field, list type (`map`, `set`, `atomic`), list map keys (comma separated),
/// patch merge key (empty: none; `*`: a merged list of scalars).
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

const FIELDS: &[Row] = &[
    ("meta.v1.ObjectMeta", "ownerReferences", "map", "uid", "uid"),
    ("meta.v1.ObjectMeta", "finalizers", "set", "", "*"),
    ("meta.v1.LabelSelector", "matchExpressions", "atomic", "", ""),
    ("core.v1.ServiceSpec", "ports", "map", "port,protocol", "port"),
    ("core.v1.ServiceSpec", "clusterIPs", "atomic", "", ""),
    ("core.v1.ServiceSpec", "ipFamilies", "atomic", "", ""),
    ("core.v1.ServiceSpec", "externalIPs", "atomic", "", ""),
    ("core.v1.ServiceSpec", "loadBalancerSourceRanges", "atomic", "", ""),
    ("core.v1.ServiceStatus", "conditions", "map", "type", "type"),
    ("core.v1.LoadBalancerStatus", "ingress", "atomic", "", ""),
    ("core.v1.LoadBalancerIngress", "ports", "atomic", "", ""),
    ("core.v1.NodeSpec", "podCIDRs", "set", "", "*"),
    ("core.v1.NodeSpec", "taints", "atomic", "", ""),
    ("core.v1.NodeStatus", "conditions", "map", "type", "type"),
    ("core.v1.NodeStatus", "addresses", "map", "type", "type"),
    ("core.v1.NodeStatus", "images", "atomic", "", ""),
    ("core.v1.NamespaceStatus", "conditions", "map", "type", "type"),
    ("core.v1.NamespaceSpec", "finalizers", "atomic", "", ""),
    ("core.v1.PodSpec", "containers", "map", "name", "name"),
    ("core.v1.PodSpec", "initContainers", "map", "name", "name"),
    ("core.v1.PodSpec", "ephemeralContainers", "map", "name", "name"),
    ("core.v1.PodSpec", "volumes", "map", "name", "name"),
    ("core.v1.PodSpec", "imagePullSecrets", "map", "name", "name"),
    ("core.v1.PodSpec", "hostAliases", "map", "ip", "ip"),
    ("core.v1.PodSpec", "tolerations", "atomic", "", ""),
    ("core.v1.PodSpec", "topologySpreadConstraints", "map", "topologyKey,whenUnsatisfiable", "topologyKey"),
    ("core.v1.PodSpec", "schedulingGates", "map", "name", "name"),
    ("core.v1.PodSpec", "resourceClaims", "map", "name", "name"),
    ("core.v1.PodStatus", "conditions", "map", "type", "type"),
    ("core.v1.PodStatus", "podIPs", "map", "ip", "ip"),
    ("core.v1.PodStatus", "hostIPs", "atomic", "", "ip"),
    ("core.v1.Container", "ports", "map", "containerPort,protocol", "containerPort"),
    ("core.v1.Container", "env", "map", "name", "name"),
    ("core.v1.Container", "volumeMounts", "map", "mountPath", "mountPath"),
    ("core.v1.Container", "volumeDevices", "map", "devicePath", "devicePath"),
    ("core.v1.ServiceAccount", "secrets", "map", "name", "name"),
    ("core.v1.ServiceAccount", "imagePullSecrets", "atomic", "", ""),
    ("core.v1.Endpoints", "subsets", "atomic", "", ""),
    ("apps.v1.DeploymentStatus", "conditions", "map", "type", "type"),
    ("apps.v1.DaemonSetStatus", "conditions", "map", "type", "type"),
    ("apps.v1.ReplicaSetStatus", "conditions", "map", "type", "type"),
    ("discovery.v1.EndpointSlice", "endpoints", "atomic", "", ""),
    ("discovery.v1.EndpointSlice", "ports", "atomic", "", ""),
    ("apiextensions.v1.CustomResourceDefinitionStatus", "conditions", "map", "type", ""),
];

/// Definitions that are one value when two owners write them.
const ATOMIC_MAPS: &[(&str, &str)] = &[("core.v1.ServiceSpec", "selector")];

/// Definitions that are atomic wherever they are used.
const ATOMIC_DEFINITIONS: &[&str] = &[
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
    "core.v1.LocalObjectReference",
    "core.v1.ObjectReference",
    "core.v1.TypedLocalObjectReference",
    "core.v1.SecretReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
];

/// Definitions whose values may be of any type.
const ANY_VALUE: &[&str] = &[
    "apiextensions.v1.JSON",
    "apiextensions.v1.JSONSchemaPropsOrArray",
    "apiextensions.v1.JSONSchemaPropsOrBool",
    "apiextensions.v1.JSONSchemaPropsOrStringArray",
];

/// Keys of map lists that may be left out in the object: the value they then stand for.
const KEY_DEFAULTS: &[(&str, &str, &str)] =
    &[("core.v1.ServicePort", "protocol", "TCP"), ("core.v1.ContainerPort", "protocol", "TCP")];

/// Lays the tables over the definition called `name`.
pub(super) fn overlay(name: &str, definition: &mut Value) {
    for (owner, field, list, keys, merge_key) in FIELDS {
        if name.ends_with(owner) {
            let property = &mut definition["properties"][*field];
            if property.is_object() {
                mark_list(property, list, keys, merge_key);
            }
        }
    }
    for (owner, field) in ATOMIC_MAPS {
        if name.ends_with(owner) {
            definition["properties"][*field]["x-kubernetes-map-type"] = json!("atomic");
        }
    }
    if ATOMIC_DEFINITIONS.iter().any(|suffix| name.ends_with(suffix)) {
        definition["x-kubernetes-map-type"] = json!("atomic");
    }
    if ANY_VALUE.iter().any(|suffix| name.ends_with(suffix)) {
        *definition = json!({"description": definition["description"]});
    }
    for (owner, field, value) in KEY_DEFAULTS {
        if name.ends_with(owner) {
            definition["properties"][*field]["default"] = json!(value);
        }
    }
}

fn mark_list(property: &mut Value, list: &str, keys: &str, merge_key: &str) {
    property["x-kubernetes-list-type"] = json!(list);
    if !keys.is_empty() {
        property["x-kubernetes-list-map-keys"] = keys.split(',').collect();
    }
    if !merge_key.is_empty() {
        property["x-kubernetes-patch-strategy"] = json!("merge");
    }
    if !matches!(merge_key, "" | "*") {
        property["x-kubernetes-patch-merge-key"] = json!(merge_key);
    }
}

#[cfg(test)]
mod tests {
    use crate::schema::builtin::definitions_json;

    #[test]
    fn every_row_of_the_tables_names_a_field_that_exists() {
        let rows = super::FIELDS.iter().map(|r| (r.0, r.1)).chain(super::ATOMIC_MAPS.iter().copied());
        for (owner, field) in rows.chain(super::KEY_DEFAULTS.iter().map(|r| (r.0, r.1))) {
            let found = definitions_json().iter().any(|(name, definition)| {
                name.ends_with(owner) && definition["properties"][field]["description"].is_string()
            });
            assert!(found, "{owner}.{field}");
        }
    }
}
