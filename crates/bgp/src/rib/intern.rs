//! Values that many routes share, kept once and named by a small number, counted by their users.

use std::{collections::HashMap, hash::Hash, num::NonZeroU32};

/// Name of an interned value. Equal values have equal names as long as one user is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(NonZeroU32);

impl Id {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The values, each with the number of its users. They are cloned once, so they should be cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Interner<T> {
    entries: Vec<Option<(T, u32)>>,
    ids: HashMap<T, Id>,
    free: Vec<Id>,
    /// The value asked for last: most routes come in runs that share theirs, and comparing is less than hashing.
    recent: Option<Id>,
}

impl<T> Default for Interner<T> {
    fn default() -> Interner<T> {
        Interner { entries: Vec::new(), ids: HashMap::new(), free: Vec::new(), recent: None }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    /// The name of this value, with one user more.
    pub(crate) fn acquire(&mut self, value: &T) -> Id {
        let is_recent =
            |id: &Id| self.entries[id.index()].as_ref().is_some_and(|(recent, _)| recent == value);
        let known = self.recent.filter(is_recent).or_else(|| self.ids.get(value).copied());
        if let Some(id) = known {
            self.recent = known;
            self.retain(id, 1);
            return id;
        }
        let entry = Some((value.clone(), 1));
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id.index()] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                let last = u32::try_from(self.entries.len()).ok().and_then(NonZeroU32::new);
                Id(last.expect("values are counted in 32 bits"))
            }
        };
        self.ids.insert(value.clone(), id);
        self.recent = Some(id);
        id
    }

    /// So many users more of a value that has some.
    pub(crate) fn retain(&mut self, id: Id, users: u32) {
        let (_, count) = self.entries[id.index()].as_mut().expect("an id in use names a value");
        *count += users;
    }

    /// So many users less; the last takes the value along.
    pub(crate) fn release(&mut self, id: Id, users: u32) {
        let entry = &mut self.entries[id.index()];
        let (_, count) = entry.as_mut().expect("an id in use names a value");
        *count -= users;
        if *count == 0
            && let Some((value, _)) = entry.take()
        {
            self.ids.remove(&value);
            self.free.push(id);
        }
    }

    pub(crate) fn value(&self, id: Id) -> &T {
        let (value, _) = self.entries[id.index()].as_ref().expect("an id in use names a value");
        value
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_name_until_the_last_user_lets_go() {
        let mut interner = Interner::default();
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let first = interner.acquire(&a);
        assert_eq!(interner.acquire(&a.clone()), first);
        let other = interner.acquire(&b);
        assert_ne!(first, other);
        interner.release(first, 1);
        assert_eq!(interner.value(first), &a);
        interner.release(first, 1);
        assert_eq!(interner.len(), 1);
        assert_eq!(interner.acquire(&"c".to_owned()), first, "the place is used again");
    }
}
