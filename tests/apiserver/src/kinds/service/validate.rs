//! What a Service must look like, once defaulted and allocated.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    families, is_external, is_external_name, is_headless, is_load_balancer, service_type,
    wants_health_check_port,
};
use crate::kinds::names;
use crate::object;
use crate::refusal::Cause;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
const CLIENT_IP_MAX_SECS: i64 = 86400;

pub(super) fn validate(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(old) = old {
        immutable_addresses(new, old, &mut causes);
        immutable_class(new, old, &mut causes);
        let port = &new["spec"]["healthCheckNodePort"];
        if wants_health_check_port(old)
            && wants_health_check_port(new)
            && old["spec"]["healthCheckNodePort"] != *port
        {
            causes.push(Cause::forbidden("spec.healthCheckNodePort", "field is immutable"));
        }
    }
    check_type(new, &mut causes);
    check_ports(new, &mut causes);
    for (key, value) in new["spec"]["selector"].as_object().into_iter().flatten() {
        let fault = names::qualified_name(key).map(|f| (json!(key), f));
        let fault = fault.or_else(|| Some((value.clone(), names::label_value(value.as_str()?)?)));
        if let Some((shown, text)) = fault {
            causes.push(Cause::invalid("spec.selector", &shown, &text));
        }
    }
    check_affinity(new, &mut causes);
    if !is_external_name(new) {
        causes.extend(families::pre_validate(new));
    }
    check_external_addresses(new, &mut causes);
    check_load_balancer_fields(new, &mut causes);
    check_policies(new, &mut causes);
    causes
}

fn check_type(new: &Value, causes: &mut Vec<Cause>) {
    let ports = object::list_at(new, &["spec", "ports"]);
    let headless = is_headless(new);
    if ports.is_empty() && !headless && !is_external_name(new) {
        causes.push(Cause::required("spec.ports", ""));
    }
    let kind = service_type(new);
    if !TYPES.contains(&kind) {
        causes.push(Cause::not_supported("spec.type", &json!(kind), &TYPES));
    }
    if headless && is_external(new) {
        let text = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", &json!("None"), &text));
    }
    if !is_external_name(new) {
        return;
    }
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !new["spec"][field].is_null() {
            causes
                .push(Cause::forbidden(format!("spec.{field}"), "may not be set for ExternalName services"));
        }
    }
    let target = object::str_at(new, &["spec", "externalName"]).trim_end_matches('.');
    if target.is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    } else if let Some(fault) = names::dns_subdomain(target) {
        causes.push(Cause::invalid("spec.externalName", &json!(target), &fault));
    }
}

fn check_ports(new: &Value, causes: &mut Vec<Cause>) {
    let ports = object::list_at(new, &["spec", "ports"]);
    let (mut port_names, mut pairs, mut node_pairs) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        let name = object::str_at(port, &["name"]);
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !name.is_empty() {
            if let Some(fault) = names::dns_label(name) {
                causes.push(Cause::invalid(format!("{at}.name"), &json!(name), &fault));
            }
            if !port_names.insert(name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &json!(name)));
            }
        }
        check_port(port, &at, causes);
        let protocol = object::str_at(port, &["protocol"]);
        if let Some(node_port) = port["nodePort"].as_i64() {
            if service_type(new) == "ClusterIP" {
                let text = "may not be used when `type` is 'ClusterIP'";
                causes.push(Cause::forbidden(format!("{at}.nodePort"), text));
            }
            if !node_pairs.insert((protocol, node_port)) {
                causes.push(Cause::duplicate(format!("{at}.nodePort"), &json!(node_port)));
            }
        }
        if !pairs.insert((protocol, port["port"].as_i64())) {
            let key = json!({"protocol": protocol, "port": port["port"]});
            causes.push(Cause::duplicate(at, &key));
        }
    }
}

