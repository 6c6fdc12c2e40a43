//! Services: defaulting, families, allocation, transitions, status.

use serde_json::{Value, json};

use crate::cluster::{Cluster, MERGE};

crate::checks![
    a_plain_service_gets_the_static_defaults_and_one_address,
    a_load_balancer_gets_node_ports_and_cluster_policy,
    node_ports_are_left_out_on_request,
    tcp_and_udp_on_one_port_share_a_node_port,
    prefer_dual_stack_gets_both_families_in_the_cluster_order,
    families_keep_the_order_their_owner_wrote,
    a_single_family_is_kept,
    a_headless_service_without_selector_is_dual_stack,
    an_external_name_has_no_addresses,
    local_policy_takes_a_health_check_port_and_gives_it_back,
    client_ip_affinity_lasts_three_hours,
    one_status_patch_carries_annotations_and_ignores_spec,
    status_ingress_gets_the_vip_mode,
    leaving_load_balancer_clears_its_fields_and_status,
    going_external_name_releases_the_address,
    downgrading_to_single_stack_drops_the_second_family,
    upgrading_keeps_the_first_address,
    an_update_that_leaves_out_allocated_values_keeps_them,
    a_write_without_change_leaves_the_resource_version,
    put_creates_a_service_that_is_not_there,
    a_released_address_can_be_asked_for_again,
];

pub(crate) fn service(name: &str, spec: Value) -> Value {
    let mut whole = json!({"selector": {"app": "a"}, "ports": [{"port": 80}]});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole})
}

async fn created(c: &Cluster, name: &str, spec: Value) -> Value {
    c.post(&c.core("services"), &service(name, spec)).await.ok()
}

async fn patched(c: &Cluster, name: &str, patch: Value) -> Value {
    c.patch(&format!("{}/{name}", c.core("services")), MERGE, &patch).await.ok()
}

