//! The subnets of this node: those of the interfaces that the LBNodeAgent selects, as far as they have a carrier.
//! Never from our own addresses, which carry our mark.
//!
//! The kernel tells of changes on the selected interfaces at once; another default route, or a new interface that
//! matches, is found when everything is looked at again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::AddressConflict;
use ipnet::IpNet;
use netlink::{Address, DefaultRoute, Error, Link, Monitor, Netlink};
use regex::Regex;
use tokio::sync::watch;

use crate::inputs::node_agent::{LocalInterface, Selection};

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
}

/// What this node tells the cluster of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// UID of the Node.
    pub node_uid: String,
    /// Subnets that it is on.
    pub subnets: BTreeSet<IpNet>,
    /// Addresses of ours for which strangers answer there.
    pub conflicts: BTreeSet<AddressConflict>,
}

/// The selected interfaces, and their subnets.
#[derive(Debug, Default, PartialEq, Eq)]
struct View {
    /// Name and index of the selected ones, with or without carrier.
    interfaces: BTreeMap<String, u32>,
    subnets: BTreeSet<IpNet>,
}

/// Observes until nobody says any more what to observe.
pub async fn run(
    mut membership: watch::Receiver<Option<Membership>>,
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
                    if watched.as_ref().is_none_or(|(interfaces, _)| *interfaces != view.interfaces) {
                        watched = monitor(&view.interfaces).map(|monitor| (view.interfaces, monitor));
                        // What happened before the monitor was there is seen by looking again.
                        wait = if watched.is_some() { Duration::ZERO } else { RETRY };
                    }
                    tell(&facts, &member, view.subnets);
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

fn tell(facts: &watch::Sender<Option<NodeFacts>>, member: &Membership, subnets: BTreeSet<IpNet>) {
    facts.send_if_modified(|told| {
        let conflicts = told.as_ref().map(|told| told.conflicts.clone()).unwrap_or_default();
        let now = Some(NodeFacts { node_uid: member.node_uid.clone(), subnets, conflicts });
        let is_news = *told != now;
        if is_news {
            tracing::info!(subnets = ?now.as_ref().map(|now| &now.subnets), "subnets of this node");
            *told = now;
        }
        is_news
    });
}

fn view(member: &Membership, links: &[Link], addresses: &[Address], routes: &[DefaultRoute]) -> View {
    let selection = &member.selection;
    let by_default = routes.first().map(|route| route.index);
    let pattern = match &selection.local {
        LocalInterface::Default => None,
        LocalInterface::Matching(pattern) => Regex::new(&anchored(pattern)).ok(),
    };
    let is_selected = |link: &&Link| {
        let is_local = match &pattern {
            None => selection.local == LocalInterface::Default && by_default == Some(link.index),
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
    view.interfaces.extend(selection.more.iter().map(|name| (name.clone(), 0)));
    for link in links.iter().filter(is_selected) {
        view.interfaces.insert(link.name.clone(), link.index);
        if link.is_up && link.has_carrier {
            let of_link = addresses.iter().filter(|address| address.index == link.index);
            view.subnets.extend(of_link.filter_map(subnet));
        }
    }
    view
}

/// The pattern has to match the whole name.
pub(crate) fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// The subnet that an address of the node's own is in, if there is room for others in it.
fn subnet(address: &Address) -> Option<IpNet> {
    let is_host = address.prefix.prefix_len() == address.prefix.max_prefix_len();
    let is_usable = !address.is_marked() && !address.is_link_local && !address.flags.is_duplicate;
    (is_usable && !is_host).then(|| address.prefix.trunc())
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

    fn member(local: LocalInterface, more: &[&str]) -> Membership {
        Membership {
            node: "n1".to_owned(),
            node_uid: "u".to_owned(),
            selection: Selection { local, more: more.iter().map(|name| (*name).to_owned()).collect() },
            dummy_interface: "kube-lb0".to_owned(),
        }
    }

    fn matching(pattern: &str) -> LocalInterface {
        LocalInterface::Matching(pattern.to_owned())
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
        api::node_lease::format_subnets(&view.subnets)
    }

    #[test]
    fn the_selected_interfaces_give_their_subnets_and_no_other() {
        let (links, addresses) = host();
        for (local, more, expected) in [
            (LocalInterface::Default, &[][..], "192.0.2.0/24,fd00:1::/64"),
            (LocalInterface::Default, &["eth1"], "192.0.2.0/24,198.51.100.0/25,fd00:1::/64"),
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
            assert_eq!(subnets(&member(LocalInterface::Default, &[]), &links, &addresses), "", "{number}");
        }
    }

    #[test]
    fn addresses_of_ours_and_duplicates_make_no_subnet() {
        let (links, _) = host();
        let marked = Address { protocol: Some(PROTOCOL), ..address(2, "192.0.2.50/24") };
        let flags = AddressFlags { is_duplicate: true, ..AddressFlags::default() };
        let duplicate = Address { flags, ..address(2, "fd00:1::7/64") };
        assert_eq!(subnets(&member(LocalInterface::Default, &[]), &links, &[marked, duplicate]), "");
    }

    #[test]
    fn an_interface_without_carrier_is_watched_and_one_asked_for_by_name_is_waited_for() {
        let (mut links, addresses) = host();
        links[1].has_carrier = false;
        let view = view(&member(LocalInterface::Default, &["eth7"]), &links, &addresses, &[route(2, 0)]);
        assert_eq!(view.interfaces, BTreeMap::from([("eth0".to_owned(), 2), ("eth7".to_owned(), 0)]));
    }
}
