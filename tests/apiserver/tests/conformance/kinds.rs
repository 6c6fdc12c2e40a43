//! The other built-in kinds.

use serde_json::{Value, json};

use crate::cluster::{Cluster, MERGE, STRATEGIC};

crate::checks![
    an_event_is_seen_through_both_of_its_apis,
    events_are_selected_by_what_they_are_about,
    leases_are_checked_and_need_a_revision_to_be_replaced,
    endpoint_slices_keep_their_address_type_and_count_generations,
    secrets_encode_and_check_their_type,
    config_maps_check_their_keys,
    a_pod_on_a_node_waits_for_its_kubelet,
    pods_keep_their_spec,
    workloads_get_defaults_and_generations,
    names_are_generated,
    nodes_keep_their_pod_cidrs,
];

async fn an_event_is_seen_through_both_of_its_apis(c: Cluster) {
    let body = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "regarding": {"kind": "Service", "name": "s", "namespace": c.namespace, "uid": "u"}, "reason": "R", "note": "text",
        "type": "Normal", "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "purelb.io/a",
        "reportingInstance": "i", "action": "A",
    });
    c.post(&c.group("events.k8s.io/v1", "events"), &body).await.ok();
    let core = c.get(&format!("{}/e", c.core("events"))).await.ok();
    assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("text"), &json!("s")));
    assert_eq!(core["reportingComponent"], "purelb.io/a");
    assert_eq!(core["apiVersion"], "v1");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}});
    let event = c.patch(&format!("{}/e", c.group("events.k8s.io/v1", "events")), MERGE, &series).await.ok();
    assert_eq!((&event["note"], &event["series"]["count"]), (&json!("text"), &json!(2)));
    let mut without = body.clone();
    without["metadata"]["name"] = json!("f");
    without.as_object_mut().unwrap().shift_remove("eventTime");
    c.post(&c.group("events.k8s.io/v1", "events"), &without).await.invalid("eventTime", "Required value");
}

async fn events_are_selected_by_what_they_are_about(c: Cluster) {
    for (name, about, uid) in [("e1", "a", "1"), ("e2", "b", "2")] {
        let body = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "reason": "R", "message": "m", "type": "Normal",
            "involvedObject": {"kind": "Service", "name": about, "namespace": c.namespace, "uid": uid},
        });
        c.post(&c.core("events"), &body).await.ok();
    }
    let selector = format!(
        "involvedObject.name%3Da,involvedObject.namespace%3D{},involvedObject.kind%3DService,involvedObject.uid%3D1",
        c.namespace
    );
    let list = c.get(&format!("{}?fieldSelector={selector}", c.core("events"))).await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["metadata"]["name"], "e1");
}

fn lease(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec})
}

async fn leases_are_checked_and_need_a_revision_to_be_replaced(c: Cluster) {
    let leases = c.group("coordination.k8s.io/v1", "leases");
    c.post(&leases, &lease("x", json!({"leaseDurationSeconds": 0})))
        .await
        .invalid("spec.leaseDurationSeconds", "must be greater than 0");
    c.post(&leases, &lease("x", json!({"leaseTransitions": -1})))
        .await
        .invalid("spec.leaseTransitions", "greater than or equal to 0");
    let first = c.put(&format!("{leases}/l"), &lease("l", json!({"holderIdentity": "a"}))).await;
    assert_eq!(first.status, 201);
    c.put(&format!("{leases}/l"), &lease("l", json!({"holderIdentity": "b"})))
        .await
        .invalid("metadata.resourceVersion", "must be specified for an update");
    let renew = json!({"spec": {"renewTime": "2026-01-01T00:00:10.123456Z"}});
    let renewed = c.patch(&format!("{leases}/l"), MERGE, &renew).await.ok();
    assert_eq!(renewed["spec"]["renewTime"], "2026-01-01T00:00:10.123456Z");
}

async fn endpoint_slices_keep_their_address_type_and_count_generations(c: Cluster) {
    let slices = c.group("discovery.k8s.io/v1", "endpointslices");
    let slice = |name: &str, rest: Value| {
        let mut body =
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": name}});
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        body
    };
    let s = c.post(&slices, &slice("a", json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}))).await.ok();
    assert_eq!(s["metadata"]["generation"], 1);
    assert_eq!(s["endpoints"][0]["conditions"], json!({}));
    assert_eq!(s["ports"], json!([{"name": "", "port": 80, "protocol": "TCP"}]));
    let s = c
        .patch(&format!("{slices}/a"), MERGE, &json!({"endpoints": [{"addresses": ["10.0.0.2"]}]}))
        .await
        .ok();
    assert_eq!(s["metadata"]["generation"], 2);
    c.patch(&format!("{slices}/a"), MERGE, &json!({"addressType": "IPv6"}))
        .await
        .invalid("addressType", "field is immutable");
    c.post(&slices, &slice("b", json!({"addressType": "Foo", "endpoints": []})))
        .await
        .invalid("addressType", "supported values: \"FQDN\", \"IPv4\", \"IPv6\"");
    let empty = json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]});
    c.post(&slices, &slice("b", empty))
        .await
        .invalid("endpoints[0].addresses", "must contain at least 1 address");
}

