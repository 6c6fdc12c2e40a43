//! `multiPool`, its annotation, and `balancePools`.

use super::*;
use crate::testing::live;

const SUBNETS: &str = "192.0.2.0/24 198.51.100.0/24 fd00:1::/64 fd00:2::/64";

/// `many`: local, `multiPool`, three IPv4 pools of two addresses and two IPv6 pools; `far`: remote, `multiPool`;
/// `even`: remote, `balancePools`; `plain`: local, neither.
fn engine_on(subnets: &str) -> Engine {
    let pools = |first: &str| {
        format!(
            "v4pools: [{{pool: {first}.2.10-{first}.2.11, subnet: {first}.2.0/24}}, \
             {{pool: {first}.3.10-{first}.3.11, subnet: {first}.3.0/24}}]"
        )
    };
    let many = "local: {multiPool: true, \
        v4pools: [{pool: 192.0.2.10-192.0.2.11, subnet: 192.0.2.0/24}, \
                  {pool: 198.51.100.10-198.51.100.11, subnet: 198.51.100.0/24}, \
                  {pool: 203.0.113.10-203.0.113.11, subnet: 203.0.113.0/24}], \
        v6pools: [{pool: 'fd00:1::10-fd00:1::11', subnet: 'fd00:1::/64'}, \
                  {pool: 'fd00:2::10-fd00:2::11', subnet: 'fd00:2::/64'}]}";
    let mut engine = Engine::default();
    engine.set_groups(groups(&[
        ("many", many),
        ("far", &format!("remote: {{multiPool: true, {}}}", pools("10.1"))),
        ("even", &format!("remote: {{balancePools: true, {}}}", pools("10.2"))),
        ("plain", &format!("local: {{{}}}", pools("10.3"))),
    ]));
    engine.set_live(live(subnets, ""));
    engine
}

fn of_group(name: &str, group: &str, spec: &str, annotations: &str) -> Service {
    let text = format!(
        "{{metadata: {{annotations: {{purelb.io/service-group: {group}{annotations}}}}}, spec: {{{spec}}}}}"
    );
    service(name, &text)
}

fn warning(write: &Write) -> Option<&str> {
    write.notes.iter().find_map(|note| match note {
        Note::Warning(text) => Some(text.as_str()),
        _ => None,
    })
}

const DUAL_PREFER: &str = "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack";
const DUAL_REQUIRE: &str = "ipFamilies: [IPv6, IPv4], ipFamilyPolicy: RequireDualStack";

#[test]
fn one_address_of_every_pool_by_family_then_by_the_groups_order() {
    for (group, spec, expected) in [
        ("many", "", "192.0.2.10 198.51.100.10"),
        ("many", "ipFamilies: [IPv6]", "fd00:1::10 fd00:2::10"),
        ("many", DUAL_PREFER, "192.0.2.10 198.51.100.10 fd00:1::10 fd00:2::10"),
        ("many", DUAL_REQUIRE, "fd00:1::10 fd00:2::10 192.0.2.10 198.51.100.10"),
        ("far", "", "10.1.2.10 10.1.3.10"),
        ("far", DUAL_PREFER, "10.1.2.10 10.1.3.10"),
    ] {
        let write = written(decide(&mut engine_on(SUBNETS), &of_group("a", group, spec, "")));
        assert_eq!(write.ingress, Some(ips(expected)), "{group} {spec}");
    }
}

#[test]
fn the_annotation_overrides_the_group() {
    for (group, value, expected) in [
        ("many", "'false'", "192.0.2.10"),
        ("many", "'true'", "192.0.2.10 198.51.100.10"),
        ("plain", "'true'", "10.3.2.10 10.3.3.10"),
        ("plain", "' true '", "10.3.2.10 10.3.3.10"),
        ("plain", "'false'", "10.3.2.10"),
        ("plain", "''", "10.3.2.10"),
        ("even", "'false'", "10.2.2.10"),
    ] {
        let mut engine = engine_on(&format!("{SUBNETS} 10.3.0.0/16"));
        let annotation = format!(", purelb.io/multi-pool: {value}");
        let write = written(decide(&mut engine, &of_group("a", group, "", &annotation)));
        assert_eq!(write.ingress, Some(ips(expected)), "{group} {value}");
    }
}

