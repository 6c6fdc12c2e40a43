//! Status of BGPPeers and LBNodeAgents, which are about all nodes: written by one agent, the one that holds the
//! Lease `purelb-bgppeer-status`. Each agent's own view is in its BGPNodeStatus, and this agent alone watches
//! those, so that N agents cost N events here and none elsewhere. The other agents see these writes as changes
//! of no meaning: they look at specs only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    BGPNodeStatus, BGPPeer, BGPPeerStatus, LBNodeAgent, LBNodeAgentStatus, NodePeerStatus, Refusal,
    bgp_node_status::SessionState,
    condition::{self, reason},
};
use futures::{StreamExt, stream::SelectAll};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher::{self, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    apply::node_status::REFUSED,
    inputs::{
        advertisement,
        bgp_peer::{self, Surroundings},
        node::NodeInput,
        node_agent, secret,
    },
    lease::SharedLease,
    peers::PeerSet,
};

/// The Lease.
pub const LEASE: &str = "purelb-bgppeer-status";
/// Least time between two rounds of writes.
const PACE: Duration = Duration::from_secs(1);

/// Takes part in the Lease, and reports while it is held.
pub async fn run(client: Client, namespace: String, node_name: String, peers: watch::Receiver<Arc<PeerSet>>) {
    let lease = SharedLease::new(client.clone(), &namespace, LEASE, &node_name);
    let mut reporter: Option<tokio::task::JoinHandle<()>> = None;
    loop {
        let (is_held, again) = lease.keep().await;
        match (is_held, reporter.take()) {
            (true, Some(running)) if !running.is_finished() => reporter = Some(running),
            (true, _) => {
                tracing::info!("this agent reports the status of BGPPeers and LBNodeAgents");
                let report = report(client.clone(), namespace.clone(), peers.clone());
                reporter = Some(tokio::spawn(report));
            }
            (false, Some(running)) => running.abort(),
            (false, None) => {}
        }
        if peers.has_changed().is_err() {
            return;
        }
        tokio::time::sleep(again).await;
    }
}

/// What the reporter knows.
#[derive(Debug, Default)]
struct View {
    peers: BTreeMap<String, BGPPeer>,
    agents: BTreeMap<String, LBNodeAgent>,
    nodes: BTreeMap<String, BGPNodeStatus>,
}

#[derive(Debug)]
enum Seen {
    Peer(watcher::Event<BGPPeer>),
    Agent(watcher::Event<LBNodeAgent>),
    Node(watcher::Event<BGPNodeStatus>),
    Failed,
}

/// A list that begins empties the map: what is gone must not be written to, and everything comes again.
fn take_in<K: Resource>(known: &mut BTreeMap<String, K>, event: watcher::Event<K>) {
    match event {
        watcher::Event::Init => known.clear(),
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
            known.insert(object.name_any(), object);
        }
        watcher::Event::Delete(object) => {
            known.remove(&object.name_any());
        }
        watcher::Event::InitDone => {}
    }
}

async fn report(client: Client, namespace: String, mut own: watch::Receiver<Arc<PeerSet>>) {
    let mut seen = SelectAll::new();
    seen.push(events::<BGPPeer>(&client, &namespace, Seen::Peer));
    seen.push(events::<LBNodeAgent>(&client, &namespace, Seen::Agent));
    seen.push(events::<BGPNodeStatus>(&client, &namespace, Seen::Node));
    let mut view = View::default();
    let mut write_at = Some(Instant::now() + PACE);
    loop {
        let due = write_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            event = seen.next() => match event {
                Some(Seen::Peer(event)) => take_in(&mut view.peers, event),
                Some(Seen::Agent(event)) => take_in(&mut view.agents, event),
                Some(Seen::Node(event)) => take_in(&mut view.nodes, event),
                Some(Seen::Failed) => tokio::time::sleep(PACE).await,
                None => return,
            },
            changed = own.changed() => if changed.is_err() { return },
            () = sleep_until(due) => {
                let set = own.borrow_and_update().clone();
                let is_done = write_all(&client, &namespace, &view, set.node.as_ref()).await;
                write_at = (!is_done).then(|| Instant::now() + PACE * 3);
                continue;
            }
        }
        write_at = write_at.or_else(|| Some(Instant::now() + PACE));
    }
}

fn events<K>(
    client: &Client,
    namespace: &str,
    wrap: fn(watcher::Event<K>) -> Seen,
) -> futures::stream::BoxStream<'static, Seen>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
    K::DynamicType: Default,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    watcher(api, watcher::Config::default()).map(move |event| event.map_or(Seen::Failed, wrap)).boxed()
}

