//! A Service that has addresses and keeps them.

use std::net::IpAddr;

use api::{IpFamily, PoolType};

use super::{Target, fresh::pick};
use crate::{
    assign::{Context, Edge, Note},
    inputs::{Service, service::FamilyPolicy},
    select::{self, Problem},
};

/// The addresses that the Service has, with what is known of where they are from.
pub(super) fn kept(service: &Service, staying: Vec<IpAddr>, context: Context<'_>) -> Target {
    let brand = &service.facts.brand;
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
    let pool_type = brand.pool_type.or(by_address.map(|group| group.pool_type));
    Target {
        addresses: staying,
        group,
        pool_type: pool_type.unwrap_or(PoolType::Local),
        notes: Vec::new(),
        problem: None,
    }
}

/// What the groups as they are now say against what the Service holds; it keeps it all the same.
fn validate(service: &Service, target: &Target, context: Context<'_>) -> Vec<Note> {
    let groups = context.groups;
    let mut notes = Vec::new();
    for address in &target.addresses {
        match groups.of_address(*address) {
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
/// it asks to be evaluated again, where its policy demands both, or where it had to leave an address.
pub(super) fn stay(
    service: &Service,
    staying: Vec<IpAddr>,
    context: Context<'_>,
    edge: Edge,
) -> Result<Target, Problem> {
    let facts = &service.facts;
    let re_evaluate = facts.requests.re_evaluate;
    let has_yielded =
        facts.ingress.iter().any(|address| context.ledger.must_yield_to(*address, service).is_some());
    let grows =
        edge.families_grew || re_evaluate || has_yielded || facts.policy == FamilyPolicy::RequireDualStack;
    let mut target = kept(service, staying, context);
    if re_evaluate {
        let notes = validate(service, &target, context);
        target.notes.extend(notes);
    }
    if !grows {
        return Ok(target);
    }
    let missing = facts
        .families
        .iter()
        .filter(|family| !target.addresses.iter().any(|address| IpFamily::of(*address) == *family));
    let missing: Vec<IpFamily> = missing.collect();
    for family in missing {
        let gained = select::usable(&target.group, service.key.namespace(), context.groups)
            .and_then(|group| pick(service, group, family, context));
        match gained {
            Ok(address) => target.addresses.push(address),
            // With PreferDualStack one family is enough.
            Err(_) if facts.policy == FamilyPolicy::PreferDualStack => {}
            Err(problem) => target.problem = Some(problem),
        }
    }
    let order = |address: &IpAddr| facts.families.iter().position(|family| family == IpFamily::of(*address));
    target.addresses.sort_by_key(order);
    Ok(target)
}
