//! The loop that owns everything: changes come in, dirty Services are decided about, writes go out, answers come
//! back. One task, no locks.
//!
//! A term begins when this replica gains or loses the right to write, always with nothing known: the ledger of a
//! new holder is rebuilt from complete lists that were begun after it became the holder. Nothing is decided before
//! ServiceGroups, nodes' Leases and all Services have been listed.

mod external;
mod groups;
mod nodes;
mod services;

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{LinkLayerAddress, ServiceGroupStatus, names::event};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{GroupWritten, Writer},
    desk::{Desk, Order, Written},
    events::{EventType, Events},
    fence::{self, Fence, Gate},
    inputs::{Service, ServiceKey, Word},
    leader::Tenure,
    memory,
    metrics::{Metrics, TURN, WaitLabels},
    run::passed_on,
    settings::Settings,
    stores::{self, Change},
};

use external::{Call, Externals};
use groups::GroupEntry;

/// How long writes under way may take when the process is to end.
const DRAIN: Duration = Duration::from_secs(3);

/// What a term works with.
#[derive(Clone)]
pub struct Surroundings {
    /// How the API server is reached.
    pub config: Arc<kube::Config>,
    /// The API server, for everything but writes that need the Lease.
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
    Service(Box<Order>, Written),
    Retry(ServiceKey),
    Looked(ServiceKey, Option<Box<Service>>),
    /// The Service could not be looked at; enough time has gone by for another attempt.
    Unseen(ServiceKey),
    Group(Word, String, Box<ServiceGroupStatus>, GroupWritten),
    External(Box<Call>),
    /// The account of this Service at a provider has paused long enough.
    Account(ServiceKey),
}

struct Term {
    surroundings: Surroundings,
    /// Absent while another replica decides.
    writer: Option<Writer>,
    /// Closes with the right to write; absent with it.
    gate: Option<Arc<Gate>>,
    desk: Desk,
    groups: BTreeMap<Word, GroupEntry>,
    external: Externals,
    /// Names of groups that there are not, which Services asked for.
    unknown_names: HashSet<String>,
    /// ServiceGroups of other namespaces that have been warned about, by UID.
    strays: HashSet<String>,
    tasks: JoinSet<Done>,
    /// Writes of groups' statuses and calls that give or take addresses, which are not answered yet.
    under_way: usize,
    services_listed: bool,
    /// Since the last turn all Services were listed.
    is_list_new: bool,
    groups_listed: bool,
    leases_listed: bool,
    /// Who has been told of which stranger.
    warned: HashSet<(ServiceKey, IpAddr, LinkLayerAddress)>,
}

