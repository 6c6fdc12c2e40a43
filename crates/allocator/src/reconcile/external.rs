//! IPAM providers in the loop: which calls are under way, what their answers change, and what of it stands in the
//! groups' statuses before and after.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{IpFamily, ServiceGroupStatus};
use ipam::StatsResponse;
use k8s_openapi::jiff::Timestamp;
use tonic::Status;

use super::{Done, Term};
use crate::{
    external::{
        Account, Action, Answer, Ask, External,
        account::Released,
        answer,
        client::{Allocated, Client, is_answer},
        provider::Provider,
        status::{self, Known, RECORD_LIMIT},
    },
    inputs::{Service, ServiceKey},
    metrics::{CallLabels, MethodLabels, PoolLabels},
    select::Problem,
    waiting::Wait,
};

/// How long between two polls of a pool's figures, and how soon after a change.
const STATS_INTERVAL: Duration = Duration::from_secs(30);
const STATS_SOON: Duration = Duration::from_secs(1);
/// Before a release that is refused is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// All external groups and their providers.
#[derive(Default)]
pub(super) struct Externals {
    groups: BTreeMap<Arc<str>, ExternalGroup>,
    /// By path.
    sockets: HashMap<Arc<str>, Socket>,
    /// Services whose accounts are to be looked at.
    touched: BTreeSet<ServiceKey>,
}

struct Socket {
    client: Client,
    provider: Provider,
}

/// A group that is external, or was and still has something to release.
#[derive(Default)]
struct ExternalGroup {
    /// What its spec says, or said when it was last external in this term.
    external: Option<External>,
    is_accepted: bool,
    accounts: BTreeMap<ServiceKey, Account>,
    /// Names that are surely written down.
    recorded: BTreeSet<ServiceKey>,
    /// Names in the status that is being written.
    sent: Option<BTreeSet<ServiceKey>>,
    stats: Option<StatsResponse>,
    stats_due: Option<Instant>,
    stats_in_flight: bool,
    is_tried: bool,
}

/// A call that has ended.
pub(super) struct Call {
    group: Arc<str>,
    socket: Arc<str>,
    started: Instant,
    result: CallResult,
}

enum CallResult {
    Allocate(ServiceKey, Ask, Allocated),
    Release(ServiceKey, Released, Result<(), Status>),
    Stats(Result<StatsResponse, Status>),
}

impl Externals {
    /// The accounts of this Service are to be looked at.
    pub(super) fn touch(&mut self, service: &ServiceKey) {
        if !self.groups.is_empty() {
            self.touched.insert(service.clone());
        }
    }

    /// All accounts are to be looked at.
    pub(super) fn touch_all(&mut self) {
        self.touched.extend(self.groups.values().flat_map(|group| group.accounts.keys().cloned()));
    }

    /// When something is due by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let probes = self.sockets.values().filter_map(|socket| socket.provider.next_probe());
        let polls = self.groups.values().filter(|group| group.is_accepted && !group.stats_in_flight);
        let is_open = |group: &&ExternalGroup| self.failure_of(group).is_none();
        probes.chain(polls.filter(is_open).filter_map(|group| group.stats_due)).min()
    }

    fn failure_of(&self, group: &ExternalGroup) -> Option<&str> {
        let external = group.external.as_ref()?;
        self.sockets.get(&external.socket)?.provider.failure()
    }

    /// Names of groups whose provider is at this socket.
    fn groups_of(&self, socket: &str) -> Vec<Arc<str>> {
        let is_there = |group: &ExternalGroup| group.external.as_ref().is_some_and(|e| &*e.socket == socket);
        self.groups.iter().filter(|(_, group)| is_there(group)).map(|(name, _)| name.clone()).collect()
    }
}

/// What a Service publishes of a group.
fn kept<'a>(service: &'a Service, group: &str) -> &'a [IpAddr] {
    let is_from = service.facts.brand.allocated_from.as_deref() == Some(group);
    if is_from { &service.facts.ingress } else { &[] }
}

fn key(name: &str) -> Option<ServiceKey> {
    let (namespace, name) = name.split_once('/')?;
    Some(ServiceKey::new(namespace, name))
}

