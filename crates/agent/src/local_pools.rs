//! What addresses of local pools are planned by: this node's interfaces, who else is on their subnets, and who is
//! elected. Says which Services a change touches, and no others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use api::IpFamily;

use crate::{
    election::{Election, Electorate, NodeId},
    facts::subnets::{LocalInterface, NodeFacts},
    key::ObjectKey,
};

/// The other nodes, as far as they live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Those that can serve, and on which subnets.
    pub electorate: Electorate,
    /// Those that can ask for an address, now or as soon as they are heard.
    pub reachable: BTreeSet<Arc<str>>,
}

/// Interfaces, other candidates, and the election.
#[derive(Debug, Default)]
pub struct LocalPools {
    /// This node's name.
    node: Arc<str>,
    interfaces: Vec<LocalInterface>,
    /// Whether `interfaces` are known.
    is_seen: bool,
    /// This node and its subnets come from its own facts, the others' from here.
    others: Others,
    own: BTreeSet<ipnet::IpNet>,
    election: Election,
    /// Services with addresses of local pools.
    services: HashMap<ObjectKey, Vec<IpAddr>>,
    /// Who has an address; shared ones have several.
    users: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
}

impl LocalPools {
    /// The addresses of a Service are these now; none where it has none of local pools, or is gone.
    pub fn set_service(&mut self, key: &ObjectKey, addresses: &[IpAddr]) {
        if self.services.get(key).map_or(&[][..], Vec::as_slice) == addresses {
            return;
        }
        for address in addresses {
            self.election.add(*address);
            self.users.entry(*address).or_default().insert(key.clone());
        }
        let old = match addresses {
            [] => self.services.remove(key),
            _ => self.services.insert(key.clone(), addresses.to_vec()),
        };
        for address in old.into_iter().flatten() {
            self.election.remove(address);
            if !addresses.contains(&address)
                && let Some(users) = self.users.get_mut(&address)
            {
                users.remove(key);
                if users.is_empty() {
                    self.users.remove(&address);
                }
            }
        }
    }

    /// These nodes have endpoints that the addresses of a Service lead to, by family: one of them is to have each of them.
    /// None: all nodes are equal, as where an address has several Services.
    pub fn prefer(&mut self, key: &ObjectKey, nodes: impl Fn(IpFamily) -> BTreeSet<NodeId>) {
        for address in self.services.get(key).into_iter().flatten() {
            let is_shared = self.users.get(address).is_some_and(|users| users.len() > 1);
            let nodes = if is_shared { BTreeSet::new() } else { nodes(IpFamily::of(*address)) };
            self.election.prefer(*address, nodes);
        }
    }

    /// This node is called so. Services to plan again.
    pub fn set_node(&mut self, node: &str) -> Vec<ObjectKey> {
        if *self.node == *node {
            return Vec::new();
        }
        self.node = node.into();
        self.elect()
    }

    /// This node's interfaces and subnets, as the kernel has them. Services to plan again.
    pub fn set_facts(&mut self, facts: NodeFacts) -> Vec<ObjectKey> {
        let are_interfaces_new = !self.is_seen || self.interfaces != facts.interfaces;
        self.is_seen = true;
        self.interfaces = facts.interfaces;
        self.own = facts.subnets;
        let touched = self.elect();
        if are_interfaces_new { self.services.keys().cloned().collect() } else { touched }
    }

    /// Whether an address has a winner that can ask for it by now and could not before, or no longer: then it may have
    /// to be kept, or let go, though the plan is the same.
    pub fn is_asked_otherwise(&self, others: &Others) -> bool {
        let changed = others.reachable.symmetric_difference(&self.others.reachable).collect::<BTreeSet<_>>();
        let is_changed = |address| self.winner(address).is_some_and(|winner| changed.contains(winner));
        !changed.is_empty() && self.users.keys().copied().any(is_changed)
    }

    /// The other nodes. Services to plan again.
    pub fn set_others(&mut self, others: Others) -> Vec<ObjectKey> {
        self.others = others;
        self.elect()
    }

