//! What an update of a Service drops because the new type has no use for it, and what it carries over
//! because it was allocated and the writer did not repeat it.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{is_external, is_external_name, is_load_balancer, wants_health_check_port, wants_node_ports};
use crate::object;

/// Drops fields that were allocated or defaulted for the old type, if the writer left them unchanged.
pub(super) fn drop_unused(new: &mut Value, old: &Value) {
    let unchanged = |new: &Value, field: &str| new["spec"][field] == old["spec"][field];
    if !is_external_name(old) && is_external_name(new) {
        if unchanged(new, "clusterIP") && unchanged(new, "clusterIPs") {
            drop_field(new, "clusterIP");
            drop_field(new, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if unchanged(new, field) {
                drop_field(new, field);
            }
        }
    }
    if is_external(old) && !is_external(new) && node_ports(old).is_superset(&node_ports(new)) {
        for port in object::objects_mut(new, &["spec", "ports"]) {
            object::put(port, "nodePort", Value::Null);
        }
    }
    if wants_health_check_port(old) && !wants_health_check_port(new) && unchanged(new, "healthCheckNodePort")
    {
        drop_field(new, "healthCheckNodePort");
    }
    if is_load_balancer(old) && !is_load_balancer(new) {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(new, field) {
                drop_field(new, field);
            }
        }
    }
    if is_external(old) && !is_external(new) && unchanged(new, "externalTrafficPolicy") {
        drop_field(new, "externalTrafficPolicy");
    }
    if !is_load_balancer(new) {
        new["status"]["loadBalancer"] = json!({});
    }
}

fn drop_field(service: &mut Value, field: &str) {
    object::put(&mut service["spec"], field, Value::Null);
}

fn node_ports(service: &Value) -> HashSet<i64> {
    object::list_at(service, &["spec", "ports"]).iter().filter_map(|p| p["nodePort"].as_i64()).collect()
}

/// Carries allocated values into an update that leaves them out, and keeps `clusterIP` and `clusterIPs` in
/// step for writers that know only one of them.
pub(super) fn carry_allocated(new: &mut Value, old: Option<&Value>) {
    let Some(old) = old else {
        let first = new["spec"]["clusterIP"].clone();
        if !first.is_null() && new["spec"]["clusterIPs"].is_null() {
            new["spec"]["clusterIPs"] = json!([first]);
        }
        return;
    };
    if !is_external_name(old) && !is_external_name(new) {
        for field in ["clusterIP", "clusterIPs"] {
            if new["spec"][field].is_null() {
                let kept = old["spec"][field].clone();
                object::put(&mut new["spec"], field, kept);
            }
        }
    }
    if wants_node_ports(old) && wants_node_ports(new) {
        carry_node_ports(new, old);
    }
    if wants_health_check_port(old)
        && wants_health_check_port(new)
        && new["spec"]["healthCheckNodePort"].is_null()
    {
        let kept = old["spec"]["healthCheckNodePort"].clone();
        object::put(&mut new["spec"], "healthCheckNodePort", kept);
    }
    keep_cluster_ips_in_step(new, old);
}

fn carry_node_ports(new: &mut Value, old: &Value) {
    let (before, after) = (node_ports(old), node_ports(new));
    let used: HashSet<i64> = before.intersection(&after).copied().collect();
    let by_name = |name: &Value| {
        object::list_at(old, &["spec", "ports"])
            .iter()
            .rev()
            .find(|p| p["name"] == *name)
            .map(|p| p["nodePort"].clone())
    };
    for port in object::objects_mut(new, &["spec", "ports"]).filter(|p| p["nodePort"].is_null()) {
        let kept = by_name(&port["name"]).filter(|n| n.as_i64().is_some_and(|n| !used.contains(&n)));
        if let Some(kept) = kept {
            object::put(port, "nodePort", kept);
        }
    }
}

fn keep_cluster_ips_in_step(new: &mut Value, old: &Value) {
    let same_list = new["spec"]["clusterIPs"] == old["spec"]["clusterIPs"];
    if old["spec"]["clusterIP"] == new["spec"]["clusterIP"] || !same_list {
        return;
    }
    let first = new["spec"]["clusterIP"].clone();
    if first.is_null() {
        drop_field(new, "clusterIPs");
    } else {
        new["spec"]["clusterIPs"] = json!([first]);
    }
}
