//! Status of BGPPeers and LBNodeAgents, which are about all nodes: written by one agent, the one that holds the
//! Lease `purelb-bgppeer-status`. Each agent's own view is in its BGPNodeStatus, and this agent alone watches
//! those, so that N agents cost N events here and none elsewhere. The other agents see these writes as changes
//! of no meaning: they look at specs only.
//!
//! What a node has said last may be old: of one that has lost its power nobody changes the BGPNodeStatus. So only nodes
//! with a good Lease count, and the others are named.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    BGPNodeStatus, BGPPeer, BGPPeerStatus, LBNodeAgent, NodePeerStatus, Refusal,
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
        secret,
    },
    lease::SharedLease,
    members::Roster,
    peers::PeerSet,
};

/// The Lease.
pub const LEASE: &str = "purelb-bgppeer-status";
/// Least time between two rounds of writes.
const PACE: Duration = Duration::from_secs(1);

/// How many nodes a message names.
const NAMED: usize = 10;

mod agents;
#[cfg(test)]
mod tests;

/// What the report is made of beside what is watched for it.
#[derive(Clone, Debug)]
pub struct Sources {
    /// This node, and its peers.
    pub peers: watch::Receiver<Arc<PeerSet>>,
    /// Which nodes live.
    pub roster: watch::Receiver<Option<Arc<Roster>>>,
}

/// Takes part in the Lease, and reports while it is held.
pub async fn run(client: Client, namespace: String, node_name: String, sources: Sources) {
    let lease = SharedLease::new(client.clone(), &namespace, LEASE, &node_name);
    let mut reporter: Option<tokio::task::JoinHandle<()>> = None;
    loop {
        let (is_held, again) = lease.keep().await;
        match (is_held, reporter.take()) {
            (true, Some(running)) if !running.is_finished() => reporter = Some(running),
            (true, _) => {
                tracing::info!("this agent reports the status of BGPPeers and LBNodeAgents");
                let report = report(client.clone(), namespace.clone(), sources.clone());
                reporter = Some(tokio::spawn(report));
            }
            (false, Some(running)) => running.abort(),
            (false, None) => {}
        }
        if sources.peers.has_changed().is_err() {
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

async fn report(client: Client, namespace: String, mut sources: Sources) {
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
            changed = sources.peers.changed() => if changed.is_err() { return },
            changed = sources.roster.changed() => if changed.is_err() { return },
            () = sleep_until(due) => {
                let set = sources.peers.borrow_and_update().clone();
                let roster = sources.roster.borrow_and_update().clone();
                let is_done = match (&set.node, roster) {
                    (Some(node), Some(roster)) => write_all(&client, &namespace, &view, node, &roster).await,
                    // Each of them wakes us when it comes.
                    _ => true,
                };
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
async fn write_all(client: &Client, namespace: &str, view: &View, node: &NodeInput, roster: &Roster) -> bool {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut is_done = true;
    for (name, peer) in &view.peers {
        let wanted = peer_status(peer, view.nodes.values(), node, roster, now);
        if peer.status.as_ref() != Some(&wanted) {
            is_done &= write::<BGPPeer>(client, namespace, name, &wanted).await;
        }
    }
    for (name, agent) in &view.agents {
        let wanted = agents::status(agent, roster, now);
        if agent.status.as_ref() != Some(&wanted) {
            let is_written = write::<LBNodeAgent>(client, namespace, name, &wanted).await;
            if is_written {
                agents::tell(client, &node.name, agent, &wanted).await;
            }
            is_done &= is_written;
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
    roster: &Roster,
    now: Timestamp,
) -> BGPPeerStatus {
    let name = peer.name_any();
    let census = Census::take(&name, nodes, roster);
    // Interfaces are the nodes' own: a node without the interface says so in its BGPNodeStatus. Secrets are the
    // namespace's, and the nodes that watch them say what is wrong with them.
    let result = bgp_peer::parse(&name, &peer.spec, node, Surroundings::ANYWHERE)
        .and_then(|_| advertisement::parse(&peer.spec.advertisements))
        .and_then(|_| refusal(&census.sessions).map_or(Ok(()), Err));
    let generation = peer.metadata.generation;
    let mut conditions = peer.status.clone().unwrap_or_default().conditions;
    condition::set(&mut conditions, accepted(result, generation), now);
    condition::set(&mut conditions, census.ready(generation), now);
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    BGPPeerStatus {
        conditions,
        matched_nodes: count(census.matched()),
        established_nodes: count(census.established),
    }
}

/// How a peer stands on all nodes that it is for.
struct Census<'a> {
    /// What nodes say that live.
    sessions: Vec<&'a NodePeerStatus>,
    /// How many of these sessions are established.
    established: usize,
    /// Nodes that live, where it is not.
    waiting: Vec<&'a str>,
    /// Nodes that do not, whatever they said last.
    gone: Vec<&'a str>,
}

impl<'a> Census<'a> {
    fn take(peer: &str, nodes: impl Iterator<Item = &'a BGPNodeStatus>, roster: &Roster) -> Census<'a> {
        let mut census =
            Census { sessions: Vec::new(), established: 0, waiting: Vec::new(), gone: Vec::new() };
        for node in nodes {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let sessions = node.status.iter().flat_map(|status| &status.peers);
            let Some(session) = sessions.into_iter().find(|session| session.name == peer) else { continue };
            if !roster.get(name).is_some_and(|member| member.is_live) {
                census.gone.push(name);
                continue;
            }
            census.sessions.push(session);
            match session.state {
                SessionState::Established => census.established += 1,
                _ => census.waiting.push(name),
            }
        }
        census
    }

    fn matched(&self) -> usize {
        self.sessions.len() + self.gone.len()
    }

    fn ready(&self, generation: Option<i64>) -> Condition {
        let new = |is_ready, reason, message: &str| {
            condition::new(condition::READY, is_ready, reason, message, generation)
        };
        if self.matched() == 0 {
            return new(false, reason::NO_NODES, "no node peers with it");
        }
        let mut message = format!("established on {} of {} nodes", self.established, self.matched());
        if !self.waiting.is_empty() {
            message.push_str(&format!("; not on {}", listed(&self.waiting)));
        }
        if !self.gone.is_empty() {
            message.push_str(&format!("; no agent with a good Lease on {}", listed(&self.gone)));
        }
        match self.established == self.matched() {
            true => new(true, reason::ESTABLISHED, &message),
            false => new(false, reason::NOT_ESTABLISHED, &message),
        }
    }
}

/// The first of these names, and how many there are beside.
fn listed(names: &[&str]) -> String {
    let first = names.get(..NAMED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
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
