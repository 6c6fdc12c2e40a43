//! Which addresses are taken; the lowest free one of a range without looking at those before it.
//!
//! Nothing here knows pools or groups: any range can be asked about, so editing a ServiceGroup costs nothing.
//! Addresses are looked at in blocks of 256. Blocks that are taken altogether are kept as runs of consecutive ones,
//! those that are taken in part as bits: a /8 or a /64 costs no more memory than what is taken from it.

use std::{collections::BTreeMap, net::IpAddr};

use api::{
    AddressRange, IpFamily,
    address::{from_bits, to_bits},
};

/// A block is 2^8 addresses.
const SHIFT: u32 = 8;
const BLOCK: u32 = 1 << SHIFT;
const WORDS: usize = (BLOCK / u64::BITS) as usize;

/// Which addresses of a block are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bits([u64; WORDS]);

impl Bits {
    const ALL: Bits = Bits([u64::MAX; WORDS]);

    /// Word and bit of an address.
    fn place(bits: u128) -> (usize, u64) {
        let within = bits as usize % BLOCK as usize;
        (within / u64::BITS as usize, 1 << (within % u64::BITS as usize))
    }

    fn contains(&self, bits: u128) -> bool {
        let (word, bit) = Bits::place(bits);
        self.0[word] & bit != 0
    }

    fn set(&mut self, bits: u128) {
        let (word, bit) = Bits::place(bits);
        self.0[word] |= bit;
    }

    fn clear(&mut self, bits: u128) {
        let (word, bit) = Bits::place(bits);
        self.0[word] &= !bit;
    }

    /// The lowest from `first` on that is not taken.
    fn lowest_free(&self, first: u32) -> Option<u32> {
        let mut before = first;
        for (word, taken) in (0..).zip(self.0) {
            let free = !taken & u64::MAX.checked_shl(before).unwrap_or(0);
            if free != 0 {
                return Some(word * u64::BITS + free.trailing_zeros());
            }
            before = before.saturating_sub(u64::BITS);
        }
        None
    }

    /// How many from `first` to `last` are taken.
    fn count(&self, first: u32, last: u32) -> u32 {
        let below = |end: u32| -> u32 {
            let words = (0..).map(|word: u32| end.saturating_sub(word * u64::BITS)).zip(self.0);
            words.map(|(bits, taken)| (taken & !u64::MAX.checked_shl(bits).unwrap_or(0)).count_ones()).sum()
        };
        below(last + 1) - below(first)
    }
}

/// Blocks that are taken altogether: first → last of each run. Runs neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Runs(BTreeMap<u128, u128>);

impl Runs {
    /// The run that has the block.
    fn around(&self, block: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=block).next_back()?;
        (block <= *last).then_some((*first, *last))
    }

    /// Adds a block that is in no run.
    fn add(&mut self, block: u128) {
        match self.0.range_mut(..block).next_back().filter(|(_, last)| **last + 1 == block) {
            Some((_, last)) => *last = block,
            None => drop(self.0.insert(block, block)),
        }
        // The run behind it is joined to it.
        if let Some(end) = self.0.remove(&(block + 1))
            && let Some((_, last)) = self.0.range_mut(..=block).next_back()
        {
            *last = end;
        }
    }

    /// Takes a block out. Whether it was in a run.
    fn remove(&mut self, block: u128) -> bool {
        let Some((first, last)) = self.around(block) else { return false };
        self.0.remove(&first);
        if first < block {
            self.0.insert(first, block - 1);
        }
        if block < last {
            self.0.insert(block + 1, last);
        }
        true
    }

    /// How many blocks from `first` to `last` are in runs.
    fn count(&self, first: u128, last: u128) -> u128 {
        let within = |(from, to): (u128, u128)| to.min(last) - from.max(first) + 1;
        let cut = self.around(first).filter(|(from, _)| *from < first).map_or(0, within);
        self.0.range(first..=last).map(|(from, to)| within((*from, *to))).fold(cut, |sum, more| sum + more)
    }
}

/// Taken addresses of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Blocks {
    full: Runs,
    /// Those of which some are taken, and not all.
    partial: BTreeMap<u128, Bits>,
}

impl Blocks {
    fn contains(&self, bits: u128) -> bool {
        let block = bits >> SHIFT;
        match self.partial.get(&block) {
            Some(partial) => partial.contains(bits),
            None => self.full.around(block).is_some(),
        }
    }

    fn take(&mut self, bits: u128) {
        let block = bits >> SHIFT;
        if let Some(partial) = self.partial.get_mut(&block) {
            partial.set(bits);
            if *partial == Bits::ALL {
                self.partial.remove(&block);
                self.full.add(block);
            }
        } else if self.full.around(block).is_none() {
            let mut partial = Bits::default();
            partial.set(bits);
            self.partial.insert(block, partial);
        }
    }

    fn free(&mut self, bits: u128) {
        let block = bits >> SHIFT;
        if let Some(partial) = self.partial.get_mut(&block) {
            partial.clear(bits);
            if *partial == Bits::default() {
                self.partial.remove(&block);
            }
        } else if self.full.remove(block) {
            let mut partial = Bits::ALL;
            partial.clear(bits);
            self.partial.insert(block, partial);
        }
    }

    fn lowest_free(&self, first: u128, last: u128) -> Option<u128> {
        let mut bits = first;
        loop {
            let block = bits >> SHIFT;
            let next = if let Some(partial) = self.partial.get(&block) {
                if let Some(lowest) = partial.lowest_free(bits as u32 % BLOCK) {
                    bits = block << SHIFT | u128::from(lowest);
                    break;
                }
                block + 1
            } else if let Some((_, full)) = self.full.around(block) {
                full + 1
            } else {
                break;
            };
            if next > last >> SHIFT {
                return None;
            }
            bits = next << SHIFT;
        }
        (bits <= last).then_some(bits)
    }

