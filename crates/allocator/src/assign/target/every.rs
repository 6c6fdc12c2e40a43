//! `multiPool`: one address of every pool of a family that has a free one and, where it is local, a live node.

use std::net::IpAddr;

use api::{AddressRange, IpFamily, Pool, PoolType, names::annotation};
use ipnet::IpNet;

use super::fresh::tied;
use crate::{
    assign::{Context, Note},
    inputs::{Group, Service},
    select::Problem,
    waiting::Wait,
};

/// How many pools that are left out are named in a message.
const NAMED: usize = 4;

/// What a family's pools give.
#[derive(Debug, Default)]
pub(super) struct Gain {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) skipped: Vec<Skipped>,
}

/// A pool that gives no address, and why.
#[derive(Clone, Copy, Debug)]
pub(super) enum Skipped {
    /// Every address is held, or answered for by a stranger.
    Exhausted(AddressRange),
    /// No live node is on the subnet.
    Unreached(AddressRange, IpNet),
}

impl Skipped {
    fn in_words(self) -> String {
        match self {
            Skipped::Exhausted(range) => format!("{range} has no free address"),
            Skipped::Unreached(range, subnet) => format!("{range} has no live node on its subnet {subnet}"),
        }
    }
}

/// One address of each pool of the family that is wanted.
pub(super) fn every(
    service: &Service,
    group: &Group,
    family: IpFamily,
    is_wanted: impl Fn(&Pool) -> bool,
    context: Context<'_>,
) -> Result<Gain, Problem> {
    let mut gain = Gain::default();
    for pool in group.pools_of(family).filter(|pool| is_wanted(pool)) {
        if group.pool_type == PoolType::Local && !context.live.reaches(&pool.range) {
            gain.skipped.push(Skipped::Unreached(pool.range, pool.subnet));
            continue;
        }
        let tied = tied(service, group, family, std::iter::once(pool), context)?;
        match tied.or_else(|| context.lowest_free(&pool.range)) {
            Some(address) => gain.addresses.push(address),
            None => gain.skipped.push(Skipped::Exhausted(pool.range)),
        }
    }
    Ok(gain)
}

/// What the owner is told of pools that are left out.
pub(super) fn note(group: &Group, skipped: &[Skipped]) -> Option<Note> {
    (!skipped.is_empty()).then(|| {
        Note::Warning(format!(
            "ServiceGroup {} gives no address of some of its pools: {}; when that has changed, annotate the Service \
             with {}: \"true\"",
            group.name,
            in_words(skipped),
            annotation::RE_EVALUATE
        ))
    })
}

/// No pool of the family gives an address.
pub(super) fn no_range(group: &Group, family: IpFamily, skipped: &[Skipped]) -> Problem {
    let is_unreached = |skipped: &Skipped| matches!(skipped, Skipped::Unreached(..));
    let (reason, cure) = match skipped.iter().filter(|skipped| is_unreached(skipped)).count() {
        0 => ("exhausted", "add a pool, release an address, or name another group"),
        count if count == skipped.len() => {
            ("no_live_node", "start a node agent on a node of such a subnet, or name another group")
        }
        _ => ("exhausted", "release an address, start a node agent on such a subnet, or name another group"),
    };
    let message =
        format!("ServiceGroup {} gives no {family} address: {}; {cure}", group.name, in_words(skipped));
    Problem { reason, message, wait: Some(Wait::Ranges(group.name.clone(), family)) }
}

fn in_words(skipped: &[Skipped]) -> String {
    let mut words: Vec<String> = skipped.iter().take(NAMED).map(|skipped| skipped.in_words()).collect();
    if let more @ 1.. = skipped.len().saturating_sub(NAMED) {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}
