//! Strategic merge patch: a merge patch that knows which lists are merged, and by which key.

use serde_json::{Map, Value};

use crate::object;
use crate::refusal::Refusal;
use crate::schema::{PatchMeta, Schema};

const DIRECTIVE: &str = "$patch";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";
const RETAIN_KEYS: &str = "$retainKeys";

/// Applies `patch` to `object`, whose schema tells the merge keys.
pub(crate) fn apply(mut object: Value, patch: &Value, schema: &Schema) -> Result<Value, Refusal> {
    if !patch.is_object() {
        return Err(Refusal::bad_request("a strategic merge patch must be a JSON object"));
    }
    merge_object(&mut object, patch, Some(schema))?;
    Ok(object)
}

fn merge_object(target: &mut Value, patch: &Value, schema: Option<&Schema>) -> Result<(), Refusal> {
    let Some(members) = patch.as_object() else {
        *target = patch.clone();
        return Ok(());
    };
    match members.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(Refusal::bad_request(format!("Unrecognized type: {other}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    retain_keys(target, members);
    for (name, change) in members.iter().filter(|(name, _)| !name.starts_with('$')) {
        let order = patch[format!("{ORDER}{name}")].as_array().map(Vec::as_slice);
        merge_member(target, name, change, schema.and_then(|s| s.member(name)), order)?;
    }
    for (name, change) in members {
        if let Some(list) = name.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(target.get_mut(list), change);
        }
    }
    for (name, order) in members {
        if let Some(list) = name.strip_prefix(ORDER).filter(|list| !members.contains_key(*list)) {
            let meta = schema.and_then(|s| s.member(list)).and_then(|s| s.patch.as_ref());
            let key = meta.and_then(|m| m.merge_key.as_deref());
            if let (Some(items), Some(order)) = (object::list_mut(target, &[list]), order.as_array()) {
                let before = items.clone();
                arrange(items, &before, order, key);
            }
        }
    }
    Ok(())
}

fn retain_keys(target: &mut Value, patch: &Map<String, Value>) {
    let Some(kept) = patch.get(RETAIN_KEYS).and_then(Value::as_array) else { return };
    if let Some(members) = target.as_object_mut() {
        members.retain(|name, _| kept.iter().any(|k| k == name));
    }
}

fn merge_member(
    target: &mut Value,
    name: &str,
    change: &Value,
    schema: Option<&Schema>,
    order: Option<&[Value]>,
) -> Result<(), Refusal> {
    let members = target.as_object_mut().expect("the caller made it an object");
    if change.is_null() {
        members.shift_remove(name);
        return Ok(());
    }
    let merged_list = schema.and_then(|s| s.patch.as_ref()).filter(|p| p.strategy.contains("merge"));
    match (change, merged_list) {
        (Value::Array(items), Some(meta)) => {
            let list = members.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            merge_list(list, items, meta, schema.and_then(Schema::item), order)
        }
        (Value::Object(_), _) => {
            let below = members.entry(name).or_insert_with(|| Value::Object(Map::new()));
            merge_object(below, change, schema)
        }
        _ => {
            members.insert(name.to_owned(), change.clone());
            Ok(())
        }
    }
}

fn merge_list(
    list: &mut Value,
    changes: &[Value],
    meta: &PatchMeta,
    item: Option<&Schema>,
    order: Option<&[Value]>,
) -> Result<(), Refusal> {
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let items = list.as_array_mut().expect("just made an array");
    let before = items.clone();
    let Some(key) = &meta.merge_key else {
        for change in changes {
            if !items.contains(change) {
                items.push(change.clone());
            }
        }
        arrange(items, &before, order.unwrap_or(changes), None);
        return Ok(());
    };
    if changes.iter().any(|c| c[DIRECTIVE] == "replace") {
        *items = changes.iter().filter(|c| c[DIRECTIVE] != "replace").map(without_directives).collect();
        return Ok(());
    }
    for change in changes {
        let wanted = &change[key.as_str()];
        if wanted.is_null() {
            return Err(Refusal::bad_request(format!(
                "map: {change} does not contain declared merge key: {key}"
            )));
        }
        if change[DIRECTIVE] == "delete" {
            items.retain(|i| i[key.as_str()] != *wanted);
            continue;
        }
        match items.iter_mut().find(|i| i[key.as_str()] == *wanted) {
            Some(there) => merge_object(there, change, item)?,
            None => {
                let mut new = Value::Object(Map::new());
                merge_object(&mut new, change, item)?;
                items.push(new);
            }
        }
    }
    arrange(items, &before, order.unwrap_or(changes), Some(key));
    Ok(())
}

fn delete_primitives(list: Option<&mut Value>, gone: &Value) {
    let gone = gone.as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(items) = list.and_then(Value::as_array_mut) {
        items.retain(|i| !gone.contains(i));
    }
}

/// Puts the items that `order` names into that order and weaves the others, which only the server knew, in
/// where they stood before; new items come ahead of them.
fn arrange(items: &mut Vec<Value>, before: &[Value], order: &[Value], key: Option<&str>) {
    let identity = |v: &Value| key.map_or_else(|| v.clone(), |k| v[k].clone());
    let place = |all: &[Value], v: &Value| all.iter().position(|o| identity(o) == identity(v));
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        std::mem::take(items).into_iter().partition(|i| place(order, i).is_some());
    named.sort_by_key(|i| place(order, i));
    let mut others = others.into_iter().peekable();
    for item in named {
        let stood = place(before, &item);
        while let Some(other) =
            others.next_if(|o| stood.is_some_and(|s| place(before, o).is_some_and(|p| p < s)))
        {
            items.push(other);
        }
        items.push(item);
    }
    items.extend(others);
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, _)| !name.starts_with('$'));
            Value::Object(kept.map(|(name, v)| (name.clone(), without_directives(v))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_directives).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin::definition;
    use serde_json::json;

    fn patched(object: Value, patch: Value) -> Value {
        apply(object, &patch, definition("io.k8s.api.core.v1.Service")).unwrap()
    }

    fn service() -> Value {
        json!({"spec": {"ports": [{"name": "a", "port": 80, "nodePort": 30000}, {"name": "b", "port": 81}], "selector": {"x": "y"}}})
    }

    #[test]
    fn ports_are_merged_by_their_port() {
        let merged = patched(
            service(),
            json!({"spec": {"ports": [{"port": 80, "name": "web"}, {"port": 82, "name": "c"}]}}),
        );
        let ports = merged["spec"]["ports"].as_array().unwrap();
        assert_eq!(ports.len(), 3);
        assert_eq!(ports[0], json!({"name": "web", "port": 80, "nodePort": 30000}));
        assert_eq!(
            (&ports[1]["port"], &ports[2]["port"]),
            (&json!(82), &json!(81)),
            "as the real server orders"
        );
    }

    #[test]
    fn delete_and_replace_directives_do_what_they_say() {
        let gone = patched(service(), json!({"spec": {"ports": [{"$patch": "delete", "port": 80}]}}));
        assert_eq!(gone["spec"]["ports"], json!([{"name": "b", "port": 81}]));
        let new = patched(service(), json!({"spec": {"ports": [{"port": 9}, {"$patch": "replace"}]}}));
        assert_eq!(new["spec"]["ports"], json!([{"port": 9}]));
        let selector = patched(service(), json!({"spec": {"selector": {"$patch": "replace", "z": "1"}}}));
        assert_eq!(selector["spec"]["selector"], json!({"z": "1"}));
    }

    #[test]
    fn the_element_order_of_the_patch_is_kept() {
        let patch = json!({"spec": {"$setElementOrder/ports": [{"port": 81}, {"port": 80}]}});
        let ports = patched(service(), patch)["spec"]["ports"].clone();
        assert_eq!((&ports[0]["port"], &ports[1]["port"]), (&json!(81), &json!(80)));
    }

    #[test]
    fn null_removes_and_scalars_replace() {
        let merged = patched(service(), json!({"spec": {"selector": null, "type": "NodePort"}}));
        assert_eq!(merged["spec"]["type"], "NodePort");
        assert!(merged["spec"].get("selector").is_none());
    }
}