/// Writes every status that is not what it should be. Returns whether all went well.
async fn write_all(client: &Client, namespace: &str, view: &View, node: Option<&NodeInput>) -> bool {
    let Some(node) = node else { return true };
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut is_done = true;
    for (name, peer) in &view.peers {
        let wanted = peer_status(peer, view.nodes.values(), node, now);
        if peer.status.as_ref() != Some(&wanted) {
            is_done &= write::<BGPPeer>(client, namespace, name, &wanted).await;
        }
    }
    for (name, agent) in &view.agents {
        let wanted = agent_status(agent, now);
        if agent.status.as_ref() != Some(&wanted) {
            is_done &= write::<LBNodeAgent>(client, namespace, name, &wanted).await;
        }
    }
    is_done
}

async fn write<K>(client: &Client, namespace: &str, name: &str, status: &impl Serialize) -> bool
where
    K: Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({"status": status}));
    match api.patch_status(name, &PatchParams::default(), &patch).await {
        Ok(_) => true,
        Err(kube::Error::Api(error)) if error.code == 404 => true,
        Err(error) => {
            tracing::debug!(name, %error, "status not written, trying again");
            false
        }
    }
}

fn accepted(result: Result<(), Refusal>, generation: Option<i64>) -> Condition {
    match result {
        Ok(()) => condition::new(condition::ACCEPTED, true, reason::ACCEPTED, "", generation),
        Err(refusal) => {
            condition::new(condition::ACCEPTED, false, refusal.reason, refusal.to_string(), generation)
        }
    }
}

fn peer_status<'a>(
    peer: &BGPPeer,
    nodes: impl Iterator<Item = &'a BGPNodeStatus>,
    node: &NodeInput,
    now: Timestamp,
) -> BGPPeerStatus {
    let name = peer.name_any();
    let sessions: Vec<_> = nodes
        .filter_map(|node| node.status.as_ref())
        .filter_map(|status| status.peers.iter().find(|session| session.name == name))
        .collect();
    let matched = sessions.len();
    let established = sessions.iter().filter(|session| session.state == SessionState::Established).count();
    // Interfaces are the nodes' own: a node without the interface says so in its BGPNodeStatus. Secrets are the
    // namespace's, and the nodes that watch them say what is wrong with them.
    let result = bgp_peer::parse(&name, &peer.spec, node, Surroundings::ANYWHERE)
        .and_then(|_| advertisement::parse(&peer.spec.advertisements))
        .and_then(|_| refusal(&sessions).map_or(Ok(()), Err));
    let generation = peer.metadata.generation;
    let message = format!("established on {established} of {matched} nodes");
    let ready = match matched {
        0 => condition::new(condition::READY, false, reason::NO_NODES, "no node peers with it", generation),
        all if established == all => {
            condition::new(condition::READY, true, reason::ESTABLISHED, message, generation)
        }
        _ => condition::new(condition::READY, false, reason::NOT_ESTABLISHED, message, generation),
    };
    let mut conditions = peer.status.clone().unwrap_or_default().conditions;
    condition::set(&mut conditions, accepted(result, generation), now);
    condition::set(&mut conditions, ready, now);
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    BGPPeerStatus { conditions, matched_nodes: count(matched), established_nodes: count(established) }
}

/// What the nodes refuse: the Secret, which is the same for all of them, or anything else where no node accepts it, as
/// an address that another BGPPeer has there.
fn refusal(sessions: &[&NodePeerStatus]) -> Option<Refusal> {
    let is_refused_by_all = sessions.iter().all(|session| refusal_of(session).is_some());
    let mut refusals = sessions.iter().filter_map(|session| refusal_of(session));
    refusals.find(|refusal| is_refused_by_all || refusal.reason == reason::SECRET_NOT_USABLE)
}

/// What a node says of a session that it refuses.
fn refusal_of(session: &NodePeerStatus) -> Option<Refusal> {
    let (path, message) = session.last_error.as_ref()?.strip_prefix(REFUSED)?.split_once(": ")?;
    let reason = if secret::is_about_secret(path) { reason::SECRET_NOT_USABLE } else { reason::INVALID };
    Some(Refusal { reason, path: path.to_owned(), message: message.to_owned() })
}

fn agent_status(agent: &LBNodeAgent, now: Timestamp) -> LBNodeAgentStatus {
    let result = node_agent::parse(&agent.spec, "").map(drop);
    let mut conditions = agent.status.clone().unwrap_or_default().conditions;
    condition::set(&mut conditions, accepted(result, agent.metadata.generation), now);
    LBNodeAgentStatus { conditions }
}

#[cfg(test)]
mod tests {
    use api::{BGPNodeStatusStatus, bgp_node_status::BGPNodeStatusSpec};

    use super::*;

