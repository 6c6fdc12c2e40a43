//! What a Service should have: which addresses, from which group.

mod every;
mod fresh;
mod requested;
mod stay;

use api::{IpFamily, PoolType};

pub(super) use self::fresh::excludes;
use self::{fresh::fresh, requested::exactly, stay::stay};
use super::{Context, Edge, Note, Notes};
use crate::{
    inputs::{Group, Service, Word, compact::Addresses, group::Picking},
    select::{self, Problem},
};

/// What a Service should have.
pub(super) struct Target {
    pub(super) addresses: Addresses,
    pub(super) group: Word,
    pub(super) pool_type: PoolType,
    pub(super) notes: Notes,
    pub(super) problem: Option<Box<Problem>>,
}

impl Target {
    fn of(group: &Group, addresses: Addresses) -> Target {
        Target {
            addresses,
            group: group.name.clone(),
            pool_type: group.pool_type,
            notes: Notes::new(),
            problem: None,
        }
    }

    /// Says what could not be given, beside what else could not.
    fn add_problem(&mut self, problem: Problem) {
        let problem = match self.problem.take() {
            Some(first) => first.and(problem),
            None => problem,
        };
        self.problem = Some(problem.into());
    }
}

/// From which of the group's pools the Service is served: its owner's word goes before the group's.
fn picking(service: &Service, group: &Group) -> Picking {
    match (service.facts.requests.multi_pool(), group.picking) {
        // Which ranges there are is the provider's business.
        _ if group.external.is_some() => Picking::InOrder,
        // It excludes what the annotation asks for: only who has addresses already comes here with both.
        (_, Picking::LeastUsed) => Picking::LeastUsed,
        (Ok(Some(true)), _) => Picking::EveryPool,
        (Ok(Some(false)), Picking::EveryPool) => Picking::InOrder,
        (_, picking) => picking,
    }
}

/// What of its published addresses a Service may keep: those of its families that no older Service claims.
pub(super) fn staying(service: &Service, context: Context<'_>) -> Addresses {
    let families = service.facts.families;
    let mut staying = Addresses::new();
    for family in families.iter() {
        staying.extend(service.facts.ingress.iter().copied().filter(|address| {
            IpFamily::of(*address) == family && context.ledger.must_yield_to(*address, service).is_none()
        }));
    }
    staying
}

pub(super) fn target(service: &Service, context: Context<'_>, edge: Edge) -> Result<Target, Problem> {
    let requests = &service.facts.requests;
    let staying = staying(service, context);
    let (reason, message) = match (requests.multi_pool(), requests.addresses()) {
        (Ok(_), Ok(_)) => return target_of(service, staying, context, edge),
        (Err(message), _) => ("bad_multi_pool", message),
        (Ok(_), Err(message)) => ("bad_addresses", message),
    };
    let unreadable = Problem::of_owner(reason, message.to_owned());
    if staying.is_empty() {
        return Err(unreadable);
    }
    // One that is served goes on as if the value were not there, and its owner is told.
    match target_of(service, staying, context, edge) {
        Ok(mut target) => {
            let others = target.problem.take().into_iter();
            target.problem = Some(others.fold(unreadable, |all, other| all.and(*other)).into());
            Ok(target)
        }
        Err(other) => Err(unreadable.and(other)),
    }
}

/// The same, for requests that can be read as far as they count.
fn target_of(
    service: &Service,
    staying: Addresses,
    context: Context<'_>,
    edge: Edge,
) -> Result<Target, Problem> {
    let requested = service.facts.requests.addresses().unwrap_or_default();
    if !requested.is_empty() {
        return exactly(service, requested, staying, context);
    }
    if staying.is_empty() || is_moved(service, &staying, context) {
        let choice = select::by_name(service, context.groups)?;
        let mut target = fresh(service, choice.group, context)?;
        if let Some(warning) = choice.warning {
            target.notes.push(Note::Warning(warning));
        }
        return Ok(target);
    }
    stay(service, staying, context, edge)
}

/// The owner has named another group than the one that the addresses are from.
fn is_moved(service: &Service, staying: &Addresses, context: Context<'_>) -> bool {
    let Some(name) = &service.facts.requests.group else { return false };
    if service.facts.brand.allocated_from.as_ref() == Some(name) {
        return false;
    }
    match context.groups.get(name) {
        Some(group) => !staying.iter().all(|address| group.contains(*address)),
        None => true,
    }
}
