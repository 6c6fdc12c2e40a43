//! What an owner has to be told of an edit that changes nothing by itself. Not part of the decision: nothing is
//! written for it.

use api::names::annotation;

use super::{Context, Edge, Note, target::excludes};
use crate::inputs::Service;

/// A Service is evaluated once, so `multiPool` on one that has its addresses waits for a fresh evaluation.
pub fn advice(service: &Service, context: Context<'_>, edge: Edge) -> Option<Note> {
    let facts = &service.facts;
    if !edge.multi_pool_asked || facts.ingress.is_empty() {
        return None;
    }
    if facts.requests.re_evaluate || !facts.requests.asks_for_no_addresses() {
        return None;
    }
    let group = context.groups.get(facts.brand.allocated_from.as_ref()?)?;
    if let Err(problem) = excludes(service, group) {
        return Some(Note::Warning(problem.message));
    }
    let mut pools = facts.families.iter().flat_map(|family| group.pools_of(family));
    let gives_more = pools.any(|pool| !facts.ingress.iter().any(|address| pool.range.contains(*address)));
    gives_more.then(|| {
        Note::Warning(format!(
            "{}: \"true\" gives a Service that has its addresses already no more by itself: to get one of every pool \
             of ServiceGroup {} now, set {}: \"true\", too",
            annotation::MULTI_POOL,
            group.name,
            annotation::RE_EVALUATE
        ))
    })
}
