//! What must never happen, and what must have happened once everything has come to rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use api::IpFamily;

use super::{
    provider::GROUP,
    spec::live_variant,
    world::{World, key, name},
};
use crate::{
    assign::{Annotation, Decision, Edge},
    desk::{Desk, Order},
    engine::Engine,
    inputs::{
        Groups, Service, ServiceKey,
        service::{FamilyPolicy, Ownership},
    },
    reservation::Reservations,
    waiting::Wait,
};

/// Versions of the Services that there are, and every word against the way in which they came about.
#[derive(Default)]
pub(super) struct History {
    versions: BTreeMap<usize, Vec<Service>>,
    /// Who has ever had an address.
    publishers: BTreeMap<IpAddr, BTreeSet<usize>>,
    /// Stored versions, counted.
    moment: u64,
    /// When a Service came to an address that it has.
    gained: BTreeMap<(usize, IpAddr), u64>,
    /// When an owner last made a Service such that it does not go with another on an address of its own.
    parted: BTreeMap<usize, u64>,
    /// When the allocator was last told of a Service how it is, and not what came first.
    looked: BTreeMap<usize, u64>,
    /// The same of all.
    listed: u64,
    violations: Vec<String>,
}

fn collide(a: &Service, b: &Service) -> bool {
    a.facts.ports.iter().any(|port| b.facts.ports.contains(port))
}

/// Whether two may be on one address as far as they say themselves.
fn are_compatible(a: &Service, b: &Service) -> bool {
    let key = &a.facts.requests.sharing_key;
    key.is_some() && *key == b.facts.requests.sharing_key && !collide(a, b)
}

/// Whether two that are on one address cannot both stay.
fn are_apart(a: &Service, b: &Service) -> bool {
    let keys = (&a.facts.requests.sharing_key, &b.facts.requests.sharing_key);
    keys == (&None, &None) || collide(a, b)
}

/// Whether the groups let the two share the address.
fn are_united(a: &Service, b: &Service, address: IpAddr, groups: &Groups) -> bool {
    let group = groups.of_address(address);
    let (one, other) = (a.key.namespace(), b.key.namespace());
    one == other || group.is_some_and(|group| group.scope.unites(one, other))
}

/// Somebody else whom the allocator knows, as it knows it now and as it was when what is under way was decided: only
/// one of the two is in the books.
struct Other<'a> {
    name: usize,
    versions: Vec<&'a Service>,
    may_have: BTreeSet<IpAddr>,
}

fn others<'a>(
    name_of_one: usize,
    desk: &'a Desk,
    under_way: impl Iterator<Item = &'a Order>,
) -> BTreeMap<usize, Other<'a>> {
    let mut others = BTreeMap::new();
    let orders = under_way.map(|order| (&*order.service, order.write.ingress.as_deref()));
    for (service, more) in desk.services().map(|service| (&**service, None)).chain(orders) {
        let name = name(&service.key);
        if name != name_of_one {
            let other =
                others.entry(name).or_insert(Other { name, versions: vec![], may_have: BTreeSet::new() });
            other.versions.push(service);
            other.may_have.extend(service.facts.ingress.iter().chain(more.into_iter().flatten()));
        }
    }
    others
}

impl History {
    pub(super) fn on_deleted(&mut self, name: usize) {
        self.versions.remove(&name);
        self.parted.remove(&name);
        self.gained.retain(|(owner, _), _| *owner != name);
    }

    /// Everything is listed, or an allocator begins: which of two edits was the later one cannot be known.
    pub(super) fn on_listed(&mut self) {
        self.listed = self.moment;
    }

    /// The same of one Service.
    pub(super) fn on_looked(&mut self, name: usize) {
        self.looked.insert(name, self.moment);
    }

    /// The owner has stored the last version.
    pub(super) fn on_edited(&mut self, name: usize) {
        let Some([.., old, new]) = self.versions.get(&name).map(Vec::as_slice) else { return };
        let others = self.versions.iter().filter(|(other, _)| **other != name);
        let mut others = others.filter_map(|(_, versions)| versions.last());
        let is_parted = others.any(|other| {
            let is_there = new.facts.ingress.iter().any(|address| other.facts.ingress.contains(address));
            is_there && are_apart(new, other) && !are_apart(old, other)
        });
        if is_parted {
            self.parted.insert(name, self.moment);
        }
    }

