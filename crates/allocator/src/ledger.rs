//! The books: which Services hold which address. A cache of the Services' status, rebuilt from it at start;
//! nothing is counted beside it.
//!
//! Guarantees: an address is free exactly while nobody holds it. [`Ledger::conflict`] says who stands in the way
//! of one more holder. The ledger itself records what is published, even where that is a conflict, because it is
//! the truth; the decision resolves it.

use std::{collections::HashMap, mem, net::IpAddr};

use api::AddressRange;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::{
    inputs::{
        Word,
        compact::Addresses,
        key::spread,
        service::{Port, Service, ServiceKey},
        word::Ports,
    },
    pool::Taken,
};

mod keys;
mod slots;

use keys::SharingKeys;
use slots::{Holders, MAX_SLOTS, Slot};

/// One Service that holds something.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Who.
    pub service: ServiceKey,
    /// How old it is, see [`Service::seniority`].
    pub created: i64,
    /// Its sharing key.
    pub sharing_key: Option<Word>,
    /// Its ports.
    pub ports: Ports,
    /// In the order in which they came.
    addresses: Addresses,
    /// So many of them, the first ones, are known to be published; the others may be by a write of ours.
    published: u32,
}

/// Where a Service is in the books, if it is: good until the next change of them.
#[derive(Clone, Copy, Debug)]
pub struct Seat(Option<Slot>);

impl Holder {
    fn new(service: &Service) -> Holder {
        Holder {
            service: service.key.clone(),
            created: service.created,
            sharing_key: service.facts.requests.sharing_key.clone(),
            ports: service.facts.ports.clone(),
            addresses: Addresses::new(),
            published: 0,
        }
    }

    /// Whether it was on the address.
    fn leave(&mut self, address: IpAddr) -> bool {
        let Some(position) = self.addresses.iter().position(|known| *known == address) else { return false };
        self.published -= u32::from(position < self.published as usize);
        self.addresses.remove(address)
    }

    /// What decides about who may be beside it.
    fn terms(&self) -> (&Option<Word>, &Ports) {
        (&self.sharing_key, &self.ports)
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
    by_address: Holders,
    by_sharing_key: SharingKeys,
    /// The version of a Service that shares at which it has come to an address, or was edited so that it no longer
    /// goes with another there, whichever was last; absent where the books do not know.
    settled: HashMap<Slot, u64, RandomState>,
}

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

    /// Where a Service is.
    pub fn seat(&self, service: &ServiceKey) -> Seat {
        Seat(self.slot(service))
    }

    fn slot(&self, service: &ServiceKey) -> Option<Slot> {
        let hash = service.hash_value();
        let is_it = |(known, slot): &(u32, Slot)| *known == hash && is_of(&self.slots, *slot, service);
        self.by_service.find(spread(hash), is_it).map(|(_, slot)| *slot)
    }

    fn at(&self, seat: Seat) -> Option<&Holder> {
        self.slots.get(seat.0? as usize)?.as_ref()
    }

    fn at_mut(&mut self, seat: Seat) -> Option<&mut Holder> {
        self.slots.get_mut(seat.0? as usize)?.as_mut()
    }

    /// Who is there.
    pub fn service_at(&self, seat: Seat) -> Option<&ServiceKey> {
        self.at(seat).map(|holder| &holder.service)
    }

    /// What a Service holds.
    pub fn held_by(&self, service: &ServiceKey) -> &[IpAddr] {
        self.held_at(self.seat(service))
    }

    /// What a Service holds that is there.
    pub fn held_at(&self, seat: Seat) -> &[IpAddr] {
        self.at(seat).map_or(&[], |holder| &holder.addresses)
    }

    /// What of that is known to be published: what a write of ours may publish is not, until [`Ledger::confirm`].
    pub fn published_at(&self, seat: Seat) -> &[IpAddr] {
        let published = self.at(seat).and_then(|holder| holder.addresses.get(..holder.published as usize));
        published.unwrap_or_default()
    }

