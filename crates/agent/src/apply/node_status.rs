//! This node's BGPNodeStatus: what the speaker says of its sessions. Written on change, at most once a second,
//! never on a timer; equal meaning is no write. When the speaker ends its last word is written, too, and an object that
//! somebody deletes is made again.

use std::sync::Arc;

use api::{BGPNodeStatus, BGPNodeStatusStatus, bgp_node_status::BGPNodeStatusSpec};
use bgp::driver::Handle;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time as KubeTime},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher::Config,
};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant},
};

use crate::{
    inputs::node::NodeInput,
    peers::PeerSet,
    stores::{self, Store},
};
use content::{node_status, seconds};

mod content;

/// How the last error of a peer begins that is refused.
pub(crate) const REFUSED: &str = "refused: ";
/// Least time between two writes.
const PACE: Duration = Duration::from_secs(1);
/// Wait after a write that failed.
const RETRY: Duration = Duration::from_secs(3);

/// Writes the status of this node until the speaker has ended and its last word is written.
pub async fn run(
    client: Client,
    namespace: String,
    node_name: String,
    speaker: Handle,
    mut peers: watch::Receiver<Arc<PeerSet>>,
) {
    let api = Api::<BGPNodeStatus>::namespaced(client, &namespace);
    let own = Config::default().fields(&format!("metadata.name={node_name}"));
    let (changes, mut arrivals) = mpsc::channel(1);
    let watching = tokio::spawn(stores::watch(api.clone(), own, |_| Some(()), |change| change, changes));
    let mut objects = Store::<()>::default();
    let mut status = speaker.watch_status();
    let mut written: Option<BGPNodeStatusStatus> = None;
    let mut not_before = Instant::now();
    let mut is_over = false;
    loop {
        tokio::time::sleep_until(not_before).await;
        let set = peers.borrow_and_update().clone();
        let speaker_status = status.borrow_and_update().clone();
        if let Some(node) = &set.node {
            let conditions = written.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            let wall = |time| Timestamp::try_from(speaker.system_time(time)).unwrap_or(Timestamp::UNIX_EPOCH);
            let mut wanted = node_status(node, &set.peers, &speaker_status, conditions, wall);
            if !is_same(written.as_ref(), &wanted) {
                wanted.last_updated = Some(KubeTime(seconds(Timestamp::now())));
                not_before = Instant::now() + PACE;
                match write(&api, node, &wanted).await {
                    Ok(()) => written = Some(wanted),
                    Err(error) => {
                        tracing::debug!(%error, "BGPNodeStatus not written, trying again");
                        not_before = Instant::now() + RETRY;
                        continue;
                    }
                }
            }
        }
        if is_over {
            return watching.abort();
        }
        tokio::select! {
            // The peers are told no more some time before the speaker ends.
            Ok(()) = peers.changed() => {}
            changed = status.changed() => is_over = changed.is_err(),
            Some(arrival) = arrivals.recv() => {
                objects.on(arrival.value);
                if objects.is_listed() && objects.iter().next().is_none() {
                    written = None;
                }
            }
        }
    }
}

/// Equal but for when it was written; the start of a state may be off by the second that clocks drift.
fn is_same(written: Option<&BGPNodeStatusStatus>, wanted: &BGPNodeStatusStatus) -> bool {
    written.is_some_and(|written| {
        let mut wanted = wanted.clone();
        wanted.last_updated.clone_from(&written.last_updated);
        for (peer, before) in wanted.peers.iter_mut().zip(&written.peers) {
            let drift = match (&peer.since, &before.since) {
                (Some(new), Some(old)) => new.0.duration_since(old.0).abs().as_secs(),
                _ => continue,
            };
            if peer.name == before.name && peer.state == before.state && drift <= 1 {
                peer.since.clone_from(&before.since);
            }
        }
        wanted == *written
    })
}

async fn write(
    api: &Api<BGPNodeStatus>,
    node: &NodeInput,
    status: &BGPNodeStatusStatus,
) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"status": status}));
    match api.patch_status(&node.name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(error)) if error.code == 404 => {}
        result => return result.map(drop),
    }
    let mut object = BGPNodeStatus::new(&node.name, BGPNodeStatusSpec::default());
    object.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.name.clone(),
        uid: node.uid.clone(),
        ..OwnerReference::default()
    }]);
    api.create(&PostParams::default(), &object).await?;
    api.patch_status(&node.name, &PatchParams::default(), &patch).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_only_in_the_time_of_writing_is_not_written() {
        let written = BGPNodeStatusStatus {
            node_name: "n1".to_owned(),
            last_updated: Some(KubeTime(Timestamp::from_second(5).unwrap())),
            ..BGPNodeStatusStatus::default()
        };
        let same = BGPNodeStatusStatus { last_updated: None, ..written.clone() };
        assert!(is_same(Some(&written), &same));
        assert!(!is_same(None, &same));
        assert!(!is_same(Some(&written), &BGPNodeStatusStatus { configured_peers: 1, ..same }));
    }
}
