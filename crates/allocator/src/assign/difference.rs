//! The difference between what a Service should have and what it has; none, and nothing is written.

use std::net::IpAddr;

use api::{
    PoolType,
    names::{PURELB, annotation},
};

use super::{Annotations, Context, Decision, Note, Text, Write, target::Target};
use crate::inputs::{Service, compact::Addresses};

/// What an owner and an operator have to know of a local pool.
pub const UNANNOUNCED: &str = "addresses of local pools are assigned, but this version announces none of them yet: remote pools are announced";

/// The difference between what a Service should have and what it has.
pub(super) fn write(service: &Service, target: Target, context: Context<'_>) -> Decision {
    let facts = &service.facts;
    let mut annotations = Annotations::new();
    let mut set = |differs: bool, name: &'static str, value: Option<Text>| {
        if differs {
            annotations.push((name, value));
        }
    };
    let brand = &facts.brand;
    set(!brand.allocated_by_us, annotation::ALLOCATED_BY, Some(Text::Word(PURELB)));
    set(
        brand.allocated_from.as_ref() != Some(&target.group),
        annotation::ALLOCATED_FROM,
        Some(Text::Name(target.group.clone())),
    );
    let pool_type = target.pool_type;
    set(brand.pool_type != Some(pool_type), annotation::POOL_TYPE, Some(Text::Word(pool_type.as_str())));
    set(
        facts.requests.group.as_ref() != Some(&target.group),
        annotation::SERVICE_GROUP,
        Some(Text::Name(target.group.clone())),
    );
    set(facts.requests.re_evaluate, annotation::RE_EVALUATE, None);
    if brand.announced && pool_type == PoolType::Remote {
        set(true, annotation::ANNOUNCING_IPV4, None);
        set(true, annotation::ANNOUNCING_IPV6, None);
    }
    let cluster_policy = cluster_policy(service, &target, context);
    let mut notes = target.notes;
    let minus = |a: &[IpAddr], b: &[IpAddr]| -> Addresses {
        a.iter().copied().filter(|address| !b.contains(address)).collect()
    };
    let (gained, lost) = (minus(&target.addresses, &facts.ingress), minus(&facts.ingress, &target.addresses));
    if !gained.is_empty() {
        if pool_type == PoolType::Local {
            notes.push(Note::Warning(format!("ServiceGroup {}: {UNANNOUNCED}", target.group)));
        }
        notes.push(Note::Assigned(gained, target.group.clone()));
    }
    notes.extend(lost.iter().filter_map(|address| left_to(*address, service, context)));
    if !lost.is_empty() {
        notes.push(Note::Released(lost));
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
    write.problem.map_or(Decision::Keep, Decision::Refuse)
}

/// Why a Service loses an address that its owner has not given up.
pub(super) fn left_to(address: IpAddr, service: &Service, context: Context<'_>) -> Option<Note> {
    let holder = context.ledger.must_yield_to(address, service)?;
    Some(Note::Warning(format!(
        "{address} is left to {}, the older of two Services that had it and may not share it: to share it set {} on \
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
        return Some("a shared address works only with Cluster");
    }
    let is_local = target.pool_type == PoolType::Local && !facts.requests.allow_local;
    is_local.then_some(
        "the address is from a local pool, which one node announces; purelb.io/allow-local: \"true\" keeps Local",
    )
}