impl Term {
    /// Takes over what the groups say about providers now.
    pub(super) fn judge_external(&mut self) {
        let Some(gate) = &self.gate else { return };
        let now = Instant::now();
        let mut new = Vec::new();
        for (name, entry) in &self.groups {
            let external = self.desk.groups().get(name).and_then(|group| group.external.clone());
            let records = &entry.record.status.external_services;
            let known = self.external.groups.contains_key(name);
            if external.is_none() && !known && records.is_empty() {
                continue;
            }
            let group = self.external.groups.entry(name.clone()).or_default();
            if !known {
                new.push(name.clone());
                group.recorded = records.iter().filter_map(|name| key(name)).collect();
                group.accounts = group.recorded.iter().map(|s| (s.clone(), Account::recorded())).collect();
                self.external.touched.extend(group.recorded.iter().cloned());
            }
            group.is_accepted = external.is_some();
            if external.is_some() && group.external != external {
                group.external = external;
                group.stats_due = Some(now);
                self.external.touched.extend(group.accounts.keys().cloned());
            }
            if let Some(external) = &group.external {
                let socket = || Socket {
                    client: Client::new(&external.socket, gate.clone()),
                    provider: Provider::default(),
                };
                self.external.sockets.entry(external.socket.clone()).or_insert_with(socket);
            }
        }
        for (name, group) in &mut self.external.groups {
            if !self.groups.contains_key(name) {
                // Nothing is written down any more; while this replica decides it is remembered here.
                group.is_accepted = false;
                group.recorded.clear();
            }
        }
        if self.is_listed() {
            self.adopt(&new);
        }
    }

    /// Opens accounts for what Services publish of these groups.
    fn adopt(&mut self, names: &[Arc<str>]) {
        if names.is_empty() {
            return;
        }
        for service in self.desk.services() {
            let from = service.facts.brand.allocated_from.as_ref();
            let Some(from) = from.filter(|from| names.contains(from) && !service.facts.ingress.is_empty())
            else {
                continue;
            };
            if let Some(group) = self.external.groups.get_mut(from) {
                let opened = || Account::publishing(service.created, &service.facts.ingress);
                group.accounts.entry(service.key.clone()).or_insert_with(opened);
                self.external.touched.insert(service.key.clone());
            }
        }
    }

    /// Everything is listed.
    pub(super) fn adopt_all(&mut self) {
        let names: Vec<Arc<str>> = self.external.groups.keys().cloned().collect();
        self.adopt(&names);
    }

    /// The Service wants something of a provider; it is decided about again with the answer.
    pub(super) fn ask(&mut self, service: &Service, ask: Ask) {
        match self.refusal_of(&service.key, &ask) {
            Some(problem) => {
                let answer = Answer { ask, given: Vec::new(), problem: Some(problem) };
                self.answered(&service.key, answer);
            }
            None => {
                for (name, group) in &mut self.external.groups {
                    if *name != ask.group
                        && let Some(account) = group.accounts.get_mut(&service.key)
                    {
                        account.wants_nothing();
                        account.decided();
                    }
                }
                let Some(group) = self.external.groups.get_mut(&ask.group) else { return };
                let account = group.accounts.entry(service.key.clone()).or_default();
                account.created = service.created;
                account.wants(ask);
                self.external.touch(&service.key);
            }
        }
    }

    /// Why a provider is not even asked.
    fn refusal_of(&self, service: &ServiceKey, ask: &Ask) -> Option<Problem> {
        let group = self.external.groups.get(&ask.group)?;
        let external = group.external.as_ref()?;
        if let Some(why) = self.external.failure_of(group) {
            return Some(answer::unwell(&ask.group, external, why));
        }
        let octets: usize = group.accounts.keys().map(|key| key.as_str().len() + 3).sum();
        if group.accounts.contains_key(service) || octets + service.as_str().len() < RECORD_LIMIT {
            return None;
        }
        let message = format!(
            "ServiceGroup {} serves {} Services, more than can be written down in its status: serve some from \
             another group",
            ask.group,
            group.accounts.len()
        );
        Some(Problem {
            reason: "group_full",
            message,
            wait: Some(Wait::Room(ask.group.clone(), IpFamily::IPv4)),
        })
    }

    fn answered(&mut self, service: &ServiceKey, answer: Answer) {
        self.desk.on_provided(service, answer);
    }

