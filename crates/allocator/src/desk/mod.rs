//! What is known of every Service, who has to be decided about, what is under way, and what an answer changes.
//! No I/O: changes and answers come in, [`Effect`]s come out, to be drained after every call.
//!
//! Guarantees
//! - An address stays in the ledger as long as a write that may publish it can still be applied, and as long as
//!   it is known to be published.
//! - A Service has at most one write under way. What changes meanwhile is decided about afterwards.
//! - A write whose fate is unknown is repeated, unchanged, until the API server answers for certain. It is
//!   conditional on a version, so at most one of the repetitions is applied.
//! - Whoever is woken is decided about in the end, or gives its turn to the next.
//!
//! Assumptions: versions of an object grow; a complete list is not older than the moment when it was begun; the
//! changes of one object come in order.

mod answers;
mod dirty;
mod entries;
mod entry;
mod moment;
mod provided;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    assign::{Decision, Edge, Note, Why},
    engine::{self, Engine},
    external::Ask,
    inputs::{Groups, Live, Service, ServiceKey, compact::Addresses, service::Ownership, words::Words},
    ledger::Ledger,
    reservation::Reservation,
    select::Problem,
};

pub use answers::Written;
use dirty::Dirty;
use dirty::LARGE_QUEUE;
use entries::Entries;
use entry::Entry;
pub use entry::Order;
pub(crate) use entry::is_older;

/// How many writes may be decided and not answered yet; more would only cost memory. Those that have to be
/// repeated do not count: what holds up one Service must not hold up the others.
const MAX_IN_FLIGHT: usize = 512;

/// By then no request is under way that was given up: it is conditional on a time, too, that is over long before.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Send the write, after this pause; the answer comes back to [`Desk::on_answer`].
    Send(Box<Order>, Duration),
    /// Call [`Desk::on_retry`] after this pause.
    Retry(ServiceKey, Duration),
    /// Ask for the Service as it is now; the answer comes back to [`Desk::on_looked`].
    Look(ServiceKey),
    /// The owner is to be told that the Service is not served.
    Rejected(Arc<Service>, Problem),
    /// The owner is to be told this of an edit.
    Advised(Arc<Service>, Note),
    /// The traffic policy of the Service was reset for this reason, and what was to follow did not.
    Overridden(Arc<Service>, &'static str),
    /// The write is confirmed.
    Confirmed(Box<Order>),
    /// A write came too late.
    Conflict,
    /// The groups of these addresses have other figures.
    Touched(Vec<IpAddr>),
    /// An IPAM provider has to be asked before the Service can be decided about; the answer comes back to
    /// [`Desk::on_provided`].
    Ask(Arc<Service>, Ask),
    /// The Service has been decided about: it wants nothing more of any IPAM provider.
    Decided(ServiceKey),
}

/// The Services, and everything that depends on them.
#[derive(Default)]
pub struct Desk {
    engine: Engine,
    entries: Entries,
    /// What answers to writes have in common with what is known.
    words: Words,
    dirty: Dirty,
    /// Writes of the first attempt.
    in_flight: usize,
    /// Writes that are repeated.
    repeated: usize,
    /// What the API server has said last against a write that was refused, until one is not.
    refusals: HashMap<ServiceKey, String>,
    effects: VecDeque<Effect>,
}

/// With the type of a Service the API server drops its status: what was in it is not there any more when we come to
/// take it back, and the owner is told of it nevertheless.
fn emptied(old: &Service, new: &Service) -> Option<Note> {
    let was_ours = old.facts.ownership == Ownership::Ours && old.facts.brand.allocated_by_us;
    let has_ended = old.uid == new.uid && was_ours && new.facts.ownership == Ownership::Ended;
    let kept = &new.facts.ingress;
    let lost = old.facts.ingress.iter().copied().filter(|address| has_ended && !kept.contains(address));
    let lost: Addresses = lost.collect();
    (!lost.is_empty()).then_some(Note::Released(lost, Why::Ended))
}

impl Desk {
    /// Accepted and refused groups.
    pub fn groups(&self) -> &Groups {
        self.engine.groups()
    }

    /// Who holds what.
    pub fn ledger(&self) -> &Ledger {
        self.engine.ledger()
    }

    /// Groups, ledger and all else that decisions depend on.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What live nodes say.
    pub fn live(&self) -> &Live {
        self.engine.live()
    }

