//! What a ServiceGroup's status says. Equal meaning is equal bytes, and equal bytes are not written.

use std::net::IpAddr;

use api::{
    IpFamily, ReservedAddress, ServiceGroupStatus,
    condition::{self, ACCEPTED, ADDRESS_CONFLICT, reason},
    names::PURELB,
    service_group::GroupConflict,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use serde_json::{Map, Value, json};

use crate::{
    engine::Engine,
    inputs::{Group, Live, ServiceKey, Word},
    ledger::Ledger,
    reservation::Reservation,
};

/// How many conflicts a status lists.
const MAX_CONFLICTS: usize = 64;

/// What the status of a group should be. `old` is what it is: a condition keeps its transition time from there.
pub fn status(
    name: &str,
    generation: Option<i64>,
    old: &ServiceGroupStatus,
    engine: &Engine,
    now: Timestamp,
) -> ServiceGroupStatus {
    let groups = engine.groups();
    let mut conditions = old.conditions.clone();
    let mut status = match groups.get(name) {
        Some(group) => of_accepted(group, engine),
        None => ServiceGroupStatus::default(),
    };
    let accepted = match groups.refusal(name) {
        None => {
            let message = "addresses are allocated from it";
            let remarks = groups.get(name).into_iter().flat_map(|group| &group.remarks).map(String::as_str);
            let message = std::iter::once(message).chain(remarks).collect::<Vec<_>>().join("; ");
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

fn of_accepted(group: &Group, engine: &Engine) -> ServiceGroupStatus {
    let (ledger, live) = (engine.ledger(), engine.live());
    let is_barred = |family: IpFamily, address: IpAddr| {
        let is_taken = ledger.is_held(address) || engine.reservations().get(address).is_some();
        IpFamily::of(address) == family && group.contains(address) && !is_taken
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
        available_ipv4: Some(clamp(size4.saturating_sub(held4 + barred(IpFamily::IPv4)))),
        available_ipv6: Some(clamp(size6.saturating_sub(held6.saturating_add(barred(IpFamily::IPv6))))),
        bound_namespaces: group.scope.namespaces().iter().map(Word::to_string).collect(),
        reservations: engine.reservations_of(group).map(reserved).collect(),
        conflicts: conflicts(group, live),
        external_services: Vec::new(),
        external_socket: None,
        former_providers: Vec::new(),
        conditions: Vec::new(),
    }
}

fn reserved(reservation: &Reservation) -> ReservedAddress {
    ReservedAddress {
        address: reservation.address.to_string(),
        service: reservation.service.to_string(),
        until: Time(Timestamp::from_second(reservation.until).unwrap_or(Timestamp::MAX)),
    }
}

/// The reservations that a status shows; what cannot be read is none.
pub fn reservations(status: &ServiceGroupStatus) -> impl Iterator<Item = Reservation> {
    status.reservations.iter().filter_map(|reserved| {
        let (namespace, name) = reserved.service.split_once('/')?;
        Some(Reservation {
            address: reserved.address.parse().ok()?,
            service: ServiceKey::new(namespace, name),
            until: reserved.until.0.as_second(),
        })
    })
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
