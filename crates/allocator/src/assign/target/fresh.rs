//! A Service that gets addresses of a group.

use std::{net::IpAddr, sync::Arc};

use api::{IpFamily, Pool, names::annotation};

use super::{
    Target,
    every::{self, Skipped},
    picking,
    requested::{ADDRESS_CONFLICT, check_free},
};
use crate::{
    assign::{Context, Note},
    inputs::{Group, Service, compact::Addresses, group::Picking, service::FamilyPolicy},
    select::Problem,
    waiting::Wait,
};

/// New addresses from a group.
pub(super) fn fresh(service: &Service, group: &Arc<Group>, context: Context<'_>) -> Result<Target, Problem> {
    excludes(service, group)?;
    let mut target = Target::of(group, Addresses::new());
    let mut skipped = Vec::new();
    let mut problem: Option<Problem> = None;
    for family in service.facts.families.iter() {
        match gain(service, group, family, &mut skipped, context) {
            Ok(gained) => gained.add_to(&mut target.addresses),
            Err(found) if service.facts.policy == FamilyPolicy::RequireDualStack => return Err(found),
            Err(found) => {
                problem = Some(match problem {
                    Some(first) => first.and(found),
                    None => found,
                });
            }
        }
    }
    match problem {
        Some(problem) if target.addresses.is_empty() => Err(problem),
        problem => {
            if let Some(note) = every::note(group, &skipped) {
                target.notes.push(note);
            }
            if let Some(problem) = problem {
                target.notes.push(one_family(&problem));
            }
            Ok(target)
        }
    }
}

/// Whether the group takes one of its pools for every Service and this one asks for all of them: who is right is not
/// for us to say.
pub(in crate::assign) fn excludes(service: &Service, group: &Group) -> Result<(), Problem> {
    if group.picking != Picking::LeastUsed || service.facts.requests.multi_pool() != Ok(Some(true)) {
        return Ok(());
    }
    let message = format!(
        "{}: \"true\" and balancePools of ServiceGroup {} are mutually exclusive: take the annotation away for one \
         address a family, or name a group without balancePools",
        annotation::MULTI_POOL,
        group.name
    );
    Err(Problem { reason: "bad_multi_pool", message, wait: Some(Wait::Group(group.name.clone())) })
}

/// What the owner of a Service with PreferDualStack is told that gets one family only.
pub(super) fn one_family(problem: &Problem) -> Note {
    Note::Warning(format!(
        "the Service has one family only, which is enough for PreferDualStack: {}; then set {}: \"true\" for the other",
        problem.message,
        annotation::RE_EVALUATE
    ))
}

/// The addresses of a family that the Service has none of: one, or with `multiPool` one of each pool.
pub(super) fn gain(
    service: &Service,
    group: &Group,
    family: IpFamily,
    skipped: &mut Vec<Skipped>,
    context: Context<'_>,
) -> Result<Gained, Problem> {
    match picking(service, group) {
        Picking::EveryPool => {
            let gain = every::every(service, group, family, |_| true, context)?;
            let problem = gain.addresses.is_empty().then(|| match gain.skipped.is_empty() {
                true => no_room(group, family),
                false => every::no_range(group, family, &gain.skipped),
            });
            skipped.extend(gain.skipped);
            problem.map_or(Ok(Gained::Several(gain.addresses)), Err)
        }
        picking => pick(service, group, family, picking, context).map(Gained::One),
    }
}

/// Nearly always one: no list is made for it.
pub(super) enum Gained {
    One(IpAddr),
    Several(Vec<IpAddr>),
}

impl Gained {
    pub(super) fn add_to(self, addresses: &mut Addresses) {
        match self {
            Gained::One(address) => drop(addresses.insert(address)),
            Gained::Several(more) => addresses.extend(more),
        }
    }
}

/// One address of a family: the one that the Service is tied to in the group, else the lowest that is free in the
/// first pool that has one, or in the one of which the fewest are in use.
fn pick(
    service: &Service,
    group: &Group,
    family: IpFamily,
    picking: Picking,
    context: Context<'_>,
) -> Result<IpAddr, Problem> {
    if group.external.is_some() {
        let address = context.provided.pick(service, group, family)?;
        return check_free(service, address, context).map(|()| address);
    }
    let mut pools = group.pools_of(family);
    if let Some(address) = tied(service, group, family, pools.clone(), context)? {
        return Ok(address);
    }
    let free = match picking {
        Picking::LeastUsed => {
            let free = pools.filter_map(|pool| Some((pool, context.lowest_free(&pool.range)?)));
            free.min_by_key(|(pool, _)| context.ledger.count(&pool.range)).map(|(_, address)| address)
        }
        Picking::InOrder | Picking::EveryPool => pools.find_map(|pool| context.lowest_free(&pool.range)),
    };
    free.ok_or_else(|| no_room(group, family))
}

/// The address of these pools that the Service is tied to: by its sharing key, of whose addresses there is more
/// than one only where owners have asked for them by address or with `multiPool`; or because it is reserved for it
/// by a write that did not get through, so that no other may have it meanwhile.
pub(super) fn tied<'a>(
    service: &Service,
    group: &Group,
    family: IpFamily,
    pools: impl Iterator<Item = &'a Pool> + Clone,
    context: Context<'_>,
) -> Result<Option<IpAddr>, Problem> {
    let is_from = |address: &IpAddr| {
        IpFamily::of(*address) == family && pools.clone().any(|pool| pool.range.contains(*address))
    };
    if let Some(key) = &service.facts.requests.sharing_key {
        let own = service.key.namespace();
        let others = group.scope.namespaces().iter().map(AsRef::as_ref);
        let others = others.filter(|other| *other != own && group.scope.lists(own));
        let namespaces = std::iter::once(own).chain(others);
        let shared = namespaces.flat_map(|namespace| context.ledger.shared(namespace, key)).copied();
        let mut problem = None;
        for address in shared.filter(is_from) {
            match check_free(service, address, context) {
                Ok(()) => return Ok(Some(address)),
                Err(error) => problem = Some(error),
            }
        }
        match problem {
            // Only the stranger's going can cure that.
            Some(problem) if problem.reason == ADDRESS_CONFLICT => return Err(problem),
            Some(problem) => {
                let wait = Some(Wait::Key(service.key.namespace().into(), key.clone()));
                return Err(Problem { wait, ..problem });
            }
            None => {}
        }
    }
    // What has waited for it since it was last here comes behind.
    let sticky = context.reservations.of(&service.key);
    let mut reserved = context.held.iter().chain(sticky).copied().filter(is_from);
    Ok(reserved.find(|address| check_free(service, *address, context).is_ok()))
}

pub(super) fn no_room(group: &Group, family: IpFamily) -> Problem {
    if group.has(family) {
        let message = format!(
            "ServiceGroup {} is exhausted: it has no free {family} address: add a pool, release an address, or name another group",
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