    /// A version of a Service is stored: whoever has written it.
    pub(super) fn on_stored(
        &mut self,
        name: usize,
        old: Option<&Service>,
        new: Option<&Service>,
        reservations: &Reservations,
    ) {
        self.moment += 1;
        let held = old.map_or(&[][..], |old| &old.facts.ingress[..]);
        let kept = new.map_or(&[][..], |new| &new.facts.ingress[..]);
        for address in held.iter().filter(|address| !kept.contains(address)) {
            self.gained.remove(&(name, *address));
        }
        let Some(new) = new else {
            self.on_deleted(name);
            return;
        };
        for address in kept.iter().filter(|address| !held.contains(address)) {
            self.on_gained(name, new, *address);
            if let Some(reservation) = reservations.get(*address).filter(|r| r.service != new.key) {
                let owner = &reservation.service;
                self.violations.push(format!("{address} is given to s{name} and reserved for {owner}"));
            }
            self.publishers.entry(*address).or_default().insert(name);
            self.gained.insert((name, *address), self.moment);
        }
        self.versions.entry(name).or_default().push(new.clone());
    }

    /// Nobody has the address who could not share it: neither now nor, as it may have been known when that was
    /// decided, before.
    fn on_gained(&mut self, name: usize, new: &Service, address: IpAddr) {
        for (other, versions) in self.versions.iter().filter(|(other, _)| **other != name) {
            let is_there = versions.last().is_some_and(|last| last.facts.ingress.contains(&address));
            if is_there && !versions.iter().any(|version| are_compatible(version, new)) {
                self.violations.push(format!("{address} is given to s{name} while s{other} has it"));
            }
        }
    }

    /// The allocator has decided to write: nobody is to lose what its owner has not given up, or to come to what
    /// belongs to another, as far as the allocator can know.
    pub(super) fn on_decided<'a>(
        &mut self,
        order: &Order,
        desk: &'a Desk,
        under_way: impl Iterator<Item = &'a Order>,
    ) {
        let (service, name) = (&order.service, name(&order.service.key));
        let Some(ingress) = &order.write.ingress else { return };
        let others = others(name, desk, under_way);
        let there = |address: &IpAddr| {
            let address = *address;
            others.values().filter(move |other| other.may_have.contains(&address))
        };
        let held = &service.facts.ingress;
        for address in held.iter().filter(|address| !ingress.contains(address)) {
            let apart: Vec<&Other<'_>> =
                there(address).filter(|other| other.versions.iter().any(|v| are_apart(v, service))).collect();
            if is_given_up(order, *address) {
                continue;
            }
            if apart.is_empty() {
                self.violations.push(format!("s{name} loses {address}, which its owner did not give up"));
            } else if apart.iter().all(|other| self.is_later(other.name, name, *address)) {
                self.violations.push(format!("s{name} loses {address} through what another did after it"));
            }
        }
        for address in ingress.iter().filter(|address| !held.contains(address)) {
            let groups = desk.groups();
            let goes = |other: &Service| {
                are_compatible(other, service) && are_united(other, service, *address, groups)
            };
            for other in there(address).filter(|other| !other.versions.iter().any(|v| goes(v))) {
                self.violations.push(format!("{address} is to go to s{name} while s{} has it", other.name));
            }
        }
    }

    /// Whether one has surely come to the address, or was edited so that it does not go with others there, after the
    /// other: by what is stored, as far as the allocator was told of it in this order.
    fn is_later(&self, name: usize, other: usize, address: IpAddr) -> bool {
        let settled = |name: usize| {
            let gained = self.gained.get(&(name, address)).copied();
            Some(gained?.max(self.parted.get(&name).copied().unwrap_or_default()))
        };
        let told = |name: usize| self.looked.get(&name).copied().unwrap_or_default();
        let unsure = self.listed.max(told(name)).max(told(other));
        // Who has not come yet is later than everybody.
        let later = settled(name).unwrap_or(u64::MAX);
        later > unsure && settled(other).is_some_and(|earlier| earlier < later)
    }

    fn has_published(&self, service: &ServiceKey, address: IpAddr) -> bool {
        self.publishers.get(&address).is_some_and(|names| names.iter().any(|name| key(*name) == *service))
    }
}

/// Whether the owner has given the address up: by an end, by the families, by addresses, or by a group, to which the
/// Service then has to go.
fn is_given_up(order: &Order, address: IpAddr) -> bool {
    let (facts, requests) = (&order.service.facts, &order.service.facts.requests);
    let to = order.write.annotations.value(Annotation::AllocatedFrom);
    let moves = requests
        .group
        .as_ref()
        .is_some_and(|name| facts.brand.allocated_from.as_ref() != Some(name) && to == Some(name));
    // Of a family that is not named nothing is given up, unless the Service goes to another group for the other.
    let names_others = requests.addresses().is_ok_and(|list| {
        let is_of_family = |one: &IpAddr| IpFamily::of(*one) == IpFamily::of(address);
        let is_named = facts.policy != FamilyPolicy::PreferDualStack || list.iter().any(is_of_family);
        !list.is_empty() && !list.contains(&address) && (is_named || to.is_some())
    });
    facts.ownership != Ownership::Ours
        || !facts.families.contains(IpFamily::of(address))
        || names_others
        || moves
}

