//! Filling in the defaults of a custom resource's schema.

use serde_json::Value;

use super::Schema;

/// Sets absent fields that have a default, top down, so that a defaulted object gets its own defaults too.
/// A null where null is no value counts as absent when there is a default.
pub(crate) fn apply_defaults(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(members) => {
            for (name, child) in &schema.properties {
                let below = child.get();
                let Some(default) = &below.default else { continue };
                let absent = members.get(name).is_none_or(|v| v.is_null() && !below.nullable);
                if absent {
                    members.insert(name.clone(), default.clone());
                }
            }
            for (name, member) in members.iter_mut() {
                if let Some(below) = schema.member(name) {
                    apply_defaults(member, below);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.item() {
                for item in items {
                    apply_defaults(item, below);
                }
            }
        }
        _ => {}
    }
}
