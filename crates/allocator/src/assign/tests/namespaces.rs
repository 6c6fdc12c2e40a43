//! Which group serves which namespace, and where a boundary is.

use super::*;
use crate::inputs::ServiceKey;

fn pool(net: u8) -> String {
    format!("remote: {{v4pool: {{pool: 192.0.{net}.0/30, subnet: 192.0.{net}.0/24, aggregation: /32}}}}")
}

/// `default` and groups that say this about namespaces; each has addresses 192.0.N.0 to 192.0.N.3.
fn engine_with(scopes: &[(&str, &str)]) -> Engine {
    let all = std::iter::once(&("default", "")).chain(scopes);
    let specs: Vec<(&str, String)> =
        all.zip(2..).map(|((name, scope), net)| (*name, format!("{{{}, {scope}}}", pool(net)))).collect();
    let specs: Vec<(&str, &str)> = specs.iter().map(|(name, spec)| (*name, spec.as_str())).collect();
    let mut engine = Engine::default();
    engine.set_groups(groups(&specs));
    engine
}

fn of_group(name: &str, namespace: &str, group: &str) -> Service {
    let annotation = match group {
        "" => String::new(),
        group => format!(", annotations: {{purelb.io/service-group: {group}}}"),
    };
    service(name, &format!("metadata: {{namespace: {namespace}{annotation}}}"))
}

fn asking_for(namespace: &str, address: &str) -> Service {
    service(
        "a",
        &format!("metadata: {{namespace: {namespace}, annotations: {{purelb.io/addresses: {address}}}}}"),
    )
}

#[test]
fn a_service_that_names_no_group_is_served_by_the_one_of_its_namespace() {
    let one = [("web", "namespaces: [ns, www]")];
    let marked = [("web", "namespaces: [ns]"), ("best", "{namespaces: [ns], namespaceDefault: true}")];
    let marked = marked.map(|(name, scope)| (name, scope.trim_matches(['{', '}'])));
    for (scopes, namespace, group) in [
        (&one[..], "ns", "web"),
        (&one[..], "www", "web"),
        (&one[..], "other", "default"),
        (&marked[..], "ns", "best"),
        (&[][..], "ns", "default"),
    ] {
        let write = written(decide(&mut engine_with(scopes), &of_group("a", namespace, "")));
        assert_eq!(value(&write, ALLOCATED_FROM), Some(group), "{namespace} {scopes:?}");
        assert!(matches!(write.notes[..], [Note::Assigned(..)]), "{:?}", write.notes);
    }
}

#[test]
fn several_unmarked_groups_mean_default_and_a_warning() {
    for marks in ["", ", namespaceDefault: true"] {
        let scope = format!("namespaces: [ns]{marks}");
        let mut engine = engine_with(&[("web", &scope), ("db", &scope)]);
        let write = written(decide(&mut engine, &of_group("a", "ns", "")));
        assert_eq!(value(&write, ALLOCATED_FROM), Some("default"));
        assert!(
            matches!(&write.notes[..], [Note::Warning(text), Note::Assigned(..)]
                if text.contains("(db, web)") && text.contains("default is used") && text.contains("mark one")),
            "{:?}",
            write.notes
        );
    }
}

#[test]
fn a_group_without_enforcement_serves_whoever_names_it() {
    let mut engine = engine_with(&[("web", "namespaces: [ns]")]);
    let write = written(decide(&mut engine, &of_group("a", "other", "web")));
    assert_eq!(value(&write, ALLOCATED_FROM), Some("web"));
    let write = written(decide(&mut engine, &of_group("b", "ns", "default")));
    assert_eq!(value(&write, ALLOCATED_FROM), Some("default"));
}

#[test]
fn a_boundary_holds_in_both_directions_by_annotation_and_by_address() {
    let scopes =
        [("web", "namespaces: [ns], enforceNamespaces: true"), ("more", "namespaces: [ns]"), ("free", "")];
    for (service, expected) in [
        (of_group("a", "ns", "web"), Ok("web")),
        // The boundary is the namespace's: every group that lists it is inside.
        (of_group("a", "ns", "more"), Ok("more")),
        (of_group("a", "other", "more"), Err("makes ns a boundary")),
        (of_group("a", "ns", "free"), Err("expected more, web")),
        (of_group("a", "ns", "default"), Err("expected more, web")),
        (of_group("a", "other", "web"), Err("other is not one of them")),
        (asking_for("ns", "192.0.3.1"), Ok("web")),
        (asking_for("ns", "192.0.4.1"), Ok("more")),
        (asking_for("ns", "192.0.5.1"), Err("expected more, web")),
        (asking_for("other", "192.0.3.1"), Err("other is not one of them")),
        (asking_for("other", "192.0.4.1"), Err("makes ns a boundary")),
        (asking_for("other", "192.0.5.1"), Ok("free")),
    ] {
        let decision = decide(&mut engine_with(&scopes), &service);
        match expected {
            Ok(group) => assert_eq!(value(&written(decision), ALLOCATED_FROM), Some(group), "{service:?}"),
            Err(part) => {
                let problem = refused(decision);
                assert_eq!(problem.reason, "namespace_denied");
                assert!(problem.message.contains(part), "{}", problem.message);
            }
        }
    }
}

#[test]
fn a_bounded_namespace_with_several_unmarked_groups_does_not_fall_out_of_its_boundary() {
    let scopes = [("web", "namespaces: [ns], enforceNamespaces: true"), ("more", "namespaces: [ns]")];
    let problem = refused(decide(&mut engine_with(&scopes), &of_group("a", "ns", "")));
    assert_eq!(problem.reason, "ambiguous_namespace_default");
    assert!(problem.message.contains("more, web"), "{}", problem.message);
}

