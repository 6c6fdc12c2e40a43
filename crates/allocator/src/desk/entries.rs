//! Every Service that is known, by its key, which is kept only within the Service.

use hashbrown::HashTable;

use super::entry::Entry;
use crate::inputs::ServiceKey;

/// Every Service that is known.
#[derive(Default)]
pub(super) struct Entries {
    table: HashTable<Entry>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter()
    }

    pub(super) fn get(&self, key: &ServiceKey) -> Option<&Entry> {
        self.table.find(key.spread_hash(), |entry| entry.service.key == *key)
    }

    pub(super) fn get_mut(&mut self, key: &ServiceKey) -> Option<&mut Entry> {
        self.table.find_mut(key.spread_hash(), |entry| entry.service.key == *key)
    }

    /// Adds a Service that is not known.
    pub(super) fn insert(&mut self, entry: Entry) {
        let hash = entry.service.key.spread_hash();
        self.table.insert_unique(hash, entry, |entry| entry.service.key.spread_hash());
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) -> Option<Entry> {
        let found = self.table.find_entry(key.spread_hash(), |entry| entry.service.key == *key);
        Some(found.ok()?.remove().0)
    }
}
