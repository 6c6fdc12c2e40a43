//! IPAM providers in the loop: which accounts there are, and what is done for them; [`calls`] begins calls,
//! [`answers`] says what their ends change, [`record`] what of it stands in the groups' statuses before and after.

mod answers;
mod calls;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use api::IpFamily;
use ipam::StatsResponse;
use tonic::Status;

use super::Term;
use crate::{
    external::{
        Account, Action, Answer, Ask, External,
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
        self.touched.extend(self.groups.values().flat_map(|group| group.accounts.keys().cloned()));
    }

    /// Whether a release may still take effect.
    pub(super) fn is_any_unconfirmed(&self) -> bool {
        let mut accounts = self.groups.values().flat_map(|group| group.accounts.values());
        accounts.any(Account::is_unconfirmed)
    }

    fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.sockets.is_empty()
    }

    /// A socket that no group names any more is forgotten with all that it was like: there would be no group to probe
    /// it with, and who names it again finds it as if it were new.
    fn drop_unused_sockets(&mut self) {
        let Externals { groups, sockets, .. } = self;
        let is_at =
            |group: &ExternalGroup, path: &Word| group.external.as_ref().is_some_and(|e| e.socket == *path);
        sockets.retain(|path, _| groups.values().any(|group| is_at(group, path)));
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
    fn groups_of(&self, socket: &str) -> Vec<Word> {
        let is_there = |group: &ExternalGroup| group.external.as_ref().is_some_and(|e| &*e.socket == socket);
        self.groups.iter().filter(|(_, group)| is_there(group)).map(|(name, _)| name.clone()).collect()
    }
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
                let opened = || Account::publishing(service.created, &service.facts.ingress);
                group.accounts.entry(service.key.clone()).or_insert_with(opened);
                self.external.touched.insert(service.key.clone());
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
        if self.writer.is_none() || self.external.is_empty() {
            return;
        }
        for service in std::mem::take(&mut self.external.touched) {
            self.look_at_accounts(&service);
        }
        let sockets: Vec<Word> = self.external.sockets.keys().cloned().collect();
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
        self.external.drop_unused_sockets();
    }

    fn look_at_accounts(&mut self, service: &ServiceKey) {
        let names: Vec<Word> = self.external.groups.keys().cloned().collect();
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
    fn next_action(&mut self, group: &Word, service: &ServiceKey) -> Option<Action> {
        let group_entry = self.external.groups.get_mut(group)?;
        let is_publishing = !self.desk.published(service, group).is_empty();
        if is_publishing && !group_entry.accounts.contains_key(service) {
            let created = self.desk.service(service).map_or(i64::MIN, |known| known.created);
            group_entry.accounts.insert(service.clone(), Account::publishing(created, &[]));
        }
        let account = group_entry.accounts.get_mut(service)?;
        // A group that is gone has no status to write names into.
        let is_recorded = group_entry.recorded.contains(service) || !self.groups.contains_key(group);
        Some(self.desk.next_action(service, group, account, is_recorded))
    }
}
