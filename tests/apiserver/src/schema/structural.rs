//! What a CRD's schema must be beyond being readable: structural, with defaults that are valid, and without
//! anything this server would have to pass over.

use serde_json::Value;

use super::{Additional, Schema, Type, formats, validate};
use crate::refusal::Cause;

/// Everything wrong with a parsed schema.
pub(crate) fn structural_faults(schema: &Schema, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(schema, path, &mut causes);
    causes
}

fn walk(schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    if schema.ty == Type::Any && !schema.int_or_string && !schema.preserve_unknown {
        causes.push(Cause::required(format!("{path}.type"), "must not be empty for specified object fields"));
    }
    if schema.checks.unique_items {
        let text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(format!("{path}.uniqueItems"), text));
    }
    if schema.ty == Type::Array && schema.items.is_none() {
        causes.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
    if !schema.properties.is_empty() && !matches!(schema.additional, Additional::None) {
        let text = "additionalProperties and properties are mutual exclusive";
        causes.push(Cause::forbidden(format!("{path}.additionalProperties"), text));
    }
    if let Some(default) = &schema.default {
        let mut pruned = default.clone();
        let unknown = super::prune(&mut pruned, schema, false);
        if !unknown.is_empty() {
            let text = "must not have unknown fields";
            causes.push(Cause::invalid(format!("{path}.default"), default, text));
        }
        causes.extend(validate(default, schema, &format!("{path}.default")));
    }
    if let Some(format) = schema.format.as_deref().filter(|f| formats::UNJUDGED.contains(f)) {
        let text = "the in-memory API server cannot judge this format";
        causes.push(Cause::invalid(format!("{path}.format"), &Value::String(format.to_owned()), text));
    }
    for (name, child) in &schema.properties {
        walk(child.get(), &format!("{path}.properties[{name}]"), causes);
    }
    if let Additional::Schema(child) = &schema.additional {
        walk(child.get(), &format!("{path}.additionalProperties"), causes);
    }
    if let Some(items) = schema.item() {
        walk(items, &format!("{path}.items"), causes);
    }
}
