//! A set of prefixes: one bit for each member of a block, and one bit for every 64 blocks, so that a few members among
//! very many are found without looking at the rest.

use super::block::{Block, Members, count, places};

/// A set of members of blocks, iterated in ascending order of blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemberSet {
    blocks: Vec<Members>,
    /// Bit `i` is set where `blocks[i]` has members.
    summary: Vec<u64>,
    len: usize,
}

impl MemberSet {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The members of this block.
    pub(crate) fn of(&self, block: Block) -> Members {
        self.blocks.get(block as usize).copied().unwrap_or(0)
    }

    #[inline]
    pub(crate) fn insert(&mut self, block: Block, members: Members) {
        let index = block as usize;
        if members == 0 {
            return;
        }
        if index >= self.blocks.len() {
            self.blocks.resize(index + 1, 0);
            self.summary.resize(index / 64 + 1, 0);
        }
        self.len += count(members & !self.blocks[index]);
        self.blocks[index] |= members;
        self.summary[index / 64] |= 1 << (index % 64);
    }

    /// Takes these out; those that were there.
    pub(crate) fn remove(&mut self, block: Block, members: Members) -> Members {
        let index = block as usize;
        let Some(there) = self.blocks.get_mut(index) else { return 0 };
        let removed = *there & members;
        *there &= !members;
        if *there == 0 {
            self.summary[index / 64] &= !(1 << (index % 64));
        }
        self.len -= count(removed);
        removed
    }

    pub(crate) fn clear(&mut self) {
        for index in blocks(&self.summary) {
            self.blocks[index as usize] = 0;
        }
        self.summary.fill(0);
        self.len = 0;
    }

    /// Each block with its members.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Block, Members)> + '_ {
        blocks(&self.summary).map(|block| (block, self.of(block)))
    }
}

fn blocks(summary: &[u64]) -> impl Iterator<Item = Block> + '_ {
    summary.iter().zip(0..).flat_map(|(&word, index)| places(word).map(move |place| index * 64 + place))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_member_set_behaves_like_an_ordered_map_of_members(
            operations in prop::collection::vec((any::<bool>(), 0u32..300, 0u32..64, 0u32..64), 0..300),
        ) {
            let (mut set, mut model) = (MemberSet::default(), BTreeMap::<Block, Members>::new());
            for (insert, block, first, second) in operations {
                let members = 1 << first | 1 << second;
                let there = model.entry(block).or_default();
                if insert {
                    set.insert(block, members);
                    *there |= members;
                } else {
                    prop_assert_eq!(set.remove(block, members), *there & members);
                    *there &= !members;
                }
                prop_assert_eq!(set.of(block), *there);
                prop_assert_eq!(set.len(), model.values().map(|members| count(*members)).sum::<usize>());
            }
            model.retain(|_, members| *members != 0);
            prop_assert!(set.iter().eq(model));
            set.clear();
            prop_assert!(set.is_empty() && set.iter().next().is_none());
        }
    }
}
