//! Reservations: when they are made, whom they keep away, when they end.

use serde_json::json;

use super::*;
use crate::{
    apply::status_patch,
    assign::{Decision, Edge},
    engine::problem,
    group_status,
    reservation::MAX_PER_GROUP,
    testing::{self, groups, ip, ips, merge, object, read, service},
    waiting::Wait,
};

const POOL: &str = "remote: {v4pool: {pool: 192.0.2.0/30, subnet: 192.0.2.0/24, aggregation: /32}}";

fn sticky_groups(sticky: &str) -> Groups {
    groups(&[("default", &format!("{{{POOL}, stickyFor: {sticky}}}"))])
}

/// At second 1000; `stickyFor` is a minute.
fn engine() -> Engine {
    let mut engine = Engine::default();
    engine.set_groups(sticky_groups("1m"));
    engine.advance_to(1000);
    engine
}

/// A Service that is served, confirmed, and what it is then.
fn served(engine: &mut Engine, name: &str, changes: &str) -> Service {
    let mut object = object(name, changes);
    let Decision::Write(write) = engine.decide(&read(&object).unwrap(), Edge::default()).decision else {
        panic!("{name} is not served")
    };
    merge(&mut object, status_patch("2", &write));
    let service = read(&object).unwrap();
    engine.sync(&service);
    service
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("ns", name)
}