    /// What the Service that is there holds is known to be published. Of what our own write has published, by which
    /// `written` version of the Service. Whether it shares and has come to something.
    pub fn confirm(&mut self, seat: Seat, written: Option<&str>) -> bool {
        let Some(holder) = self.at_mut(seat) else { return false };
        let published = u32::try_from(holder.addresses.len()).unwrap_or(u32::MAX);
        let has_come = mem::replace(&mut holder.published, published) < published;
        let shares = has_come && holder.sharing_key.is_some();
        if shares && let (Some(slot), Some(version)) = (seat.0, written) {
            self.settle(slot, version);
        }
        shares
    }

    /// Whoever has come or was edited last has to leave first.
    fn settle(&mut self, slot: Slot, version: &str) {
        if let Ok(version) = version.parse::<u64>() {
            let latest = self.settled.entry(slot).or_default();
            *latest = version.max(*latest);
        }
    }

    /// Who shares an address with the Service that is there, and cannot stay beside it.
    pub fn parted_from(&self, seat: Seat) -> impl Iterator<Item = &Holder> {
        let holder = self.at(seat);
        let addresses = holder.map_or(&[][..], |holder| &holder.addresses);
        let others = addresses.iter().flat_map(|address| self.holders(*address));
        others.filter(move |other| {
            holder.is_some_and(|own| own.service != other.service && are_apart(own.terms(), other.terms()))
        })
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

    /// Counts these ranges, which do not overlap, with every change from now on: [`Ledger::count`] is asked about them
    /// with every decision.
    pub fn watch(&mut self, ranges: &[AddressRange]) {
        self.taken.watch(ranges);
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
    pub fn shared(&self, namespace: &str, key: &Word) -> &[IpAddr] {
        self.by_sharing_key.of(namespace, key)
    }

    /// The sharing key under which a Service holds what it holds.
    pub fn sharing_key_of(&self, service: &ServiceKey) -> Option<&Word> {
        self.at(self.seat(service))?.sharing_key.as_ref()
    }

    /// Whether the Service holds exactly what it publishes, and nothing is known of it that it no longer says.
    pub fn is_in_step(&self, seat: Seat, service: &Service) -> bool {
        match self.at(seat) {
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

    /// Who makes a Service leave an address that both hold: one with one of its ports, or one without any sharing key
    /// where it has none either. Ports that do not collide and a key on either side tell of sharing that was agreed to
    /// and that nobody is thrown out of. Of the two the one leaves who came to the address, or was edited so that they
    /// do not go together, after the other, by the versions of their Services; before anybody else one who is not
    /// known to be there yet; where the books do not know, as after a restart, the younger.
    pub fn must_yield_to(&self, address: IpAddr, service: &Service) -> Option<&Holder> {
        let slots = self.by_address.at(address);
        if slots.len() < 2 {
            return None;
        }
        let facts = &service.facts;
        let terms = (&facts.requests.sharing_key, &facts.ports);
        let own = slots.iter().find(|slot| is_of(&self.slots, **slot, &service.key));
        let own = (own.map_or(0, |slot| self.rank(*slot, address)), service.created, &service.key);
        let others = slots.iter().filter_map(|slot| Some((*slot, self.at(Seat(Some(*slot)))?)));
        let mut others = others.filter(|(_, other)| other.service != service.key);
        let found = others.find(|(slot, other)| {
            are_apart(terms, other.terms())
                && (self.rank(*slot, address), other.created, &other.service) < own
        });
        found.map(|(_, other)| other)
    }

    /// When the holder there has settled on the address.
    fn rank(&self, slot: Slot, address: IpAddr) -> u64 {
        let is_published = self.published_at(Seat(Some(slot))).contains(&address);
        if is_published { self.settled.get(&slot).copied().unwrap_or_default() } else { u64::MAX }
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
        (holder.addresses, holder.published) = (old.addresses.clone(), old.published);
        if self.makes_incompatible(slot, &old) {
            self.settle(slot, &service.resource_version);
        }
        if old.sharing_key != service.facts.requests.sharing_key {
            for address in self.held_by(&service.key).to_vec() {
                self.drop_key(address, service.key.namespace(), old.sharing_key.as_ref());
                self.add_key(address, service);
            }
        }
        true
    }

    /// Whether the holder there goes no longer with another on one of its addresses, with whom it did as it was.
    fn makes_incompatible(&self, slot: Slot, old: &Holder) -> bool {
        let Some(new) = self.at(Seat(Some(slot))) else { return false };
        let others = new.addresses.iter().flat_map(|address| self.holders(*address));
        let mut others = others.filter(|other| other.service != new.service).map(Holder::terms);
        others.any(|other| are_apart(new.terms(), other) && !are_apart(old.terms(), other))
    }

    /// Makes the Service a holder of the addresses, beside what it holds already, and brings what is known of it up
    /// to date. Whether that changed anything.
    pub fn hold(&mut self, seat: Seat, addresses: &Addresses, service: &Service) -> bool {
        if addresses.is_empty() {
            return false;
        }
        let Some(slot) = seat.0 else {
            let slot = self.new_slot(Holder { addresses: addresses.clone(), ..Holder::new(service) });
            addresses.iter().for_each(|address| self.come(*address, slot, service));
            return true;
        };
        let mut is_changed = self.update_slot(slot, service);
        for address in addresses {
            let Some(holder) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { break };
            if holder.addresses.insert(*address) {
                is_changed = true;
                self.come(*address, slot, service);
            }
        }
        is_changed
    }

    /// What follows from a holder having come to an address.
    fn come(&mut self, address: IpAddr, slot: Slot, service: &Service) {
        if self.by_address.add(address, slot) {
            self.taken.take(address);
        }
        self.add_key(address, service);
    }

    fn new_slot(&mut self, holder: Holder) -> Slot {
        let hash = holder.service.hash_value();
        let slot = match self.vacant.pop() {
            Some(slot) => {
                // Nobody is there, which need not be looked at: the memory has not been used for long, and to wait
                // for it costs more than all else here.
                mem::forget(self.slots[slot as usize].replace(holder));
                slot
            }
            None => {
                self.slots.push(Some(holder));
                let slot = Slot::try_from(self.slots.len() - 1).ok().filter(|slot| *slot < MAX_SLOTS);
                slot.expect("two billion Services do not fit a cluster")
            }
        };
        self.by_service.insert_unique(spread(hash), (hash, slot), |(hash, _)| spread(*hash));
        slot
    }

    /// Takes the Service off the address. Whether the address is free now.
    pub fn release(&mut self, address: IpAddr, service: &ServiceKey) -> bool {
        let Some(slot) = self.slot(service) else { return false };
        let Some(holder) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        if !holder.leave(address) {
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
        let hash = service.hash_value();
        let Ledger { slots, by_service, .. } = self;
        let is_it = |(known, slot): &(u32, Slot)| *known == hash && is_of(slots, *slot, service);
        let ((_, slot), _) = by_service.find_entry(spread(hash), is_it).ok()?.remove();
        let holder = mem::take(self.slots.get_mut(slot as usize)?)?;
        if !self.settled.is_empty() {
            self.settled.remove(&slot);
        }
        self.vacant.push(slot);
        Some((slot, holder))
    }

    /// What follows from a holder having left: whether the address is free now.
    fn leave(&mut self, address: IpAddr, slot: Slot, namespace: &str, key: Option<&Word>) -> bool {
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
        if let Some(key) = &service.facts.requests.sharing_key {
            self.by_sharing_key.add(service.key.namespace(), key, address);
        }
    }

    /// The entry of a sharing key goes with its last user on the address.
    fn drop_key(&mut self, address: IpAddr, namespace: &str, key: Option<&Word>) {
        let Some(key) = key else { return };
        let is_used = self.holders(address).any(|holder| {
            holder.sharing_key.as_ref() == Some(key) && holder.service.namespace() == namespace
        });
        if !is_used {
            self.by_sharing_key.remove(namespace, key, address);
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
    pub sharing_key: Option<Word>,
}

fn is_of(slots: &[Option<Holder>], slot: Slot, service: &ServiceKey) -> bool {
    matches!(slots.get(slot as usize), Some(Some(holder)) if holder.service == *service)
}

/// Whether two that are on one address may not both stay there: a sharing key and ports of each.
fn are_apart(a: (&Option<Word>, &Ports), b: (&Option<Word>, &Ports)) -> bool {
    a.0.is_none() && b.0.is_none() || collision(a.1, b.1).is_some()
}

/// The first port that both have; both lists are sorted.
fn collision(ours: &[Port], theirs: &[Port]) -> Option<Port> {
    ours.iter().find(|port| theirs.binary_search(port).is_ok()).cloned()
}
