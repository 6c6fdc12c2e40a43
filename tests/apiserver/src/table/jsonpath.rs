//! The JSON paths of printer columns: members, indexes, `[*]`, and filters `[?(@.a=="b")]`.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Index(usize),
    Last,
    All,
    Where(Vec<String>, String),
}

/// A path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Parses `.spec.x`, `.status.conditions[?(@.type=="Ready")].status`, `.a['b.c'][0]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.trim().trim_start_matches('{').trim_end_matches('}');
        while !rest.is_empty() {
            let (step, tail) =
                parse_step(rest).ok_or_else(|| format!("unrecognized JSON path at '{rest}'"))?;
            steps.extend(step);
            rest = tail;
        }
        Ok(Self(steps))
    }

    /// Everything the path finds.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|v| step.apply(v)).collect();
        }
        found.retain(|v| !v.is_null());
        found
    }
}

fn parse_step(rest: &str) -> Option<(Option<Step>, &str)> {
    if let Some(rest) = rest.strip_prefix('.') {
        let end = member_end(rest);
        let name = rest[..end].replace('\\', "");
        let step = (!name.is_empty()).then_some(if name == "*" { Step::All } else { Step::Member(name) });
        return Some((step, &rest[end..]));
    }
    let inner = rest.strip_prefix('[')?;
    if let Some(filter) = inner.strip_prefix("?(") {
        let (condition, tail) = filter.split_once(")]")?;
        let (path, wanted) = condition.split_once("==")?;
        let path = path.trim().strip_prefix('@')?;
        let path = path.split('.').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        let wanted = wanted.trim().trim_matches(['"', '\'']).to_owned();
        return Some((Some(Step::Where(path, wanted)), tail));
    }
    let (index, tail) = inner.split_once(']')?;
    let step = match index.trim() {
        "*" => Step::All,
        "-1" | "-1:" => Step::Last,
        quoted if quoted.starts_with(['\'', '"']) => {
            Step::Member(quoted.trim_matches(['"', '\'']).to_owned())
        }
        number => Step::Index(number.parse().ok()?),
    };
    Some((Some(step), tail))
}

/// Where a member's name ends; a dot behind a backslash belongs to the name.
fn member_end(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices() {
        match c {
            '\\' => escaped = true,
            '.' | '[' if !escaped => return i,
            _ => escaped = false,
        }
    }
    rest.len()
}

impl Step {
    fn apply<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Member(name), _) => value.get(name).into_iter().collect(),
            (Self::Index(i), _) => value.get(i).into_iter().collect(),
            (Self::Last, Value::Array(items)) => items.last().into_iter().collect(),
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(members)) => members.values().collect(),
            (Self::Where(path, wanted), Value::Array(items)) => items
                .iter()
                .filter(|item| {
                    let found = path.iter().fold(*item, |v, step| &v[step.as_str()]);
                    matches_text(found, wanted)
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn matches_text(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Bool(b) => wanted == if *b { "true" } else { "false" },
        Value::Number(n) => wanted.parse::<f64>().is_ok_and(|w| n.as_f64() == Some(w)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns_find_their_values() {
        let object = json!({
            "spec": {"a.b": 1, "list": [{"x": "p"}, {"x": "q"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let find = |path: &str| {
            JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(find(r#".status.conditions[?(@.type=="Ready")].status"#), [json!("True")]);
        assert_eq!(find(".spec.list[*].x"), [json!("p"), json!("q")]);
        assert_eq!(find(".spec.list[1].x"), [json!("q")]);
        assert_eq!(find(r".spec.a\.b"), [json!(1)]);
        assert_eq!(find(".spec['a.b']"), [json!(1)]);
        assert!(find(".spec.nothing").is_empty());
        assert!(JsonPath::parse("spec").is_err());
    }
}
