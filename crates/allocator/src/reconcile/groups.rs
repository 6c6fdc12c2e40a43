//! ServiceGroups in the loop: judged together when one changes; their status written when it differs, at most once
//! a second each.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use api::ServiceGroupStatus;
use k8s_openapi::jiff::Timestamp;

use super::{Done, Term};
use crate::{
    apply::GroupWritten,
    desk::is_older,
    group_status,
    inputs::{Groups, Word},
    metrics::{OutcomeLabels, PoolLabels},
    stores::GroupRecord,
};

/// At least so long between two writes of one group's status; after a failure twice as long each time.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// A ServiceGroup and what is going on with it.
pub(super) struct GroupEntry {
    pub(super) record: GroupRecord,
    /// When its status is to be looked at; `None`: nothing has changed.
    due: Option<Instant>,
    last: Option<Instant>,
    in_flight: bool,
    /// Writes in a row that have failed.
    failures: u32,
}

impl GroupEntry {
    fn new(record: GroupRecord) -> GroupEntry {
        GroupEntry { record, due: Some(Instant::now()), last: None, in_flight: false, failures: 0 }
    }

    fn touch(&mut self) {
        let pause = STATUS_INTERVAL.saturating_mul(1 << self.failures.min(6)).min(LAST_RETRY);
        let due = self.last.map_or_else(Instant::now, |last| last + pause);
        self.due = self.due.or(Some(due));
    }
}

impl Term {
    pub(super) fn on_groups(&mut self, records: Vec<GroupRecord>) {
        let mut old = std::mem::take(&mut self.groups);
        for record in records {
            let name = record.object.name.clone();
            let entry = match old.remove(&name) {
                Some(entry) if is_older(&record.version, &entry.record.version) => entry,
                Some(entry) => GroupEntry { record, due: Some(Instant::now()), ..entry },
                None => GroupEntry::new(record),
            };
            self.groups.insert(name, entry);
        }
        for name in old.keys() {
            self.remove_metrics(name);
        }
        self.groups_listed = true;
        self.judge_groups();
    }

    pub(super) fn on_group(&mut self, record: GroupRecord) {
        let name = record.object.name.clone();
        let Some(entry) = self.groups.get_mut(&name) else {
            self.groups.insert(name, GroupEntry::new(record));
            self.judge_groups();
            return;
        };
        if is_older(&record.version, &entry.record.version) {
            // From before our own last write.
            return;
        }
        let is_judged = entry.record.object == record.object;
        let is_same = is_judged && entry.record.generation == record.generation;
        let has_other_status = entry.record.status != record.status;
        let old = std::mem::replace(&mut entry.record, record);
        let is_others = has_other_status && !entry.in_flight;
        if !is_same || has_other_status {
            entry.touch();
        }
        if is_others && let Some(new) = self.groups.get(&name).map(|entry| entry.record.status.clone()) {
            self.forget_former(&name, &old.status, &new);
        }
        if !is_judged {
            self.judge_groups();
        }
    }

    pub(super) fn on_group_gone(&mut self, name: &str) {
        self.groups.remove(name);
        self.remove_metrics(name);
        self.judge_groups();
    }

    /// What the groups' status says is reserved, at the beginning of a term.
    pub(super) fn restore_reservations(&mut self) {
        let statuses = self.groups.values().map(|entry| &entry.record.status);
        let reservations: Vec<_> = statuses.flat_map(group_status::reservations).collect();
        self.on_time();
        self.desk.restore(reservations);
    }

    fn judge_groups(&mut self) {
        if !self.groups_listed {
            return;
        }
        let groups = Groups::new(self.groups.values().map(|entry| &entry.record.object));
        for (name, entry) in &mut self.groups {
            entry.touch();
            match groups.refusal(name) {
                Some(refusal) if self.desk.groups().refusal(name) != Some(refusal) => {
                    tracing::warn!(group = %name, %refusal, "ServiceGroup refused");
                }
                None if self.desk.groups().get(name) != groups.get(name) => {
                    tracing::info!(group = %name, "ServiceGroup accepted");
                }
                _ => {}
            }
        }
        self.desk.set_groups(groups, Instant::now());
        self.judge_external();
    }

    /// The group has other figures now.
    pub(super) fn touch_group(&mut self, name: &str) {
        if let Some(entry) = self.groups.get_mut(name) {
            entry.touch();
        }
    }