async fn secrets_encode_and_check_their_type(c: Cluster) {
    let secret = |name: &str, rest: Value| {
        let mut body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        body
    };
    let s =
        c.post(&c.core("secrets"), &secret("a", json!({"stringData": {"password": "secret"}}))).await.ok();
    assert_eq!((&s["type"], &s["data"]), (&json!("Opaque"), &json!({"password": "c2VjcmV0"})));
    let basic = secret("b", json!({"type": "kubernetes.io/basic-auth", "stringData": {"x": "y"}}));
    c.post(&c.core("secrets"), &basic).await.invalid("data[username]", "Required value");
    c.post(&c.core("secrets"), &secret("b", json!({"data": {"x": "%%"}}))).await.refused(400, "BadRequest");
    c.patch(&format!("{}/a", c.core("secrets")), MERGE, &json!({"type": "x/y"}))
        .await
        .invalid("type", "field is immutable");
}

async fn config_maps_check_their_keys(c: Cluster) {
    let body =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a b": "c"}});
    c.post(&c.core("configmaps"), &body).await.invalid("data[a b]", "a valid config key must consist of");
}

fn pod(name: &str, node: Option<&str>) -> Value {
    let mut body = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "busybox", "ports": [{"containerPort": 80}]}]},
    });
    if let Some(node) = node {
        body["spec"]["nodeName"] = json!(node);
    }
    body
}

async fn a_pod_on_a_node_waits_for_its_kubelet(c: Cluster) {
    c.post(&c.core("pods"), &pod("free", None)).await.ok();
    c.delete(&format!("{}/free", c.core("pods"))).await.ok();
    c.get(&format!("{}/free", c.core("pods"))).await.refused(404, "NotFound");
    c.post(&c.core("pods"), &pod("bound", Some("n"))).await.ok();
    let path = format!("{}/bound", c.core("pods"));
    let waiting = c.delete(&path).await.ok();
    assert_eq!(waiting["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(c.get(&path).await.ok()["metadata"]["deletionTimestamp"].is_string());
    c.delete(&format!("{path}?gracePeriodSeconds=0")).await.ok();
    c.get(&path).await.refused(404, "NotFound");
}

async fn pods_keep_their_spec(c: Cluster) {
    let p = c.post(&c.core("pods"), &pod("p", Some("n"))).await.ok();
    assert_eq!((&p["status"]["phase"], &p["status"]["qosClass"]), (&json!("Pending"), &json!("BestEffort")));
    assert_eq!(p["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(p["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
    let path = format!("{}/p", c.core("pods"));
    c.patch(&path, STRATEGIC, &json!({"spec": {"hostNetwork": true}}))
        .await
        .invalid("spec", "pod updates may not change fields other than");
    let ready = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"nodeName": "m"}});
    let p = c.patch(&format!("{path}/status"), STRATEGIC, &ready).await.ok();
    assert_eq!((&p["status"]["phase"], &p["spec"]["nodeName"]), (&json!("Running"), &json!("n")));
    c.delete(&format!("{path}?gracePeriodSeconds=0")).await.ok();
}

async fn workloads_get_defaults_and_generations(c: Cluster) {
    for (kind, plural) in
        [("Deployment", "deployments"), ("DaemonSet", "daemonsets"), ("ReplicaSet", "replicasets")]
    {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}});
        let mut body = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "w"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
        });
        let all = c.group("apps/v1", plural);
        let w = c.post(&all, &body).await.ok();
        assert_eq!(w["metadata"]["generation"], 1);
        assert_eq!(w["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert!(w["spec"]["template"]["spec"].get("initContainers").is_none());
        let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "x:2"}]}}}});
        assert_eq!(c.patch(&format!("{all}/w"), STRATEGIC, &image).await.ok()["metadata"]["generation"], 2);
        let status = json!({"status": {"observedGeneration": 2}});
        assert_eq!(
            c.patch(&format!("{all}/w/status"), MERGE, &status).await.ok()["metadata"]["generation"],
            2
        );
        body["metadata"]["name"] = json!("bad");
        body["spec"]["selector"]["matchLabels"]["a"] = json!("c");
        c.post(&all, &body)
            .await
            .invalid("spec.template.metadata.labels", "`selector` does not match template `labels`");
    }
}

async fn names_are_generated(c: Cluster) {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}});
    let made = c.post(&c.core("configmaps"), &body).await.ok();
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("made-") && name.len() == 10, "{name}");
}

async fn nodes_keep_their_pod_cidrs(c: Cluster) {
    let name = format!("node-{}", c.namespace);
    let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}});
    c.post("/api/v1/nodes", &body).await.ok();
    let path = format!("/api/v1/nodes/{name}");
    let other = json!({"spec": {"podCIDR": "10.2.0.0/24", "podCIDRs": ["10.2.0.0/24"]}});
    c.patch(&path, MERGE, &other).await.refused(422, "Invalid");
    let cordoned = c.patch(&path, MERGE, &json!({"spec": {"unschedulable": true}})).await.ok();
    assert_eq!(cordoned["spec"]["unschedulable"], true);
    c.delete(&path).await.ok();
}
