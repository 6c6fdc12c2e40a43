//! A Service that has addresses and keeps them.

use std::{net::IpAddr, sync::Arc};

use api::{IpFamily, Pool, PoolType};

use super::{
    Target,
    every::{self, Skipped, every},
    fresh::{gain, one_family},
    picking,
};
use crate::{
    assign::{Context, Edge, Note, Notes},
    inputs::{Group, Service, compact::Addresses, group::Picking, service::FamilyPolicy},
    select::{self, Problem},
};

/// The addresses that the Service has, with what is known of where they are from.
pub(super) fn kept(service: &Service, staying: Addresses, context: Context<'_>) -> Target {
    let brand = &service.facts.brand;
    if service.facts.requests.re_evaluate
        && let Some(group) = now_from(service, &staying, context)
    {
        let (group, pool_type) = (group.name.clone(), group.pool_type);
        return Target { addresses: staying, group, pool_type, notes: Notes::new(), problem: None };
    }
    let by_address = staying.first().and_then(|address| context.groups.of_address(*address));
    let named = service.facts.requests.group.as_ref();
    // Where the owner names a group that has the addresses, that is where they are from.
    let by_name = named.and_then(|name| context.groups.get(name));
    let by_name = by_name.filter(|group| staying.iter().all(|address| group.contains(*address)));
    let group = brand.allocated_from.clone().filter(|from| named.is_none_or(|name| name == from));
    let group = group
        .or_else(|| by_name.or(by_address).map(|group| group.name.clone()))
        .or_else(|| named.cloned())
        .or_else(|| brand.allocated_from.clone())
        .unwrap_or_else(|| api::names::DEFAULT_SERVICE_GROUP.into());
    let now = by_address.map(|group| group.pool_type);
    let pool_type = match service.facts.requests.re_evaluate {
        true => now.or(brand.pool_type),
        false => brand.pool_type.or(now),
    };
    Target {
        addresses: staying,
        group,
        pool_type: pool_type.unwrap_or(PoolType::Local),
        notes: Notes::new(),
        problem: None,
    }
}

/// The group that has all the addresses as the groups are now, whatever it was called and however it was announced
/// before. What the owner has named stays, too, where it is another.
fn now_from<'a>(service: &Service, staying: &[IpAddr], context: Context<'a>) -> Option<&'a Arc<Group>> {
    let groups = context.groups;
    let has_all = |group: &&Arc<Group>| staying.iter().all(|address| group.contains(*address));
    let from = service.facts.brand.allocated_from.as_ref().and_then(|name| groups.get(name));
    let from = from.filter(|group| group.external.is_some() || has_all(group));
    let by_address = || groups.of_address(*staying.first()?).filter(has_all);
    let group = from.or_else(by_address)?;
    let is_named = service.facts.requests.owners_group().is_none_or(|name| *name == group.name);
    is_named.then_some(group)
}

/// What the groups as they are now say against what the Service holds; it keeps it all the same.
pub(super) fn validate(service: &Service, target: &Target, context: Context<'_>) -> Vec<Note> {
    let groups = context.groups;
    let mut notes = Vec::new();
    let from = groups.get(&target.group).filter(|group| group.external.is_some());
    for address in &target.addresses {
        match groups.of_address(*address).or(from) {
            None => notes.push(Note::Warning(format!(
                "{address} is in no pool of any ServiceGroup any more; the Service keeps it"
            ))),
            Some(group) => {
                let problem = select::usable(&group.name, service.key.namespace(), groups).err();
                notes.extend(problem.map(|problem| {
                    Note::Warning(format!("the Service keeps {address}, but {}", problem.message))
                }));
            }
        }
    }
    notes
}

/// Keeps what the Service has. It gains a family that it lacks only where its owner has just asked for it, where
/// it asks to be evaluated again, where its policy demands both, or where it had to leave an address. With
/// `multiPool` it gains addresses of pools that it has none of only where it asks to be evaluated again, or where
/// it had to leave the one that it had.
pub(super) fn stay(
    service: &Service,
    staying: Addresses,
    context: Context<'_>,
    edge: Edge,
) -> Result<Target, Problem> {
    let facts = &service.facts;
    let re_evaluate = facts.requests.re_evaluate;
    let yielded: Vec<IpAddr> = facts
        .ingress
        .iter()
        .copied()
        .filter(|address| context.ledger.must_yield_to(*address, service).is_some())
        .collect();
    let grows = edge.families_grew
        || re_evaluate
        || !yielded.is_empty()
        || facts.policy == FamilyPolicy::RequireDualStack;
    let mut target = kept(service, staying, context);
    if re_evaluate {
        let notes = validate(service, &target, context);
        target.notes.extend(notes);
    }
    if !grows {
        return Ok(target);
    }
    let held = target.addresses.len();
    let mut skipped = Vec::new();
    for family in facts.families.iter() {
        let is_missing = !target.addresses.iter().any(|address| IpFamily::of(*address) == family);
        if !is_missing {
            complete(service, &mut target, family, &yielded, &mut skipped, context);
            continue;
        }
        let gained = select::usable(&target.group, service.key.namespace(), context.groups)
            .and_then(|group| gain(service, group, family, &mut skipped, context));
        match gained {
            Ok(gained) => gained.add_to(&mut target.addresses),
            // With PreferDualStack one family is enough, but its owner has asked for both.
            Err(problem) if facts.policy == FamilyPolicy::PreferDualStack && re_evaluate => {
                target.notes.push(one_family(&problem));
            }
            Err(problem) if facts.policy == FamilyPolicy::PreferDualStack => {
                let Note::Warning(message) = one_family(&problem) else { continue };
                target.add_problem(Problem { message, ..problem });
            }
            Err(problem) => target.add_problem(problem),
        }
    }
    let group = context.groups.get(&target.group);
    target.notes.extend(group.and_then(|group| every::note(group, &skipped)));
    if target.addresses.len() > held {
        in_order(&mut target.addresses, service, group);
    }
    Ok(target)
}

/// With `multiPool`: addresses of the pools of a family from which the Service has none, while it has others.
fn complete(
    service: &Service,
    target: &mut Target,
    family: IpFamily,
    yielded: &[IpAddr],
    skipped: &mut Vec<Skipped>,
    context: Context<'_>,
) {
    let re_evaluate = service.facts.requests.re_evaluate;
    let group = select::usable(&target.group, service.key.namespace(), context.groups).ok();
    let Some(group) = group.filter(|group| picking(service, group) == Picking::EveryPool) else { return };
    let has = |pool: &Pool, addresses: &[IpAddr]| addresses.iter().any(|a| pool.range.contains(*a));
    let is_wanted = |pool: &Pool| !has(pool, &target.addresses) && (re_evaluate || has(pool, yielded));
    match every(service, group, family, is_wanted, context) {
        Ok(gain) => {
            target.addresses.extend(gain.addresses);
            skipped.extend(gain.skipped);
        }
        Err(problem) => target.add_problem(problem),
    }
}

/// By `spec.ipFamilies`, then by the order of the group's pools; what is in none of them comes first.
fn in_order(addresses: &mut [IpAddr], service: &Service, group: Option<&Arc<Group>>) {
    let pool_of = |address| group?.pools.iter().position(|pool| pool.range.contains(address));
    addresses.sort_by_key(|address| {
        let family = service.facts.families.iter().position(|family| family == IpFamily::of(*address));
        (family, pool_of(*address))
    });
}