/// One term: until `stop`, or until it is dropped. With a tenure it decides and writes, without one it only
/// watches. After `stop` it waits for the writes that are under way. Whether all of them have been answered.
pub async fn term(surroundings: Surroundings, tenure: Option<Tenure>, stop: CancellationToken) -> bool {
    let settings = surroundings.settings.clone();
    // In this order: who sees that this replica decides must not take it for ready yet.
    surroundings.metrics.set_ready(false);
    surroundings.metrics.begin_term();
    surroundings.metrics.leader.set(i64::from(tenure.is_some()));
    // Closed when the term ends or is dropped.
    let (writer, fence) = match tenure.map(|tenure| writer(&surroundings, tenure)).transpose() {
        Ok(made) => made.unzip(),
        Err(error) => {
            tracing::error!(%error, "no connection for writes can be prepared");
            tokio::time::sleep(settings.retry_period()).await;
            return true;
        }
    };
    let (mut watches, mut changes) =
        stores::watch(&surroundings.client, &settings.namespace, settings.is_default_class());
    let mut term = Term {
        surroundings,
        writer,
        gate: fence.as_ref().map(|fence| fence.gate().clone()),
        desk: Desk::default(),
        groups: BTreeMap::new(),
        external: Externals::default(),
        unknown_names: HashSet::new(),
        strays: HashSet::new(),
        tasks: JoinSet::new(),
        under_way: 0,
        services_listed: false,
        is_list_new: false,
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
            // A watch ends only with a bug; without it this replica would go on with what is long past.
            ended = watches.join_next() => passed_on(ended).expect("watches never end"),
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
    term.drain().await
}

fn writer(surroundings: &Surroundings, tenure: Tenure) -> Result<(Writer, Fence), kube::Error> {
    let settings = &surroundings.settings;
    let (transport, fence) = fence::transport(&surroundings.config, tenure.clone(), settings.delivery())?;
    Ok((Writer::new(transport, settings, tenure, surroundings.metrics.write_errors.clone()), fence))
}

impl Term {
    fn is_listed(&self) -> bool {
        self.services_listed && self.groups_listed && self.leases_listed
    }

    /// When there is something to do even if nothing comes.
    fn next_due(&self) -> Instant {
        let now = Instant::now();
        let pause = self.desk.next_deadline().map(|deadline| {
            let secs = deadline.saturating_sub(Timestamp::now().as_second());
            Duration::from_secs(u64::try_from(secs).unwrap_or(0))
        });
        let latest = now + pause.map_or(TURN, |pause| pause.min(TURN));
        // Before everything is listed nothing that is due is done: it must not keep the loop turning either.
        let due = self.next_group_status().into_iter().chain(self.external.next_due());
        let due = due.min().filter(|_| self.is_listed());
        due.map_or(latest, |due| due.min(latest))
    }

    fn on_time(&mut self) {
        self.desk.advance_to(Timestamp::now().as_second(), Instant::now());
    }

    fn on_change(&mut self, change: Change) {
        let was_listed = self.is_listed();
        match change {
            Change::Services(services, begun) => {
                self.external.touch_all();
                self.desk.on_services(services, begun);
                (self.services_listed, self.is_list_new) = (true, true);
            }
            Change::Service(service, seen) => {
                self.external.touch(&service.key);
                self.desk.on_service(service, seen);
            }
            Change::ServiceGone(service) => {
                self.external.touch(&service);
                self.desk.on_service_gone(&service);
            }
            Change::Groups(groups) => self.on_groups(groups),
            Change::Group(group) => self.on_group(*group),
            Change::GroupGone(name) => self.on_group_gone(&name),
            Change::Live(live) => self.on_live(live),
            Change::Stray(group) => self.on_stray(*group),
            Change::StrayGone(uid) => drop(self.strays.remove(&uid)),
        }
        if !was_listed && self.is_listed() {
            self.restore_reservations();
            self.adopt_all();
            tracing::info!(
                services = self.desk.len(),
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
            Ok(Done::Service(order, written)) => {
                self.external.touch(&order.service.key);
                self.desk.on_answer(order, written, Instant::now());
            }
            Ok(Done::Retry(service)) => self.desk.on_retry(&service),
            Ok(Done::Looked(service, found)) => {
                self.external.touch(&service);
                self.desk.on_looked(&service, found.map(Arc::from), Instant::now());
            }
            Ok(Done::Unseen(service)) => self.look(service),
            Ok(Done::Group(name, version, old, written)) => {
                self.on_group_written(&name, &version, *old, written);
            }
            Ok(Done::External(call)) => self.on_call(*call),
            Ok(Done::Account(service)) => self.on_account(&service),
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
            while self.desk.decide_next() {
                self.surroundings.metrics.decisions.inc();
                // What a provider cannot even be asked for is decided about again at once.
                self.carry_out();
            }
        } else {
            self.desk.decide_nothing();
        }
        if std::mem::take(&mut self.is_list_new) {
            // Before the writes begin: what the list took on its way is not needed any more.
            memory::give_back();
        }
        self.desk.report_touched();
        self.carry_out();
        self.advance_external();
        self.write_group_statuses();
        self.report_queues();
        // Writes that have to be repeated may take long, and nothing would come of waiting for them.
        let is_busy = self.desk.first_attempts() > 0;
        self.surroundings.busy.send_if_modified(|busy| std::mem::replace(busy, is_busy) != is_busy);
    }

    fn report_queues(&self) {
        let metrics = &self.surroundings.metrics;
        let report = |gauge: &Gauge, length: usize| gauge.set(i64::try_from(length).unwrap_or(i64::MAX));
        report(&metrics.services, self.desk.len());
        for (reason, count) in self.desk.engine().waiting().by_reason() {
            report(&metrics.waiting.get_or_create(&WaitLabels { reason }), count);
        }
        report(&metrics.queue_length, self.desk.dirty_len());
        report(&metrics.writes_in_flight, self.desk.in_flight());
    }

    /// Waits for the answers to what is under way. Whether all have come.
    async fn drain(mut self) -> bool {
        let all = async {
            while self.desk.in_flight() + self.under_way > 0
                && let Some(done) = self.tasks.join_next().await
            {
                self.on_joined(done);
                self.carry_out();
            }
        };
        let is_done = tokio::time::timeout(DRAIN, all).await.is_ok();
        if !is_done {
            let writes = self.desk.in_flight() + self.under_way;
            tracing::warn!(writes, "writes and calls under way are given up");
        }
        // A release that was not confirmed may still take effect at its provider: there, too, nobody else may have
        // begun by then.
        is_done && !self.external.is_any_unconfirmed()
    }
}
