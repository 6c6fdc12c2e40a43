//! The decision: one Service → what is to be written on it. Pure: no I/O, no clock, nothing remembered.
//!
//! Every rule of what a Service owner sees is here, and each is a row of a table test.

mod advice;
mod annotations;
mod difference;
mod target;
#[cfg(test)]
mod tests;

pub use advice::advice;
pub use annotations::{Annotation, Annotations};

use std::{fmt, net::IpAddr};

use api::{
    AddressRange, IpFamily,
    address::{from_bits, to_bits},
    names::annotation,
};
use smallvec::SmallVec;

use crate::{
    external::{Ask, Provided},
    inputs::{Groups, Live, Service, Word, compact::Addresses, service::Ownership},
    ledger::{Conflict, Ledger},
    reservation::Reservations,
    select::Problem,
    waiting::Wait,
};

use difference::{left_to, write};
use target::{staying, target};

/// What the decision reads beside the Service.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Accepted groups.
    pub groups: &'a Groups,
    /// Who holds what.
    pub ledger: &'a Ledger,
    /// What live nodes say.
    pub live: &'a Live,
    /// What waits for whom to come back.
    pub reservations: &'a Reservations,
    /// What an IPAM provider has given to the Service; collects what it is to be asked.
    pub provided: &'a Provided,
    /// What the Service holds.
    pub held: &'a [IpAddr],
}

impl Context<'_> {
    /// The lowest address of the range that nobody holds and no stranger answers for.
    pub fn lowest_free(&self, range: &AddressRange) -> Option<IpAddr> {
        let mut rest = *range;
        loop {
            let address = self.ledger.lowest_free(&rest)?;
            if self.live.stranger(address).is_none() {
                return Some(address);
            }
            if address == range.last() {
                return None;
            }
            let next = from_bits(range.family(), to_bits(address) + 1);
            rest = AddressRange::new(next, range.last())?;
        }
    }
}

impl<'a> Context<'a> {
    /// Who stands in the way of the Service coming to the address. Services of two namespaces share where the
    /// address's group lists both.
    fn conflict(self, address: IpAddr, service: &Service) -> Option<Conflict<'a>> {
        let own = service.key.namespace();
        let scope = self.groups.of_address(address).map(|group| &group.scope);
        let unites = |other: &str| other == own || scope.is_some_and(|scope| scope.unites(own, other));
        self.ledger.conflict(address, service, unites)
    }
}

/// What has just changed on the Service: the one thing that its present state does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    /// `spec.ipFamilies` has a family that it had not.
    pub families_grew: bool,
    /// The Service was ours before.
    pub was_ours: bool,
    /// Its owner has just asked for `multiPool`, by annotation.
    pub multi_pool_asked: bool,
}

/// What is to happen to a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is none of ours.
    Leave,
    /// It has what it should have.
    Keep,
    /// It has to be written.
    Write(Write),
    /// It keeps what it has, and its owner is told why it gets no more.
    Refuse(Problem),
    /// An IPAM provider has to be asked first; with the answer it is decided about again.
    Ask(Ask),
}

/// What is to be written on a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// All addresses that are to be published, in order; `None`: the status stays as it is.
    pub ingress: Option<Addresses>,
    /// Annotations to set and to take away.
    pub annotations: Annotations,
    /// Before that, in a request of its own: `externalTrafficPolicy` becomes `Cluster`, for this reason.
    pub cluster_policy: Option<&'static str>,
    /// What its owner is told when it is written.
    pub notes: Notes,
    /// What could nevertheless not be given.
    pub problem: Option<Box<Problem>>,
}

/// What to tell the owner; nearly always one thing.
pub type Notes = SmallVec<[Note; 1]>;

/// Something to tell the owner: an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// These addresses were assigned from the group.
    Assigned(Addresses, Word),
    /// These addresses were released, for this reason.
    Released(Addresses, Why),
    /// Configuration that works, but hardly as meant.
    Warning(String),
}

/// Why addresses are released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The Service is not ours any more.
    Ended,
    /// Its owner has dropped the family.
    Family(IpFamily),
    /// Its owner asks for others.
    Asked,
    /// It is served from this group now.
    Moved(Word),
    /// Another Service has them.
    Left,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Ended => f.write_str(
                "the Service is deleted, or is none of PureLB's any more (spec.type, spec.loadBalancerClass)",
            ),
            Why::Family(family) => write!(f, "spec.ipFamilies has no {family} any more"),
            Why::Asked => write!(f, "{} or spec.loadBalancerIP asks for another", annotation::ADDRESSES),
            Why::Moved(group) => write!(f, "the Service is served from ServiceGroup {group} now"),
            Why::Left => f.write_str("another Service has it"),
        }
    }
}

