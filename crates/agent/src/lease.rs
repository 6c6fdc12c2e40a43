//! A Lease that one of all agents holds: for work that must be done once in the cluster, and that nobody waits
//! for urgently. Whoever holds it renews it; when it expires any other takes it.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, api::PostParams};

/// How long a Lease is good without renewal.
const DURATION_SECS: i32 = 30;
/// Pause between renewals; those that do not hold it look a little later than it could expire.
const RENEW: Duration = Duration::from_secs(10);

/// A Lease that this agent may hold.
#[derive(Clone, Debug)]
pub struct SharedLease {
    api: Api<Lease>,
    name: &'static str,
    holder: String,
}

impl SharedLease {
    /// The Lease `name`, to be held under the name of this node.
    pub fn new(client: Client, namespace: &str, name: &'static str, holder: &str) -> SharedLease {
        SharedLease { api: Api::namespaced(client, namespace), name, holder: holder.to_owned() }
    }

    /// Takes or renews it. Returns whether this agent holds it, and when to come again.
    pub async fn keep(&self) -> (bool, Duration) {
        match self.try_keep(Timestamp::now()).await {
            Ok(Hold::Ours) => (true, RENEW),
            Ok(Hold::Theirs(left)) => (false, left.max(RENEW)),
            // Lost to another agent between reading and writing, as it should be.
            Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => (false, RENEW),
            Err(error) => {
                tracing::warn!(lease = self.name, %error, "Lease neither taken nor renewed: trying again");
                (false, RENEW)
            }
        }
    }

    async fn try_keep(&self, now: Timestamp) -> Result<Hold, kube::Error> {
        let Some(mut lease) = self.api.get_opt(self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.claim(None, now)),
            };
            self.api.create(&PostParams::default(), &lease).await?;
            return Ok(Hold::Ours);
        };
        if let Some(left) = lease.spec.as_ref().and_then(|spec| held_by_other(spec, &self.holder, now)) {
            return Ok(Hold::Theirs(left));
        }
        // With the resourceVersion that was read: of two that try at once, one gets a conflict.
        lease.spec = Some(self.claim(lease.spec.take(), now));
        self.api.replace(self.name, &PostParams::default(), &lease).await?;
        Ok(Hold::Ours)
    }

    fn claim(&self, before: Option<LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let is_renewal = before.holder_identity.as_deref() == Some(&self.holder);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(DURATION_SECS),
            renew_time: Some(MicroTime(now)),
            acquire_time: if is_renewal { before.acquire_time } else { Some(MicroTime(now)) },
            lease_transitions: Some(transitions.saturating_add(i32::from(!is_renewal))),
            ..before
        }
    }
}

/// Who holds a Lease.
#[derive(Debug, PartialEq, Eq)]
enum Hold {
    Ours,
    /// Another, for so long at least.
    Theirs(Duration),
}

/// How long another holds it yet; `None` where it is ours or free.
fn held_by_other(spec: &LeaseSpec, holder: &str, now: Timestamp) -> Option<Duration> {
    let other = spec.holder_identity.as_deref().filter(|other| !other.is_empty())?;
    let renewed = spec.renew_time.as_ref()?.0;
    let secs = spec.lease_duration_seconds.unwrap_or(DURATION_SECS);
    let until = renewed.checked_add(SignedDuration::from_secs(secs.into())).ok()?;
    let left = until.duration_since(now);
    (other != holder && left.is_positive()).then(|| left.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(30),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn only_a_lease_of_another_that_has_not_expired_is_held() {
        let now = Timestamp::from_second(1_000).unwrap();
        assert_eq!(held_by_other(&spec("n2", 990), "n1", now), Some(Duration::from_secs(20)));
        assert_eq!(held_by_other(&spec("n1", 990), "n1", now), None);
        assert_eq!(held_by_other(&spec("n2", 970), "n1", now), None);
        assert_eq!(held_by_other(&spec("", 990), "n1", now), None);
        assert_eq!(held_by_other(&LeaseSpec::default(), "n1", now), None);
    }
}
