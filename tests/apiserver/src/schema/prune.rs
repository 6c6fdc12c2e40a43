//! Dropping the fields of a custom resource that its schema does not know.

use serde_json::Value;

use super::{Schema, Type, field_path};

/// Drops unknown fields in place and returns their paths. `apiVersion`, `kind` and `metadata` of the root
/// and of embedded resources are not the schema's business.
pub(crate) fn prune(value: &mut Value, schema: &Schema, is_root: bool) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(value, schema, is_root || schema.embedded_resource, "", &mut unknown);
    unknown
}

fn walk(value: &mut Value, schema: &Schema, is_resource: bool, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            let mut gone = Vec::new();
            for (name, member) in members.iter_mut() {
                if is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                match schema.member(name) {
                    Some(below) => {
                        walk(member, below, below.embedded_resource, &field_path(path, name), unknown);
                    }
                    None if schema.keeps_unknown() || (schema.ty == Type::Any && schema.int_or_string) => {}
                    None => gone.push(name.clone()),
                }
            }
            for name in gone {
                members.shift_remove(&name);
                unknown.push(field_path(path, &name));
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.item() {
                for (i, item) in items.iter_mut().enumerate() {
                    walk(item, below, below.embedded_resource, &format!("{path}[{i}]"), unknown);
                }
            }
        }
        _ => {}
    }
}
