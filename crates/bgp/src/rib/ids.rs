//! An id for each member of a block that has one. Neighbours mostly share theirs, and then it is kept once.

use super::{
    block::{Members, places},
    intern::Id,
};

/// The members of a block that have an id, and which.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    present: Members,
    which: Which,
}

#[derive(Clone, Debug, Default)]
enum Which {
    /// Nobody has one.
    #[default]
    None,
    /// All who have one have this.
    All(Id),
    /// By place; where nobody is present it means nothing.
    Each(Box<[Id; 64]>),
}

impl Ids {
    /// Who has one.
    pub(crate) fn present(&self) -> Members {
        self.present
    }

    /// Who has this one.
    pub(crate) fn with(&self, id: Id) -> Members {
        match &self.which {
            Which::All(all) if *all == id => self.present,
            Which::None | Which::All(_) => 0,
            Which::Each(each) => equal(each, id, self.present),
        }
    }

    /// Those of `members` that have one, in groups that have the same.
    #[inline]
    pub(crate) fn groups(&self, members: Members) -> impl Iterator<Item = (Id, Members)> + '_ {
        let mut left = members & self.present;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let (id, same) = match &self.which {
                // Whoever is present has one.
                Which::None => return None,
                Which::All(id) => (*id, left),
                Which::Each(each) => {
                    let id = each[left.trailing_zeros() as usize];
                    (id, equal(each, id, left))
                }
            };
            left &= !same;
            Some((id, same))
        })
    }

    /// Gives all of `members` this one, and tells `released` what others had before, and how many of them. Returns
    /// those that did not have it before.
    #[inline]
    pub(crate) fn set(&mut self, members: Members, id: Id, released: impl FnMut(Id, u32)) -> Members {
        let changed = members & !self.with(id);
        if changed == 0 {
            return 0;
        }
        if matches!(self.which, Which::All(all) if all == id) {
            self.present |= members;
            return changed;
        }
        self.tell(changed, released);
        if self.present & !members == 0 {
            self.which = Which::All(id);
        } else {
            if let Which::All(others) = self.which {
                self.which = Which::Each(Box::new([others; 64]));
            }
            if let Which::Each(each) = &mut self.which {
                places(changed).for_each(|place| each[place as usize] = id);
            }
        }
        self.present |= members;
        changed
    }

    /// Takes theirs from those of `members` that have one, and tells `released` which, and how many. Returns who that
    /// was.
    pub(crate) fn clear(&mut self, members: Members, released: impl FnMut(Id, u32)) -> Members {
        let cleared = members & self.present;
        self.tell(cleared, released);
        self.present &= !cleared;
        if self.present == 0 {
            self.which = Which::None;
        }
        cleared
    }

    fn tell(&self, members: Members, mut released: impl FnMut(Id, u32)) {
        self.groups(members).for_each(|(id, same)| released(id, same.count_ones()));
    }
}

fn equal(each: &[Id; 64], id: Id, among: Members) -> Members {
    places(among).filter(|place| each[*place as usize] == id).fold(0, |same, place| same | 1 << place)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{
        super::{block::count, intern::Interner},
        *,
    };

    proptest! {
        #[test]
        fn ids_behave_like_a_map_and_no_user_of_an_id_is_lost(
            operations in prop::collection::vec(
                (prop::option::of(0_u8..3), any::<u64>(), any::<u64>(), any::<bool>()), 0..40),
        ) {
            let mut interner = Interner::default();
            let (mut ids, mut model) = (Ids::default(), BTreeMap::new());
            for (value, some, more, is_few) in operations {
                let members = if is_few { some & more & some.rotate_left(7) } else { some | more };
                if let Some(value) = value {
                    let id = interner.acquire(&value);
                    let changed = ids.set(members, id, |old, users| interner.release(old, users));
                    interner.retain(id, changed.count_ones());
                    interner.release(id, 1);
                    for place in places(members) {
                        let old = model.insert(place, value);
                        prop_assert_eq!(changed >> place & 1 == 1, old != Some(value));
                    }
                    prop_assert_eq!(changed & !members, 0);
                } else {
                    let cleared = ids.clear(members, |old, users| interner.release(old, users));
                    let gone = places(members).filter(|place| model.remove(place).is_some());
                    prop_assert!(gone.eq(places(cleared)));
                }
                let mut found = BTreeMap::new();
                for (id, same) in ids.groups(u64::MAX) {
                    prop_assert_eq!(ids.with(id), same);
                    found.extend(places(same).map(|place| (place, *interner.value(id))));
                }
                prop_assert_eq!(&found, &model);
                prop_assert_eq!(count(ids.present()), model.len());
            }
            ids.clear(u64::MAX, |old, users| interner.release(old, users));
            prop_assert_eq!(interner.len(), 0);
        }
    }
}
