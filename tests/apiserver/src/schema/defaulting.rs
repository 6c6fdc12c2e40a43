//! Filling in the defaults of a custom resource's schema.

use serde_json::Value;

use super::Schema;

/// Sets absent fields that have a default, top down, so that a defaulted object gets its own defaults too.
/// A null where null is no value counts as absent.
pub(crate) fn apply_defaults(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(members) => {
            members.retain(|name, v| !v.is_null() || schema.member(name).is_none_or(|below| below.nullable));
            for (name, child) in &schema.properties {
                let below = child.get();
                let Some(default) = &below.default else { continue };
                if !members.contains_key(name) {
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
