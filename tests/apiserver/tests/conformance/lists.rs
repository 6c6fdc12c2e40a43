//! Lists: selectors, paging, consistency, forms.

use serde_json::{Value, json};

use crate::cluster::{Cluster, MERGE};
use crate::services::service;

crate::checks![
    label_selectors_select,
    field_selectors_select_declared_fields_only,
    pages_show_one_revision_whatever_happens_meanwhile,
    an_exact_list_shows_the_past,
    bad_list_options_are_refused,
    a_future_revision_times_out,
    tables_have_the_columns_of_kubectl,
    metadata_only_lists_have_no_spec,
    items_of_typed_lists_come_without_their_type,
    deletecollection_deletes_what_is_selected,
    discovery_knows_the_kinds_that_we_use,
];

async fn config_map(c: &Cluster, name: &str, labels: Value) -> Value {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}});
    c.post(&c.core("configmaps"), &body).await.ok()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

async fn label_selectors_select(c: Cluster) {
    config_map(&c, "a", json!({"app": "web", "tier": "front"})).await;
    config_map(&c, "b", json!({"app": "db"})).await;
    config_map(&c, "c", json!({})).await;
    for (selector, wanted) in [
        ("app=web", vec!["a"]),
        ("app!=web", vec!["b", "c"]),
        ("app in (web,db)", vec!["a", "b"]),
        ("app notin (web)", vec!["b", "c"]),
        ("app", vec!["a", "b"]),
        ("!app", vec!["c"]),
        ("app=web,tier=back", vec![]),
    ] {
        let encoded = selector.replace(' ', "%20").replace('=', "%3D").replace('!', "%21");
        let list = c.get(&format!("{}?labelSelector={encoded}", c.core("configmaps"))).await.ok();
        assert_eq!(names(&list), wanted, "{selector}");
    }
    c.get(&format!("{}?labelSelector=a+b", c.core("configmaps"))).await.refused(400, "BadRequest");
}

async fn field_selectors_select_declared_fields_only(c: Cluster) {
    c.post(&c.core("services"), &service("a", json!({}))).await.ok();
    c.post(&c.core("services"), &service("b", json!({"type": "LoadBalancer"}))).await.ok();
    let services = c.core("services");
    assert_eq!(
        names(&c.get(&format!("{services}?fieldSelector=spec.type%3DLoadBalancer")).await.ok()),
        ["b"]
    );
    assert_eq!(names(&c.get(&format!("{services}?fieldSelector=metadata.name%21%3Db")).await.ok()), ["a"]);
    let status = c.get(&format!("{services}?fieldSelector=spec.foo%3Da")).await.refused(400, "BadRequest");
    assert_eq!(status["message"], "field label not supported: spec.foo");
}

async fn pages_show_one_revision_whatever_happens_meanwhile(c: Cluster) {
    for name in ["a", "b", "c", "d", "e"] {
        config_map(&c, name, json!({})).await;
    }
    let maps = c.core("configmaps");
    let mut page = c.get(&format!("{maps}?limit=2")).await.ok();
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    let revision = page["metadata"]["resourceVersion"].clone();
    c.delete(&format!("{maps}/c")).await.ok();
    config_map(&c, "f", json!({})).await;
    let mut all: Vec<String> = names(&page).into_iter().map(str::to_owned).collect();
    while let Some(token) = page["metadata"]["continue"].as_str().filter(|t| !t.is_empty()).map(str::to_owned)
    {
        page = c
            .get(&format!("{maps}?limit=2&continue={}", token.replace('=', "%3D").replace('+', "%2B")))
            .await
            .ok();
        assert_eq!(page["metadata"]["resourceVersion"], revision);
        all.extend(names(&page).into_iter().map(str::to_owned));
    }
    assert_eq!(all, ["a", "b", "c", "d", "e"]);
}

async fn an_exact_list_shows_the_past(c: Cluster) {
    config_map(&c, "a", json!({})).await;
    let maps = c.core("configmaps");
    let then = c.get(&maps).await.ok()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    config_map(&c, "b", json!({})).await;
    c.patch(&format!("{maps}/a"), MERGE, &json!({"data": {"k": "v"}})).await.ok();
    let past = c.get(&format!("{maps}?resourceVersion={then}&resourceVersionMatch=Exact")).await.ok();
    assert_eq!(names(&past), ["a"]);
    assert!(past["items"][0].get("data").is_none());
    let now = c.get(&format!("{maps}?resourceVersion={then}&resourceVersionMatch=NotOlderThan")).await.ok();
    assert_eq!(names(&now), ["a", "b"]);
}

async fn bad_list_options_are_refused(c: Cluster) {
    let maps = c.core("configmaps");
    let field = "resourceVersionMatch";
    c.get(&format!("{maps}?resourceVersionMatch=Exact"))
        .await
        .invalid(field, "forbidden unless resourceVersion is provided");
    c.get(&format!("{maps}?resourceVersionMatch=Exact&resourceVersion=0"))
        .await
        .invalid(field, "forbidden for resourceVersion \"0\"");
    c.get(&format!("{maps}?resourceVersion=abc")).await.refused(400, "BadRequest");
    c.get(&format!("{maps}?limit=1&continue=abc")).await.refused(400, "BadRequest");
}