    /// The Service has been decided about, and that needs no provider.
    pub(super) fn decided_without_asking(&mut self, service: &ServiceKey) {
        for group in self.external.groups.values_mut() {
            if let Some(account) = group.accounts.get_mut(service) {
                account.wants_nothing();
                account.decided();
            }
        }
        self.external.touch(service);
    }

    /// Looks at the accounts that may have to act, begins calls and polls that are due.
    pub(super) fn advance_external(&mut self) {
        if self.writer.is_none() || self.external.groups.is_empty() {
            return;
        }
        for service in std::mem::take(&mut self.external.touched) {
            self.look_at_accounts(&service);
        }
        let sockets: Vec<Arc<str>> = self.external.sockets.keys().cloned().collect();
        for socket in sockets {
            while let Some(socket) = self.external.sockets.get_mut(&socket)
                && let Some((_, group, service)) = socket.provider.next_turn()
            {
                self.begin(&group, &service);
            }
        }
        self.begin_polls();
        let queued = self.external.sockets.values().map(|socket| socket.provider.queue_len()).sum::<usize>();
        self.surroundings.metrics.provider_queue.set(i64::try_from(queued).unwrap_or(i64::MAX));
        let is_over = |group: &ExternalGroup| !group.is_accepted && group.accounts.is_empty();
        let groups = &self.groups;
        self.external.groups.retain(|name, group| !is_over(group) || groups.contains_key(name));
    }

    fn look_at_accounts(&mut self, service: &ServiceKey) {
        let names: Vec<Arc<str>> = self.external.groups.keys().cloned().collect();
        for name in names {
            match self.next_action(&name, service) {
                None | Some(Action::Wait) => {}
                Some(Action::Record) => self.touch_group_now(&name),
                Some(Action::Close) => {
                    if let Some(group) = self.external.groups.get_mut(&name) {
                        group.accounts.remove(service);
                    }
                    self.touch_group(&name);
                }
                Some(Action::Allocate(_) | Action::Release(_)) => {
                    let Some(group) = self.external.groups.get(&name) else { continue };
                    let created = group.accounts.get(service).map_or(i64::MIN, |account| account.created);
                    let socket =
                        group.external.as_ref().and_then(|e| self.external.sockets.get_mut(&e.socket));
                    if let Some(socket) = socket {
                        socket.provider.enqueue((created, name, service.clone()));
                    }
                }
            }
        }
    }

    /// What comes next for a Service at a group's provider, as things are now.
    fn next_action(&mut self, group: &Arc<str>, service: &ServiceKey) -> Option<Action> {
        let group_entry = self.external.groups.get_mut(group)?;
        let known = self.desk.service(service);
        let published = known.map_or(&[][..], |known| kept(known, group));
        if !published.is_empty() && !group_entry.accounts.contains_key(service) {
            let created = known.map_or(i64::MIN, |known| known.created);
            group_entry.accounts.insert(service.clone(), Account::publishing(created, &[]));
        }
        let account = group_entry.accounts.get_mut(service)?;
        account.publishes(published);
        if known.is_none() {
            account.wants_nothing();
            account.decided();
        }
        let mut kept = published.to_vec();
        kept.extend(self.desk.may_publish(service).filter(|address| account.given().contains(address)));
        let is_certain = self.desk.is_settled(service);
        // A group that is gone has no status to write names into.
        let is_recorded = group_entry.recorded.contains(service) || !self.groups.contains_key(group);
        Some(account.next(is_certain.then_some(&kept), is_recorded))
    }

    /// Begins the next call for a Service at a group's provider.
    fn begin(&mut self, name: &Arc<str>, service: &ServiceKey) {
        let action = self.next_action(name, service);
        let Some(group) = self.external.groups.get_mut(name) else { return };
        let Some(socket) = group.external.as_ref().and_then(|e| self.external.sockets.get_mut(&e.socket))
        else {
            return;
        };
        let Some(account) = group.accounts.get_mut(service) else { return };
        let (client, name, service, started) =
            (socket.client.clone(), name.clone(), service.clone(), Instant::now());
        match action {
            Some(Action::Allocate(ask)) => {
                self.tasks.spawn(async move {
                    let allocated = client.allocate(service.as_str(), &ask).await;
                    let result = CallResult::Allocate(service, ask, allocated);
                    Done::External(Box::new(Call {
                        group: name,
                        socket: client.socket().clone(),
                        started,
                        result,
                    }))
                });
            }
            Some(Action::Release(released)) => {
                self.tasks.spawn(async move {
                    let answer = client.release(&name, service.as_str(), released).await;
                    let result = CallResult::Release(service, released, answer);
                    Done::External(Box::new(Call {
                        group: name,
                        socket: client.socket().clone(),
                        started,
                        result,
                    }))
                });
            }
            // What was to be done is not any more; what is instead is looked at.
            _ => {
                self.external.touch(&service);
                return;
            }
        }
        account.on_sent();
        socket.provider.on_sent();
    }

