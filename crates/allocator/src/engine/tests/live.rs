//! Whom it wakes when nodes and strangers come and go.

use super::*;
use crate::testing::{live, service};

const PAIR: &str = "local: {multiPool: true, v4pools: [{pool: 192.0.2.10-192.0.2.11, subnet: 192.0.2.0/24}, \
                    {pool: 198.51.100.10-198.51.100.11, subnet: 198.51.100.0/24}]}";
const ELSEWHERE: &str = "local: {multiPool: true, v4pool: {pool: 203.0.113.10-203.0.113.10, subnet: 203.0.113.0/24}}";
const SINGLE: &str = "remote: {v4pool: {pool: 10.0.0.0/31, subnet: 10.0.0.0/24, aggregation: /32}}";

fn engine() -> Engine {
    let mut engine = Engine::default();
    engine.set_groups(groups(&[("pair", PAIR), ("elsewhere", ELSEWHERE), ("single", SINGLE)]));
    engine
}

fn of_group(name: &str, group: &str, created: u8) -> Service {
    let text = format!(
        "metadata: {{creationTimestamp: '2026-01-{created:02}T00:00:00Z', \
         annotations: {{purelb.io/service-group: {group}}}}}"
    );
    service(name, &text)
}

fn decide(engine: &mut Engine, service: &Service) -> Outcome {
    engine.decide(service, Edge::default())
}

fn names(keys: &[ServiceKey]) -> Vec<&str> {
    keys.iter().map(ServiceKey::name).collect()
}

#[test]
fn a_subnet_that_comes_wakes_exactly_those_that_wait_for_it_oldest_first() {
    let mut engine = engine();
    for (name, group, created) in [("young", "pair", 3), ("old", "pair", 1), ("other", "elsewhere", 2)] {
        assert!(matches!(decide(&mut engine, &of_group(name, group, created)).decision, Decision::Refuse(_)));
    }
    assert!(engine.set_live(live("10.0.0.0/24", "")).is_empty(), "a subnet of no pool");
    assert_eq!(names(&engine.set_live(live("10.0.0.0/24 198.51.100.0/24", ""))), ["old", "young"]);
    assert!(engine.set_live(live("198.51.100.0/24", "")).is_empty(), "one that goes");
    assert_eq!(names(&engine.set_live(live("198.51.100.0/24 203.0.113.0/24", ""))), ["other"]);
}

#[test]
fn who_waits_for_a_node_is_not_woken_for_room_that_no_node_reaches() {
    let mut engine = engine();
    let (old, young) = (of_group("old", "pair", 1), of_group("young", "pair", 2));
    decide(&mut engine, &old);
    decide(&mut engine, &young);
    assert!(decide(&mut engine, &old).woken.is_empty());
}

#[test]
fn an_address_that_is_freed_wakes_the_oldest_that_waits_for_any_pool_and_then_the_next() {
    let mut engine = engine();
    engine.set_live(live("203.0.113.0/24", ""));
    let (a, b, c) =
        (of_group("a", "elsewhere", 1), of_group("b", "elsewhere", 2), of_group("c", "elsewhere", 3));
    assert!(matches!(decide(&mut engine, &a).decision, Decision::Write(_)));
    decide(&mut engine, &c);
    decide(&mut engine, &b);
    assert_eq!(names(&engine.forget(&a.key)), ["b"]);
    let outcome = decide(&mut engine, &b);
    assert!(matches!(outcome.decision, Decision::Write(_)) && outcome.woken.is_empty());
}

#[test]
fn a_stranger_that_goes_wakes_who_waits_for_the_address_or_for_room() {
    let mut engine = engine();
    engine.set_live(live("", "10.0.0.0,02:00:00:00:00:05 10.0.0.1,02:00:00:00:00:06"));
    let asked = service("asked", "metadata: {annotations: {purelb.io/addresses: 10.0.0.1}}");
    let any = of_group("any", "single", 1);
    decide(&mut engine, &asked);
    decide(&mut engine, &any);
    assert!(engine.set_live(live("", "10.0.0.0,02:00:00:00:00:05 10.0.0.1,02:00:00:00:00:07")).is_empty());
    assert_eq!(names(&engine.set_live(live("", "10.0.0.0,02:00:00:00:00:05"))), ["asked", "any"]);
    assert_eq!(names(&engine.set_live(live("", ""))), ["any"]);
}

#[test]
fn a_stranger_that_goes_from_a_held_address_frees_no_room() {
    let mut engine = engine();
    let object = "{metadata: {annotations: {purelb.io/service-group: single}}, \
                  status: {loadBalancer: {ingress: [{ip: 10.0.0.0}, {ip: 10.0.0.1}]}}}";
    engine.sync(&service("holder", object));
    engine.set_live(live("", "10.0.0.0,02:00:00:00:00:05"));
    decide(&mut engine, &of_group("any", "single", 1));
    assert!(engine.set_live(live("", "")).is_empty());
}
