//! Calls that have ended, and what their answers change.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use api::IpFamily;
use ipam::StatsResponse;
use tonic::Status;

use super::{
    super::{Done, Term},
    Call, CallResult, Socket,
};
use crate::{
    external::{
        Account, Answer, Ask,
        account::Released,
        answer,
        client::{Allocated, is_answer, is_unsent},
    },
    inputs::{ServiceKey, Word},
    metrics::{CallLabels, MethodLabels},
    waiting::Wait,
};

/// How long between two polls of a pool's figures, and how soon after a change.
const STATS_INTERVAL: Duration = Duration::from_secs(30);
const STATS_SOON: Duration = Duration::from_secs(1);
/// Before a release that is refused is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

impl Term {
    /// A call has ended.
    pub(in crate::reconcile) fn on_call(&mut self, call: Call) {
        let Call { group, socket, started, result } = call;
        let (method, status) = match &result {
            CallResult::Allocate(_, _, allocated) => ("Allocate", allocated.status.as_ref()),
            CallResult::Release(_, _, answer) => ("Release", answer.as_ref().err()),
            CallResult::Stats(answer) => ("Stats", answer.as_ref().err()),
        };
        self.count(&socket, method, status, started);
        let failure = status.filter(|status| !is_answer(status)).map(answer::text);
        if let Some(entry) = self.external.groups.get_mut(&group)
            && entry.books.is_at(&socket)
            && !std::mem::replace(&mut entry.is_tried, true)
        {
            self.touch_group(&group);
        }
        if !matches!(result, CallResult::Stats(_)) {
            self.under_way = self.under_way.saturating_sub(1);
        }
        match result {
            CallResult::Stats(answer) => self.on_stats(&group, &socket, answer, failure),
            CallResult::Allocate(service, ask, allocated) => {
                self.on_provider(&socket, failure);
                self.on_allocated(&service, &socket, ask, allocated);
            }
            CallResult::Release(service, released, answer) => {
                self.on_provider(&socket, failure);
                self.on_released(&group, &socket, &service, released, answer);
            }
        }
    }

    fn count(&self, socket: &Word, method: &'static str, status: Option<&Status>, started: Instant) {
        let metrics = &self.surroundings.metrics;
        let code = status.map_or("OK".to_owned(), |status| format!("{:?}", status.code()));
        let labels = CallLabels { socket: socket.to_string(), method, code };
        metrics.provider_calls.get_or_create(&labels).inc();
        let labels = MethodLabels { socket: socket.to_string(), method };
        metrics.provider_call_seconds.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    }

    /// What the end of a call says about its provider.
    fn on_provider(&mut self, path: &Word, failure: Option<String>) {
        let Some(socket) = self.external.sockets.get_mut(path) else { return };
        let why = failure.clone().unwrap_or_default();
        if socket.provider.on_done(failure, Instant::now(), rand::random_range(0.5..1.0)) {
            self.on_provider_gone(path, &why);
        }
    }

