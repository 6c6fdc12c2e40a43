//! What a Service should have: which addresses, from which group.

use std::{net::IpAddr, sync::Arc};

use api::{IpFamily, PoolType, names::annotation};

use super::{Context, Edge, Note};
use crate::{
    inputs::{Group, Service, service::FamilyPolicy},
    ledger::Conflict,
    select::{self, Problem},
    waiting::Wait,
};

/// What a Service should have.
pub(super) struct Target {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) group: Arc<str>,
    pub(super) pool_type: PoolType,
    pub(super) notes: Vec<Note>,
    pub(super) problem: Option<Problem>,
}

impl Target {
    fn of(group: &Group, addresses: Vec<IpAddr>) -> Target {
        Target {
            addresses,
            group: group.name.clone(),
            pool_type: group.pool_type,
            notes: Vec::new(),
            problem: None,
        }
    }
}

/// What of its published addresses a Service may keep: those of its families that no older Service claims.
pub(super) fn staying(service: &Service, context: Context<'_>) -> Vec<IpAddr> {
    let families = service.facts.families;
    let mut staying = Vec::with_capacity(service.facts.ingress.len());
    for family in families.iter() {
        staying.extend(service.facts.ingress.iter().copied().filter(|address| {
            IpFamily::of(*address) == family && context.ledger.must_yield_to(*address, service).is_none()
        }));
    }
    staying
}

pub(super) fn target(service: &Service, context: Context<'_>, edge: Edge) -> Result<Target, Problem> {
    let requests = &service.facts.requests;
    if requests.multi_pool {
        let message = format!("{} is not supported by this version yet: remove it", annotation::MULTI_POOL);
        return Err(Problem::of_owner("unsupported", message));
    }
    let requested = match &requests.addresses {
        Ok(addresses) => addresses,
        Err(message) => return Err(Problem::of_owner("bad_addresses", message.clone())),
    };
    let staying = staying(service, context);
    if !requested.is_empty() {
        return exactly(service, requested, staying, context);
    }
    if staying.is_empty() || is_moved(service, &staying, context) {
        return fresh(service, select::by_name(service, context.groups)?, context);
    }
    stay(service, staying, context, edge)
}

/// The owner has named another group than the one that the addresses are from.
fn is_moved(service: &Service, staying: &[IpAddr], context: Context<'_>) -> bool {
    let Some(name) = &service.facts.requests.group else { return false };
    if service.facts.brand.allocated_from.as_ref() == Some(name) {
        return false;
    }
    match context.groups.get(name) {
        Some(group) => !staying.iter().all(|address| group.contains(*address)),
        None => true,
    }
}

/// The very addresses that the owner asks for, as far as the Service's families and policy go.
fn exactly(
    service: &Service,
    requested: &[IpAddr],
    staying: Vec<IpAddr>,
    context: Context<'_>,
) -> Result<Target, Problem> {
    let facts = &service.facts;
    let stranger = requested.iter().find(|address| !facts.families.contains(IpFamily::of(**address)));
    let of_families: Vec<IpAddr> = facts
        .families
        .iter()
        .filter_map(|family| requested.iter().copied().find(|address| IpFamily::of(*address) == family))
        .collect();
    if let Some(stranger) = stranger
        && (facts.policy != FamilyPolicy::PreferDualStack || of_families.is_empty())
    {
        let message = format!(
            "{stranger} is {}, which spec.ipFamilies has not: ask for an address of its families, or add the family",
            IpFamily::of(*stranger)
        );
        return Err(Problem::of_owner("address_family", message));
    }
    if facts.policy == FamilyPolicy::RequireDualStack && of_families.len() < 2 {
        let message = format!(
            "RequireDualStack needs two addresses, but only {} is asked for: expected an IPv4 and an IPv6 address in {}",
            requested.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            annotation::ADDRESSES
        );
        return Err(Problem::of_owner("address_family", message));
    }
    let binding = facts.requests.group.as_ref().filter(|_| !facts.requests.group_is_ours);
    let is_held = of_families.iter().all(|address| staying.contains(address));
    if is_held && of_families.len() == staying.len() && !is_moved(service, &staying, context) {
        return Ok(kept(service, staying, context));
    }
    let group = select::by_addresses(&of_families, binding, context.groups)?;
    for address in of_families.iter().filter(|address| !staying.contains(address)) {
        check_free(service, *address, context)?;
    }
    Ok(Target::of(group, of_families))
}

/// Whether the Service may come to the address.
fn check_free(service: &Service, address: IpAddr, context: Context<'_>) -> Result<(), Problem> {
    let wait = Some(Wait::Address(address));
    match context.ledger.conflict(address, service) {
        None => Ok(()),
        Some(Conflict::InUse(holder)) => {
            let message = format!(
                "{address} is in use by {}: ask for another address, or share it by setting {} on both to the same \
                 key in one namespace",
                holder.service,
                annotation::ALLOW_SHARED_IP
            );
            Err(Problem { reason: "address_in_use", message, wait })
        }
        Some(Conflict::PortCollision(holder, port)) => {
            let message = format!(
                "{port} on the shared address {address} is taken by {}: use another port, or another sharing key",
                holder.service
            );
            Err(Problem { reason: "port_collision", message, wait })
        }
    }
}

/// New addresses from a group.
fn fresh(service: &Service, group: &Arc<Group>, context: Context<'_>) -> Result<Target, Problem> {
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
fn pick(service: &Service, group: &Group, family: IpFamily, context: Context<'_>) -> Result<IpAddr, Problem> {
    if let Some(key) = &service.facts.requests.sharing_key {
        let shared = context.ledger.shared(service.key.namespace(), key).iter().copied();
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
    if let Some(address) = reserved.into_iter().find(|a| context.ledger.conflict(*a, service).is_none()) {
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

/// The addresses that the Service has, with what is known of where they are from.
fn kept(service: &Service, staying: Vec<IpAddr>, context: Context<'_>) -> Target {
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

/// Keeps what the Service has. It gains a family that it lacks only where its owner has just asked for it, where
/// it asks to be evaluated again, where its policy demands both, or where it had to leave an address.
fn stay(
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
        let strangers =
            target.addresses.iter().filter(|address| context.groups.of_address(**address).is_none());
        target.notes.extend(strangers.map(|address| {
            Note::Warning(format!(
                "{address} is in no pool of any ServiceGroup any more; the Service keeps it"
            ))
        }));
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
        let gained = select::named(&target.group, context.groups)
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
