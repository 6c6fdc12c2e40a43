//! Endpoints, EndpointSlices, Leases and Events.

use serde_json::{Value, json};

use super::{Generation, Kind};
use crate::object::{self, default_to};
use crate::refusal::Cause;

/// EndpointSlices.
#[derive(Debug)]
pub(crate) struct EndpointSlice;

impl Kind for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in object::objects_mut(object, &["ports"]) {
            default_to(port, "name", "");
            default_to(port, "protocol", "TCP");
        }
        for endpoint in object::objects_mut(object, &["endpoints"]) {
            default_to(endpoint, "conditions", json!({}));
        }
        // The typed encoding writes empty lists as null.
        for list in ["endpoints", "ports"] {
            if object::list_at(object, &[list]).is_empty() {
                object[list] = Value::Null;
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object::meta_mut(object).insert("generation".into(), json!(1));
    }

    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let family = &new["addressType"];
        let families = ["FQDN", "IPv4", "IPv6"];
        if family.is_null() || family == "" {
            causes.push(Cause::required("addressType", ""));
        } else if !families.iter().any(|f| family == f) {
            causes.push(Cause::not_supported("addressType", family, &families));
        }
        if old.is_some_and(|old| old["addressType"] != *family) {
            causes.push(Cause::invalid("addressType", family, "field is immutable"));
        }
        for (i, endpoint) in object::list_at(new, &["endpoints"]).iter().enumerate() {
            let addresses = object::list_at(endpoint, &["addresses"]);
            let at = format!("endpoints[{i}].addresses");
            if addresses.is_empty() {
                causes.push(Cause::required(&at, "must contain at least 1 address"));
            }
            for (j, address) in addresses.iter().enumerate() {
                causes.extend(address_fault(family, address, format!("{at}[{j}]")));
            }
        }
        for (i, port) in object::list_at(new, &["ports"]).iter().enumerate() {
            let number = port["port"].as_i64().unwrap_or(1);
            if !(1..=65535).contains(&number) {
                let text = "must be between 1 and 65535, inclusive";
                causes.push(Cause::invalid(format!("ports[{i}].port"), &port["port"], text));
            }
        }
        causes
    }

    fn generation(&self) -> Generation {
        Generation::ContentAndLabels
    }
}

fn address_fault(family: &Value, address: &Value, at: String) -> Option<Cause> {
    let text = address.as_str().unwrap_or_default();
    match family.as_str()? {
        "IPv4" if text.parse::<std::net::Ipv4Addr>().is_err() => {
            Some(Cause::invalid(at, address, "must be an IPv4 address"))
        }
        "IPv6" if text.parse::<std::net::Ipv6Addr>().is_err() => {
            Some(Cause::invalid(at, address, "must be an IPv6 address"))
        }
        _ => None,
    }
}

/// Leases.
#[derive(Debug)]
pub(crate) struct Lease;

impl Kind for Lease {
    fn prepare_create(&self, _object: &mut Value) {}

    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let spec = &new["spec"];
        for (field, text) in [
            ("leaseDurationSeconds", "must be greater than 0"),
            ("leaseTransitions", "must be greater than or equal to 0"),
        ] {
            let least = i64::from(field == "leaseDurationSeconds");
            if spec[field].as_i64().is_some_and(|n| n < least) {
                causes.push(Cause::invalid(format!("spec.{field}"), &spec[field], text));
            }
        }
        causes
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }
}

/// Events, in the form of core/v1, which is how they are stored.
#[derive(Debug)]
pub(crate) struct Event;

impl Kind for Event {
    fn default(&self, object: &mut Value) {
        // The typed encoding of the real server always has these members.
        default_to(object, "source", json!({}));
        default_to(object, "involvedObject", json!({}));
        default_to(object, "reportingComponent", "");
        default_to(object, "reportingInstance", "");
        for field in ["eventTime", "firstTimestamp", "lastTimestamp"] {
            object::members_mut(object).entry(field).or_insert(Value::Null);
        }
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let about = object::str_at(new, &["involvedObject", "namespace"]);
        let namespace = object::namespace(new);
        let fits = about == namespace || (about.is_empty() && namespace == "default");
        if !fits {
            causes.push(Cause::invalid(
                "involvedObject.namespace",
                &json!(about),
                "does not match event.namespace",
            ));
        }
        if !new["eventTime"].is_null() {
            for field in ["reportingComponent", "reportingInstance", "reason", "action"] {
                if object::str_at(new, &[field]).is_empty() {
                    let shown = if field == "reportingComponent" { "reportingController" } else { field };
                    causes.push(Cause::required(shown, ""));
                }
            }
            let types = ["Normal", "Warning"];
            if !types.iter().any(|t| new["type"] == *t) {
                causes.push(Cause::invalid("type", &new["type"], "must be one of: Normal, Warning"));
            }
        }
        causes
    }

    fn creates_on_update(&self) -> bool {
        true
    }
}
