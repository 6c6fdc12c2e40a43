//! Walking two values along a schema: which fields a value has, which differ between two values, what a
//! merge of one into the other is, and what remains without some fields.

use serde_json::{Map, Value, json};

use super::set::{Node, Set};
use crate::schema::{ListKind, Schema};

/// How a value is divided among owners.
enum Shape {
    /// One owner for all of it.
    Atomic,
    /// By member.
    Members,
    /// By item; items are told apart by [`element`].
    Items,
}

fn shape(value: &Value, schema: Option<&Schema>) -> Shape {
    match value {
        Value::Object(_) if schema.is_some_and(|s| s.atomic_map) => Shape::Atomic,
        Value::Object(_) => Shape::Members,
        Value::Array(items) => {
            let list = schema.map(|s| &s.list);
            let divided = !matches!(list, None | Some(ListKind::Atomic));
            let all_told = items.iter().all(|i| element(i, schema).is_some());
            if divided && all_told { Shape::Items } else { Shape::Atomic }
        }
        _ => Shape::Atomic,
    }
}

/// The path element of a list's item.
fn element(item: &Value, list: Option<&Schema>) -> Option<String> {
    let schema = list?;
    match &schema.list {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => {
            let mut found = std::collections::BTreeMap::new();
            for key in keys {
                let default = || schema.item().and_then(|s| s.member(key)).and_then(|s| s.default.clone());
                if let Some(value) = item.get(key).cloned().or_else(default) {
                    found.insert(key.clone(), value);
                }
            }
            let complete = !found.is_empty() && item.is_object();
            complete.then(|| format!("k:{}", serde_json::to_string(&found).unwrap_or_default()))
        }
    }
}

fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The fields an applied value has.
pub(super) fn fields(value: &Value, schema: Option<&Schema>) -> Set {
    let mut set = Set::default();
    match shape(value, schema) {
        Shape::Atomic => {}
        Shape::Members => {
            for (name, member) in value.as_object().into_iter().flatten() {
                let below = schema.and_then(|s| s.member(name));
                let inner = fields(member, below);
                let named = schema.is_some_and(|s| s.properties.contains_key(name));
                set.insert(field(name), Node { owned: inner.is_empty() || !named, below: inner });
            }
        }
        Shape::Items => {
            for item in value.as_array().into_iter().flatten() {
                let below = fields(item, schema.and_then(Schema::item));
                if let Some(element) = element(item, schema) {
                    set.insert(element, Node { owned: true, below });
                }
            }
        }
    }
    set
}

/// Every path of a value, containers included.
fn everything(value: &Value, schema: Option<&Schema>) -> Set {
    let mut set = Set::default();
    match shape(value, schema) {
        Shape::Atomic => {}
        Shape::Members => {
            for (name, member) in members(value) {
                let below = everything(member, schema.and_then(|s| s.member(name)));
                set.insert(field(name), Node { owned: true, below });
            }
        }
        Shape::Items => {
            for (element, item) in items(value, schema) {
                let below = everything(item, schema.and_then(Schema::item));
                set.insert(element, Node { owned: true, below });
            }
        }
    }
    set
}

/// How two values differ.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub(super) changed: Set,
    /// Fields that are gone.
    pub(super) removed: Set,
}

/// Compares field by field.
pub(super) fn compare(old: &Value, new: &Value, schema: Option<&Schema>) -> Difference {
    let mut difference = Difference::default();
    if old == new {
        return difference;
    }
    match (shape(old, schema), shape(new, schema)) {
        (Shape::Members, Shape::Members) => {
            let (old, new) = (members(old), members(new));
            for (name, after) in new {
                let below = schema.and_then(|s| s.member(name));
                difference.part(field(name), old.get(name), Some(after), below);
            }
            for (name, before) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                difference.part(field(name), Some(before), None, schema.and_then(|s| s.member(name)));
            }
        }
        (Shape::Items, Shape::Items) => {
            let below = schema.and_then(Schema::item);
            let (before, after) = (items(old, schema), items(new, schema));
            let find = |all: &[(String, &Value)], element: &str| all.iter().position(|(e, _)| e == element);
            for (element, item) in &after {
                let there = find(&before, element).map(|i| before[i].1);
                difference.part(element.clone(), there, Some(item), below);
            }
            for (element, item) in before.iter().filter(|(e, _)| find(&after, e).is_none()) {
                difference.part(element.clone(), Some(item), None, below);
            }
        }
        _ => {}
    }
    difference
}