#[test]
fn a_service_that_comes_back_in_time_gets_its_address_and_nobody_else_meanwhile() {
    let mut engine = engine();
    let a = served(&mut engine, "a", "");
    engine.retire(&a);
    assert_eq!(engine.next_deadline(), Some(1060));
    assert_eq!(served(&mut engine, "b", "").facts.ingress, ips("192.0.2.1"));
    let asking = service("c", "metadata: {annotations: {purelb.io/addresses: 192.0.2.0}}");
    let outcome = engine.decide(&asking, Edge::default());
    let problem = problem(&outcome.decision).unwrap();
    assert_eq!((problem.reason, &problem.wait), ("address_reserved", &Some(Wait::Address(ip("192.0.2.0")))));
    assert!(problem.message.contains("1970-01-01T00:17:40Z for ns/a"), "{}", problem.message);
    engine.advance_to(1059);
    assert_eq!(served(&mut engine, "a", "").facts.ingress, ips("192.0.2.0"));
    assert!(engine.reservations().is_empty());
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn a_reservation_that_is_over_frees_its_address_and_wakes_who_waits() {
    let mut engine = engine();
    let gone: Vec<Service> = ["a", "b", "c", "d"].map(|name| served(&mut engine, name, "")).into();
    gone.iter().for_each(|service| drop(engine.retire(service)));
    let asking = "metadata: {annotations: {purelb.io/addresses: 192.0.2.3}}";
    engine.decide(&service("for-room", ""), Edge::default());
    engine.decide(&service("for-the-address", asking), Edge::default());
    assert!(engine.advance_to(1059).is_empty());
    let mut woken = engine.advance_to(1060);
    woken.sort();
    woken.dedup();
    assert_eq!(woken, [key("for-room"), key("for-the-address")]);
    assert_eq!(served(&mut engine, "e", "").facts.ingress, ips("192.0.2.0"));
}

#[test]
fn whoever_leaves_type_load_balancer_or_is_created_again_unseen_leaves_a_reservation() {
    for changes in [
        json!({"spec": {"type": "ClusterIP"}, "status": null}),
        json!({"metadata": {"uid": "other", "annotations": null}, "status": null}),
    ] {
        let mut engine = engine();
        let mut object = object("a", "");
        let Decision::Write(write) = engine.decide(&read(&object).unwrap(), Edge::default()).decision else {
            panic!("not served")
        };
        merge(&mut object, status_patch("2", &write));
        engine.sync(&read(&object).unwrap());
        merge(&mut object, changes);
        engine.sync(&read(&object).unwrap());
        assert_eq!(engine.reservations().of(&key("a")), ips("192.0.2.0"));
        assert_eq!(served(&mut engine, "b", "").facts.ingress, ips("192.0.2.1"));
        assert_eq!(served(&mut engine, "a", "").facts.ingress, ips("192.0.2.0"));
    }
}

#[test]
fn a_move_and_a_shared_address_leave_no_reservation() {
    let mut engine = engine();
    let asking = "metadata: {annotations: {purelb.io/addresses: 192.0.2.2}}";
    served(&mut engine, "a", "");
    let moved = served(&mut engine, "a", asking);
    assert_eq!(moved.facts.ingress, ips("192.0.2.2"));
    assert!(engine.reservations().is_empty());
    let shared = |port: u16| {
        format!(
            "{{metadata: {{annotations: {{purelb.io/allow-shared-ip: k}}}}, spec: {{ports: [{{port: {port}}}]}}}}"
        )
    };
    let one = served(&mut engine, "one", &shared(1));
    served(&mut engine, "two", &shared(2));
    engine.retire(&one);
    assert!(engine.reservations().is_empty(), "the other is still there");
    assert_eq!(served(&mut engine, "one", &shared(1)).facts.ingress, one.facts.ingress);
}

#[test]
fn a_service_that_comes_back_for_other_addresses_gives_its_reservation_up() {
    let mut engine = engine();
    let a = served(&mut engine, "a", "");
    engine.retire(&a);
    served(&mut engine, "a", "metadata: {annotations: {purelb.io/addresses: 192.0.2.3}}");
    assert!(engine.reservations().is_empty());
    assert_eq!(served(&mut engine, "b", "").facts.ingress, ips("192.0.2.0"));
}

#[test]
fn lowering_or_removing_sticky_for_or_the_group_ends_reservations() {
    for (after, is_kept) in [
        (sticky_groups("1h"), true),
        (sticky_groups("1m"), true),
        (sticky_groups("10s"), false),
        (groups(&[("default", POOL)]), false),
        (Groups::default(), false),
    ] {
        let mut engine = engine();
        let a = served(&mut engine, "a", "");
        engine.retire(&a);
        engine.set_groups(after);
        assert_eq!(!engine.reservations().is_empty(), is_kept);
        engine.set_groups(sticky_groups("1m"));
        let next = served(&mut engine, "b", "").facts.ingress;
        assert_eq!(next, ips(if is_kept { "192.0.2.1" } else { "192.0.2.0" }));
    }
}

#[test]
fn reservations_outlive_a_restart_in_the_status_of_their_group() {
    let mut before = engine();
    let held = served(&mut before, "held", "");
    let gone = served(&mut before, "gone", "");
    before.retire(&gone);
    let now = k8s_openapi::jiff::Timestamp::from_second(1000).unwrap();
    let status = group_status::status("default", None, &Default::default(), &before, now);
    assert_eq!((status.allocated_ipv4, status.available_ipv4), (2, Some(2)));
    let text = serde_json::to_value(&status).unwrap();
    let shown = json!([{"address": "192.0.2.1", "service": "ns/gone", "until": "1970-01-01T00:17:40Z"}]);
    assert_eq!(text["reservations"], shown);

    let mut after = Engine::default();
    after.set_groups(sticky_groups("1m"));
    after.advance_to(1030);
    after.sync(&held);
    after.restore(group_status::reservations(&serde_json::from_value(text).unwrap()));
    assert_eq!(group_status::status("default", None, &status, &after, now), status);
    assert_eq!(served(&mut after, "new", "").facts.ingress, ips("192.0.2.2"));
    assert_eq!(served(&mut after, "gone", "").facts.ingress, ips("192.0.2.1"));
}

#[test]
fn what_somebody_publishes_or_what_is_over_is_not_restored() {
    let mut engine = testing::engine();
    engine.set_groups(sticky_groups("1m"));
    engine.advance_to(1000);
    served(&mut engine, "a", "");
    let reservation =
        |address: &str, until| Reservation { address: ip(address), service: key("gone"), until };
    engine.restore([
        reservation("192.0.2.0", 1030),
        reservation("192.0.2.1", 1000),
        reservation("192.0.2.2", 9999),
        reservation("10.0.0.1", 1030),
    ]);
    let left: Vec<_> = engine.reservations().iter().cloned().collect();
    assert_eq!(left, [reservation("192.0.2.2", 1060)], "no longer than the group says by now");
}

#[test]
fn of_one_group_no_more_wait_than_its_status_can_hold() {
    let mut engine = Engine::default();
    let pool = "remote: {v4pool: {pool: 10.0.0.0/16, subnet: 10.0.0.0/16, aggregation: /32}}";
    engine.set_groups(groups(&[("default", &format!("{{{pool}, stickyFor: 1h}}"))]));
    for number in 0..=MAX_PER_GROUP {
        let service = served(&mut engine, &format!("s{number}"), "");
        engine.advance_to(i64::try_from(number).unwrap());
        engine.retire(&service);
    }
    assert_eq!(engine.reservations().iter().count(), MAX_PER_GROUP);
    assert!(engine.reservations().of(&key("s0")).is_empty(), "the oldest has ended");
}

#[test]
fn whoever_waits_is_woken_when_the_oldest_reservation_ends_because_there_are_too_many() {
    let mut engine = Engine::default();
    // One more address than may be reserved.
    let pool = "remote: {v4pool: {pool: 10.0.0.0-10.0.1.244, subnet: 10.0.0.0/16, aggregation: /32}}";
    engine.set_groups(groups(&[("default", &format!("{{{pool}, stickyFor: 1h}}"))]));
    let services: Vec<Service> =
        (0..=MAX_PER_GROUP).map(|number| served(&mut engine, &format!("s{number}"), "")).collect();
    assert_eq!(engine.decide(&service("waiting", ""), Edge::default()).woken, []);
    for (number, service) in services.iter().enumerate() {
        let woken = engine.retire(service);
        let expected = if number == MAX_PER_GROUP { vec![key("waiting")] } else { Vec::new() };
        assert_eq!(woken, expected, "{number}");
    }
    assert_eq!(served(&mut engine, "waiting", "").facts.ingress, ips("10.0.0.0"));
}

#[test]
fn an_address_that_was_never_published_waits_for_nobody() {
    let mut engine = engine();
    let a = service("a", "");
    assert!(matches!(engine.decide(&a, Edge::default()).decision, Decision::Write(_)));
    // The write came too late; the Service is as it was, and then it goes.
    engine.sync(&a);
    engine.retire(&a);
    assert!(engine.reservations().is_empty());
    // What was published before waits all the same, whatever else was tried meanwhile.
    let b = served(&mut engine, "b", "");
    assert_eq!(b.facts.ingress, ips("192.0.2.0"));
    let dual = service("b", "metadata: {annotations: {purelb.io/addresses: 192.0.2.2}}");
    let dual =
        Service { facts: crate::inputs::service::Facts { ingress: b.facts.ingress, ..dual.facts }, ..dual };
    assert!(matches!(engine.decide(&dual, Edge::default()).decision, Decision::Write(_)));
    let mut gone = object("b", "");
    merge(&mut gone, json!({"metadata": {"uid": "other"}}));
    engine.sync(&read(&gone).unwrap());
    assert_eq!(engine.reservations().of(&key("b")), ips("192.0.2.0"));
}

#[test]
fn whoever_waits_for_an_address_is_told_that_it_is_reserved_when_its_owner_leaves_type_load_balancer() {
    let mut engine = engine();
    let a = served(&mut engine, "a", "");
    let asking = service("b", "metadata: {annotations: {purelb.io/addresses: 192.0.2.0}}");
    let reason = |engine: &mut Engine| {
        let outcome = engine.decide(&asking, Edge::default());
        (problem(&outcome.decision).unwrap().reason, outcome.is_news)
    };
    assert_eq!(reason(&mut engine), ("address_in_use", true));
    let is_cleared = |is_cleared: bool| {
        let mut object = object("a", "spec: {type: ClusterIP}");
        let brand = json!({"annotations": {"purelb.io/allocated-by": "PureLB"}});
        merge(&mut object, json!({"metadata": brand}));
        if !is_cleared {
            merge(&mut object, json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.0"}]}}}));
        }
        read(&object).unwrap()
    };
    let mut other = engine.clone();
    // The API server has emptied the status itself.
    assert_eq!(engine.sync(&is_cleared(true)), [key("b")]);
    assert_eq!(reason(&mut engine), ("address_reserved", true));
    // It has not: we do, and then nothing of ours is on the Service.
    other.sync(&is_cleared(false));
    assert_eq!(reason(&mut other).0, "address_in_use");
    assert_eq!(other.retire(&a), [key("b")]);
    assert_eq!(reason(&mut other), ("address_reserved", true));
}
