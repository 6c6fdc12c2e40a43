//! Managed fields and server-side apply.

use serde_json::{Value, json};

use crate::cluster::{APPLY, Cluster, MERGE};
use crate::services::service;

crate::checks![
    writers_own_what_they_wrote_and_not_what_was_allocated,
    apply_creates_and_a_second_apply_changes_nothing,
    two_appliers_conflict_and_force_takes_over,
    what_is_no_longer_applied_goes_unless_others_own_it,
    status_has_owners_of_its_own,
    apply_needs_a_manager,
    the_list_of_owners_can_be_given_up,
];

fn owner<'v>(object: &'v Value, manager: &str, operation: &str) -> &'v Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let found = entries.iter().find(|e| e["manager"] == manager && e["operation"] == operation);
    &found.unwrap_or_else(|| panic!("no {operation} of {manager} in {entries:#?}"))["fieldsV1"]
}

async fn writers_own_what_they_wrote_and_not_what_was_allocated(c: Cluster) {
    let s = c.post(&c.core("services"), &service("a", json!({"type": "LoadBalancer"}))).await.ok();
    let wanted = json!({"f:spec": {
        "f:allocateLoadBalancerNodePorts": {}, "f:externalTrafficPolicy": {}, "f:internalTrafficPolicy": {},
        "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}},
        "f:selector": {}, "f:sessionAffinity": {}, "f:type": {},
    }});
    assert_eq!(*owner(&s, "conformance", "Update"), wanted);
}

async fn apply(c: &Cluster, manager: &str, spec: Value, force: bool) -> crate::cluster::Answer {
    let path = format!("{}/a?fieldManager={manager}&force={force}", c.core("services"));
    let body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec});
    c.patch(&path, APPLY, &body).await
}

async fn apply_creates_and_a_second_apply_changes_nothing(c: Cluster) {
    let spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    let first = apply(&c, "one", spec.clone(), false).await;
    assert_eq!(first.status, 201);
    let first = first.ok();
    let fields = json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:type": {}}});
    assert_eq!(*owner(&first, "one", "Apply"), fields);
    let second = apply(&c, "one", spec, false).await.ok();
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
}

async fn two_appliers_conflict_and_force_takes_over(c: Cluster) {
    apply(&c, "one", json!({"type": "LoadBalancer", "ports": [{"port": 80}]}), false).await.ok();
    let other = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let status = apply(&c, "two", other.clone(), false).await.refused(409, "Conflict");
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.type");
    let cause = json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.type"}]);
    assert_eq!(status["details"]["causes"], cause);
    let forced = apply(&c, "two", other, true).await.ok();
    assert_eq!(forced["spec"]["type"], "NodePort");
    assert!(owner(&forced, "one", "Apply")["f:spec"].get("f:type").is_none());
}

async fn what_is_no_longer_applied_goes_unless_others_own_it(c: Cluster) {
    apply(
        &c,
        "one",
        json!({"ports": [{"port": 80}], "selector": {"a": "b"}, "sessionAffinity": "ClientIP"}),
        false,
    )
    .await
    .ok();
    apply(&c, "two", json!({"ports": [{"port": 80}], "selector": {"a": "b"}}), false).await.ok();
    let s = apply(&c, "one", json!({"ports": [{"port": 80}]}), false).await.ok();
    assert_eq!(s["spec"]["selector"], json!({"a": "b"}), "two owns it still");
    assert_eq!(s["spec"]["sessionAffinity"], "None", "nobody owns it: the default is back");
}

async fn status_has_owners_of_its_own(c: Cluster) {
    c.post(&c.core("services"), &service("a", json!({"type": "LoadBalancer"}))).await.ok();
    let path = format!("{}/a/status", c.core("services"));
    let merge = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    let s = c.patch(&path, MERGE, &merge).await.ok();
    let entries = s["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|e| e["subresource"] == "status").unwrap();
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}}));
    let applied = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}});
    let status = c.patch(&format!("{path}?fieldManager=one"), APPLY, &applied).await.refused(409, "Conflict");
    let wanted = "Apply failed with 1 conflict: conflict with \"conformance\" with subresource \"status\" using v1: .status.loadBalancer.ingress";
    assert_eq!(status["message"], wanted);
}

async fn apply_needs_a_manager(c: Cluster) {
    let body = service("a", json!({}));
    c.patch(&format!("{}/a", c.core("services")), APPLY, &body)
        .await
        .invalid("fieldManager", "is required for apply patch");
}

async fn the_list_of_owners_can_be_given_up(c: Cluster) {
    let mut s = c.post(&c.core("services"), &service("a", json!({}))).await.ok();
    s["metadata"]["managedFields"] = json!([{}]);
    let s = c.put(&format!("{}/a", c.core("services")), &s).await.ok();
    assert!(s["metadata"].get("managedFields").is_none());
}
