//! The state of the allocator and how it changes: groups, ledger, live nodes, waiting list. No I/O and no clock.
//!
//! A write has two phases. [`Engine::decide`] reserves every address of the decision in the ledger; once the
//! API server has answered, [`Engine::sync`] with the Service as it is then commits what is published and gives
//! back the rest. Between the two an address belongs to the Service, whatever becomes of the write.

mod sticky;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr};

use api::{AddressRange, IpFamily, Pool, PoolType};
use foldhash::fast::RandomState;

use crate::{
    assign::{Context, Decision, Edge, Note, advice, assign},
    external::{Answer, Provided},
    inputs::{
        Groups, Live, Service, ServiceKey, Word, compact::Addresses, group::Picking, service::Ownership,
    },
    ledger::{Ledger, Seat},
    reservation::Reservations,
    select::Problem,
    waiting::{Wait, Waiting},
};

/// Groups, ledger, live nodes, waiting list.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    groups: Groups,
    ledger: Ledger,
    live: Live,
    waiting: Waiting,
    reservations: Reservations,
    /// Seconds since 1970, as far as we have been told.
    now: i64,
    /// Addresses whose reservation has begun or ended.
    touched: Vec<IpAddr>,
    /// What IPAM providers have answered and is not decided about yet.
    answers: HashMap<ServiceKey, Answer, RandomState>,
}

/// What follows from deciding about a Service.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What is to be done.
    pub decision: Decision,
    /// The problem of the decision is news to the Service's owner.
    pub is_news: bool,
    /// What the owner has to be told of an edit, beside that.
    pub advice: Option<Box<Note>>,
    /// Who is to be decided about next because of it.
    pub woken: Vec<ServiceKey>,
}

impl Engine {
    /// Accepted and refused groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Who holds what.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What live nodes say.
    pub fn live(&self) -> &Live {
        &self.live
    }

