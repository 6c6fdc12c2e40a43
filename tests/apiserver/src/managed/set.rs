//! Sets of field paths, in the shape of `fieldsV1`: a tree whose edges are path elements (`f:name`, `k:{…}`,
//! `v:…`), each node saying whether the path that ends there is in the set.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set(pub(super) BTreeMap<String, Node>);

/// What lies below a path element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// Whether the path that ends here is in the set.
    pub(super) owned: bool,
    /// Longer paths.
    pub(super) below: Set,
}

impl Node {
    /// The path that ends here and nothing below.
    pub(super) fn leaf() -> Self {
        Self { owned: true, below: Set::default() }
    }

    fn is_empty(&self) -> bool {
        !self.owned && self.below.is_empty()
    }
}

impl Set {
    /// Whether no path is in the set.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a subtree unless it is empty.
    pub(super) fn insert(&mut self, element: String, node: Node) {
        if !node.is_empty() {
            let there = self.0.entry(element).or_default();
            there.owned |= node.owned;
            there.below.unite(node.below);
        }
    }

    /// Adds the paths of another set.
    pub(super) fn unite(&mut self, other: Set) {
        for (element, node) in other.0 {
            self.insert(element, node);
        }
    }

    /// Removes the paths of another set, and what lies below them.
    pub(super) fn subtract(&mut self, other: &Set) {
        for (element, gone) in &other.0 {
            let Some(node) = self.0.get_mut(element) else { continue };
            if gone.owned && gone.below.is_empty() {
                self.0.remove(element);
                continue;
            }
            node.owned &= !gone.owned;
            node.below.subtract(&gone.below);
            if node.is_empty() {
                self.0.remove(element);
            }
        }
    }

    /// Removes the paths of another set, keeping what lies below them.
    pub(super) fn subtract_exactly(&mut self, other: &Set) {
        for (element, gone) in &other.0 {
            let Some(node) = self.0.get_mut(element) else { continue };
            node.owned &= !gone.owned;
            node.below.subtract_exactly(&gone.below);
            if node.is_empty() {
                self.0.remove(element);
            }
        }
    }

    /// The paths in both sets. A leaf of the other set stands for everything below it.
    pub(super) fn common(&self, other: &Set) -> Set {
        let mut both = Set::default();
        for (element, node) in &self.0 {
            let Some(there) = other.0.get(element) else { continue };
            let whole = there.owned && there.below.is_empty();
            let below = if whole { node.below.clone() } else { node.below.common(&there.below) };
            both.insert(element.clone(), Node { owned: node.owned && there.owned, below });
        }
        both
    }

    /// All paths, written as `.spec.ports[port=80].name`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect("", &mut all);
        all
    }

    fn collect(&self, prefix: &str, all: &mut Vec<String>) {
        for (element, node) in &self.0 {
            let path = format!("{prefix}{}", shown(element));
            if node.owned {
                all.push(path.clone());
            }
            node.below.collect(&path, all);
        }
    }

    /// Reads `fieldsV1`.
    pub(super) fn from_json(json: &Value) -> Self {
        let members = json.as_object().into_iter().flatten().filter(|(element, _)| *element != ".");
        Self(members.map(|(element, below)| (element.clone(), node_from_json(below))).collect())
    }

    /// Writes `fieldsV1`.
    pub(super) fn to_json(&self) -> Value {
        let members = self.0.iter().map(|(element, node)| (element.clone(), node_to_json(node)));
        Value::Object(members.collect())
    }
}

fn node_from_json(json: &Value) -> Node {
    let below = Set::from_json(json);
    Node { owned: below.is_empty() || json.get(".").is_some(), below }
}

fn node_to_json(node: &Node) -> Value {
    let mut members = Map::new();
    if node.owned && !node.below.is_empty() {
        members.insert(".".to_owned(), Value::Object(Map::new()));
    }
    if let Value::Object(below) = node.below.to_json() {
        members.extend(below);
    }
    Value::Object(members)
}

fn shown(element: &str) -> String {
    match element.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", keys)) => {
            let keys: Value = serde_json::from_str(keys).unwrap_or_default();
            let pairs = keys.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={v}"));
            format!("[{}]", pairs.collect::<Vec<_>>().join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        _ => format!("[{element}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_v1_survives_reading_and_writing() {
        let json = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:ports": {"k:{\"port\":80}": {".": {}, "f:port": {}}}}});
        assert_eq!(Set::from_json(&json).to_json(), json);
    }

    #[test]
    fn subtracting_a_leaf_removes_what_lies_below() {
        let mut set = Set::from_json(&json!({"f:a": {"f:b": {}, "f:c": {}}, "f:d": {}}));
        set.subtract(&Set::from_json(&json!({"f:a": {}})));
        assert_eq!(set.to_json(), json!({"f:d": {}}));
    }

    #[test]
    fn paths_are_shown_as_in_conflicts() {
        let set = Set::from_json(
            &json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}}}),
        );
        assert_eq!(set.paths(), [r#".spec.ports[port=80,protocol="TCP"].name"#]);
    }
}
