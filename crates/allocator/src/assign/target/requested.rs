//! A Service whose owner asks for very addresses.

use std::net::IpAddr;

use api::{IpFamily, names::annotation};
use k8s_openapi::jiff::Timestamp;

use super::{
    Target, is_moved,
    stay::{kept, validate},
};
use crate::{
    assign::{Context, Note},
    external::ask::group_of_addresses,
    inputs::{Group, Service, compact::Addresses, service::FamilyPolicy},
    ledger::Conflict,
    select::{self, Problem},
    waiting::Wait,
};

/// The reason of a problem: a stranger answers for the address.
pub(super) const ADDRESS_CONFLICT: &str = "address_conflict";

/// The very addresses that the owner asks for, as far as the Service's families and policy go.
pub(super) fn exactly(
    service: &Service,
    requested: &[IpAddr],
    staying: Addresses,
    context: Context<'_>,
) -> Result<Target, Problem> {
    let facts = &service.facts;
    let stranger = requested.iter().find(|address| !facts.families.contains(IpFamily::of(**address)));
    let of_families: Addresses = facts
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
    let others = not_asked_for(service, &of_families, &staying);
    let is_held = of_families.iter().all(|address| staying.contains(address));
    if is_held && of_families.len() + others.len() == staying.len() && !is_moved(service, &staying, context) {
        let mut target = kept(service, staying, context);
        if facts.requests.re_evaluate {
            target.notes.extend(validate(service, &target, context));
        }
        return Ok(target);
    }
    let by_name = || select::by_name(service, context.groups).map(|choice| choice.group);
    if let Some(group) = group_of_addresses(service, &of_families, context.groups, by_name)? {
        for address in of_families.iter().filter(|address| !staying.contains(address)) {
            check_free(service, *address, context)?;
        }
        context.provided.exactly(service, group, &of_families)?;
        return Ok(beside(service, group, &of_families, &others));
    }
    let group = select::by_addresses(service, &of_families, context.groups)?;
    for address in of_families.iter().filter(|address| !staying.contains(address)) {
        check_free(service, *address, context)?;
    }
    Ok(beside(service, group, &of_families, &others))
}

/// What a Service with PreferDualStack holds of a family that its owner names no address of: that is not given up by
/// naming one of the other.
fn not_asked_for(service: &Service, requested: &[IpAddr], staying: &[IpAddr]) -> Addresses {
    let is_named =
        |address: &IpAddr| requested.iter().any(|one| IpFamily::of(*one) == IpFamily::of(*address));
    let prefers = service.facts.policy == FamilyPolicy::PreferDualStack;
    staying.iter().copied().filter(|address| prefers && !is_named(address)).collect()
}

/// The addresses that are asked for, in the order of the families, and beside them the others as far as they are from
/// the same group.
fn beside(service: &Service, group: &Group, requested: &[IpAddr], others: &[IpAddr]) -> Target {
    let facts = &service.facts;
    // From its own group also what is in none of its pools any more.
    let is_same = facts.brand.allocated_from.as_ref() == Some(&group.name);
    let others = others.iter().filter(|address| is_same || group.contains(**address));
    let all: Addresses = requested.iter().chain(others).copied().collect();
    let of = |family| all.iter().copied().filter(move |address| IpFamily::of(*address) == family);
    let mut target = Target::of(group, facts.families.iter().flat_map(of).collect());
    if let Some(family) = facts.families.iter().find(|family| of(*family).next().is_none()) {
        target.notes.push(Note::Warning(format!(
            "the Service has no {family} address, which is enough for PreferDualStack: {} or spec.loadBalancerIP asks \
             for none; name one of each family in {} to have both",
            annotation::ADDRESSES,
            annotation::ADDRESSES
        )));
    }
    target
}

/// Whether the Service may come to the address.
pub(super) fn check_free(service: &Service, address: IpAddr, context: Context<'_>) -> Result<(), Problem> {
    let wait = Some(Wait::Address(address));
    if let Some(stranger) = context.live.stranger(address) {
        let message = format!(
            "{address} is answered for by {}, which is none of our nodes, as node {} reports: take the address off \
             that machine, or ask for another",
            stranger.link_layer_address, stranger.node
        );
        return Err(Problem { reason: ADDRESS_CONFLICT, message, wait });
    }
    if let Some(reservation) = context.reservations.get(address)
        && reservation.service != service.key
    {
        let until = Timestamp::from_second(reservation.until).unwrap_or(Timestamp::MAX);
        let message = format!(
            "{address} is reserved until {until} for {}, which had it last (stickyFor of its ServiceGroup): ask for \
             another address, or wait",
            reservation.service
        );
        return Err(Problem { reason: "address_reserved", message, wait });
    }
    match context.conflict(address, service) {
        None => Ok(()),
        Some(Conflict::InUse(holder)) => {
            let message = format!(
                "{address} is in use by {}: ask for another address, or share it by setting {} on both to the same \
                 key, in one namespace or in two that its ServiceGroup lists",
                holder.service,
                annotation::ALLOW_SHARED_IP
            );
            Err(Problem { reason: "address_in_use", message, wait })
        }
        Some(Conflict::PortCollision(holder, port)) => {
            let message = format!(
                "{port} on the shared address {address} is already in use by {}: use another port, or another sharing key",
                holder.service
            );
            Err(Problem { reason: "port_conflict", message, wait })
        }
    }
}
