//! Label selectors: the string form of queries and the object form of specs.

use serde_json::Value;

use crate::kinds::names;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

/// Requirements that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Requirement>);

impl Selector {
    /// Whether labels (a JSON object, or null for none) satisfy it.
    pub(crate) fn matches(&self, labels: &Value) -> bool {
        self.0.iter().all(|r| r.holds(labels[r.key.as_str()].as_str()))
    }

    /// Whether there is no requirement.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        match (&self.operator, value) {
            (Operator::In(list), Some(v)) => list.iter().any(|l| l == v),
            (Operator::NotIn(list), Some(v)) => list.iter().all(|l| l != v),
            (Operator::NotIn(_) | Operator::Absent, None) | (Operator::Exists, Some(_)) => true,
            (Operator::Greater(n), Some(v)) => v.parse::<i64>().is_ok_and(|v| v > *n),
            (Operator::Less(n), Some(v)) => v.parse::<i64>().is_ok_and(|v| v < *n),
            _ => false,
        }
    }

    fn checked(key: &str, operator: Operator) -> Result<Self, String> {
        if let Some(fault) = names::qualified_name(key) {
            return Err(format!("key: Invalid value: \"{key}\": {fault}"));
        }
        if let Operator::In(values) | Operator::NotIn(values) = &operator {
            for value in values {
                if let Some(fault) = names::label_value(value) {
                    return Err(format!("values[0][{key}]: Invalid value: \"{value}\": {fault}"));
                }
            }
        }
        Ok(Self { key: key.to_owned(), operator })
    }
}

/// Parses `a=b,c!=d,e in (f,g),h,!i,j>1`.
pub(crate) fn parse(text: &str) -> Result<Selector, String> {
    let mut requirements = Vec::new();
    for part in split_outside_parentheses(text) {
        let part = part.trim();
        if !part.is_empty() {
            requirements.push(parse_requirement(part)?);
        } else if !text.trim().is_empty() {
            return Err(format!("found '', expected: identifier in selector \"{text}\""));
        }
    }
    Ok(Selector(requirements))
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<Requirement, String> {
    if let Some(key) = part.strip_prefix('!') {
        return Requirement::checked(key.trim(), Operator::Absent);
    }
    if part.ends_with(')') {
        return parse_set(part);
    }
    for (symbol, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(symbol) {
            let values = vec![value.trim().to_owned()];
            let operator = if negated { Operator::NotIn(values) } else { Operator::In(values) };
            return Requirement::checked(key.trim(), operator);
        }
    }
    for symbol in ['>', '<'] {
        if let Some((key, value)) = part.split_once(symbol) {
            let fault = || format!("for 'Gt', 'Lt' operators, the value must be an integer, got \"{value}\"");
            let number = value.trim().parse().map_err(|_| fault())?;
            let operator = if symbol == '>' { Operator::Greater(number) } else { Operator::Less(number) };
            return Requirement::checked(key.trim(), operator);
        }
    }
    Requirement::checked(part, Operator::Exists)
}

fn parse_set(part: &str) -> Result<Requirement, String> {
    let fault = || format!("unable to parse requirement: \"{part}\", expected: in, notin, =, ==, !=, gt, lt");
    let (head, list) = part.split_once('(').ok_or_else(fault)?;
    let values = list.trim_end_matches(')').split(',').map(|v| v.trim().to_owned()).collect();
    let mut words = head.split_whitespace();
    let (key, word) = (words.next().ok_or_else(fault)?, words.next().ok_or_else(fault)?);
    match word {
        "in" => Requirement::checked(key, Operator::In(values)),
        "notin" => Requirement::checked(key, Operator::NotIn(values)),
        _ => Err(fault()),
    }
}

/// Reads a `metav1.LabelSelector`.
pub(crate) fn from_object(selector: &Value) -> Result<Selector, String> {
    let mut requirements = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        let values = vec![value.as_str().unwrap_or_default().to_owned()];
        requirements.push(Requirement::checked(key, Operator::In(values))?);
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let values = || {
            let list = expression["values"].as_array().into_iter().flatten();
            list.filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let operator = match expression["operator"].as_str().unwrap_or_default() {
            "In" => Operator::In(values()),
            "NotIn" => Operator::NotIn(values()),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::Absent,
            other => return Err(format!("\"{other}\" is not a valid label selector operator")),
        };
        requirements.push(Requirement::checked(expression["key"].as_str().unwrap_or_default(), operator)?);
    }
    Ok(Selector(requirements))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_operator_selects_what_kubernetes_selects() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        for yes in [
            "",
            "app=web",
            "app==web,tier!=back",
            "app in (db, web)",
            "x notin (a)",
            "app",
            "!x",
            "n>4",
            "n<6",
        ] {
            assert!(parse(yes).unwrap().matches(&labels), "{yes}");
        }
        for no in ["app=db", "app!=web", "app notin (web)", "x", "!app", "n>5", "x in (a)"] {
            assert!(!parse(no).unwrap().matches(&labels), "{no}");
        }
    }

    #[test]
    fn a_malformed_selector_is_refused() {
        for bad in ["a,,b", "a like (b)", "-a=b", "a=b c"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
