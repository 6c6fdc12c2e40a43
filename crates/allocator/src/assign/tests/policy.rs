//! `ipFamilyPolicy` and `ipFamilies` of a live Service, `externalTrafficPolicy`, ports and sharing: what an edit
//! changes and what it leaves.

use super::*;

const SHARED: &str = "purelb.io/allow-shared-ip: k";

fn shared(name: &str, ingress: &str, port: u16, key: &str) -> Service {
    let changes = format!("{{metadata: {{annotations: {{{key}}}}}, spec: {{ports: [{{port: {port}}}]}}}}");
    held(name, ingress, "default", "remote", &changes)
}

#[test]
fn addresses_that_can_stay_stay_through_every_change_of_families() {
    let both = "192.0.2.3 fd00:1::9";
    for (ingress, spec, grew, expected) in [
        // From one family to two, in both orders, and back.
        (
            "192.0.2.3",
            "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack",
            true,
            "192.0.2.3 fd00:1::",
        ),
        (
            "192.0.2.3",
            "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack",
            true,
            "192.0.2.3 fd00:1::",
        ),
        (
            "192.0.2.3",
            "ipFamilies: [IPv6, IPv4], ipFamilyPolicy: RequireDualStack",
            true,
            "fd00:1:: 192.0.2.3",
        ),
        (
            "fd00:1::9",
            "ipFamilies: [IPv6, IPv4], ipFamilyPolicy: PreferDualStack",
            true,
            "fd00:1::9 192.0.2.0",
        ),
        (both, "ipFamilies: [IPv4], ipFamilyPolicy: SingleStack", false, "192.0.2.3"),
        (both, "ipFamilies: [IPv6], ipFamilyPolicy: SingleStack", false, "fd00:1::9"),
        // Another order of the same families moves entries and nothing else.
        (both, "ipFamilies: [IPv6, IPv4], ipFamilyPolicy: RequireDualStack", false, "fd00:1::9 192.0.2.3"),
        (both, "ipFamilies: [IPv6, IPv4], ipFamilyPolicy: PreferDualStack", false, "fd00:1::9 192.0.2.3"),
        // From one family to the other.
        ("192.0.2.3", "ipFamilies: [IPv6], ipFamilyPolicy: SingleStack", true, "fd00:1::"),
    ] {
        let service = held("a", ingress, "default", "remote", &format!("spec: {{{spec}}}"));
        let edge = Edge { families_grew: grew, ..Edge::default() };
        let write = written(decide_after(&mut engine(), &service, edge));
        assert_eq!(write.ingress, Some(ips(expected)), "{ingress} → {spec}");
        assert_eq!(write.problem, None, "{ingress} → {spec}");
    }
    for spec in ["PreferDualStack", "RequireDualStack"] {
        let spec = format!("spec: {{ipFamilies: [IPv4, IPv6], ipFamilyPolicy: {spec}}}");
        let service = held("a", both, "default", "remote", &spec);
        assert_eq!(decide(&mut engine(), &service), Decision::Keep, "{spec}");
    }
}

#[test]
fn a_family_that_cannot_be_had_takes_nothing_from_the_one_that_is_held() {
    for policy in ["PreferDualStack", "RequireDualStack"] {
        let spec = format!("spec: {{ipFamilies: [IPv4, IPv6], ipFamilyPolicy: {policy}}}");
        let service = held("a", "203.0.113.1", "v4only", "remote", &spec);
        let edge = Edge { families_grew: true, ..Edge::default() };
        let mut engine = engine();
        let problem = refused(decide_after(&mut engine, &service, edge));
        assert_eq!(problem.reason, "no_pool");
        assert_eq!(problem.wait, Some(Wait::Group("v4only".into())));
        assert_eq!(problem.message.contains("purelb.io/re-evaluate"), policy == "PreferDualStack");
        assert_eq!(engine.ledger().held_by(&service.key), ips("203.0.113.1"));
    }
}

#[test]
fn who_prefers_two_families_and_gets_one_is_told_why() {
    let prefer = "spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}";
    let is_told = |write: &Write| {
        let says = |text: &str| text.contains("no IPv6 pool") && text.contains("purelb.io/re-evaluate");
        write.notes.iter().any(|note| matches!(note, Note::Warning(text) if says(text)))
    };
    let fresh = format!("{{{prefer}, metadata: {{annotations: {{purelb.io/service-group: v4only}}}}}}");
    let write = written(decide(&mut engine(), &service("a", &fresh)));
    assert!(is_told(&write) && write.ingress == Some(ips("203.0.113.0")), "{write:?}");
    let again = format!("{{{prefer}, metadata: {{annotations: {{purelb.io/re-evaluate: 'true'}}}}}}");
    let write = written(decide(&mut engine(), &held("a", "203.0.113.1", "v4only", "remote", &again)));
    assert!(is_told(&write) && write.ingress.is_none() && write.problem.is_none(), "{write:?}");
}

#[test]
fn sharing_that_is_added_to_a_live_service_resets_local_to_cluster_at_once() {
    let changes =
        format!("{{metadata: {{annotations: {{{SHARED}}}}}, spec: {{externalTrafficPolicy: Local}}}}");
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", &changes)));
    assert!(write.cluster_policy.is_some_and(|why| why.contains("shared")), "{write:?}");
    assert_eq!((write.ingress, write.annotations.len()), (None, 0));
}

