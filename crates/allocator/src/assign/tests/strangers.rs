//! Addresses that strangers answer for on the wire.

use super::*;
use crate::testing::live;

const STRANGER: &str = "192.0.2.0,02:00:00:00:00:05";

fn haunted() -> Engine {
    let mut engine = engine();
    engine.set_live(live("", &format!("{STRANGER} fd00:1::,02:00:00:00:00:06 192.0.2.3,02:00:00:00:00:07")));
    engine
}

#[test]
fn an_address_that_a_stranger_answers_for_is_skipped() {
    let mut engine = haunted();
    let prefer = "spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}";
    assert_eq!(written(decide(&mut engine, &service("a", prefer))).ingress, Some(ips("192.0.2.1 fd00:1::1")));
    assert_eq!(written(decide(&mut engine, &service("b", ""))).ingress, Some(ips("192.0.2.2")));
    // The last of the pool is a stranger's, too.
    assert_eq!(refused(decide(&mut engine, &service("c", ""))).reason, "exhausted");
}

#[test]
fn who_asks_for_it_is_told_the_node_and_the_stranger_and_waits_for_the_address() {
    let asked = service("a", "metadata: {annotations: {purelb.io/addresses: 192.0.2.0}}");
    let problem = refused(decide(&mut haunted(), &asked));
    assert_eq!(problem.reason, "address_conflict");
    assert_eq!(problem.wait, Some(Wait::Address("192.0.2.0".parse().unwrap())));
    assert!(problem.message.contains("02:00:00:00:00:05"), "{}", problem.message);
    assert!(problem.message.contains("node watcher"), "{}", problem.message);
}

#[test]
fn who_holds_it_keeps_it_and_nobody_comes_to_share_it() {
    let mut engine = haunted();
    let keyed = "{metadata: {annotations: {purelb.io/allow-shared-ip: k}}, spec: {ports: [{port: 1}]}}";
    assert_eq!(decide(&mut engine, &held("a", "192.0.2.0", "default", "remote", keyed)), Decision::Keep);
    let asked = "metadata: {annotations: {purelb.io/addresses: 192.0.2.3}}";
    assert_eq!(decide(&mut engine, &held("b", "192.0.2.3", "default", "remote", asked)), Decision::Keep);
    let sharer = "{metadata: {annotations: {purelb.io/allow-shared-ip: k}}, spec: {ports: [{port: 2}]}}";
    let problem = refused(decide(&mut engine, &service("c", sharer)));
    assert_eq!(problem.reason, "address_conflict");
    assert_eq!(problem.wait, Some(Wait::Address("192.0.2.0".parse().unwrap())));
}

#[test]
fn the_last_address_of_all_is_no_special_case() {
    let mut engine = Engine::default();
    let spec = "remote: {v4pool: {pool: 255.255.255.255/32, subnet: 255.255.255.0/24, aggregation: /32}}";
    engine.set_groups(groups(&[("default", spec)]));
    engine.set_live(live("", "255.255.255.255,02:00:00:00:00:05"));
    assert_eq!(refused(decide(&mut engine, &service("a", ""))).reason, "exhausted");
}
