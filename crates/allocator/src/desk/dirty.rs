//! The queue of Services that have to be decided about.

use std::collections::{HashSet, VecDeque};

use foldhash::fast::RandomState;

use crate::inputs::ServiceKey;

/// A queue with room for more than this is given up when it is empty.
pub(super) const LARGE_QUEUE: usize = 4096;

/// Services that have to be decided about, each once, in the order in which they came.
#[derive(Default)]
pub(super) struct Dirty {
    queue: VecDeque<ServiceKey>,
    queued: HashSet<ServiceKey, RandomState>,
}

impl Dirty {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether it is there.
    pub(super) fn contains(&self, service: &ServiceKey) -> bool {
        self.queued.contains(service)
    }

    /// Puts it at the end, unless it is there already.
    pub(super) fn push(&mut self, service: ServiceKey) {
        if self.queued.insert(service.clone()) {
            self.queue.push_back(service);
        }
    }

    /// Takes the first.
    pub(super) fn pop(&mut self) -> Option<ServiceKey> {
        let Some(service) = self.queue.pop_front() else {
            // After a list of everything the room for it is not needed any more.
            if self.queue.capacity() > LARGE_QUEUE {
                *self = Dirty::default();
            }
            return None;
        };
        self.queued.remove(&service);
        Some(service)
    }
}
