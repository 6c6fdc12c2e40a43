//! The Loc-RIB (RFC 4271 §3.2): every route of our own, whoever gets it.
//!
//! A route that is removed leaves its prefix behind until the last peer that has it was told (`hold` and
//! `release` count them), so that a session needs to remember numbers only.

use std::sync::Arc;

use ipnet::IpNet;

use super::{
    Slot,
    changes::{Changes, Fate, Runs},
    index::{self, Found, Index},
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
    index: Index,
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
    #[cfg(test)]
    pub(crate) fn set(&mut self, route: &Route) -> Option<Slot> {
        let mut slot = None;
        self.announce(std::slice::from_ref(route), |changed| slot = Some(changed));
        slot
    }

    /// Sets routes, in order; `changed` is told every slot that this changes, once or more often.
    pub(crate) fn announce(&mut self, routes: &[Route], mut changed: impl FnMut(Slot)) {
        for route in routes {
            let attributes = self.attributes.acquire(&route.attributes);
            let slot = self.slot_of(route.prefix.trunc());
            if self.put(slot, route.class, attributes) {
                changed(slot);
            }
            self.attributes.release(attributes);
        }
    }

    /// Removes one route. The slot where there was one.
    pub(crate) fn remove(&mut self, prefix: &IpNet) -> Option<Slot> {
        let slot = self.find(&prefix.trunc())?;
        self.clear(slot).then_some(slot)
    }

    /// Makes these changes; `changed` is told every slot that differs from before, once or more often.
    pub(crate) fn apply(&mut self, changes: &Changes, mut changed: impl FnMut(Slot)) {
        self.apply_runs(&changes.ipv4, &mut changed);
        self.apply_runs(&changes.ipv6, &mut changed);
    }

    fn apply_runs<N: Copy + Into<IpNet>>(&mut self, runs: &Runs<N>, changed: &mut impl FnMut(Slot)) {
        for (fate, prefixes) in runs.iter() {
            self.apply_run(fate, prefixes.iter().map(|prefix| (*prefix).into().trunc()), changed);
        }
    }

    fn apply_run(
        &mut self,
        fate: &Fate,
        prefixes: impl Iterator<Item = IpNet>,
        changed: &mut impl FnMut(Slot),
    ) {
        let Some((class, attributes)) = fate else {
            let mut removed = |prefix| self.find(&prefix).filter(|slot| self.clear(*slot));
            return prefixes.filter_map(&mut removed).for_each(changed);
        };
        let attributes = self.attributes.acquire(attributes);
        for prefix in prefixes {
            let slot = self.slot_of(prefix);
            if self.put(slot, *class, attributes) {
                changed(slot);
            }
        }
        self.attributes.release(attributes);
    }

    /// Makes these the only routes, the last of equal prefixes counting; `changed` is told every slot that
    /// differs from before.
    pub(crate) fn replace_all(&mut self, routes: &[Route], mut changed: impl FnMut(Slot)) {
        let mut wanted = SlotSet::default();
        let mut touched = SlotSet::default();
        for route in routes {
            let attributes = self.attributes.acquire(&route.attributes);
            let slot = self.slot_of(route.prefix.trunc());
            wanted.insert(slot);
            if self.put(slot, route.class, attributes) {
                touched.insert(slot);
            }
            self.attributes.release(attributes);
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

    fn find(&self, prefix: &IpNet) -> Option<Slot> {
        self.index.find(index::hash(prefix), |slot| self.slots[slot as usize].prefix == *prefix)
    }

    /// The slot of a prefix, made where there is none.
    #[inline]
    fn slot_of(&mut self, prefix: IpNet) -> Slot {
        let hash = index::hash(&prefix);
        let slots = &self.slots;
        let bucket = match self.index.entry(hash, |slot| slots[slot as usize].prefix == prefix) {
            Found::Slot(slot) => return slot,
            Found::Vacant(bucket) => bucket,
        };
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
        self.index.insert(bucket, hash, slot);
        slot
    }

    /// Whether that changes anything.
    #[inline]
    fn put(&mut self, slot: Slot, class: RouteClass, attributes: Id) -> bool {
        let entry = &mut self.slots[slot as usize];
        let old = entry.attributes.replace(attributes);
        let is_changed = old != Some(attributes) || entry.class != class;
        entry.class = class;
        if old != Some(attributes) {
            self.attributes.retain(attributes, 1);
            match old {
                Some(old) => self.attributes.release(old),
                None => self.counts[Family::of(&entry.prefix) as usize] += 1,
            }
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
            self.index.remove(index::hash(&entry.prefix), slot);
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
        fn changes_come_to_what_they_say_one_after_the_other(
            batches in prop::collection::vec(
                prop::collection::vec((0u8..12, prop::option::of((0u32..2, 0usize..3))), 0..30),
                0..6,
            ),
        ) {
            // Equal attributes from different calls, too.
            let values = [None, Some(1), Some(1)].map(|med| {
                Arc::new(RouteAttributes { med, ..RouteAttributes::default() })
            });
            let (mut rib, mut model) = (LocRib::default(), BTreeMap::new());
            for batch in batches {
                let before = model.clone();
                let mut changes = Changes::default();
                for (host, fate) in batch {
                    let text = if host % 2 == 0 { format!("192.0.2.{host}/32") } else { format!("2001:db8::{host}/128") };
                    let prefix: IpNet = text.parse().unwrap();
                    match fate {
                        Some((class, value)) => {
                            let attributes = Arc::clone(&values[value]);
                            let route = Route { prefix, class: RouteClass(class), attributes };
                            changes.announce(&route);
                            model.insert(prefix, route);
                        }
                        None => {
                            changes.withdraw(&prefix);
                            model.remove(&prefix);
                        }
                    }
                }
                let mut told = Vec::new();
                rib.apply(&changes, |slot| told.push(slot));
                let told = told.into_iter().map(|slot| rib.prefix(slot)).collect::<Vec<_>>();
                for prefix in before.keys().chain(model.keys()) {
                    let is_told = told.contains(prefix) || !model.contains_key(prefix);
                    prop_assert!(before.get(prefix) == model.get(prefix) || is_told, "{}", prefix);
                }
                let routes = rib.routes().map(|route| (route.prefix, route)).collect::<BTreeMap<_, _>>();
                prop_assert_eq!(&routes, &model);
            }
            // Nobody uses any attributes but the routes.
            for prefix in model.keys() {
                prop_assert!(rib.remove(prefix).is_some());
            }
            prop_assert_eq!((rib.attributes.len(), rib.counts()), (0, [0, 0]));
        }

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
