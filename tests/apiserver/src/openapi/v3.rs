//! The version 3 document of one group version: its schemas and, so that clients can find a resource's kind
//! and the parameters of PATCH, its paths.

use serde_json::{Map, Value, json};

use super::definitions::{name, of_version, reachable};
use super::{group_version_kind, root};
use crate::registry::{Resource, Table};

/// Builds it.
pub(super) fn document(table: &Table, group: &str, version: &str) -> Value {
    let resources: Vec<&Resource> = of_version(table, group, version).collect();
    let mut paths = Map::new();
    for resource in &resources {
        add_paths(&mut paths, resource);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": reachable(&resources)},
    })
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource) {
    let id = &resource.id;
    let root = root(&id.group, &id.version);
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{}", id.plural);
    if resource.namespaced {
        paths.insert(format!("{root}/{}", id.plural), json!({"get": operation(resource, "list", &[])}));
    }
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    paths.insert(
        collection.clone(),
        json!({
            "get": operation(resource, "list", &["labelSelector", "fieldSelector", "limit", "continue", "watch"]),
            "post": operation(resource, "post", &write),
            "delete": operation(resource, "deletecollection", &["dryRun", "labelSelector", "fieldSelector"]),
        }),
    );
    let object = json!({
        "get": operation(resource, "get", &[]),
        "put": operation(resource, "put", &write),
        "patch": operation(resource, "patch", &["dryRun", "fieldManager", "fieldValidation", "force"]),
        "delete": operation(resource, "delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
    });
    if resource.has_status {
        let mut status = object.clone();
        if let Some(operations) = status.as_object_mut() {
            operations.shift_remove("delete");
        }
        paths.insert(format!("{collection}/{{name}}/status"), status);
    }
    paths.insert(format!("{collection}/{{name}}"), object);
}

fn operation(resource: &Resource, action: &str, parameters: &[&str]) -> Value {
    let id = &resource.id;
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    let schema = json!({"$ref": format!("#/components/schemas/{}", name(resource))});
    let mut operation = json!({
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": group_version_kind(&id.group, &id.version, &resource.kind),
    });
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    operation
}
