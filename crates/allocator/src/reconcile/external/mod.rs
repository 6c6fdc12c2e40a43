//! IPAM providers in the loop: which accounts there are, and what is done for them; [`calls`] begins calls,
//! [`answers`] says what their ends change, [`record`] what of it stands in the groups' statuses before and after.

mod answers;
mod calls;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use api::{IpFamily, ServiceGroupStatus};
use ipam::StatsResponse;
use tonic::Status;

use super::Term;
use crate::{
    external::{
        Account, Action, Answer, Ask, Books, External,
        account::Released,
        answer,
        client::{Allocated, Client},
        provider::Provider,
        status::RECORD_LIMIT,
    },
    inputs::{Service, ServiceKey, Word},
    select::Problem,
    waiting::Wait,
};

/// All external groups and their providers.
#[derive(Default)]
pub(super) struct Externals {
    groups: BTreeMap<Word, ExternalGroup>,
    /// By path.
    sockets: HashMap<Word, Socket>,
    /// Services whose accounts are to be looked at.
    touched: BTreeSet<ServiceKey>,
}

struct Socket {
    client: Client,
    provider: Provider,
    /// Groups have had it before, and whether it is there has still to be seen.
    is_probe_due: bool,
}

/// A group that is external, or was and still has something to release.
#[derive(Default)]
struct ExternalGroup {
    /// What its spec says, or said when it was last external in this term.
    external: Option<External>,
    is_accepted: bool,
    books: Books,
    /// Names that are surely written down, with the socket of the books.
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
    group: Word,
    socket: Word,
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
        let accounts = self.groups.values().flat_map(|group| group.books.all());
        self.touched.extend(accounts.map(|(service, _)| service.clone()));
    }

    /// Whether a release may still take effect.
    pub(super) fn is_any_unconfirmed(&self) -> bool {
        let mut accounts = self.groups.values().flat_map(|group| group.books.all());
        accounts.any(|(_, account)| account.is_unconfirmed())
    }

    fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.sockets.is_empty()
    }

    /// A socket that no group names any more is forgotten with all that it was like: there would be no group to probe
    /// it with, and who names it again finds it as if it were new.
    fn drop_unused_sockets(&mut self) {
        let Externals { groups, sockets, .. } = self;
        sockets.retain(|path, _| groups.values().any(|group| group.books.sockets().any(|at| at == path)));
    }

    /// When something is due by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let probes = self.sockets.values().filter_map(|socket| socket.provider.next_probe());
        let polls = self.groups.values().filter(|group| group.is_accepted && !group.stats_in_flight);
        let is_open = |group: &&ExternalGroup| self.failure_of(group).is_none();
        probes.chain(polls.filter(is_open).filter_map(|group| group.stats_due)).min()
    }

    fn failure_of(&self, group: &ExternalGroup) -> Option<&str> {
        self.sockets.get(group.books.socket()?)?.provider.failure()
    }

    /// Names of groups whose provider is at this socket.
    fn groups_of(&self, socket: &str) -> Vec<Word> {
        let there = self.groups.iter().filter(|(_, group)| group.books.is_at(socket));
        there.map(|(name, _)| name.clone()).collect()
    }

    /// Names of groups whose provider is at this socket or has been.
    fn concerned_by(&self, socket: &str) -> Vec<Word> {
        let is_concerned = |group: &ExternalGroup| group.books.sockets().any(|at| **at == *socket);
        self.groups.iter().filter(|(_, group)| is_concerned(group)).map(|(name, _)| name.clone()).collect()
    }
}

impl ExternalGroup {
    /// Another provider, or none: what was known of the one before is of no worth any more.
    fn on_moved(&mut self, now: Instant) {
        self.recorded.clear();
        self.sent = None;
        self.stats = None;
        (self.stats_in_flight, self.is_tried) = (false, false);
        self.stats_due = self.books.socket().map(|_| now);
    }
}