    /// Everybody who is about to ask is told at once.
    fn on_provider_gone(&mut self, path: &Word, why: &str) {
        tracing::warn!(socket = %path, why, "the IPAM provider does not serve");
        self.touch_concerned(path);
        for name in self.external.groups_of(path) {
            let Some(group) = self.external.groups.get_mut(&name) else { continue };
            let Some(external) = group.external.clone() else { continue };
            let problem = answer::unwell(&name, &external, why);
            let mut refused = Vec::new();
            for (service, account) in group.books.current_mut() {
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

    /// The status of groups that have this provider, or had it, says something else.
    fn touch_concerned(&mut self, path: &Word) {
        for name in self.external.concerned_by(path) {
            self.touch_group(&name);
        }
    }

    fn on_allocated(&mut self, service: &ServiceKey, socket: &Word, ask: Ask, allocated: Allocated) {
        let is_fate_known = allocated.status.as_ref().is_none_or(is_answer);
        let held: Vec<IpAddr> = self.desk.published(service, &ask.group).to_vec();
        let Some(group) = self.external.groups.get_mut(&ask.group) else { return };
        let is_current = group.books.is_at(socket);
        let Some(external) = group.external.as_ref() else { return };
        let Some(account) = group.books.at_mut(socket).and_then(|accounts| accounts.get_mut(service)) else {
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
            tracing::info!(%service, group = %ask.group, %socket, addresses = ?given, "given by the IPAM provider");
        }
        if !given.is_empty() && is_current {
            group.stats_due = group.stats_due.map(|due| due.min(Instant::now() + STATS_SOON));
        }
        let answer = Answer { ask, given, problem };
        // Where the group has another provider now, that one is asked; what this one has given goes back.
        let is_wanted = account.on_answer(&answer, is_fate_known);
        self.external.touch(service);
        if is_wanted {
            self.answered(service, answer);
        }
    }

    fn on_released(
        &mut self,
        name: &Word,
        socket: &Word,
        service: &ServiceKey,
        released: Released,
        answer: Result<(), Status>,
    ) {
        let Some(group) = self.external.groups.get_mut(name) else { return };
        let is_current = group.books.is_at(socket);
        let Some(account) = group.books.at_mut(socket).and_then(|accounts| accounts.get_mut(service)) else {
            return;
        };
        let is_freed = match &answer {
            Err(status) if is_unsent(status) => {
                account.on_unsent();
                false
            }
            answer => account.on_released(released, answer.is_ok()),
        };
        match answer {
            Ok(()) => {
                tracing::info!(%service, group = %name, %socket, ?released, "released at the IPAM provider");
                // After the poll whoever waits for room asks again; where nothing was freed that would never end.
                let is_freed = is_freed && is_current;
                let soon = is_freed.then(|| Instant::now() + STATS_SOON);
                group.stats_due = group.stats_due.map(|due| soon.map_or(due, |soon| due.min(soon)));
                self.external.touch(service);
                if !is_current {
                    self.touch_group(name);
                }
                if is_freed {
                    self.wake_for_room(name);
                }
            }
            Err(status) => {
                let why = answer::text(&status);
                tracing::warn!(%service, group = %name, %socket, ?released, why, "not released at the IPAM provider yet");
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
    pub(in crate::reconcile) fn on_account(&mut self, service: &ServiceKey) {
        for group in self.external.groups.values_mut() {
            group.books.of(service).for_each(Account::resume);
        }
        self.external.touch(service);
    }

    fn on_stats(
        &mut self,
        name: &Word,
        path: &Word,
        answer: Result<StatsResponse, Status>,
        failure: Option<String>,
    ) {
        let now = Instant::now();
        let Some(Socket { provider, .. }) = self.external.sockets.get_mut(path) else { return };
        let was_answering = provider.failure().is_none();
        let is_back = provider.on_stats(failure.clone(), now, rand::random_range(0.5..1.0));
        let retries_refused = provider.retries_refused(now);
        if let Some(group) = self.external.groups.get_mut(name)
            && group.books.is_at(path)
        {
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
        match failure {
            Some(why) if was_answering => self.on_provider_gone(path, &why),
            _ if is_back => {
                tracing::info!(socket = %path, "the IPAM provider serves again");
                self.wake_for_provider(path);
            }
            // What was refused may have been mended meanwhile.
            _ if retries_refused => self.wake_for_provider(path),
            _ => {}
        }
    }

    /// Everybody who waits for this provider, or for it to change its mind, oldest first.
    fn wake_for_provider(&mut self, path: &Word) {
        let mut woken = Vec::new();
        self.touch_concerned(path);
        for name in self.external.groups_of(path) {
            let waiting = self.desk.engine().waiting();
            woken.extend(waiting.on(&Wait::Provider(name.clone())));
            woken.extend(waiting.on(&Wait::Group(name)));
        }
        let created = |key: &ServiceKey| self.desk.service(key).map_or(0, |known| known.created);
        woken.sort_by_cached_key(|key| (created(key), key.clone()));
        self.desk.wake(woken, Instant::now());
    }

    /// One address that may be free wakes one Service of each family.
    fn wake_for_room(&mut self, group: &Word) {
        let waiting = self.desk.engine().waiting();
        let families = [IpFamily::IPv4, IpFamily::IPv6].into_iter();
        let woken = families.filter_map(|family| waiting.next_on(&Wait::Room(group.clone(), family), None));
        let woken = woken.collect();
        self.desk.wake(woken, Instant::now());
    }
}
