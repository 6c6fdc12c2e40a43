//! The structural schema of a kind: one model for the built-in kinds (from `k8s-openapi`) and for custom ones
//! (from the CRD). The submodules walk objects with it: decoding, pruning, defaulting, validation.

pub(crate) mod builtin;
mod decode;
mod defaulting;
mod formats;
mod lists;
mod parse;
mod prune;
mod structural;
mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

pub(crate) use decode::decode;
pub(crate) use defaulting::apply_defaults;
pub(crate) use formats::matches as format_matches;
pub(crate) use parse::{SchemaError, parse};
pub(crate) use prune::prune;
pub(crate) use structural::structural_faults;
pub(crate) use validate::validate;

use crate::cel::Rule;

/// The JSON type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    /// Anything goes.
    #[default]
    Any,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

impl Type {
    /// The OpenAPI word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How the items of a list are told apart when two owners write it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    /// The list is one value.
    #[default]
    Atomic,
    /// Items are distinct scalars.
    Set,
    /// Items are objects with these key fields.
    Map(Vec<String>),
}

/// Strategic merge patch of a list (`x-kubernetes-patch-*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchMeta {
    /// The field that identifies an item; `None` for lists of scalars.
    pub merge_key: Option<String>,
    /// `merge`, `retainKeys` …
    pub strategy: String,
}

/// What an object may hold besides its named properties.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    /// Nothing; other fields are unknown.
    #[default]
    None,
    /// Anything.
    Any,
    /// Values of a schema.
    Schema(Child),
}

/// A schema below another one.
#[derive(Debug, Clone)]
pub enum Child {
    /// Written in place.
    Inline(Box<Schema>),
    /// A definition of the built-in kinds, by name: those may refer to themselves.
    Named(&'static str, Box<Refinement>),
}

/// What a reference adds to the definition it names.
#[derive(Debug, Clone, Default)]
pub struct Refinement {
    /// The field's own description.
    pub description: Option<String>,
}

impl Child {
    /// The schema itself.
    pub fn get(&self) -> &Schema {
        match self {
            Self::Inline(schema) => schema,
            Self::Named(name, _) => builtin::definition(name),
        }
    }
}

/// Value validations of one node.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    pub(crate) values: Vec<Value>,
    pub(crate) pattern: Option<(String, Regex)>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) length: (Option<u64>, Option<u64>),
    pub(crate) items: (Option<u64>, Option<u64>),
    pub(crate) properties: (Option<u64>, Option<u64>),
    pub(crate) unique_items: bool,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

/// One node of a structural schema.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// What `kubectl explain` prints.
    pub description: Option<String>,
    /// The JSON type.
    pub ty: Type,
    /// Named members of an object.
    pub properties: BTreeMap<String, Child>,
    /// Other members of an object.
    pub additional: Additional,
    /// Items of an array.
    pub items: Option<Child>,
    /// Members that must be there.
    pub required: Vec<String>,
    /// Filled in when absent.
    pub default: Option<Value>,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `null` is a value of its own.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded_resource: bool,
    /// `format`
    pub format: Option<String>,
    /// How items are told apart.
    pub list: ListKind,
    /// `x-kubernetes-map-type: atomic`
    pub atomic_map: bool,
    /// Strategic merge of a list.
    pub patch: Option<PatchMeta>,
    /// Value validations.
    pub checks: Checks,
    /// `x-kubernetes-validations`
    pub rules: Vec<Rule>,
}

impl Schema {
    /// The schema of a member, named or additional; `None` when the schema does not know it.
    pub fn member(&self, name: &str) -> Option<&Schema> {
        if let Some(child) = self.properties.get(name) {
            return Some(child.get());
        }
        match &self.additional {
            Additional::Schema(child) => Some(child.get()),
            Additional::Any | Additional::None => None,
        }
    }

    /// The schema of an array's items.
    pub fn item(&self) -> Option<&Schema> {
        self.items.as_ref().map(Child::get)
    }

    /// Whether members that no property names are kept as they come.
    pub fn keeps_unknown(&self) -> bool {
        self.preserve_unknown || matches!(self.additional, Additional::Any)
    }
}

/// `path.name`, or `name` at the root.
pub(crate) fn field_path(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The Go name of a JSON type, as type errors show it.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
