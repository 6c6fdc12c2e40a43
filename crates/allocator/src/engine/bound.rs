//! Which namespaces have Services with addresses of which group: counted with every change, since looking through
//! all Services for every status of a group would take longer than deciding about them.

use std::{collections::HashMap, net::IpAddr};

use foldhash::fast::RandomState;

use crate::{
    inputs::{Groups, Word},
    ledger::Ledger,
};

/// Namespace → group → how many times a Service of it holds an address of the group; of each namespace only the few
/// groups that it has something of.
#[derive(Clone, Debug, Default)]
pub struct Bound(HashMap<Box<str>, Vec<(Word, usize)>, RandomState>);

impl Bound {
    /// Counts anew, because the groups are others.
    pub(super) fn new(groups: &Groups, ledger: &Ledger) -> Bound {
        let mut bound = Bound::default();
        for (service, addresses) in ledger.services() {
            for address in addresses {
                bound.add(groups, *address, service.namespace());
            }
        }
        bound
    }

    /// A Service of the namespace has come to the address.
    pub(super) fn add(&mut self, groups: &Groups, address: IpAddr, namespace: &str) {
        let Some(group) = groups.of_address(address) else { return };
        let counts = match self.0.get_mut(namespace) {
            Some(counts) => counts,
            None => self.0.entry(namespace.into()).or_default(),
        };
        match counts.iter_mut().find(|(name, _)| *name == group.name) {
            Some((_, count)) => *count += 1,
            None => counts.push((group.name.clone(), 1)),
        }
    }

    /// A Service of the namespace has left the address.
    pub(super) fn remove(&mut self, groups: &Groups, address: IpAddr, namespace: &str) {
        let Some(group) = groups.of_address(address) else { return };
        let Some(counts) = self.0.get_mut(namespace) else { return };
        let Some(place) = counts.iter().position(|(name, _)| *name == group.name) else { return };
        let (_, count) = &mut counts[place];
        *count -= 1;
        if *count == 0 {
            counts.swap_remove(place);
            if counts.is_empty() {
                self.0.remove(namespace);
            }
        }
    }

    /// The namespaces that have addresses of the group, sorted.
    pub fn namespaces(&self, group: &str) -> Vec<&str> {
        let has = |counts: &[(Word, usize)]| counts.iter().any(|(name, _)| **name == *group);
        let having = self.0.iter().filter(|(_, counts)| has(counts));
        let mut namespaces: Vec<&str> = having.map(|(namespace, _)| namespace.as_ref()).collect();
        namespaces.sort_unstable();
        namespaces
    }
}
