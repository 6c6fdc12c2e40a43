//! Answers of the API server to writes.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Desk, Effect, Order,
    entry::{Behind, is_older},
};
use crate::{
    inputs::{Service, ServiceKey},
    select::Problem,
};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// After so many attempts that the API server has answered with an error of its own the owner is told.
const TOLD_AFTER: u32 = 8;
const FIRST_REPETITION: Duration = Duration::from_millis(50);
const LAST_REPETITION: Duration = Duration::from_secs(5);

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    /// It is applied; the Service as it is now, unless it has nothing to do with load balancers any more.
    Done(Option<Box<Service>>),
    /// The Service has changed in between; nothing was written.
    Conflict,
    /// The Service is gone.
    Gone,
    /// The API server refuses the write, with this message; nothing was written.
    Refused(String),
    /// Nobody knows: it may have been applied, or may be later. How long the API server wants us to wait.
    Unknown(Option<Duration>),
}

impl Desk {
    /// The answer to a write.
    pub fn on_answer(&mut self, order: Box<Order>, written: Written, now: Instant) {
        // An attempt before this one may have been applied: only the Service's version can tell.
        let written = match written {
            Written::Refused(_) if order.unanswered > 0 => Written::Unknown(None),
            written => written,
        };
        if let Written::Unknown(pause) = written {
            self.repeat(order, pause);
            return;
        }
        let under_way = if order.is_repeated { &mut self.repeated } else { &mut self.in_flight };
        *under_way = under_way.saturating_sub(1);
        let key = order.service.key.clone();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.in_flight = false;
        if entry.gone {
            self.forget(&key);
            return;
        }
        if mem::take(&mut entry.missing) {
            self.effects.push_back(Effect::Look(key.clone()));
        }
        match written {
            Written::Done(service) => self.on_confirmed(order, service, now),
            Written::Conflict => self.on_conflict(&order),
            Written::Gone if is_older(&order.version, &entry.service.resource_version) => {
                // Something newer was there, or is there again: a Service of the same name.
                self.look_again(&key);
            }
            Written::Gone => self.forget(&key),
            Written::Refused(message) => self.on_refused(&order, &message),
            Written::Unknown(_) => {}
        }
    }

    /// The same again, after a pause that grows, unless the API server names one.
    fn repeat(&mut self, mut order: Box<Order>, wanted: Option<Duration>) {
        if !mem::replace(&mut order.is_repeated, true) {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.repeated += 1;
        }
        let own = FIRST_REPETITION.saturating_mul(1 << order.unanswered.min(7)).min(LAST_REPETITION);
        order.unanswered = order.unanswered.saturating_add(1);
        if order.unanswered >= TOLD_AFTER
            && !order.is_told
            && let Some(trouble) = &order.trouble
        {
            order.is_told = true;
            let message = format!(
                "the API server has not done what is to be written on the Service in {TOLD_AFTER} attempts, which are \
                 repeated until it does: it says {trouble}"
            );
            let problem = Problem::of_owner("write_unanswered", message);
            self.effects.push_back(Effect::Rejected(order.service.clone(), problem));
        }
        let pause = wanted.map_or(own, |wanted| wanted.max(own));
        self.effects.push_back(Effect::Send(order, pause));
    }

    fn on_conflict(&mut self, order: &Order) {
        self.effects.push_back(Effect::Conflict);
        self.report_policy(order);
        let key = &order.service.key;
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.edge = order.edge.and(entry.edge);
        entry.again = false;
        if is_older(&order.version, &entry.service.resource_version) {
            // What is known is younger than every attempt to write.
            self.look_again(key);
        } else {
            let behind = Behind { version: order.version.clone(), is_unsure: order.unanswered > 0 };
            entry.behind = Some(Box::new(behind));
            self.try_later(key);
        }
    }

    /// Of a policy that was reset the owner is told even where the write that was to follow it is decided anew: by
    /// then there is nothing left to reset.
    fn report_policy(&mut self, order: &Order) {
        if let Some(why) = order.write.cluster_policy.filter(|_| order.policy_done) {
            self.effects.push_back(Effect::Overridden(order.service.clone(), why));
        }
    }

    fn on_refused(&mut self, order: &Order, message: &str) {
        let key = &order.service.key;
        tracing::error!(service = %key, message, "the API server refuses the write");
        self.report_policy(order);
        let Some(entry) = self.entries.get_mut(key) else { return };
        if self.refusals.insert(key.clone(), message.to_owned()).as_deref() != Some(message) {
            let message = format!(
                "the API server refuses what is to be written on the Service, which is tried again: {message}"
            );
            let problem = Problem::of_owner("write_refused", message);
            self.effects.push_back(Effect::Rejected(order.service.clone(), problem));
        }
        entry.edge = order.edge.and(entry.edge);
        if mem::take(&mut entry.again) {
            self.look_again(key);
            return;
        }
        let (service, seen) = (entry.service.clone(), entry.seen.into());
        let woken = self.engine.sync(&service);
        self.try_later(key);
        self.wake(woken, seen);
    }

    fn try_later(&mut self, key: &ServiceKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let pause = FIRST_RETRY.saturating_mul(1 << entry.failures.min(6)).min(LAST_RETRY);
        entry.failures = entry.failures.saturating_add(1);
        self.effects.push_back(Effect::Retry(key.clone(), pause));
    }

    /// A pause is over. Where nothing newer has been seen since a write came too late, what there is now is asked
    /// for; so it is where the last write can be applied no more and may have been.
    pub fn on_retry(&mut self, key: &ServiceKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if mem::take(&mut entry.unsure) && !entry.in_flight && entry.behind.is_none() {
            let behind = Behind { version: entry.service.resource_version.clone(), is_unsure: false };
            entry.behind = Some(Box::new(behind));
        }
        match entry.behind.is_some() {
            true => self.effects.push_back(Effect::Look(key.clone())),
            false => self.dirty.push(key.clone()),
        }
    }

    fn on_confirmed(&mut self, order: Box<Order>, after: Option<Box<Service>>, now: Instant) {
        let key = order.service.key.clone();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let after: Option<Arc<Service>> = after.map(|mut after| {
            self.words.share(&mut after);
            after.keep_of(&entry.service);
            Arc::from(after)
        });
        self.refusals.remove(&key);
        entry.failures = 0;
        entry.written = Some(now.into());
        let again = mem::take(&mut entry.again);
        let version = after.as_ref().map_or(&order.version, |after| &after.resource_version).clone();
        let is_left = after.is_none() && !is_older(&order.version, &entry.service.resource_version);
        if let Some(after) = after
            && !is_older(&after.resource_version, &entry.service.resource_version)
        {
            entry.service = after;
        }
        let latest = entry.service.clone();
        self.touch(&order.service.facts.ingress);
        self.effects.push_back(Effect::Confirmed(order));
        if is_left {
            self.forget(&key);
            return;
        }
        let woken = self.engine.sync_written(&latest, &version);
        self.touch(&latest.facts.ingress);
        if again {
            self.dirty.push(key);
        }
        self.wake(woken, now);
    }
}