    fn peer(yaml: &str) -> BGPPeer {
        let mut peer = BGPPeer::new("tor1", serde_norway::from_str(yaml).unwrap());
        peer.metadata.generation = Some(3);
        peer
    }

    fn node(name: &str, state: SessionState) -> BGPNodeStatus {
        let mut node = BGPNodeStatus::new(name, BGPNodeStatusSpec::default());
        let session = NodePeerStatus { name: "tor1".to_owned(), state, ..NodePeerStatus::default() };
        node.status = Some(BGPNodeStatusStatus { peers: vec![session], ..BGPNodeStatusStatus::default() });
        node
    }

    fn status(peer: &BGPPeer, nodes: &[BGPNodeStatus]) -> BGPPeerStatus {
        peer_status(peer, nodes.iter(), &NodeInput::default(), Timestamp::from_second(9).unwrap())
    }

    #[test]
    fn a_peer_is_ready_when_every_matched_node_is_established() {
        let peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1}");
        for (nodes, established, ready, why) in [
            (vec![], 0, false, "NoNodes"),
            (
                vec![node("a", SessionState::Established), node("b", SessionState::Active)],
                1,
                false,
                "NotEstablished",
            ),
            (
                vec![node("a", SessionState::Established), node("b", SessionState::Established)],
                2,
                true,
                "Established",
            ),
        ] {
            let status = status(&peer, &nodes);
            assert_eq!(status.matched_nodes, i64::try_from(nodes.len()).unwrap());
            assert_eq!(status.established_nodes, established);
            assert!(condition::is_true(&status.conditions, condition::ACCEPTED));
            assert_eq!(condition::is_true(&status.conditions, condition::READY), ready);
            assert_eq!(status.conditions[1].reason, why);
        }
    }

    #[test]
    fn a_refused_peer_says_which_field_and_writing_settles() {
        let mut peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, sourceAddress: '2001:db8::1'}");
        let first = status(&peer, &[]);
        let accepted = &first.conditions[0];
        assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "Invalid"));
        assert!(accepted.message.contains("spec.sourceAddress") && accepted.observed_generation == Some(3));
        peer.status = Some(first.clone());
        let later = peer_status(
            &peer,
            std::iter::empty(),
            &NodeInput::default(),
            Timestamp::from_second(99).unwrap(),
        );
        assert_eq!(later, first, "nothing changed, nothing to write");
    }

    #[test]
    fn a_secret_that_a_node_cannot_use_is_in_the_condition() {
        let peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, passwordSecret: {name: s}}");
        let mut reporting = node("a", SessionState::Idle);
        let refusal = secret::Known::Missing.key("s").unwrap_err();
        reporting.status.as_mut().unwrap().peers[0].last_error = Some(format!("{REFUSED}{refusal}"));
        let accepted = &status(&peer, &[reporting]).conditions[0];
        assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "SecretNotUsable"));
        assert!(accepted.message.contains("there is no Secret s"), "{accepted:?}");
        let accepted = &status(&peer, &[node("a", SessionState::Active)]).conditions[0];
        assert_eq!(accepted.status, "True");
    }

    #[test]
    fn what_every_node_refuses_is_not_accepted() {
        for (advertisement, field) in [
            ("communities: ['70000:1']", "spec.advertisements[0].communities[0]"),
            ("nextHop: 224.0.0.1", "spec.advertisements[0].nextHop"),
        ] {
            let peer = peer(&format!(
                "{{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, advertisements: [{{{advertisement}}}]}}"
            ));
            let accepted = &status(&peer, &[]).conditions[0];
            assert!(accepted.status == "False" && accepted.message.contains(field), "{accepted:?}");
        }
        let peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1}");
        let mut refusing = node("a", SessionState::Idle);
        let refusal = Refusal::invalid("spec.peerAddress", "BGPPeer tor0 has the same address on this node");
        refusing.status.as_mut().unwrap().peers[0].last_error = Some(format!("{REFUSED}{refusal}"));
        let accepted = &status(&peer, std::slice::from_ref(&refusing)).conditions[0];
        assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "Invalid"));
        assert!(accepted.message.contains("BGPPeer tor0"), "{accepted:?}");
        let accepted = &status(&peer, &[refusing, node("b", SessionState::Active)]).conditions[0];
        assert_eq!(accepted.status, "True", "b has a session");
    }

    #[test]
    fn an_agent_object_that_is_refused_says_which_field() {
        let spec = serde_norway::from_str("local: {localInterface: 'eth['}").unwrap();
        let status = agent_status(&LBNodeAgent::new("x", spec), Timestamp::UNIX_EPOCH);
        assert!(status.conditions[0].message.contains("spec.local.localInterface"));
    }
}
