//! Services in the loop: what is known of each, what is under way for it, and what an answer changes.

use std::{
    collections::HashSet,
    mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::names::event;

use super::{Done, Term};
use crate::{
    apply::{Written, group_of},
    assign::{Decision, Edge, Write},
    events::EventType,
    inputs::{Service, ServiceKey, service::Ownership},
    metrics::RejectionLabels,
    select::Problem,
};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// A Service and what is going on with it.
pub(super) struct Entry {
    pub(super) service: Arc<Service>,
    /// What has changed since the last decision.
    edge: Edge,
    /// When the change that is not yet decided about was seen.
    seen: Instant,
    /// A write is under way; the ledger holds what it may publish.
    in_flight: bool,
    /// Something has changed while a write was under way.
    again: bool,
    /// The Service is gone while a write was under way.
    gone: bool,
    /// A write came too late: the version that was there first has still to be seen. Until then nothing is
    /// known of what is published, so the ledger keeps what it has.
    outdated: bool,
    /// Writes in a row that were of no use.
    failures: u32,
    /// When our last write was answered.
    written: Option<Instant>,
}

/// A write and its answer.
pub(super) struct ServiceWrite {
    service: Arc<Service>,
    edge: Edge,
    seen: Instant,
    write: Write,
    written: Written,
}

/// Whether version `a` is older than `b`, as far as that can be known.
fn is_older(a: &str, b: &str) -> bool {
    matches!((a.parse::<u64>(), b.parse::<u64>()), (Ok(a), Ok(b)) if a < b)
}

impl Edge {
    fn between(old: &Service, new: &Service) -> Edge {
        let is_same_object = old.uid == new.uid;
        Edge {
            families_grew: is_same_object && new.facts.families.exceeds(old.facts.families),
            was_ours: is_same_object
                && old.facts.ownership == Ownership::Ours
                && old.facts.brand.allocated_by_us,
        }
    }

    fn and(self, later: Edge) -> Edge {
        Edge {
            families_grew: self.families_grew || later.families_grew,
            was_ours: self.was_ours || later.was_ours,
        }
    }
}

impl Term {
    /// A complete list. What it lacks is gone, unless we have written it after the list was begun.
    pub(super) fn on_services(&mut self, mut services: Vec<Arc<Service>>, begun: Instant) {
        services.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        let is_later =
            |entry: &Entry| entry.in_flight || entry.written.is_some_and(|written| written > begun);
        if !self.services.is_empty() {
            let listed: HashSet<&ServiceKey> = services.iter().map(|service| &service.key).collect();
            let missing =
                self.services.iter().filter(|(key, entry)| !listed.contains(key) && !is_later(entry));
            let missing: Vec<ServiceKey> = missing.map(|(key, _)| key.clone()).collect();
            for key in missing {
                self.on_service_gone(&key);
            }
        }
        for service in services {
            let known = self.services.get(&service.key);
            let is_stale = known.is_some_and(|entry| {
                is_later(entry) && is_older(&service.resource_version, &entry.service.resource_version)
            });
            if !is_stale {
                self.take_over(service, begun);
            }
        }
        self.services_listed = true;
    }

    /// One Service as it is now, unless we know it as it was later.
    pub(super) fn on_service(&mut self, service: Arc<Service>, seen: Instant) {
        let known = self.services.get(&service.key);
        if known.is_none_or(|known| !is_older(&service.resource_version, &known.service.resource_version)) {
            self.take_over(service, seen);
        }
    }

    fn take_over(&mut self, mut service: Arc<Service>, seen: Instant) {
        self.touch_groups(&service.facts.ingress);
        let Some(entry) = self.services.get_mut(&service.key) else {
            let key = service.key.clone();
            let woken = self.engine.sync(&service);
            self.services.insert(key.clone(), Entry::new(service, seen));
            self.dirty.push(key);
            self.wake(woken);
            return;
        };
        if let Some(service) = Arc::get_mut(&mut service) {
            service.keep_of(&entry.service);
        }
        let key = service.key.clone();
        let old = mem::replace(&mut entry.service, service.clone());
        let is_newer = old.resource_version != service.resource_version;
        let is_changed = old.facts != service.facts || old.uid != service.uid;
        let was_outdated = mem::take(&mut entry.outdated) && is_newer;
        entry.gone = false;
        entry.edge = entry.edge.and(Edge::between(&old, &service));
        if !is_changed && !was_outdated {
            return;
        }
        if entry.in_flight {
            entry.again = true;
            return;
        }
        entry.seen = seen;
        let woken = self.engine.sync(&service);
        self.touch_groups(&old.facts.ingress);
        self.dirty.push(key);
        self.wake(woken);
    }

    pub(super) fn on_service_gone(&mut self, key: &ServiceKey) {
        let Some(entry) = self.services.get_mut(key) else { return };
        if entry.in_flight {
            entry.gone = true;
            return;
        }
        self.forget(key);
    }

    fn forget(&mut self, key: &ServiceKey) {
        let Some(entry) = self.services.remove(key) else { return };
        let held: Vec<IpAddr> = self.engine.ledger().held_by(key).to_vec();
        if !held.is_empty() && entry.service.facts.brand.allocated_by_us {
            tracing::info!(service = %key, addresses = ?held, "released: the Service is gone");
        }
        let woken = self.engine.retire(&entry.service);
        self.touch_groups(&held);
        self.wake(woken);
    }

    /// Decides about one Service and sends off what that takes.
    pub(super) fn decide(&mut self, key: &ServiceKey) {
        let Some(writer) = self.writer.clone() else { return };
        let Some(entry) = self.services.get_mut(key) else { return };
        if entry.in_flight {
            entry.again = true;
            return;
        }
        if entry.outdated {
            return;
        }
        let (service, edge, seen) = (entry.service.clone(), mem::take(&mut entry.edge), entry.seen);
        self.surroundings.metrics.decisions.inc();
        let outcome = self.engine.decide(&service, edge);
        if let Some(problem) = crate::engine::problem(&outcome.decision)
            && outcome.is_news
        {
            self.tell_problem(&service, problem);
        }
        if let Decision::Write(write) = outcome.decision {
            if let Some(entry) = self.services.get_mut(key) {
                entry.in_flight = true;
            }
            self.in_flight += 1;
            self.tasks.spawn(async move {
                let written = writer.write(&service, &write).await;
                Done::Service(Box::new(ServiceWrite { service, edge, seen, write, written }))
            });
        }
        self.wake(outcome.woken);
    }

    fn tell_problem(&self, service: &Service, problem: &Problem) {
        tracing::warn!(service = %service.key, reason = problem.reason, why = problem.message, "not served");
        let message = problem.message.clone();
        self.surroundings.events.service(service, EventType::Warning, event::ALLOCATION_FAILED, message);
        let named = problem.group().or(service.facts.requests.group.as_deref());
        let pool = named.unwrap_or(api::names::DEFAULT_SERVICE_GROUP);
        let labels = RejectionLabels { pool: pool.to_owned(), reason: problem.reason.to_owned() };
        self.surroundings.metrics.allocation_rejected.get_or_create(&labels).inc();
    }

    /// The answer to a write.
    pub(super) fn on_written(&mut self, done: ServiceWrite) {
        let key = done.service.key.clone();
        let Some(entry) = self.services.get_mut(&key) else { return };
        entry.in_flight = false;
        if entry.gone {
            self.forget(&key);
            return;
        }
        match &done.written {
            Written::Done(_) => self.on_confirmed(done),
            Written::Conflict => {
                self.surroundings.metrics.conflicts.inc();
                entry.edge = done.edge.and(entry.edge);
                entry.again = false;
                if entry.service.resource_version == done.service.resource_version {
                    entry.outdated = true;
                    self.try_later(key);
                } else {
                    self.look_again(&key);
                }
            }
            Written::Gone => self.forget(&key),
            Written::Refused(message) => {
                tracing::error!(service = %key, message, "the API server refuses the write");
                entry.edge = done.edge.and(entry.edge);
                if mem::take(&mut entry.again) {
                    self.look_again(&key);
                    return;
                }
                let woken = self.engine.sync(&entry.service);
                self.try_later(key);
                self.wake(woken);
            }
        }
    }

    fn try_later(&mut self, key: ServiceKey) {
        let Some(entry) = self.services.get_mut(&key) else { return };
        let pause = FIRST_RETRY.saturating_mul(1 << entry.failures.min(6)).min(LAST_RETRY);
        let pause = pause.mul_f64(rand::random_range(0.5..1.0));
        entry.failures = entry.failures.saturating_add(1);
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            Done::Retry(key)
        });
    }

    /// Nothing newer has been seen since a write came too late: then it is tried again from what is known. The
    /// API server refuses it again if there is something newer after all.
    pub(super) fn on_retry(&mut self, key: ServiceKey) {
        if let Some(entry) = self.services.get_mut(&key) {
            entry.outdated = false;
            self.dirty.push(key);
        }
    }

    /// The ledger follows what is known to be published, and the Service is decided about again.
    fn look_again(&mut self, key: &ServiceKey) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let service = entry.service.clone();
        let woken = self.engine.sync(&service);
        self.touch_groups(&service.facts.ingress);
        self.dirty.push(key.clone());
        self.wake(woken);
    }

    fn on_confirmed(&mut self, done: ServiceWrite) {
        let key = &done.service.key;
        let Written::Done(object) = &done.written else { return };
        let default_class = self.surroundings.settings.is_default_class();
        let Some(entry) = self.services.get_mut(key) else { return };
        entry.failures = 0;
        entry.written = Some(Instant::now());
        let after = Service::from_object(object, default_class).map(|mut after| {
            self.words.share(&mut after);
            after.keep_of(&entry.service);
            Arc::new(after)
        });
        let again = mem::take(&mut entry.again);
        let mut look_again = false;
        match &after {
            Some(after) if !is_older(&after.resource_version, &entry.service.resource_version) => {
                entry.service = after.clone();
            }
            // The watch knows it as it was later: what differs is somebody else's doing.
            Some(after) => look_again = again && after.facts != entry.service.facts,
            None => {}
        }
        let latest = entry.service.clone();
        self.report(&done);
        self.warn_of_strangers(&latest);
        match after {
            None if latest.resource_version == done.service.resource_version => self.forget(key),
            _ => {
                let woken = self.engine.sync(&latest);
                self.wake(woken);
            }
        }
        self.touch_groups(&done.service.facts.ingress);
        self.touch_groups(&latest.facts.ingress);
        if look_again {
            self.dirty.push(key.clone());
        }
    }

    /// Tells everybody about a write that is confirmed.
    fn report(&self, done: &ServiceWrite) {
        let surroundings = &self.surroundings;
        surroundings.metrics.writes.inc();
        if done.write.ingress.is_some() {
            surroundings.metrics.allocation_seconds.observe(done.seen.elapsed().as_secs_f64());
        }
        tracing::info!(
            service = %done.service.key,
            addresses = ?done.write.ingress,
            group = group_of(&done.write),
            micros = done.seen.elapsed().as_micros(),
            "written"
        );
        if let Some(why) = done.write.cluster_policy {
            let note = format!("externalTrafficPolicy is reset to Cluster: {why}");
            surroundings.events.service(&done.service, EventType::Normal, event::LOCAL_OVERRIDDEN, note);
        }
        for note in &done.write.notes {
            surroundings.events.note(&done.service, note);
        }
    }
}

impl Entry {
    /// What it waited for has come: from now on it is we who take the time.
    pub(super) fn woken(&mut self, now: Instant) {
        self.seen = now;
    }

    fn new(service: Arc<Service>, seen: Instant) -> Entry {
        Entry {
            service,
            edge: Edge::default(),
            seen,
            in_flight: false,
            again: false,
            gone: false,
            outdated: false,
            failures: 0,
            written: None,
        }
    }
}