#[test]
fn all_pools_of_a_group_that_balances_them_are_refused_and_who_is_served_from_it_goes_on() {
    let mut engine = engine_on(SUBNETS);
    let problem = refused(decide(&mut engine, &of_group("a", "even", "", ", purelb.io/multi-pool: 'true'")));
    assert_eq!((problem.reason, problem.wait), ("bad_multi_pool", Some(Wait::Group("even".into()))));
    assert!(problem.message.contains("even are mutually exclusive: take"), "{}", problem.message);
}

#[test]
fn an_annotation_that_cannot_be_read_is_refused_and_takes_nothing_away() {
    for value in ["'yes'", "'1'", "'True'", "banana"] {
        let annotation = format!(", purelb.io/multi-pool: {value}");
        let problem = refused(decide(&mut engine_on(SUBNETS), &of_group("a", "many", "", &annotation)));
        assert_eq!((problem.reason, problem.wait), ("bad_multi_pool", None), "{value}");
        assert!(problem.message.contains("expected \"true\" or \"false\""), "{}", problem.message);
    }
    let mut engine = engine_on(SUBNETS);
    let changes = "metadata: {annotations: {purelb.io/multi-pool: 'yes'}}";
    let service = held("a", "192.0.2.10 198.51.100.10", "many", "local", changes);
    refused(decide(&mut engine, &service));
    assert_eq!(engine.ledger().held_by(&service.key).len(), 2);
}

