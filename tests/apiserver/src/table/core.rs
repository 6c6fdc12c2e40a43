//! Columns of the core kinds, of EndpointSlices, Leases and CRDs.

use serde_json::{Value, json};

use super::{age, created, name, or_none, pairs};
use crate::object::{list_at, str_at};

type Titles = &'static [(&'static str, i64)];

pub(super) const PLAIN: Titles = &[("Name", 0), ("Age", 0)];
pub(super) const NAMESPACE: Titles = &[("Name", 0), ("Status", 0), ("Age", 0)];
pub(super) const SERVICE: Titles = &[
    ("Name", 0),
    ("Type", 0),
    ("Cluster-IP", 0),
    ("External-IP", 0),
    ("Port(s)", 0),
    ("Age", 0),
    ("Selector", 1),
];
pub(super) const NODE: Titles = &[
    ("Name", 0),
    ("Status", 0),
    ("Roles", 0),
    ("Age", 0),
    ("Version", 0),
    ("Internal-IP", 1),
    ("External-IP", 1),
    ("OS-Image", 1),
    ("Kernel-Version", 1),
    ("Container-Runtime", 1),
];
pub(super) const SECRET: Titles = &[("Name", 0), ("Type", 0), ("Data", 0), ("Age", 0)];
pub(super) const CONFIG_MAP: Titles = &[("Name", 0), ("Data", 0), ("Age", 0)];
pub(super) const ENDPOINTS: Titles = &[("Name", 0), ("Endpoints", 0), ("Age", 0)];
pub(super) const EVENT: Titles = &[
    ("Last Seen", 0),
    ("Type", 0),
    ("Reason", 0),
    ("Object", 0),
    ("Subobject", 1),
    ("Source", 1),
    ("Message", 0),
    ("First Seen", 1),
    ("Count", 1),
    ("Name", 1),
];
pub(super) const ENDPOINT_SLICE: Titles =
    &[("Name", 0), ("AddressType", 0), ("Ports", 0), ("Endpoints", 0), ("Age", 0)];
pub(super) const LEASE: Titles = &[("Name", 0), ("Holder", 0), ("Age", 0)];
pub(super) const CRD: Titles = &[("Name", 0), ("Created At", 0)];

pub(super) fn plain(o: &Value) -> Vec<Value> {
    vec![name(o), created(o)]
}

pub(super) fn namespace(o: &Value) -> Vec<Value> {
    vec![name(o), o["status"]["phase"].clone(), created(o)]
}

pub(super) fn service(o: &Value) -> Vec<Value> {
    let spec = &o["spec"];
    let cluster_ip = str_at(spec, &["clusterIP"]);
    vec![
        name(o),
        spec["type"].clone(),
        or_none(cluster_ip),
        json!(external_ip(o)),
        json!(service_ports(spec)),
        created(o),
        or_none(&pairs(&spec["selector"])),
    ]
}

fn external_ip(o: &Value) -> String {
    let spec = &o["spec"];
    let external: Vec<&str> = list_at(spec, &["externalIPs"]).iter().filter_map(Value::as_str).collect();
    let none = || if external.is_empty() { "<none>".to_owned() } else { external.join(",") };
    match str_at(spec, &["type"]) {
        "LoadBalancer" => {
            let ingress = list_at(o, &["status", "loadBalancer", "ingress"]);
            let mut shown: Vec<&str> =
                ingress.iter().filter_map(|i| i["ip"].as_str().or_else(|| i["hostname"].as_str())).collect();
            shown.sort_unstable();
            shown.dedup();
            shown.extend(&external);
            if shown.is_empty() { "<pending>".to_owned() } else { shown.join(",") }
        }
        "ExternalName" => str_at(spec, &["externalName"]).to_owned(),
        _ => none(),
    }
}

fn service_ports(spec: &Value) -> String {
    let ports: Vec<String> = list_at(spec, &["ports"])
        .iter()
        .map(|p| {
            let protocol = p["protocol"].as_str().unwrap_or_default();
            match p["nodePort"].as_u64() {
                Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", p["port"]),
                _ => format!("{}/{protocol}", p["port"]),
            }
        })
        .collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}

pub(super) fn node(o: &Value) -> Vec<Value> {
    let info = &o["status"]["nodeInfo"];
    let address = |ty: &str| {
        let all = list_at(o, &["status", "addresses"]);
        or_none(all.iter().find(|a| a["type"] == ty).map_or("", |a| str_at(a, &["address"])))
    };
    let unknown =
        |text: &Value| text.as_str().filter(|t| !t.is_empty()).map_or(json!("<unknown>"), |t| json!(t));
    vec![
        name(o),
        json!(node_status(o)),
        json!(node_roles(o)),
        created(o),
        info["kubeletVersion"].as_str().map_or(json!(""), |v| json!(v)),
        address("InternalIP"),
        address("ExternalIP"),
        unknown(&info["osImage"]),
        unknown(&info["kernelVersion"]),
        unknown(&info["containerRuntimeVersion"]),
    ]
}

