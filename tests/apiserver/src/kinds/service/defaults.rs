//! The static defaults of a Service.

use serde_json::{Value, json};

use super::{is_external, is_load_balancer};
use crate::object::{self, default_to};

/// Fills them in.
pub(super) fn apply(service: &mut Value) {
    let spec = object::child_mut(service, "spec");
    // Empty lists and maps mean absent in the typed encoding.
    for field in ["ports", "clusterIPs", "ipFamilies", "externalIPs", "loadBalancerSourceRanges"] {
        if spec[field].as_array().is_some_and(Vec::is_empty) {
            object::put(spec, field, Value::Null);
        }
    }
    for field in
        ["clusterIP", "externalTrafficPolicy", "loadBalancerIP", "externalName", "sessionAffinity", "type"]
    {
        if spec[field] == "" {
            object::put(spec, field, Value::Null);
        }
    }
    for field in ["healthCheckNodePort"] {
        if spec[field] == 0 {
            object::put(spec, field, Value::Null);
        }
    }
    default_to(spec, "type", "ClusterIP");
    default_to(spec, "sessionAffinity", "None");
    apply_affinity(spec);
    for port in object::objects_mut(spec, &["ports"]) {
        apply_port(port);
    }
    if spec["type"] != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if is_external(service) {
        default_to(&mut service["spec"], "externalTrafficPolicy", "Cluster");
    }
    if is_load_balancer(service) {
        default_to(&mut service["spec"], "allocateLoadBalancerNodePorts", true);
        apply_ip_mode(service);
    }
}

fn apply_affinity(spec: &mut Value) {
    if spec["sessionAffinity"] == "None" {
        object::put(spec, "sessionAffinityConfig", Value::Null);
    }
    if spec["sessionAffinity"] == "ClientIP" {
        default_to(spec, "sessionAffinityConfig", json!({}));
        default_to(&mut spec["sessionAffinityConfig"], "clientIP", json!({}));
        default_to(&mut spec["sessionAffinityConfig"]["clientIP"], "timeoutSeconds", 10800);
    }
}

fn apply_port(port: &mut Value) {
    for field in ["protocol", "name", "appProtocol"] {
        if port[field] == "" && field != "appProtocol" {
            object::put(port, field, Value::Null);
        }
    }
    if port["nodePort"] == 0 {
        object::put(port, "nodePort", Value::Null);
    }
    default_to(port, "protocol", "TCP");
    if matches!(&port["targetPort"], Value::Null) || port["targetPort"] == 0 || port["targetPort"] == "" {
        let number = port["port"].clone();
        object::put(port, "targetPort", number);
    }
}

fn apply_ip_mode(service: &mut Value) {
    let status = &mut service["status"];
    if !status.is_object() {
        *status = json!({"loadBalancer": {}});
    }
    let ingress = object::list_mut(status, &["loadBalancer", "ingress"]);
    if let Some(ingress) = ingress {
        for entry in ingress.iter_mut().filter(|e| !e["ip"].as_str().unwrap_or_default().is_empty()) {
            default_to(entry, "ipMode", "VIP");
        }
    }
}
