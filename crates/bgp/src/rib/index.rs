//! Key → block: a hash table of eight octets a bucket, open addressing with linear probing.
//!
//! It holds no keys: the Loc-RIB has them with its blocks and is asked whether one is the one looked for, which
//! happens only where 32 bits of hash agree.

use super::block::Block;

/// How many of eight buckets are in use at most.
const MAX_LOAD_IN_EIGHTHS: usize = 5;
const MIN_BUCKETS: usize = 16;

/// Blocks by the hash of their key.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// [`EMPTY`], [`REMOVED`], or the hash in the upper half and the block plus one in the lower. A power of two of
    /// them, or none.
    buckets: Vec<u64>,
    len: usize,
    removed: usize,
}

/// Nothing is here, nor anything that belongs here further on.
const EMPTY: u64 = 0;

/// Something was here, and what belongs here may follow.
const REMOVED: u64 = 1 << 32;

/// What [`Index::entry`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Block(Block),
    /// Nothing; a new block may go into this bucket as long as nothing else is inserted or removed before.
    Vacant(usize),
}

impl Index {
    /// The block with this hash that `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(Block) -> bool) -> Option<Block> {
        if self.buckets.is_empty() {
            return None;
        }
        match self.probe(hash, is_it) {
            Found::Block(block) => Some(block),
            Found::Vacant(_) => None,
        }
    }

    /// The block with this hash that `is_it`, or where it may be inserted.
    #[inline]
    pub(super) fn entry(&mut self, hash: u32, is_it: impl Fn(Block) -> bool) -> Found {
        if (self.len + self.removed + 1) * 8 > self.buckets.len() * MAX_LOAD_IN_EIGHTHS {
            self.rebuild();
        }
        self.probe(hash, is_it)
    }

    /// Puts a block into a bucket that [`Index::entry`] has found vacant.
    #[inline]
    pub(super) fn insert(&mut self, bucket: usize, hash: u32, block: Block) {
        self.removed -= usize::from(self.buckets[bucket] == REMOVED);
        self.buckets[bucket] = pack(hash, block);
        self.len += 1;
    }

    /// Takes out a block that is there.
    pub(super) fn remove(&mut self, hash: u32, block: Block) {
        let (mask, wanted) = (self.mask(), pack(hash, block));
        let mut bucket = hash as usize & mask;
        while self.buckets[bucket] != wanted {
            debug_assert_ne!(self.buckets[bucket], EMPTY, "the block is in the index");
            bucket = (bucket + 1) & mask;
        }
        self.len -= 1;
        if self.buckets[(bucket + 1) & mask] != EMPTY {
            self.buckets[bucket] = REMOVED;
            self.removed += 1;
            return;
        }
        // Nothing follows, so what was removed just before is needed as a bridge no longer, either.
        self.buckets[bucket] = EMPTY;
        let mut before = bucket.wrapping_sub(1) & mask;
        while self.buckets[before] == REMOVED {
            self.buckets[before] = EMPTY;
            self.removed -= 1;
            before = before.wrapping_sub(1) & mask;
        }
    }

    #[inline]
    fn probe(&self, hash: u32, is_it: impl Fn(Block) -> bool) -> Found {
        let mask = self.mask();
        let mut bucket = hash as usize & mask;
        let mut vacant = None;
        loop {
            let found = self.buckets[bucket];
            if found == EMPTY {
                return Found::Vacant(vacant.unwrap_or(bucket));
            }
            if found == REMOVED {
                vacant = vacant.or(Some(bucket));
            } else if (found >> 32) as u32 == hash && is_it(found as u32 - 1) {
                return Found::Block(found as u32 - 1);
            }
            bucket = (bucket + 1) & mask;
        }
    }

    fn mask(&self) -> usize {
        self.buckets.len() - 1
    }

    /// Makes room: twice as much, or, where it is the removed that take it, as much as before.
    #[cold]
    fn rebuild(&mut self) {
        let is_full = self.len * 16 >= self.buckets.len() * MAX_LOAD_IN_EIGHTHS;
        let size = if is_full { self.buckets.len() * 2 } else { self.buckets.len() };
        let old = std::mem::replace(&mut self.buckets, vec![EMPTY; size.max(MIN_BUCKETS)]);
        self.removed = 0;
        let mask = self.mask();
        for found in old.into_iter().filter(|found| !matches!(*found, EMPTY | REMOVED)) {
            let mut bucket = (found >> 32) as usize & mask;
            while self.buckets[bucket] != EMPTY {
                bucket = (bucket + 1) & mask;
            }
            self.buckets[bucket] = found;
        }
    }
}

#[inline]
fn pack(hash: u32, block: Block) -> u64 {
    u64::from(hash) << 32 | u64::from(block + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Few hashes, so that probing, wrapping around and moving up happen all the time.
        #[test]
        fn an_index_behaves_like_a_map_whatever_the_hashes(
            hashes in prop::collection::vec(prop::sample::select(vec![0, 1, 14, 15, 16, 31, u32::MAX]), 40),
            operations in prop::collection::vec((any::<bool>(), 0u32..40), 0..200),
        ) {
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            for (insert, block) in operations {
                let hash = hashes[block as usize];
                if insert {
                    match index.entry(hash, |found| found == block) {
                        Found::Block(found) => prop_assert!(model.contains_key(&found) && found == block),
                        Found::Vacant(bucket) => {
                            prop_assert!(model.insert(block, hash).is_none());
                            index.insert(bucket, hash, block);
                        }
                    }
                } else if model.remove(&block).is_some() {
                    index.remove(hash, block);
                }
                prop_assert_eq!(index.len, model.len());
                let removed = index.buckets.iter().filter(|bucket| **bucket == REMOVED).count();
                prop_assert_eq!(index.removed, removed);
            }
            for (block, hash) in (0..).zip(hashes) {
                let found = index.find(hash, |found| found == block);
                prop_assert_eq!(found, model.contains_key(&block).then_some(block));
            }
        }
    }
}
