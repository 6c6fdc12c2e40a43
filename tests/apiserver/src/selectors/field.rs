//! Field selectors: equality on the few fields a resource declares as selectable.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    path: Vec<String>,
    value: String,
    equal: bool,
}

/// Terms that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Term>);

impl Selector {
    /// Whether an object satisfies it. An absent field is the empty string, an absent boolean `false`.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| (field_text(object, &term.path) == term.value) == term.equal)
    }

    /// Whether there is no term.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn field_text(object: &Value, path: &[String]) -> String {
    let value = path.iter().fold(object, |v, step| &v[step.as_str()]);
    match (path.last().map(String::as_str), value) {
        (_, Value::String(s)) => s.clone(),
        (Some("unschedulable" | "hostNetwork"), Value::Null) => "false".to_owned(),
        (Some("replicas"), Value::Null) => "0".to_owned(),
        // `source` of an event stands for its component.
        (Some("source"), Value::Object(source)) => {
            source.get("component").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        (_, Value::Null) => String::new(),
        (_, other) => other.to_string(),
    }
}

/// Parses `a=b,c!=d`; `selectable` are the fields allowed besides name and namespace.
pub(crate) fn parse(text: &str, selectable: &[String], namespaced: bool) -> Result<Selector, String> {
    let mut terms = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (key, value, equal) = split_term(part)?;
        let known = key == "metadata.name"
            || (namespaced && key == "metadata.namespace")
            || selectable.iter().any(|s| s == key);
        if !known {
            return Err(format!("field label not supported: {key}"));
        }
        let path = key.split('.').map(str::to_owned).collect();
        terms.push(Term { path, value: value.to_owned(), equal });
    }
    Ok(Selector(terms))
}

fn split_term(part: &str) -> Result<(&str, &str, bool), String> {
    for (symbol, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = part.split_once(symbol) {
            return Ok((key, value, equal));
        }
    }
    Err(format!("invalid selector: '{part}'; can't understand '{part}'"))
}
