//! The books: which Services hold which address. A cache of the Services' status, rebuilt from it at start;
//! nothing is counted beside it.
//!
//! Guarantees: an address is free exactly while nobody holds it. [`Ledger::conflict`] says who stands in the way
//! of one more holder. The ledger itself records what is published, even where that is a conflict, because it is
//! the truth; the decision resolves it.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use api::AddressRange;
use foldhash::fast::RandomState;

use crate::{
    inputs::service::{Port, Service, ServiceKey},
    pool::Taken,
};

/// One Service on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub service: ServiceKey,
    /// How old it is, see [`Service::seniority`].
    pub created: i64,
    /// Its sharing key.
    pub sharing_key: Option<Arc<str>>,
    /// Its ports.
    pub ports: Arc<[Port]>,
}

/// Who holds what.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    taken: Taken,
    by_address: HashMap<IpAddr, Holders, RandomState>,
    by_service: HashMap<ServiceKey, Vec<IpAddr>, RandomState>,
    /// (namespace, sharing key) → addresses that are held under it, in the order in which they came.
    by_sharing_key: HashMap<(Box<str>, Arc<str>), Vec<IpAddr>>,
}

/// Nearly always one.
type Holders = Vec<Holder>;

/// Why a Service cannot have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict<'a> {
    /// Somebody holds it, and the two do not share.
    InUse(&'a Holder),
    /// Somebody shares it who has one of the ports.
    PortCollision(&'a Holder, Port),
}

impl Ledger {
    /// Who holds an address, in the order in which they came.
    pub fn holders(&self, address: IpAddr) -> &[Holder] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// What a Service holds.
    pub fn held_by(&self, service: &ServiceKey) -> &[IpAddr] {
        self.by_service.get(service).map_or(&[], Vec::as_slice)
    }

    /// Every Service that holds something.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceKey, &[IpAddr])> {
        self.by_service.iter().map(|(service, addresses)| (service, addresses.as_slice()))
    }

    /// The lowest address of a range that nobody holds.
    pub fn lowest_free(&self, range: &AddressRange) -> Option<IpAddr> {
        self.taken.lowest_free(range)
    }

    /// How many addresses of a range are held.
    pub fn count(&self, range: &AddressRange) -> u128 {
        self.taken.count(range)
    }

    /// The addresses that Services of this namespace share under this key.
    pub fn shared(&self, namespace: &str, key: &Arc<str>) -> &[IpAddr] {
        self.by_sharing_key.get(&(namespace.into(), key.clone())).map_or(&[], Vec::as_slice)
    }

    /// The sharing keys under which a Service holds something.
    pub fn sharing_keys_of(&self, service: &ServiceKey) -> Vec<Arc<str>> {
        let held = self.held_by(service).iter().flat_map(|address| self.holders(*address));
        held.filter(|holder| holder.service == *service)
            .filter_map(|holder| holder.sharing_key.clone())
            .collect()
    }

    /// Who stands in the way of the Service coming to the address: anybody else there who does not share with it,
    /// or who has one of its ports. `may_share` says of a namespace whether it shares with the Service's.
    pub fn conflict(
        &self,
        address: IpAddr,
        service: &Service,
        may_share: impl Fn(&str) -> bool,
    ) -> Option<Conflict<'_>> {
        let others = self.holders(address).iter().filter(|holder| holder.service != service.key);
        let key = &service.facts.requests.sharing_key;
        others.into_iter().find_map(|holder| {
            let shares = key.is_some() && holder.sharing_key == *key && may_share(holder.service.namespace());
            if !shares {
                return Some(Conflict::InUse(holder));
            }
            collision(&service.facts.ports, &holder.ports).map(|port| Conflict::PortCollision(holder, port))
        })
    }

    /// Who makes a Service leave an address that both hold: an older one with one of its ports, or one without
    /// any sharing key where it has none either. Ports that do not collide and a key on either side tell of
    /// sharing that was agreed to and that nobody is thrown out of.
    pub fn must_yield_to(&self, address: IpAddr, service: &Service) -> Option<&Holder> {
        let older = self
            .holders(address)
            .iter()
            .filter(|holder| (holder.created, &holder.service) < service.seniority());
        older.into_iter().find(|holder| {
            let strangers = holder.sharing_key.is_none() && service.facts.requests.sharing_key.is_none();
            strangers || collision(&service.facts.ports, &holder.ports).is_some()
        })
    }

    /// Makes the Service a holder of the address, or brings what is known of it up to date. Whether that changed
    /// anything.
    pub fn hold(&mut self, address: IpAddr, service: &Service) -> bool {
        let holder = Holder {
            service: service.key.clone(),
            created: service.created,
            sharing_key: service.facts.requests.sharing_key.clone(),
            ports: service.facts.ports.clone(),
        };
        let holders = self.by_address.entry(address).or_default();
        let old_key = match holders.iter_mut().find(|known| known.service == service.key) {
            Some(known) if *known == holder => return false,
            Some(known) => std::mem::replace(known, holder).sharing_key,
            None => {
                holders.push(holder);
                self.taken.take(address);
                self.by_service.entry(service.key.clone()).or_default().push(address);
                None
            }
        };
        if let Some(key) = old_key {
            self.drop_key(address, service.key.namespace(), &key);
        }
        if let Some(key) = &service.facts.requests.sharing_key {
            let shared =
                self.by_sharing_key.entry((service.key.namespace().into(), key.clone())).or_default();
            if !shared.contains(&address) {
                shared.push(address);
            }
        }
        true
    }

    /// Takes the Service off the address. Whether the address is free now.
    pub fn release(&mut self, address: IpAddr, service: &ServiceKey) -> bool {
        let Some(holders) = self.by_address.get_mut(&address) else { return false };
        let Some(position) = holders.iter().position(|holder| holder.service == *service) else {
            return false;
        };
        let holder = holders.remove(position);
        let is_free = holders.is_empty();
        if is_free {
            self.by_address.remove(&address);
            self.taken.free(address);
        }
        if let Some(addresses) = self.by_service.get_mut(service) {
            addresses.retain(|held| *held != address);
            if addresses.is_empty() {
                self.by_service.remove(service);
            }
        }
        if let Some(key) = holder.sharing_key {
            self.drop_key(address, service.namespace(), &key);
        }
        is_free
    }

    /// Makes the Service hold exactly these addresses. Those that are free because of it.
    pub fn set(&mut self, service: &Service, addresses: &[IpAddr]) -> Vec<IpAddr> {
        for address in addresses {
            self.hold(*address, service);
        }
        self.keep_only(&service.key, addresses)
    }

    /// Takes the Service off every other address. Those that are free because of it.
    pub fn keep_only(&mut self, service: &ServiceKey, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let held = self.held_by(service);
        if held.iter().all(|address| addresses.contains(address)) {
            return Vec::new();
        }
        let mut gone: Vec<IpAddr> =
            held.iter().copied().filter(|address| !addresses.contains(address)).collect();
        gone.retain(|address| self.release(*address, service));
        gone
    }

    /// The entry of a sharing key goes with its last user on the address.
    fn drop_key(&mut self, address: IpAddr, namespace: &str, key: &Arc<str>) {
        let is_used = self.holders(address).iter().any(|holder| {
            holder.sharing_key.as_ref() == Some(key) && holder.service.namespace() == namespace
        });
        if is_used {
            return;
        }
        let entry = (namespace.into(), key.clone());
        if let Some(shared) = self.by_sharing_key.get_mut(&entry) {
            shared.retain(|known| *known != address);
            if shared.is_empty() {
                self.by_sharing_key.remove(&entry);
            }
        }
    }
}

/// The first port that both have; both lists are sorted.
fn collision(ours: &[Port], theirs: &[Port]) -> Option<Port> {
    ours.iter().find(|port| theirs.binary_search(port).is_ok()).cloned()
}
