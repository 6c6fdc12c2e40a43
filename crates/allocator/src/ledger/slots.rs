//! Which slots are on an address: nearly always one, and then nothing is on the heap.
//!
//! Addresses are handed out beside each other, so they are kept in blocks of 16, a cache line each.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use foldhash::fast::RandomState;

/// The number of a holder.
pub(super) type Slot = u32;

/// There can be no more holders than that.
pub(super) const MAX_SLOTS: u32 = SEVERAL;

/// Nobody.
const NOBODY: Slot = u32::MAX;
/// Set in the number of a list.
const SEVERAL: Slot = 1 << 31;

/// A block is 2^4 addresses.
const SHIFT: u32 = 4;
const BLOCK: usize = 1 << SHIFT;

/// For each of its addresses: a slot, the number of a list of them, or nobody.
type Block = [Slot; BLOCK];

/// Address → who is on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    v4: HashMap<u32, Block, RandomState>,
    v6: HashMap<u128, Block, RandomState>,
    several: Lists,
}

/// Of addresses with more than one.
#[derive(Clone, Debug, Default)]
struct Lists {
    lists: Vec<Vec<Slot>>,
    vacant: Vec<Slot>,
}

impl Lists {
    fn add(&mut self, list: Vec<Slot>) -> Slot {
        if let Some(number) = self.vacant.pop() {
            self.lists[number as usize] = list;
            return number | SEVERAL;
        }
        self.lists.push(list);
        u32::try_from(self.lists.len() - 1).expect("fewer than there are slots") | SEVERAL
    }

    fn list(&mut self, cell: Slot) -> &mut Vec<Slot> {
        &mut self.lists[(cell & !SEVERAL) as usize]
    }

    fn remove(&mut self, cell: Slot) {
        *self.list(cell) = Vec::new();
        self.vacant.push(cell & !SEVERAL);
    }
}

impl Holders {
    /// In the order in which they came.
    pub(super) fn at(&self, address: IpAddr) -> &[Slot] {
        let cell = match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                self.v4.get(&(bits >> SHIFT)).map(|block| &block[bits as usize % BLOCK])
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.v6.get(&(bits >> SHIFT)).map(|block| &block[bits as usize % BLOCK])
            }
        };
        match cell {
            None | Some(&NOBODY) => &[],
            Some(several) if several & SEVERAL != 0 => &self.several.lists[(several & !SEVERAL) as usize],
            Some(one) => std::slice::from_ref(one),
        }
    }

    /// Whether it is the first there. It must not be there already.
    pub(super) fn add(&mut self, address: IpAddr, slot: Slot) -> bool {
        let cell = match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                let block = self.v4.entry(bits >> SHIFT).or_insert([NOBODY; BLOCK]);
                &mut block[bits as usize % BLOCK]
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                let block = self.v6.entry(bits >> SHIFT).or_insert([NOBODY; BLOCK]);
                &mut block[bits as usize % BLOCK]
            }
        };
        match *cell {
            NOBODY => *cell = slot,
            several if several & SEVERAL != 0 => self.several.list(several).push(slot),
            one => *cell = self.several.add(vec![one, slot]),
        }
        *cell == slot
    }

    /// Whether it was the last there.
    pub(super) fn remove(&mut self, address: IpAddr, slot: Slot) -> bool {
        match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                remove(&mut self.v4, bits >> SHIFT, bits as usize % BLOCK, slot, &mut self.several)
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                remove(&mut self.v6, bits >> SHIFT, bits as usize % BLOCK, slot, &mut self.several)
            }
        }
    }
}

fn remove<K: Eq + Hash>(
    blocks: &mut HashMap<K, Block, RandomState>,
    number: K,
    place: usize,
    slot: Slot,
    several: &mut Lists,
) -> bool {
    let Some(block) = blocks.get_mut(&number) else { return false };
    let cell = &mut block[place];
    if *cell == slot {
        *cell = NOBODY;
        if block.iter().all(|cell| *cell == NOBODY) {
            blocks.remove(&number);
        }
        return true;
    }
    if *cell != NOBODY && *cell & SEVERAL != 0 {
        let list = several.list(*cell);
        list.retain(|known| *known != slot);
        if let [only] = *list.as_slice() {
            several.remove(*cell);
            *cell = only;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ip;

    #[test]
    fn an_address_is_free_when_its_last_holder_has_left() {
        let (mut holders, address) = (Holders::default(), ip("192.0.2.1"));
        assert!(holders.add(address, 7));
        assert!(!holders.add(address, 3) && !holders.add(address, 5));
        assert_eq!(holders.at(address), [7, 3, 5]);
        assert!(!holders.remove(address, 7) && !holders.remove(address, 3));
        assert!(!holders.remove(address, 9), "who is not there cannot leave");
        assert_eq!(holders.at(address), [5]);
        assert!(holders.remove(address, 5));
        assert!(holders.at(address).is_empty());
    }
}
