//! Validation of a custom resource against its schema: types, formats, bounds, enums, required members, the
//! logical junctors. CEL rules are checked by [`crate::cel`] afterwards.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::{Checks, Schema, Type, field_path, formats, json_type};
use crate::refusal::Cause;

/// Everything wrong with `value`.
pub(crate) fn validate(value: &Value, schema: &Schema, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(value, schema, path, &mut causes);
    causes
}

fn walk(value: &Value, schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if !has_type(value, schema) {
        let word = if schema.int_or_string { "integer,string" } else { schema.ty.word() };
        let found = json_type(value);
        causes.push(Cause::type_invalid(
            path,
            &json!(found),
            &format!("{path} in body must be of type {word}: \"{found}\""),
        ));
        return;
    }
    check(value, schema, path, causes);
    match value {
        Value::Object(members) => {
            for name in &schema.required {
                if !members.contains_key(name) {
                    causes.push(Cause::required(field_path(path, name), ""));
                }
            }
            for (name, member) in members {
                if let Some(below) = schema.member(name) {
                    walk(member, below, &member_path(schema, path, name), causes);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.item() {
                for (i, item) in items.iter().enumerate() {
                    walk(item, below, &format!("{path}[{i}]"), causes);
                }
            }
            check_list_kind(items, schema, path, causes);
        }
        _ => {}
    }
}

/// Named members are joined with a dot, the keys of a map too in the messages of the real server.
fn member_path(_schema: &Schema, path: &str, name: &str) -> String {
    field_path(path, name)
}

fn has_type(value: &Value, schema: &Schema) -> bool {
    if schema.int_or_string {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema.ty {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() < 9.3e18)
}

fn check(value: &Value, schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    let checks = &schema.checks;
    if !checks.values.is_empty() && !checks.values.contains(value) {
        let supported: Vec<String> =
            checks.values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
        causes.push(Cause::not_supported(path, value, &supported));
    }
    match value {
        Value::String(text) => check_string(value, text, schema, path, causes),
        Value::Number(_) => check_number(value, schema, path, causes),
        Value::Array(items) => check_array(items, checks, path, causes),
        Value::Object(members) => {
            let (min, max) = checks.properties;
            let count = members.len() as u64;
            if min.is_some_and(|min| count < min) {
                let text =
                    format!("{path} in body should have at least {} properties", min.unwrap_or_default());
                causes.push(Cause::invalid(path, value, &text));
            }
            if let Some(max) = max.filter(|max| count > *max) {
                causes.push(Cause::too_many(path, members.len(), max));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    check_junctors(value, checks, path, causes);
}

fn check_string(value: &Value, text: &str, schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    let checks = &schema.checks;
    let length = text.chars().count() as u64;
    if let Some(min) = checks.length.0.filter(|min| length < *min) {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path} in body should be at least {min} chars long"),
        ));
    }
    if let Some(max) = checks.length.1.filter(|max| length > *max) {
        causes.push(Cause::too_long(path, max));
    }
    if let Some((pattern, regex)) = &checks.pattern
        && !regex.is_match(text)
    {
        causes.push(Cause::invalid(path, value, &format!("{path} in body should match '{pattern}'")));
    }
    if let Some(format) = &schema.format
        && !formats::matches(format, text)
    {
        let message = format!("{path} in body must be of type {format}: {value}");
        causes.push(Cause::type_invalid(path, value, &message));
    }
}

fn check_number(value: &Value, schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    let checks = &schema.checks;
    let below = |(limit, exclusive): (f64, bool)| match numeric_cmp(value, limit) {
        Ordering::Less => true,
        Ordering::Equal => exclusive,
        Ordering::Greater => false,
    };
    let above = |(limit, exclusive): (f64, bool)| match numeric_cmp(value, limit) {
        Ordering::Greater => true,
        Ordering::Equal => exclusive,
        Ordering::Less => false,
    };
    if let Some(bound) = checks.minimum.filter(|b| below(*b)) {
        let word = if bound.1 { "greater than" } else { "greater than or equal to" };
        causes.push(Cause::invalid(path, value, &format!("{path} in body should be {word} {}", bound.0)));
    }
    if let Some(bound) = checks.maximum.filter(|b| above(*b)) {
        let word = if bound.1 { "less than" } else { "less than or equal to" };
        causes.push(Cause::invalid(path, value, &format!("{path} in body should be {word} {}", bound.0)));
    }
    let number = value.as_f64().unwrap_or_default();
    if let Some(factor) = checks.multiple_of.filter(|f| *f != 0.0 && (number / f).fract() != 0.0) {
        causes.push(Cause::invalid(path, value, &format!("{path} in body should be a multiple of {factor}")));
    }
    if let Some(format) = schema.format.as_deref().filter(|f| !formats::number_fits(f, value)) {
        let message = format!("{path} in body must be of type {format}: \"{value}\"");
        causes.push(Cause::invalid(path, value, &message));
    }
}

/// Compares a JSON number with a schema bound without losing the precision of 64-bit integers.
pub(super) fn numeric_cmp(value: &Value, limit: f64) -> Ordering {
    if limit.fract() == 0.0 && limit.abs() < 9.0e18 {
        let limit = limit as i64;
        if let Some(n) = value.as_i64() {
            return n.cmp(&limit);
        }
        if value.is_u64() {
            return Ordering::Greater;
        }
    }
    value.as_f64().and_then(|n| n.partial_cmp(&limit)).unwrap_or(Ordering::Equal)
}

fn check_array(items: &[Value], checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    let count = items.len() as u64;
    if let Some(min) = checks.items.0.filter(|min| count < *min) {
        causes.push(Cause::invalid(
            path,
            &json!(count),
            &format!("{path} in body should have at least {min} items"),
        ));
    }
    if let Some(max) = checks.items.1.filter(|max| count > *max) {
        causes.push(Cause::too_many(path, items.len(), max));
    }
}

fn check_list_kind(items: &[Value], schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    let key_of = |item: &Value| match &schema.list {
        super::ListKind::Atomic => None,
        super::ListKind::Set => Some(item.clone()),
        super::ListKind::Map(keys) => {
            let below = schema.item();
            let pick = |key: &String| {
                let default = || below.and_then(|s| s.member(key)).and_then(|s| s.default.clone());
                let value = item.get(key).cloned().or_else(default).unwrap_or(Value::Null);
                (key.clone(), value)
            };
            Some(Value::Object(keys.iter().map(pick).collect()))
        }
    };
    let keys: Vec<Option<Value>> = items.iter().map(key_of).collect();
    for (i, key) in keys.iter().enumerate() {
        if let Some(key) = key.as_ref().filter(|_| keys[..i].contains(&keys[i])) {
            causes.push(Cause::duplicate(format!("{path}[{i}]"), key));
        }
    }
}

fn check_junctors(value: &Value, checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    for schema in &checks.all_of {
        walk(value, schema, path, causes);
    }
    let holds = |schema: &Schema| validate(value, schema, path).is_empty();
    if !checks.any_of.is_empty() && !checks.any_of.iter().any(holds) {
        let message = format!("{path} in body must validate at least one schema (anyOf)");
        causes.push(Cause::invalid(path, &json!(""), &message));
        if let Some(first) = checks.any_of.first() {
            causes.extend(validate(value, first, path));
        }
    }
    let valid = checks.one_of.iter().filter(|s| holds(s)).count();
    if !checks.one_of.is_empty() && valid != 1 {
        let found = if valid == 0 {
            "Found none valid".to_owned()
        } else {
            format!("Found {valid} valid alternatives")
        };
        let message = format!("{path} in body must validate one and only one schema (oneOf). {found}");
        causes.push(Cause::invalid(path, &json!(""), &message));
    }
    if let Some(not) = &checks.not
        && holds(not)
    {
        let message = format!("{path} in body must not validate the schema (not)");
        causes.push(Cause::invalid(path, &json!(""), &message));
    }
}
