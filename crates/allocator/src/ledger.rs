//! The books: which Services hold which address. A cache of the Services' status, rebuilt from it at start;
//! nothing is counted beside it.
//!
//! Guarantees: an address is free exactly while nobody holds it. [`Ledger::conflict`] says who stands in the way
//! of one more holder. The ledger itself records what is published, even where that is a conflict, because it is
//! the truth; the decision resolves it.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::BuildHasher,
    mem,
    net::IpAddr,
    sync::Arc,
};

use api::AddressRange;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::{
    inputs::{
        compact::Addresses,
        service::{Port, Service, ServiceKey},
    },
    pool::Taken,
};

mod slots;

use slots::{Holders, MAX_SLOTS, Slot};

/// One Service that holds something.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Who.
    pub service: ServiceKey,
    /// How old it is, see [`Service::seniority`].
    pub created: i64,
    /// Its sharing key.
    pub sharing_key: Option<Arc<str>>,
    /// Its ports.
    pub ports: Arc<[Port]>,
    /// In the order in which they came.
    addresses: Addresses,
}

impl Holder {
    fn new(service: &Service) -> Holder {
        Holder {
            service: service.key.clone(),
            created: service.created,
            sharing_key: service.facts.requests.sharing_key.clone(),
            ports: service.facts.ports.clone(),
            addresses: Addresses::new(),
        }
    }

    /// Whether that is still what the Service says.
    fn is_up_to_date(&self, service: &Service) -> bool {
        self.created == service.created
            && self.sharing_key == service.facts.requests.sharing_key
            && self.ports == service.facts.ports
    }
}

/// Who holds what.
///
/// Each holder is kept once, in a slot; addresses and names lead to it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    taken: Taken,
    slots: Vec<Option<Holder>>,
    vacant: Vec<Slot>,
    /// The hash of the holder's key, so that nobody has to be looked at when the table moves, and the slot.
    by_service: HashTable<(u32, Slot)>,
    hasher: RandomState,
    by_address: Holders,
    /// Namespace → sharing key → addresses that are held under it, in the order in which they came.
    by_sharing_key: HashMap<Box<str>, Keys, RandomState>,
}

/// The sharing keys of a namespace.
type Keys = HashMap<Arc<str>, Vec<IpAddr>, RandomState>;

