//! Reading an object of a built-in kind as the typed decoder of the real server does: wrong types are
//! refused, unknown and duplicate-meaning fields dropped and reported, nulls dropped.

use serde_json::Value;

use super::{Additional, Schema, Type, field_path, json_type};

/// What decoding left out.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// Paths of fields the schema does not know.
    pub unknown: Vec<String>,
}

/// Checks types and drops what the schema does not know, in place. The error says which field has the wrong
/// type.
pub(crate) fn decode(value: &mut Value, schema: &Schema) -> Result<Decoded, String> {
    let mut decoded = Decoded::default();
    walk(value, schema, "", &mut decoded)?;
    Ok(decoded)
}

fn walk(value: &mut Value, schema: &Schema, path: &str, decoded: &mut Decoded) -> Result<(), String> {
    check_type(value, schema, path)?;
    match value {
        Value::Object(members) => {
            let mut unknown = Vec::new();
            for (name, member) in members.iter_mut() {
                match schema.member(name) {
                    Some(_) | None if member.is_null() => {
                        unknown.push((name.clone(), schema.member(name).is_some()));
                    }
                    Some(below) => walk(member, below, &field_path(path, name), decoded)?,
                    None if schema.keeps_unknown() || schema.ty == Type::Any => {}
                    None => unknown.push((name.clone(), false)),
                }
            }
            for (name, known) in unknown {
                members.shift_remove(&name);
                if !known {
                    decoded.unknown.push(field_path(path, &name));
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.item() {
                for (i, item) in items.iter_mut().enumerate() {
                    walk(item, below, &format!("{path}[{i}]"), decoded)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_type(value: &Value, schema: &Schema, path: &str) -> Result<(), String> {
    let fits = match schema.ty {
        Type::Any => !schema.int_or_string || matches!(value, Value::String(_) | Value::Number(_)),
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => fits_integer(value, schema.format.as_deref()),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    };
    if fits || (value.is_null() && path.is_empty()) {
        return check_base64(value, schema);
    }
    let go = match schema.ty {
        Type::Any => "intstr.IntOrString",
        Type::Object if matches!(schema.additional, Additional::Schema(_)) => "map[string]string",
        Type::Object => "struct",
        Type::Array => "slice",
        Type::String => "string",
        Type::Integer if schema.format.as_deref() == Some("int64") => "int64",
        Type::Integer => "int32",
        Type::Number => "float64",
        Type::Boolean => "bool",
    };
    let shown = match value {
        Value::Number(_) if schema.ty == Type::Integer => format!("number {value}"),
        Value::Number(_) => "number".to_owned(),
        other => json_type(other).to_owned(),
    };
    Err(format!("json: cannot unmarshal {shown} into Go struct field .{path} of type {go}"))
}

/// Bytes are base64 on the wire.
fn check_base64(value: &Value, schema: &Schema) -> Result<(), String> {
    let is_bytes = schema.ty == Type::String && schema.format.as_deref() == Some("byte");
    match value.as_str() {
        Some(text) if is_bytes && !super::format_matches("byte", text) => {
            Err("illegal base64 data at input byte 0".to_owned())
        }
        _ => Ok(()),
    }
}

fn fits_integer(value: &Value, format: Option<&str>) -> bool {
    let integer = value.as_i64().or_else(|| value.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64));
    match format {
        Some("int32") => integer.is_some_and(|n| i32::try_from(n).is_ok()),
        _ => integer.is_some(),
    }
}
