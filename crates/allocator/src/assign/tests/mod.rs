//! Every rule of what a Service owner sees, a row each.

mod multi;
mod namespaces;
mod policy;
mod requests;
mod strangers;

use api::names::annotation::{
    ALLOCATED_BY, ALLOCATED_FROM, ANNOUNCING_IPV4, POOL_TYPE, RE_EVALUATE, SERVICE_GROUP,
};

use super::*;
use crate::{
    engine::Engine,
    testing::{engine, groups, ips, merge, object, read, service},
};

/// Decides about a Service whose published addresses are in the books.
fn decide(engine: &mut Engine, service: &Service) -> Decision {
    decide_after(engine, service, Edge::default())
}

fn decide_after(engine: &mut Engine, service: &Service, edge: Edge) -> Decision {
    engine.sync(service);
    engine.decide(service, edge).decision
}

fn written(decision: Decision) -> Write {
    match decision {
        Decision::Write(write) => write,
        other => panic!("nothing is written: {other:?}"),
    }
}

fn refused(decision: Decision) -> Problem {
    match decision {
        Decision::Refuse(problem) => problem,
        other => panic!("not refused: {other:?}"),
    }
}

fn value<'a>(write: &'a Write, name: &str) -> Option<&'a str> {
    let (_, value) = write.annotations.iter().find(|(known, _)| *known == name)?;
    value.as_ref().map(Text::as_str)
}

fn is_removed(write: &Write, name: &str) -> bool {
    write.annotations.iter().any(|(known, value)| *known == name && value.is_none())
}

const DUAL: &str = "ipFamilies: [IPv4, IPv6]";

/// A Service that has been served: `ingress` from `group`.
fn held(name: &str, ingress: &str, group: &str, pool_type: &str, changes: &str) -> Service {
    let entries: Vec<String> = ips(ingress).iter().map(|ip| format!("{{ip: '{ip}'}}")).collect();
    let mut object = object(
        name,
        &format!(
            "{{metadata: {{annotations: {{purelb.io/allocated-by: PureLB, purelb.io/allocated-from: {group}, \
             purelb.io/pool-type: {pool_type}, purelb.io/service-group: {group}}}}}, \
             status: {{loadBalancer: {{ingress: [{}]}}}}}}",
            entries.join(", ")
        ),
    );
    let patch: serde_json::Value = serde_norway::from_str(changes).unwrap_or_default();
    if !patch.is_null() {
        merge(&mut object, patch);
    }
    read(&object).unwrap()
}

#[test]
fn a_new_service_gets_the_lowest_free_address_and_is_branded() {
    let write = written(decide(&mut engine(), &service("a", "")));
    assert_eq!(write.ingress, Some(ips("192.0.2.0")));
    assert_eq!(value(&write, ALLOCATED_BY), Some("PureLB"));
    assert_eq!(value(&write, ALLOCATED_FROM), Some("default"));
    assert_eq!(value(&write, POOL_TYPE), Some("remote"));
    assert_eq!(value(&write, SERVICE_GROUP), Some("default"));
    assert_eq!(write.notes, [Note::Assigned(ips("192.0.2.0"), "default".into())]);
    assert_eq!((write.cluster_policy, write.problem), (None, None));
}

#[test]
fn an_address_that_is_reserved_goes_to_nobody_else() {
    let mut engine = engine();
    for (name, address) in [("a", "192.0.2.0"), ("b", "192.0.2.1"), ("c", "192.0.2.2"), ("d", "192.0.2.3")] {
        assert_eq!(written(decide(&mut engine, &service(name, ""))).ingress, Some(ips(address)));
    }
    let problem = refused(decide(&mut engine, &service("e", "")));
    assert_eq!(problem.reason, "exhausted");
    assert_eq!(problem.wait, Some(Wait::Room("default".into(), api::IpFamily::IPv4)));
}

