//! The subnets of this node: those of the interfaces that the LBNodeAgent selects, as far as they have a carrier.
//! Never from our own addresses, which carry our mark.
//!
//! The kernel tells of changes on the selected interfaces at once; another default route, or a new interface that
//! matches, is found when everything is looked at again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use api::AddressConflict;
use ipnet::IpNet;
use netlink::{Address, DefaultRoute, Error, Link, Mac, Monitor, Netlink};
use regex::Regex;
use tokio::sync::watch;

use crate::inputs::node_agent::{LocalInterface as Local, Selection};

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
    /// Its subnets, each with this node's first address there; none while there is no carrier.
    pub subnets: BTreeMap<IpNet, IpAddr>,
    /// This node's own addresses on it.
    pub addresses: BTreeSet<IpAddr>,
}

/// The selected interfaces.
#[derive(Debug, Default, PartialEq, Eq)]
struct View {
    /// Name and index of those to watch; one that is not there has none.
    watched: BTreeMap<String, u32>,
    interfaces: Vec<LocalInterface>,
}

/// Observes until nobody says any more what to observe. `conflicts` are what claims have met with.
pub async fn run(
    mut membership: watch::Receiver<Option<Membership>>,
    mut conflicts: watch::Receiver<BTreeSet<AddressConflict>>,
    facts: watch::Sender<Option<NodeFacts>>,
) {
    let netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => {
            tracing::error!(%error, "the subnets of this node stay unknown");
            return;
        }
    };
    let mut watched: Option<(BTreeMap<String, u32>, Monitor)> = None;
    loop {
        let current = membership.borrow_and_update().clone();
        let mut wait = LOOK;
        if let Some(member) = current {
            match look(&netlink, &member).await {
                Ok(view) => {
                    if watched.as_ref().is_none_or(|(interfaces, _)| *interfaces != view.watched) {
                        watched = monitor(&view.watched).map(|monitor| (view.watched, monitor));
                        // What happened before the monitor was there is seen by looking again.
                        wait = if watched.is_some() { Duration::ZERO } else { RETRY };
                    }
                    tell(&facts, node_facts(&member, view.interfaces, conflicts.borrow_and_update().clone()));
                }
                // Unknown is not gone: what was said stays.
                Err(error) => {
                    tracing::warn!(%error, "the subnets of this node could not be listed, trying again");
                    wait = RETRY;
                }
            }
        }
        tokio::select! {
            changed = membership.changed() => if changed.is_err() { return },
            changed = conflicts.changed() => if changed.is_err() { return },
            is_lost = next_event(watched.as_mut().map(|(_, monitor)| monitor)) => {
                if is_lost {
                    watched = None;
                }
                tokio::time::sleep(SETTLE).await;
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Waits for an event on the watched interfaces, for ever without any; whether the monitor is of no use any more.
async fn next_event(monitor: Option<&mut Monitor>) -> bool {
    let Some(monitor) = monitor else { return std::future::pending().await };
    match monitor.next().await {
        Ok(_) => false,
        Err(error) => {
            tracing::warn!(%error, "the kernel's notifications end, opening them anew");
            true
        }
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

async fn look(netlink: &Netlink, member: &Membership) -> Result<View, Error> {
    let routes = netlink.default_routes().await?;
    let links = netlink.links().await?;
    let addresses = netlink.addresses(None).await?;
    Ok(view(member, &links, &addresses, &routes))
}

fn tell(facts: &watch::Sender<Option<NodeFacts>>, now: NodeFacts) {
    facts.send_if_modified(|told| {
        let is_news = told.as_ref() != Some(&now);
        if is_news {
            if told.as_ref().map(|told| &told.subnets) != Some(&now.subnets) {
                tracing::info!(subnets = ?now.subnets, "subnets of this node");
            }
            *told = Some(now);
        }
        is_news
    });
}

fn node_facts(
    member: &Membership,
    interfaces: Vec<LocalInterface>,
    conflicts: BTreeSet<AddressConflict>,
) -> NodeFacts {
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
        conflicts,
    }
}

fn view(member: &Membership, links: &[Link], addresses: &[Address], routes: &[DefaultRoute]) -> View {
    let selection = &member.selection;
    let by_default = routes.first().map(|route| route.index);
    let pattern = match &selection.local {
        Local::Default | Local::Unknown => None,
        Local::Matching(pattern) => Regex::new(&anchored(pattern)).ok(),
    };
    let is_selected = |link: &&Link| {
        let is_local = match &pattern {
            None => selection.local == Local::Default && by_default == Some(link.index),
            Some(pattern) => pattern.is_match(&link.name),
        };
        // A port of a bridge or a bond has no addresses of its own; on a link without ARP nobody is asked.
        let can_announce = !link.is_loopback && !link.is_noarp && link.controller.is_none();
        (is_local || selection.more.contains(&link.name))
            && can_announce
            && link.name != member.dummy_interface
    };
    let mut view = View::default();
    // Those that are asked for by name are waited for.
    view.watched.extend(selection.more.iter().map(|name| (name.clone(), 0)));
    for link in links.iter().filter(is_selected) {
        view.watched.insert(link.name.clone(), link.index);
        view.interfaces.push(local_interface(link, addresses));
    }
    view.interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    view
}

fn local_interface(link: &Link, addresses: &[Address]) -> LocalInterface {
    let own = || addresses.iter().filter(|it| it.index == link.index && is_own(it));
    let mut subnets: BTreeMap<IpNet, IpAddr> = BTreeMap::new();
    if link.is_up && link.has_carrier {
        for address in own() {
            let Some(subnet) = subnet(address) else { continue };
            let first = subnets.entry(subnet).or_insert(address.prefix.addr());
            *first = (*first).min(address.prefix.addr());
        }
    }
    LocalInterface {
        name: link.name.as_str().into(),
        index: link.index,
        mac: link.hardware_address,
        subnets,
        addresses: own().map(|address| address.prefix.addr()).collect(),
    }
}

/// The pattern has to match the whole name.
pub(crate) fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// An address that is the node's own, and not one that we put there.
fn is_own(address: &Address) -> bool {
    !address.is_marked() && !address.is_link_local && !address.flags.is_duplicate
}

/// The subnet that an address of the node's own is in, if there is room for others in it.
fn subnet(address: &Address) -> Option<IpNet> {
    let is_host = address.prefix.prefix_len() == address.prefix.max_prefix_len();
    (!is_host).then(|| address.prefix.trunc())
}

#[cfg(test)]
mod tests {
    use netlink::{AddressFlags, Lifetime, PROTOCOL};

    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            is_up: true,
            has_carrier: true,
            is_loopback: name == "lo",
            is_noarp: false,
            is_operational: true,
            controller: None,
            kind: None,
            hardware_address: None,
        }
    }

    fn address(index: u32, prefix: &str) -> Address {
        Address {
            index,
            prefix: prefix.parse().unwrap(),
            protocol: None,
            flags: AddressFlags::default(),
            is_link_local: prefix.starts_with("fe80"),
            lifetime: Lifetime::Permanent,
        }
    }

    fn route(index: u32, metric: u32) -> DefaultRoute {
        DefaultRoute { index, gateway: None, metric, is_ipv6: false }
    }

    fn member(local: Local, more: &[&str]) -> Membership {
        Membership {
            node: "n1".to_owned(),
            node_uid: "u".to_owned(),
            selection: Selection { local, more: more.iter().map(|name| (*name).to_owned()).collect() },
            dummy_interface: "kube-lb0".to_owned(),
            is_excluded: false,
            heartbeat_port: Some(7473),
        }
    }

    fn matching(pattern: &str) -> Local {
        Local::Matching(pattern.to_owned())
    }

    fn host() -> (Vec<Link>, Vec<Address>) {
        let names = ["lo", "eth0", "eth1", "kube-lb0", "eth10"];
        let links = names.iter().zip(1..).map(|(name, index)| link(index, name)).collect();
        let addresses = [
            (1, "127.0.0.1/8"),
            (2, "192.0.2.7/24"),
            (2, "192.0.2.8/24"),
            (2, "fd00:1::7/64"),
            (2, "fe80::7/64"),
            (2, "10.9.9.9/32"),
            (3, "198.51.100.7/25"),
            (4, "203.0.113.1/24"),
            (5, "10.0.0.1/8"),
        ];
        (links, addresses.iter().map(|(index, prefix)| address(*index, prefix)).collect())
    }

    fn subnets(member: &Membership, links: &[Link], addresses: &[Address]) -> String {
        let view = view(member, links, addresses, &[route(2, 100), route(3, 200)]);
        api::node_lease::format_subnets(&node_facts(member, view.interfaces, BTreeSet::new()).subnets)
    }

    #[test]
    fn the_selected_interfaces_give_their_subnets_and_no_other() {
        let (links, addresses) = host();
        for (local, more, expected) in [
            (Local::Default, &[][..], "192.0.2.0/24,fd00:1::/64"),
            (Local::Default, &["eth1"], "192.0.2.0/24,198.51.100.0/25,fd00:1::/64"),
            (matching("eth1"), &[], "198.51.100.0/25"),
            (matching("eth[0-9]+"), &[], "10.0.0.0/8,192.0.2.0/24,198.51.100.0/25,fd00:1::/64"),
            (matching("eth9|eth1"), &[], "198.51.100.0/25"),
            // Neither loopback nor the interface of remote addresses.
            (matching(".*"), &["kube-lb0", "lo"], "10.0.0.0/8,192.0.2.0/24,198.51.100.0/25,fd00:1::/64"),
            (matching("wlan0"), &["eth7"], ""),
        ] {
            assert_eq!(
                subnets(&member(local.clone(), more), &links, &addresses),
                expected,
                "{local:?} {more:?}"
            );
        }
    }

    #[test]
    fn an_interface_that_cannot_be_announced_on_gives_none() {
        let breaks: [fn(&mut Link); 5] = [
            |link| link.has_carrier = false,
            |link| link.is_up = false,
            |link| link.is_noarp = true,
            |link| link.controller = Some(9),
            |link| link.is_loopback = true,
        ];
        for (number, break_it) in breaks.into_iter().enumerate() {
            let (mut links, addresses) = host();
            break_it(&mut links[1]);
            assert_eq!(subnets(&member(Local::Default, &[]), &links, &addresses), "", "{number}");
        }
    }

    #[test]
    fn addresses_of_ours_and_duplicates_make_no_subnet() {
        let (links, _) = host();
        let marked = Address { protocol: Some(PROTOCOL), ..address(2, "192.0.2.50/24") };
        let flags = AddressFlags { is_duplicate: true, ..AddressFlags::default() };
        let duplicate = Address { flags, ..address(2, "fd00:1::7/64") };
        assert_eq!(subnets(&member(Local::Default, &[]), &links, &[marked, duplicate]), "");
    }

    #[test]
    fn an_interface_without_carrier_is_watched_and_one_asked_for_by_name_is_waited_for() {
        let (mut links, addresses) = host();
        links[1].has_carrier = false;
        let view = view(&member(Local::Default, &["eth7"]), &links, &addresses, &[route(2, 0)]);
        assert!(view.interfaces[0].subnets.is_empty());
        assert_eq!(view.watched, BTreeMap::from([("eth0".to_owned(), 2), ("eth7".to_owned(), 0)]));
    }

    #[test]
    fn an_excluded_node_offers_no_subnet_but_is_heard_until_others_have_what_it_holds() {
        let (links, addresses) = host();
        let mut member = member(Local::Default, &[]);
        let view = || view(&member, &links, &addresses, &[route(2, 100)]).interfaces;
        let (interfaces, with) = (view(), node_facts(&member, view(), BTreeSet::new()));
        let heartbeats = api::node_lease::format_heartbeats(&with.heartbeats);
        assert_eq!(
            heartbeats.as_deref(),
            Some("192.0.2.7:7473,[fd00:1::7]:7473"),
            "the first of each subnet"
        );
        member.is_excluded = true;
        let without = node_facts(&member, interfaces.clone(), BTreeSet::new());
        assert_eq!((without.subnets.len(), without.heartbeats), (0, with.heartbeats));
        assert_eq!(without.interfaces, interfaces);
        let own = ["192.0.2.7", "192.0.2.8", "fd00:1::7", "10.9.9.9"].map(|address| address.parse().unwrap());
        assert_eq!(interfaces[0].addresses, own.into());
    }
}
