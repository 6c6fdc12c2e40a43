//! A Service that gets addresses of a group.

use std::{net::IpAddr, sync::Arc};

use api::{IpFamily, names::annotation};

use super::{Target, requested::check_free};
use crate::{
    assign::Context,
    inputs::{Group, Service, service::FamilyPolicy},
    select::Problem,
    waiting::Wait,
};

/// New addresses from a group.
pub(super) fn fresh(service: &Service, group: &Arc<Group>, context: Context<'_>) -> Result<Target, Problem> {
    let mut addresses = Vec::with_capacity(2);
    let mut first_problem = None;
    for family in service.facts.families.iter() {
        match pick(service, group, family, context) {
            Ok(address) => addresses.push(address),
            Err(problem) if service.facts.policy == FamilyPolicy::RequireDualStack => return Err(problem),
            Err(problem) => first_problem = first_problem.or(Some(problem)),
        }
    }
    match first_problem {
        Some(problem) if addresses.is_empty() => Err(problem),
        _ => Ok(Target::of(group, addresses)),
    }
}

/// One address of a family: the one that the Service's sharing key is tied to in the group, else the lowest that
/// is free. There is more than one only where owners have asked for them by address.
pub(super) fn pick(
    service: &Service,
    group: &Group,
    family: IpFamily,
    context: Context<'_>,
) -> Result<IpAddr, Problem> {
    if let Some(key) = &service.facts.requests.sharing_key {
        let own = service.key.namespace();
        let others = group.scope.namespaces().iter().map(AsRef::as_ref);
        let others = others.filter(|other| *other != own && group.scope.lists(own));
        let namespaces = std::iter::once(own).chain(others);
        let shared = namespaces.flat_map(|namespace| context.ledger.shared(namespace, key)).copied();
        let of_group = shared.filter(|address| IpFamily::of(*address) == family && group.contains(*address));
        let mut problem = None;
        for address in of_group {
            match check_free(service, address, context) {
                Ok(()) => return Ok(address),
                Err(error) => problem = Some(error),
            }
        }
        if let Some(problem) = problem {
            let wait = Some(Wait::Key(service.key.namespace().into(), key.clone()));
            return Err(Problem { wait, ..problem });
        }
    }
    // What is reserved for it by a write that did not get through is as good, and no other may have it meanwhile.
    let reserved = context.ledger.held_by(&service.key).iter().copied();
    let reserved = reserved.filter(|address| IpFamily::of(*address) == family && group.contains(*address));
    if let Some(address) = reserved.into_iter().find(|a| context.conflict(*a, service).is_none()) {
        return Ok(address);
    }
    let free = group.pools_of(family).find_map(|pool| context.ledger.lowest_free(&pool.range));
    free.ok_or_else(|| no_room(group, family))
}

fn no_room(group: &Group, family: IpFamily) -> Problem {
    if group.has(family) {
        let message = format!(
            "ServiceGroup {} has no free {family} address: add a pool, release an address, or name another group",
            group.name
        );
        let wait = Some(Wait::Room(group.name.clone(), family));
        Problem { reason: "exhausted", message, wait }
    } else {
        let message = format!(
            "ServiceGroup {} has no {family} pool: add one, or name another group with the annotation {}",
            group.name,
            annotation::SERVICE_GROUP
        );
        Problem { reason: "no_pool", message, wait: Some(Wait::Group(group.name.clone())) }
    }
}
