//! Which addresses are taken; the lowest free one of a range without looking at those before it.
//!
//! Nothing here knows pools or groups: any range can be asked about, so editing a ServiceGroup costs nothing.
//! Addresses are looked at in blocks of 256, and blocks in chunks of 256. A block or a chunk is there while anything in
//! it is taken; a chunk knows how much and which of its blocks are taken altogether, a block which addresses. So a /8 or
//! a /64 costs no more memory than what is taken from it, and every step is one look into a table.

use std::{collections::HashMap, net::IpAddr};

use api::{
    AddressRange, IpFamily,
    address::{from_bits, to_bits},
};
use foldhash::fast::RandomState;

mod bits;

use bits::{Bits, LEN};

/// A block is 2^8 addresses, a chunk 2^8 blocks.
const SHIFT: u32 = LEN.trailing_zeros();

/// The blocks of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chunk {
    /// Those that are taken altogether.
    full: Bits,
    /// How many addresses are taken, in full blocks and others.
    taken: u32,
}

/// Taken addresses of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Blocks {
    /// Those in which anything is taken, by their number.
    chunks: HashMap<u128, Chunk, RandomState>,
    /// Blocks in which anything is taken, by their number.
    blocks: HashMap<u128, Bits, RandomState>,
    /// Ranges whose taken addresses are counted with every change, in order.
    watched: Vec<Watched>,
}

/// A range, and how many of its addresses are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    first: u128,
    last: u128,
    taken: u128,
}

impl Blocks {
    fn contains(&self, bits: u128) -> bool {
        self.blocks.get(&(bits >> SHIFT)).is_some_and(|block| block.contains(bits))
    }

    fn take(&mut self, bits: u128) {
        let number = bits >> SHIFT;
        let block = match self.blocks.get_mut(&number) {
            Some(block) => block,
            None => self.blocks.entry(number).or_default(),
        };
        if block.contains(bits) {
            return;
        }
        let is_full = block.set(bits);
        let chunk = match self.chunks.get_mut(&(number >> SHIFT)) {
            Some(chunk) => chunk,
            None => self.chunks.entry(number >> SHIFT).or_default(),
        };
        chunk.taken += 1;
        if is_full {
            chunk.full.set(number);
        }
        if let Some(watched) = self.watching(bits) {
            watched.taken += 1;
        }
    }

    fn watching(&mut self, bits: u128) -> Option<&mut Watched> {
        let behind = self.watched.partition_point(|watched| watched.first <= bits);
        self.watched.get_mut(behind.checked_sub(1)?).filter(|watched| bits <= watched.last)
    }

    fn watch(&mut self, ranges: impl Iterator<Item = (u128, u128)>) {
        self.watched.clear();
        let counted = ranges.map(|(first, last)| Watched { first, last, taken: self.count(first, last) });
        let mut watched: Vec<Watched> = counted.collect();
        watched.sort_unstable_by_key(|watched| watched.first);
        self.watched = watched;
    }

    fn free(&mut self, bits: u128) {
        let number = bits >> SHIFT;
        let Some(block) = self.blocks.get_mut(&number).filter(|block| block.contains(bits)) else { return };
        if block.clear(bits) {
            self.blocks.remove(&number);
        }
        if let Some(chunk) = self.chunks.get_mut(&(number >> SHIFT)) {
            chunk.full.clear(number);
            chunk.taken -= 1;
            if chunk.taken == 0 {
                self.chunks.remove(&(number >> SHIFT));
            }
        }
        if let Some(watched) = self.watching(bits) {
            watched.taken -= 1;
        }
    }

    fn lowest_free(&self, first: u128, last: u128) -> Option<u128> {
        let mut bits = first;
        while bits <= last {
            let (block, chunk) = (bits >> SHIFT, bits >> (2 * SHIFT));
            let next = match self.chunks.get(&chunk) {
                None => return Some(bits),
                Some(known) => match known.full.lowest_free(block as u32 % LEN) {
                    // Nothing of the chunk is left.
                    None => next(chunk, 2 * SHIFT),
                    Some(lowest) if lowest != block as u32 % LEN => {
                        Some((chunk << SHIFT | u128::from(lowest)) << SHIFT)
                    }
                    Some(_) => match self.blocks.get(&block) {
                        None => return Some(bits),
                        Some(taken) => match taken.lowest_free(bits as u32 % LEN) {
                            None => next(block, SHIFT),
                            Some(lowest) => {
                                return Some(block << SHIFT | u128::from(lowest))
                                    .filter(|bits| *bits <= last);
                            }
                        },
                    },
                },
            };
            bits = next?;
        }
        None
    }

    fn count(&self, first: u128, last: u128) -> u128 {
        let watched = self.watched.binary_search_by_key(&first, |watched| watched.first).ok();
        if let Some(watched) = watched.and_then(|place| self.watched.get(place)).filter(|w| w.last == last) {
            return watched.taken;
        }
        let (first_chunk, last_chunk) = (first >> (2 * SHIFT), last >> (2 * SHIFT));
        let whole = |chunk: u128| first <= chunk << (2 * SHIFT) && last >= end(chunk, 2 * SHIFT);
        let within = |chunk: u128, known: &Chunk| match whole(chunk) {
            true => u128::from(known.taken),
            false => self.count_in_chunk(chunk, first, last),
        };
        // Of the chunks of the range and those that are known, the fewer are gone through.
        if last_chunk - first_chunk < self.chunks.len() as u128 {
            let known =
                (first_chunk..=last_chunk).filter_map(|chunk| Some((chunk, self.chunks.get(&chunk)?)));
            known.map(|(chunk, known)| within(chunk, known)).sum()
        } else {
            let known = self.chunks.iter().filter(|(chunk, _)| (first_chunk..=last_chunk).contains(*chunk));
            known.map(|(chunk, known)| within(*chunk, known)).sum()
        }
    }