    /// A Service as it is known.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.entries.get(key).map(|entry| &entry.service)
    }

    /// All Services as they are known.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.entries.iter().map(|entry| &entry.service)
    }

    /// How many Services have to be decided about.
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// How many Services are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many writes are under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight + self.repeated
    }

    /// How many of them are sent for the first time.
    pub fn first_attempts(&self) -> usize {
        self.in_flight
    }

    /// What is to be done next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if effect.is_none() && self.effects.capacity() > LARGE_QUEUE {
            self.effects = VecDeque::new();
        }
        effect
    }

    /// A complete list, begun then. What it lacks is gone, unless we have written it since.
    pub fn on_services(&mut self, mut services: Vec<Arc<Service>>, begun: Instant) {
        services.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        if !self.entries.is_empty() {
            let listed: HashSet<&ServiceKey> = services.iter().map(|service| &service.key).collect();
            let known = self.entries.iter().map(|entry| &entry.service.key);
            let missing: Vec<ServiceKey> = known.filter(|key| !listed.contains(*key)).cloned().collect();
            for key in missing {
                self.on_missing(&key, begun);
            }
        }
        for service in services {
            let known = self.entries.get(&service.key);
            let is_stale = known.is_some_and(|entry| {
                entry.may_be_younger_than(begun)
                    && is_older(&service.resource_version, &entry.service.resource_version)
            });
            if !is_stale {
                self.take_over(service, begun);
            }
        }
    }

    /// A list lacks the Service. Where a write of ours may be younger than the list, only a look can tell.
    fn on_missing(&mut self, key: &ServiceKey, begun: Instant) {
        match self.entries.get_mut(key) {
            Some(entry) if entry.in_flight => entry.missing = true,
            Some(entry) if entry.may_be_younger_than(begun) => {
                self.effects.push_back(Effect::Look(key.clone()));
            }
            _ => self.on_service_gone(key),
        }
    }

    /// One Service as it is now, unless we know it as it was later.
    pub fn on_service(&mut self, service: Arc<Service>, seen: Instant) {
        let known = self.entries.get(&service.key);
        if known.is_none_or(|known| !is_older(&service.resource_version, &known.service.resource_version)) {
            self.take_over(service, seen);
        }
    }

    fn take_over(&mut self, mut service: Arc<Service>, seen: Instant) {
        self.touch(&service.facts.ingress);
        let Some(entry) = self.entries.get_mut(&service.key) else {
            let key = service.key.clone();
            let woken = self.engine.sync(&service);
            self.warn_of_odd_values(&service);
            self.entries.insert(Entry::new(service, seen));
            self.dirty.push(key);
            self.wake(woken, seen);
            return;
        };
        if let Some(service) = Arc::get_mut(&mut service) {
            service.keep_of(&entry.service);
        }
        let key = service.key.clone();
        let old = mem::replace(&mut entry.service, service.clone());
        let is_changed = old.facts != service.facts || old.uid != service.uid;
        let told = entry.service.facts.requests.odd_values() != old.facts.requests.odd_values();
        (entry.gone, entry.missing) = (false, false);
        entry.edge = entry.edge.and(Edge::between(&old, &service));
        self.effects.extend(emptied(&old, &service).map(|note| Effect::Advised(service.clone(), note)));
        if told {
            self.warn_of_odd_values(&service);
        }
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.in_flight {
            entry.again |= is_changed;
            let woken = if is_changed { self.engine.on_edited(&service) } else { Vec::new() };
            self.wake(woken, seen);
            return;
        }
        let was_behind = entry.behind.is_some();
        if entry.is_behind() || !is_changed && !was_behind {
            return;
        }
        entry.seen = seen.into();
        self.look_again(&key);
        self.touch(&old.facts.ingress);
    }

    /// Tells the owner of values that do not count.
    fn warn_of_odd_values(&mut self, service: &Arc<Service>) {
        if service.facts.ownership == Ownership::Ours {
            let notes = service.facts.requests.odd_values().iter().cloned().map(Note::Warning);
            self.effects.extend(notes.map(|note| Effect::Advised(service.clone(), note)));
        }
    }

    /// The Service is gone, or has nothing to do with load balancers any more.
    pub fn on_service_gone(&mut self, key: &ServiceKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.in_flight {
            entry.gone = true;
            return;
        }
        self.forget(key);
    }

    /// The Service as it is now, asked for after a write came too late or a list lacked it.
    pub fn on_looked(&mut self, key: &ServiceKey, found: Option<Arc<Service>>, now: Instant) {
        match found {
            Some(service) => self.on_service(service, now),
            None => self.on_service_gone(key),
        }
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.in_flight || entry.behind.is_none() {
            return;
        }
        // Nothing newer is there: the API server has refused for nothing. What a repetition may still bring stays
        // reserved.
        if entry.behind.take_if(|behind| behind.is_unsure).is_some() {
            entry.unsure = true;
            self.dirty.push(key.clone());
            self.effects.push_back(Effect::Retry(key.clone(), FORGOTTEN_AFTER));
        } else {
            self.look_again(key);
        }
    }

    /// Other groups.
    pub fn set_groups(&mut self, groups: Groups, now: Instant) {
        let woken = self.engine.set_groups(groups);
        self.wake(woken, now);
    }

    /// Live nodes say something else.
    pub fn set_live(&mut self, live: Live, now: Instant) {
        let woken = self.engine.set_live(live);
        self.wake(woken, now);
    }

    /// What is reserved for Services that have gone, at the beginning of a term.
    pub fn restore(&mut self, reservations: Vec<Reservation>) {
        self.engine.restore(reservations);
    }

    /// When the next reservation ends, in seconds since 1970.
    pub fn next_deadline(&self) -> Option<i64> {
        self.engine.next_deadline()
    }

    /// It is so late, in seconds since 1970.
    pub fn advance_to(&mut self, secs: i64, now: Instant) {
        let woken = self.engine.advance_to(secs);
        self.wake(woken, now);
    }

    /// Says whose figures have changed because a reservation has begun or ended.
    pub fn report_touched(&mut self) {
        let touched = self.engine.take_touched();
        self.touch(&touched);
    }

    fn forget(&mut self, key: &ServiceKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.refusals.remove(key);
        let held: Vec<IpAddr> = self.engine.ledger().held_by(key).to_vec();
        if !held.is_empty() && entry.service.facts.brand.allocated_by_us {
            tracing::info!(service = %key, addresses = ?held, "released: the Service is gone");
        }
        let woken = self.engine.retire(&entry.service);
        self.touch(&held);
        self.wake(woken, entry.seen.into());
    }

    /// Forgets who is to be decided about: another replica decides.
    pub fn decide_nothing(&mut self) {
        self.dirty = Dirty::default();
    }

    /// Decides about the next Service, if there is one and not too much is under way.
    pub fn decide_next(&mut self) -> bool {
        if self.in_flight >= MAX_IN_FLIGHT {
            return false;
        }
        let Some(key) = self.dirty.pop() else { return false };
        self.decide(&key);
        true
    }

    fn decide(&mut self, key: &ServiceKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.in_flight {
            entry.again = true;
            return;
        }
        if entry.behind.is_some() {
            return;
        }
        let (service, edge, seen) = (entry.service.clone(), mem::take(&mut entry.edge), entry.seen.into());
        let outcome = self.engine.decide(&service, edge);
        if let Some(problem) = engine::problem(&outcome.decision)
            && outcome.is_news
        {
            self.effects.push_back(Effect::Rejected(service.clone(), problem.clone()));
        }
        if let Some(advice) = outcome.advice {
            self.effects.push_back(Effect::Advised(service.clone(), *advice));
        }
        match outcome.decision {
            Decision::Ask(ask) => {
                // With the answer it is decided as if for the first time.
                entry.edge = edge.and(entry.edge);
                self.effects.push_back(Effect::Ask(service, ask));
                return;
            }
            Decision::Write(write) => {
                (entry.in_flight, entry.unsure) = (true, false);
                self.in_flight += 1;
                let order = Box::new(Order::new(service, write, edge, seen));
                self.effects.push_back(Effect::Send(order, Duration::ZERO));
            }
            Decision::Leave | Decision::Keep | Decision::Refuse(_) => {}
        }
        self.effects.push_back(Effect::Decided(key.clone()));
        self.wake(outcome.woken, seen);
    }

    /// What these waited for may have come.
    pub fn wake(&mut self, services: Vec<ServiceKey>, now: Instant) {
        for service in services {
            if let Some(entry) = self.entries.get_mut(&service) {
                // What it waited for has come: from now on it is we who take the time.
                entry.seen = entry.seen.max(now.into());
                self.dirty.push(service);
            }
        }
    }

    /// The ledger follows what is known to be published, and the Service is decided about again.
    fn look_again(&mut self, key: &ServiceKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.behind = None;
        let (service, seen) = (entry.service.clone(), entry.seen.into());
        let woken = self.engine.sync(&service);
        self.touch(&service.facts.ingress);
        self.dirty.push(key.clone());
        self.wake(woken, seen);
    }

    fn touch(&mut self, addresses: &[IpAddr]) {
        if let Some(Effect::Touched(touched)) = self.effects.back_mut() {
            // A list of everything is one effect, and not as many as there are Services.
            touched.extend(addresses);
        } else if !addresses.is_empty() {
            self.effects.push_back(Effect::Touched(addresses.to_vec()));
        }
    }
}