#[test]
fn families_and_policies_decide_how_many_addresses_in_which_order() {
    for (spec, expected) in [
        ("ipFamilies: [IPv6]", "fd00:1::"),
        ("ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack", "192.0.2.0 fd00:1::"),
        ("ipFamilies: [IPv6, IPv4], ipFamilyPolicy: RequireDualStack", "fd00:1:: 192.0.2.0"),
        ("ipFamilies: [IPv4], ipFamilyPolicy: PreferDualStack", "192.0.2.0"),
    ] {
        let result = decide(&mut engine(), &service("a", &format!("spec: {{{spec}}}")));
        assert_eq!(written(result).ingress, Some(ips(expected)), "{spec}");
    }
    // A group of one family.
    for (spec, expected) in [
        ("ipFamilies: [IPv6, IPv4], ipFamilyPolicy: PreferDualStack", Some("203.0.113.0")),
        ("ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack", None),
        ("ipFamilies: [IPv6]", None),
    ] {
        let text =
            format!("{{metadata: {{annotations: {{purelb.io/service-group: v4only}}}}, spec: {{{spec}}}}}");
        let decision = decide(&mut engine(), &service("a", &text));
        match expected {
            Some(expected) => assert_eq!(written(decision).ingress, Some(ips(expected)), "{spec}"),
            None => assert_eq!(refused(decision).reason, "no_pool", "{spec}"),
        }
    }
}

#[test]
fn require_dual_stack_takes_nothing_where_it_cannot_have_both() {
    let mut engine = engine();
    let text = "{metadata: {annotations: {purelb.io/service-group: v4only}}, \
                spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}}";
    refused(decide(&mut engine, &service("a", text)));
    assert!(engine.ledger().held_by(&service("a", "").key).is_empty());
}

#[test]
fn only_services_that_are_ours_are_touched() {
    for (spec, default_class, is_served) in [
        ("{}", true, true),
        ("{}", false, false),
        ("loadBalancerClass: purelb.io/purelb", true, true),
        ("loadBalancerClass: purelb.io/purelb", false, true),
        ("loadBalancerClass: example.com/other", true, false),
        ("type: ClusterIP", true, false),
        ("type: NodePort", true, false),
    ] {
        let object =
            serde_json::from_value(object("a", &format!("spec: {{{}}}", spec.trim_matches(['{', '}']))))
                .unwrap();
        let decision = match Service::from_object(&object, default_class) {
            Some(service) => decide(&mut engine(), &service),
            None => Decision::Leave,
        };
        match is_served {
            true => assert!(written(decision).ingress.is_some(), "{spec} {default_class}"),
            false => assert_eq!(decision, Decision::Leave, "{spec} {default_class}"),
        }
    }
}

#[test]
fn addresses_that_are_asked_for_are_given_in_the_order_of_the_families() {
    for (addresses, spec, expected) in [
        ("192.0.2.2", "ipFamilies: [IPv4]", "192.0.2.2"),
        (" 192.0.2.2 ", "ipFamilies: [IPv4]", "192.0.2.2"),
        ("fd00:1::5", "ipFamilies: [IPv6]", "fd00:1::5"),
        (
            "fd00:1::5 , 192.0.2.2",
            "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack",
            "192.0.2.2 fd00:1::5",
        ),
        (
            "192.0.2.2,fd00:1::5",
            "ipFamilies: [IPv6, IPv4], ipFamilyPolicy: RequireDualStack",
            "fd00:1::5 192.0.2.2",
        ),
        ("192.0.2.2", "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack", "192.0.2.2"),
        ("192.0.2.2,fd00:1::5", "ipFamilies: [IPv4], ipFamilyPolicy: PreferDualStack", "192.0.2.2"),
    ] {
        let text = format!(
            "{{metadata: {{annotations: {{purelb.io/addresses: '{addresses}'}}}}, spec: {{{spec}}}}}"
        );
        let write = written(decide(&mut engine(), &service("a", &text)));
        assert_eq!(write.ingress, Some(ips(expected)), "{addresses} {spec}");
        assert_eq!(value(&write, ALLOCATED_FROM), Some("default"));
    }
}

#[test]
fn load_balancer_ip_is_honoured_where_the_annotation_is_absent() {
    let write = written(decide(&mut engine(), &service("a", "spec: {loadBalancerIP: 203.0.113.2}")));
    assert_eq!(write.ingress, Some(ips("203.0.113.2")));
    assert_eq!(value(&write, ALLOCATED_FROM), Some("v4only"));
    let both =
        "{metadata: {annotations: {purelb.io/addresses: 192.0.2.1}}, spec: {loadBalancerIP: 203.0.113.2}}";
    assert_eq!(written(decide(&mut engine(), &service("a", both))).ingress, Some(ips("192.0.2.1")));
}