impl Difference {
    fn part(&mut self, element: String, old: Option<&Value>, new: Option<&Value>, schema: Option<&Schema>) {
        match (old, new) {
            (None, Some(new)) => {
                self.changed.insert(element, Node { owned: true, below: everything(new, schema) });
            }
            (Some(_), None) => self.removed.insert(element, Node::leaf()),
            (Some(old), Some(new)) if old != new => {
                let whole = matches!(shape(new, schema), Shape::Atomic)
                    || matches!(shape(old, schema), Shape::Atomic);
                if whole {
                    self.changed.insert(element, Node::leaf());
                } else {
                    let below = compare(old, new, schema);
                    self.changed.insert(element.clone(), Node { owned: false, below: below.changed });
                    self.removed.insert(element, Node { owned: false, below: below.removed });
                }
            }
            _ => {}
        }
    }
}

fn members(value: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE)
}

fn items<'v>(value: &'v Value, schema: Option<&Schema>) -> Vec<(String, &'v Value)> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|item| Some((element(item, schema)?, item))).collect()
}

/// Merges an applied value into a live one.
pub(super) fn merge(live: &mut Value, applied: &Value, schema: Option<&Schema>) {
    match (shape(live, schema), shape(applied, schema)) {
        (Shape::Members, Shape::Members) => {
            let live = live.as_object_mut().expect("its shape says so");
            for (name, member) in members(applied) {
                match live.get_mut(name) {
                    Some(there) => merge(there, member, schema.and_then(|s| s.member(name))),
                    None => {
                        live.insert(name.clone(), member.clone());
                    }
                }
            }
        }
        (Shape::Items, Shape::Items) => {
            let live = live.as_array_mut().expect("its shape says so");
            for (wanted, item) in items(applied, schema) {
                match live.iter_mut().find(|i| element(i, schema).as_ref() == Some(&wanted)) {
                    Some(there) => merge(there, item, schema.and_then(Schema::item)),
                    None => live.push(item.clone()),
                }
            }
        }
        _ => *live = applied.clone(),
    }
}

/// Takes the fields of `gone` out of a value, except those in `kept`.
pub(super) fn remove(value: &mut Value, gone: &Set, kept: &Set, schema: Option<&Schema>) {
    for (path, node) in &gone.0 {
        let keeps = kept.0.get(path);
        let child_schema;
        let child = match path.split_at_checked(2) {
            Some(("f:", name)) => {
                child_schema = schema.and_then(|s| s.member(name));
                value.get_mut(name)
            }
            _ => {
                child_schema = schema.and_then(Schema::item);
                let list = value.as_array_mut();
                list.and_then(|l| l.iter_mut().find(|i| element(i, schema).as_ref() == Some(path)))
            }
        };
        let Some(child) = child else { continue };
        let kept_below = keeps.map(|k| k.below.clone()).unwrap_or_default();
        remove(child, &node.below, &kept_below, child_schema);
        // A container goes when its owner gives it up and nobody else has anything in it.
        let emptied = matches!(child, Value::Object(m) if m.is_empty());
        let leaf = node.owned && (node.below.is_empty() || !has_content(child, schema_keys(schema)));
        if keeps.is_none() && (leaf || (emptied && node.owned)) {
            drop_child(value, path, schema);
        }
    }
}

/// The key members of the items of a list: they do not count as content.
fn schema_keys(list: Option<&Schema>) -> &[String] {
    match list.map(|s| &s.list) {
        Some(ListKind::Map(keys)) => keys,
        _ => &[],
    }
}

fn has_content(value: &Value, keys: &[String]) -> bool {
    match value {
        Value::Object(members) => members.keys().any(|name| !keys.contains(name)),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn drop_child(value: &mut Value, path: &str, schema: Option<&Schema>) {
    match (path.strip_prefix("f:"), value) {
        (Some(name), Value::Object(members)) => {
            members.shift_remove(name);
        }
        (None, Value::Array(items)) => items.retain(|i| element(i, schema).as_deref() != Some(path)),
        _ => {}
    }
}

/// A value without the parts that nobody manages: identity, and what the server writes.
pub(super) fn manageable(value: &Value, without: &[&str]) -> Value {
    const SERVER_META: [&str; 10] = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generation",
        "selfLink",
        "managedFields",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    let mut out = Map::new();
    for (name, member) in members(value) {
        if matches!(name.as_str(), "apiVersion" | "kind") || without.contains(&name.as_str()) {
            continue;
        }
        if name != "metadata" {
            out.insert(name.clone(), member.clone());
            continue;
        }
        let kept = members(member).iter().filter(|(n, _)| !SERVER_META.contains(&n.as_str()));
        let kept: Map<String, Value> = kept.map(|(n, v)| (n.clone(), v.clone())).collect();
        out.insert("metadata".to_owned(), json!(kept));
    }
    Value::Object(out)
}
