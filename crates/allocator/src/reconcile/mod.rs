//! The loop that owns everything: changes come in, dirty Services are decided about, writes go out, answers come
//! back. One task, no locks.
//!
//! A term begins when this replica gains or loses the right to write, always with nothing known: the ledger of a
//! new holder is rebuilt from complete lists that were begun after it became the holder. Nothing is decided before
//! ServiceGroups, nodes' Leases and all Services have been listed.

mod groups;
mod nodes;
mod services;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{LinkLayerAddress, ServiceGroup, names::event};
use foldhash::fast::RandomState;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::Writer,
    engine::Engine,
    events::{EventType, Events},
    inputs::{ServiceKey, words::Words},
    leader::Tenure,
    metrics::{Metrics, TURN},
    settings::Settings,
    stores::{self, Change},
};

use groups::GroupEntry;
use services::{Entry, ServiceWrite};

/// How many writes may be decided and not answered yet; more would only cost memory.
const MAX_IN_FLIGHT: usize = 512;
/// A queue with room for more than this is given up when it is empty.
const LARGE_QUEUE: usize = 4096;
/// How long writes under way may take when the process is to end.
const DRAIN: Duration = Duration::from_secs(3);

/// What a term works with.
#[derive(Clone)]
pub struct Surroundings {
    /// The API server.
    pub client: Client,
    /// The settings.
    pub settings: Arc<Settings>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where events go in.
    pub events: Events,
    /// Told whether writes are under way.
    pub busy: watch::Sender<bool>,
}

/// An answer, or the end of a pause.
enum Done {
    Service(Box<ServiceWrite>),
    Retry(ServiceKey),
    Group(Arc<str>, Result<Box<ServiceGroup>, kube::Error>),
}

struct Term {
    surroundings: Surroundings,
    /// Absent while another replica decides.
    writer: Option<Writer>,
    engine: Engine,
    services: HashMap<ServiceKey, Entry, RandomState>,
    /// What answers to writes have in common with what is known.
    words: Words,
    groups: BTreeMap<Arc<str>, GroupEntry>,
    /// ServiceGroups of other namespaces that have been warned about, by UID.
    strays: HashSet<String>,
    dirty: Dirty,
    tasks: JoinSet<Done>,
    in_flight: usize,
    services_listed: bool,
    groups_listed: bool,
    leases_listed: bool,
    /// Who has been told of which stranger.
    warned: HashSet<(ServiceKey, IpAddr, LinkLayerAddress)>,
}

/// Services that have to be decided about, each once, in the order in which they came.
#[derive(Default)]
struct Dirty {
    queue: VecDeque<ServiceKey>,
    queued: HashSet<ServiceKey, RandomState>,
}

impl Dirty {
    fn push(&mut self, service: ServiceKey) {
        if self.queued.insert(service.clone()) {
            self.queue.push_back(service);
        }
    }

    fn pop(&mut self) -> Option<ServiceKey> {
        let Some(service) = self.queue.pop_front() else {
            // After a list of everything the room for it is not needed any more.
            if self.queue.capacity() > LARGE_QUEUE {
                *self = Dirty::default();
            }
            return None;
        };
        self.queued.remove(&service);
        Some(service)
    }
}

/// One term: until `stop`, or until it is dropped. With a tenure it decides and writes, without one it only
/// watches. After `stop` it waits for the writes that are under way.
pub async fn term(surroundings: Surroundings, tenure: Option<Tenure>, stop: CancellationToken) {
    let settings = surroundings.settings.clone();
    // In this order: who sees that this replica decides must not take it for ready yet.
    surroundings.metrics.set_ready(false);
    surroundings.metrics.leader.set(i64::from(tenure.is_some()));
    let concurrency = settings.write_concurrency;
    let errors = surroundings.metrics.write_errors.clone();
    let writer = tenure.map(|tenure| Writer::new(surroundings.client.clone(), concurrency, tenure, errors));
    let (_watches, mut changes) =
        stores::watch(&surroundings.client, &settings.namespace, settings.is_default_class());
    let mut term = Term {
        surroundings,
        writer,
        engine: Engine::default(),
        services: HashMap::default(),
        words: Words::default(),
        groups: BTreeMap::new(),
        strays: HashSet::new(),
        dirty: Dirty::default(),
        tasks: JoinSet::new(),
        in_flight: 0,
        services_listed: false,
        groups_listed: false,
        leases_listed: false,
        warned: HashSet::new(),
    };
    loop {
        term.surroundings.metrics.turn();
        let due = term.next_due();
        tokio::select! {
            () = stop.cancelled() => break,
            Some(done) = term.tasks.join_next() => term.on_joined(done),
            Some(change) = changes.recv() => term.on_change(change),
            () = tokio::time::sleep_until(due.into()) => {}
        }
        term.on_time();
        // What has come meanwhile is looked at together: a burst is decided oldest first.
        while let Ok(change) = changes.try_recv() {
            term.on_change(change);
        }
        while let Some(done) = term.tasks.try_join_next() {
            term.on_joined(done);
        }
        term.advance();
    }
    term.drain().await;
}

