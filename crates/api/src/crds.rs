//! The CustomResourceDefinitions, as the chart's files hold them.
//!
//! What kube derives is made to fit what every supported API server checks: no `nullable` (absent is absent),
//! only number formats that OpenAPI knows, descriptions on one line.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{BGPNodeStatus, BGPPeer, LBNodeAgent, ServiceGroup};

/// First line of each file.
pub const HEADER: &str = "# Generated from crates/api by `make crds`; edit the types there.\n";

/// Every CRD with the name of its file in the chart.
pub fn all() -> Vec<(String, Value)> {
    [ServiceGroup::crd(), LBNodeAgent::crd(), BGPPeer::crd(), BGPNodeStatus::crd()]
        .iter()
        .map(finished)
        .collect()
}

fn finished(crd: &CustomResourceDefinition) -> (String, Value) {
    let file = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
    let mut value = serde_json::to_value(crd).expect("a CRD is plain data");
    tidy(&mut value);
    (file, value)
}

/// Walks a schema and mends what is not as API servers and `kubectl explain` want it.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            if let Some(Value::String(format)) = map.get_mut("format")
                && let Some(known) = number_format(format)
            {
                *format = known.to_owned();
            }
            if let Some(Value::String(description)) = map.get_mut("description") {
                *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// OpenAPI's name for a width that Rust has and OpenAPI has not; an unsigned 32-bit number needs int64.
fn number_format(format: &str) -> Option<&'static str> {
    match format {
        "int8" | "uint8" | "int16" | "uint16" => Some("int32"),
        "uint32" | "uint64" | "uint" | "int" => Some("int64"),
        _ => None,
    }
}