fn node_status(o: &Value) -> String {
    let ready = list_at(o, &["status", "conditions"]).iter().find(|c| c["type"] == "Ready");
    let word = match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    };
    if o["spec"]["unschedulable"] == true { format!("{word},SchedulingDisabled") } else { word.to_owned() }
}

fn node_roles(o: &Value) -> String {
    let mut roles = Vec::new();
    for (key, value) in o["metadata"]["labels"].as_object().into_iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == "kubernetes.io/role" => roles.push(value.as_str().unwrap_or_default()),
            _ => {}
        }
    }
    roles.sort_unstable();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

pub(super) fn secret(o: &Value) -> Vec<Value> {
    let count = o["data"].as_object().map_or(0, serde_json::Map::len);
    vec![name(o), o["type"].clone(), json!(count), created(o)]
}

pub(super) fn config_map(o: &Value) -> Vec<Value> {
    let count = |field: &str| o[field].as_object().map_or(0, serde_json::Map::len);
    vec![name(o), json!(count("data") + count("binaryData")), created(o)]
}

pub(super) fn endpoints(o: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list_at(o, &["subsets"]) {
        for address in list_at(subset, &["addresses"]) {
            let ip = str_at(address, &["ip"]);
            let ports = list_at(subset, &["ports"]);
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            all.extend(ports.iter().map(|p| format!("{host}:{}", p["port"])));
        }
    }
    vec![name(o), json!(shortened(&all, "<none>")), created(o)]
}

/// The first three of a list and how many more there are.
fn shortened(all: &[String], none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        n if n > 3 => format!("{} + {} more...", all[..3].join(","), n - 3),
        _ => all.join(","),
    }
}

/// An event in either of its forms.
pub(super) fn event(o: &Value) -> Vec<Value> {
    let either = |a: &str, b: &str| if o[a].is_null() { o[b].clone() } else { o[a].clone() };
    let about = either("involvedObject", "regarding");
    let time = |fields: &[&str]| {
        let found = fields.iter().find_map(|f| o[*f].as_str());
        let series = o["series"]["lastObservedTime"].as_str().filter(|_| fields[0] == "lastTimestamp");
        json!(series.or(found).map_or_else(|| "<unknown>".to_owned(), age))
    };
    let kind = str_at(&about, &["kind"]).to_lowercase();
    let source = either("source", "deprecatedSource");
    let component = str_at(&source, &["component"]);
    let reporter = either("reportingComponent", "reportingController");
    let (component, host) = match component {
        "" => (reporter.as_str().unwrap_or_default(), str_at(o, &["reportingInstance"])),
        component => (component, str_at(&source, &["host"])),
    };
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    let count =
        o["series"]["count"].as_u64().or_else(|| either("count", "deprecatedCount").as_u64()).unwrap_or(1);
    vec![
        time(&["lastTimestamp", "deprecatedLastTimestamp", "eventTime", "firstTimestamp"]),
        o["type"].clone(),
        o["reason"].clone(),
        json!(format!("{kind}/{}", str_at(&about, &["name"]))),
        about["fieldPath"].as_str().map_or(json!(""), |p| json!(p)),
        json!(source),
        json!(either("message", "note").as_str().unwrap_or_default().trim()),
        time(&["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"]),
        json!(count),
        name(o),
    ]
}

pub(super) fn endpoint_slice(o: &Value) -> Vec<Value> {
    let ports: Vec<String> = list_at(o, &["ports"])
        .iter()
        .map(|p| if p["port"].is_null() { "*".to_owned() } else { p["port"].to_string() })
        .collect();
    let mut addresses = Vec::new();
    for endpoint in list_at(o, &["endpoints"]) {
        addresses
            .extend(list_at(endpoint, &["addresses"]).iter().filter_map(|a| a.as_str().map(str::to_owned)));
    }
    vec![
        name(o),
        o["addressType"].clone(),
        json!(shortened(&ports, "<unset>")),
        json!(shortened(&addresses, "<unset>")),
        created(o),
    ]
}

pub(super) fn lease(o: &Value) -> Vec<Value> {
    vec![name(o), json!(str_at(o, &["spec", "holderIdentity"])), created(o)]
}

pub(super) fn crd(o: &Value) -> Vec<Value> {
    vec![name(o), o["metadata"]["creationTimestamp"].clone()]
}
