//! Services of local pools that keep policy Local: their addresses are where their endpoints are.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use e2e::{
    on_link::{nodes, on_the_wire, wait_announcer},
    service,
};
use lab::{DataCentre, Run};
use serde_json::json;

/// The ready endpoints of `my-app` are on this node.
fn put_endpoints(lab: &DataCentre<'_>, node: &str) {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "my-app-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "my-app" },
        },
        "addressType": "IPv4",
        "ports": [{ "port": 80, "protocol": "TCP" }],
        "endpoints": [{ "addresses": ["10.1.0.1"], "nodeName": node, "conditions": { "ready": true } }],
    });
    lab.cluster.kubectl().apply(&slice.to_string()).unwrap();
}

#[test]
fn with_allow_local_an_address_goes_from_node_to_node_with_the_endpoints_and_never_two_answer() {
    let run = Run::start().unwrap();
    let mut lab = nodes(&run, 3);
    put_endpoints(&lab, "node2");
    let annotations = json!({ "purelb.io/service-group": "onlink", "purelb.io/allow-local": "true" });
    let mut manifest = service("my-app", &annotations);
    manifest["spec"]["externalTrafficPolicy"] = json!("Local");
    lab.cluster.kubectl().apply(&manifest.to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    wait_announcer(&lab, addresses[0], "node2");
    on_the_wire(&mut lab, &addresses, |lab| {
        // Each node once: of one that had it a moment ago the wire cannot tell whether it ever gave it up.
        for node in ["node3", "node1"] {
            put_endpoints(lab, node);
            wait_announcer(lab, addresses[0], node);
            lab.wait_on_nodes(addresses[0], &[node]).unwrap();
        }
    });
}
