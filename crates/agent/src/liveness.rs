//! Who lives on this node's subnets, by heartbeats: a group of [`heartbeat`] for each of them, on a thread of its own that
//! goes before others, so that neither a busy planner nor a busy node makes us late or dead.
//!
//! Not here: who may be a member (that is [`crate::members`]), and what follows from a death. The thread holds groups and
//! sockets; it is told of interfaces, members and readiness by `watch`es, and tells who lives by another.

mod thread;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use heartbeat::{Standing, State};
use ipnet::IpNet;
use netlink::Mac;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    claim::Outgoing,
    facts::subnets::NodeFacts,
    members::{Member, Roster},
    metrics::local::HeartbeatMetrics,
};

/// How long the others may take to acknowledge that this node leaves.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Who lives on which subnet. A subnet without heartbeats is not in it, nor is a node that sends none there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    members: BTreeMap<IpNet, BTreeMap<Arc<str>, State>>,
    /// Those not heard yet that were registered before this node began to listen on the subnet: for one detection time
    /// it cannot know better. Whoever comes later has to be heard first.
    awaited: BTreeSet<(IpNet, Arc<str>)>,
    /// The subnets where this node listens and knows who is there.
    settled: BTreeSet<IpNet>,
    /// Those where there are others and none of them was heard for half a detection time when one of them was told dead, or
    /// anything else was told: half, so that it is known with the first death of those who fall silent together.
    alone: BTreeSet<IpNet>,
}

impl Liveness {
    /// How a node stands on a subnet; `None`: nothing is to be heard of it there, so its Lease has to do.
    pub fn state(&self, subnet: &IpNet, node: &str) -> Option<State> {
        self.members.get(subnet)?.get(node).copied()
    }

    /// Whether a node may be given addresses of a subnet. Its Lease decides where there is nothing to be heard of it, and
    /// where this node has only begun to listen. One that joins takes no address away from its holder before it has said
    /// that it is there and ready, also while its Lease is known and those who are to hear it have not been told yet.
    pub fn can_serve(&self, subnet: &IpNet, node: &str, lease: &Member) -> bool {
        match self.state(subnet, node) {
            None => {
                let hears = lease.heartbeats.iter().any(|address| subnet.contains(&address.ip()));
                lease.is_live && !(hears && self.settled.contains(subnet))
            }
            Some(state) if state.standing == Standing::Unknown => {
                lease.is_live && self.awaited.contains(&(*subnet, node.into()))
            }
            Some(state) => state.is_alive() && state.is_ready && !state.is_leaving,
        }
    }

    /// Whether a node lives, by what is heard of it on any subnet; `None`: nothing is to be heard of it.
    pub fn is_alive(&self, node: &str) -> Option<bool> {
        let states = self.members.values().filter_map(|members| members.get(node));
        let known = states.filter(|state| state.standing != Standing::Unknown);
        known.map(State::is_alive).reduce(|one, other| one || other)
    }

    /// Whether a node can ask for an address that is kept for it: it takes messages on some subnet, and is not dead there.
    /// One that has not been heard yet asks as soon as it is.
    pub fn can_ask(&self, node: &str) -> bool {
        let mut states = self.members.values().filter_map(|members| members.get(node));
        states.any(|state| state.standing != Standing::Dead)
    }

    /// Link-layer addresses of a node on these subnets, as it has said them, also while it was alive.
    pub fn macs(&self, node: &str) -> Vec<Mac> {
        let states = self.members.values().filter_map(|members| members.get(node));
        let mut macs: Vec<Mac> = states.filter(|it| it.mac != [0; 6]).map(|state| Mac(state.mac)).collect();
        macs.sort_unstable();
        macs.dedup();
        macs
    }

    /// Whether others are registered on a subnet where this node listens, and it heard none of them for a while.
    pub fn is_alone(&self, subnet: &IpNet) -> bool {
        self.alone.contains(subnet)
    }

    /// The subnets with heartbeats, and who is heard there.
    pub fn subnets(&self) -> impl Iterator<Item = (&IpNet, &BTreeMap<Arc<str>, State>)> {
        self.members.iter()
    }
}

/// A payload that another node has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its name.
    pub from: Arc<str>,
    /// The payload.
    pub octets: Vec<u8>,
}

/// What the thread is told, and where it tells.
#[derive(Debug)]
pub struct Channels {
    /// This node's interfaces, and where it hears heartbeats.
    pub facts: watch::Receiver<Option<NodeFacts>>,
    /// Every node with a Lease.
    pub roster: watch::Receiver<Option<Arc<Roster>>>,
    /// When this node's plan was applied for the first time: since then it can take addresses.
    pub applied_at: watch::Receiver<Option<Instant>>,
    /// Payloads for other nodes. One that cannot be delivered is dropped: who sends it has to ask again anyway.
    pub outgoing: mpsc::UnboundedReceiver<Outgoing>,
    /// Payloads of other nodes.
    pub incoming: mpsc::UnboundedSender<Incoming>,
    /// What is counted.
    pub metrics: HeartbeatMetrics,
}

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Heartbeats {
    liveness: watch::Receiver<Arc<Liveness>>,
    leave: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl Heartbeats {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system gives neither thread nor runtime.
    pub fn start(
        node: Arc<str>,
        config: heartbeat::Config,
        channels: Channels,
    ) -> std::io::Result<Heartbeats> {
        let (tell, liveness) = watch::channel(Arc::default());
        let (leave, leaving) = mpsc::unbounded_channel();
        thread::start(node, config, channels, leaving, tell)?;
        Ok(Heartbeats { liveness, leave })
    }

    /// Who lives, now and from now on.
    pub fn liveness(&self) -> watch::Receiver<Arc<Liveness>> {
        self.liveness.clone()
    }

    /// Waits for the end of the thread, which comes before this is dropped only if it cannot go on.
    pub async fn ended(&self) {
        let mut liveness = self.liveness();
        while liveness.changed().await.is_ok() {}
    }

    /// Tells all others that this node is about to end, and returns when they know it and have all messages that were
    /// sent before, or should. Heartbeats and messages go on until this is dropped.
    pub async fn leave(&self) {
        let (done, answer) = oneshot::channel();
        if self.leave.send(done).is_ok() && tokio::time::timeout(LAST_WORDS, answer).await.is_err() {
            tracing::warn!("not all nodes have acknowledged that this one leaves, and what it said last");
        }
    }
}

#[cfg(test)]
mod tests;