    fn context<'a>(&'a self, provided: &'a Provided, held: &'a [IpAddr]) -> Context<'a> {
        Context {
            groups: &self.groups,
            ledger: &self.ledger,
            live: &self.live,
            reservations: &self.reservations,
            provided,
            held,
        }
    }

    /// Who waits for what.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// What an IPAM provider has answered: the next decision about the Service reads it.
    pub fn answer(&mut self, service: &ServiceKey, answer: Answer) {
        self.answers.insert(service.clone(), answer);
    }

    /// How many Services wait.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes over new groups. Who may be cured by what has changed.
    pub fn set_groups(&mut self, groups: Groups) -> Vec<ServiceKey> {
        let old = std::mem::replace(&mut self.groups, groups);
        let balanced = self.groups.iter().filter(|group| group.picking == Picking::LeastUsed);
        let watched: Vec<AddressRange> = balanced.flat_map(|group| group.ranges()).collect();
        self.ledger.watch(&watched);
        let mut woken = self.waiting.on_groups(&self.groups.changes_since(&old));
        woken.extend(self.review_reservations(&old));
        woken
    }

    /// Takes over what live nodes say now. Who may be cured by what has changed: those that waited for a subnet that
    /// has come, oldest first, and those that waited for an address that no stranger answers for any more.
    pub fn set_live(&mut self, live: Live) -> Vec<ServiceKey> {
        let old = std::mem::replace(&mut self.live, live);
        let mut woken = Vec::new();
        for wait in self.waiting.on_ranges() {
            let Wait::Ranges(group, family) = &wait else { continue };
            let has_come = |pool: &Pool| !old.reaches(&pool.range) && self.live.reaches(&pool.range);
            let group = self.groups.get(group);
            if group.is_some_and(|group| group.pools_of(*family).any(has_come)) {
                woken.extend(self.waiting.on(&wait));
            }
        }
        for (address, _) in old.strangers().filter(|(address, _)| self.live.stranger(*address).is_none()) {
            if self.ledger.is_held(address) {
                woken.extend(self.waiting.on(&Wait::Address(address)));
            } else {
                woken.extend(self.cured_by_leaving(&[address], &[address]));
            }
        }
        woken
    }

    /// Brings the ledger up to date with what a Service publishes. Who may be cured by it, and who else is on its
    /// addresses and may have to leave.
    pub fn sync(&mut self, service: &Service) -> Vec<ServiceKey> {
        self.sync_written(service, &service.resource_version)
    }

    /// The same where it is known which version has come of our write.
    pub fn sync_written(&mut self, service: &Service, version: &str) -> Vec<ServiceKey> {
        let mut freed = self.end_reservations_of(service);
        let seat = self.ledger.seat(&service.key);
        // What our own write has published was reserved before.
        if self.ledger.is_in_step(seat, service) {
            let mut woken = self.cured_by_leaving(&freed, &freed);
            if self.ledger.confirm(seat, Some(version)) {
                woken.extend(self.parted_from(seat));
            }
            return woken;
        }
        let published: Addresses = self.ledger.published_at(seat).iter().copied().collect();
        let held = self.ledger.held_at(seat);
        let mut shown = service.facts.ingress.iter();
        let is_written = shown.any(|address| held.contains(address) && !published.contains(address));
        let mut woken = Vec::new();
        let old_key = self.ledger.sharing_key_of(&service.key).cloned();
        let is_updated = self.ledger.update(service);
        let mut is_changed = is_updated;
        for address in &service.facts.ingress {
            let seat = self.ledger.seat(&service.key);
            if self.hold(seat, &(*address).into(), service) || is_updated {
                is_changed = true;
                let others = self.ledger.holders(*address).map(|holder| &holder.service);
                woken.extend(others.filter(|other| **other != service.key).cloned());
                woken.extend(self.waiting.on(&Wait::Address(*address)));
            }
        }
        let held = self.ledger.held_by(&service.key).iter().copied();
        let left: Vec<IpAddr> = held.filter(|address| !service.facts.ingress.contains(address)).collect();
        let empty = self.leave_all_but(&service.key, &service.facts.ingress);
        // Created again before it was known to be deleted, it publishes nothing, too.
        let has_gone = service.facts.ownership == Ownership::Ended || service.facts.ingress.is_empty();
        if has_gone {
            // For what was never published nobody comes back.
            let left: Vec<IpAddr> =
                empty.iter().copied().filter(|address| published.contains(address)).collect();
            freed.extend(self.reserve_for(&service.key, &left));
        }
        let seat = self.ledger.seat(&service.key);
        if self.ledger.confirm(seat, is_written.then_some(version)) {
            woken.extend(self.parted_from(seat));
        }
        freed.extend(self.not_reserved(empty));
        if is_changed || !left.is_empty() {
            let keys = old_key.into_iter().chain(service.facts.requests.sharing_key.clone());
            woken.extend(self.on_keys(&service.key, keys));
        }
        let left: Vec<IpAddr> = left.into_iter().chain(freed.iter().copied()).collect();
        woken.extend(self.cured_by_leaving(&left, &freed));
        woken
    }

    /// An owner has edited a Service that a write of ours is under way for: whose edit was the later one has to be
    /// known. Who may be cured by it, and who else is on its addresses and may have to leave.
    pub fn on_edited(&mut self, service: &Service) -> Vec<ServiceKey> {
        let old_key = self.ledger.sharing_key_of(&service.key).cloned();
        if !self.ledger.update(service) {
            return Vec::new();
        }
        let mut woken = Vec::new();
        for address in self.ledger.held_by(&service.key) {
            let others = self.ledger.holders(*address).map(|holder| &holder.service);
            woken.extend(others.filter(|other| **other != service.key).cloned());
            woken.extend(self.waiting.on(&Wait::Address(*address)));
        }
        let keys = old_key.into_iter().chain(service.facts.requests.sharing_key.clone());
        woken.extend(self.on_keys(&service.key, keys));
        woken
    }

    /// Who cannot stay together with the Service that is there, and that one.
    fn parted_from(&self, seat: Seat) -> Vec<ServiceKey> {
        let mut parted: Vec<ServiceKey> =
            self.ledger.parted_from(seat).map(|holder| holder.service.clone()).collect();
        if !parted.is_empty() {
            parted.extend(self.ledger.service_at(seat).cloned());
        }
        parted
    }

    /// The Service comes to the addresses, or what is known of it there is brought up to date. Whether that changed
    /// anything.
    fn hold(&mut self, seat: Seat, addresses: &Addresses, service: &Service) -> bool {
        self.ledger.hold(seat, addresses, service)
    }

    /// The Service leaves all other addresses. Those on which nobody is left.
    fn leave_all_but(&mut self, service: &ServiceKey, addresses: &[IpAddr]) -> Vec<IpAddr> {
        self.ledger.keep_only(service, addresses)
    }

    /// Who waits on these sharing keys in a namespace that may share with the Service's.
    fn on_keys(&self, service: &ServiceKey, keys: impl Iterator<Item = Word>) -> Vec<ServiceKey> {
        let mut woken = Vec::new();
        if !self.waiting.is_any_on_key() {
            return woken;
        }
        let own = service.namespace();
        for key in keys {
            woken.extend(self.waiting.on(&Wait::Key(own.into(), key.clone())));
            for other in self.groups.united_with(own) {
                woken.extend(self.waiting.on(&Wait::Key(other.as_ref().into(), key.clone())));
            }
        }
        woken
    }

    /// Forgets a Service that is gone. Who may be cured by it.
    pub fn forget(&mut self, service: &ServiceKey) -> Vec<ServiceKey> {
        let waiter = self.waiting.remove(service);
        if !self.answers.is_empty() {
            self.answers.remove(service);
        }
        let mut woken = Vec::new();
        if let Some(gone) = self.ledger.remove(service) {
            let freed = self.not_reserved(gone.freed.to_vec());
            woken.extend(self.cured_by_leaving(&gone.held, &freed));
            woken.extend(self.on_keys(service, gone.sharing_key.into_iter()));
        }
        // It may have had its turn and not taken it.
        for wait in waiter.iter().flat_map(|waiter| waiter.parts()) {
            woken.extend(self.next_in_room(wait, None, true));
        }
        woken
    }

    /// Decides about a Service and reserves what it is to get.
    pub fn decide(&mut self, service: &Service, edge: Edge) -> Outcome {
        let answer = if self.answers.is_empty() { None } else { self.answers.remove(&service.key) };
        let provided = Provided::new(answer);
        let seat = self.ledger.seat(&service.key);
        let context = self.context(&provided, self.ledger.held_at(seat));
        let decision = assign(service, context, edge);
        let advice = advice(service, context, edge).map(Box::new);
        if let Some(ask) = provided.into_ask() {
            // It waits for what it waited for until the answer is there.
            return Outcome { decision: Decision::Ask(ask), is_news: false, advice: None, woken: Vec::new() };
        }
        let mut is_reserved = false;
        if let Decision::Write(write) = &decision {
            is_reserved = write.ingress.as_ref().is_some_and(|addresses| self.hold(seat, addresses, service));
        }
        let mut woken = Vec::new();
        let (waited_on, is_news) = match problem(&decision) {
            Some(problem) => {
                let waited_on = self.waiting.wait_of(&service.key).cloned();
                (waited_on, self.waiting.add(service, problem))
            }
            None => (self.waiting.remove(&service.key).and_then(|waiter| waiter.wait), false),
        };
        if let Some(waited_on) = waited_on {
            let waits_on = self.waiting.wait_of(&service.key).map_or(&[][..], Wait::parts);
            woken.extend(waited_on.parts().iter().filter_map(|wait| {
                self.next_in_room(wait, Some(service.seniority()), !waits_on.contains(wait))
            }));
        }
        if is_reserved {
            // Whoever has its sharing key has an address to share from now on.
            woken.extend(self.on_keys(&service.key, service.facts.requests.sharing_key.iter().cloned()));
        }
        Outcome { decision, is_news, advice, woken }
    }

    /// One free address wakes one Service; where it leaves room, the next in the queue has its turn.
    /// Whether a provider has more is not known: as long as whoever has its turn leaves the queue, served or not, the
    /// next one tries.
    fn next_in_room(
        &self,
        wait: &Wait,
        after: Option<(i64, &ServiceKey)>,
        has_left: bool,
    ) -> Option<ServiceKey> {
        let group = if let Wait::Room(name, _) = wait { self.groups.get(name) } else { None };
        let is_external = group.is_some_and(|group| group.external.is_some());
        let has_room = if is_external { has_left } else { self.has_room(wait) };
        has_room.then(|| self.waiting.next_on(wait, after))?
    }

    fn has_room(&self, wait: &Wait) -> bool {
        let (Wait::Room(name, family) | Wait::Ranges(name, family)) = wait else { return false };
        let Some(group) = self.groups.get(name) else { return false };
        let needs_node = matches!(wait, Wait::Ranges(..)) && group.pool_type == PoolType::Local;
        let provided = Provided::default();
        let context = self.context(&provided, &[]);
        let mut pools = group.pools_of(*family).filter(|pool| !needs_node || self.live.reaches(&pool.range));
        pools.any(|pool| context.lowest_free(&pool.range).is_some())
    }

    /// Who is cured by somebody leaving these addresses: those who wait for one of them, and, where nobody is
    /// left on it, the oldest who waits for room where it is.
    fn cured_by_leaving(&self, left: &[IpAddr], freed: &[IpAddr]) -> Vec<ServiceKey> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut woken: Vec<ServiceKey> =
            left.iter().flat_map(|address| self.waiting.on(&Wait::Address(*address))).collect();
        for address in freed {
            if let Some(group) = self.groups.of_address(*address) {
                let family = IpFamily::of(*address);
                for wait in [Wait::Room(group.name.clone(), family), Wait::Ranges(group.name.clone(), family)]
                {
                    woken.extend(self.waiting.next_on(&wait, None));
                }
            }
        }
        woken
    }
}

/// What the owner has to be told.
pub fn problem(decision: &Decision) -> Option<&Problem> {
    match decision {
        Decision::Refuse(problem) => Some(problem),
        Decision::Write(write) => write.problem.as_deref(),
        Decision::Leave | Decision::Keep | Decision::Ask(_) => None,
    }
}