impl Term {
    fn is_listed(&self) -> bool {
        self.services_listed && self.groups_listed && self.leases_listed
    }

    /// When there is something to do even if nothing comes.
    fn next_due(&self) -> Instant {
        let now = Instant::now();
        let pause = self.engine.next_deadline().map(|deadline| {
            let secs = deadline.saturating_sub(Timestamp::now().as_second());
            Duration::from_secs(u64::try_from(secs).unwrap_or(0))
        });
        let latest = now + pause.map_or(TURN, |pause| pause.min(TURN));
        self.next_group_status().map_or(latest, |due| due.min(latest))
    }

    fn on_time(&mut self) {
        let woken = self.engine.advance_to(Timestamp::now().as_second());
        self.wake(woken);
    }

    fn on_change(&mut self, change: Change) {
        let was_listed = self.is_listed();
        match change {
            Change::Services(services, begun) => self.on_services(services, begun),
            Change::Service(service, seen) => self.on_service(service, seen),
            Change::ServiceGone(service) => self.on_service_gone(&service),
            Change::Groups(groups) => self.on_groups(groups),
            Change::Group(group) => self.on_group(*group),
            Change::GroupGone(name) => self.on_group_gone(&name),
            Change::Live(live) => self.on_live(live),
            Change::Stray(group) => self.on_stray(*group),
        }
        if !was_listed && self.is_listed() {
            self.restore_reservations();
            tracing::info!(
                services = self.services.len(),
                groups = self.groups.len(),
                decides = self.writer.is_some(),
                "everything is listed"
            );
            self.surroundings.metrics.set_ready(true);
            self.warn_all_of_strangers();
        }
    }

    fn on_stray(&mut self, group: k8s_openapi::api::core::v1::ObjectReference) {
        let is_new = self.strays.insert(group.uid.clone().unwrap_or_default());
        if is_new && self.writer.is_some() {
            let note = format!(
                "ServiceGroups are read only from the namespace {}: create it there",
                self.surroundings.settings.namespace
            );
            self.surroundings.events.queue(group, EventType::Warning, event::CONFIGURATION_WARNING, note);
        }
    }

    fn on_joined(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Service(write)) => {
                self.in_flight -= 1;
                self.on_written(*write);
            }
            Ok(Done::Retry(service)) => self.on_retry(service),
            Ok(Done::Group(name, answer)) => self.on_group_written(&name, answer),
            Err(error) if error.is_cancelled() => {}
            // A bug; the term ends with it and a new process begins from what is published.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Decides about what is dirty and writes statuses that are due, as far as that may be done now.
    fn advance(&mut self) {
        if !self.is_listed() {
            return;
        }
        if self.writer.is_some() {
            while self.in_flight < MAX_IN_FLIGHT
                && let Some(service) = self.dirty.pop()
            {
                self.decide(&service);
            }
        } else {
            self.dirty = Dirty::default();
        }
        let touched = self.engine.take_touched();
        self.touch_groups(&touched);
        self.write_group_statuses();
        self.report_queues();
        let is_busy = self.in_flight > 0;
        self.surroundings.busy.send_if_modified(|busy| std::mem::replace(busy, is_busy) != is_busy);
    }

    fn report_queues(&self) {
        let metrics = &self.surroundings.metrics;
        let report = |gauge: &Gauge, length: usize| gauge.set(i64::try_from(length).unwrap_or(i64::MAX));
        report(&metrics.services, self.services.len());
        report(&metrics.waiting, self.engine.waiting_len());
        report(&metrics.queue_length, self.dirty.queue.len());
        report(&metrics.writes_in_flight, self.in_flight);
    }

    fn wake(&mut self, services: Vec<ServiceKey>) {
        let now = Instant::now();
        for service in services {
            if let Some(entry) = self.services.get_mut(&service) {
                entry.woken(now);
                self.dirty.push(service);
            }
        }
    }

    async fn drain(mut self) {
        let all = async {
            while self.in_flight > 0
                && let Some(done) = self.tasks.join_next().await
            {
                self.on_joined(done);
            }
        };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            tracing::warn!(writes = self.in_flight, "writes under way are given up");
        }
    }
}