#[test]
fn bad_input_is_refused_with_what_is_wrong_and_what_would_do() {
    for (annotations, spec, reason, parts) in [
        ("purelb.io/addresses: banana", "{}", "bad_addresses", ["banana", "expected one address"]),
        (
            "purelb.io/addresses: '192.0.2.1,192.0.2.2'",
            "{}",
            "bad_addresses",
            ["one family", "an IPv4 and an IPv6"],
        ),
        ("purelb.io/addresses: '192.0.2.1,'", "{}", "bad_addresses", ["\"\"", "expected one address"]),
        ("purelb.io/addresses: 10.0.0.1", "{}", "address_outside", ["10.0.0.1", "192.0.2.0-192.0.2.3"]),
        (
            "{purelb.io/addresses: 192.0.2.1, purelb.io/service-group: v4only}",
            "{}",
            "address_outside",
            ["v4only", "203.0.113.0"],
        ),
        (
            "{purelb.io/addresses: '203.0.113.1,fd00:1::5'}",
            "{ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}",
            "address_groups",
            ["v4only and default", "both in one"],
        ),
        ("purelb.io/addresses: 'fd00:1::5'", "{}", "address_family", ["IPv6", "spec.ipFamilies"]),
        (
            "purelb.io/addresses: '192.0.2.1,fd00:1::5'",
            "{}",
            "address_family",
            ["fd00:1::5", "spec.ipFamilies"],
        ),
        (
            "purelb.io/addresses: 192.0.2.1",
            "{ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}",
            "address_family",
            ["RequireDualStack", "an IPv4 and an IPv6"],
        ),
        (
            "purelb.io/service-group: nope",
            "{}",
            "group_missing",
            ["no ServiceGroup nope", "default, onlink, v4only"],
        ),
    ] {
        let annotations = annotations.trim_matches(['{', '}']);
        let text = format!("{{metadata: {{annotations: {{{annotations}}}}}, spec: {spec}}}");
        let problem = refused(decide(&mut engine(), &service("a", &text)));
        assert_eq!(problem.reason, reason, "{annotations}: {}", problem.message);
        for part in parts {
            assert!(problem.message.contains(part), "{part:?} is not in {:?}", problem.message);
        }
    }
}

#[test]
fn an_address_in_use_is_refused_and_waited_for() {
    let mut engine = engine();
    decide(&mut engine, &service("a", ""));
    let problem = refused(decide(
        &mut engine,
        &service("b", "metadata: {annotations: {purelb.io/addresses: 192.0.2.0}}"),
    ));
    assert_eq!(
        (problem.reason, problem.wait),
        ("address_in_use", Some(Wait::Address(crate::testing::ip("192.0.2.0"))))
    );
    assert!(problem.message.contains("ns/a"), "{}", problem.message);
}

#[test]
fn a_refused_group_says_why() {
    let mut engine = Engine::default();
    engine.set_groups(groups(&[("default", "remote: {v4pool: {pool: banana, subnet: 192.0.2.0/24}}")]));
    let problem = refused(decide(&mut engine, &service("a", "")));
    assert_eq!(problem.reason, "group_refused");
    assert!(problem.message.contains("banana"), "{}", problem.message);
    assert_eq!(problem.wait, Some(Wait::Group("default".into())));
}

#[test]
fn a_service_that_has_what_it_should_is_not_written() {
    for (ingress, group, pool_type, spec) in [
        ("192.0.2.3", "default", "remote", ""),
        ("192.0.2.3 fd00:1::9", "default", "remote", DUAL),
        ("198.51.100.10", "onlink", "local", ""),
        // The pool was edited away, the group deleted, renamed, or changed from remote to local.
        ("10.9.9.9", "default", "remote", ""),
        ("10.9.9.9", "deleted", "remote", ""),
        ("192.0.2.3", "deleted", "remote", ""),
        ("192.0.2.3", "default", "local", ""),
        // PreferDualStack keeps the one address that it got, whatever the group could give by now.
        ("192.0.2.3", "default", "remote", "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack"),
    ] {
        let service = held("a", ingress, group, pool_type, &format!("spec: {{{spec}}}"));
        assert_eq!(decide(&mut engine(), &service), Decision::Keep, "{ingress} {group} {pool_type} {spec}");
    }
}