    fn elect(&mut self) -> Vec<ObjectKey> {
        let mut electorate = self.others.electorate.clone();
        electorate.remove(&self.node);
        if !self.own.is_empty() {
            electorate.insert(self.node.clone(), self.own.clone());
        }
        let changed = self.election.set_electorate(electorate);
        let users = changed.iter().filter_map(|address| self.users.get(address)).flatten();
        users.cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether this node's interfaces are known, so that what is on none of them can be told.
    pub const fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// The interfaces of local addresses.
    pub fn interfaces(&self) -> &[LocalInterface] {
        &self.interfaces
    }

    /// The interface whose subnet has the address; of several the one with the longest prefix, then by name.
    pub fn interface(&self, address: IpAddr) -> Option<&LocalInterface> {
        let fits = |interface: &LocalInterface| {
            let subnets = interface.subnets.keys().filter(|subnet| subnet.contains(&address));
            subnets.map(ipnet::IpNet::prefix_len).max()
        };
        let fitting = self.interfaces.iter().filter_map(|interface| Some((fits(interface)?, interface)));
        fitting.min_by_key(|(length, _)| std::cmp::Reverse(*length)).map(|(_, interface)| interface)
    }

    /// Whether it is an address of this node itself, and on one of these interfaces.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|interface| interface.addresses.contains(&address))
    }

    /// The node that is to hold the address; `None` where none can.
    pub fn winner(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.election.winner(address)
    }

    /// Whether the winner is this node.
    pub fn is_us(&self, node: &str) -> bool {
        *self.node == *node
    }

    /// Whether this other node can ask for what is kept for it.
    pub fn can_be_asked(&self, node: &str) -> bool {
        self.others.reachable.contains(node)
    }

    /// The Services that have an address.
    pub fn users(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.users.get(&address).into_iter().flatten()
    }

    /// The addresses of a Service.
    pub fn addresses(&self, service: &ObjectKey) -> &[IpAddr] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// Whether a node can serve an address. On another subnet it may still be heard.
    pub fn is_candidate(&self, node: &str, address: IpAddr) -> bool {
        let subnets = self.electorate().get(node);
        subnets.is_some_and(|subnets| subnets.iter().any(|subnet| subnet.contains(&address)))
    }

