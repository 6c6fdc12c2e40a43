//! What a BGPNodeStatus says: the speaker's status in the words of the API.

use api::{
    BGPNodeStatusStatus, GoDuration, NodePeerStatus,
    bgp_node_status::{BfdState, PrefixCounts, SessionState},
    bgp_peer::AddressFamily,
    condition,
};
use bgp::{
    config::PeerConfig,
    status::{PeerStatus, SpeakerStatus, State},
    types::{Family, Time},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time as KubeTime},
    jiff::Timestamp,
};

use super::REFUSED;
use crate::{inputs::node::NodeInput, peers::Peer};

#[cfg(test)]
mod tests;

/// The whole status, without the time of writing.
pub(super) fn node_status(
    node: &NodeInput,
    peers: &[Peer],
    speaker: &SpeakerStatus,
    mut conditions: Vec<Condition>,
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
pub(super) fn seconds(time: Timestamp) -> Timestamp {
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
