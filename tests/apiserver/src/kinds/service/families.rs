//! IP families of a Service: what `ipFamilyPolicy`, `ipFamilies` and `clusterIPs` become when the writer
//! left some of them out, and the combinations that are refused.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Pools, has_selector, is_external_name, is_headless};
use crate::object;
use crate::refusal::Cause;

const POLICY: &str = "spec.ipFamilyPolicy";

/// Settles policy and families in place.
pub(super) fn settle(new: &mut Value, old: Option<&Value>, pools: &Pools) -> Result<(), Vec<Cause>> {
    if is_external_name(new) || keeps_prefer_dual_stack(new, old) {
        return Ok(());
    }
    default_policy(new, old);
    refuse_any(pre_validate(new))?;
    let mut causes = Vec::new();
    if let Some(old) = old {
        follow_update(new, old, &mut causes);
    }
    refuse_single_with_two(new, &mut causes);
    infer_families(new, pools, &mut causes);
    refuse_any(causes)?;
    if is_headless(new) && !has_selector(new) {
        complete_headless(new, pools);
        return Ok(());
    }
    refuse_any(unavailable(new, pools))?;
    complete(new, pools);
    Ok(())
}

fn refuse_any(causes: Vec<Cause>) -> Result<(), Vec<Cause>> {
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}

/// A PreferDualStack Service is never upgraded or downgraded by an update that does not touch its families.
fn keeps_prefer_dual_stack(new: &Value, old: Option<&Value>) -> bool {
    let Some(old) = old else { return false };
    let same = |field: &str| new["spec"][field] == old["spec"][field];
    let prefers = |v: &Value| v["spec"]["ipFamilyPolicy"] == "PreferDualStack";
    same("type")
        && prefers(new)
        && (prefers(old) || old["spec"]["ipFamilyPolicy"].is_null())
        && same("clusterIPs")
        && same("ipFamilies")
}

fn default_policy(new: &mut Value, old: Option<&Value>) {
    if !new["spec"]["ipFamilyPolicy"].is_null() {
        return;
    }
    let before = old.map(|old| old["spec"]["ipFamilyPolicy"].clone()).filter(|p| !p.is_null());
    let headless = new["spec"]["clusterIP"] == "None" && !has_selector(new);
    let policy = before.unwrap_or_else(|| json!(if headless { "RequireDualStack" } else { "SingleStack" }));
    new["spec"]["ipFamilyPolicy"] = policy;
}

/// The checks that the rest relies on: known policy, known and distinct families, well-formed addresses that
/// match their families.
pub(super) fn pre_validate(service: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &service["spec"];
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if !spec["ipFamilyPolicy"].is_null() && !policies.iter().any(|p| spec["ipFamilyPolicy"] == *p) {
        causes.push(Cause::not_supported(POLICY, &spec["ipFamilyPolicy"], &policies));
    }
    let families = object::list_at(spec, &["ipFamilies"]);
    for (i, family) in families.iter().enumerate() {
        let at = format!("spec.ipFamilies[{i}]");
        if !["IPv4", "IPv6"].iter().any(|f| family == f) {
            causes.push(Cause::not_supported(at, family, &["IPv4", "IPv6"]));
        } else if families[..i].contains(family) {
            causes.push(Cause::duplicate(at, family));
        }
    }
    if families.len() > 2 {
        causes.push(Cause::invalid(
            "spec.ipFamilies",
            &spec["ipFamilies"],
            "only two ipFamilies are allowed",
        ));
    }
    causes.extend(cluster_ip_faults(spec, families));
    causes
}

fn cluster_ip_faults(spec: &Value, families: &[Value]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ips = object::list_at(spec, &["clusterIPs"]);
    if !ips.is_empty() {
        let fault = match &spec["clusterIP"] {
            Value::Null => Some("must be empty when `clusterIP` is not specified"),
            first => (ips[0] != *first).then_some("first value must match `clusterIP`"),
        };
        causes.extend(fault.map(|text| Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], text)));
    }
    if ips.is_empty() && !spec["clusterIP"].is_null() {
        causes.push(Cause::required("spec.clusterIPs", ""));
    }
    if ips.len() > 2 {
        let text = "may only hold up to 2 values";
        causes.push(Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], text));
    }
    if ips.first().is_some_and(|ip| ip == "None") {
        if ips.len() > 1 {
            let text = "'None' must be the first and only value";
            causes.push(Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], text));
        }
        return causes;
    }
    let mut parsed = Vec::new();
    for (i, ip) in ips.iter().enumerate() {
        let at = format!("spec.clusterIPs[{i}]");
        let Ok(address) = ip.as_str().unwrap_or_default().parse::<IpAddr>() else {
            let text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.push(Cause::invalid(at, ip, text));
            continue;
        };
        let family = family_of(address);
        if let Some(wanted) = families.get(i).filter(|f| **f != family) {
            let text = format!(
                "expected an {} value as indicated by `ipFamilies[{i}]`",
                wanted.as_str().unwrap_or_default()
            );
            causes.push(Cause::invalid(at, ip, &text));
        }
        parsed.push(family);
    }
    if parsed.len() == 2 && parsed[0] == parsed[1] {
        let text = "may specify no more than one IP for each IP family";
        causes.push(Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], text));
    }
    causes
}

