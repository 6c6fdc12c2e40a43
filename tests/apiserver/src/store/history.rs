//! The bounded, ordered history of one collection. A place counts events since the collection began.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Event;

/// The revision or place asked for is older than what is remembered.
#[derive(Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The oldest revision one can resume from.
    pub oldest: u64,
}

/// The last events of a collection.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Arc<Event>>,
    /// Place of the first remembered event.
    first: u64,
    /// Revision of the youngest forgotten event.
    forgotten: u64,
    capacity: usize,
}

impl History {
    /// An empty history. Resuming from before its birth is fine: nothing happened before it.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { events: VecDeque::new(), first: 0, forgotten: 0, capacity: capacity.max(1) }
    }

    /// The place behind the newest event.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Adds the newest event, forgetting the oldest when full.
    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() == self.capacity {
            self.forget_oldest();
        }
        self.events.push_back(Arc::new(event));
    }

    fn forget_oldest(&mut self) {
        if let Some(gone) = self.events.pop_front() {
            self.forgotten = gone.object.revision;
            self.first += 1;
        }
    }

    /// Forgets everything. Places move past the end, so that running watches notice.
    pub(crate) fn clear(&mut self) {
        while !self.events.is_empty() {
            self.forget_oldest();
        }
    }

    /// The place of the first event younger than `revision`.
    pub(crate) fn place_after(&self, revision: u64) -> Result<u64, TooOld> {
        if revision < self.forgotten {
            return Err(TooOld { oldest: self.forgotten });
        }
        let older = self.events.partition_point(|e| e.object.revision <= revision);
        Ok(self.first + older as u64)
    }

    /// The events younger than `revision`.
    pub(crate) fn since(&self, revision: u64) -> Result<Vec<Arc<Event>>, TooOld> {
        self.at_place(self.place_after(revision)?, usize::MAX)
    }

    /// At most `limit` events from `place` on.
    pub(crate) fn at_place(&self, place: u64, limit: usize) -> Result<Vec<Arc<Event>>, TooOld> {
        let skip = place.checked_sub(self.first).ok_or(TooOld { oldest: self.forgotten })?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.events.len());
        Ok(self.events.range(skip..).take(limit).cloned().collect())
    }
}
