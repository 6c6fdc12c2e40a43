use std::net::IpAddr;

use ipnet::IpNet;
use netlink::{Address, AddressFlags, Lifetime, Link, PROTOCOL};

use super::*;
use crate::{claim::CARRIER_WAIT, inputs::node_agent::LocalInterface as Local};

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
        agent: Some("default".to_owned()),
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

/// What is seen at first.
fn view(member: &Membership, links: &[Link], addresses: &[Address]) -> View {
    let routes = vec![route(2, 100), route(3, 200)];
    let listing =
        Listing { links: links.to_vec(), addresses: addresses.to_vec(), routes, added: Added::new() };
    Seen::default().view(member, &listing, Instant::now())
}

fn subnets(member: &Membership, links: &[Link], addresses: &[Address]) -> String {
    told(member, view(member, links, addresses))
}

fn told(member: &Membership, view: View) -> String {
    api::node_lease::format_subnets(&node_facts(member, view, BTreeSet::new()).subnets)
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
        assert_eq!(subnets(&member(local.clone(), more), &links, &addresses), expected, "{local:?} {more:?}");
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
fn what_is_selected_in_vain_is_said_with_the_reason() {
    type Break = fn(&mut Link);
    let cases: [(Local, &[&str], Break, &str); 13] = [
        (Local::Default, &["eth1"], |_| {}, ""),
        (Local::Default, &["eth7"], |_| {}, " eth7:absent"),
        (Local::Default, &["lo", "kube-lb0"], |_| {}, " kube-lb0:dummy lo:loopback"),
        (Local::Default, &[], |link| link.controller = Some(9), " eth0:port"),
        (matching("eth0"), &[], |link| link.is_noarp = true, " eth0:noarp"),
        (matching("eth0"), &["eth0"], |link| link.hardware_address = None, " eth0:no-ethernet"),
        (Local::Default, &[], |link| link.is_up = false, " eth0:no-carrier"),
        (matching("eth0"), &[], |link| link.index = 77, " eth0:no-subnet"),
        (Local::Default, &[], |link| link.index = 77, ""),
        (matching("eth[0-9]+"), &[], |link| link.has_carrier = false, ""),
        (matching("wlan.*"), &["eth1"], |_| {}, " :no-match"),
        (matching("lo|kube-.*"), &[], |_| {}, " kube-lb0:dummy lo:loopback"),
        (Local::Unknown, &[], |_| {}, ""),
    ];
    for (local, more, break_it, expected) in cases {
        let (mut links, addresses) = host();
        links.iter_mut().for_each(|link| link.hardware_address = Some(Mac([2, 0, 0, 0, 0, 1])));
        break_it(&mut links[1]);
        let member = member(local, more);
        let facts = node_facts(&member, view(&member, &links, &addresses), BTreeSet::new());
        assert_eq!(facts.agent.unwrap().to_string(), format!("default{expected}"), "{:?}", member.selection);
    }
    let member = member(Local::Default, &[]);
    let facts = node_facts(&member, view(&member, &[], &[]), BTreeSet::new());
    assert_eq!(facts.agent.unwrap().to_string(), "default :no-default-route");
}

#[test]
fn a_node_is_known_by_the_ethernet_addresses_of_its_interfaces_and_of_its_hardware() {
    let (mut links, addresses) = host();
    let mac = |last| Some(Mac([2, 0, 0, 0, 0, last]));
    for (link, last) in links.iter_mut().zip(1..) {
        link.hardware_address = mac(last);
        link.kind = Some("veth".to_owned());
    }
    // The selected one is none, another is.
    links[2].kind = None;
    let view = view(&member(Local::Default, &[]), &links, &addresses);
    assert_eq!(view.macs, [mac(2), mac(3)].into_iter().flatten().collect());
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
    let view = view(&member(Local::Default, &["eth7"]), &links, &addresses);
    assert!(view.interfaces[0].subnets.is_empty());
    assert_eq!(view.watched, BTreeMap::from([("eth0".to_owned(), 2), ("eth7".to_owned(), 0)]));
}

#[test]
fn an_excluded_node_offers_no_subnet_but_is_heard_until_others_have_what_it_holds() {
    let (links, addresses) = host();
    let mut member = member(Local::Default, &[]);
    let view = || view(&member, &links, &addresses);
    let (interfaces, with) = (view().interfaces, node_facts(&member, view(), BTreeSet::new()));
    let heartbeats = api::node_lease::format_heartbeats(&with.heartbeats);
    assert_eq!(heartbeats.as_deref(), Some("192.0.2.7:7473,[fd00:1::7]:7473"), "the first of each subnet");
    let seen = view();
    member.is_excluded = true;
    let without = node_facts(&member, seen, BTreeSet::new());
    assert_eq!((without.subnets.len(), without.heartbeats), (0, with.heartbeats));
    assert_eq!(without.interfaces, interfaces);
    let own = ["192.0.2.7", "192.0.2.8", "fd00:1::7", "10.9.9.9"].map(|address| address.parse().unwrap());
    assert_eq!(interfaces[0].addresses, own.into());
}

/// A host over time.
struct Host {
    member: Membership,
    seen: Seen,
    listing: Listing,
    now: Instant,
}

impl Host {
    fn new(local: Local) -> Host {
        let (links, addresses) = host();
        let listing = Listing { links, addresses, routes: vec![route(2, 100)], added: Added::new() };
        Host { member: member(local, &[]), seen: Seen::default(), listing, now: Instant::now() }
    }

    fn after(&mut self, pause: Duration) -> View {
        self.now += pause;
        self.seen.view(&self.member, &self.listing, self.now)
    }

    fn subnets(&mut self) -> String {
        let view = self.after(Duration::ZERO);
        told(&self.member, view)
    }

    /// By which address the node is known on the IPv6 subnet of `eth0`.
    fn known_as(&mut self) -> Option<IpAddr> {
        let view = self.after(Duration::ZERO);
        view.interfaces[0].subnets.get(&"fd00:1::/64".parse::<IpNet>().unwrap()).copied()
    }

    fn address(&mut self, prefix: &str) -> &mut Address {
        let prefix: IpNet = prefix.parse().unwrap();
        self.listing.addresses.iter_mut().find(|address| address.prefix == prefix).unwrap()
    }
}

#[test]
fn the_interface_of_the_default_route_stays_while_there_is_none_and_makes_way_for_another() {
    let mut host = Host::new(Local::Default);
    let both = "192.0.2.0/24,fd00:1::/64";
    assert_eq!(host.subnets(), both);
    host.listing.routes.clear();
    assert_eq!(host.subnets(), both, "no default route");
    host.listing.routes = vec![route(9, 50), route(3, 100)];
    assert_eq!(host.subnets(), "198.51.100.0/25", "of a link that is there");
    host.listing.routes.clear();
    host.listing.links.retain(|link| link.index != 3);
    assert_eq!(host.subnets(), "", "its link is gone");
}

#[test]
fn a_carrier_that_is_back_within_the_wait_was_never_away() {
    for set in
        [|link: &mut Link, is: bool| link.has_carrier = is, |link: &mut Link, is: bool| link.is_up = is]
    {
        let mut host = Host::new(Local::Default);
        let before = host.after(Duration::ZERO).interfaces;
        // The kernel takes IPv6 addresses and routes along.
        let all = host.listing.clone();
        set(&mut host.listing.links[1], false);
        host.listing.routes = vec![route(3, 200)];
        host.listing.addresses.retain(|address| address.prefix.addr().is_ipv4());
        let until = host.now + CARRIER_WAIT;
        for pause in [0, 399] {
            let view = host.after(Duration::from_millis(pause));
            assert_eq!((view.interfaces.as_slice(), view.until), (before.as_slice(), Some(until)));
        }
        host.listing = all;
        let view = host.after(Duration::ZERO);
        assert_eq!((view.interfaces, view.until), (before, None));
    }
}

#[test]
fn a_carrier_that_stays_away_ends_the_subnets_and_the_next_one_begins_them() {
    let mut host = Host::new(matching("eth0"));
    assert_ne!(host.subnets(), "");
    host.listing.links[1].has_carrier = false;
    assert_ne!(host.subnets(), "");
    let view = host.after(CARRIER_WAIT);
    assert_eq!((told(&host.member, view), host.subnets()), (String::new(), String::new()));
    host.now += CARRIER_WAIT;
    assert_eq!(host.subnets(), "", "no second wait");
    host.listing.links[1].has_carrier = true;
    assert_ne!(host.subnets(), "");
}

#[test]
fn what_this_process_added_is_not_the_nodes_own_where_the_kernel_keeps_no_mark() {
    let mut host = Host::new(matching("eth0"));
    let before = host.after(Duration::ZERO);
    // Lower than the node's own, so that it would be known by it.
    let ours = address(2, "192.0.2.1/24");
    host.listing.addresses.push(ours);
    host.listing.added.insert((2, ours.prefix));
    assert_eq!(host.after(Duration::ZERO), before);
    assert!(!is_news(&Event::AddressAdded(ours), &host.listing.added));
    let elsewhere = Address { index: 3, ..ours };
    assert!(is_news(&Event::AddressAdded(elsewhere), &host.listing.added));
    host.listing.added.clear();
    assert_ne!(host.after(Duration::ZERO), before, "somebody else's");
}

#[test]
fn only_events_of_our_own_addresses_are_no_news() {
    let ours = Address { protocol: Some(PROTOCOL), ..address(2, "192.0.2.50/24") };
    let added = Added::new();
    assert!(!is_news(&Event::AddressAdded(ours), &added) && !is_news(&Event::AddressRemoved(ours), &added));
    let own = address(2, "192.0.2.7/24");
    for event in [
        Event::AddressAdded(own),
        Event::AddressRemoved(own),
        Event::LinkChanged(link(2, "eth0")),
        Event::DefaultRoutes,
        Event::Resync,
    ] {
        assert!(is_news(&event, &added), "{event:?}");
    }
}

#[test]
fn a_node_is_known_by_the_same_address_as_long_as_it_is_there() {
    let mut host = Host::new(matching("eth0"));
    let first = host.known_as();
    host.listing.addresses.extend([address(2, "fd00:1::1/64"), address(2, "192.0.2.1/24")]);
    assert_eq!(host.known_as(), first, "a lower one came");
    // As after a link that was down: duplicate address detection begins anew.
    host.address("fd00:1::7/64").flags.is_tentative = true;
    assert_eq!(host.known_as(), first);
    host.listing.addresses.retain(|address| Some(address.prefix.addr()) != first);
    assert_eq!(host.known_as(), "fd00:1::1".parse().ok());
}

#[test]
fn a_node_is_known_by_an_address_that_can_be_used_and_stays() {
    let breaks: [fn(&mut AddressFlags); 3] = [
        |flags| flags.is_temporary = true,
        |flags| flags.is_deprecated = true,
        |flags| flags.is_tentative = true,
    ];
    for (number, break_it) in breaks.into_iter().enumerate() {
        let mut host = Host::new(matching("eth0"));
        host.listing.addresses.push(address(2, "fd00:1::1/64"));
        break_it(&mut host.address("fd00:1::1/64").flags);
        assert_eq!(host.known_as(), "fd00:1::7".parse().ok(), "{number}");
        // One that is on its way out makes way for one that stays.
        host.address("fd00:1::7/64").flags.is_deprecated = true;
        host.listing.addresses.push(address(2, "fd00:1::9/64"));
        assert_eq!(host.known_as(), "fd00:1::9".parse().ok(), "{number}");
    }
    let mut host = Host::new(matching("eth0"));
    host.address("fd00:1::7/64").flags.is_tentative = true;
    assert_eq!(host.known_as(), None, "none that can be used yet");
}