#[test]
fn annotations_that_were_lost_come_back_and_the_address_stays() {
    let lost = "metadata: {annotations: null}";
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", lost)));
    assert_eq!(write.ingress, None);
    assert_eq!(value(&write, ALLOCATED_FROM), Some("default"));
    assert_eq!(value(&write, SERVICE_GROUP), Some("default"));
    assert_eq!(write.notes, []);
}

#[test]
fn a_status_that_another_controller_wrote_is_never_touched() {
    for ingress in ["[{ip: 10.1.1.1}]", "[{hostname: lb.example.com}]", "[{ip: 192.0.2.1}, {ip: 10.1.1.1}]"] {
        let service = service("a", &format!("status: {{loadBalancer: {{ingress: {ingress}}}}}"));
        assert_eq!(refused(decide(&mut engine(), &service)).reason, "foreign_status", "{ingress}");
    }
    let other = service(
        "a",
        "{spec: {loadBalancerClass: example.com/other}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}",
    );
    let mut engine = engine();
    assert_eq!(decide(&mut engine, &other), Decision::Leave);
    // And what it publishes is given to nobody.
    let problem = refused(decide(
        &mut engine,
        &service("b", "metadata: {annotations: {purelb.io/addresses: 192.0.2.1}}"),
    ));
    assert_eq!(problem.reason, "address_in_use");
}

#[test]
fn a_service_that_ends_gives_everything_back() {
    for changes in ["spec: {type: ClusterIP}", "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}"] {
        let service = held("a", "192.0.2.3", "default", "remote", changes);
        let write = written(decide(&mut engine(), &service));
        assert_eq!(write.ingress, Some(vec![]), "{changes}");
        for name in [ALLOCATED_BY, ALLOCATED_FROM, POOL_TYPE, SERVICE_GROUP] {
            assert!(is_removed(&write, name), "{name} stays: {changes}");
        }
        assert_eq!(write.notes, [Note::Released(ips("192.0.2.3"))]);
    }
}

#[test]
fn the_owners_own_service_group_annotation_stays() {
    let changes = "{spec: {type: ClusterIP}, metadata: {managedFields: [\
                   {manager: kubectl, fieldsV1: {'f:metadata': {'f:annotations': {'f:purelb.io/service-group': {}}}}}]}}";
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", changes)));
    assert!(!is_removed(&write, SERVICE_GROUP) && is_removed(&write, ALLOCATED_BY));
}

#[test]
fn a_service_that_ended_without_our_brand_is_released_where_we_know_better() {
    let changes = "{spec: {type: ClusterIP}, metadata: {annotations: {purelb.io/allocated-from: null}}}";
    let service = held("a", "192.0.2.3", "default", "remote", changes);
    let edge = Edge { was_ours: true, ..Edge::default() };
    assert_eq!(written(decide_after(&mut engine(), &service, edge)).ingress, Some(vec![]));
}

#[test]
fn naming_another_group_moves_the_service_and_keeps_the_old_address_until_then() {
    let changes = "metadata: {annotations: {purelb.io/service-group: v4only}}";
    let service = held("a", "192.0.2.3", "default", "remote", changes);
    let mut engine = engine();
    let write = written(decide(&mut engine, &service));
    assert_eq!(write.ingress, Some(ips("203.0.113.0")));
    assert_eq!(value(&write, ALLOCATED_FROM), Some("v4only"));
    assert_eq!(
        write.notes,
        [Note::Assigned(ips("203.0.113.0"), "v4only".into()), Note::Released(ips("192.0.2.3")),]
    );
    // Until it is confirmed both are the Service's.
    assert_eq!(engine.ledger().held_by(&service.key), ips("192.0.2.3 203.0.113.0"));
}

#[test]
fn a_move_that_cannot_be_made_leaves_the_service_as_it_is() {
    for annotations in
        ["purelb.io/service-group: nope", "purelb.io/addresses: 10.0.0.1", "purelb.io/addresses: banana"]
    {
        let changes = format!("metadata: {{annotations: {{{annotations}}}}}");
        let mut engine = engine();
        let service = held("a", "192.0.2.3", "default", "remote", &changes);
        refused(decide(&mut engine, &service));
        assert_eq!(engine.ledger().held_by(&service.key), ips("192.0.2.3"), "{annotations}");
    }
}

