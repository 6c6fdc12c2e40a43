//! What many Services have in common, kept once: names of groups, sharing keys, lists of ports.

use std::{collections::HashSet, hash::Hash};

use foldhash::fast::RandomState;

use super::{
    Service,
    word::{Ports, Word},
};

/// So many are kept before the first look at which of them are still in use.
const FIRST_SWEEP: usize = 1024;

/// Something that is shared.
trait Common: Clone + Eq + Hash {
    /// How many have it.
    fn holders(&self) -> usize;
}

impl Common for Word {
    fn holders(&self) -> usize {
        Word::holders(self)
    }
}

impl Common for Ports {
    fn holders(&self) -> usize {
        Ports::holders(self)
    }
}

/// Shared values of one kind.
#[derive(Debug)]
struct Shared<T> {
    known: HashSet<T, RandomState>,
    /// How many there may be before those that nobody else has are dropped.
    sweep_at: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared { known: HashSet::default(), sweep_at: FIRST_SWEEP }
    }
}

impl<T: Common> Shared<T> {
    fn share(&mut self, value: &mut T) {
        if let Some(known) = self.known.get(value) {
            *value = known.clone();
            return;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| known.holders() > 1);
            self.sweep_at = FIRST_SWEEP.max(self.known.len() * 2);
        }
        self.known.insert(value.clone());
    }
}

/// The values that were seen.
#[derive(Debug, Default)]
pub struct Words {
    texts: Shared<Word>,
    ports: Shared<Ports>,
}

impl Words {
    /// Makes the Service use what is kept already.
    pub fn share(&mut self, service: &mut Service) {
        let facts = &mut service.facts;
        self.ports.share(&mut facts.ports);
        let texts =
            [&mut facts.requests.group, &mut facts.requests.sharing_key, &mut facts.brand.allocated_from];
        texts.into_iter().flatten().for_each(|text| self.texts.share(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::service;

    const SHARING: &str =
        "metadata: {annotations: {purelb.io/service-group: edge, purelb.io/allow-shared-ip: k}}";

    #[test]
    fn services_that_say_the_same_share_it() {
        let mut words = Words::default();
        let (mut a, mut b) = (service("a", SHARING), service("b", SHARING));
        let before = b.facts.clone();
        words.share(&mut a);
        words.share(&mut b);
        assert_eq!(b.facts, before);
        assert!(std::ptr::eq(&a.facts.ports[..], &b.facts.ports[..]));
        let group = |service: &Service| service.facts.requests.group.clone().unwrap();
        assert!(std::ptr::eq(&*group(&a), &*group(&b)));
    }

    #[test]
    fn what_nobody_uses_any_more_is_dropped() {
        let mut shared = Shared::<Word>::default();
        let mut kept = Word::from("kept");
        shared.share(&mut kept);
        for number in 0..10 * FIRST_SWEEP {
            shared.share(&mut number.to_string().into());
        }
        assert!(shared.known.len() <= FIRST_SWEEP && shared.known.contains("kept"));
    }
}
