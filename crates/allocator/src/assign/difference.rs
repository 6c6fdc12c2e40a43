//! The difference between what a Service should have and what it has; none, and nothing is written.

use std::net::IpAddr;

use api::{IpFamily, PoolType, names::annotation};

use super::{Annotation, Annotations, Context, Decision, Note, Why, Write, target::Target};
use crate::inputs::{Service, Word, compact::Addresses, service::Facts};

/// The difference between what a Service should have and what it has.
pub(super) fn write(service: &Service, target: Target, context: Context<'_>) -> Decision {
    let facts = &service.facts;
    let annotations = annotations(service, &target);
    let cluster_policy = cluster_policy(service, &target, context);
    let (mut notes, group) = (target.notes, target.group);
    let (gained, lost) = match facts.ingress.is_empty() {
        true => (target.addresses.clone(), Addresses::new()),
        false => (target.addresses.without(&facts.ingress), facts.ingress.without(&target.addresses)),
    };
    if !gained.is_empty() {
        notes.push(Note::Assigned(gained, group.clone()));
    }
    if !lost.is_empty() {
        notes.extend(lost.iter().filter_map(|address| left_to(*address, service, context)));
        notes.extend(released(&lost, service, &group, context));
    }
    let write = Write {
        ingress: (target.addresses != facts.ingress).then_some(target.addresses),
        annotations,
        cluster_policy,
        notes,
        problem: target.problem,
    };
    if write.ingress.is_some() || !write.annotations.is_empty() || write.cluster_policy.is_some() {
        return Decision::Write(write);
    }
    write.problem.map_or(Decision::Keep, |problem| Decision::Refuse(*problem))
}

/// What is released, one note for each reason.
fn released(lost: &[IpAddr], service: &Service, group: &Word, context: Context<'_>) -> Vec<Note> {
    let facts = &service.facts;
    let why = |address: IpAddr| match () {
        () if context.ledger.must_yield_to(address, service).is_some() => Why::Left,
        () if !facts.families.contains(IpFamily::of(address)) => Why::Family(IpFamily::of(address)),
        () if !facts.requests.asks_for_no_addresses() => Why::Asked,
        () => Why::Moved(group.clone()),
    };
    let mut notes: Vec<(Why, Addresses)> = Vec::new();
    for address in lost {
        let why = why(*address);
        match notes.iter_mut().find(|(known, _)| *known == why) {
            Some((_, addresses)) => drop(addresses.insert(*address)),
            None => notes.push((why, (*address).into())),
        }
    }
    notes.into_iter().map(|(why, addresses)| Note::Released(addresses, why)).collect()
}

/// What of our annotations is not as it should be.
fn annotations(service: &Service, target: &Target) -> Annotations {
    let Facts { brand, requests, .. } = &service.facts;
    let differs = [
        (!brand.allocated_by_us, Annotation::AllocatedBy),
        (brand.allocated_from.as_ref() != Some(&target.group), Annotation::AllocatedFrom),
        (brand.pool_type != Some(target.pool_type), Annotation::PoolType),
        (requests.group.as_ref() != Some(&target.group), Annotation::ServiceGroup),
    ];
    let set = differs.into_iter().filter_map(|(differs, name)| differs.then_some(name));
    let mut annotations = Annotations::setting(set, &target.group, target.pool_type);
    annotations.remove(requests.re_evaluate.then_some(Annotation::ReEvaluate));
    if brand.announced && target.pool_type == PoolType::Remote {
        annotations.remove([Annotation::AnnouncingIPv4, Annotation::AnnouncingIPv6]);
    }
    annotations
}

/// Why a Service loses an address that its owner has not given up.
pub(super) fn left_to(address: IpAddr, service: &Service, context: Context<'_>) -> Option<Note> {
    let holder = context.ledger.must_yield_to(address, service)?;
    Some(Note::Warning(format!(
        "{address} is left to {}: both had it and may not share it, and this Service is the one that was edited so, or the \
         younger: to share it set {} on \
         both to the same key and let their ports differ",
        holder.service,
        annotation::ALLOW_SHARED_IP
    )))
}

/// Why policy `Local` cannot stay. An address is shared, too, where a Service whose key was taken away is still
/// beside others that have theirs.
fn cluster_policy(service: &Service, target: &Target, context: Context<'_>) -> Option<&'static str> {
    let facts = &service.facts;
    if !facts.traffic_policy_local {
        return None;
    }
    let mut holders = target.addresses.iter().flat_map(|address| context.ledger.holders(*address));
    if facts.requests.sharing_key.is_some()
        || holders.any(|holder| holder.service != service.key && holder.sharing_key.is_some())
    {
        return Some(
            "a shared address works only with Cluster; to keep Local, take purelb.io/allow-shared-ip away and let the \
             Service have an address of its own",
        );
    }
    let is_local = target.pool_type == PoolType::Local && !facts.requests.allow_local;
    is_local.then_some(
        "the address is from a local pool, which one node announces; purelb.io/allow-local: \"true\" keeps Local",
    )
}