    /// Somebody waits until the group's status is written.
    pub(super) fn touch_group_now(&mut self, name: &str) {
        if let Some(entry) = self.groups.get_mut(name) {
            entry.due = Some(Instant::now());
        }
    }

    /// The groups of these addresses have other figures now.
    pub(super) fn touch_groups(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            if let Some(group) = self.desk.groups().of_address(*address)
                && let Some(entry) = self.groups.get_mut(&group.name)
            {
                entry.touch();
            }
        }
    }

    /// When the next status is to be looked at.
    pub(super) fn next_group_status(&self) -> Option<Instant> {
        let waiting = self.groups.values().filter(|entry| !entry.in_flight);
        waiting.filter_map(|entry| entry.due).min()
    }

    pub(super) fn write_group_statuses(&mut self) {
        let now = Instant::now();
        let due = self.groups.iter().filter(|(_, e)| !e.in_flight && e.due.is_some_and(|due| due <= now));
        let due: Vec<Word> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            self.write_group_status(name, now);
        }
    }

    fn write_group_status(&mut self, name: Word, now: Instant) {
        let (groups, ledger) = (self.desk.groups(), self.desk.ledger());
        // Of two replicas only the one that decides tells: their sum would count everything twice.
        let Some(writer) = self.writer.clone() else {
            if let Some(entry) = self.groups.get_mut(&name) {
                (entry.due, entry.last) = (None, Some(now));
            }
            return;
        };
        if let Some(group) = groups.get(&name) {
            let (size, held) = group_status::usage(group, ledger);
            let labels = PoolLabels { pool: name.to_string() };
            self.surroundings.metrics.pool_size.get_or_create(&labels).set(size);
            self.surroundings.metrics.addresses_in_use.get_or_create(&labels).set(held);
        } else {
            self.remove_metrics(&name);
        }
        let Some(entry) = self.groups.get_mut(&name) else { return };
        entry.due = None;
        entry.last = Some(now);
        // An object that cannot be read has no status that could be compared: it is written once a change.
        let GroupRecord { generation, status: old, .. } = &entry.record;
        let mut new = group_status::status(&name, *generation, old, self.desk.engine(), Timestamp::now());
        let (generation, old) = (*generation, old.clone());
        self.fill_external(&name, &mut new, generation);
        let Some(patch) = group_status::patch(&old, &new) else {
            self.on_recorded(&name, true);
            return;
        };
        let Some(entry) = self.groups.get_mut(&name) else { return };
        entry.in_flight = true;
        entry.record.status = new;
        let version = entry.record.version.clone();
        let namespace = self.surroundings.settings.namespace.clone();
        self.under_way += 1;
        self.tasks.spawn(async move {
            let written = writer.group_status(&namespace, &name, &version, patch).await;
            Done::Group(name, version, Box::new(old), written)
        });
    }

    /// What became of a write that was conditional on a version of the group with this status.
    pub(super) fn on_group_written(
        &mut self,
        name: &str,
        version: &str,
        old: ServiceGroupStatus,
        written: GroupWritten,
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        let labels = OutcomeLabels { outcome: written.outcome() };
        self.surroundings.metrics.group_writes.get_or_create(&labels).inc();
        let Some(entry) = self.groups.get_mut(name) else { return };
        entry.in_flight = false;
        let is_latest = entry.record.version == version;
        let is_written = matches!(written, GroupWritten::Done(_));
        match written {
            GroupWritten::Done(version) => {
                entry.failures = 0;
                if is_latest {
                    entry.record.version = version;
                }
            }
            GroupWritten::Conflict => {
                // What was there first is on its way, or here already.
                if is_latest {
                    entry.record.status = old;
                }
                entry.touch();
            }
            GroupWritten::Failed(error) | GroupWritten::Forbidden(error) => {
                tracing::warn!(group = name, error, "status of the ServiceGroup not written");
                entry.failures = entry.failures.saturating_add(1);
                // Whether it was applied the next list or change says; if it was, the repetition is refused.
                if is_latest {
                    entry.record.status = old;
                }
                entry.touch();
            }
        }
        self.on_recorded(name, is_written);
    }

    fn remove_metrics(&self, name: &str) {
        let labels = PoolLabels { pool: name.to_owned() };
        self.surroundings.metrics.pool_size.remove(&labels);
        self.surroundings.metrics.addresses_in_use.remove(&labels);
        self.surroundings.metrics.provider_ready.remove(&labels);
    }
}