#[test]
fn asking_for_another_address_moves_the_service() {
    let changes = "metadata: {annotations: {purelb.io/addresses: 203.0.113.3}}";
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", changes)));
    assert_eq!(write.ingress, Some(ips("203.0.113.3")));
    // The group annotation was ours and binds nobody.
    assert_eq!(value(&write, SERVICE_GROUP), Some("v4only"));
    let same = "metadata: {annotations: {purelb.io/addresses: 192.0.2.3}}";
    assert_eq!(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", same)), Decision::Keep);
}

#[test]
fn a_family_that_the_owner_drops_is_released_and_one_that_is_added_is_served() {
    let both = held("a", "192.0.2.3 fd00:1::9", "default", "remote", "");
    let write = written(decide(&mut engine(), &both));
    assert_eq!(write.ingress, Some(ips("192.0.2.3")));
    assert_eq!(write.notes, [Note::Released(ips("fd00:1::9"))]);

    let prefer = "spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}";
    let grown = held("a", "192.0.2.3", "default", "remote", prefer);
    let edge = Edge { families_grew: true, ..Edge::default() };
    assert_eq!(written(decide_after(&mut engine(), &grown, edge)).ingress, Some(ips("192.0.2.3 fd00:1::")));
    let require = "spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}";
    let half = held("a", "192.0.2.3", "default", "remote", require);
    assert_eq!(written(decide(&mut engine(), &half)).ingress, Some(ips("192.0.2.3 fd00:1::")));
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
    assert_eq!(problem.reason, "port_collision");
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
    assert_eq!(written(decide(&mut engine, &young)).ingress, Some(ips("192.0.2.1")));
}

#[test]
fn a_younger_service_leaves_even_where_there_is_no_room_for_it() {
    let mut engine = engine();
    for (name, address) in [("b", "192.0.2.1"), ("c", "192.0.2.2"), ("d", "192.0.2.3"), ("a", "192.0.2.0")] {
        engine.sync(&held(name, address, "default", "remote", ""));
    }
    let young = held("z", "192.0.2.0", "default", "remote", "");
    let write = written(decide(&mut engine, &young));
    assert_eq!(write.ingress, Some(vec![]));
    assert!(is_removed(&write, ALLOCATED_BY));
    assert_eq!(write.problem.unwrap().reason, "exhausted");
}

#[test]
fn re_evaluate_keeps_what_is_held_gains_what_is_missing_and_is_removed() {
    let changes = "{metadata: {annotations: {purelb.io/re-evaluate: 'true'}}, \
                   spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}}";
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", changes)));
    assert_eq!(write.ingress, Some(ips("192.0.2.3 fd00:1::")));
    assert!(is_removed(&write, RE_EVALUATE));
    let gone = "metadata: {annotations: {purelb.io/re-evaluate: 'true'}}";
    let write = written(decide(&mut engine(), &held("a", "10.9.9.9", "default", "remote", gone)));
    assert_eq!(write.ingress, None);
    assert!(
        matches!(&write.notes[..], [Note::Warning(text)] if text.contains("10.9.9.9")),
        "{:?}",
        write.notes
    );
}

#[test]
fn who_announced_a_local_address_is_forgotten_when_the_service_moves_to_a_remote_one() {
    let changes =
        "metadata: {annotations: {purelb.io/service-group: default, purelb.io/announcing-IPv4: 'n,eth0'}}";
    let write = written(decide(&mut engine(), &held("a", "198.51.100.10", "onlink", "local", changes)));
    assert!(is_removed(&write, ANNOUNCING_IPV4));
}

#[test]
fn the_owner_of_a_local_address_is_told_that_nothing_announces_it_yet() {
    let changes = "metadata: {annotations: {purelb.io/service-group: onlink}}";
    let write = written(decide(&mut engine(), &service("a", changes)));
    assert!(
        matches!(&write.notes[..], [Note::Warning(text), Note::Assigned(..)] if text.contains("onlink") && text.contains(UNANNOUNCED)),
        "{:?}",
        write.notes
    );
}
