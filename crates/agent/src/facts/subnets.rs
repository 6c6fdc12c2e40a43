//! The subnets of this node: those of the interfaces that the LBNodeAgent selects, as far as they have a carrier or
//! have lost it just now.
//! Never from our own addresses, which carry our mark.
//!
//! The kernel tells of changes on the selected interfaces and of default routes at once; a new interface that matches a
//! pattern is found when everything is looked at again. Routes are asked for only after such news: a node may have a
//! million. What our own addresses do is no news.

#[cfg(test)]
mod tests;
mod unfit;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use api::{AddressConflict, NodeAgentUse};
use ipnet::IpNet;
use netlink::{DefaultRoute, Error, Event, Mac, Monitor, MonitorError, Netlink};
use tokio::sync::watch;

pub use self::view::Added;
pub(crate) use self::view::anchored;
use self::view::{Listing, Seen, View, is_ours};
use crate::inputs::node_agent::Selection;

/// How often everything is looked at, whatever the kernel tells.
const LOOK: Duration = Duration::from_secs(10);
/// Wait after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Events of the kernel come in bunches.
const SETTLE: Duration = Duration::from_millis(50);

/// What has to be known to find the subnets of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Name of the node.
    pub node: String,
    /// UID of the Node.
    pub node_uid: String,
    /// The interfaces of local addresses.
    pub selection: Selection,
    /// The interface of remote addresses: never one of them.
    pub dummy_interface: String,
    /// The LBNodeAgent that says so, if one does.
    pub agent: Option<String>,
    /// Whether the node is labelled so that it announces nothing: then it offers no subnet.
    pub is_excluded: bool,
    /// Where heartbeats are heard; `None` without a key for them.
    pub heartbeat_port: Option<u16>,
}

/// What this node tells the cluster of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// UID of the Node.
    pub node_uid: String,
    /// Subnets that it serves.
    pub subnets: BTreeSet<IpNet>,
    /// Where it hears heartbeats, one address a subnet.
    pub heartbeats: BTreeSet<SocketAddr>,
    /// The interfaces of local addresses, by name.
    pub interfaces: Vec<LocalInterface>,
    /// The LBNodeAgent for this node, and what of it cannot be used here.
    pub agent: Option<NodeAgentUse>,
    /// Ethernet addresses that this node may answer with on its subnets.
    pub macs: BTreeSet<Mac>,
    /// Addresses of ours for which strangers answer there.
    pub conflicts: BTreeSet<AddressConflict>,
}

/// An interface that local addresses go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalInterface {
    /// Its name.
    pub name: Arc<str>,
    /// Its index.
    pub index: u32,
    /// Its Ethernet address, where it has one.
    pub mac: Option<Mac>,
    /// Its subnets, each with the address that this node is known by there; none after [`crate::claim::CARRIER_WAIT`]
    /// without a carrier.
    pub subnets: BTreeMap<IpNet, IpAddr>,
    /// This node's own addresses on it.
    pub addresses: BTreeSet<IpAddr>,
}

/// What the observer is told.
#[derive(Debug)]
pub struct Sources {
    /// What to look for.
    pub membership: watch::Receiver<Option<Membership>>,
    /// What claims have met with.
    pub conflicts: watch::Receiver<BTreeSet<AddressConflict>>,
    /// What claims have put on interfaces.
    pub added: watch::Receiver<Added>,
}

