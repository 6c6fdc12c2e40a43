//! Several Services on one address: who may be there, who has to leave, and the traffic policy that goes with it.

use super::*;

fn is_told_of(write: &Write, what: &str) -> bool {
    write.notes.iter().any(|note| matches!(note, Note::Warning(text) if text.starts_with(what)))
}

#[test]
fn policy_local_is_reset_for_local_pools_and_shared_addresses_only() {
    for (group, annotations, is_reset) in [
        ("default", "", false),
        ("onlink", "", true),
        ("onlink", "purelb.io/allow-local: 'true'", false),
        ("onlink", "purelb.io/allow-local: 'yes'", true),
        ("default", "purelb.io/allow-shared-ip: k", true),
        ("onlink", "{purelb.io/allow-shared-ip: k, purelb.io/allow-local: 'true'}", true),
    ] {
        let annotations = annotations.trim_matches(['{', '}']);
        let comma = if annotations.is_empty() { "" } else { ", " };
        let text = format!(
            "{{metadata: {{annotations: {{purelb.io/service-group: {group}{comma}{annotations}}}}}, \
             spec: {{externalTrafficPolicy: Local}}}}"
        );
        let write = written(decide(&mut engine(), &service("a", &text)));
        assert_eq!(write.cluster_policy.is_some(), is_reset, "{group} {annotations}");
    }
    let local = held("a", "198.51.100.10", "onlink", "local", "spec: {externalTrafficPolicy: Local}");
    let write = written(decide(&mut engine(), &local));
    assert!(write.cluster_policy.is_some() && write.ingress.is_none() && write.annotations.is_empty());
}

#[test]
fn services_with_one_key_share_an_address_unless_a_port_collides() {
    let with = |name: &str, ports: &str, more: &str| {
        service(
            name,
            &format!(
                "{{metadata: {{annotations: {{purelb.io/allow-shared-ip: k}}{more}}}, spec: {{ports: {ports}}}}}"
            ),
        )
    };
    let mut engine = engine();
    let address = Some(ips("192.0.2.0"));
    assert_eq!(written(decide(&mut engine, &with("a", "[{port: 53, protocol: TCP}]", ""))).ingress, address);
    assert_eq!(written(decide(&mut engine, &with("b", "[{port: 53, protocol: UDP}]", ""))).ingress, address);
    let problem = refused(decide(&mut engine, &with("c", "[{port: 53, protocol: UDP}]", "")));
    assert_eq!(problem.reason, "port_conflict");
    assert!(problem.message.contains("UDP 53") && problem.message.contains("ns/b"), "{}", problem.message);
    // Another namespace does not share.
    let elsewhere = with("d", "[{port: 80}]", ", namespace: other");
    assert_eq!(written(decide(&mut engine, &elsewhere)).ingress, Some(ips("192.0.2.1")));
    // Without a key one does not share either, even when asking for the address.
    let asking = service(
        "e",
        "{metadata: {annotations: {purelb.io/addresses: 192.0.2.0}}, spec: {ports: [{port: 99}]}}",
    );
    assert_eq!(refused(decide(&mut engine, &asking)).reason, "address_in_use");
}

#[test]
fn a_service_whose_key_is_removed_keeps_its_address_but_admits_nobody() {
    let key = "purelb.io/allow-shared-ip: k";
    let a = held("a", "192.0.2.0", "default", "remote", "spec: {ports: [{port: 1}]}");
    let b = held(
        "b",
        "192.0.2.0",
        "default",
        "remote",
        &format!("{{metadata: {{annotations: {{{key}}}}}, spec: {{ports: [{{port: 2}}]}}}}"),
    );
    let mut engine = engine();
    engine.sync(&a);
    engine.sync(&b);
    assert_eq!(decide(&mut engine, &a), Decision::Keep);
    assert_eq!(decide(&mut engine, &b), Decision::Keep);
    let c =
        service("c", &format!("{{metadata: {{annotations: {{{key}}}}}, spec: {{ports: [{{port: 3}}]}}}}"));
    assert_eq!(refused(decide(&mut engine, &c)).reason, "address_in_use");
}

#[test]
fn of_two_services_on_one_address_the_younger_moves() {
    let old = held(
        "old",
        "192.0.2.0",
        "default",
        "remote",
        "metadata: {creationTimestamp: '2026-01-01T00:00:00Z'}",
    );
    let young = held(
        "young",
        "192.0.2.0",
        "default",
        "remote",
        "metadata: {creationTimestamp: '2026-01-02T00:00:00Z'}",
    );
    let mut engine = engine();
    engine.sync(&young);
    engine.sync(&old);
    assert_eq!(decide(&mut engine, &old), Decision::Keep);
    let write = written(decide(&mut engine, &young));
    assert_eq!(write.ingress, Some(ips("192.0.2.1")));
    assert!(is_told_of(&write, "192.0.2.0 is left to ns/old"), "{:?}", write.notes);
}

#[test]
fn a_younger_service_leaves_even_where_there_is_no_room_for_it() {
    let mut engine = engine();
    for (name, address) in [("b", "192.0.2.1"), ("c", "192.0.2.2"), ("d", "192.0.2.3"), ("a", "192.0.2.0")] {
        engine.sync(&held(name, address, "default", "remote", ""));
    }
    let young = held("z", "192.0.2.0", "default", "remote", "");
    let write = written(decide(&mut engine, &young));
    assert_eq!(write.ingress, Some(ips("")));
    assert!(is_removed(&write, ALLOCATED_BY));
    assert!(is_told_of(&write, "192.0.2.0 is left to ns/a"), "{:?}", write.notes);
    assert_eq!(write.problem.unwrap().reason, "exhausted");
}
