//! What an LBNodeAgent selects on this node in vain, for its status: a user who names an interface wants to know why no
//! address comes there. Decides nothing.

use std::collections::BTreeSet;

use api::{Unfit, UnfitInterface};
use netlink::Link;

use super::{LocalInterface, Membership, view::can_carry};
use crate::inputs::node_agent::LocalInterface as Local;

/// Of a pattern that fits many links without use so many are named.
const NAMED: usize = 3;

/// Why a link can have no addresses of local pools, whatever becomes of its carrier and of its own addresses.
pub(super) fn obstacle(link: &Link, member: &Membership) -> Option<Unfit> {
    [
        (link.is_loopback, Unfit::Loopback),
        (link.name == member.dummy_interface, Unfit::Dummy),
        // It has no addresses of its own.
        (link.controller.is_some(), Unfit::Port),
        // On a link without ARP nobody is asked.
        (link.is_noarp, Unfit::NoArp),
    ]
    .into_iter()
    .find_map(|(is_so, why)| is_so.then_some(why))
}

/// What is selected and of no use. `is_local`: whether `localInterface` selects a link.
pub(super) fn unfit(
    member: &Membership,
    links: &[Link],
    interfaces: &[LocalInterface],
    is_local: impl Fn(&Link) -> bool,
) -> BTreeSet<UnfitInterface> {
    let serves = |link: &Link| {
        let interface = interfaces.iter().find(|interface| interface.index == link.index);
        interface.is_some_and(|interface| interface.mac.is_some() && !interface.subnets.is_empty())
    };
    let why = |link: &Link| match obstacle(link, member) {
        Some(why) => why,
        None if link.hardware_address.is_none() => Unfit::NoEthernet,
        None if !can_carry(link) => Unfit::NoCarrier,
        None => Unfit::NoSubnet,
    };
    let of = |interface: &str, why| UnfitInterface { interface: interface.to_owned(), why };
    let judge = |link: &Link| (!serves(link)).then(|| of(&link.name, why(link)));
    let selection = &member.selection;
    let by_name = |name: &String| match links.iter().find(|link| link.name == *name) {
        Some(link) => judge(link),
        None => Some(of(name, Unfit::Absent)),
    };
    let mut unfit: BTreeSet<_> = selection.more.iter().filter_map(by_name).collect();
    let local: Vec<&Link> = links.iter().filter(|link| is_local(link)).collect();
    match &selection.local {
        Local::Unknown => {}
        Local::Default if local.is_empty() => _ = unfit.insert(of("", Unfit::NoDefaultRoute)),
        Local::Matching(_) if local.is_empty() => _ = unfit.insert(of("", Unfit::NoMatch)),
        // A pattern may well fit links that are not meant, as long as it fits one that is.
        _ if local.iter().any(|link| serves(link)) => {}
        _ => unfit.extend(local.into_iter().filter_map(judge).take(NAMED)),
    }
    unfit
}
