//! This node's BGPNodeStatus: what the speaker says of its sessions. Written on change, at most once a second,
//! never on a timer; equal meaning is no write.

use std::{sync::Arc, time::Duration};

use api::{
    BGPNodeStatus, BGPNodeStatusStatus, GoDuration, NodePeerStatus,
    bgp_node_status::{BGPNodeStatusSpec, BfdState, PrefixCounts, SessionState},
    bgp_peer::AddressFamily,
    condition,
};
use bgp::{
    config::PeerConfig,
    driver::Handle,
    status::{PeerStatus, SpeakerStatus, State},
    types::{Family, Time},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time as KubeTime},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use crate::{
    inputs::node::NodeInput,
    peers::{Peer, PeerSet},
};

/// How the last error of a peer begins that is refused.
pub(crate) const REFUSED: &str = "refused: ";
/// Least time between two writes.
const PACE: Duration = Duration::from_secs(1);
/// Wait after a write that failed.
const RETRY: Duration = Duration::from_secs(3);

/// Writes the status of this node until the speaker ends.
pub async fn run(
    client: Client,
    namespace: String,
    speaker: Handle,
    mut peers: watch::Receiver<Arc<PeerSet>>,
) {
    let api = Api::<BGPNodeStatus>::namespaced(client, &namespace);
    let mut status = speaker.watch_status();
    let mut written: Option<BGPNodeStatusStatus> = None;
    let mut not_before = Instant::now();
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
        tokio::select! {
            changed = peers.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return },
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

/// The whole status, without the time of writing.
fn node_status(
    node: &NodeInput,
    peers: &[Peer],
    speaker: &SpeakerStatus,
    mut conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    wall: impl Fn(Time) -> Timestamp,
) -> BGPNodeStatusStatus {
    let find = |peer: &Peer| speaker.peers.iter().find(|status| *status.name == *peer.name);
    let sessions: Vec<_> = peers.iter().map(|peer| session(peer, find(peer), speaker, &wall)).collect();
    let established = sessions.iter().filter(|peer| peer.state == SessionState::Established).count();
    let message = format!("{established} of {} sessions are established", sessions.len());
    let ready = match sessions.len() {
        0 => condition::new(
            condition::READY,
            false,
            condition::reason::NO_NODES,
            "no BGPPeer is for this node",
            None,
        ),
        all if established == all => {
            condition::new(condition::READY, true, condition::reason::ESTABLISHED, message, None)
        }
        _ => condition::new(condition::READY, false, condition::reason::NOT_ESTABLISHED, message, None),
    };
    condition::set(&mut conditions, ready, seconds(Timestamp::now()));
    let router_id = peers.iter().find_map(|peer| peer.config.as_ref().ok()).map(|config| config.router_id);
    BGPNodeStatusStatus {
        node_name: node.name.clone(),
        router_id: router_id.map(|id| id.to_string()),
        configured_peers: count(sessions.len()),
        established_peers: count(established),
        peers: sessions,
        conditions,
        last_updated: None,
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn session(
    peer: &Peer,
    status: Option<&PeerStatus>,
    speaker: &SpeakerStatus,
    wall: impl Fn(Time) -> Timestamp,
) -> NodePeerStatus {
    let refused = NodePeerStatus {
        name: peer.name.clone(),
        address: peer.address.clone(),
        local_asn: peer.local_asn,
        last_error: peer.config.as_ref().err().map(|refusal| format!("{REFUSED}{refusal}")),
        ..NodePeerStatus::default()
    };
    let (Some(status), Ok(config)) = (status, &peer.config) else { return refused };
    let obstacle = obstacle(config, status, speaker);
    let is_established = status.state == State::Established;
    let unsendable = status.unsendable_reason.clone().filter(|_| status.unsendable.iter().any(|n| *n > 0));
    NodePeerStatus {
        address: Some(status.address.to_string()),
        peer_asn: status.peer_asn.map(|asn| asn.value()),
        state: state(status.state),
        since: Some(KubeTime(seconds(wall(status.since)))),
        families: status.families.iter().map(|family| address_family(*family)).collect(),
        advertised: counts(status.advertised),
        received: counts(status.received),
        hold_time: status
            .hold_time
            .filter(|_| is_established)
            .map(|time| GoDuration::from_secs(time.secs().into())),
        graceful_restart: status.graceful_restart,
        bfd_state: status.bfd.map(bfd_state),
        last_error: unsendable.or(obstacle).or_else(|| status.last_error.clone()),
        flaps: i64::try_from(status.flaps).unwrap_or(i64::MAX),
        ..refused
    }
}

/// What keeps this session, or its BFD, from its work: what the kernel says to our listening or receiving, or packets
/// that have to be dropped.
fn obstacle(config: &PeerConfig, status: &PeerStatus, speaker: &SpeakerStatus) -> Option<String> {
    let is_waiting = config.passive && status.state != State::Established;
    let is_deaf = status.bfd.is_some_and(|state| state != bgp::bfd::State::Up);
    let listen_error = speaker.listen_error.clone().filter(|_| is_waiting);
    let bfd_error = speaker.bfd_error.clone().filter(|_| is_deaf);
    listen_error.or(bfd_error).or_else(|| status.bfd_obstacle.clone())
}

/// Whole seconds: what an API object can hold.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

const fn state(state: State) -> SessionState {
    match state {
        State::Idle => SessionState::Idle,
        State::Connect => SessionState::Connect,
        State::Active => SessionState::Active,
        State::OpenSent => SessionState::OpenSent,
        State::OpenConfirm => SessionState::OpenConfirm,
        State::Established => SessionState::Established,
    }
}

const fn bfd_state(state: bgp::bfd::State) -> BfdState {
    match state {
        bgp::bfd::State::AdminDown => BfdState::AdminDown,
        bgp::bfd::State::Down => BfdState::Down,
        bgp::bfd::State::Init => BfdState::Init,
        bgp::bfd::State::Up => BfdState::Up,
    }
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4Unicast => AddressFamily::Ipv4Unicast,
        Family::Ipv6Unicast => AddressFamily::Ipv6Unicast,
    }
}

fn counts([ipv4, ipv6]: [usize; 2]) -> PrefixCounts {
    let count = |n| i64::try_from(n).unwrap_or(i64::MAX);
    PrefixCounts { ipv4: count(ipv4), ipv6: count(ipv6) }
}

#[cfg(test)]
mod tests {
    use api::Refusal;

    use super::*;

    fn refused() -> Peer {
        Peer {
            name: "tor1".to_owned(),
            local_asn: 64512,
            address: Some("192.0.2.1".to_owned()),
            config: Err(Refusal::unsupported("spec.role")),
            advertisements: Vec::new(),
        }
    }

    fn status(peers: &[Peer], speaker: &SpeakerStatus) -> BGPNodeStatusStatus {
        let node = NodeInput { name: "n1".to_owned(), ..NodeInput::default() };
        node_status(&node, peers, speaker, Vec::new(), |_| Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_refused_peer_is_listed_with_its_refusal() {
        let status = status(&[refused()], &SpeakerStatus::default());
        assert_eq!(status.peers[0].state, SessionState::Idle);
        assert!(status.peers[0].last_error.as_ref().unwrap().contains("spec.role"), "{status:?}");
        assert!(!condition::is_true(&status.conditions, condition::READY));
    }

    #[test]
    fn what_differs_only_in_the_time_of_writing_is_not_written() {
        let written = BGPNodeStatusStatus {
            last_updated: Some(KubeTime(Timestamp::from_second(5).unwrap())),
            ..status(&[refused()], &SpeakerStatus::default())
        };
        let same = BGPNodeStatusStatus { last_updated: None, ..written.clone() };
        assert!(is_same(Some(&written), &same));
        assert!(!is_same(None, &same));
        assert!(!is_same(Some(&written), &BGPNodeStatusStatus { peers: vec![], ..same }));
    }
}