    fn count(&self, first: u128, last: u128) -> u128 {
        let (first_block, last_block) = (first >> SHIFT, last >> SHIFT);
        let from = |block| if block == first_block { first as u32 % BLOCK } else { 0 };
        let to = |block| if block == last_block { last as u32 % BLOCK } else { BLOCK - 1 };
        let partial = self.partial.range(first_block..=last_block);
        let partial: u128 =
            partial.map(|(block, bits)| u128::from(bits.count(from(*block), to(*block)))).sum();
        let mut full = self.full.count(first_block, last_block).saturating_mul(BLOCK.into());
        if self.full.around(first_block).is_some() {
            full -= u128::from(from(first_block));
        }
        if self.full.around(last_block).is_some() {
            full -= u128::from(BLOCK - 1 - to(last_block));
        }
        partial.saturating_add(full)
    }
}

/// Taken addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    v4: Blocks,
    v6: Blocks,
}

impl Taken {
    fn blocks(&self, family: IpFamily) -> &Blocks {
        match family {
            IpFamily::IPv4 => &self.v4,
            IpFamily::IPv6 => &self.v6,
        }
    }

    fn blocks_mut(&mut self, family: IpFamily) -> &mut Blocks {
        match family {
            IpFamily::IPv4 => &mut self.v4,
            IpFamily::IPv6 => &mut self.v6,
        }
    }

    /// Marks an address as taken; again is no matter.
    pub fn take(&mut self, address: IpAddr) {
        self.blocks_mut(IpFamily::of(address)).take(to_bits(address));
    }

    /// Marks an address as free; again is no matter.
    pub fn free(&mut self, address: IpAddr) {
        self.blocks_mut(IpFamily::of(address)).free(to_bits(address));
    }

    /// Whether an address is taken.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.blocks(IpFamily::of(address)).contains(to_bits(address))
    }

    /// The lowest address of the range that is not taken.
    pub fn lowest_free(&self, range: &AddressRange) -> Option<IpAddr> {
        let (first, last) = range.bits();
        let bits = self.blocks(range.family()).lowest_free(first, last)?;
        Some(from_bits(range.family(), bits))
    }

    /// How many addresses of the range are taken.
    pub fn count(&self, range: &AddressRange) -> u128 {
        let (first, last) = range.bits();
        self.blocks(range.family()).count(first, last)
    }

    /// How many runs of full blocks and how many others: what the memory is proportional to.
    pub fn parts(&self) -> usize {
        [&self.v4, &self.v6].map(|blocks| blocks.full.0.len() + blocks.partial.len()).iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_address_fills_holes_first() {
        let range: AddressRange = "192.0.2.0/29".parse().unwrap();
        let mut taken = Taken::default();
        for last in 0..8 {
            let lowest = taken.lowest_free(&range).unwrap();
            assert_eq!(lowest, ip(&format!("192.0.2.{last}")));
            taken.take(lowest);
        }
        assert_eq!(taken.lowest_free(&range), None);
        taken.free(ip("192.0.2.3"));
        assert_eq!(taken.lowest_free(&range), Some(ip("192.0.2.3")));
        assert_eq!(taken.count(&range), 7);
    }

    #[test]
    fn the_ends_of_the_number_line_are_no_special_case() {
        let mut taken = Taken::default();
        for text in ["255.255.255.255/32", "::/128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"] {
            let range: AddressRange = text.parse().unwrap();
            taken.take(range.first());
            assert_eq!(taken.lowest_free(&range), None, "{text}");
            assert_eq!(taken.count(&range), 1, "{text}");
        }
        assert_eq!(taken.lowest_free(&"::/0".parse().unwrap()), Some(ip("::1")));
    }

    #[test]
    fn consecutive_addresses_of_a_64_cost_one_run_and_what_is_begun() {
        let range: AddressRange = "fd00::/64".parse().unwrap();
        let mut taken = Taken::default();
        for _ in 0..10_000 {
            let lowest = taken.lowest_free(&range).unwrap();
            taken.take(lowest);
        }
        assert_eq!((taken.parts(), taken.count(&range)), (2, 10_000));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_a_set_of_addresses(
            steps in prop::collection::vec((any::<bool>(), 0_u32..4, 0_u32..300), 0..60),
            (first, length) in (0_u32..1500, 0_u32..1500),
        ) {
            let mut taken = Taken::default();
            let mut model = BTreeSet::new();
            let at = |offset: u32| from_bits(IpFamily::IPv4, 0xC000_0080 + u128::from(offset));
            for (take, from, count) in steps {
                // Whole blocks and parts of them.
                for offset in from * 256..from * 256 + count {
                    if take { taken.take(at(offset)); model.insert(offset); }
                    else { taken.free(at(offset)); model.remove(&offset); }
                }
                let range = AddressRange::new(at(first), at(first + length)).unwrap();
                let free = (first..=first + length).find(|offset| !model.contains(offset));
                prop_assert_eq!(taken.lowest_free(&range), free.map(at));
                prop_assert_eq!(taken.count(&range), model.range(first..=first + length).count() as u128);
                prop_assert_eq!(taken.contains(at(first)), model.contains(&first));
                let full: Vec<_> = taken.v4.full.0.iter().map(|(a, b)| (*a, *b)).collect();
                prop_assert!(full.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "runs touch: {full:?}");
                let is_partial = |bits: &Bits| *bits != Bits::ALL && *bits != Bits::default();
                prop_assert!(taken.v4.partial.values().all(is_partial));
                prop_assert!(taken.v4.partial.keys().all(|block| taken.v4.full.around(*block).is_none()));
            }
        }
    }
}
