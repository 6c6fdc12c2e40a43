//! Schemas as OpenAPI definitions, in the dialects of versions 2 and 3.

use serde_json::{Map, Value, json};

use super::group_version_kind;
use crate::registry::{Resource, SchemaSource, Table};
use crate::schema::builtin;

/// The dialect of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The resources of a group version.
pub(super) fn of_version<'t>(
    table: &'t Table,
    group: &'t str,
    version: &'t str,
) -> impl Iterator<Item = &'t Resource> {
    table.resources.iter().map(AsRef::as_ref).filter(move |r| r.id.group == group && r.id.version == version)
}

/// The name of a kind's definition.
pub(super) fn name(resource: &Resource) -> String {
    match &resource.schema {
        SchemaSource::Builtin(name) => (*name).to_owned(),
        SchemaSource::Custom(..) => {
            let mut labels: Vec<&str> = resource.id.group.split('.').collect();
            labels.reverse();
            format!("{}.{}.{}", labels.join("."), resource.id.version, resource.kind)
        }
    }
}

/// The definition of a kind.
pub(super) fn of_kind(resource: &Resource, dialect: Dialect) -> Value {
    let mut definition = match &resource.schema {
        SchemaSource::Builtin(name) => translated(&builtin::definitions_json()[*name], dialect),
        SchemaSource::Custom(_, raw) => custom(raw, dialect),
    };
    let id = &resource.id;
    definition["x-kubernetes-group-version-kind"] =
        json!([group_version_kind(&id.group, &id.version, &resource.kind)]);
    // The real documents ask for nothing at the root.
    if let (SchemaSource::Builtin(_), Some(members)) = (&resource.schema, definition.as_object_mut()) {
        members.shift_remove("required");
    }
    definition
}

/// All definitions of the version 2 document.
pub(super) fn all(table: &Table) -> Value {
    let mut definitions = Map::new();
    for (name, json) in builtin::definitions_json() {
        definitions.insert(name.clone(), translated(json, Dialect::V2));
    }
    for resource in &table.resources {
        definitions.insert(name(resource), of_kind(resource, Dialect::V2));
    }
    Value::Object(definitions)
}

/// The definitions that `roots` refer to, directly or not.
pub(super) fn reachable(roots: &[&Resource]) -> Map<String, Value> {
    let mut definitions = Map::new();
    let mut open =
        vec![OBJECT_META.to_owned(), "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned()];
    for resource in roots {
        let definition = of_kind(resource, Dialect::V3);
        open.extend(references(&definition));
        definitions.insert(name(resource), definition);
    }
    while let Some(name) = open.pop() {
        let Some(json) = builtin::definitions_json().get(&name) else { continue };
        if !definitions.contains_key(&name) {
            let definition = translated(json, Dialect::V3);
            open.extend(references(&definition));
            definitions.insert(name, definition);
        }
    }
    definitions
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(key, member)| match member {
                Value::String(target) if key == "$ref" => {
                    target.rsplit('/').next().map(str::to_owned).into_iter().collect()
                }
                other => references(other),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

fn custom(raw: &Value, dialect: Dialect) -> Value {
    let mut definition = translated(raw, dialect);
    let mut properties = Map::new();
    properties.insert("apiVersion".into(), json!({"description": API_VERSION, "type": "string"}));
    properties.insert("kind".into(), json!({"description": KIND, "type": "string"}));
    let meta = json!({"$ref": format!("/definitions/{OBJECT_META}"), "description": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"});
    properties.insert("metadata".into(), translated(&meta, dialect));
    for (name, property) in definition["properties"].as_object().into_iter().flatten() {
        properties.entry(name.clone()).or_insert_with(|| property.clone());
    }
    definition["properties"] = Value::Object(properties);
    definition
}

/// A schema in a dialect: references, int-or-string, and what version 2 cannot say.
fn translated(json: &Value, dialect: Dialect) -> Value {
    match json {
        Value::Object(members) => translated_schema(members, dialect),
        Value::Array(items) => Value::Array(items.iter().map(|i| translated(i, dialect)).collect()),
        other => other.clone(),
    }
}

fn translated_schema(members: &Map<String, Value>, dialect: Dialect) -> Value {
    if let Some(target) = members.get("$ref").and_then(Value::as_str) {
        let reference = dialect.reference(target.rsplit('/').next().unwrap_or_default());
        let description = members.get("description").cloned().unwrap_or_else(|| json!(""));
        return match dialect {
            Dialect::V2 => json!({"description": description, "$ref": reference}),
            Dialect::V3 => json!({"description": description, "allOf": [{"$ref": reference}], "default": {}}),
        };
    }
    let mut out = Map::new();
    for (key, member) in members {
        match (key.as_str(), dialect) {
            ("properties", _) => {
                let all = member.as_object().into_iter().flatten();
                let all = all.map(|(name, schema)| (name.clone(), translated(schema, dialect)));
                out.insert(key.clone(), Value::Object(all.collect()));
            }
            ("items" | "additionalProperties" | "allOf", _) | ("anyOf" | "oneOf" | "not", Dialect::V3) => {
                out.insert(key.clone(), translated(member, dialect));
            }
            // Version 2 has no such words.
            ("anyOf" | "oneOf" | "not" | "nullable", Dialect::V2) => {}
            _ => {
                out.insert(key.clone(), member.clone());
            }
        }
    }
    if out.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        out.insert("format".into(), json!("int-or-string"));
        match dialect {
            Dialect::V2 => out.insert("type".into(), json!("string")),
            Dialect::V3 => out.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}])),
        };
    }
    Value::Object(out)
}
