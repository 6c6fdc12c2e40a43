//! Which namespaces have Services with addresses of which group: counted with every change, since looking through
//! all Services for every status of a group would take longer than deciding about them.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use foldhash::fast::RandomState;

use crate::{inputs::Groups, ledger::Ledger};

/// Group → namespace → how many times a Service of it holds an address of the group.
#[derive(Clone, Debug, Default)]
pub struct Bound(HashMap<Arc<str>, HashMap<Box<str>, usize, RandomState>, RandomState>);

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
        if !self.0.contains_key(&group.name) {
            self.0.insert(group.name.clone(), HashMap::default());
        }
        let Some(counts) = self.0.get_mut(&group.name) else { return };
        match counts.get_mut(namespace) {
            Some(count) => *count += 1,
            None => drop(counts.insert(namespace.into(), 1)),
        }
    }

    /// A Service of the namespace has left the address.
    pub(super) fn remove(&mut self, groups: &Groups, address: IpAddr, namespace: &str) {
        let Some(counts) = groups.of_address(address).and_then(|group| self.0.get_mut(&group.name)) else {
            return;
        };
        if let Some(count) = counts.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                counts.remove(namespace);
            }
        }
    }

    /// The namespaces that have addresses of the group, sorted.
    pub fn namespaces(&self, group: &str) -> Vec<&str> {
        let mut namespaces: Vec<&str> =
            self.0.get(group).into_iter().flatten().map(|(namespace, _)| namespace.as_ref()).collect();
        namespaces.sort_unstable();
        namespaces
    }
}