    /// Figures that are due, and probes of providers that did not answer.
    fn begin_polls(&mut self) {
        let now = Instant::now();
        let mut due: Vec<(Arc<str>, Client)> = Vec::new();
        let sockets: Vec<Arc<str>> = self.external.sockets.keys().cloned().collect();
        for path in sockets {
            let names = self.external.groups_of(&path);
            let Some(socket) = self.external.sockets.get_mut(&path) else { continue };
            if socket.provider.begins_probe(now) {
                due.extend(names.first().map(|name| (name.clone(), socket.client.clone())));
            } else if socket.provider.failure().is_none() {
                let is_due = |name: &&Arc<str>| {
                    self.external.groups.get(*name).is_some_and(|group| {
                        group.is_accepted
                            && !group.stats_in_flight
                            && group.stats_due.is_some_and(|due| due <= now)
                    })
                };
                due.extend(names.iter().filter(is_due).map(|name| (name.clone(), socket.client.clone())));
            }
        }
        for (name, client) in due {
            if let Some(group) = self.external.groups.get_mut(&name) {
                group.stats_in_flight = true;
                group.stats_due = None;
            }
            self.tasks.spawn(async move {
                let (started, answer) = (Instant::now(), client.stats(&name).await);
                let result = CallResult::Stats(answer);
                Done::External(Box::new(Call {
                    group: name,
                    socket: client.socket().clone(),
                    started,
                    result,
                }))
            });
        }
    }

    /// A call has ended.
    pub(super) fn on_call(&mut self, call: Call) {
        let Call { group, socket, started, result } = call;
        let (method, status) = match &result {
            CallResult::Allocate(_, _, allocated) => ("Allocate", allocated.status.as_ref()),
            CallResult::Release(_, _, answer) => ("Release", answer.as_ref().err()),
            CallResult::Stats(answer) => ("Stats", answer.as_ref().err()),
        };
        self.count(&socket, method, status, started);
        let failure = status.filter(|status| !is_answer(status)).map(answer::text);
        if let Some(entry) = self.external.groups.get_mut(&group)
            && !std::mem::replace(&mut entry.is_tried, true)
        {
            self.touch_group(&group);
        }
        match result {
            CallResult::Stats(answer) => self.on_stats(&group, &socket, answer, failure),
            CallResult::Allocate(service, ask, allocated) => {
                self.on_provider(&socket, failure.clone());
                self.on_allocated(&service, ask, allocated, failure.is_none());
            }
            CallResult::Release(service, released, answer) => {
                self.on_provider(&socket, failure);
                self.on_released(&group, &service, released, answer);
            }
        }
    }

    fn count(&self, socket: &Arc<str>, method: &'static str, status: Option<&Status>, started: Instant) {
        let metrics = &self.surroundings.metrics;
        let code = status.map_or("OK".to_owned(), |status| format!("{:?}", status.code()));
        let labels = CallLabels { socket: socket.to_string(), method, code };
        metrics.provider_calls.get_or_create(&labels).inc();
        let labels = MethodLabels { socket: socket.to_string(), method };
        metrics.provider_call_seconds.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    }

    /// What the end of a call says about its provider.
    fn on_provider(&mut self, path: &Arc<str>, failure: Option<String>) {
        let Some(socket) = self.external.sockets.get_mut(path) else { return };
        let why = failure.clone().unwrap_or_default();
        if socket.provider.on_done(failure, Instant::now(), rand::random_range(0.5..1.0)) {
            self.on_provider_gone(path, &why);
        }
    }