async fn a_plain_service_gets_the_static_defaults_and_one_address(c: Cluster) {
    let s = created(&c, "a", json!({})).await;
    let spec = &s["spec"];
    assert_eq!(spec["type"], "ClusterIP");
    assert_eq!(spec["sessionAffinity"], "None");
    assert_eq!(spec["internalTrafficPolicy"], "Cluster");
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    assert_eq!(spec["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    assert!(
        spec.get("externalTrafficPolicy").is_none() && spec.get("allocateLoadBalancerNodePorts").is_none()
    );
    assert_eq!(s["status"], json!({"loadBalancer": {}}));
    assert!(s["metadata"].get("generation").is_none());
}

async fn a_load_balancer_gets_node_ports_and_cluster_policy(c: Cluster) {
    let s = created(&c, "a", json!({"type": "LoadBalancer"})).await;
    assert_eq!(s["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(s["spec"]["allocateLoadBalancerNodePorts"], true);
    assert!((30000..32768).contains(&s["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
    assert!(s["spec"].get("healthCheckNodePort").is_none());
}

async fn node_ports_are_left_out_on_request(c: Cluster) {
    let spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "loadBalancerClass": "purelb.io/purelb"});
    let s = created(&c, "a", spec).await;
    assert!(s["spec"]["ports"][0].get("nodePort").is_none());
    assert_eq!(s["spec"]["loadBalancerClass"], "purelb.io/purelb");
}

async fn tcp_and_udp_on_one_port_share_a_node_port(c: Cluster) {
    let ports = json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]);
    let s = created(&c, "a", json!({"type": "NodePort", "ports": ports})).await;
    assert_eq!(s["spec"]["ports"][0]["nodePort"], s["spec"]["ports"][1]["nodePort"]);
}

async fn prefer_dual_stack_gets_both_families_in_the_cluster_order(c: Cluster) {
    let s = created(&c, "a", json!({"ipFamilyPolicy": "PreferDualStack"})).await;
    assert_eq!(s["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let ips = s["spec"]["clusterIPs"].as_array().unwrap();
    assert!(
        ips[0].as_str().unwrap().starts_with("10.96.") && ips[1].as_str().unwrap().starts_with("fd00:10:96:")
    );
}

async fn families_keep_the_order_their_owner_wrote(c: Cluster) {
    let s =
        created(&c, "a", json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]})).await;
    assert_eq!(s["spec"]["ipFamilies"], json!(["IPv6", "IPv4"]));
    assert!(s["spec"]["clusterIP"].as_str().unwrap().contains(':'));
}

async fn a_single_family_is_kept(c: Cluster) {
    let s = created(&c, "a", json!({"ipFamilies": ["IPv6"]})).await;
    assert_eq!(
        (&s["spec"]["ipFamilies"], &s["spec"]["ipFamilyPolicy"]),
        (&json!(["IPv6"]), &json!("SingleStack"))
    );
}

async fn a_headless_service_without_selector_is_dual_stack(c: Cluster) {
    let s = created(&c, "a", json!({"clusterIP": "None", "selector": null})).await;
    assert_eq!(s["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(s["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(s["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
}

async fn an_external_name_has_no_addresses(c: Cluster) {
    let s = created(&c, "a", json!({"type": "ExternalName", "externalName": "example.com"})).await;
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
        assert!(s["spec"].get(field).is_none(), "{field}");
    }
}

async fn local_policy_takes_a_health_check_port_and_gives_it_back(c: Cluster) {
    let s = created(&c, "a", json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"})).await;
    assert!(s["spec"]["healthCheckNodePort"].as_i64().unwrap() >= 30000);
    let s = patched(&c, "a", json!({"spec": {"externalTrafficPolicy": "Cluster"}})).await;
    assert!(s["spec"].get("healthCheckNodePort").is_none());
}

async fn client_ip_affinity_lasts_three_hours(c: Cluster) {
    let s = created(&c, "a", json!({"sessionAffinity": "ClientIP"})).await;
    assert_eq!(s["spec"]["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
}

async fn one_status_patch_carries_annotations_and_ignores_spec(c: Cluster) {
    created(&c, "a", json!({"type": "LoadBalancer"})).await;
    let patch = json!({
        "metadata": {"annotations": {"purelb.io/allocated-by": "PureLB"}},
        "spec": {"externalTrafficPolicy": "Local"},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    });
    let s = c.patch(&format!("{}/a/status", c.core("services")), MERGE, &patch).await.ok();
    assert_eq!(s["metadata"]["annotations"]["purelb.io/allocated-by"], "PureLB");
    assert_eq!(s["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(s["status"]["loadBalancer"]["ingress"][0]["ip"], "192.0.2.1");
}

async fn status_ingress_gets_the_vip_mode(c: Cluster) {
    created(&c, "a", json!({"type": "LoadBalancer"})).await;
    let ingress = json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}]);
    let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    let s = c.patch(&format!("{}/a/status", c.core("services")), MERGE, &patch).await.ok();
    let wanted = json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "lb.example.com"}]);
    assert_eq!(s["status"]["loadBalancer"]["ingress"], wanted);
}

async fn leaving_load_balancer_clears_its_fields_and_status(c: Cluster) {
    created(&c, "a", json!({"type": "LoadBalancer", "loadBalancerClass": "purelb.io/purelb"})).await;
    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    c.patch(&format!("{}/a/status", c.core("services")), MERGE, &patch).await.ok();
    let s = patched(&c, "a", json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(s["status"]["loadBalancer"], json!({}));
    for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts", "externalTrafficPolicy"] {
        assert!(s["spec"].get(field).is_none(), "{field}");
    }
    assert!(s["spec"]["ports"][0].get("nodePort").is_none());
}

async fn going_external_name_releases_the_address(c: Cluster) {
    let before = created(&c, "a", json!({})).await;
    let s = patched(&c, "a", json!({"spec": {"type": "ExternalName", "externalName": "a.b"}})).await;
    assert!(s["spec"].get("clusterIP").is_none() && s["spec"].get("ipFamilies").is_none());
    let ip = before["spec"]["clusterIP"].clone();
    let other = created(&c, "b", json!({"clusterIP": ip})).await;
    assert_eq!(other["spec"]["clusterIP"], ip);
}

async fn downgrading_to_single_stack_drops_the_second_family(c: Cluster) {
    created(&c, "a", json!({"ipFamilyPolicy": "PreferDualStack"})).await;
    let s = patched(&c, "a", json!({"spec": {"ipFamilyPolicy": "SingleStack"}})).await;
    assert_eq!(s["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(s["spec"]["clusterIPs"].as_array().unwrap().len(), 1);
}

async fn upgrading_keeps_the_first_address(c: Cluster) {
    let before = created(&c, "a", json!({})).await;
    let s = patched(&c, "a", json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}})).await;
    assert_eq!(s["spec"]["clusterIP"], before["spec"]["clusterIP"]);
    assert_eq!(s["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
}

async fn an_update_that_leaves_out_allocated_values_keeps_them(c: Cluster) {
    let before = created(&c, "a", json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"})).await;
    let body = service("a", json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}));
    let after = c.put(&format!("{}/a", c.core("services")), &body).await.ok();
    assert_eq!(after["spec"], before["spec"]);
}

async fn a_write_without_change_leaves_the_resource_version(c: Cluster) {
    let before = created(&c, "a", json!({"type": "LoadBalancer"})).await;
    let after = patched(&c, "a", json!({"spec": {"externalTrafficPolicy": "Cluster"}})).await;
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

async fn put_creates_a_service_that_is_not_there(c: Cluster) {
    let answer = c.put(&format!("{}/a", c.core("services")), &service("a", json!({}))).await;
    assert_eq!(answer.status, 201);
}

async fn a_released_address_can_be_asked_for_again(c: Cluster) {
    let before = created(&c, "a", json!({})).await;
    c.delete(&format!("{}/a", c.core("services"))).await.ok();
    let again = created(&c, "b", json!({"clusterIP": before["spec"]["clusterIP"]})).await;
    assert_eq!(again["spec"]["clusterIP"], before["spec"]["clusterIP"]);
}