#[test]
fn a_refused_group_still_keeps_its_namespaces_to_itself() {
    let mut engine = Engine::default();
    let bad =
        "{remote: {v4pool: {pool: banana, subnet: 192.0.2.0/24}}, namespaces: [ns], enforceNamespaces: true}";
    engine.set_groups(groups(&[("default", &pool(2)), ("web", bad)]));
    assert_eq!(refused(decide(&mut engine, &of_group("a", "ns", ""))).reason, "no_usable_pool");
    assert_eq!(refused(decide(&mut engine, &of_group("a", "ns", "default"))).reason, "namespace_denied");
}

#[test]
fn what_is_held_outlives_every_boundary_and_gains_nothing_beyond_it() {
    let scopes = [("web", "namespaces: [ns], enforceNamespaces: true")];
    for changes in ["", "metadata: {annotations: {purelb.io/addresses: 192.0.2.3}}"] {
        let service = held("a", "192.0.2.3", "default", "remote", changes);
        assert_eq!(decide(&mut engine_with(&scopes), &service), Decision::Keep, "{changes}");
    }
    let changes = "metadata: {annotations: {purelb.io/re-evaluate: 'true'}}";
    let write =
        written(decide(&mut engine_with(&scopes), &held("a", "192.0.2.3", "default", "remote", changes)));
    assert_eq!(write.ingress, None);
    assert!(is_removed(&write, RE_EVALUATE));
    assert!(
        matches!(&write.notes[..], [Note::Warning(text)] if text.contains("expected web") && text.contains("keeps")),
        "{:?}",
        write.notes
    );
    let grown = held("a", "192.0.2.3", "default", "remote", "spec: {ipFamilies: [IPv4, IPv6]}");
    let edge = Edge { families_grew: true, ..Edge::default() };
    assert_eq!(refused(decide_after(&mut engine_with(&scopes), &grown, edge)).reason, "namespace_denied");
}

#[test]
fn two_namespaces_share_an_address_where_its_group_lists_both() {
    let sharing = |name: &str, namespace: &str, port: u16, addresses: &str| {
        service(
            name,
            &format!(
                "{{metadata: {{namespace: {namespace}, annotations: {{purelb.io/allow-shared-ip: k, \
                 purelb.io/service-group: web, {addresses}}}}}, spec: {{ports: [{{port: {port}}}]}}}}"
            ),
        )
    };
    let mut engine = engine_with(&[("web", "namespaces: [one, two]")]);
    let address = Some(ips("192.0.3.0"));
    assert_eq!(written(decide(&mut engine, &sharing("a", "one", 1, ""))).ingress, address);
    assert_eq!(written(decide(&mut engine, &sharing("b", "two", 2, ""))).ingress, address);
    // One that the group does not list has an address of its own.
    let own = written(decide(&mut engine, &sharing("c", "three", 3, "")));
    assert_eq!(own.ingress, Some(ips("192.0.3.1")));
    let asking = sharing("d", "three", 4, "purelb.io/addresses: 192.0.3.0");
    assert_eq!(refused(decide(&mut engine, &asking)).reason, "address_in_use");
    let problem = refused(decide(&mut engine, &sharing("e", "two", 1, "")));
    assert_eq!(problem.reason, "port_conflict");
    // Who waits for the key in one namespace is woken by who leaves it in the other; who waits for the address, too.
    let woken = engine.forget(&ServiceKey::new("one", "a"));
    assert_eq!(woken, [ServiceKey::new("three", "d"), ServiceKey::new("two", "e")]);
}

#[test]
fn who_waits_for_a_group_that_overlaps_is_woken_when_the_older_one_goes_and_nothing_is_revoked() {
    let (old, new) = (("old", pool(2)), ("new", pool(2)));
    let mut engine = Engine::default();
    engine.set_groups(groups(&[("old", &old.1), ("new", &new.1)]));
    let holder = held("holder", "192.0.2.1", "old", "remote", "");
    engine.sync(&holder);
    let waiting = of_group("a", "ns", "new");
    let problem = refused(decide(&mut engine, &waiting));
    assert_eq!(problem.reason, "no_usable_pool");
    assert!(problem.message.contains("older ServiceGroup old"), "{}", problem.message);
    assert_eq!(engine.set_groups(groups(&[("new", &new.1)])), [ServiceKey::new("ns", "a")]);
    assert_eq!(written(decide(&mut engine, &waiting)).ingress, Some(ips("192.0.2.0")));
    assert_eq!(decide(&mut engine, &holder), Decision::Keep);
}

#[test]
fn an_edit_of_namespaces_wakes_exactly_those_whom_it_can_cure() {
    let bounded = [("web", "namespaces: [ns], enforceNamespaces: true")];
    let mut engine = engine_with(&bounded);
    decide(&mut engine, &of_group("inside", "ns", "default"));
    decide(&mut engine, &of_group("outside", "other", "web"));
    decide(&mut engine, &of_group("elsewhere", "other", "nope"));
    let names = |engine: &mut Engine, scopes: &[(&str, &str)]| -> Vec<String> {
        let woken = engine.set_groups(engine_with(scopes).groups().clone());
        woken.iter().map(|service| service.name().to_owned()).collect()
    };
    assert_eq!(names(&mut engine, &[("web", "namespaces: [ns, x], enforceNamespaces: true")]), ["outside"]);
    assert_eq!(names(&mut engine, &[("web", "namespaces: [ns, x]")]), ["inside", "outside"]);
}