#[test]
fn pools_that_are_exhausted_or_without_a_live_node_are_left_out_and_told() {
    let mut engine = engine_on(SUBNETS);
    engine.sync(&held("x", "198.51.100.10 198.51.100.11", "many", "local", ""));
    let write = written(decide(&mut engine, &of_group("a", "many", "", "")));
    assert_eq!(write.ingress, Some(ips("192.0.2.10")));
    let text = warning(&write).unwrap();
    for part in [
        "198.51.100.10-198.51.100.11 has no free address",
        "203.0.113.10-203.0.113.11 has no live node on its subnet 203.0.113.0/24",
        "purelb.io/re-evaluate",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(write.problem, None);
}

#[test]
fn at_least_one_address_is_needed_and_what_would_help_is_waited_for() {
    let wait = Some(Wait::Ranges("many".into(), api::IpFamily::IPv4));
    let problem = refused(decide(&mut engine_on("10.0.0.0/8"), &of_group("a", "many", "", "")));
    assert_eq!((problem.reason, &problem.wait), ("no_live_node", &wait));
    assert!(problem.message.contains("node agent"), "{}", problem.message);

    let mut engine = engine_on("192.0.2.0/24");
    engine.sync(&held("x", "192.0.2.10 192.0.2.11", "many", "local", ""));
    let problem = refused(decide(&mut engine, &of_group("a", "many", "", "")));
    assert_eq!((problem.reason, &problem.wait), ("exhausted", &wait));
    assert!(problem.message.contains("release an address"), "{}", problem.message);

    let problem = refused(decide(&mut engine_on(SUBNETS), &of_group("a", "far", "ipFamilies: [IPv6]", "")));
    assert_eq!(problem.reason, "no_pool");
}

#[test]
fn require_dual_stack_needs_one_address_of_each_family_or_takes_none() {
    let mut engine = engine_on("192.0.2.0/24 198.51.100.0/24");
    let service = of_group("a", "many", DUAL_REQUIRE, "");
    assert_eq!(refused(decide(&mut engine, &service)).reason, "no_live_node");
    assert!(engine.ledger().held_by(&service.key).is_empty());
    let write = written(decide(&mut engine, &of_group("a", "many", DUAL_PREFER, "")));
    assert_eq!(write.ingress, Some(ips("192.0.2.10 198.51.100.10")));
    assert!(warning(&write).unwrap().contains("fd00:1::/64"));
}

#[test]
fn a_service_neither_gains_nor_loses_because_nodes_or_groups_change() {
    let a = held("a", "192.0.2.10 203.0.113.10", "many", "local", "");
    for subnets in [SUBNETS, "", "203.0.113.0/24", "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24"] {
        assert_eq!(decide(&mut engine_on(subnets), &a), Decision::Keep, "{subnets}");
    }
    for spec in [
        "local: {v4pool: {pool: 192.0.2.10-192.0.2.11, subnet: 192.0.2.0/24}}",
        "local: {multiPool: true, v4pool: {pool: 10.0.0.1-10.0.0.9, subnet: 10.0.0.0/24}}",
        "local: {balancePools: true, v4pools: [{pool: 203.0.113.10-203.0.113.11, subnet: 203.0.113.0/24}]}",
    ] {
        let mut engine = Engine::default();
        engine.set_groups(groups(&[("many", spec)]));
        engine.set_live(live(SUBNETS, ""));
        assert_eq!(decide(&mut engine, &a), Decision::Keep, "{spec}");
    }
    let single = "metadata: {annotations: {purelb.io/multi-pool: 'false'}}";
    let a = held("a", "192.0.2.10 203.0.113.10", "many", "local", single);
    assert_eq!(decide(&mut engine_on(SUBNETS), &a), Decision::Keep);
}

#[test]
fn re_evaluate_gains_addresses_of_pools_that_have_become_available() {
    let ask = "metadata: {annotations: {purelb.io/re-evaluate: 'true'}}";
    for (ingress, subnets, expected) in [
        ("198.51.100.11", SUBNETS, Some("192.0.2.10 198.51.100.11")),
        ("203.0.113.11 192.0.2.11", SUBNETS, Some("192.0.2.11 198.51.100.10 203.0.113.11")),
        // What is in no pool any more stays, in front.
        ("10.9.9.9", SUBNETS, Some("10.9.9.9 192.0.2.10 198.51.100.10")),
        // Nothing to gain: not even the order changes.
        ("198.51.100.10 192.0.2.10", SUBNETS, None),
        ("203.0.113.10", "", None),
    ] {
        let write = written(decide(&mut engine_on(subnets), &held("a", ingress, "many", "local", ask)));
        assert_eq!(write.ingress, expected.map(ips), "{ingress} on {subnets}");
        assert!(is_removed(&write, RE_EVALUATE));
        assert!(write.notes.iter().all(|note| !matches!(note, Note::Released(..))), "{:?}", write.notes);
    }
    // What it still does not get it is told of, again.
    let write = written(decide(
        &mut engine_on(SUBNETS),
        &held("a", "192.0.2.10 198.51.100.10", "many", "local", ask),
    ));
    assert!(warning(&write).unwrap().contains("203.0.113.0/24"));
    let single = "metadata: {annotations: {purelb.io/re-evaluate: 'true', purelb.io/multi-pool: 'false'}}";
    let write = written(decide(&mut engine_on(SUBNETS), &held("a", "192.0.2.10", "many", "local", single)));
    assert_eq!(write.ingress, None);
}

#[test]
fn a_family_that_is_added_gets_an_address_of_each_of_its_pools() {
    let prefer = format!("spec: {{{DUAL_PREFER}}}");
    let edge = Edge { families_grew: true, ..Edge::default() };
    let grown = held("a", "192.0.2.10", "many", "local", &prefer);
    let write = written(decide_after(&mut engine_on(SUBNETS), &grown, edge));
    assert_eq!(write.ingress, Some(ips("192.0.2.10 fd00:1::10 fd00:2::10")));
}

#[test]
fn an_address_that_has_to_be_left_is_replaced_from_its_own_pool() {
    let mut engine = engine_on(SUBNETS);
    let old = "metadata: {creationTimestamp: '2026-01-01T00:00:00Z'}";
    let young = "metadata: {creationTimestamp: '2026-01-02T00:00:00Z'}";
    engine.sync(&held("old", "198.51.100.10", "many", "local", old));
    let young = held("young", "198.51.100.10 203.0.113.10", "many", "local", young);
    let write = written(decide(&mut engine, &young));
    assert_eq!(write.ingress, Some(ips("198.51.100.11 203.0.113.10")));
}

#[test]
fn sharers_share_in_every_pool_and_a_collision_refuses_all_of_it() {
    let mut engine = engine_on(SUBNETS);
    let key = ", purelb.io/allow-shared-ip: k";
    let with = |name: &str, port: u16| of_group(name, "many", &format!("ports: [{{port: {port}}}]"), key);
    let both = Some(ips("192.0.2.10 198.51.100.10"));
    assert_eq!(written(decide(&mut engine, &with("a", 1))).ingress, both);
    assert_eq!(written(decide(&mut engine, &with("b", 2))).ingress, both);
    let collides = with("c", 1);
    let problem = refused(decide(&mut engine, &collides));
    assert_eq!((problem.reason, problem.wait), ("port_conflict", Some(Wait::Key("ns".into(), "k".into()))));
    assert!(engine.ledger().held_by(&collides.key).is_empty());
}

#[test]
fn very_addresses_that_are_asked_for_are_all_that_is_given() {
    let mut engine = engine_on(SUBNETS);
    let asked = of_group("a", "many", "", ", purelb.io/addresses: 198.51.100.11");
    assert_eq!(written(decide(&mut engine, &asked)).ingress, Some(ips("198.51.100.11")));
}

#[test]
fn balanced_pools_give_from_the_one_with_the_fewest_in_use_and_of_equals_the_first() {
    let mut engine = engine_on("");
    let mut next = |name: &str| written(decide(&mut engine, &of_group(name, "even", "", ""))).ingress;
    for (name, address) in [("a", "10.2.2.10"), ("b", "10.2.3.10"), ("c", "10.2.2.11"), ("d", "10.2.3.11")] {
        assert_eq!(next(name), Some(ips(address)), "{name}");
    }
    let mut engine = engine_on("");
    engine.sync(&held("x", "10.2.2.10", "even", "remote", ""));
    engine.sync(&held("y", "10.2.3.10", "even", "remote", ""));
    engine.sync(&held("z", "10.2.3.11", "even", "remote", ""));
    // The pool behind it is full, and this one is used least.
    assert_eq!(written(decide(&mut engine, &of_group("a", "even", "", ""))).ingress, Some(ips("10.2.2.11")));
    assert_eq!(refused(decide(&mut engine, &of_group("b", "even", "", ""))).reason, "exhausted");
}

#[test]
fn fewest_in_use_is_a_count_whatever_the_size_of_the_pools() {
    let mut engine = Engine::default();
    let spec = "remote: {balancePools: true, v4pools: [{pool: 10.0.0.0/24, subnet: 10.0.0.0/24, aggregation: /32}, \
                {pool: 10.0.1.0/30, subnet: 10.0.1.0/24, aggregation: /32}]}";
    engine.set_groups(groups(&[("even", spec)]));
    engine.sync(&held("x", "10.0.0.0", "even", "remote", ""));
    engine.sync(&held("y", "10.0.0.1", "even", "remote", ""));
    engine.sync(&held("z", "10.0.1.0", "even", "remote", ""));
    assert_eq!(written(decide(&mut engine, &of_group("a", "even", "", ""))).ingress, Some(ips("10.0.1.1")));
    // Once the small one is full the other gives.
    for (name, address) in
        [("b", "10.0.0.2"), ("c", "10.0.1.2"), ("d", "10.0.0.3"), ("e", "10.0.1.3"), ("f", "10.0.0.4")]
    {
        assert_eq!(written(decide(&mut engine, &of_group(name, "even", "", ""))).ingress, Some(ips(address)));
    }
}

#[test]
fn a_group_that_sets_both_is_refused() {
    let groups = groups(&[(
        "g",
        "local: {multiPool: true, balancePools: true, v4pool: {pool: 192.0.2.0/28, subnet: 192.0.2.0/24}}",
    )]);
    let refusal = groups.refusal("g").unwrap();
    assert!(refusal.message.contains("mutually exclusive"), "{refusal}");
}
