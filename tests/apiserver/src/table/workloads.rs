//! Columns of pods and workloads.

use serde_json::{Value, json};

use super::{created, name, or_none, pairs};
use crate::object::{list_at, str_at};

type Titles = &'static [(&'static str, i64)];

pub(super) const POD: Titles = &[
    ("Name", 0),
    ("Ready", 0),
    ("Status", 0),
    ("Restarts", 0),
    ("Age", 0),
    ("IP", 1),
    ("Node", 1),
    ("Nominated Node", 1),
    ("Readiness Gates", 1),
];
pub(super) const DEPLOYMENT: Titles = &[
    ("Name", 0),
    ("Ready", 0),
    ("Up-to-date", 0),
    ("Available", 0),
    ("Age", 0),
    ("Containers", 1),
    ("Images", 1),
    ("Selector", 1),
];
pub(super) const DAEMON_SET: Titles = &[
    ("Name", 0),
    ("Desired", 0),
    ("Current", 0),
    ("Ready", 0),
    ("Up-to-date", 0),
    ("Available", 0),
    ("Node Selector", 0),
    ("Age", 0),
    ("Containers", 1),
    ("Images", 1),
    ("Selector", 1),
];
pub(super) const REPLICA_SET: Titles = &[
    ("Name", 0),
    ("Desired", 0),
    ("Current", 0),
    ("Ready", 0),
    ("Age", 0),
    ("Containers", 1),
    ("Images", 1),
    ("Selector", 1),
];

pub(super) fn pod(o: &Value) -> Vec<Value> {
    let statuses = list_at(o, &["status", "containerStatuses"]);
    let ready = statuses.iter().filter(|s| s["ready"] == true).count();
    let restarts: u64 = statuses.iter().filter_map(|s| s["restartCount"].as_u64()).sum();
    vec![
        name(o),
        json!(format!("{ready}/{}", list_at(o, &["spec", "containers"]).len())),
        json!(pod_status(o)),
        json!(restarts.to_string()),
        created(o),
        or_none(str_at(o, &["status", "podIP"])),
        or_none(str_at(o, &["spec", "nodeName"])),
        or_none(str_at(o, &["status", "nominatedNodeName"])),
        json!("<none>"),
    ]
}

fn pod_status(o: &Value) -> String {
    if !o["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".to_owned();
    }
    let waiting = list_at(o, &["status", "containerStatuses"]).iter().find_map(|s| {
        s["state"]["waiting"]["reason"].as_str().or_else(|| s["state"]["terminated"]["reason"].as_str())
    });
    let reason = o["status"]["reason"].as_str().or(waiting);
    reason.unwrap_or_else(|| str_at(o, &["status", "phase"])).to_owned()
}

fn number(value: &Value) -> Value {
    json!(value.as_i64().unwrap_or_default())
}

fn template(o: &Value) -> [Value; 2] {
    let containers = list_at(o, &["spec", "template", "spec", "containers"]);
    ["name", "image"].map(|field| {
        let all: Vec<&str> = containers.iter().map(|c| str_at(c, &[field])).collect();
        json!(all.join(","))
    })
}

fn selector(o: &Value) -> Value {
    or_none(&pairs(&o["spec"]["selector"]["matchLabels"]))
}

pub(super) fn deployment(o: &Value) -> Vec<Value> {
    let status = &o["status"];
    let ready = status["readyReplicas"].as_i64().unwrap_or_default();
    let [names, images] = template(o);
    vec![
        name(o),
        json!(format!("{ready}/{}", o["spec"]["replicas"])),
        number(&status["updatedReplicas"]),
        number(&status["availableReplicas"]),
        created(o),
        names,
        images,
        selector(o),
    ]
}

pub(super) fn daemon_set(o: &Value) -> Vec<Value> {
    let status = &o["status"];
    let [names, images] = template(o);
    vec![
        name(o),
        number(&status["desiredNumberScheduled"]),
        number(&status["currentNumberScheduled"]),
        number(&status["numberReady"]),
        number(&status["updatedNumberScheduled"]),
        number(&status["numberAvailable"]),
        or_none(&pairs(&o["spec"]["template"]["spec"]["nodeSelector"])),
        created(o),
        names,
        images,
        selector(o),
    ]
}

pub(super) fn replica_set(o: &Value) -> Vec<Value> {
    let [names, images] = template(o);
    vec![
        name(o),
        number(&o["spec"]["replicas"]),
        number(&o["status"]["replicas"]),
        number(&o["status"]["readyReplicas"]),
        created(o),
        names,
        images,
        selector(o),
    ]
}
