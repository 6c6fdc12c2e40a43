//! Who may write: the holder of the Lease `purelb-allocator`.
//!
//! A `resourceVersion` protects one Service from two writers. It does not protect two Services from getting one
//! address, each from another replica: for that, no write of one replica may be applied once another one has begun
//! to decide. Let *t* be the moment at which the last renewal that the holder is sure of was begun, and *slack* the
//! difference `lease_duration − renew_deadline`.
//!
//! Guarantees
//! - From *t* + `renew_deadline` on no octet of a write leaves the process, however long it was stopped in between:
//!   the check is in the stream itself ([`crate::fence`]).
//! - What has left before arrives within [`Settings::delivery`] or never (`TCP_USER_TIMEOUT`), and is applied within
//!   as much again or never (the parameter `timeout` of the request, which the API server counts from its arrival).
//!   Both together are less than *slack*.
//! - Nobody else holds the Lease before it has not moved for `lease_duration` in their eyes, which is after
//!   *t* + `lease_duration`. The same replica, too, begins anew only then, when it could not renew in time. Durations
//!   are written to the Lease rounded up.
//! - The Lease is given back only when every write on a Service has been answered for certain, and every write on a
//!   group's status and every call to an IPAM provider has ended. The former are conditional on a version, so one that
//!   comes late takes nothing back; where a release at a provider was not confirmed the Lease is left to run out.
//! - All durations are measured on the local monotonic clock, as client-go does: clocks are never compared.
//!
//! Assumptions: the clock and the kernel's timers run while the process does not; no proxy holds a complete request
//! back for longer than *slack*; the API server lists what it has applied; the Lease is not edited by others. One
//! that vanishes under the eyes of a replica is taken by it, but not used before the old one would have ended.
//!
//! Where an assumption is broken, most of the harm is prevented nevertheless: what the new holder has written to a
//! Service refuses the old holder's request; and two that have one address after all are parted, the younger yields.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, Error, api::ObjectMeta, api::PostParams};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use api::names::{ALLOCATOR_LEASE, label};

use crate::settings::Settings;

/// Whether we hold the Lease: until when we may write.
pub type Standing = Option<Instant>;

/// The right to write, as writers see it.
#[derive(Clone, Debug)]
pub struct Tenure(watch::Receiver<Standing>);

