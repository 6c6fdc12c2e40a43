//! The ledger's small holders: which slots are on an address, which addresses a Service has. Nearly always one or
//! two, and then nothing is on the heap.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::IpAddr,
};

use foldhash::fast::RandomState;

/// The number of a holder.
pub(super) type Slot = u32;

/// One, or several in the order in which they came.
#[derive(Clone, Debug)]
enum Few {
    One(Slot),
    #[expect(clippy::box_collection, reason = "rare, and a Vec would make all of them twice as large")]
    Many(Box<Vec<Slot>>),
}

impl Few {
    fn as_slice(&self) -> &[Slot] {
        match self {
            Few::One(slot) => std::slice::from_ref(slot),
            Few::Many(slots) => slots,
        }
    }

    fn add(&mut self, slot: Slot) {
        match self {
            Few::One(first) => *self = Few::Many(Box::new(vec![*first, slot])),
            Few::Many(slots) => slots.push(slot),
        }
    }

    /// Whether nothing is left.
    fn remove(&mut self, slot: Slot) -> bool {
        match self {
            Few::One(only) => *only == slot,
            Few::Many(slots) => {
                slots.retain(|known| *known != slot);
                if let [only] = ***slots {
                    *self = Few::One(only);
                }
                false
            }
        }
    }
}

/// Address → who is on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    v4: HashMap<u32, Few, RandomState>,
    v6: HashMap<u128, Few, RandomState>,
}

impl Holders {
    /// In the order in which they came.
    pub(super) fn at(&self, address: IpAddr) -> &[Slot] {
        let few = match address {
            IpAddr::V4(address) => self.v4.get(&address.to_bits()),
            IpAddr::V6(address) => self.v6.get(&address.to_bits()),
        };
        few.map_or(&[], Few::as_slice)
    }

    /// Whether it is the first there. It must not be there already.
    pub(super) fn add(&mut self, address: IpAddr, slot: Slot) -> bool {
        match address {
            IpAddr::V4(address) => add(self.v4.entry(address.to_bits()), slot),
            IpAddr::V6(address) => add(self.v6.entry(address.to_bits()), slot),
        }
    }

    /// Whether it was the last there.
    pub(super) fn remove(&mut self, address: IpAddr, slot: Slot) -> bool {
        match address {
            IpAddr::V4(address) => remove(self.v4.entry(address.to_bits()), slot),
            IpAddr::V6(address) => remove(self.v6.entry(address.to_bits()), slot),
        }
    }
}

fn add<K: Eq + Hash>(entry: Entry<'_, K, Few>, slot: Slot) -> bool {
    match entry {
        Entry::Occupied(mut few) => {
            few.get_mut().add(slot);
            false
        }
        Entry::Vacant(empty) => {
            empty.insert(Few::One(slot));
            true
        }
    }
}

fn remove<K: Eq + Hash>(entry: Entry<'_, K, Few>, slot: Slot) -> bool {
    let Entry::Occupied(mut few) = entry else { return false };
    let is_last = few.get_mut().remove(slot);
    if is_last {
        few.remove();
    }
    is_last
}

/// What a Service holds, in the order in which it came; each address once.
#[derive(Clone, Debug, Default)]
pub(super) enum Held {
    #[default]
    Nothing,
    One([IpAddr; 1]),
    Two([IpAddr; 2]),
    More(Vec<IpAddr>),
}

impl Held {
    pub(super) fn as_slice(&self) -> &[IpAddr] {
        match self {
            Held::Nothing => &[],
            Held::One(one) => one,
            Held::Two(two) => two,
            Held::More(more) => more,
        }
    }

    pub(super) fn into_vec(self) -> Vec<IpAddr> {
        match self {
            Held::More(more) => more,
            few => few.as_slice().to_vec(),
        }
    }

    fn of(addresses: Vec<IpAddr>) -> Held {
        match *addresses.as_slice() {
            [] => Held::Nothing,
            [one] => Held::One([one]),
            [one, two] => Held::Two([one, two]),
            _ => Held::More(addresses),
        }
    }

    /// Whether it was not there.
    pub(super) fn insert(&mut self, address: IpAddr) -> bool {
        if self.as_slice().contains(&address) {
            return false;
        }
        *self = match std::mem::take(self) {
            Held::Nothing => Held::One([address]),
            Held::One([one]) => Held::Two([one, address]),
            Held::Two([one, two]) => Held::More(vec![one, two, address]),
            Held::More(mut more) => {
                more.push(address);
                Held::More(more)
            }
        };
        true
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, address: IpAddr) -> bool {
        if !self.as_slice().contains(&address) {
            return false;
        }
        let mut left = std::mem::take(self).into_vec();
        left.retain(|known| *known != address);
        *self = Held::of(left);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ip, ips};

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

    #[test]
    fn addresses_stay_in_the_order_in_which_they_came() {
        let mut held = Held::default();
        for address in ips("192.0.2.9 fd00::1 192.0.2.1 192.0.2.5") {
            assert!(held.insert(address) && !held.insert(address));
        }
        assert!(held.remove(ip("fd00::1")) && !held.remove(ip("fd00::1")));
        assert_eq!(held.as_slice(), ips("192.0.2.9 192.0.2.1 192.0.2.5"));
        assert!(held.remove(ip("192.0.2.9")));
        assert_eq!(held.into_vec(), ips("192.0.2.1 192.0.2.5"));
    }
}
