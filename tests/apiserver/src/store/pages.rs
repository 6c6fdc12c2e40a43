//! The rest of lists that were asked for in pages, so that all pages show one revision.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::Stored;

/// How many unfinished lists a collection keeps; the oldest is dropped and its continuation answers 410.
const KEPT: usize = 64;

/// A list waiting to be continued.
#[derive(Debug, Clone)]
pub struct Page {
    /// Everything the list selects, in key order.
    pub objects: Arc<Vec<Arc<Stored>>>,
    /// Its revision.
    pub revision: u64,
}

/// The unfinished lists of a collection.
#[derive(Debug, Default)]
pub struct Pages(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lists: VecDeque<(u64, Page)>,
    next: u64,
}

impl Pages {
    /// Keeps a list; returns the number to ask for it again.
    pub fn keep(&self, page: Page) -> u64 {
        let mut kept = self.lock();
        kept.next += 1;
        let id = kept.next;
        kept.lists.push_back((id, page));
        if kept.lists.len() > KEPT {
            kept.lists.pop_front();
        }
        id
    }

    /// The list kept under `id`, if it has not been dropped.
    pub fn find(&self, id: u64) -> Option<Page> {
        self.lock().lists.iter().find(|(kept, _)| *kept == id).map(|(_, page)| page.clone())
    }

    /// Drops all of them.
    pub fn clear(&self) {
        self.lock().lists.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().expect("no code panics while it holds the pages")
    }
}
