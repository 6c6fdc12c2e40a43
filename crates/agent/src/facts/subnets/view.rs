//! From what the kernel lists to this node's interfaces of local addresses and their subnets. Pure, but for what was
//! seen before: a short interruption is none, and an address that others know is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use api::UnfitInterface;
use ipnet::IpNet;
use netlink::{Address, DefaultRoute, Link, Mac};
use regex::Regex;

use super::{
    LocalInterface, Membership,
    unfit::{self, obstacle},
};
use crate::{claim::CARRIER_WAIT, inputs::node_agent::LocalInterface as Local};

/// Addresses that this process has put on interfaces, by their indexes.
pub type Added = BTreeSet<(u32, IpNet)>;

/// What the kernel lists.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    /// The lowest metric first.
    pub(super) routes: Vec<DefaultRoute>,
    /// Some kernels keep no mark (before 5.18): these are ours, too.
    pub(super) added: Added,
}

/// The selected interfaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Name and index of those to watch; one that is not there has none.
    pub(super) watched: BTreeMap<String, u32>,
    pub(super) interfaces: Vec<LocalInterface>,
    /// Ethernet addresses that this node may answer with there: those of the interfaces, and of its hardware, since Linux
    /// answers on each link for all addresses of the machine.
    pub(super) macs: BTreeSet<Mac>,
    /// What was selected in vain.
    pub(super) unfit: BTreeSet<UnfitInterface>,
    /// When it is another view though the kernel lists the same.
    pub(super) until: Option<Instant>,
}

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The interface of the default route.
    by_default: Option<u32>,
    interfaces: Vec<LocalInterface>,
    /// Since when interfaces that had subnets are without a carrier.
    without_carrier: BTreeMap<u32, Instant>,
}

impl Seen {
    /// What this listing means after all that was seen before.
    pub(super) fn view(&mut self, member: &Membership, listing: &Listing, now: Instant) -> View {
        self.note_carriers(&listing.links, now);
        self.note_default_route(member, listing, now);
        let selection = &member.selection;
        let pattern = match &selection.local {
            Local::Default | Local::Unknown => None,
            Local::Matching(pattern) => Regex::new(&anchored(pattern)).ok(),
        };
        let by_default = self.by_default;
        let is_local = |link: &Link| match &pattern {
            None => by_default == Some(link.index),
            Some(pattern) => pattern.is_match(&link.name),
        };
        let is_selected = |link: &&Link| {
            (is_local(link) || selection.more.contains(&link.name)) && obstacle(link, member).is_none()
        };
        let mut view = View::default();
        // Those that are asked for by name are waited for.
        view.watched.extend(selection.more.iter().map(|name| (name.clone(), 0)));
        for link in listing.links.iter().filter(is_selected) {
            view.watched.insert(link.name.clone(), link.index);
            view.interfaces.push(self.interface(link, listing, now));
            view.until = [view.until, self.interrupted_until(link.index, now)].into_iter().flatten().min();
        }
        view.interfaces.sort_by(|a, b| a.name.cmp(&b.name));
        let hardware = listing.links.iter().filter(|link| link.kind.is_none() && !link.is_loopback);
        let selected = view.interfaces.iter().filter_map(|interface| interface.mac);
        view.macs = hardware.filter_map(|link| link.hardware_address).chain(selected).collect();
        self.interfaces.clone_from(&view.interfaces);
        view.unfit = unfit::unfit(member, &listing.links, &view.interfaces, is_local);
        view
    }

    fn note_carriers(&mut self, links: &[Link], now: Instant) {
        let before = std::mem::take(&mut self.without_carrier);
        let had_subnets = |it: &&Link| self.before(it.index).is_some_and(|before| !before.subnets.is_empty());
        let without = links.iter().filter(|link| !can_carry(link)).filter(had_subnets);
        self.without_carrier =
            without.map(|link| (link.index, before.get(&link.index).copied().unwrap_or(now))).collect();
    }

    /// The interface of the default route stays the one while there is no default route: a link that is set down and
    /// up, and a client of DHCP that begins anew, lose it for a while.
    fn note_default_route(&mut self, member: &Membership, listing: &Listing, now: Instant) {
        if member.selection.local != Local::Default {
            self.by_default = None;
            return;
        }
        let exists = |index: &u32| listing.links.iter().any(|link| link.index == *index);
        let before = self.by_default.filter(exists);
        let first = listing.routes.iter().map(|route| route.index).find(exists);
        let is_interrupted = before.is_some_and(|index| self.interrupted_until(index, now).is_some());
        self.by_default = if is_interrupted { before } else { first.or(before) };
    }

    fn before(&self, index: u32) -> Option<&LocalInterface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// Until when it makes no difference that an interface has no carrier.
    fn interrupted_until(&self, index: u32, now: Instant) -> Option<Instant> {
        let until = *self.without_carrier.get(&index)? + CARRIER_WAIT;
        (now < until).then_some(until)
    }

    fn interface(&self, link: &Link, listing: &Listing, now: Instant) -> LocalInterface {
        let before = self.before(link.index);
        if let (Some(before), Some(_)) = (before, self.interrupted_until(link.index, now)) {
            return before.clone();
        }
        let own = || {
            let of_link = listing.addresses.iter().filter(|it| it.index == link.index);
            of_link.filter(|it| is_own(it, &listing.added))
        };
        LocalInterface {
            name: link.name.as_str().into(),
            index: link.index,
            mac: link.hardware_address,
            subnets: if can_carry(link) { subnets(own(), before) } else { BTreeMap::new() },
            addresses: own().map(|address| address.prefix.addr()).collect(),
        }
    }
}

pub(super) const fn can_carry(link: &Link) -> bool {
    link.is_up && link.has_carrier
}

/// The subnets of these addresses, each with the one by which this node is known there: the one that it was known by,
/// as long as it is there; otherwise one that can be used already and stays, and the first of those.
fn subnets<'a>(
    own: impl Iterator<Item = &'a Address>,
    before: Option<&LocalInterface>,
) -> BTreeMap<IpNet, IpAddr> {
    let mut ranked: BTreeMap<IpNet, (bool, bool, bool, IpAddr)> = BTreeMap::new();
    for address in own {
        let (Some(subnet), ip, flags) = (subnet(address), address.prefix.addr(), address.flags) else {
            continue;
        };
        let was_known = before.and_then(|before| before.subnets.get(&subnet)) == Some(&ip);
        if flags.is_tentative && !was_known {
            continue;
        }
        let rank = (flags.is_temporary || flags.is_deprecated, !was_known, flags.is_secondary, ip);
        let first = ranked.entry(subnet).or_insert(rank);
        *first = rank.min(*first);
    }
    ranked.into_iter().map(|(subnet, (.., ip))| (subnet, ip)).collect()
}

/// The pattern has to match the whole name.
pub(crate) fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// Whether this software has put it there.
pub(super) fn is_ours(address: &Address, added: &Added) -> bool {
    address.is_marked() || added.contains(&(address.index, address.prefix))
}

/// An address that is the node's own, and not one that we put there.
fn is_own(address: &Address, added: &Added) -> bool {
    !is_ours(address, added) && !address.is_link_local && !address.flags.is_duplicate
}

/// The subnet that an address of the node's own is in, if there is room for others in it.
fn subnet(address: &Address) -> Option<IpNet> {
    let is_host = address.prefix.prefix_len() == address.prefix.max_prefix_len();
    (!is_host).then(|| address.prefix.trunc())
}