    /// How many from `first` to `last` are taken in a chunk of which they are a part.
    fn count_in_chunk(&self, chunk: u128, first: u128, last: u128) -> u128 {
        let (first, last) = (first.max(chunk << (2 * SHIFT)), last.min(end(chunk, 2 * SHIFT)));
        let count = |block: u128| {
            let from = first.max(block << SHIFT) as u32 % LEN;
            let to = last.min(end(block, SHIFT)) as u32 % LEN;
            self.blocks.get(&block).map_or(0, |taken| taken.count(from, to))
        };
        (first >> SHIFT..=last >> SHIFT).map(|block| u128::from(count(block))).sum()
    }
}

/// The last address of a block or chunk.
fn end(number: u128, shift: u32) -> u128 {
    number << shift | ((1 << shift) - 1)
}

/// The first address of the next block or chunk; `None`: there is none.
fn next(number: u128, shift: u32) -> Option<u128> {
    end(number, shift).checked_add(1)
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

    /// From now on the taken addresses of these ranges, which do not overlap, are counted with every change, so that
    /// [`Taken::count`] knows them.
    pub fn watch(&mut self, ranges: &[AddressRange]) {
        for family in IpFamily::ALL {
            let of_family = ranges.iter().filter(|range| range.family() == family);
            self.blocks_mut(family).watch(of_family.map(AddressRange::bits));
        }
    }

    /// How many addresses of the range are taken.
    pub fn count(&self, range: &AddressRange) -> u128 {
        let (first, last) = range.bits();
        self.blocks(range.family()).count(first, last)
    }

    /// How many chunks and blocks there are: what the memory is proportional to.
    pub fn parts(&self) -> usize {
        [&self.v4, &self.v6].map(|blocks| blocks.chunks.len() + blocks.blocks.len()).iter().sum()
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
    fn addresses_of_a_64_cost_a_block_for_256_and_a_chunk_for_256_blocks() {
        let range: AddressRange = "fd00::/64".parse().unwrap();
        let mut taken = Taken::default();
        for _ in 0..10_000 {
            let lowest = taken.lowest_free(&range).unwrap();
            taken.take(lowest);
        }
        assert_eq!((taken.parts(), taken.count(&range)), (1 + 10_000_usize.div_ceil(256), 10_000));
    }

    #[test]
    fn full_chunks_are_skipped_and_nothing_is_left_of_an_empty_one() {
        let range: AddressRange = "10.0.0.0/15".parse().unwrap();
        let mut taken = Taken::default();
        let all = || (0..1_u128 << 17).map(|offset| from_bits(IpFamily::IPv4, (10 << 24) + offset));
        all().for_each(|address| taken.take(address));
        assert_eq!((taken.parts(), taken.count(&range), taken.lowest_free(&range)), (2 + 512, 1 << 17, None));
        let within: AddressRange = "10.0.200.7-10.1.3.2".parse().unwrap();
        assert_eq!(taken.count(&within), within.len());
        taken.free(ip("10.1.2.3"));
        assert_eq!(taken.lowest_free(&range), Some(ip("10.1.2.3")));
        all().for_each(|address| taken.free(address));
        assert_eq!((taken.parts(), taken.count(&range)), (0, 0));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_a_set_of_addresses(
            steps in prop::collection::vec((any::<bool>(), 0_u32..4, 0_u32..300), 0..60),
            (first, length) in (0_u32..1500, 0_u32..1500),
        ) {
            let (mut taken, mut watching) = (Taken::default(), Taken::default());
            let mut model = BTreeSet::new();
            // Two blocks before the end of a chunk.
            let at = |offset: u32| from_bits(IpFamily::IPv4, 0xC000_FE80 + u128::from(offset));
            for (take, from, count) in steps {
                // Whole blocks and parts of them.
                for offset in from * 256..from * 256 + count {
                    if take { taken.take(at(offset)); watching.take(at(offset)); model.insert(offset); }
                    else { taken.free(at(offset)); watching.free(at(offset)); model.remove(&offset); }
                }
                let range = AddressRange::new(at(first), at(first + length)).unwrap();
                prop_assert_eq!(watching.count(&range), taken.count(&range));
                // From the second step on it is counted along.
                if watching.v4.watched.is_empty() {
                    watching.watch(&[AddressRange::new(at(1600), at(1700)).unwrap(), range]);
                }
                let free = (first..=first + length).find(|offset| !model.contains(offset));
                prop_assert_eq!(taken.lowest_free(&range), free.map(at));
                prop_assert_eq!(taken.count(&range), model.range(first..=first + length).count() as u128);
                prop_assert_eq!(taken.count(&"::ffff:0:0/96".parse().unwrap()), 0);
                prop_assert_eq!(taken.count(&"0.0.0.0/0".parse().unwrap()), model.len() as u128);
                prop_assert_eq!(taken.contains(at(first)), model.contains(&first));
                let is_full = |block: &u128| taken.v4.chunks[&(block >> SHIFT)].full.contains(*block);
                let is_right = |(block, bits): (&u128, &Bits)| is_full(block) == (*bits == Bits::ALL);
                prop_assert!(taken.v4.blocks.iter().all(is_right));
                prop_assert!(taken.v4.blocks.values().all(|bits| *bits != Bits::default()));
                prop_assert!(taken.v4.chunks.values().all(|chunk| chunk.taken > 0));
            }
        }
    }
}