/// Observes until nobody says any more what to observe.
///
/// # Errors
/// The kernel gives no socket.
pub async fn run(mut sources: Sources, facts: watch::Sender<Option<NodeFacts>>) -> Result<(), Error> {
    let mut observer = Observer {
        netlink: Netlink::open()?,
        monitor: None,
        seen: Seen::default(),
        routes: None,
        added: sources.added,
    };
    loop {
        let current = sources.membership.borrow_and_update().clone();
        let mut wait = LOOK;
        if let Some(member) = current {
            match observer.look(&member).await {
                Ok(view) => {
                    wait = observer.follow(&view);
                    let conflicts = sources.conflicts.borrow_and_update().clone();
                    tell(&facts, node_facts(&member, view, conflicts));
                }
                // Unknown is not gone: what was said stays.
                Err(error) => {
                    tracing::warn!(%error, "the subnets of this node could not be listed, trying again");
                    wait = RETRY;
                }
            }
        }
        tokio::select! {
            changed = sources.membership.changed() => if changed.is_err() { return Ok(()) },
            changed = sources.conflicts.changed() => if changed.is_err() { return Ok(()) },
            told = observer.news() => observer.settle(told).await,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Observer {
    netlink: Netlink,
    /// With what it watches.
    monitor: Option<(BTreeMap<String, u32>, Monitor)>,
    seen: Seen,
    /// `None`: to be asked for.
    routes: Option<Vec<DefaultRoute>>,
    added: watch::Receiver<Added>,
}

impl Observer {
    async fn look(&mut self, member: &Membership) -> Result<View, Error> {
        let routes = match self.routes.take() {
            Some(routes) => routes,
            None => self.netlink.default_routes().await?,
        };
        // Ours before and after: what comes or goes while the kernel lists it is not taken for the node's own.
        let mut added = self.added.borrow().clone();
        let links = self.netlink.links().await?;
        let addresses = self.netlink.addresses(None).await?;
        added.extend(self.added.borrow().iter().copied());
        let listing = Listing { links, addresses, routes, added };
        let view = self.seen.view(member, &listing, Instant::now());
        self.routes = Some(listing.routes);
        Ok(view)
    }

    /// Watches what is to be watched. How long to wait before everything is looked at again.
    fn follow(&mut self, view: &View) -> Duration {
        let until = view.until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = until.map_or(LOOK, |until| until.min(LOOK));
        if self.monitor.as_ref().is_some_and(|(watched, _)| *watched == view.watched) {
            return wait;
        }
        self.monitor = monitor(&view.watched).map(|monitor| (view.watched.clone(), monitor));
        self.routes = None;
        // What happened before the monitor was there is seen by looking again.
        if self.monitor.is_some() { Duration::ZERO } else { wait.min(RETRY) }
    }

    /// Waits for news that matter, for ever without a monitor.
    async fn news(&mut self) -> Result<(), MonitorError> {
        let Some((_, monitor)) = &mut self.monitor else { return std::future::pending().await };
        loop {
            let event = monitor.next().await?;
            if is_news(&event, &self.added.borrow()) {
                return Ok(());
            }
        }
    }

    /// Lets a bunch of news come, and takes them all: one look does for them.
    async fn settle(&mut self, told: Result<(), MonitorError>) {
        self.routes = None;
        let settled = match told {
            Ok(()) => {
                tokio::time::sleep(SETTLE).await;
                self.monitor.as_mut().map_or(Ok(()), |(_, monitor)| drain(monitor))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            tracing::warn!(%error, "the kernel's notifications end, opening them anew");
            self.monitor = None;
        }
    }
}

fn drain(monitor: &mut Monitor) -> Result<(), MonitorError> {
    while monitor.try_next()?.is_some() {}
    Ok(())
}

/// Whether the view may be another one after this event. Our own addresses come, are renewed and go all the time.
fn is_news(event: &Event, added: &Added) -> bool {
    match event {
        Event::AddressAdded(address) | Event::AddressRemoved(address) => !is_ours(address, added),
        _ => true,
    }
}

fn monitor(interfaces: &BTreeMap<String, u32>) -> Option<Monitor> {
    match Monitor::open(interfaces.keys().cloned()) {
        Ok(mut monitor) => {
            interfaces.values().filter(|index| **index != 0).for_each(|index| monitor.watch(*index));
            Some(monitor)
        }
        Err(error) => {
            tracing::warn!(%error, "changes of interfaces are seen late");
            None
        }
    }
}

fn tell(facts: &watch::Sender<Option<NodeFacts>>, now: NodeFacts) {
    facts.send_if_modified(|told| {
        let is_news = told.as_ref() != Some(&now);
        if is_news {
            if told.as_ref().map(|told| &told.subnets) != Some(&now.subnets) {
                tracing::info!(event = "subnetsChanged", subnets = ?now.subnets, "subnets of this node");
            }
            *told = Some(now);
        }
        is_news
    });
}

fn node_facts(member: &Membership, view: View, conflicts: BTreeSet<AddressConflict>) -> NodeFacts {
    let View { interfaces, macs, unfit, .. } = view;
    let mut served = BTreeMap::new();
    if !member.is_excluded {
        served.extend(interfaces.iter().flat_map(|interface| interface.subnets.clone()));
    }
    // A node that is to announce nothing is still heard: what it holds is kept until those who win it have asked.
    let heard: BTreeMap<_, _> = interfaces.iter().flat_map(|interface| interface.subnets.clone()).collect();
    let heartbeat = |port| heard.values().map(move |address| SocketAddr::new(*address, port));
    NodeFacts {
        node_uid: member.node_uid.clone(),
        heartbeats: member.heartbeat_port.into_iter().flat_map(heartbeat).collect(),
        subnets: served.keys().copied().collect(),
        interfaces,
        agent: member.agent.clone().map(|name| NodeAgentUse { name, unfit }),
        macs,
        conflicts,
    }
}