impl Term {
    /// Takes over what the groups say about providers now.
    pub(super) fn judge_external(&mut self) {
        if self.gate.is_none() {
            return;
        }
        let mut new = Vec::new();
        let names: Vec<Word> = self.groups.keys().cloned().collect();
        for name in names {
            let accepted = self.desk.groups().get(&name);
            let (is_accepted, external) =
                (accepted.is_some(), accepted.and_then(|group| group.external.clone()));
            let status = self.groups.get(&name).map(|entry| &entry.record.status);
            let is_known = self.external.groups.contains_key(&name);
            let has_record =
                status.is_some_and(|s| !s.external_services.is_empty() || !s.former_providers.is_empty());
            if external.is_none() && !is_known && !has_record {
                continue;
            }
            if !is_known {
                let status = status.cloned().unwrap_or_default();
                let group = restored(&status, external.as_ref());
                self.external.touched.extend(group.books.all().map(|(service, _)| service.clone()));
                self.external.groups.insert(name.clone(), group);
                new.push(name.clone());
            }
            // A group that is refused has the provider that it had, for releases.
            if is_accepted {
                self.take_over_provider(&name, external.as_ref());
            }
            if let Some(group) = self.external.groups.get_mut(&name) {
                group.is_accepted = external.is_some();
                group.external = external.or(group.external.take());
            }
        }
        for (name, group) in &mut self.external.groups {
            if !self.groups.contains_key(name) {
                // Nothing is written down any more; while this replica decides it is remembered here.
                group.is_accepted = false;
                group.recorded.clear();
            }
        }
        self.open_sockets();
        if self.is_listed() {
            self.adopt(&new);
        }
    }

    /// The accepted group names this provider, or none.
    fn take_over_provider(&mut self, name: &Word, external: Option<&External>) {
        let Some(group) = self.external.groups.get_mut(name) else { return };
        let desk = &self.desk;
        let published = |service: &ServiceKey| desk.published(service, name).to_vec();
        let old = group.books.socket().cloned();
        if group.books.move_to(external.map(|external| &external.socket), published) {
            tracing::info!(
                group = %name,
                from = old.as_deref(),
                to = external.map(|external| &*external.socket),
                "the ServiceGroup has another IPAM provider"
            );
            group.on_moved(Instant::now());
            self.external.touched.extend(group.books.all().map(|(service, _)| service.clone()));
            if let Some(socket) = old.and_then(|path| self.external.sockets.get_mut(&path)) {
                socket.is_probe_due = true;
            }
            // Names have to be written down before the new provider is asked.
            self.touch_group_now(name);
        } else if external.is_some() && group.external.as_ref() != external {
            group.stats_due = Some(Instant::now());
        }
    }

    /// Clients of all providers that groups have or had.
    fn open_sockets(&mut self) {
        let Some(gate) = &self.gate else { return };
        let Externals { groups, sockets, .. } = &mut self.external;
        for group in groups.values() {
            for path in group.books.sockets() {
                let is_former = !group.books.is_at(path);
                let open = || Socket {
                    client: Client::new(path, gate.clone()),
                    provider: Provider::default(),
                    is_probe_due: is_former,
                };
                sockets.entry(path.clone()).or_insert_with(open);
            }
        }
    }

    /// Somebody has taken these former providers out of the group's status: nothing is owed there any more.
    pub(super) fn forget_former(&mut self, name: &str, old: &ServiceGroupStatus, new: &ServiceGroupStatus) {
        let Some(group) = self.external.groups.get_mut(name) else { return };
        let is_there = |socket: &str| new.former_providers.iter().any(|provider| provider.socket == socket);
        for provider in old.former_providers.iter().filter(|provider| !is_there(&provider.socket)) {
            if group.books.forget(&provider.socket) {
                let socket = &provider.socket;
                tracing::warn!(
                    group = name,
                    socket,
                    "releases that were owed to a former IPAM provider are given up"
                );
            }
        }
    }