impl Tenure {
    /// Returns at once while we may write; else never, because whoever asks is about to be ended.
    pub async fn check(&self) {
        if !self.is_valid() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether we may write now.
    pub fn is_valid(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Returns when we no longer may write.
    pub async fn ended(mut self) {
        loop {
            let until = *self.0.borrow_and_update();
            let Some(until) = until.filter(|until| Instant::now() < *until) else { return };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                changed = self.0.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Returns when we may write.
    pub async fn begun(&mut self) {
        while !self.is_valid() {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// One that wants the Lease.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
    standing: watch::Sender<Standing>,
    /// What somebody else's Lease looked like, and since when we have seen it so.
    seen: Option<(Option<String>, Option<MicroTime>, Instant)>,
    /// What an earlier tenure has sent, ours or another's, may be under way until then.
    not_before: Option<Instant>,
}

impl Candidate {
    /// A candidate under this identity, which must be unique to the process, and what it tells of its standing.
    pub fn new(client: Client, settings: &Settings, identity: String) -> (Candidate, Tenure) {
        let (standing, tenure) = watch::channel(None);
        let candidate = Candidate {
            api: Api::namespaced(client, &settings.namespace),
            identity,
            lease_duration: settings.lease_duration(),
            renew_deadline: settings.renew_deadline(),
            retry_period: settings.retry_period(),
            standing,
            seen: None,
            not_before: None,
        };
        (candidate, Tenure(tenure))
    }

    /// Acquires and renews until `end` says whether all writes have been answered. If so it gives the Lease back,
    /// so that another need not wait for its end.
    pub async fn run(mut self, mut end: oneshot::Receiver<bool>) {
        let may_release = loop {
            let started = Instant::now();
            match tokio::time::timeout(self.renew_deadline / 2, self.attempt()).await {
                Ok(Ok(true)) => self.renewed(started),
                Ok(Ok(false)) => self.lost("another replica holds the Lease"),
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew or acquire the Lease"),
                Err(_) => tracing::warn!("the API server does not answer about the Lease"),
            }
            if self.standing.borrow().is_some_and(|until| Instant::now() >= until) {
                self.lost("it could not be renewed in time");
            }
            tokio::select! {
                ended = &mut end => break ended.unwrap_or(false),
                () = tokio::time::sleep(self.retry_period) => {}
            }
        };
        if self.standing.send_replace(None).is_none() {
            return;
        }
        if !may_release {
            tracing::warn!("the Lease is left to run out: not every write has been answered");
            return;
        }
        match tokio::time::timeout(self.retry_period, self.release()).await {
            Ok(Ok(())) => tracing::info!("Lease released"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot release the Lease"),
            Err(_) => tracing::warn!("the API server does not answer about the Lease"),
        }
    }

    fn renewed(&mut self, started: Instant) {
        if self.standing.borrow().is_some_and(|until| Instant::now() >= until) {
            self.lost("it could not be renewed in time");
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.not_before = None;
        // Measured from before the request: the server's clock for it started later.
        let until = started + self.renew_deadline;
        if self.standing.send_replace(Some(until)).is_none() {
            tracing::info!(identity = self.identity, "Lease acquired");
        }
    }

    fn lost(&mut self, why: &str) {
        if let Some(until) = self.standing.send_replace(None) {
            self.not_before = Some(until + (self.lease_duration - self.renew_deadline));
            tracing::warn!(why, "Lease lost, all writes stop");
        }
    }

    /// One round: whether we hold the Lease after it.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let Some(mut lease) = self.api.get_opt(ALLOCATOR_LEASE).await? else {
            if self.seen.take().is_some() {
                // Somebody had it, and does not know yet that it is gone.
                self.not_before = Some(Instant::now() + self.lease_duration);
            }
            let lease = self.lease(ObjectMeta::default(), 0);
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let is_ours = holder.as_deref() == Some(self.identity.as_str());
        if !is_ours && holder.is_some() && !self.is_expired(&spec) {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!is_ours);
        let mut renewed = self.lease(lease.metadata, transitions);
        if is_ours && let Some(renewed) = &mut renewed.spec {
            renewed.acquire_time = spec.acquire_time;
        }
        won(self.api.replace(ALLOCATOR_LEASE, &PostParams::default(), &renewed).await)
    }

    /// Whether somebody else's Lease has not moved for as long as it holds.
    fn is_expired(&mut self, spec: &LeaseSpec) -> bool {
        let duration = spec.lease_duration_seconds.and_then(|secs| u64::try_from(secs).ok());
        let duration = duration.map_or(self.lease_duration, Duration::from_secs);
        match &self.seen {
            Some((holder, renewed, since))
                if *holder == spec.holder_identity && *renewed == spec.renew_time =>
            {
                since.elapsed() >= duration
            }
            _ => {
                self.seen = Some((spec.holder_identity.clone(), spec.renew_time.clone(), Instant::now()));
                false
            }
        }
    }

    fn lease(&self, metadata: ObjectMeta, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut metadata = ObjectMeta { name: Some(ALLOCATOR_LEASE.to_owned()), ..metadata };
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(label::APP.to_owned(), label::APP_VALUE.to_owned());
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(seconds(self.lease_duration)),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn release(&self) -> Result<(), Error> {
        let lease = self.api.get(ALLOCATOR_LEASE).await?;
        let spec = lease.spec.unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return Ok(());
        }
        let transitions = spec.lease_transitions.unwrap_or(0);
        let mut free = self.lease(lease.metadata, transitions);
        if let Some(spec) = &mut free.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        self.api.replace(ALLOCATOR_LEASE, &PostParams::default(), &free).await.map(drop)
    }
}

/// Whole seconds, rounded up: less would let another replica start too early.
fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000).max(1)).unwrap_or(i32::MAX)
}

/// A conflict means that another was faster.
fn won(answer: Result<Lease, Error>) -> Result<bool, Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_never_shortened_on_its_way_to_the_lease() {
        for (millis, secs) in [(1, 1), (1_000, 1), (1_001, 2), (1_500, 2), (15_000, 15), (15_999, 16)] {
            assert_eq!(seconds(Duration::from_millis(millis)), secs, "{millis} ms");
        }
    }
}
