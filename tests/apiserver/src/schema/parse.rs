//! From OpenAPI JSON to [`Schema`], for the definitions of the built-in kinds and for those in CRDs. What a
//! structural schema may not say, and what this server cannot evaluate, is an error here.

use regex::Regex;
use serde_json::Value;

use super::{Additional, Checks, Child, ListKind, PatchMeta, Refinement, Schema, Type, builtin, field_path};
use crate::cel::Rule;

/// A schema that cannot be used, with the path of the fault.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{path}: {message}")]
pub(crate) struct SchemaError {
    /// Where in the schema.
    pub path: String,
    /// The offending value.
    pub value: Value,
    /// What is wrong and what would be right.
    pub message: String,
}

fn fault(path: &str, value: &Value, message: impl Into<String>) -> SchemaError {
    SchemaError { path: path.to_owned(), value: value.clone(), message: message.into() }
}

/// Parses one node and everything below it.
pub(crate) fn parse(json: &Value, path: &str) -> Result<Schema, SchemaError> {
    let mut schema = parse_node(json, path)?;
    schema.rules = parse_rules(json, path)?;
    crate::cel::check_fields(&schema, path)?;
    Ok(schema)
}

fn parse_child(json: &Value, path: &str) -> Result<Child, SchemaError> {
    if let Some(reference) = json["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        let known = builtin::interned(name).ok_or_else(|| {
            fault(&format!("{path}.$ref"), &json["$ref"], "must not be set in a structural schema")
        })?;
        let description = json["description"].as_str().map(str::to_owned);
        return Ok(Child::Named(known, Box::new(Refinement { description })));
    }
    Ok(Child::Inline(Box::new(parse(json, path)?)))
}

fn parse_node(json: &Value, path: &str) -> Result<Schema, SchemaError> {
    if !json.is_object() {
        return Err(fault(path, json, "must be a schema object"));
    }
    let mut schema = Schema {
        description: json["description"].as_str().map(str::to_owned),
        ty: parse_type(json, path)?,
        required: strings(&json["required"]),
        default: json.get("default").filter(|d| !d.is_null()).cloned(),
        int_or_string: flag(json, "x-kubernetes-int-or-string"),
        nullable: flag(json, "nullable"),
        preserve_unknown: flag(json, "x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag(json, "x-kubernetes-embedded-resource"),
        format: json["format"].as_str().map(str::to_owned),
        list: parse_list_kind(json, path)?,
        atomic_map: json["x-kubernetes-map-type"] == "atomic",
        patch: parse_patch(json),
        checks: parse_checks(json, path)?,
        ..Schema::default()
    };
    for (name, property) in json["properties"].as_object().into_iter().flatten() {
        let child = parse_child(property, &format!("{}[{name}]", field_path(path, "properties")))?;
        schema.properties.insert(name.clone(), child);
    }
    schema.additional = parse_additional(json, path)?;
    if let Some(items) = json.get("items").filter(|i| !i.is_null()) {
        schema.items = Some(parse_child(items, &field_path(path, "items"))?);
    }
    Ok(schema)
}

fn parse_type(json: &Value, path: &str) -> Result<Type, SchemaError> {
    let word = match &json["type"] {
        Value::Null => return Ok(Type::Any),
        other => other.as_str().unwrap_or_default(),
    };
    Ok(match word {
        "" => Type::Any,
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        _ => {
            let types =
                "supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"";
            return Err(fault(&field_path(path, "type"), &json["type"], types));
        }
    })
}

fn parse_additional(json: &Value, path: &str) -> Result<Additional, SchemaError> {
    Ok(match json.get("additionalProperties") {
        None | Some(Value::Null) => Additional::None,
        Some(Value::Bool(false)) => Additional::None,
        Some(Value::Bool(true)) => Additional::Any,
        Some(schema) => Additional::Schema(parse_child(schema, &field_path(path, "additionalProperties"))?),
    })
}

fn parse_list_kind(json: &Value, path: &str) -> Result<ListKind, SchemaError> {
    let word = &json["x-kubernetes-list-type"];
    match word.as_str() {
        None | Some("atomic") => Ok(ListKind::Atomic),
        Some("set") => Ok(ListKind::Set),
        Some("map") => {
            let keys = strings(&json["x-kubernetes-list-map-keys"]);
            if keys.is_empty() {
                let field = field_path(path, "x-kubernetes-list-map-keys");
                return Err(fault(
                    &field,
                    &Value::Null,
                    "must not be empty when x-kubernetes-list-type is map",
                ));
            }
            Ok(ListKind::Map(keys))
        }
        Some(_) => {
            let field = field_path(path, "x-kubernetes-list-type");
            Err(fault(&field, word, "supported values: \"atomic\", \"map\", \"set\""))
        }
    }
}

fn parse_patch(json: &Value) -> Option<PatchMeta> {
    let strategy = json["x-kubernetes-patch-strategy"].as_str()?.to_owned();
    let merge_key = json["x-kubernetes-patch-merge-key"].as_str().map(str::to_owned);
    Some(PatchMeta { merge_key, strategy })
}

fn parse_checks(json: &Value, path: &str) -> Result<Checks, SchemaError> {
    let bound = |key: &str, exclusive: &str| json[key].as_f64().map(|n| (n, flag(json, exclusive)));
    let several = |key: &str| -> Result<Vec<Schema>, SchemaError> {
        let list = json[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .enumerate()
            .map(|(i, s)| parse_node(s, &format!("{}[{i}]", field_path(path, key))))
            .collect()
    };
    let pattern = match json["pattern"].as_str() {
        None | Some("") => None,
        Some(text) => {
            let regex = Regex::new(text).map_err(|e| {
                fault(
                    &field_path(path, "pattern"),
                    &json["pattern"],
                    format!("must be a valid regular expression, but isn't: {e}"),
                )
            })?;
            Some((text.to_owned(), regex))
        }
    };
    let not = match json.get("not").filter(|n| !n.is_null()) {
        Some(schema) => Some(Box::new(parse_node(schema, &field_path(path, "not"))?)),
        None => None,
    };
    Ok(Checks {
        values: json["enum"].as_array().cloned().unwrap_or_default(),
        pattern,
        minimum: bound("minimum", "exclusiveMinimum"),
        maximum: bound("maximum", "exclusiveMaximum"),
        multiple_of: json["multipleOf"].as_f64(),
        length: (json["minLength"].as_u64(), json["maxLength"].as_u64()),
        items: (json["minItems"].as_u64(), json["maxItems"].as_u64()),
        properties: (json["minProperties"].as_u64(), json["maxProperties"].as_u64()),
        unique_items: flag(json, "uniqueItems"),
        all_of: several("allOf")?,
        any_of: several("anyOf")?,
        one_of: several("oneOf")?,
        not,
    })
}

fn parse_rules(json: &Value, path: &str) -> Result<Vec<Rule>, SchemaError> {
    let list = json["x-kubernetes-validations"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .enumerate()
        .map(|(i, rule)| {
            let at = format!("{}[{i}].rule", field_path(path, "x-kubernetes-validations"));
            Rule::compile(rule).map_err(|message| fault(&at, &rule["rule"], message))
        })
        .collect()
}

fn flag(json: &Value, key: &str) -> bool {
    json[key].as_bool().unwrap_or(false)
}

fn strings(json: &Value) -> Vec<String> {
    json.as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect()
}