    /// Everybody who is about to ask is told at once.
    fn on_provider_gone(&mut self, path: &Arc<str>, why: &str) {
        tracing::warn!(socket = %path, why, "the IPAM provider does not serve");
        for name in self.external.groups_of(path) {
            self.touch_group(&name);
            let Some(group) = self.external.groups.get_mut(&name) else { continue };
            let Some(external) = group.external.clone() else { continue };
            let problem = answer::unwell(&name, &external, why);
            let mut refused = Vec::new();
            for (service, account) in &mut group.accounts {
                if let Some(ask) = account.pending().cloned() {
                    account.wants_nothing();
                    refused.push((account.created, service.clone(), ask));
                }
            }
            refused.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            for (_, service, ask) in refused {
                let answer = Answer { ask, given: Vec::new(), problem: Some(problem.clone()) };
                self.answered(&service, answer);
            }
        }
    }

    fn on_allocated(&mut self, service: &ServiceKey, ask: Ask, allocated: Allocated, is_fate_known: bool) {
        let held: Vec<IpAddr> =
            self.desk.service(service).map_or(Vec::new(), |known| kept(known, &ask.group).to_vec());
        let Some(group) = self.external.groups.get_mut(&ask.group) else { return };
        let (Some(external), Some(account)) = (group.external.as_ref(), group.accounts.get_mut(service))
        else {
            return;
        };
        let mut problem = allocated.status.as_ref().map(|status| answer::problem(&ask, external, status));
        let mut given = Vec::new();
        if problem.is_none() || !allocated.ips.is_empty() {
            match answer::check(&ask, &allocated.ips, &held, self.desk.groups()) {
                Ok(addresses) => given = addresses,
                Err(what) => {
                    // Whatever it has given has to go back.
                    let named = allocated.ips.iter().filter_map(|text| text.parse().ok());
                    account.publishes(&named.filter(|ip| !held.contains(ip)).collect::<Vec<IpAddr>>());
                    problem = Some(answer::unusable(&ask, external, &what));
                }
            }
        }
        if !given.is_empty() {
            tracing::info!(%service, group = %ask.group, addresses = ?given, "given by the IPAM provider");
            group.stats_due = group.stats_due.map(|due| due.min(Instant::now() + STATS_SOON));
        }
        let answer = Answer { ask, given, problem };
        let is_wanted = account.on_answer(&answer, is_fate_known);
        self.external.touch(service);
        if is_wanted {
            self.answered(service, answer);
        }
    }

    fn on_released(
        &mut self,
        name: &Arc<str>,
        service: &ServiceKey,
        released: Released,
        answer: Result<(), Status>,
    ) {
        let Some(group) = self.external.groups.get_mut(name) else { return };
        let Some(account) = group.accounts.get_mut(service) else { return };
        account.on_released(released, answer.is_ok());
        match answer {
            Ok(()) => {
                tracing::info!(%service, group = %name, ?released, "released at the IPAM provider");
                group.stats_due = group.stats_due.map(|due| due.min(Instant::now() + STATS_SOON));
                self.external.touch(service);
                self.wake_for_room(name);
            }
            Err(status) => {
                let why = answer::text(&status);
                tracing::warn!(%service, group = %name, ?released, why, "not released at the IPAM provider yet");
                let pause = FIRST_PAUSE.saturating_mul(1 << account.failures().min(6)).min(LAST_PAUSE);
                let pause = pause.mul_f64(rand::random_range(0.5..1.0));
                let service = service.clone();
                self.tasks.spawn(async move {
                    tokio::time::sleep(pause).await;
                    Done::Account(service)
                });
            }
        }
    }

    /// The pause of an account is over.
    pub(super) fn on_account(&mut self, service: &ServiceKey) {
        for group in self.external.groups.values_mut() {
            if let Some(account) = group.accounts.get_mut(service) {
                account.resume();
            }
        }
        self.external.touch(service);
    }

