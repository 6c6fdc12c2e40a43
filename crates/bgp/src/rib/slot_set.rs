//! A set of slots: one bit a slot, and one bit for every 64 of them, so that a few members among very many
//! are found without looking at the rest.

use super::Slot;

/// A set of slots, iterated in ascending order.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotSet {
    words: Vec<u64>,
    /// Bit `i` is set where `words[i]` is not zero.
    summary: Vec<u64>,
    len: usize,
}

impl SlotSet {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether it was not there before.
    pub(crate) fn insert(&mut self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
            self.summary.resize(word / 64 + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.summary[word / 64] |= 1 << (word % 64);
        self.len += usize::from(is_new);
        is_new
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, slot: Slot) -> bool {
        let (index, bit) = place(slot);
        let Some(word) = self.words.get_mut(index).filter(|word| **word & bit != 0) else { return false };
        *word &= !bit;
        if *word == 0 {
            self.summary[index / 64] &= !(1 << (index % 64));
        }
        self.len -= 1;
        true
    }

    pub(crate) fn clear(&mut self) {
        for index in bits(&self.summary) {
            self.words[index as usize] = 0;
        }
        self.summary.fill(0);
        self.len = 0;
    }

    /// Every slot below `end`.
    pub(crate) fn fill(&mut self, end: usize) {
        self.words = vec![u64::MAX; end / 64];
        if !end.is_multiple_of(64) {
            self.words.push((1 << (end % 64)) - 1);
        }
        let full = self.words.len();
        self.summary = vec![u64::MAX; full / 64];
        if !full.is_multiple_of(64) {
            self.summary.push((1 << (full % 64)) - 1);
        }
        self.len = end;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        bits(&self.summary).flat_map(|index| {
            let word = self.words.get(index as usize).copied().unwrap_or(0);
            Bits(word).map(move |bit| index * 64 + bit)
        })
    }
}

fn place(slot: Slot) -> (usize, u64) {
    (slot as usize / 64, 1 << (slot % 64))
}

fn bits(words: &[u64]) -> impl Iterator<Item = u32> + '_ {
    words.iter().zip(0..).flat_map(|(&word, index)| Bits(word).map(move |bit| index * 64 + bit))
}

/// The positions of the bits set in a word.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let bit = (self.0 != 0).then(|| self.0.trailing_zeros())?;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slot_set_behaves_like_an_ordered_set(
            operations in prop::collection::vec((any::<bool>(), 0u32..20_000), 0..300),
        ) {
            let (mut set, mut model) = (SlotSet::default(), BTreeSet::new());
            for (insert, slot) in operations {
                if insert {
                    prop_assert_eq!(set.insert(slot), model.insert(slot));
                } else {
                    prop_assert_eq!(set.remove(slot), model.remove(&slot));
                }
                prop_assert_eq!(set.contains(slot), model.contains(&slot));
                prop_assert_eq!(set.len(), model.len());
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
        }

        #[test]
        fn fill_holds_exactly_the_slots_below_its_end(end in 0usize..10_000) {
            let mut set = SlotSet::default();
            set.insert(9_999);
            set.fill(end);
            prop_assert!(set.iter().eq(0..u32::try_from(end).unwrap()));
            prop_assert_eq!(set.len(), end);
            prop_assert!(set.insert(u32::try_from(end).unwrap()));
        }
    }
}
