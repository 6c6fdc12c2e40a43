//! Small accessors on Kubernetes objects kept as JSON trees. Not a typed model: the schema module knows the
//! types, the `kinds` module knows the rules.

use serde_json::{Map, Value};

/// A JSON object's members.
pub(crate) type Members = Map<String, Value>;

/// The value at a path of member names; `Null` where any step is missing.
pub(crate) fn at<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(value, |v, step| &v[*step])
}

/// The string at a path, empty when absent or of another type.
pub(crate) fn str_at<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    at(value, path).as_str().unwrap_or_default()
}

/// The array at a path, empty when absent.
pub(crate) fn list_at<'v>(value: &'v Value, path: &[&str]) -> &'v [Value] {
    at(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `metadata.name`.
pub(crate) fn name(value: &Value) -> &str {
    str_at(value, &["metadata", "name"])
}

/// `metadata.namespace`, empty for cluster-scoped objects.
pub(crate) fn namespace(value: &Value) -> &str {
    str_at(value, &["metadata", "namespace"])
}

/// `metadata.uid`.
pub(crate) fn uid(value: &Value) -> &str {
    str_at(value, &["metadata", "uid"])
}

/// `metadata.resourceVersion`.
pub(crate) fn resource_version(value: &Value) -> &str {
    str_at(value, &["metadata", "resourceVersion"])
}

/// Whether deletion has been asked for and finalizers are awaited.
pub(crate) fn is_terminating(value: &Value) -> bool {
    !at(value, &["metadata", "deletionTimestamp"]).is_null()
}

/// `metadata.finalizers`.
pub(crate) fn finalizers(value: &Value) -> Vec<&str> {
    list_at(value, &["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
}

/// The members of an object value, made an empty object first if it is anything else.
pub(crate) fn members_mut(value: &mut Value) -> &mut Members {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("just made an object")
}

/// The member `name`, created as an empty object when missing.
pub(crate) fn child_mut<'v>(value: &'v mut Value, name: &str) -> &'v mut Value {
    let child = members_mut(value).entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    child
}

/// `metadata`, created when missing.
pub(crate) fn meta_mut(value: &mut Value) -> &mut Members {
    members_mut(child_mut(value, "metadata"))
}

/// The array at a path, if there is one. Creates nothing on the way.
pub(crate) fn list_mut<'v>(value: &'v mut Value, path: &[&str]) -> Option<&'v mut Vec<Value>> {
    path.iter().try_fold(value, |at, step| at.get_mut(*step))?.as_array_mut()
}

/// The objects in the array at a path.
pub(crate) fn objects_mut<'v>(value: &'v mut Value, path: &[&str]) -> impl Iterator<Item = &'v mut Value> {
    list_mut(value, path).into_iter().flatten().filter(|item| item.is_object())
}

/// Sets or, with `Null`, removes a member.
pub(crate) fn put(value: &mut Value, name: &str, new: Value) {
    let members = members_mut(value);
    if new.is_null() {
        members.shift_remove(name);
    } else {
        members.insert(name.to_owned(), new);
    }
}

/// Sets a member only when it is absent or null.
pub(crate) fn default_to(value: &mut Value, name: &str, new: impl Into<Value>) {
    let members = members_mut(value);
    if members.get(name).is_none_or(Value::is_null) {
        members.insert(name.to_owned(), new.into());
    }
}

/// Copies member `name` of `from` into `to`, removing it there when `from` has none.
pub(crate) fn carry(to: &mut Value, from: &Value, name: &str) {
    put(to, name, from[name].clone());
}
