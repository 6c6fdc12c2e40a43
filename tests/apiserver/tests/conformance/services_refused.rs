//! Services that are refused, with the field and the words of the refusal.

use serde_json::{Value, json};

use crate::cluster::{Cluster, MERGE};
use crate::services::service;

crate::checks![
    bad_services_are_refused_naming_the_field,
    immutable_fields_stay,
    bad_status_is_refused,
    a_taken_name_is_a_conflict,
    a_taken_address_and_port_are_refused,
    wrong_types_are_bad_requests,
    unknown_fields_are_dropped_with_a_warning_or_refused,
    what_only_the_server_sets_cannot_be_sent,
];

async fn bad_services_are_refused_naming_the_field(c: Cluster) {
    let cases = json!([
        ["spec.ports", "Required value", {"ports": []}],
        ["spec.type", "Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"", {"type": "Foo"}],
        ["spec.ports[0].port", "must be between 1 and 65535", {"ports": [{"port": 0}]}],
        ["spec.ports[0].name", "Required value", {"ports": [{"port": 1}, {"port": 2}]}],
        ["spec.ports[1]", "Duplicate value", {"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}],
        ["spec.ports[0].protocol", "supported values: \"SCTP\", \"TCP\", \"UDP\"", {"ports": [{"port": 1, "protocol": "X"}]}],
        ["spec.ports[0].targetPort", "must contain only alpha-numeric characters", {"ports": [{"port": 1, "targetPort": "A_"}]}],
        ["spec.ipFamilies[0]", "Unsupported value: \"IPv5\"", {"ipFamilies": ["IPv5"]}],
        ["spec.ipFamilies[1]", "Duplicate value: \"IPv4\"", {"ipFamilies": ["IPv4", "IPv4"]}],
        ["spec.ipFamilyPolicy", "supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"", {"ipFamilyPolicy": "X"}],
        ["spec.ipFamilyPolicy", "when multiple IP families are specified", {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}],
        ["spec.externalTrafficPolicy", "may only be set for externally-accessible services", {"externalTrafficPolicy": "Local"}],
        ["spec.externalTrafficPolicy", "supported values: \"Cluster\", \"Local\"", {"type": "LoadBalancer", "externalTrafficPolicy": "X"}],
        ["spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'", {"loadBalancerClass": "a/b"}],
        ["spec.loadBalancerClass", "name part must consist of", {"type": "LoadBalancer", "loadBalancerClass": "a b"}],
        ["spec.allocateLoadBalancerNodePorts", "may only be used when", {"allocateLoadBalancerNodePorts": false}],
        ["spec.ports[0].nodePort", "may not be used when `type` is 'ClusterIP'", {"ports": [{"port": 80, "nodePort": 30000}]}],
        ["spec.ports[0].nodePort", "The range of valid ports is 30000-32767", {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}],
        ["spec.externalIPs[0]", "must be a valid IP address", {"externalIPs": ["x"]}],
        ["spec.externalIPs[0]", "loopback range", {"externalIPs": ["127.0.0.1"]}],
        ["spec.clusterIPs[0]", "may not be set to 'None' for LoadBalancer services", {"type": "LoadBalancer", "clusterIP": "None"}],
        ["spec.clusterIPs", "failed to allocate IP 192.0.2.1", {"clusterIP": "192.0.2.1"}],
        ["spec.clusterIPs[0]", "must be a valid IP address", {"clusterIP": "x"}],
        ["spec.selector", "name part must consist of", {"selector": {"a b": "c"}}],
        ["spec.sessionAffinity", "supported values: \"ClientIP\", \"None\"", {"sessionAffinity": "X"}],
        ["spec.LoadBalancerSourceRanges[0]", "must be a valid CIDR value", {"type": "LoadBalancer", "loadBalancerSourceRanges": ["x"]}],
        ["spec.healthCheckNodePort", "may only be set when", {"type": "LoadBalancer", "healthCheckNodePort": 31999}],
        ["spec.externalName", "Required value", {"type": "ExternalName"}],
        ["spec.internalTrafficPolicy", "supported values: \"Cluster\", \"Local\"", {"internalTrafficPolicy": "X"}],
    ]);
    for case in cases.as_array().unwrap() {
        let answer = c.post(&c.core("services"), &service("bad", case[2].clone())).await;
        answer.invalid(case[0].as_str().unwrap(), case[1].as_str().unwrap());
    }
    c.post(&c.core("services"), &service("Bad_Name", json!({})))
        .await
        .invalid("metadata.name", "RFC 1123 label");
    let mut meta = service("meta", json!({}));
    meta["metadata"]["labels"] = json!({"a": "not valid"});
    c.post(&c.core("services"), &meta).await.invalid("metadata.labels", "a valid label must be");
}

async fn immutable_fields_stay(c: Cluster) {
    let path = format!("{}/a", c.core("services"));
    let spec = json!({"type": "LoadBalancer", "loadBalancerClass": "purelb.io/purelb"});
    c.post(&c.core("services"), &service("a", spec)).await.ok();
    let refused = async |patch: Value, field: &str, text: &str| {
        c.patch(&path, MERGE, &json!({"spec": patch})).await.invalid(field, text);
    };
    refused(json!({"loadBalancerClass": "x.io/y"}), "spec.loadBalancerClass", "may not change once set")
        .await;
    refused(json!({"loadBalancerClass": null}), "spec.loadBalancerClass", "may not change once set").await;
    refused(json!({"ipFamilies": ["IPv6"]}), "spec.clusterIPs[0]", "expected an IPv6 value").await;
    refused(json!({"clusterIP": "10.96.77.77"}), "spec.clusterIPs[0]", "may not change once set").await;
}

async fn bad_status_is_refused(c: Cluster) {
    c.post(&c.core("services"), &service("lb", json!({"type": "LoadBalancer"}))).await.ok();
    c.post(&c.core("services"), &service("plain", json!({}))).await.ok();
    let status = async |name: &str, ingress: Value| {
        let patch = json!({"status": {"loadBalancer": {"ingress": [ingress]}}});
        c.patch(&format!("{}/{name}/status", c.core("services")), MERGE, &patch).await
    };
    let path = "status.loadBalancer.ingress";
    status("lb", json!({"ip": "x"})).await.invalid(&format!("{path}[0].ip"), "must be a valid IP address");
    status("lb", json!({"ip": "192.0.2.1", "ipMode": "X"}))
        .await
        .invalid(&format!("{path}[0].ipMode"), "supported values: \"Proxy\", \"VIP\"");
    status("lb", json!({"hostname": "192.0.2.1"}))
        .await
        .invalid(&format!("{path}[0].hostname"), "must be a DNS name, not an IP address");
    status("plain", json!({"ip": "192.0.2.1"}))
        .await
        .invalid(path, "may only be used when `spec.type` is 'LoadBalancer'");
}

async fn a_taken_name_is_a_conflict(c: Cluster) {
    c.post(&c.core("services"), &service("a", json!({}))).await.ok();
    let status = c.post(&c.core("services"), &service("a", json!({}))).await.refused(409, "AlreadyExists");
    assert_eq!(status["message"], "services \"a\" already exists");
    assert_eq!(status["details"], json!({"name": "a", "kind": "services"}));
}

async fn a_taken_address_and_port_are_refused(c: Cluster) {
    let a = c.post(&c.core("services"), &service("a", json!({"type": "NodePort"}))).await.ok();
    let again = json!({"clusterIP": a["spec"]["clusterIP"]});
    c.post(&c.core("services"), &service("b", again))
        .await
        .invalid("spec.clusterIPs", "provided IP is already allocated");
    let ports = json!([{"port": 80, "nodePort": a["spec"]["ports"][0]["nodePort"]}]);
    let again = json!({"type": "NodePort", "ports": ports});
    c.post(&c.core("services"), &service("b", again))
        .await
        .invalid("spec.ports[0].nodePort", "provided port is already allocated");
}

async fn wrong_types_are_bad_requests(c: Cluster) {
    for spec in [
        json!({"ports": "x"}),
        json!({"type": 5}),
        json!({"ports": [{"port": "80"}]}),
        json!({"selector": {"a": 1}}),
    ] {
        let status = c.post(&c.core("services"), &service("a", spec)).await.refused(400, "BadRequest");
        let message = status["message"].as_str().unwrap();
        assert!(
            message.starts_with(
                "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal"
            ),
            "{message}"
        );
    }
}

async fn unknown_fields_are_dropped_with_a_warning_or_refused(c: Cluster) {
    let body = service("a", json!({"foo": 1}));
    let answer = c.post(&c.core("services"), &body).await;
    assert_eq!(answer.warnings, [r#"299 - "unknown field \"spec.foo\"""#]);
    assert!(answer.ok()["spec"].get("foo").is_none());
    let strict = format!("{}?fieldValidation=Strict", c.core("services"));
    let status = c.post(&strict, &service("b", json!({"foo": 1}))).await.refused(400, "BadRequest");
    assert!(
        status["message"].as_str().unwrap().ends_with("strict decoding error: unknown field \"spec.foo\"")
    );
}

async fn what_only_the_server_sets_cannot_be_sent(c: Cluster) {
    let mut body = service("a", json!({}));
    body["metadata"]["uid"] = json!("mine");
    body["metadata"]["creationTimestamp"] = json!("2000-01-01T00:00:00Z");
    body["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let s = c.post(&c.core("services"), &body).await.ok();
    assert_ne!(s["metadata"]["uid"], "mine");
    assert_ne!(s["metadata"]["creationTimestamp"], "2000-01-01T00:00:00Z");
    assert_eq!(s["status"], json!({"loadBalancer": {}}));
    let mut body = service("b", json!({}));
    body["metadata"]["namespace"] = json!("elsewhere");
    let status = c.post(&c.core("services"), &body).await.refused(400, "BadRequest");
    assert_eq!(
        status["message"],
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let nowhere = c
        .post("/api/v1/namespaces/nowhere/services", &service("a", json!({})))
        .await
        .refused(404, "NotFound");
    assert_eq!(nowhere["message"], "namespaces \"nowhere\" not found");
}
