//! A Service and what is going on with it.

use std::{sync::Arc, time::Instant};

use super::moment::Moment;
use crate::{
    assign::{Edge, Write},
    inputs::{Service, compact::ShortText, service::Ownership},
};

/// A Service and what is going on with it.
pub(super) struct Entry {
    pub(super) service: Arc<Service>,
    /// When the change that is not yet decided about was seen.
    pub(super) seen: Moment,
    /// When our last write was answered.
    pub(super) written: Option<Moment>,
    /// A write came too late: what was there first has still to be seen. Until then nothing is decided, and the
    /// ledger keeps what it has.
    pub(super) behind: Option<Box<Behind>>,
    /// What has changed since the last decision.
    pub(super) edge: Edge,
    /// A write is under way; the ledger holds what it may publish.
    pub(super) in_flight: bool,
    /// Something has changed while a write was under way.
    pub(super) again: bool,
    /// The Service is gone while a write was under way.
    pub(super) gone: bool,
    /// A list lacked the Service while a write was under way.
    pub(super) missing: bool,
    /// The ledger keeps what a repetition of the last write may still publish, which nobody waits for any more.
    pub(super) unsure: bool,
    /// Writes in a row that were of no use.
    pub(super) failures: u8,
}

/// A write that came too late.
pub(super) struct Behind {
    /// What it was conditional on.
    pub(super) version: ShortText,
    /// It may have come too late for one of its own repetitions.
    pub(super) is_unsure: bool,
}

impl Entry {
    pub(super) fn new(service: Arc<Service>, seen: Instant) -> Entry {
        Entry {
            service,
            seen: seen.into(),
            written: None,
            behind: None,
            edge: Edge::default(),
            in_flight: false,
            again: false,
            gone: false,
            missing: false,
            unsure: false,
            failures: 0,
        }
    }

    /// Whether what was there before a write of ours has still to be seen.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.as_ref().is_some_and(|behind| !is_older(&behind.version, &self.service.resource_version))
    }

    /// Whether what a write has left on the Service may be younger than something that was begun then.
    pub(super) fn may_be_younger_than(&self, begun: Instant) -> bool {
        self.in_flight || self.written.is_some_and(|written| written > begun.into())
    }
}

/// A decision on its way to the API server.
#[derive(Debug)]
pub struct Order {
    /// The Service as it was decided about.
    pub service: Arc<Service>,
    /// What is to be written.
    pub write: Write,
    /// What the next request is conditional on: the version of the Service, or the one that the first of two
    /// requests has made of it.
    pub version: ShortText,
    /// The change of the traffic policy is confirmed, so the rest follows.
    pub policy_done: bool,
    /// How many requests for this step were without an answer that is certain.
    pub unanswered: u32,
    /// At least one request was sent again.
    pub is_repeated: bool,
    /// What the API server has said last where it could not do it: an error of its own.
    pub trouble: Option<String>,
    /// The owner knows of that.
    pub(super) is_told: bool,
    pub(super) edge: Edge,
    pub(super) seen: Instant,
}

impl Order {
    pub(super) fn new(service: Arc<Service>, write: Write, edge: Edge, seen: Instant) -> Order {
        let version = service.resource_version.clone();
        Order {
            service,
            write,
            version,
            policy_done: false,
            unanswered: 0,
            is_repeated: false,
            trouble: None,
            is_told: false,
            edge,
            seen,
        }
    }

    /// The first of two requests is confirmed, and has made this version.
    pub fn policy_confirmed(&mut self, version: ShortText) {
        (self.version, self.policy_done, self.unanswered) = (version, true, 0);
    }

    /// When the change was seen that this answers.
    pub fn seen(&self) -> Instant {
        self.seen
    }
}

/// Whether version `a` is older than `b`, as far as that can be known.
pub(crate) fn is_older(a: &str, b: &str) -> bool {
    matches!((a.parse::<u64>(), b.parse::<u64>()), (Ok(a), Ok(b)) if a < b)
}

impl Edge {
    pub(super) fn between(old: &Service, new: &Service) -> Edge {
        let is_same_object = old.uid == new.uid;
        Edge {
            families_grew: is_same_object && new.facts.families.exceeds(old.facts.families),
            was_ours: is_same_object
                && old.facts.ownership == Ownership::Ours
                && old.facts.brand.allocated_by_us,
            multi_pool_asked: is_same_object
                && new.facts.requests.multi_pool() == Ok(Some(true))
                && old.facts.requests.multi_pool() != Ok(Some(true)),
        }
    }

    pub(super) fn and(self, later: Edge) -> Edge {
        Edge {
            families_grew: self.families_grew || later.families_grew,
            was_ours: self.was_ours || later.was_ours,
            multi_pool_asked: self.multi_pool_asked || later.multi_pool_asked,
        }
    }
}
