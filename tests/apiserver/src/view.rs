//! Showing a stored object in the version a client asked for, and back. Versions of one CRD differ in
//! `apiVersion` only; events have two shapes.

use serde_json::{Value, json};

use crate::object;
use crate::registry::{Resource, View};
use crate::store::Stored;

/// Pairs of an event's member names: `core/v1`, `events.k8s.io/v1`.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The object as `resource` shows it; `None` when that is how it is stored.
pub(crate) fn converted(resource: &Resource, stored: &Stored) -> Option<Value> {
    match resource.view {
        View::Same => None,
        View::OtherVersion => {
            let mut value = stored.value.clone();
            object::put(&mut value, "apiVersion", json!(resource.api_version()));
            Some(value)
        }
        View::Events => {
            let mut event = rename(&stored.value, &resource.api_version(), |(core, new)| (core, new));
            for name in ["reportingController", "reportingInstance"] {
                if event[name] == "" {
                    object::put(&mut event, name, Value::Null);
                }
            }
            Some(event)
        }
    }
}

/// The object as `resource` shows it.
pub(crate) fn shown(resource: &Resource, stored: &Stored) -> Value {
    converted(resource, stored).unwrap_or_else(|| stored.value.clone())
}

/// A client's object in stored form.
pub(crate) fn to_stored(resource: &Resource, mut value: Value) -> Value {
    match resource.view {
        View::Same | View::OtherVersion => {
            object::put(&mut value, "apiVersion", json!(resource.stored_as));
            value
        }
        View::Events => rename(&value, &resource.stored_as, |(core, new)| (new, core)),
    }
}

fn rename<'n>(
    value: &Value,
    api_version: &str,
    pick: impl Fn((&'n str, &'n str)) -> (&'n str, &'n str),
) -> Value {
    let mut renamed = json!({});
    for (name, member) in value.as_object().into_iter().flatten() {
        let pair = EVENT_FIELDS.iter().map(|p| pick(*p)).find(|(from, _)| from == name);
        renamed[pair.map_or(name.as_str(), |(_, to)| to)] = member.clone();
    }
    renamed["apiVersion"] = json!(api_version);
    renamed["kind"] = json!("Event");
    renamed
}
