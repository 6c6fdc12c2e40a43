//! What must never happen, and what must have happened once everything has come to rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use api::IpFamily;
use serde_json::Value;

use super::{
    provider::GROUP,
    world::{World, key},
};
use crate::{
    assign::{Decision, Edge},
    engine::Engine,
    inputs::{Service, ServiceKey, service::Ownership},
    reservation::Reservations,
    testing::read,
    waiting::Wait,
};

/// Versions of the Services that there are, and every word against the way in which they came about.
#[derive(Default)]
pub(super) struct History {
    versions: BTreeMap<usize, Vec<Service>>,
    /// Who has ever had an address.
    publishers: BTreeMap<IpAddr, BTreeSet<usize>>,
    violations: Vec<String>,
}

/// Whether two may be on one address.
fn are_compatible(a: &Service, b: &Service) -> bool {
    let key = &a.facts.requests.sharing_key;
    let collide = a.facts.ports.iter().any(|port| b.facts.ports.contains(port));
    key.is_some() && *key == b.facts.requests.sharing_key && !collide
}

impl History {
    pub(super) fn on_deleted(&mut self, name: usize) {
        self.versions.remove(&name);
    }

    /// A version of a Service is stored: whoever has written it.
    pub(super) fn on_stored(
        &mut self,
        name: usize,
        old: Option<&Value>,
        new: &Value,
        reservations: &Reservations,
    ) {
        let old = old.and_then(read);
        let Some(new) = read(new) else {
            self.versions.remove(&name);
            return;
        };
        let held = old.as_ref().map_or(&[][..], |old| &old.facts.ingress[..]);
        for address in new.facts.ingress.iter().filter(|address| !held.contains(address)) {
            self.on_gained(name, &new, *address);
            if let Some(reservation) = reservations.get(*address).filter(|r| r.service != new.key) {
                let owner = &reservation.service;
                self.violations.push(format!("{address} is given to s{name} and reserved for {owner}"));
            }
            self.publishers.entry(*address).or_default().insert(name);
        }
        let lost = held.iter().filter(|address| !new.facts.ingress.contains(address));
        for address in lost {
            // A write is for the version that it replaces; an edit is for the one that it makes.
            let is_given_up = |service: &Service| self.is_given_up(name, service, *address);
            if !is_given_up(&new) && !old.as_ref().is_some_and(is_given_up) {
                self.violations.push(format!("s{name} has lost {address}, which its owner did not give up"));
            }
        }
        self.versions.entry(name).or_default().push(new);
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

    fn has_published(&self, service: &ServiceKey, address: IpAddr) -> bool {
        self.publishers.get(&address).is_some_and(|names| names.iter().any(|name| key(*name) == *service))
    }

    fn is_given_up(&self, name: usize, service: &Service, address: IpAddr) -> bool {
        let facts = &service.facts;
        let requests = &facts.requests;
        let is_moved = requests.group.is_some() && !requests.group_is_ours
            || requests.addresses().is_ok_and(|list| !list.is_empty() && !list.contains(&address));
        let others = self.publishers.get(&address).is_some_and(|names| names.iter().any(|n| *n != name));
        facts.ownership != Ownership::Ours
            || !facts.families.contains(IpFamily::of(address))
            || is_moved
            || others
    }
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
        for (name, object) in &self.server {
            let held = self.desk.ledger().held_by(&key(*name));
            for address in read(object).iter().flat_map(|service| &service.facts.ingress) {
                // What was published before the Service was deleted and made again is not what it holds now.
                if !held.contains(address) {
                    return Err(format!("{address} of s{name} is published and not in the books"));
                }
            }
            let of_provider = read(object).filter(|s| s.facts.brand.allocated_from.as_deref() == Some(GROUP));
            for address in of_provider.iter().flat_map(|service| &service.facts.ingress) {
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
            let Some(Wait::Room(group, _)) = self.desk.engine.waiting().wait_of(&service.key) else {
                continue;
            };
            if &**group != GROUP {
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
                let keys = (&a.facts.requests.sharing_key, &b.facts.requests.sharing_key);
                let collide = a.facts.ports.iter().any(|port| b.facts.ports.contains(port));
                // One whose owner has taken the key away keeps the address beside those who share it.
                if let Some(address) = both
                    && (collide || keys == (&None, &None))
                {
                    return Err(format!("{address} is left to {} and {}", a.key, b.key));
                }
            }
        }
        Ok(())
    }
}