/// Who is on which address, with all that decides about sharing it.
fn books(engine: &Engine) -> BTreeMap<IpAddr, Vec<String>> {
    let ledger = engine.ledger();
    let addresses: BTreeSet<IpAddr> =
        ledger.services().flat_map(|(_, addresses)| addresses.to_vec()).collect();
    let mut books = BTreeMap::new();
    for address in addresses {
        let holders = ledger.holders(address);
        let mut holders: Vec<String> = holders
            .map(|h| format!("{} {} {:?} {:?}", h.service, h.created, h.sharing_key, h.ports))
            .collect();
        holders.sort_unstable();
        books.insert(address, holders);
    }
    books
}

impl World {
    /// What holds after every step.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(violation) = self.history.violations.first() {
            return Err(violation.clone());
        }
        for (name, service) in &self.read {
            let held = self.desk.ledger().held_by(&key(*name));
            for address in &service.facts.ingress {
                // What was published before the Service was deleted and made again is not what it holds now.
                if !held.contains(address) {
                    return Err(format!("{address} of s{name} is published and not in the books"));
                }
            }
            let is_of_provider = service.facts.brand.allocated_from.as_deref() == Some(GROUP);
            for address in service.facts.ingress.iter().filter(|_| is_of_provider) {
                if !self.provider.has_given(*address, &key(*name)) {
                    return Err(format!("{address} of s{name} is published and free at the IPAM provider"));
                }
            }
        }
        for reservation in self.desk.engine.reservations().iter() {
            if !self.history.has_published(&reservation.service, reservation.address) {
                return Err(format!("{reservation:?} is for somebody who never had the address"));
            }
        }
        Ok(())
    }

    /// What holds once everything has come to rest.
    pub(super) fn check_settled(&mut self) -> Result<(), String> {
        if !self.settle() {
            return Err("it never comes to rest".to_owned());
        }
        self.check()?;
        self.check_owners()?;
        self.check_provider()?;
        let mut fresh = Engine::default();
        fresh.set_groups(self.desk.groups().clone());
        fresh.set_live(live_variant(self.live));
        let mut services = self.services();
        services.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        for service in &services {
            fresh.sync(service);
        }
        if books(&fresh) != books(&self.desk.engine) {
            return Err(format!(
                "the books are {:?}, but what is published is {:?}",
                books(&self.desk.engine),
                books(&fresh)
            ));
        }
        for service in &services {
            // Whoever waits could not be served, and whoever is served is not written again.
            for (engine, when) in [(&mut self.desk.engine, "again"), (&mut fresh, "after a restart")] {
                if let Decision::Write(write) = engine.clone().decide(service, Edge::default()).decision {
                    return Err(format!("{} is written {when}: {write:?}", service.key));
                }
            }
        }
        Ok(())
    }

    /// Nothing is left with the provider that nobody publishes, and nobody waits for what it has.
    fn check_provider(&mut self) -> Result<(), String> {
        if let Some(holder) = self.provider.holders().find(|h| self.desk.published(h, GROUP).is_empty()) {
            return Err(format!("{holder} publishes nothing that the IPAM provider has given it"));
        }
        for service in self.services() {
            let waits = self.desk.engine.waiting().wait_of(&service.key).map_or(&[][..], Wait::parts);
            if !waits.iter().any(|wait| matches!(wait, Wait::Room(group, _) if &**group == GROUP)) {
                continue;
            }
            let decision = self.desk.engine.clone().decide(&service, Edge::default()).decision;
            if let Decision::Ask(ask) = decision
                && self.provider.could(&service.key, &ask)
            {
                return Err(format!("{} waits for what the IPAM provider has: {ask:?}", service.key));
            }
        }
        Ok(())
    }

    fn check_owners(&self) -> Result<(), String> {
        let services = self.services();
        let ours = services.iter().filter(|service| service.facts.ownership == Ownership::Ours);
        let ours: Vec<&Service> = ours.collect();
        for (index, a) in ours.iter().enumerate() {
            for b in &ours[index + 1..] {
                let both = a.facts.ingress.iter().find(|address| b.facts.ingress.contains(address));
                // One whose owner has taken the key away keeps the address beside those who share it.
                if let Some(address) = both
                    && are_apart(a, b)
                {
                    return Err(format!("{address} is left to {} and {}", a.key, b.key));
                }
            }
        }
        Ok(())
    }
}
