//! What holds for the metadata of every kind.

use serde_json::{Value, json};

use super::names;
use crate::object;
use crate::refusal::Cause;

const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Checks `metadata` of a new or changed object; `name_fault` is the kind's name grammar.
pub(crate) fn validate(object: &Value, name_fault: impl Fn(&str) -> Option<String>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object::name(object);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if let Some(fault) = name_fault(name) {
        causes.push(Cause::invalid("metadata.name", &json!(name), &fault));
    }
    for (key, value) in members(object, "labels") {
        if let Some(fault) = names::qualified_name(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), &fault));
        }
        if let Some(fault) = value.as_str().and_then(names::label_value) {
            causes.push(Cause::invalid("metadata.labels", value, &fault));
        }
    }
    let mut size = 0;
    for (key, value) in members(object, "annotations") {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Some(fault) = names::qualified_name(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), &fault));
        }
    }
    if size > ANNOTATIONS_LIMIT {
        causes.push(Cause::too_long("metadata.annotations", ANNOTATIONS_LIMIT as u64));
    }
    for finalizer in object::finalizers(object) {
        if let Some(fault) = names::qualified_name(finalizer) {
            causes.push(Cause::invalid("metadata.finalizers", &json!(finalizer), &fault));
        }
    }
    causes.extend(owner_references(object));
    causes
}

/// What a metadata change may not do.
pub(crate) fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if object::is_terminating(old) {
        let before = object::finalizers(old);
        let added: Vec<&str> = object::finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let text = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.iter().map(|f| format!("\"{f}\"")).collect::<Vec<_>>().join(", ")
            );
            causes.push(Cause::forbidden("metadata.finalizers", &text));
        }
    }
    causes
}

fn owner_references(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut controllers = 0;
    for (i, owner) in object::list_at(object, &["metadata", "ownerReferences"]).iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::invalid(
                    format!("metadata.ownerReferences[{i}].{field}"),
                    &json!(""),
                    "must not be empty",
                ));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let references = object::at(object, &["metadata", "ownerReferences"]);
        let text = "Only one reference can have Controller set to true.";
        causes.push(Cause::invalid("metadata.ownerReferences", references, text));
    }
    causes
}

fn members<'v>(object: &'v Value, field: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    object["metadata"][field].as_object().into_iter().flatten()
}