#[test]
fn a_service_whose_key_is_removed_stays_with_cluster_while_others_share_its_address() {
    let local = |key: &str| {
        let changes = format!(
            "{{metadata: {{annotations: {{{key}}}}}, spec: {{externalTrafficPolicy: Local, ports: [{{port: 1}}]}}}}"
        );
        held("a", "192.0.2.0", "default", "remote", &changes)
    };
    let mut engine = engine();
    let b = shared("b", "192.0.2.0", 2, SHARED);
    engine.sync(&b);
    assert!(
        written(decide(&mut engine, &local(""))).cluster_policy.is_some_and(|why| why.contains("shared"))
    );
    engine.retire(&b);
    assert_eq!(decide(&mut engine, &local("")), Decision::Keep, "alone there it may have Local");
    // Somebody else on the address who has never shared it is about to leave: no reason to change anything.
    engine.sync(&shared("z", "192.0.2.0", 2, ""));
    assert_eq!(decide(&mut engine, &local("")), Decision::Keep);
}

#[test]
fn local_on_a_live_service_is_judged_by_the_pool_that_it_has() {
    for (ingress, group, pool_type, is_reset) in
        [("192.0.2.3", "default", "remote", false), ("198.51.100.10", "onlink", "local", true)]
    {
        let local = held("a", ingress, group, pool_type, "spec: {externalTrafficPolicy: Local}");
        let decision = decide(&mut engine(), &local);
        match is_reset {
            true => assert!(written(decision).cluster_policy.is_some(), "{group}"),
            false => assert_eq!(decision, Decision::Keep, "{group}"),
        }
    }
}

#[test]
fn ports_that_come_to_collide_make_the_one_leave_that_was_edited() {
    let (old, young) = (shared("old", "192.0.2.0", 1, SHARED), shared("young", "192.0.2.0", 2, SHARED));
    let (old, young) = (Service { created: 1, ..old }, Service { created: 2, ..young });
    let mut engine = engine();
    engine.sync(&old);
    engine.sync(&young);
    for service in [&old, &young] {
        assert_eq!(decide(&mut engine, service), Decision::Keep);
    }
    let edited = Service { created: 1, ..shared("old", "192.0.2.0", 2, SHARED) };
    assert!(engine.sync(&edited).contains(&young.key), "the other is looked at again");
    assert_eq!(decide(&mut engine, &young), Decision::Keep);
    let decision = decide(&mut engine, &edited);
    // The key is tied to the address where the port is taken, so there is nothing else for it.
    let write = written(decision);
    assert_eq!(write.ingress, Some(ips("")));
    assert_eq!(write.problem.unwrap().reason, "port_conflict");

    // Books that begin with both as they are know of no edit: the older stays.
    let mut engine = super::engine();
    engine.sync(&young);
    engine.sync(&edited);
    assert_eq!(decide(&mut engine, &edited), Decision::Keep);
    assert_eq!(written(decide(&mut engine, &young)).ingress, Some(ips("")));
}

#[test]
fn of_two_whose_keys_are_taken_away_the_one_leaves_that_had_it_last() {
    let (old, young) = (shared("old", "192.0.2.0", 1, SHARED), shared("young", "192.0.2.0", 2, SHARED));
    let (old, young) = (Service { created: 1, ..old }, Service { created: 2, ..young });
    let mut engine = engine();
    engine.sync(&old);
    engine.sync(&young);
    let alone = Service { created: 2, ..shared("young", "192.0.2.0", 2, "") };
    assert_eq!(decide(&mut engine, &alone), Decision::Keep, "it keeps its address beside one that shares");
    let edited = Service { created: 1, ..shared("old", "192.0.2.0", 1, "") };
    engine.sync(&edited);
    assert_eq!(decide(&mut engine, &alone), Decision::Keep);
    assert_eq!(written(decide(&mut engine, &edited)).ingress, Some(ips("192.0.2.1")));
}

#[test]
fn a_key_that_is_removed_or_changed_takes_no_address_and_admits_no_new_sharer_under_the_old_one() {
    for key in ["", "purelb.io/allow-shared-ip: other"] {
        let mut engine = engine();
        let first = shared("first", "192.0.2.0", 1, SHARED);
        engine.sync(&first);
        let edited = shared("first", "192.0.2.0", 1, key);
        assert_eq!(decide(&mut engine, &edited), Decision::Keep, "{key}");
        let new = service(
            "new",
            &format!("{{metadata: {{annotations: {{{SHARED}}}}}, spec: {{ports: [{{port: 2}}]}}}}"),
        );
        assert_eq!(written(decide(&mut engine, &new)).ingress, Some(ips("192.0.2.1")), "{key}");
    }
}

#[test]
fn node_ports_that_are_not_wanted_stay_unwanted() {
    let unwanted = service("a", "spec: {allocateLoadBalancerNodePorts: false}");
    let write = written(decide(&mut engine(), &unwanted));
    assert_eq!(write.ingress, Some(ips("192.0.2.0")));
    let patch = crate::apply::status_patch("1", &write);
    assert!(patch.get("spec").is_none(), "{patch}");
}
