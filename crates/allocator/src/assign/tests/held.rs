//! A Service that has its addresses: what stays whatever happens around it, what its owner moves, how it ends.

use super::*;

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
    assert_eq!(write.notes[..], []);
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
    for changes in ["metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}"] {
        let service = held("a", "192.0.2.3", "default", "remote", changes);
        let write = written(decide(&mut engine(), &service));
        assert_eq!(write.ingress, Some(ips("")), "{changes}");
        for name in [ALLOCATED_BY, ALLOCATED_FROM, POOL_TYPE, SERVICE_GROUP] {
            assert!(is_removed(&write, name), "{name} stays: {changes}");
        }
        assert_eq!(write.notes[..], [Note::Released(ips("192.0.2.3"), Why::Ended)]);
    }
    // With the type the API server drops the status.
    let emptied = "{spec: {type: ClusterIP}, status: {loadBalancer: {ingress: null}}}";
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", emptied)));
    assert_eq!((&write.ingress, write.notes.len()), (&None, 0));
    assert!(is_removed(&write, ALLOCATED_BY));
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
    assert_eq!(written(decide_after(&mut engine(), &service, edge)).ingress, Some(ips("")));
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
        write.notes[..],
        [
            Note::Assigned(ips("203.0.113.0"), "v4only".into()),
            Note::Released(ips("192.0.2.3"), Why::Moved("v4only".into())),
        ]
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
fn a_served_service_with_an_unreadable_annotation_goes_on_with_the_rest_and_is_told() {
    for (annotation, reason) in
        [("purelb.io/multi-pool: 'yes'", "bad_multi_pool"), ("purelb.io/addresses: banana", "bad_addresses")]
    {
        let moved = format!("metadata: {{annotations: {{{annotation}, purelb.io/service-group: v4only}}}}");
        let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", &moved)));
        assert_eq!(write.ingress, Some(ips("203.0.113.0")), "{annotation}");
        assert_eq!(write.problem.unwrap().reason, reason);
        let local = format!(
            "{{metadata: {{annotations: {{{annotation}}}}}, spec: {{externalTrafficPolicy: Local}}}}"
        );
        let write = written(decide(&mut engine(), &held("a", "198.51.100.10", "onlink", "local", &local)));
        assert!(write.cluster_policy.is_some() && write.ingress.is_none(), "{annotation}");
        // With nothing else to do it is only told.
        let alone = format!("metadata: {{annotations: {{{annotation}}}}}");
        let problem = refused(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", &alone)));
        assert_eq!(problem.reason, reason);
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
    assert_eq!(write.notes[..], [Note::Released(ips("fd00:1::9"), Why::Family(IpFamily::IPv6))]);

    let prefer = "spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}";
    let grown = held("a", "192.0.2.3", "default", "remote", prefer);
    let edge = Edge { families_grew: true, ..Edge::default() };
    assert_eq!(written(decide_after(&mut engine(), &grown, edge)).ingress, Some(ips("192.0.2.3 fd00:1::")));
    let require = "spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}";
    let half = held("a", "192.0.2.3", "default", "remote", require);
    assert_eq!(written(decide(&mut engine(), &half)).ingress, Some(ips("192.0.2.3 fd00:1::")));
}

/// Both or none is a rule for what is given; nobody loses what they have by asking for more.
#[test]
fn who_asks_for_both_families_and_holds_one_keeps_it_is_told_and_gets_the_other_when_there_is_one() {
    let require = "spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}";
    let mut engine = engine();
    let half = held("a", "203.0.113.1", "v4only", "remote", require);
    let problem = refused(decide(&mut engine, &half));
    assert!(problem.message.contains("no IPv6 pool"), "{}", problem.message);
    assert_eq!(engine.ledger().held_by(&half.key), ips("203.0.113.1"));
    let both = "remote: {v4pool: {pool: 203.0.113.0/30, subnet: 203.0.113.0/24, aggregation: /32}, \
                v6pool: {pool: 'fd00:3::/64', subnet: 'fd00:3::/64', aggregation: /128}}";
    let woken = engine.set_groups(groups(&[("v4only", both)]));
    assert_eq!(woken, std::slice::from_ref(&half.key));
    assert_eq!(written(decide(&mut engine, &half)).ingress, Some(ips("203.0.113.1 fd00:3::")));
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
fn re_evaluate_follows_a_group_that_was_renamed_or_is_announced_otherwise_now() {
    let asks = |more: &str| format!("metadata: {{annotations: {{purelb.io/re-evaluate: 'true'{more}}}}}");
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "renamed", "remote", &asks(""))));
    assert_eq!(value(&write, ALLOCATED_FROM), Some("default"));
    assert_eq!(value(&write, SERVICE_GROUP), Some("default"));
    assert_eq!((write.ingress, write.problem), (None, None));

    let announced = asks(", purelb.io/announcing-IPv4: 'n,eth0'");
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "local", &announced)));
    assert_eq!(value(&write, POOL_TYPE), Some("remote"));
    assert!(is_removed(&write, ANNOUNCING_IPV4) && write.ingress.is_none());

    // What became a multi-pool group under another name gives what it has.
    let mut engine = Engine::default();
    let two = "v4pools: [{pool: 192.0.2.0/30, subnet: 192.0.2.0/24}, {pool: 203.0.113.0/30, subnet: 203.0.113.0/24}]";
    engine.set_groups(groups(&[("new", &format!("remote: {{multiPool: true, {two}}}"))]));
    let write = written(decide(&mut engine, &held("a", "192.0.2.3", "renamed", "remote", &asks(""))));
    assert_eq!(write.ingress.as_ref().map(|addresses| addresses.len()), Some(2));
    assert_eq!(value(&write, ALLOCATED_FROM), Some("new"));
}

#[test]
fn who_announced_a_local_address_is_forgotten_when_the_service_moves_to_a_remote_one() {
    let changes =
        "metadata: {annotations: {purelb.io/service-group: default, purelb.io/announcing-IPv4: 'n,eth0'}}";
    let write = written(decide(&mut engine(), &held("a", "198.51.100.10", "onlink", "local", changes)));
    assert!(is_removed(&write, ANNOUNCING_IPV4));
}
