//! A Service that has nothing yet: what it gets, and what it is told where it gets nothing.

use super::*;

#[test]
fn a_new_service_gets_the_lowest_free_address_and_is_branded() {
    let write = written(decide(&mut engine(), &service("a", "")));
    assert_eq!(write.ingress, Some(ips("192.0.2.0")));
    assert_eq!(value(&write, ALLOCATED_BY), Some("PureLB"));
    assert_eq!(value(&write, ALLOCATED_FROM), Some("default"));
    assert_eq!(value(&write, POOL_TYPE), Some("remote"));
    assert_eq!(value(&write, SERVICE_GROUP), Some("default"));
    assert_eq!(write.notes[..], [Note::Assigned(ips("192.0.2.0"), "default".into())]);
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
        ("loadBalancerClass: purelb.io/purelbv2", false, true),
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
fn a_service_without_a_class_gives_its_addresses_back_when_another_announcer_becomes_the_default() {
    let text = "{metadata: {annotations: {purelb.io/allocated-by: PureLB, purelb.io/allocated-from: default, \
                purelb.io/pool-type: remote}}, \
                status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}";
    let object = serde_json::from_value(object("a", text)).unwrap();
    let write = written(decide(&mut engine(), &Service::from_object(&object, false).unwrap()));
    assert_eq!(write.ingress, Some(ips("")));
    assert_eq!(value(&write, ALLOCATED_FROM), None);
    let kept = written(decide(&mut engine(), &Service::from_object(&object, true).unwrap()));
    assert_eq!(kept.ingress, None, "it stays where the default is ours");
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
            "unknown_pool",
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
    assert_eq!(problem.reason, "no_usable_pool");
    assert!(problem.message.contains("banana"), "{}", problem.message);
    assert_eq!(problem.wait, Some(Wait::Group("default".into())));
}

#[test]
fn with_prefer_dual_stack_either_family_wakes_who_has_neither() {
    const SMALL: &str = "remote: {v4pool: {pool: 192.0.2.1/32, subnet: 192.0.2.0/24}, \
                         v6pool: {pool: 'fd00:1::1/128', subnet: 'fd00:1::/64'}}";
    for (freed, expected) in [("fd00:1::1", "fd00:1::1"), ("192.0.2.1", "192.0.2.1")] {
        let mut engine = Engine::default();
        engine.set_groups(groups(&[("default", SMALL)]));
        for (name, address) in [("four", "192.0.2.1"), ("six", "fd00:1::1")] {
            engine.sync(&held(name, address, "default", "remote", &format!("spec: {{{DUAL}}}")));
        }
        let prefers = service(
            "b",
            &format!("spec: {{{DUAL}, ipFamilyPolicy: PreferDualStack, ports: [{{port: 81}}]}}"),
        );
        let problem = refused(decide(&mut engine, &prefers));
        assert!(problem.message.contains("IPv4") && problem.message.contains("IPv6"), "{}", problem.message);
        let gone = if freed.contains(':') { "six" } else { "four" };
        let woken = engine.forget(&service(gone, "").key);
        assert_eq!(woken, std::slice::from_ref(&prefers.key), "{freed}");
        assert_eq!(written(decide(&mut engine, &prefers)).ingress, Some(ips(expected)));
    }
}
