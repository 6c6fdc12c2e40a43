//! Watches: order, selection, resuming, initial events, errors.

use serde_json::{Value, json};

use crate::cluster::{Cluster, MERGE};

crate::checks![
    a_resumed_watch_gets_what_it_missed_in_order,
    entering_and_leaving_a_selection_are_added_and_deleted,
    a_watch_without_revision_begins_with_what_is_there,
    initial_events_end_with_their_bookmark,
    initial_events_need_the_right_options,
    a_watch_of_one_name_sees_only_it,
    a_table_watch_has_columns_once,
];

async fn config_map(c: &Cluster, name: &str, labels: Value) -> Value {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}});
    c.post(&c.core("configmaps"), &body).await.ok()
}

async fn revision(c: &Cluster) -> String {
    c.get(&c.core("configmaps")).await.ok()["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Three changes of one object, its label going v, z, v, and its deletion.
async fn changes(c: &Cluster) {
    config_map(c, "w", json!({"k": "v"})).await;
    let path = format!("{}/w", c.core("configmaps"));
    for value in ["z", "v"] {
        c.patch(&path, MERGE, &json!({"metadata": {"labels": {"k": value}}})).await.ok();
    }
    c.delete(&path).await.ok();
}

fn words(lines: &[Value]) -> Vec<String> {
    lines
        .iter()
        .map(|l| {
            format!(
                "{} {}",
                l["type"].as_str().unwrap(),
                l["object"]["metadata"]["labels"]["k"].as_str().unwrap_or_default()
            )
        })
        .collect()
}

async fn a_resumed_watch_gets_what_it_missed_in_order(c: Cluster) {
    let from = revision(&c).await;
    changes(&c).await;
    let lines =
        c.watch(&format!("{}?watch=1&timeoutSeconds=1&resourceVersion={from}", c.core("configmaps"))).await;
    assert_eq!(words(&lines), ["ADDED v", "MODIFIED z", "MODIFIED v", "DELETED v"]);
    let revisions: Vec<u64> = lines
        .iter()
        .map(|l| l["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(revisions.is_sorted() && revisions[0] > from.parse().unwrap());
    assert_eq!(
        (&lines[0]["object"]["kind"], &lines[0]["object"]["apiVersion"]),
        (&json!("ConfigMap"), &json!("v1"))
    );
}

async fn entering_and_leaving_a_selection_are_added_and_deleted(c: Cluster) {
    let from = revision(&c).await;
    changes(&c).await;
    let path = format!(
        "{}?watch=1&timeoutSeconds=1&resourceVersion={from}&labelSelector=k%3Dv",
        c.core("configmaps")
    );
    let lines = c.watch(&path).await;
    assert_eq!(words(&lines), ["ADDED v", "DELETED v", "ADDED v", "DELETED v"]);
}

async fn a_watch_without_revision_begins_with_what_is_there(c: Cluster) {
    config_map(&c, "a", json!({"k": "1"})).await;
    for query in ["", "&resourceVersion=0"] {
        let lines = c.watch(&format!("{}?watch=1&timeoutSeconds=1{query}", c.core("configmaps"))).await;
        assert_eq!(words(&lines), ["ADDED 1"], "{query}");
    }
}

async fn initial_events_end_with_their_bookmark(c: Cluster) {
    config_map(&c, "a", json!({"k": "1"})).await;
    let query = "watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let lines = c.watch(&format!("{}?{query}", c.core("configmaps"))).await;
    assert_eq!(words(&lines), ["ADDED 1", "BOOKMARK "]);
    assert_eq!(lines[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(lines[1]["object"]["kind"], "ConfigMap");
}

async fn initial_events_need_the_right_options(c: Cluster) {
    let maps = c.core("configmaps");
    let field = "resourceVersionMatch";
    let refused = async |query: &str, text: &str| {
        c.get(&format!("{maps}?watch=1&timeoutSeconds=1&{query}")).await.invalid(field, text);
    };
    refused(
        "sendInitialEvents=true",
        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    )
    .await;
    refused(
        "resourceVersionMatch=NotOlderThan&resourceVersion=1",
        "forbidden for watch unless sendInitialEvents is provided",
    )
    .await;
}

async fn a_watch_of_one_name_sees_only_it(c: Cluster) {
    let from = revision(&c).await;
    config_map(&c, "a", json!({"k": "1"})).await;
    config_map(&c, "b", json!({"k": "2"})).await;
    let path = format!(
        "{}?watch=1&timeoutSeconds=1&resourceVersion={from}&fieldSelector=metadata.name%3Db",
        c.core("configmaps")
    );
    assert_eq!(words(&c.watch(&path).await), ["ADDED 2"]);
}

async fn a_table_watch_has_columns_once(c: Cluster) {
    let from = revision(&c).await;
    changes(&c).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let path = format!("{}?watch=1&timeoutSeconds=1&resourceVersion={from}", c.core("configmaps"));
    let Value::String(lines) = c.get_as(&path, accept).await.body else {
        panic!("a watch has several lines")
    };
    let tables: Vec<Value> =
        lines.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["object"].clone()).collect();
    assert!(tables[0]["columnDefinitions"].is_array() && tables[1]["columnDefinitions"].is_null());
    assert_eq!(tables[1]["rows"][0]["cells"][0], "w");
}