/// Going to SingleStack gives up the second family; anything else may not silently lose one.
fn follow_update(new: &mut Value, old: &Value, causes: &mut Vec<Cause>) {
    for (field, what) in [("clusterIPs", "secondary cluster IP"), ("ipFamilies", "secondary IP family")] {
        let count = object::list_at(new, &["spec", field]).len();
        if new["spec"]["ipFamilyPolicy"] == "SingleStack" {
            if new["spec"][field] == old["spec"][field]
                && let Some(list) = object::list_mut(new, &["spec", field])
            {
                list.truncate(1);
            }
        } else if count > 0 && count < object::list_at(old, &["spec", field]).len() {
            let text = format!("must be 'SingleStack' to release the {what}");
            causes.push(Cause::invalid(POLICY, &new["spec"]["ipFamilyPolicy"], &text));
        }
    }
}

fn refuse_single_with_two(new: &Value, causes: &mut Vec<Cause>) {
    if new["spec"]["ipFamilyPolicy"] != "SingleStack" {
        return;
    }
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if object::list_at(new, &["spec", field]).len() == 2 {
            let text =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            causes.push(Cause::invalid(POLICY, &new["spec"]["ipFamilyPolicy"], &text));
        }
    }
}

fn infer_families(new: &mut Value, pools: &Pools, causes: &mut Vec<Cause>) {
    let ips = new["spec"]["clusterIPs"].clone();
    for (i, ip) in ips.as_array().into_iter().flatten().enumerate() {
        let Ok(address) = ip.as_str().unwrap_or_default().parse::<IpAddr>() else { return };
        let family = family_of(address);
        if i < object::list_at(new, &["spec", "ipFamilies"]).len() {
            continue;
        }
        if pools.families().contains(&family) {
            push_family(new, family);
        } else {
            let text = format!("{family} is not configured on this cluster");
            causes.push(Cause::invalid(format!("spec.clusterIPs[{i}]"), &ips, &text));
        }
    }
}

fn complete_headless(new: &mut Value, pools: &Pools) {
    if object::list_at(new, &["spec", "ipFamilies"]).is_empty() {
        push_family(new, pools.families()[0]);
    }
    if new["spec"]["ipFamilyPolicy"] != "SingleStack" {
        push_other_family(new);
    }
}

fn unavailable(new: &Value, pools: &Pools) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &new["spec"];
    if spec["ipFamilyPolicy"] == "RequireDualStack" && pools.families().len() < 2 {
        let text = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid(POLICY, &spec["ipFamilyPolicy"], text));
    }
    for (i, family) in object::list_at(spec, &["ipFamilies"]).iter().enumerate() {
        if !pools.families().iter().any(|f| family == f) {
            causes.push(Cause::invalid(
                format!("spec.ipFamilies[{i}]"),
                family,
                "not configured on this cluster",
            ));
        }
    }
    causes
}

fn complete(new: &mut Value, pools: &Pools) {
    if object::list_at(new, &["spec", "ipFamilies"]).is_empty() {
        push_family(new, pools.families()[0]);
    }
    if new["spec"]["ipFamilyPolicy"] != "SingleStack" && pools.families().len() == 2 {
        push_other_family(new);
    }
}

fn push_other_family(new: &mut Value) {
    match object::list_at(new, &["spec", "ipFamilies"]) {
        [only] if only == "IPv4" => push_family(new, "IPv6"),
        [_] => push_family(new, "IPv4"),
        _ => {}
    }
}

fn push_family(new: &mut Value, family: &str) {
    match object::list_mut(new, &["spec", "ipFamilies"]) {
        Some(families) => families.push(json!(family)),
        None => new["spec"]["ipFamilies"] = json!([family]),
    }
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