fn check_port(port: &Value, at: &str, causes: &mut Vec<Cause>) {
    let number = port["port"].as_i64().unwrap_or_default();
    if !(1..=65535).contains(&number) {
        causes.push(Cause::invalid(format!("{at}.port"), &json!(number), PORT_RANGE));
    }
    let protocols = ["SCTP", "TCP", "UDP"];
    if !protocols.iter().any(|p| port["protocol"] == *p) {
        causes.push(Cause::not_supported(format!("{at}.protocol"), &port["protocol"], &protocols));
    }
    let target = &port["targetPort"];
    match target {
        Value::String(name) => {
            if let Some(fault) = names::port_name(name) {
                causes.push(Cause::invalid(format!("{at}.targetPort"), target, fault));
            }
        }
        _ if !target.as_i64().is_some_and(|n| (1..=65535).contains(&n)) => {
            causes.push(Cause::invalid(format!("{at}.targetPort"), target, PORT_RANGE));
        }
        _ => {}
    }
    if let Some(fault) = port["appProtocol"].as_str().and_then(names::qualified_name) {
        causes.push(Cause::invalid(format!("{at}.appProtocol"), &port["appProtocol"], &fault));
    }
}

fn check_affinity(new: &Value, causes: &mut Vec<Cause>) {
    let affinity = &new["spec"]["sessionAffinity"];
    let known = ["ClientIP", "None"];
    if !known.iter().any(|a| affinity == a) {
        causes.push(Cause::not_supported("spec.sessionAffinity", affinity, &known));
    }
    let seconds = &new["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if affinity == "ClientIP" && !seconds.as_i64().is_some_and(|s| (1..=CLIENT_IP_MAX_SECS).contains(&s)) {
        let text = format!("must be greater than 0 and less than {CLIENT_IP_MAX_SECS}");
        causes.push(Cause::invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, &text));
    }
}

fn check_external_addresses(new: &Value, causes: &mut Vec<Cause>) {
    for (i, ip) in object::list_at(new, &["spec", "externalIPs"]).iter().enumerate() {
        let at = format!("spec.externalIPs[{i}]");
        match ip.as_str().unwrap_or_default().parse::<IpAddr>() {
            Err(_) => {
                let text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                causes.push(Cause::invalid(at, ip, text));
            }
            Ok(address) => causes.extend(special_address(address, ip, at)),
        }
    }
}

fn special_address(address: IpAddr, shown: &Value, at: String) -> Option<Cause> {
    let link_local = match address {
        IpAddr::V4(v4) => {
            v4.is_link_local() || (v4.octets()[0] == 224 && v4.octets()[1] == 0 && v4.octets()[2] == 0)
        }
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[0] == 0xff02,
    };
    let text = if address.is_unspecified() {
        format!("may not be unspecified ({address})")
    } else if address.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
    } else {
        return None;
    };
    Some(Cause::invalid(at, shown, &text))
}

fn check_load_balancer_fields(new: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = object::list_at(spec, &["loadBalancerSourceRanges"]);
    if !ranges.is_empty() && !is_load_balancer(new) {
        causes.push(Cause::forbidden("spec.LoadBalancerSourceRanges", only));
    }
    for (i, range) in ranges.iter().enumerate() {
        if range.as_str().unwrap_or_default().trim().parse::<ipnet::IpNet>().is_err() {
            let text = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.push(Cause::invalid(format!("spec.LoadBalancerSourceRanges[{i}]"), range, text));
        }
    }
    if !spec["allocateLoadBalancerNodePorts"].is_null() && !is_load_balancer(new) {
        causes.push(Cause::forbidden("spec.allocateLoadBalancerNodePorts", only));
    }
    if spec["loadBalancerClass"].is_null() {
        return;
    }
    if !is_load_balancer(new) {
        causes.push(Cause::forbidden("spec.loadBalancerClass", only));
    } else if let Some(fault) = names::qualified_name(spec["loadBalancerClass"].as_str().unwrap_or_default())
    {
        causes.push(Cause::invalid("spec.loadBalancerClass", &spec["loadBalancerClass"], &fault));
    }
}

