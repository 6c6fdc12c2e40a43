//! This node's Lease: that it lives, on which subnets it is, and which strangers it has seen. Written when that
//! changes, and slowly renewed; removed when the agent leaves for good.
//!
//! The Lease belongs to the Node, so that it goes with it, and is held by one agent, the pod: an agent that finds its
//! Lease in the hands of another has been replaced and leaves it alone while that one renews it. It is deleted only
//! as it was last written by this agent (by its resourceVersion): the Lease of a successor stays.
//!
//! Not a detector of failure and not the cluster's clock: readers judge renewals by when they see them.

use std::time::Duration;

use api::{
    LinkLayerAddress,
    names::{annotation, label},
    node_lease::{format_conflicts, format_heartbeats, format_link_layer_addresses, format_subnets, name_of},
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{facts::subnets::NodeFacts, metrics::local::LocalMetrics};

/// How long the Lease is good without renewal.
const DURATION: Duration = Duration::from_secs(40);
/// Between two renewals.
const RENEW: Duration = Duration::from_secs(10);
/// Least time between two writes, whatever changes.
const PACE: Duration = Duration::from_secs(1);
/// How long the API server may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes the Lease until `stop`, then removes it.
pub async fn run(
    client: Client,
    namespace: String,
    node: String,
    holder: String,
    mut facts: watch::Receiver<Option<NodeFacts>>,
    metrics: LocalMetrics,
    stop: CancellationToken,
) {
    let api = Api::namespaced(client, &namespace);
    let mut publisher = Publisher { api, node, holder, last: None, other: None };
    let mut written: Option<NodeFacts> = None;
    let mut renew_at = Instant::now();
    let (mut not_before, mut pause) = (Instant::now(), PACE);
    let mut complaint = String::new();
    loop {
        let current = facts.borrow_and_update().clone();
        if let Some(current) = current
            && (written.as_ref() != Some(&current) || Instant::now() >= renew_at)
        {
            match publisher.publish(&current).await {
                Ok(()) => {
                    metrics.lease_renewals.inc();
                    metrics.lease_healthy.set(1);
                    written = Some(current);
                    renew_at = Instant::now() + RENEW;
                    (not_before, pause) = (Instant::now() + PACE, PACE);
                    complaint.clear();
                }
                Err(error) => {
                    metrics.lease_renewal_failures.inc();
                    metrics.lease_healthy.set(0);
                    let error = error.to_string();
                    // Once, not at every attempt.
                    if complaint != error {
                        tracing::warn!(
                            lease = name_of(&publisher.node),
                            error,
                            "Lease not written, trying again"
                        );
                    }
                    (written, complaint) = (None, error);
                    not_before = Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0));
                    pause = (pause * 2).min(RENEW);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = due(&mut facts, renew_at, not_before, written.is_some()) => {}
        }
    }
    metrics.lease_healthy.set(0);
    publisher.remove().await;
}

/// Returns when there is something to write: never before `not_before`.
async fn due(
    facts: &mut watch::Receiver<Option<NodeFacts>>,
    renew_at: Instant,
    not_before: Instant,
    is_written: bool,
) {
    tokio::time::sleep_until(not_before).await;
    let is_known = facts.borrow().is_some();
    let renew_at = match (is_written, is_known) {
        (true, _) => renew_at,
        (false, true) => return,
        (false, false) => Instant::now() + RENEW,
    };
    tokio::select! {
        changed = facts.changed() => if changed.is_err() {
            // Nobody observes any more; what is said stays, and is renewed.
            tokio::time::sleep_until(renew_at).await;
        },
        () = tokio::time::sleep_until(renew_at) => {}
    }
}

/// Why the Lease was not written.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    #[error("there is a Lease of this name that is no node's, held by {0}: the node needs another name")]
    Foreign(String),
    #[error("another agent of this node, {0}, renews it")]
    Replaced(String),
    #[error(transparent)]
    Request(#[from] kube::Error),
}

struct Publisher {
    api: Api<Lease>,
    node: String,
    holder: String,
    /// The Lease as this agent wrote it last.
    last: Option<Lease>,
    /// The renewal of another agent that took the Lease from us, and since when we have seen it so.
    other: Option<(Option<MicroTime>, Instant)>,
}

impl Publisher {
    /// Writes the Lease. One that somebody has changed, made or removed in between is looked at once more.
    async fn publish(&mut self, facts: &NodeFacts) -> Result<(), PublishError> {
        let had = self.last.is_some() || self.other.is_some();
        if let Some(last) = self.last.take() {
            match self.write(Some(last), facts).await {
                Err(PublishError::Request(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {}
                other => return other,
            }
        }
        let base = self.read(had).await?;
        self.write(base, facts).await
    }

    async fn write(&mut self, base: Option<Lease>, facts: &NodeFacts) -> Result<(), PublishError> {
        let exists = base.is_some();
        let lease = lease(base.unwrap_or_default(), &self.node, &self.holder, facts, Timestamp::now());
        let (name, params) = (name_of(&self.node), PostParams::default());
        let answer = timeout(REQUEST_TIMEOUT, async {
            if exists {
                self.api.replace(&name, &params, &lease).await
            } else {
                self.api.create(&params, &lease).await
            }
        });
        let lease = answer.await.map_err(|_| PublishError::Timeout)??;
        (self.last, self.other) = (Some(lease), None);
        Ok(())
    }

    /// The Lease that is there, if this agent may take it.
    async fn read(&mut self, had: bool) -> Result<Option<Lease>, PublishError> {
        let lease = timeout(REQUEST_TIMEOUT, self.api.get_opt(&name_of(&self.node))).await;
        let Some(lease) = lease.map_err(|_| PublishError::Timeout)?? else { return Ok(None) };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        if holder.is_empty() || holder == self.holder {
            return Ok(Some(lease));
        }
        let is_nodes =
            lease.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(annotation::SUBNETS));
        if !is_nodes {
            return Err(PublishError::Foreign(holder));
        }
        // One that an agent before us left is ours; one that was taken from us is the other's while it renews it.
        if had && !self.is_abandoned(spec.renew_time) {
            return Err(PublishError::Replaced(holder));
        }
        Ok(Some(lease))
    }

    fn is_abandoned(&mut self, renewed: Option<MicroTime>) -> bool {
        match &self.other {
            Some((seen, since)) if *seen == renewed => since.elapsed() >= DURATION,
            _ => {
                self.other = Some((renewed, Instant::now()));
                false
            }
        }
    }

    /// Removes the Lease as this agent wrote it last; one that has changed since is another's.
    async fn remove(&mut self) {
        let Some(lease) = self.last.take() else { return };
        let preconditions =
            Preconditions { resource_version: lease.metadata.resource_version, uid: lease.metadata.uid };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let name = name_of(&self.node);
        match timeout(REQUEST_TIMEOUT, self.api.delete(&name, &params)).await {
            Ok(Ok(_)) => tracing::info!(lease = name, "Lease removed"),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                tracing::info!(lease = name, "the Lease is another agent's: left there");
            }
            Ok(Err(error)) => tracing::warn!(lease = name, %error, "the Lease stays until it expires"),
            Err(_) => tracing::warn!(
                lease = name,
                "the API server does not answer: the Lease stays until it expires"
            ),
        }
    }
}

/// The Lease as it should be, from what is there.
fn lease(base: Lease, node: &str, holder: &str, facts: &NodeFacts, now: Timestamp) -> Lease {
    let before = base.spec.unwrap_or_default();
    let is_renewal = before.holder_identity.as_deref() == Some(holder);
    let transitions = before.lease_transitions.unwrap_or_default();
    let is_new = base.metadata.name.is_none();
    let mut metadata = ObjectMeta { name: Some(name_of(node)), ..base.metadata };
    metadata.labels.get_or_insert_default().insert(label::APP.to_owned(), label::APP_VALUE.to_owned());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(annotation::SUBNETS.to_owned(), format_subnets(&facts.subnets));
    let macs = facts.macs.iter().map(|mac| LinkLayerAddress(mac.0)).collect();
    for (name, text) in [
        (annotation::NODE_AGENT, facts.agent.as_ref().map(ToString::to_string)),
        (annotation::HEARTBEAT, format_heartbeats(&facts.heartbeats)),
        (annotation::LINK_LAYER_ADDRESSES, format_link_layer_addresses(&macs)),
        (annotation::ADDRESS_CONFLICTS, format_conflicts(&facts.conflicts)),
    ] {
        match text {
            Some(text) => annotations.insert(name.to_owned(), text),
            None => annotations.remove(name),
        };
    }
    metadata.owner_references = (!facts.node_uid.is_empty()).then(|| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.to_owned(),
            uid: facts.node_uid.clone(),
            ..OwnerReference::default()
        }]
    });
    let now = MicroTime(now);
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: if is_renewal { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(i32::from(!is_renewal && !is_new))),
            ..before
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use netlink::Mac;

    use super::*;

    fn facts(subnets: &str, conflicts: &str) -> NodeFacts {
        NodeFacts {
            node_uid: "u".to_owned(),
            subnets: api::node_lease::parse_subnets(subnets).unwrap(),
            heartbeats: BTreeSet::new(),
            interfaces: Vec::new(),
            agent: Some(api::NodeAgentUse { name: "default".to_owned(), unfit: BTreeSet::new() }),
            macs: [Mac([2, 0, 0, 0, 0, 7])].into(),
            conflicts: api::node_lease::parse_conflicts(conflicts).unwrap(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn annotation_of<'a>(lease: &'a Lease, name: &str) -> Option<&'a str> {
        lease.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    #[test]
    fn a_lease_says_what_the_node_has_seen_and_belongs_to_the_node() {
        let conflict = "192.0.2.9,02:00:00:00:00:01";
        let lease = lease(Lease::default(), "n1", "n1_pod", &facts("192.0.2.0/24", conflict), at(1));
        assert_eq!(lease.metadata.name.as_deref(), Some("purelb-n1"));
        assert_eq!(lease.metadata.labels.as_ref().unwrap()["app"], "purelb");
        assert_eq!(annotation_of(&lease, annotation::SUBNETS), Some("192.0.2.0/24"));
        assert_eq!(annotation_of(&lease, annotation::ADDRESS_CONFLICTS), Some(conflict));
        assert_eq!(annotation_of(&lease, annotation::LINK_LAYER_ADDRESSES), Some("02:00:00:00:00:07"));
        assert_eq!(annotation_of(&lease, annotation::NODE_AGENT), Some("default"));
        let owner = &lease.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()), ("Node", "n1", "u"));
        let spec = lease.spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("n1_pod"), Some(0)));
        assert_eq!(spec.acquire_time, spec.renew_time);
    }

    #[test]
    fn a_renewal_keeps_when_it_was_acquired_and_what_others_put_there() {
        let mut first = lease(
            Lease::default(),
            "n1",
            "n1_pod",
            &facts("192.0.2.0/24", "192.0.2.9,02:00:00:00:00:01"),
            at(1),
        );
        first.metadata.annotations.get_or_insert_default().insert("x".to_owned(), "y".to_owned());
        let again = lease(first.clone(), "n1", "n1_pod", &facts("", ""), at(9));
        let (spec, before) = (again.spec.clone().unwrap(), first.spec.unwrap());
        assert_eq!(spec.acquire_time, before.acquire_time);
        assert_ne!(spec.renew_time, before.renew_time);
        assert_eq!(annotation_of(&again, "x"), Some("y"));
        assert_eq!(annotation_of(&again, annotation::SUBNETS), Some(""), "no subnet is not no node's Lease");
        assert_eq!(annotation_of(&again, annotation::ADDRESS_CONFLICTS), None);
        let taken = lease(again, "n1", "n1_other", &facts("", ""), at(10)).spec.unwrap();
        assert_eq!((taken.lease_transitions, taken.acquire_time), (Some(1), taken.renew_time));
    }
}