    /// Opens accounts for what Services publish of these groups.
    fn adopt(&mut self, names: &[Word]) {
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
                group.books.adopt(service);
                self.external.touched.insert(service.key.clone());
            }
        }
        for name in names {
            if let Some(group) = self.external.groups.get_mut(name) {
                group.books.end_adoption();
            }
        }
    }

    /// Everything is listed.
    pub(super) fn adopt_all(&mut self) {
        let names: Vec<Word> = self.external.groups.keys().cloned().collect();
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
                self.wants_nothing(&service.key, Some(&ask.group));
                let Some(group) = self.external.groups.get_mut(&ask.group) else { return };
                let account = group.books.current_mut().entry(service.key.clone()).or_default();
                account.created = service.created;
                account.wants(ask);
                self.external.touch(&service.key);
            }
        }
    }

    /// It is decided about, and wants nothing of anybody but the provider of this group.
    fn wants_nothing(&mut self, service: &ServiceKey, except: Option<&Word>) {
        for (name, group) in &mut self.external.groups {
            for account in group.books.of(service) {
                if Some(name) != except {
                    account.wants_nothing();
                }
                account.decided();
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
        let octets = group.books.recorded_len();
        if group.books.current().contains_key(service) || octets + service.as_str().len() < RECORD_LIMIT {
            return None;
        }
        let message = format!(
            "ServiceGroup {} serves {} Services, more than can be written down in its status: serve some from \
             another group",
            ask.group,
            group.books.current().len()
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
        self.wants_nothing(service, None);
        self.external.touch(service);
    }

    /// Looks at the accounts that may have to act, begins calls and polls that are due.
    pub(super) fn advance_external(&mut self) {
        if self.writer.is_none() || self.external.is_empty() {
            return;
        }
        for service in std::mem::take(&mut self.external.touched) {
            self.look_at_accounts(&service);
        }
        let sockets: Vec<Word> = self.external.sockets.keys().cloned().collect();
        for path in sockets {
            while let Some(socket) = self.external.sockets.get_mut(&path)
                && let Some((_, group, service)) = socket.provider.next_turn()
            {
                self.begin(&path, &group, &service);
            }
        }
        self.begin_polls();
        let queued = self.external.sockets.values().map(|socket| socket.provider.queue_len()).sum::<usize>();
        self.surroundings.metrics.provider_queue.set(i64::try_from(queued).unwrap_or(i64::MAX));
        let is_over = |group: &ExternalGroup| !group.is_accepted && group.books.is_empty();
        let groups = &self.groups;
        self.external.groups.retain(|name, group| !is_over(group) || groups.contains_key(name));
        self.external.drop_unused_sockets();
    }

    fn look_at_accounts(&mut self, service: &ServiceKey) {
        let places =
            self.external.groups.iter().flat_map(|(name, group)| {
                group.books.sockets().map(move |path| (name.clone(), path.clone()))
            });
        for (name, path) in places.collect::<Vec<(Word, Word)>>() {
            match self.next_action(&name, &path, service) {
                None | Some(Action::Wait) => {}
                Some(Action::Record) => self.touch_group_now(&name),
                Some(Action::Close) => {
                    if let Some(group) = self.external.groups.get_mut(&name) {
                        group.books.close(&path, service);
                    }
                    self.touch_group(&name);
                }
                Some(Action::Allocate(_) | Action::Release(_)) => {
                    let Some(group) = self.external.groups.get_mut(&name) else { continue };
                    let account = group.books.at_mut(&path).and_then(|accounts| accounts.get(service));
                    let created = account.map_or(i64::MIN, |account| account.created);
                    if let Some(socket) = self.external.sockets.get_mut(&path) {
                        socket.provider.enqueue((created, name, service.clone()));
                    }
                }
            }
        }
    }

    /// What comes next for a Service at a provider that a group has or had, as things are now.
    fn next_action(&mut self, group: &Word, path: &Word, service: &ServiceKey) -> Option<Action> {
        let entry = self.external.groups.get_mut(group)?;
        if !entry.books.is_at(path) {
            let account = entry.books.at_mut(path)?.get_mut(service)?;
            return Some(self.desk.next_action_at_former(service, group, account));
        }
        let is_publishing = !self.desk.published(service, group).is_empty();
        if is_publishing && !entry.books.current().contains_key(service) {
            let created = self.desk.service(service).map_or(i64::MIN, |known| known.created);
            let account = Account::publishing(created, &[]);
            entry.books.current_mut().insert(service.clone(), account);
        }
        let account = entry.books.current_mut().get_mut(service)?;
        // A group that is gone has no status to write names into.
        let is_recorded = entry.recorded.contains(service) || !self.groups.contains_key(group);
        Some(self.desk.next_action(service, group, account, is_recorded))
    }
}

/// What a group's status says of its providers, at the beginning of a term.
fn restored(status: &ServiceGroupStatus, external: Option<&External>) -> ExternalGroup {
    let books = Books::restore(status, external.map(|external| &external.socket));
    let socket = books.socket().map(|path| path.to_string());
    let is_same = status.external_socket.is_none() || status.external_socket == socket;
    let recorded = books.current().keys().filter(|_| is_same).cloned().collect();
    ExternalGroup { books, recorded, stats_due: external.map(|_| Instant::now()), ..ExternalGroup::default() }
}