/// Decides about one Service.
pub fn assign(service: &Service, context: Context<'_>, edge: Edge) -> Decision {
    match service.facts.ownership {
        Ownership::OtherClass => Decision::Leave,
        Ownership::Ended => end(service, edge),
        Ownership::Ours => {
            if let Some(problem) = foreign_status(service, context, edge) {
                return Decision::Refuse(problem);
            }
            match target(service, context, edge) {
                Ok(target) => write(service, target, context),
                Err(problem) => refuse(service, context, problem),
            }
        }
    }
}

/// A Service that is no longer ours gives back what it has from us.
fn end(service: &Service, edge: Edge) -> Decision {
    let facts = &service.facts;
    if !facts.brand.is_any() && !edge.was_ours {
        return Decision::Leave;
    }
    let annotations = remove_annotations(service);
    let ingress = (!facts.ingress.is_empty()).then(Addresses::new);
    if annotations.is_empty() && ingress.is_none() {
        return Decision::Leave;
    }
    let notes = ingress.iter().map(|_| Note::Released(facts.ingress.clone(), Why::Ended)).collect();
    Decision::Write(Write { ingress, annotations, notes, ..Write::default() })
}

/// The annotations of ours that are there, to be removed.
fn remove_annotations(service: &Service) -> Annotations {
    let (brand, requests) = (&service.facts.brand, &service.facts.requests);
    let there = [
        (brand.allocated_by_us, Annotation::AllocatedBy),
        (brand.allocated_from.is_some(), Annotation::AllocatedFrom),
        (brand.pool_type.is_some(), Annotation::PoolType),
        (requests.group_is_ours, Annotation::ServiceGroup),
        (brand.announced, Annotation::AnnouncingIPv4),
        (brand.announced, Annotation::AnnouncingIPv6),
    ];
    Annotations::removing(there.into_iter().filter_map(|(is_there, name)| is_there.then_some(name)))
}

/// A status that another controller wrote: nothing that says it is ours, and addresses that are not.
fn foreign_status(service: &Service, context: Context<'_>, edge: Edge) -> Option<Problem> {
    let facts = &service.facts;
    let unknown = |address: &IpAddr| context.groups.of_address(*address).is_none();
    let is_ours = facts.brand.allocated_by_us || edge.was_ours || !facts.ingress.iter().any(unknown);
    if is_ours && !facts.foreign_ingress {
        return None;
    }
    let message = "status.loadBalancer has entries that are not from PureLB, so it is left alone: \
                   let the controller that wrote them remove them, or set spec.loadBalancerClass to that controller's"
        .to_owned();
    Some(Problem { reason: "foreign_status", message, wait: Some(Wait::AnyGroup) })
}

/// A Service that cannot be served keeps what it holds, unless that belongs to somebody older.
fn refuse(service: &Service, context: Context<'_>, problem: Problem) -> Decision {
    let held = &service.facts.ingress;
    let staying = staying(service, context);
    let yielded: Addresses = held
        .iter()
        .copied()
        .filter(|address| context.ledger.must_yield_to(*address, service).is_some())
        .collect();
    // One shot, whatever comes of it.
    let one_shot = service.facts.requests.re_evaluate.then_some(Annotation::ReEvaluate);
    if yielded.is_empty() {
        return match one_shot {
            None => Decision::Refuse(problem),
            Some(annotation) => Decision::Write(Write {
                annotations: Annotations::removing([annotation]),
                problem: Some(problem.into()),
                ..Write::default()
            }),
        };
    }
    let mut annotations =
        if staying.is_empty() { remove_annotations(service) } else { Annotations::default() };
    annotations.remove(one_shot);
    let mut notes: Notes = yielded.iter().filter_map(|address| left_to(*address, service, context)).collect();
    notes.push(Note::Released(yielded, Why::Left));
    Decision::Write(Write {
        ingress: Some(staying),
        annotations,
        notes,
        problem: Some(problem.into()),
        ..Write::default()
    })
}
