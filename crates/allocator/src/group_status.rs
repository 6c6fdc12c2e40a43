//! What a ServiceGroup's status says. Equal meaning is equal bytes, and equal bytes are not written.

use std::{collections::BTreeSet, net::IpAddr};

use api::{
    IpFamily, PoolType, ServiceGroupStatus,
    condition::{self, ACCEPTED, ADDRESS_CONFLICT, reason},
    names::PURELB,
    service_group::GroupConflict,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use serde_json::{Map, Value, json};

use crate::{
    assign::UNANNOUNCED,
    inputs::{Group, Groups, Live},
    ledger::Ledger,
};

/// How many conflicts a status lists.
const MAX_CONFLICTS: usize = 64;

/// What the status of a group should be. `old` is what it is: a condition keeps its transition time from there.
pub fn status(
    name: &str,
    generation: Option<i64>,
    old: &ServiceGroupStatus,
    groups: &Groups,
    ledger: &Ledger,
    live: &Live,
    now: Timestamp,
) -> ServiceGroupStatus {
    let mut conditions = old.conditions.clone();
    let mut status = match groups.get(name) {
        Some(group) => of_accepted(group, ledger, live),
        None => ServiceGroupStatus::default(),
    };
    let accepted = match groups.refusal(name) {
        None => {
            let is_local = status.announce == Some(PoolType::Local);
            let message = if is_local { UNANNOUNCED } else { "addresses are allocated from it" };
            condition::new(ACCEPTED, true, reason::ACCEPTED, message, generation)
        }
        Some(refusal) => condition::new(ACCEPTED, false, refusal.reason, refusal.to_string(), generation),
    };
    condition::set(&mut conditions, accepted, now);
    if let Some(conflict) = address_conflict(&status, &conditions, generation) {
        condition::set(&mut conditions, conflict, now);
    }
    status.conditions = conditions;
    status
}

/// Absent until there is the first one.
fn address_conflict(
    status: &ServiceGroupStatus,
    conditions: &[Condition],
    generation: Option<i64>,
) -> Option<Condition> {
    if status.conflicts.is_empty() {
        let is_known = conditions.iter().any(|condition| condition.type_ == ADDRESS_CONFLICT);
        let message = "no live node reports strangers that answer for addresses of the group";
        let over = || condition::new(ADDRESS_CONFLICT, false, reason::NOT_REPORTED, message, generation);
        return is_known.then(over);
    }
    let addresses: Vec<&str> = status.conflicts.iter().map(|conflict| conflict.address.as_str()).collect();
    let message = format!(
        "strangers answer on the wire for {}: take them off those machines; they are not handed out meanwhile",
        addresses.join(", ")
    );
    Some(condition::new(ADDRESS_CONFLICT, true, reason::REPORTED, message, generation))
}

fn conflicts(group: &Group, live: &Live) -> Vec<GroupConflict> {
    let conflicts = live.strangers().filter(|(address, _)| group.contains(*address));
    let conflicts = conflicts.map(|(address, stranger)| GroupConflict {
        address: address.to_string(),
        node: stranger.node.to_string(),
        link_layer_address: stranger.link_layer_address.to_string(),
    });
    conflicts.take(MAX_CONFLICTS).collect()
}

fn of_accepted(group: &Group, ledger: &Ledger, live: &Live) -> ServiceGroupStatus {
    let is_barred = |family: IpFamily, address: IpAddr| {
        IpFamily::of(address) == family && group.contains(address) && !ledger.is_held(address)
    };
    let barred = |family: IpFamily| -> u128 {
        live.strangers().filter(|(address, _)| is_barred(family, *address)).map(|_| 1).sum()
    };
    let count = |family: IpFamily| -> (u128, u128) {
        group.pools_of(family).fold((0, 0), |(held, size), pool| {
            (held + ledger.count(&pool.range), size.saturating_add(pool.range.len()))
        })
    };
    let ((held4, size4), (held6, size6)) = (count(IpFamily::IPv4), count(IpFamily::IPv6));
    ServiceGroupStatus {
        announce: Some(group.pool_type),
        ipam: Some(PURELB.to_owned()),
        addresses: group.ranges().map(|range| range.to_string()).collect(),
        allocated_ipv4: clamp(held4),
        allocated_ipv6: clamp(held6),
        available_ipv4: clamp(size4.saturating_sub(held4 + barred(IpFamily::IPv4))),
        available_ipv6: clamp(size6.saturating_sub(held6.saturating_add(barred(IpFamily::IPv6)))),
        bound_namespaces: namespaces(group, ledger).into_iter().collect(),
        conflicts: conflicts(group, live),
        conditions: Vec::new(),
    }
}

fn namespaces(group: &Group, ledger: &Ledger) -> BTreeSet<String> {
    let is_from = |addresses: &[IpAddr]| addresses.iter().any(|address| group.contains(*address));
    let mut names = BTreeSet::new();
    for (service, addresses) in ledger.services() {
        if is_from(addresses) && !names.contains(service.namespace()) {
            names.insert(service.namespace().to_owned());
        }
    }
    names
}

fn clamp(count: u128) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// How many addresses a group has and how many of them are held.
pub fn usage(group: &Group, ledger: &Ledger) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    group.ranges().fold((0.0, 0.0), |(size, held), range| {
        (size + range.len() as f64, held + ledger.count(&range) as f64)
    })
}

/// The merge patch that turns one status into the other; `None` when there is nothing to write.
pub fn patch(old: &ServiceGroupStatus, new: &ServiceGroupStatus) -> Option<Value> {
    if old == new {
        return None;
    }
    let as_map = |status| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (as_map(old), as_map(new));
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let mut changes: Map<String, Value> = gone.collect();
    changes.extend(new.into_iter().filter(|(key, value)| old.get(key) != Some(value)));
    Some(json!({ "status": changes }))
}