/// Why a Service cannot have an address.
#[derive(Clone, Debug)]
pub enum Conflict<'a> {
    /// Somebody holds it, and the two do not share.
    InUse(&'a Holder),
    /// Somebody shares it who has one of the ports.
    PortCollision(&'a Holder, Port),
}

impl Ledger {
    /// Who holds an address, in the order in which they came.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = &Holder> {
        self.by_address.at(address).iter().filter_map(|slot| self.slots.get(*slot as usize)?.as_ref())
    }

    /// Whether anybody holds an address.
    pub fn is_held(&self, address: IpAddr) -> bool {
        !self.by_address.at(address).is_empty()
    }

    fn hash(&self, service: &ServiceKey) -> u32 {
        self.hasher.hash_one(service) as u32
    }

    fn slot(&self, service: &ServiceKey) -> Option<Slot> {
        if self.by_service.is_empty() {
            return None;
        }
        let hash = self.hash(service);
        let is_it = |(known, slot): &(u32, Slot)| *known == hash && is_of(&self.slots, *slot, service);
        self.by_service.find(spread(hash), is_it).map(|(_, slot)| *slot)
    }

    fn holder(&self, service: &ServiceKey) -> Option<&Holder> {
        self.slots.get(self.slot(service)? as usize)?.as_ref()
    }

    /// What a Service holds.
    pub fn held_by(&self, service: &ServiceKey) -> &[IpAddr] {
        self.holder(service).map_or(&[], |holder| &holder.addresses)
    }

    /// Every Service that holds something.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceKey, &[IpAddr])> {
        self.slots.iter().flatten().map(|holder| (&holder.service, &holder.addresses[..]))
    }

    /// The lowest address of a range that nobody holds and that is not blocked.
    pub fn lowest_free(&self, range: &AddressRange) -> Option<IpAddr> {
        self.taken.lowest_free(range)
    }

    /// How many addresses of a range are held or blocked.
    pub fn count(&self, range: &AddressRange) -> u128 {
        self.taken.count(range)
    }

    /// Keeps an address from being the lowest free one although nobody holds it.
    pub fn block(&mut self, address: IpAddr) {
        self.taken.take(address);
    }

    /// The opposite of [`Ledger::block`]. Whether the address is free now.
    pub fn unblock(&mut self, address: IpAddr) -> bool {
        let is_free = !self.is_held(address);
        if is_free {
            self.taken.free(address);
        }
        is_free
    }

    /// The addresses that Services of this namespace share under this key.
    pub fn shared(&self, namespace: &str, key: &Arc<str>) -> &[IpAddr] {
        let of_namespace = self.by_sharing_key.get(namespace);
        of_namespace.and_then(|keys| keys.get(key)).map_or(&[], Vec::as_slice)
    }

    /// The sharing key under which a Service holds what it holds.
    pub fn sharing_key_of(&self, service: &ServiceKey) -> Option<&Arc<str>> {
        self.holder(service)?.sharing_key.as_ref()
    }

    /// Whether the Service holds exactly what it publishes, and nothing is known of it that it no longer says.
    pub fn is_in_step(&self, service: &Service) -> bool {
        match self.holder(&service.key) {
            Some(holder) => holder.addresses == service.facts.ingress && holder.is_up_to_date(service),
            None => service.facts.ingress.is_empty(),
        }
    }

    /// Who stands in the way of the Service coming to the address: anybody else there who does not share with it,
    /// or who has one of its ports. `may_share` says of a namespace whether it shares with the Service's.
    pub fn conflict(
        &self,
        address: IpAddr,
        service: &Service,
        may_share: impl Fn(&str) -> bool,
    ) -> Option<Conflict<'_>> {
        let mut others = self.holders(address).filter(|holder| holder.service != service.key);
        let key = &service.facts.requests.sharing_key;
        others.find_map(|holder| {
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
        let mut older =
            self.holders(address).filter(|holder| (holder.created, &holder.service) < service.seniority());
        older.find(|holder| {
            let strangers = holder.sharing_key.is_none() && service.facts.requests.sharing_key.is_none();
            strangers || collision(&service.facts.ports, &holder.ports).is_some()
        })
    }

    /// Brings what is known of a holder up to date. Whether that changed anything; of a Service that holds nothing
    /// nothing is known.
    pub fn update(&mut self, service: &Service) -> bool {
        let Some(slot) = self.slot(&service.key) else { return false };
        self.update_slot(slot, service)
    }

    fn update_slot(&mut self, slot: Slot, service: &Service) -> bool {
        let Some(holder) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        if holder.is_up_to_date(service) {
            return false;
        }
        let old = mem::replace(holder, Holder::new(service));
        holder.addresses = old.addresses;
        if old.sharing_key != service.facts.requests.sharing_key {
            for address in self.held_by(&service.key).to_vec() {
                self.drop_key(address, service.key.namespace(), old.sharing_key.as_ref());
                self.add_key(address, service);
            }
        }
        true
    }

    /// Makes the Service a holder of the addresses, beside what it holds already, and brings what is known of it up
    /// to date. Whether that changed anything; `on_new` is told what it has come to.
    pub fn hold(&mut self, addresses: &[IpAddr], service: &Service, mut on_new: impl FnMut(IpAddr)) -> bool {
        if addresses.is_empty() {
            return false;
        }
        let (slot, mut is_changed) = match self.slot(&service.key) {
            Some(slot) => (slot, self.update_slot(slot, service)),
            None => (self.new_slot(service), false),
        };
        for address in addresses {
            let Some(holder) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { break };
            if !holder.addresses.insert(*address) {
                continue;
            }
            is_changed = true;
            if self.by_address.add(*address, slot) {
                self.taken.take(*address);
            }
            self.add_key(*address, service);
            on_new(*address);
        }
        is_changed
    }

    fn new_slot(&mut self, service: &Service) -> Slot {
        let holder = Some(Holder::new(service));
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.slots[slot as usize] = holder;
                slot
            }
            None => {
                self.slots.push(holder);
                let slot = Slot::try_from(self.slots.len() - 1).ok().filter(|slot| *slot < MAX_SLOTS);
                slot.expect("two billion Services do not fit a cluster")
            }
        };
        let hash = self.hash(&service.key);
        self.by_service.insert_unique(spread(hash), (hash, slot), |(hash, _)| spread(*hash));
        slot
    }

    /// Takes the Service off the address. Whether the address is free now.
    pub fn release(&mut self, address: IpAddr, service: &ServiceKey) -> bool {
        let Some(slot) = self.slot(service) else { return false };
        let Some(holder) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        if !holder.addresses.remove(address) {
            return false;
        }
        let (key, holds_nothing) = (holder.sharing_key.clone(), holder.addresses.is_empty());
        if holds_nothing {
            self.vacate(service);
        }
        self.leave(address, slot, service.namespace(), key.as_ref())
    }

    /// The Service gives back everything: what it held, and which of that is free because of it.
    pub fn remove(&mut self, service: &ServiceKey) -> Option<Gone> {
        let (slot, holder) = self.vacate(service)?;
        let Holder { sharing_key, addresses: held, .. } = holder;
        let is_free =
            |address: &IpAddr| self.leave(*address, slot, service.namespace(), sharing_key.as_ref());
        let freed = held.iter().copied().filter(is_free).collect();
        Some(Gone { held, freed, sharing_key })
    }

    /// Nobody is in the Service's slot any more.
    fn vacate(&mut self, service: &ServiceKey) -> Option<(Slot, Holder)> {
        let hash = self.hash(service);
        let Ledger { slots, by_service, .. } = self;
        let is_it = |(known, slot): &(u32, Slot)| *known == hash && is_of(slots, *slot, service);
        let ((_, slot), _) = by_service.find_entry(spread(hash), is_it).ok()?.remove();
        let holder = mem::take(self.slots.get_mut(slot as usize)?)?;
        self.vacant.push(slot);
        Some((slot, holder))
    }

    /// What follows from a holder having left: whether the address is free now.
    fn leave(&mut self, address: IpAddr, slot: Slot, namespace: &str, key: Option<&Arc<str>>) -> bool {
        let is_free = self.by_address.remove(address, slot);
        if is_free {
            self.taken.free(address);
        }
        self.drop_key(address, namespace, key);
        is_free
    }

    /// Takes the Service off every other address. Those that are free because of it.
    pub fn keep_only(&mut self, service: &ServiceKey, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let held = self.held_by(service);
        let mut gone: Vec<IpAddr> =
            held.iter().copied().filter(|address| !addresses.contains(address)).collect();
        gone.retain(|address| self.release(*address, service));
        gone
    }

    fn add_key(&mut self, address: IpAddr, service: &Service) {
        let Some(key) = &service.facts.requests.sharing_key else { return };
        let namespace = service.key.namespace();
        let keys = match self.by_sharing_key.get_mut(namespace) {
            Some(keys) => keys,
            None => self.by_sharing_key.entry(namespace.into()).or_default(),
        };
        let shared = keys.entry(key.clone()).or_default();
        if !shared.contains(&address) {
            shared.push(address);
        }
    }

    /// The entry of a sharing key goes with its last user on the address.
    fn drop_key(&mut self, address: IpAddr, namespace: &str, key: Option<&Arc<str>>) {
        let Some(key) = key else { return };
        let is_used = self.holders(address).any(|holder| {
            holder.sharing_key.as_ref() == Some(key) && holder.service.namespace() == namespace
        });
        if is_used {
            return;
        }
        let Some(keys) = self.by_sharing_key.get_mut(namespace) else { return };
        if let Entry::Occupied(mut shared) = keys.entry(key.clone()) {
            shared.get_mut().retain(|known| *known != address);
            if shared.get().is_empty() {
                shared.remove();
            }
        }
        if keys.is_empty() {
            self.by_sharing_key.remove(namespace);
        }
    }
}

/// What a Service has given back.
#[derive(Clone, Debug)]
pub struct Gone {
    /// What it held.
    pub held: Addresses,
    /// What of that nobody holds now.
    pub freed: Addresses,
    /// Its sharing key.
    pub sharing_key: Option<Arc<str>>,
}

fn is_of(slots: &[Option<Holder>], slot: Slot, service: &ServiceKey) -> bool {
    matches!(slots.get(slot as usize), Some(Some(holder)) if holder.service == *service)
}

/// The table takes the place from the low bits and a mark from the highest.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// The first port that both have; both lists are sorted.
fn collision(ours: &[Port], theirs: &[Port]) -> Option<Port> {
    ours.iter().find(|port| theirs.binary_search(port).is_ok()).cloned()
}