    /// Every node that can serve, and where.
    pub const fn electorate(&self) -> &Electorate {
        self.election.electorate()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn interface(name: &str, index: u32, own: &[&str]) -> LocalInterface {
        let nets: Vec<ipnet::IpNet> = own.iter().map(|net| net.parse().unwrap()).collect();
        LocalInterface {
            name: name.into(),
            index,
            mac: None,
            subnets: nets.iter().map(|net| (net.trunc(), net.addr())).collect(),
            addresses: nets.iter().map(ipnet::IpNet::addr).collect(),
        }
    }

    pub(crate) fn facts(interfaces: Vec<LocalInterface>) -> NodeFacts {
        NodeFacts {
            node_uid: String::new(),
            subnets: interfaces.iter().flat_map(|it| it.subnets.keys().copied()).collect(),
            heartbeats: BTreeSet::new(),
            interfaces,
            agent: None,
            macs: BTreeSet::new(),
            conflicts: BTreeSet::new(),
        }
    }

    /// Nodes that messages reach, each with a subnet.
    pub(crate) fn others(nodes: &[(&str, &str)]) -> Others {
        let electorate =
            nodes.iter().map(|(node, subnet)| ((*node).into(), [subnet.parse().unwrap()].into()));
        let reachable = nodes.iter().map(|(node, _)| (*node).into()).collect();
        Others { electorate: electorate.collect(), reachable }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    fn pools() -> LocalPools {
        let mut pools = LocalPools::default();
        pools.set_node("n1");
        pools.set_facts(facts(vec![interface("eth0", 2, &["192.0.2.7/24"])]));
        pools
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn another_node_touches_only_services_whose_addresses_it_wins() {
        let mut pools = pools();
        let keys: Vec<_> = (0..40u8)
            .map(|host| (key(&format!("s{host}")), [ip(&format!("192.0.2.{}", 100 + host))]))
            .collect();
        keys.iter().for_each(|(key, addresses)| pools.set_service(key, addresses));
        pools.set_service(&key("far"), &[ip("203.0.113.1")]);
        let others = || others(&[("n2", "192.0.2.0/24")]);
        let touched = pools.set_others(others());
        assert!(!touched.is_empty() && touched.len() < 40, "{touched:?}");
        for (key, [address]) in &keys {
            let winner = pools.winner(*address).unwrap();
            assert_eq!(&**winner == "n2", touched.contains(key), "{key}");
        }
        let (here, far) = (ip("192.0.2.9"), ip("203.0.113.1"));
        assert!(
            pools.is_candidate("n2", here)
                && !pools.is_candidate("n2", far)
                && !pools.is_candidate("n3", here)
        );
        assert!(pools.set_others(others()).is_empty(), "nothing changed");
        assert_eq!(pools.set_others(Others::default()), touched, "it leaves what it had");
    }

    #[test]
    fn an_address_of_one_service_goes_where_its_endpoints_are_and_a_shared_one_anywhere() {
        let mut pools = pools();
        pools.set_others(others(&[("n2", "192.0.2.0/24")]));
        let address = ip("192.0.2.9");
        pools.set_service(&key("a"), &[address]);
        let plain = pools.winner(address).unwrap().clone();
        let other = if &*plain == "n1" { "n2" } else { "n1" };
        let on_other = |family| match family {
            IpFamily::IPv4 => [NodeId::of(other)].into(),
            IpFamily::IPv6 => BTreeSet::new(),
        };
        pools.prefer(&key("a"), on_other);
        assert_eq!(&**pools.winner(address).unwrap(), other);
        pools.set_service(&key("b"), &[address]);
        pools.prefer(&key("b"), on_other);
        assert_eq!(pools.winner(address), Some(&plain));
    }

    #[test]
    fn who_can_ask_matters_only_where_it_wins_something() {
        let mut pools = pools();
        let address = (100..200u8).map(|host| ip(&format!("192.0.2.{host}")));
        let others = others(&[("n2", "192.0.2.0/24")]);
        pools.set_others(others.clone());
        let silent = Others { reachable: BTreeSet::new(), ..others.clone() };
        assert!(!pools.is_asked_otherwise(&silent), "it wins nothing");
        for (index, address) in address.enumerate() {
            pools.set_service(&key(&format!("s{index}")), &[address]);
        }
        assert!(!pools.is_asked_otherwise(&others) && pools.is_asked_otherwise(&silent));
        assert!(pools.set_others(silent).is_empty(), "the plan is the same");
        assert!(pools.is_asked_otherwise(&others));
    }

    #[test]
    fn a_node_stands_for_election_as_its_own_facts_have_it_and_not_as_its_lease_says() {
        let mut pools = pools();
        pools.set_service(&key("a"), &[ip("192.0.2.9")]);
        pools.set_others(others(&[("n1", "198.51.100.0/24")]));
        assert_eq!(pools.winner(ip("192.0.2.9")).map(|node| &**node), Some("n1"));
        let touched = pools.set_facts(facts(vec![interface("eth0", 2, &[])]));
        assert_eq!((touched, pools.winner(ip("192.0.2.9"))), (vec![key("a")], None));
    }

    #[test]
    fn an_address_is_on_the_interface_with_the_longest_prefix_around_it() {
        let mut pools = pools();
        pools.set_facts(facts(vec![
            interface("eth0", 2, &["192.0.2.7/24"]),
            interface("eth1", 3, &["192.0.2.130/25", "fd00:1::7/64"]),
        ]));
        let name = |address| pools.interface(ip(address)).map(|interface| &*interface.name);
        assert_eq!((name("192.0.2.9"), name("192.0.2.200")), (Some("eth0"), Some("eth1")));
        assert_eq!((name("fd00:1::9"), name("203.0.113.1")), (Some("eth1"), None));
        assert!(pools.is_own(ip("192.0.2.130")) && !pools.is_own(ip("192.0.2.131")));
    }

    #[test]
    fn a_shared_address_stays_until_its_last_service_goes() {
        let mut pools = pools();
        for name in ["a", "b"] {
            pools.set_service(&key(name), &[ip("192.0.2.9")]);
        }
        pools.set_service(&key("a"), &[ip("192.0.2.10")]);
        assert!(pools.winner(ip("192.0.2.9")).is_some());
        pools.set_service(&key("b"), &[]);
        assert!(pools.winner(ip("192.0.2.9")).is_none());
        let touched = pools.set_facts(facts(vec![]));
        assert_eq!(touched, [key("a")]);
        assert_eq!(pools.users.len(), 1);
    }
}
