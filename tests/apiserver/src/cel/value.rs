//! From JSON to CEL values, guided by the schema as on the real server: integers are `int`, numbers
//! `double`, `date-time` and `duration` strings their CEL types; field names are escaped identifiers.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Program, Value as Cel};
use serde_json::Value;

use crate::schema::{Schema, Type};

static TIMESTAMP: LazyLock<Program> =
    LazyLock::new(|| Program::compile("timestamp(text)").expect("it is valid CEL"));
static DURATION: LazyLock<Program> =
    LazyLock::new(|| Program::compile("duration(text)").expect("it is valid CEL"));

/// Words of the CEL grammar that a field name may not be as it is.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Converts a value.
pub(super) fn to_cel(value: &Value, schema: Option<&Schema>) -> Cel {
    let ty = schema.map_or(Type::Any, |s| s.ty);
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) if ty == Type::Number => Cel::Float(n.as_f64().unwrap_or_default()),
        Value::Number(n) => match n.as_i64() {
            Some(i) => Cel::Int(i),
            None if ty == Type::Integer => Cel::Int(n.as_f64().unwrap_or_default() as i64),
            None => Cel::Float(n.as_f64().unwrap_or_default()),
        },
        Value::String(s) => string(s, schema.and_then(|s| s.format.as_deref())),
        Value::Array(items) => {
            let below = schema.and_then(Schema::item);
            Cel::List(Arc::new(items.iter().map(|item| to_cel(item, below)).collect()))
        }
        Value::Object(members) => {
            let mut map = HashMap::new();
            for (name, member) in members {
                let named = schema.is_some_and(|s| s.properties.contains_key(name));
                let below = schema.and_then(|s| s.member(name));
                let key = if named { escape(name) } else { name.clone() };
                map.insert(Key::String(Arc::new(key)), to_cel(member, below));
            }
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

fn string(text: &str, format: Option<&str>) -> Cel {
    let read = match format {
        Some("date-time") => &*TIMESTAMP,
        Some("duration") => &*DURATION,
        _ => return plain(text),
    };
    let mut context = Context::default();
    context.add_variable_from_value("text", plain(text));
    read.execute(&context).unwrap_or_else(|_| plain(text))
}

fn plain(text: &str) -> Cel {
    Cel::String(Arc::new(text.to_owned()))
}

/// A field's name as a CEL identifier.
pub(super) fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// The field that a CEL identifier names.
pub(super) fn unescape(name: &str) -> String {
    if let Some(word) = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"))
        && RESERVED.contains(&word)
    {
        return word.to_owned();
    }
    name.replace("__dot__", ".")
        .replace("__dash__", "-")
        .replace("__slash__", "/")
        .replace("__underscores__", "__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_identifiers_are_escaped_and_back() {
        for (name, escaped) in [
            ("namespace", "__namespace__"),
            ("a-b", "a__dash__b"),
            ("x.y/z", "x__dot__y__slash__z"),
            ("a__b", "a__underscores__b"),
        ] {
            assert_eq!(escape(name), escaped);
            assert_eq!(unescape(escaped), name);
        }
    }
}
