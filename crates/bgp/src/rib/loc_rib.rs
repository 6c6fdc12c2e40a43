//! The Loc-RIB (RFC 4271 §3.2): every route of our own, whoever gets it.
//!
//! A route that is removed leaves its prefix behind until the last peer that has it was told (`hold` and
//! `release` count them), so that a session needs to remember numbers only.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Slot,
    intern::{Id, Interner},
    slot_set::SlotSet,
};
use crate::{
    route::{Route, RouteAttributes, RouteClass},
    types::Family,
};

/// Prefix → class and attributes; attributes are kept once for all routes that share them.
#[derive(Debug, Default)]
pub struct LocRib {
    slots: Vec<Entry>,
    free: Vec<Slot>,
    index: HashMap<IpNet, Slot, BuildHasherDefault<PrefixHasher>>,
    attributes: Interner<RouteAttributes>,
    counts: [usize; 2],
}

/// What is kept of a prefix: 28 octets.
#[derive(Clone, Debug)]
struct Entry {
    prefix: IpNet,
    /// How many sessions have told their peer of this prefix and not taken it back.
    holders: u16,
    class: RouteClass,
    /// `None`: the route is gone, or the slot is free.
    attributes: Option<Id>,
}

/// What makes the exported attributes of a route: routes with the same kind look the same to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) family: Family,
    pub(crate) class: RouteClass,
    pub(crate) attributes: Id,
}

impl LocRib {
    /// Routes by family (index: position in [`Family::ALL`]).
    pub fn counts(&self) -> [usize; 2] {
        self.counts
    }

    /// The routes, in no order that means anything.
    pub fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.slots.iter().filter_map(|entry| {
            let attributes = Arc::clone(self.attributes.value(entry.attributes?));
            Some(Route { prefix: entry.prefix, class: entry.class, attributes })
        })
    }

    /// Sets one route. The slot where that changes anything.
    pub(crate) fn set(&mut self, route: &Route) -> Option<Slot> {
        let slot = self.slot_of(route.prefix.trunc());
        self.put(slot, route).then_some(slot)
    }

    /// Removes one route. The slot where there was one.
    pub(crate) fn remove(&mut self, prefix: &IpNet) -> Option<Slot> {
        let slot = *self.index.get(&prefix.trunc())?;
        self.clear(slot).then_some(slot)
    }

    /// Makes these the only routes, the last of equal prefixes counting; `changed` is told every slot that
    /// differs from before.
    pub(crate) fn replace_all(&mut self, routes: &[Route], mut changed: impl FnMut(Slot)) {
        let mut wanted = SlotSet::default();
        let mut touched = SlotSet::default();
        for route in routes {
            let slot = self.slot_of(route.prefix.trunc());
            wanted.insert(slot);
            if self.put(slot, route) {
                touched.insert(slot);
            }
        }
        for slot in 0..self.end() {
            if !wanted.contains(slot) && self.clear(slot) {
                touched.insert(slot);
            }
        }
        touched.iter().for_each(&mut changed);
    }

    /// One past the last slot.
    pub(crate) fn end(&self) -> Slot {
        Slot::try_from(self.slots.len()).expect("prefixes are counted in 32 bits")
    }

    pub(crate) fn prefix(&self, slot: Slot) -> IpNet {
        self.entry(slot).prefix
    }

    /// `None` where the route is gone.
    pub(crate) fn kind(&self, slot: Slot) -> Option<Kind> {
        let entry = self.entry(slot);
        let attributes = entry.attributes?;
        Some(Kind { family: Family::of(&entry.prefix), class: entry.class, attributes })
    }

    pub(crate) fn attributes(&self, kind: Kind) -> &RouteAttributes {
        self.attributes.value(kind.attributes)
    }

    /// One more session has told its peer of this prefix.
    pub(crate) fn hold(&mut self, slot: Slot) {
        self.entry_mut(slot).holders += 1;
    }

    /// One session less.
    pub(crate) fn release(&mut self, slot: Slot) {
        let entry = self.entry_mut(slot);
        entry.holders -= 1;
        self.free_if_unused(slot);
    }

    /// The slot of a prefix, made where there is none.
    fn slot_of(&mut self, prefix: IpNet) -> Slot {
        if let Some(&slot) = self.index.get(&prefix) {
            return slot;
        }
        let entry = Entry { prefix, holders: 0, class: RouteClass::default(), attributes: None };
        let slot = match self.free.pop() {
            Some(slot) => {
                *self.entry_mut(slot) = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                self.end() - 1
            }
        };
        self.index.insert(prefix, slot);
        slot
    }

    fn put(&mut self, slot: Slot, route: &Route) -> bool {
        let attributes = self.attributes.acquire(&route.attributes);
        let entry = self.entry_mut(slot);
        let old = entry.attributes.replace(attributes);
        let is_changed = old != Some(attributes) || entry.class != route.class;
        entry.class = route.class;
        match old {
            Some(old) => self.attributes.release(old),
            None => self.counts[Family::of(&route.prefix) as usize] += 1,
        }
        is_changed
    }

    fn clear(&mut self, slot: Slot) -> bool {
        let entry = self.entry_mut(slot);
        let family = Family::of(&entry.prefix);
        let Some(attributes) = entry.attributes.take() else { return false };
        self.attributes.release(attributes);
        self.counts[family as usize] -= 1;
        self.free_if_unused(slot);
        true
    }

    fn free_if_unused(&mut self, slot: Slot) {
        let entry = self.entry(slot);
        if entry.attributes.is_none() && entry.holders == 0 {
            let prefix = entry.prefix;
            self.index.remove(&prefix);
            self.free.push(slot);
        }
    }

    fn entry(&self, slot: Slot) -> &Entry {
        &self.slots[slot as usize]
    }

    fn entry_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.slots[slot as usize]
    }
}