fn check_policies(new: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let external = &spec["externalTrafficPolicy"];
    let known = ["Cluster", "Local"];
    if !is_external(new) {
        if !external.is_null() {
            let text = "may only be set for externally-accessible services";
            causes.push(Cause::invalid("spec.externalTrafficPolicy", external, text));
        }
    } else if !known.iter().any(|p| external == p) {
        causes.push(Cause::not_supported("spec.externalTrafficPolicy", external, &known));
    }
    let health = &spec["healthCheckNodePort"];
    if !wants_health_check_port(new) && !health.is_null() {
        let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        causes.push(Cause::invalid("spec.healthCheckNodePort", health, text));
    }
    let internal = &spec["internalTrafficPolicy"];
    if !internal.is_null() && !known.iter().any(|p| internal == p) {
        causes.push(Cause::not_supported("spec.internalTrafficPolicy", internal, &known));
    }
    let distribution = &spec["trafficDistribution"];
    let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    if !distribution.is_null() && !known.iter().any(|p| distribution == p) {
        causes.push(Cause::not_supported("spec.trafficDistribution", distribution, &known));
    }
}

/// The primary address and family never change while the Service has addresses.
fn immutable_addresses(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    if is_external_name(old) || is_external_name(new) {
        return;
    }
    for (field, what) in [("clusterIPs", "clusterIP"), ("ipFamilies", "ipFamily")] {
        let before = object::list_at(old, &["spec", field]);
        let after = object::list_at(new, &["spec", field]);
        let (Some(first), Some(now)) = (before.first(), after.first()) else { continue };
        if first != now {
            let text = if field == "clusterIPs" {
                "may not change once set".to_owned()
            } else {
                format!("may not change once set ({what})")
            };
            causes.push(Cause::invalid(format!("spec.{field}[0]"), &new["spec"][field], &text));
        }
        if before.len() == 2 && after.len() == 2 && before[1] != after[1] {
            let text = "may not change once set";
            causes.push(Cause::invalid(format!("spec.{field}[1]"), &new["spec"][field], text));
        }
    }
}

fn immutable_class(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let class = &new["spec"]["loadBalancerClass"];
    if is_load_balancer(old) && is_load_balancer(new) && *class != old["spec"]["loadBalancerClass"] {
        causes.push(Cause::invalid("spec.loadBalancerClass", class, "may not change once set"));
    }
}

/// The rules of `status.loadBalancer`.
pub(super) fn validate_status(new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ingress = object::list_at(new, &["status", "loadBalancer", "ingress"]);
    let path = "status.loadBalancer.ingress";
    if !is_load_balancer(new) && !ingress.is_empty() {
        return vec![Cause::forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")];
    }
    for (i, entry) in ingress.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let (ip, mode, host) = (&entry["ip"], &entry["ipMode"], object::str_at(entry, &["hostname"]));
        if let Some(text) = ip.as_str().filter(|t| !t.is_empty())
            && text.parse::<IpAddr>().is_err()
        {
            let text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.push(Cause::invalid(format!("{at}.ip"), ip, text));
        }
        let modes = ["Proxy", "VIP"];
        if ip.is_null() && !mode.is_null() {
            causes
                .push(Cause::forbidden(format!("{at}.ipMode"), "may not be specified when `ip` is not set"));
        } else if !mode.is_null() && !modes.iter().any(|m| mode == m) {
            causes.push(Cause::not_supported(format!("{at}.ipMode"), mode, &modes));
        }
        if host.is_empty() {
            continue;
        }
        if let Some(fault) = names::dns_subdomain(host) {
            causes.push(Cause::invalid(format!("{at}.hostname"), &json!(host), &fault));
        }
        if host.parse::<IpAddr>().is_ok() {
            let text = "must be a DNS name, not an IP address";
            causes.push(Cause::invalid(format!("{at}.hostname"), &json!(host), text));
        }
    }
    causes
}