async fn a_future_revision_times_out(c: Cluster) {
    let status =
        c.get(&format!("{}?resourceVersion=999999999", c.core("configmaps"))).await.refused(504, "Timeout");
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn tables_have_the_columns_of_kubectl(c: Cluster) {
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 53, "protocol": "UDP"}]);
    let body =
        service("a", json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports}));
    c.post(&c.core("services"), &body).await.ok();
    let columns = |table: &Value| -> Vec<String> {
        table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| format!("{}/{}", d["name"].as_str().unwrap(), d["priority"]))
            .collect()
    };
    let table = c.get_as(&c.core("services"), TABLE).await.ok();
    assert_eq!(
        columns(&table),
        ["Name/0", "Type/0", "Cluster-IP/0", "External-IP/0", "Port(s)/0", "Age/0", "Selector/1"]
    );
    let cells = &table["rows"][0]["cells"];
    assert_eq!(
        (&cells[1], &cells[3], &cells[4], &cells[6]),
        (&json!("LoadBalancer"), &json!("<pending>"), &json!("80/TCP,53/UDP"), &json!("app=a"))
    );
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let pending =
        json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]}}});
    c.patch(&format!("{}/a/status", c.core("services")), MERGE, &pending).await.ok();
    let table = c.get_as(&c.core("services"), TABLE).await.ok();
    assert_eq!(table["rows"][0]["cells"][3], "192.0.2.1,2001:db8::1");
    for (path, wanted) in [
        (
            "/api/v1/nodes",
            "Name Status Roles Age Version Internal-IP External-IP OS-Image Kernel-Version Container-Runtime",
        ),
        ("/api/v1/pods", "Name Ready Status Restarts Age IP Node Nominated_Node Readiness_Gates"),
        ("/api/v1/events", "Last_Seen Type Reason Object Subobject Source Message First_Seen Count Name"),
        ("/apis/discovery.k8s.io/v1/endpointslices", "Name AddressType Ports Endpoints Age"),
        ("/apis/coordination.k8s.io/v1/leases", "Name Holder Age"),
        (
            "/apis/apps/v1/daemonsets",
            "Name Desired Current Ready Up-to-date Available Node_Selector Age Containers Images Selector",
        ),
        ("/apis/apps/v1/deployments", "Name Ready Up-to-date Available Age Containers Images Selector"),
    ] {
        let table = c.get_as(path, TABLE).await.ok();
        let shown: Vec<String> = table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["name"].as_str().unwrap().replace(' ', "_"))
            .collect();
        assert_eq!(shown.join(" "), wanted, "{path}");
    }
}

async fn metadata_only_lists_have_no_spec(c: Cluster) {
    c.post(&c.core("services"), &service("a", json!({}))).await.ok();
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = c.get_as(&c.core("services"), accept).await.ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("spec").is_none() && list["items"][0]["metadata"]["name"] == "a");
}

async fn items_of_typed_lists_come_without_their_type(c: Cluster) {
    c.post(&c.core("services"), &service("a", json!({}))).await.ok();
    let list = c.get(&c.core("services")).await.ok();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ServiceList"), &json!("v1")));
    assert!(list["items"][0].get("kind").is_none());
}

async fn deletecollection_deletes_what_is_selected(c: Cluster) {
    config_map(&c, "a", json!({"x": "1"})).await;
    config_map(&c, "b", json!({"x": "2"})).await;
    let maps = c.core("configmaps");
    c.delete(&format!("{maps}?labelSelector=x%3D1")).await.ok();
    let left = c.get(&maps).await.ok();
    assert!(!names(&left).contains(&"a") && names(&left).contains(&"b"));
}

async fn discovery_knows_the_kinds_that_we_use(c: Cluster) {
    for (path, plural, kind, short) in [
        ("/api/v1", "services", "Service", "svc"),
        ("/api/v1", "nodes", "Node", "no"),
        ("/apis/apps/v1", "daemonsets", "DaemonSet", "ds"),
        ("/apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlice", ""),
        ("/apis/coordination.k8s.io/v1", "leases", "Lease", ""),
        ("/apis/events.k8s.io/v1", "events", "Event", "ev"),
        ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", "crd"),
    ] {
        let list = c.get(path).await.ok();
        let row = list["resources"].as_array().unwrap().iter().find(|r| r["name"] == plural).unwrap().clone();
        assert_eq!(row["kind"], kind);
        let shorts = row["shortNames"].as_array().cloned().unwrap_or_default();
        assert!(short.is_empty() || shorts.contains(&json!(short)), "{row}");
    }
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let list = c.get_as("/api", accept).await.ok();
    assert_eq!(list["kind"], "APIGroupDiscoveryList");
    let services = list["items"][0]["versions"][0]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["resource"] == "services")
        .unwrap()
        .clone();
    assert_eq!(
        (&services["scope"], &services["responseKind"]["kind"]),
        (&json!("Namespaced"), &json!("Service"))
    );
    c.get("/apis/apps/v9").await.refused(404, "NotFound");
    assert_eq!(c.get("/apis/nope.example.com/v1").await.status, 404);
}
