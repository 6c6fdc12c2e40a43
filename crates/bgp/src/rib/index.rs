//! Prefix → slot: a hash table of eight octets a bucket, open addressing with linear probing.
//!
//! It holds no prefixes: the Loc-RIB has them in its slots and is asked whether one is the one looked for, which
//! happens only where 32 bits of hash agree.

use ipnet::IpNet;

use super::Slot;

/// How many of eight buckets are in use at most.
const MAX_LOAD_IN_EIGHTHS: usize = 5;
const MIN_BUCKETS: usize = 16;

/// Slots by the hash of their prefix.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// [`EMPTY`], [`REMOVED`], or the hash in the upper half and the slot plus one in the lower. A power of two of
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
    Slot(Slot),
    /// Nothing; a new slot may go into this bucket as long as nothing else is inserted or removed before.
    Vacant(usize),
}

/// Neighbours, eight of them, have hashes that differ in the last three bits, and so share a cache line of buckets:
/// pools are announced in order, and a miss a prefix is most of what a random place would cost. Our own prefixes are
/// the keys, so nobody outside chooses them to collide.
#[inline]
pub(super) fn hash(prefix: &IpNet) -> u32 {
    let length = prefix.prefix_len();
    let (neighbours, which) = match prefix {
        IpNet::V4(net) => {
            let number = net.addr().to_bits().checked_shr(u32::from(32 - length)).unwrap_or(0);
            (u64::from(number >> 3) | u64::from(length) << 32, number & 7)
        }
        IpNet::V6(net) => {
            let number = net.addr().to_bits().checked_shr(u32::from(128 - length)).unwrap_or(0);
            let high = mix((number >> 67) as u64 | u64::from(length) << 61);
            ((number >> 3) as u64 ^ high, number as u32 & 7)
        }
    };
    mix(neighbours) as u32 & !7 | which
}

/// Every bit of the result depends on every bit of the value.
#[inline]
fn mix(value: u64) -> u64 {
    const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
    let value = (value ^ value >> 32).wrapping_mul(FACTOR);
    let value = (value ^ value >> 32).wrapping_mul(FACTOR);
    value ^ value >> 32
}

impl Index {
    /// The slot with this hash that `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(Slot) -> bool) -> Option<Slot> {
        if self.buckets.is_empty() {
            return None;
        }
        match self.probe(hash, is_it) {
            Found::Slot(slot) => Some(slot),
            Found::Vacant(_) => None,
        }
    }

    /// The slot with this hash that `is_it`, or where it may be inserted.
    #[inline]
    pub(super) fn entry(&mut self, hash: u32, is_it: impl Fn(Slot) -> bool) -> Found {
        if (self.len + self.removed + 1) * 8 > self.buckets.len() * MAX_LOAD_IN_EIGHTHS {
            self.rebuild();
        }
        self.probe(hash, is_it)
    }

    /// Puts a slot into a bucket that [`Index::entry`] has found vacant.
    #[inline]
    pub(super) fn insert(&mut self, bucket: usize, hash: u32, slot: Slot) {
        self.removed -= usize::from(self.buckets[bucket] == REMOVED);
        self.buckets[bucket] = pack(hash, slot);
        self.len += 1;
    }

    /// Takes out a slot that is there.
    pub(super) fn remove(&mut self, hash: u32, slot: Slot) {
        let (mask, wanted) = (self.mask(), pack(hash, slot));
        let mut bucket = hash as usize & mask;
        while self.buckets[bucket] != wanted {
            debug_assert_ne!(self.buckets[bucket], EMPTY, "the slot is in the index");
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
    fn probe(&self, hash: u32, is_it: impl Fn(Slot) -> bool) -> Found {
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
                return Found::Slot(found as u32 - 1);
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
fn pack(hash: u32, slot: Slot) -> u64 {
    u64::from(hash) << 32 | u64::from(slot + 1)
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
            for (insert, slot) in operations {
                let hash = hashes[slot as usize];
                if insert {
                    match index.entry(hash, |found| found == slot) {
                        Found::Slot(found) => prop_assert!(model.contains_key(&found) && found == slot),
                        Found::Vacant(bucket) => {
                            prop_assert!(model.insert(slot, hash).is_none());
                            index.insert(bucket, hash, slot);
                        }
                    }
                } else if model.remove(&slot).is_some() {
                    index.remove(hash, slot);
                }
                prop_assert_eq!(index.len, model.len());
                let removed = index.buckets.iter().filter(|bucket| **bucket == REMOVED).count();
                prop_assert_eq!(index.removed, removed);
            }
            for (slot, hash) in (0..).zip(hashes) {
                let found = index.find(hash, |found| found == slot);
                prop_assert_eq!(found, model.contains_key(&slot).then_some(slot));
            }
        }
    }

    #[test]
    fn consecutive_prefixes_and_lengths_have_different_hashes() {
        for text in ["10.0.0.0", "fd00::"] {
            let first: std::net::IpAddr = text.parse().unwrap();
            let nets = (0..4096u32).map(|number| match first {
                std::net::IpAddr::V4(v4) => IpNet::new((v4.to_bits() + number).to_be_bytes().into(), 32),
                std::net::IpAddr::V6(v6) => {
                    IpNet::new((v6.to_bits() + u128::from(number)).to_be_bytes().into(), 128)
                }
            });
            let lengths = (1..=32).map(|length| IpNet::new(first, length));
            let all = nets.chain(lengths).map(|net| hash(&net.unwrap()) & 0xf_ffff);
            let distinct = all.collect::<std::collections::BTreeSet<_>>().len();
            assert!(distinct > 4090, "{distinct} different hashes of 20 bits for 4,128 prefixes from {text}");
        }
    }
}