    fn on_stats(
        &mut self,
        name: &Arc<str>,
        path: &Arc<str>,
        answer: Result<StatsResponse, Status>,
        failure: Option<String>,
    ) {
        let now = Instant::now();
        let was_answering = self.external.sockets.get(path).is_some_and(|s| s.provider.failure().is_none());
        let why = failure.clone().unwrap_or_default();
        let is_back = match self.external.sockets.get_mut(path) {
            Some(socket) => socket.provider.on_stats(failure.clone(), now, rand::random_range(0.5..1.0)),
            None => false,
        };
        if let Some(group) = self.external.groups.get_mut(name) {
            group.stats_in_flight = false;
            group.stats_due = Some(now + STATS_INTERVAL.mul_f64(rand::random_range(0.75..1.0)));
            if failure.is_none() {
                let new = answer.ok();
                if group.stats != new {
                    group.stats = new;
                    self.touch_group(name);
                }
                self.wake_for_room(name);
            }
        }
        if was_answering && failure.is_some() {
            self.on_provider_gone(path, &why);
        } else if is_back {
            tracing::info!(socket = %path, "the IPAM provider serves again");
            let names = self.external.groups_of(path);
            let mut woken = Vec::new();
            for name in names {
                self.touch_group(&name);
                let waiting = self.desk.engine().waiting();
                woken.extend(waiting.on(&Wait::Provider(name.clone())));
                // What was refused may have been mended meanwhile.
                woken.extend(waiting.on(&Wait::Group(name)));
            }
            let created = |key: &ServiceKey| self.desk.service(key).map_or(0, |known| known.created);
            woken.sort_by_cached_key(|key| (created(key), key.clone()));
            self.desk.wake(woken, now);
        }
    }

    /// One address that may be free wakes one Service of each family.
    fn wake_for_room(&mut self, group: &Arc<str>) {
        let waiting = self.desk.engine().waiting();
        let families = [IpFamily::IPv4, IpFamily::IPv6].into_iter();
        let woken = families.filter_map(|family| waiting.next_on(&Wait::Room(group.clone(), family), None));
        let woken = woken.collect();
        self.desk.wake(woken, Instant::now());
    }

    /// What an external group's status says beyond that of others; what is to be written down is remembered.
    pub(super) fn fill_external(
        &mut self,
        name: &str,
        status: &mut ServiceGroupStatus,
        generation: Option<i64>,
    ) {
        let Some(group) = self.external.groups.get_mut(name) else { return };
        status.external_services = group.accounts.keys().map(|key| key.as_str().to_owned()).collect();
        group.sent = Some(group.accounts.keys().cloned().collect());
        let Some(external) = group.external.as_ref().filter(|_| group.is_accepted) else { return };
        let (mut held, mut namespaces) = ([BTreeSet::new(), BTreeSet::new()], BTreeSet::new());
        for service in group.accounts.keys() {
            let published = self.desk.service(service).map_or(&[][..], |known| kept(known, name));
            for address in published {
                held[usize::from(address.is_ipv6())].insert(*address);
                namespaces.insert(service.namespace().to_owned());
            }
        }
        let provider = self.external.sockets.get(&external.socket).map(|socket| &socket.provider);
        let failure = provider.and_then(Provider::failure);
        let known = Known {
            external,
            stats: group.stats.as_ref(),
            failure,
            is_tried: group.is_tried,
            held: held.map(|addresses| i64::try_from(addresses.len()).unwrap_or(i64::MAX)),
            namespaces,
        };
        status::fill(status, known, generation, Timestamp::now());
        let metrics = &self.surroundings.metrics;
        let labels = PoolLabels { pool: name.to_owned() };
        metrics.provider_ready.get_or_create(&labels).set(i64::from(failure.is_none()));
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        if let Some(stats) = &group.stats {
            let sum = |a: u64, b: u64| a as f64 + b as f64;
            metrics.pool_size.get_or_create(&labels).set(sum(stats.size_v4, stats.size_v6));
            metrics.addresses_in_use.get_or_create(&labels).set(sum(stats.in_use_v4, stats.in_use_v6));
        }
    }

    /// The status with the names that [`Term::fill_external`] has put into it is written, or was so already.
    pub(super) fn on_recorded(&mut self, name: &str, is_written: bool) {
        let Some(group) = self.external.groups.get_mut(name) else { return };
        let Some(sent) = group.sent.take().filter(|_| is_written) else { return };
        self.external.touched.extend(sent.difference(&group.recorded).cloned());
        group.recorded = sent;
        // Names that have come meanwhile are written down with the next status.
        if group.accounts.keys().any(|service| !group.recorded.contains(service)) {
            self.touch_group_now(name);
        }
    }
}