/// Multiply and fold: the keys are our own prefixes, so nobody outside chooses them to collide.
#[derive(Debug, Default)]
struct PrefixHasher(u64);

impl PrefixHasher {
    fn mix(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for PrefixHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn route(prefix: &str, class: u32, med: Option<u32>) -> Route {
        let attributes = Arc::new(RouteAttributes { med, ..RouteAttributes::default() });
        Route { prefix: prefix.parse().unwrap(), class: RouteClass(class), attributes }
    }

    #[test]
    fn setting_an_equal_route_again_changes_nothing() {
        let mut rib = LocRib::default();
        assert!(rib.set(&route("192.0.2.1/32", 1, None)).is_some());
        assert_eq!(rib.set(&route("192.0.2.1/32", 1, None)), None);
        assert!(rib.set(&route("192.0.2.1/32", 2, None)).is_some(), "the class differs");
        assert!(rib.set(&route("192.0.2.1/32", 2, Some(5))).is_some(), "the attributes differ");
        assert_eq!(rib.counts(), [1, 0]);
    }

    #[test]
    fn host_bits_do_not_make_another_route() {
        let mut rib = LocRib::default();
        rib.set(&route("192.0.2.7/24", 1, None));
        assert_eq!(rib.set(&route("192.0.2.0/24", 1, None)), None);
        assert!(rib.remove(&"192.0.2.9/24".parse().unwrap()).is_some());
        assert_eq!(rib.counts(), [0, 0]);
    }

    #[test]
    fn a_removed_prefix_keeps_its_slot_until_the_last_holder_released_it() {
        let mut rib = LocRib::default();
        let held = rib.set(&route("192.0.2.1/32", 1, None)).unwrap();
        rib.hold(held);
        rib.remove(&"192.0.2.1/32".parse().unwrap());
        let other = rib.set(&route("192.0.2.2/32", 1, None)).unwrap();
        assert_ne!(held, other);
        assert_eq!(rib.prefix(held), "192.0.2.1/32".parse().unwrap());
        rib.release(held);
        assert_eq!(rib.set(&route("2001:db8::1/128", 1, None)), Some(held), "the slot is used again");
        assert_eq!(rib.counts(), [1, 1]);
    }

    #[test]
    fn replace_all_with_the_same_routes_changes_nothing() {
        let mut rib = LocRib::default();
        let routes = [route("192.0.2.1/32", 1, None), route("2001:db8::1/128", 1, None)];
        let mut changed = 0;
        rib.replace_all(&routes, |_| changed += 1);
        assert_eq!(changed, 2);
        rib.replace_all(&routes, |_| panic!("nothing changed"));
    }

    proptest! {
        #[test]
        fn a_loc_rib_behaves_like_a_map(
            operations in prop::collection::vec((0u8..3, 0u8..12, 0u32..3), 0..80),
        ) {
            let (mut rib, mut model) = (LocRib::default(), BTreeMap::new());
            for (operation, host, med) in operations {
                let text = if host % 2 == 0 { format!("192.0.2.{host}/32") } else { format!("2001:db8::{host}/128") };
                let route = route(&text, 0, Some(med));
                match operation {
                    0 => {
                        let is_changed = model.insert(route.prefix, route.clone()) != Some(route.clone());
                        prop_assert_eq!(rib.set(&route).is_some(), is_changed);
                    }
                    1 => prop_assert_eq!(rib.remove(&route.prefix).is_some(), model.remove(&route.prefix).is_some()),
                    _ => {
                        model.retain(|prefix, _| *prefix < route.prefix);
                        rib.replace_all(&model.values().cloned().collect::<Vec<_>>(), |_| {});
                    }
                }
            }
            let mut routes: Vec<_> = rib.routes().collect();
            routes.sort_by_key(|route| route.prefix);
            prop_assert!(routes.iter().eq(model.values()));
            prop_assert_eq!(rib.counts().iter().sum::<usize>(), model.len());
        }
    }
}
