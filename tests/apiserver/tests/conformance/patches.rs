//! The patch languages and optimistic concurrency.

use serde_json::json;

use crate::cluster::{Cluster, JSON, MERGE, STRATEGIC};
use crate::services::service;

crate::checks![
    strategic_patches_merge_ports_by_port_and_put_new_ones_first,
    strategic_directives_delete_and_replace,
    strategic_patches_merge_node_addresses_by_type,
    json_patches_apply_or_are_refused_as_a_whole,
    an_old_resource_version_is_a_conflict,
    another_uid_is_refused,
    dry_runs_show_the_result_and_store_nothing,
    deletion_preconditions_are_checked,
    finalizers_hold_an_object_until_they_are_gone,
];

async fn strategic_patches_merge_ports_by_port_and_put_new_ones_first(c: Cluster) {
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    c.post(&c.core("services"), &service("a", json!({"ports": ports}))).await.ok();
    let patch = json!({"spec": {"ports": [{"port": 82, "name": "c"}, {"port": 80, "targetPort": 8080}]}});
    let s = c.patch(&format!("{}/a", c.core("services")), STRATEGIC, &patch).await.ok();
    let shown: Vec<String> = s["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| format!("{} {} {}", p["name"], p["port"], p["targetPort"]))
        .collect();
    assert_eq!(shown, ["\"c\" 82 82", "\"a\" 80 8080", "\"b\" 81 81"]);
}

async fn strategic_directives_delete_and_replace(c: Cluster) {
    let path = format!("{}/a", c.core("services"));
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    c.post(&c.core("services"), &service("a", json!({"ports": ports}))).await.ok();
    let s =
        c.patch(&path, STRATEGIC, &json!({"spec": {"ports": [{"$patch": "delete", "port": 80}]}})).await.ok();
    assert_eq!(s["spec"]["ports"].as_array().unwrap().len(), 1);
    let patch = json!({"spec": {"selector": {"$patch": "replace", "x": "y"}}});
    assert_eq!(c.patch(&path, STRATEGIC, &patch).await.ok()["spec"]["selector"], json!({"x": "y"}));
}

async fn strategic_patches_merge_node_addresses_by_type(c: Cluster) {
    let name = format!("node-{}", c.namespace);
    let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
    c.post("/api/v1/nodes", &body).await.ok();
    let patch = json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.2"}]}});
    let n = c.patch(&format!("/api/v1/nodes/{name}/status"), STRATEGIC, &patch).await.ok();
    let wanted = json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.2"}]);
    assert_eq!(n["status"]["addresses"], wanted);
    c.delete(&format!("/api/v1/nodes/{name}")).await.ok();
}

async fn json_patches_apply_or_are_refused_as_a_whole(c: Cluster) {
    let path = format!("{}/a", c.core("services"));
    c.post(&c.core("services"), &service("a", json!({}))).await.ok();
    let add = json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]);
    assert_eq!(c.patch(&path, JSON, &add).await.ok()["metadata"]["labels"], json!({"a": "b"}));
    let failing = json!([
        {"op": "replace", "path": "/metadata/labels/a", "value": "c"},
        {"op": "test", "path": "/metadata/labels/a", "value": "z"},
    ]);
    c.patch(&path, JSON, &failing).await.refused(422, "Invalid");
    c.patch(&path, JSON, &json!([{"op": "remove", "path": "/metadata/labels/nope"}]))
        .await
        .refused(422, "Invalid");
    c.patch(&path, JSON, &json!({"not": "a list"})).await.refused(400, "BadRequest");
    assert_eq!(c.get(&path).await.ok()["metadata"]["labels"], json!({"a": "b"}));
    c.patch(&path, "application/json", &json!({})).await.refused(415, "UnsupportedMediaType");
}

async fn an_old_resource_version_is_a_conflict(c: Cluster) {
    let path = format!("{}/a", c.core("services"));
    let first = c.post(&c.core("services"), &service("a", json!({}))).await.ok();
    c.patch(&path, MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    let status = c.put(&path, &first).await.refused(409, "Conflict");
    assert_eq!(
        status["message"],
        "Operation cannot be fulfilled on services \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let old =
        json!({"metadata": {"resourceVersion": first["metadata"]["resourceVersion"], "labels": {"a": "c"}}});
    c.patch(&path, MERGE, &old).await.refused(409, "Conflict");
}

async fn another_uid_is_refused(c: Cluster) {
    let path = format!("{}/a", c.core("services"));
    let mut a = c.post(&c.core("services"), &service("a", json!({}))).await.ok();
    a["metadata"]["uid"] = json!("other");
    c.put(&path, &a).await.refused(409, "Conflict");
    c.patch(&path, MERGE, &json!({"metadata": {"uid": "other"}}))
        .await
        .invalid("metadata.uid", "field is immutable");
}

async fn dry_runs_show_the_result_and_store_nothing(c: Cluster) {
    let dry = format!("{}?dryRun=All", c.core("services"));
    let s = c.post(&dry, &service("a", json!({"type": "NodePort"}))).await.ok();
    assert_eq!(s["spec"]["type"], "NodePort");
    c.get(&format!("{}/a", c.core("services"))).await.refused(404, "NotFound");
    c.post(&c.core("services"), &service("a", json!({}))).await.ok();
    let path = format!("{}/a?dryRun=All", c.core("services"));
    let patched = c.patch(&path, MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert_eq!(patched["metadata"]["labels"], json!({"a": "b"}));
    c.delete(&path).await.ok();
    assert!(c.get(&format!("{}/a", c.core("services"))).await.ok()["metadata"].get("labels").is_none());
}

async fn deletion_preconditions_are_checked(c: Cluster) {
    let path = format!("{}/a", c.core("configmaps"));
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let a = c.post(&c.core("configmaps"), &body).await.ok();
    c.delete_with(&path, &json!({"preconditions": {"uid": "other"}})).await.refused(409, "Conflict");
    c.delete_with(&path, &json!({"preconditions": {"resourceVersion": "1"}})).await.refused(409, "Conflict");
    let options = json!({"preconditions": {"uid": a["metadata"]["uid"], "resourceVersion": a["metadata"]["resourceVersion"]}});
    let status = c.delete_with(&path, &options).await.ok();
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps", "uid": a["metadata"]["uid"]}));
    c.delete(&format!("{path}?propagationPolicy=Foo"))
        .await
        .invalid("propagationPolicy", "Unsupported value: \"Foo\"");
}

async fn finalizers_hold_an_object_until_they_are_gone(c: Cluster) {
    let path = format!("{}/a", c.core("configmaps"));
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "finalizers": ["x.io/hold"]}});
    c.post(&c.core("configmaps"), &body).await.ok();
    let held = c.delete(&path).await.ok();
    assert_eq!(
        (&held["kind"], &held["metadata"]["deletionGracePeriodSeconds"]),
        (&json!("ConfigMap"), &json!(0))
    );
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["x.io/hold", "x.io/more"]}});
    c.patch(&path, MERGE, &more)
        .await
        .invalid("metadata.finalizers", "no new finalizers can be added if the object is being deleted");
    c.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}})).await.ok();
    c.get(&path).await.refused(404, "NotFound");
}
