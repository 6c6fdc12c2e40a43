//! Who announces an address of a local pool: rendezvous hashing over the nodes that can serve it.
//!
//! An address goes to the candidate whose score, SHA-256(node name ‖ address), is lowest; candidates are the nodes of
//! the electorate with a subnet that contains it. Where some nodes are preferred for an address, since only they have
//! endpoints that it leads to (policy Local), the others stand behind them. Pure: no clock, no I/O, and no word about who lives (that is
//! [`crate::members`] and the heartbeats).
//!
//! Guarantees: exactly one winner wherever there is a candidate, whatever the order in which nodes became known;
//! when nodes come or go, only addresses of theirs move; addresses spread evenly. [`Election`] keeps the winners of
//! the addresses that matter, and a change of the electorate costs one hash an address of the subnets it touches, or,
//! for the addresses of nodes that went, one a candidate.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

/// The nodes that can serve, and on which subnets.
pub type Electorate = BTreeMap<Arc<str>, BTreeSet<IpNet>>;

/// A node by a hash of its name, the same on all nodes: of the endpoints in a cluster no names need be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// That of the node of this name.
    pub fn of(name: &str) -> NodeId {
        let hash: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        NodeId(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// What nodes are ordered by for an address: the lowest wins.
type Score = [u8; 32];

fn score(node: &str, address: IpAddr) -> Score {
    let hash = Sha256::new().chain_update(node.as_bytes());
    match address {
        IpAddr::V4(address) => hash.chain_update(address.octets()),
        IpAddr::V6(address) => hash.chain_update(address.octets()),
    }
    .finalize()
    .into()
}

/// A candidate's claim. Scores of different nodes differ; the name decides if ever they do not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// Others are preferred.
    is_second: bool,
    score: Score,
    node: Arc<str>,
}

impl Claim {
    fn new(node: &Arc<str>, address: IpAddr, preferred: &BTreeSet<NodeId>) -> Claim {
        let is_second = !preferred.is_empty() && !preferred.contains(&NodeId::of(node));
        Claim { is_second, score: score(node, address), node: node.clone() }
    }
}

fn can_serve(subnets: &BTreeSet<IpNet>, address: IpAddr) -> bool {
    subnets.iter().any(|subnet| subnet.contains(&address))
}

fn elect(electorate: &Electorate, address: IpAddr, preferred: &BTreeSet<NodeId>) -> Option<Claim> {
    let candidates = electorate.iter().filter(|(_, subnets)| can_serve(subnets, address));
    candidates.map(|(node, _)| Claim::new(node, address, preferred)).min()
}

/// The winner of one address, and how many care.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    winner: Option<Claim>,
    users: u32,
    /// None: all are equal.
    preferred: BTreeSet<NodeId>,
}

/// The winners of the addresses that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Election {
    electorate: Electorate,
    seats: BTreeMap<IpAddr, Seat>,
}

impl Election {
    /// The address matters to one more.
    pub fn add(&mut self, address: IpAddr) {
        let electorate = &self.electorate;
        let seat = self.seats.entry(address).or_insert_with(|| {
            let preferred = BTreeSet::new();
            Seat { winner: elect(electorate, address, &preferred), users: 0, preferred }
        });
        seat.users += 1;
    }

    /// These nodes are to have the address, if one of them can; none: all are equal.
    pub fn prefer(&mut self, address: IpAddr, preferred: BTreeSet<NodeId>) {
        if let Some(seat) = self.seats.get_mut(&address).filter(|seat| seat.preferred != preferred) {
            seat.winner = elect(&self.electorate, address, &preferred);
            seat.preferred = preferred;
        }
    }

    /// The address matters to one less.
    pub fn remove(&mut self, address: IpAddr) {
        if let Some(seat) = self.seats.get_mut(&address) {
            seat.users -= 1;
            if seat.users == 0 {
                self.seats.remove(&address);
            }
        }
    }

    /// Who announces the address; `None` where nobody can.
    pub fn winner(&self, address: IpAddr) -> Option<&Arc<str>> {
        match self.seats.get(&address) {
            Some(seat) => seat.winner.as_ref().map(|claim| &claim.node),
            None => None,
        }
    }

    /// The nodes that can serve, and on which subnets.
    pub const fn electorate(&self) -> &Electorate {
        &self.electorate
    }

    /// Takes another electorate over. Returns the addresses whose winner is another one now.
    pub fn set_electorate(&mut self, electorate: Electorate) -> Vec<IpAddr> {
        let before = std::mem::replace(&mut self.electorate, electorate);
        let mut changed = BTreeMap::new();
        for (node, subnets) in &before {
            if self.electorate.get(node) != Some(subnets) {
                self.on_left(node, subnets, &mut changed);
            }
        }
        for (node, subnets) in self.electorate.clone() {
            if before.get(&node) != Some(&subnets) {
                self.on_came(&node, &subnets, &mut changed);
            }
        }
        let is_other = |address: &IpAddr, old: &Option<Arc<str>>| old.as_ref() != self.winner(*address);
        changed
            .into_iter()
            .filter(|(address, old)| is_other(address, old))
            .map(|(address, _)| address)
            .collect()
    }

    /// What the node had won and cannot serve any more is elected anew.
    fn on_left(
        &mut self,
        node: &Arc<str>,
        subnets: &BTreeSet<IpNet>,
        changed: &mut BTreeMap<IpAddr, Option<Arc<str>>>,
    ) {
        let keeps = self.electorate.get(node);
        for address in self.addresses_in(subnets) {
            if keeps.is_some_and(|subnets| can_serve(subnets, address)) {
                continue;
            }
            let Some(seat) = self.seats.get_mut(&address) else { continue };
            if seat.winner.as_ref().is_some_and(|winner| winner.node == *node) {
                let winner = elect(&self.electorate, address, &seat.preferred);
                let old = std::mem::replace(&mut seat.winner, winner);
                changed.entry(address).or_insert(old.map(|claim| claim.node));
            }
        }
    }

    /// The node challenges whoever has won what it can serve now.
    fn on_came(
        &mut self,
        node: &Arc<str>,
        subnets: &BTreeSet<IpNet>,
        changed: &mut BTreeMap<IpAddr, Option<Arc<str>>>,
    ) {
        for address in self.addresses_in(subnets) {
            let Some(seat) = self.seats.get_mut(&address) else { continue };
            let claim = Claim::new(node, address, &seat.preferred);
            if seat.winner.as_ref().is_none_or(|winner| claim < *winner) {
                let old = seat.winner.replace(claim);
                changed.entry(address).or_insert(old.map(|claim| claim.node));
            }
        }
    }

    fn addresses_in(&self, subnets: &BTreeSet<IpNet>) -> BTreeSet<IpAddr> {
        // `broadcast` is the address of all ones, in IPv6 too.
        let range = |subnet: &IpNet| subnet.network()..=subnet.broadcast();
        subnets
            .iter()
            .flat_map(|subnet| self.seats.range(range(subnet)).map(|(address, _)| *address))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SUBNETS: [&str; 4] = ["192.0.2.0/24", "192.0.2.0/25", "198.51.100.0/24", "fd00:1::/64"];

    fn name(node: u8) -> Arc<str> {
        format!("node{node}").into()
    }

    fn nodes(count: u8, subnet: &str) -> Electorate {
        (0..count).map(|node| (name(node), [subnet.parse().unwrap()].into())).collect()
    }

    fn hosts(subnet: &str, count: usize) -> Vec<IpAddr> {
        subnet.parse::<IpNet>().unwrap().hosts().take(count).collect()
    }

    fn election(electorate: Electorate, addresses: &[IpAddr]) -> Election {
        let mut election = Election::default();
        election.set_electorate(electorate);
        addresses.iter().for_each(|address| election.add(*address));
        election
    }

    fn winners(election: &Election, addresses: &[IpAddr]) -> Vec<Option<Arc<str>>> {
        addresses.iter().map(|address| election.winner(*address).cloned()).collect()
    }

    fn any_electorate() -> impl Strategy<Value = Electorate> {
        let subnets = prop::collection::btree_set(0..SUBNETS.len(), 0..3);
        prop::collection::btree_map(0u8..8, subnets, 0..6).prop_map(|nodes| {
            let parse =
                |subnets: BTreeSet<usize>| subnets.iter().map(|s| SUBNETS[*s].parse().unwrap()).collect();
            nodes.into_iter().map(|(node, subnets)| (name(node), parse(subnets))).collect()
        })
    }

    fn some_addresses() -> Vec<IpAddr> {
        let mut addresses = hosts("192.0.2.0/24", 4);
        addresses.extend(hosts("192.0.2.200/29", 3));
        addresses.extend(hosts("198.51.100.0/24", 4));
        addresses.extend(hosts("fd00:1::/64", 4));
        addresses.push("203.0.113.1".parse().unwrap());
        addresses
    }

    #[test]
    fn the_score_is_that_of_the_names_octets_and_then_the_addresses() {
        let expected: Score = Sha256::digest(b"n1\xc0\x00\x02\x01").into();
        assert_eq!(score("n1", "192.0.2.1".parse().unwrap()), expected);
        let expected: Score = Sha256::digest(b"n1\xfd\x00\0\0\0\0\0\0\0\0\0\0\0\0\0\x01").into();
        assert_eq!(score("n1", "fd00::1".parse().unwrap()), expected);
    }

    #[test]
    fn only_nodes_with_a_subnet_around_the_address_are_candidates() {
        let mut electorate = nodes(5, "198.51.100.0/24");
        electorate.insert("far".into(), BTreeSet::new());
        let addresses = hosts("192.0.2.0/24", 20);
        let mut election = election(electorate.clone(), &addresses);
        assert!(winners(&election, &addresses).iter().all(Option::is_none));
        electorate.insert("near".into(), ["192.0.2.0/24".parse().unwrap()].into());
        assert_eq!(election.set_electorate(electorate), addresses);
        assert!(winners(&election, &addresses).iter().all(|winner| winner.as_deref() == Some("near")));
    }

    #[test]
    fn when_one_of_fifty_leaves_only_its_addresses_move_and_they_spread() {
        let addresses = hosts("10.0.0.0/16", 1000);
        let all = nodes(50, "10.0.0.0/16");
        let mut election = election(all.clone(), &addresses);
        let before = winners(&election, &addresses);
        let mut fewer = all.clone();
        fewer.remove("node7");
        let changed = election.set_electorate(fewer);
        let after = winners(&election, &addresses);
        for ((address, before), after) in addresses.iter().zip(&before).zip(&after) {
            let was_its = before.as_deref() == Some("node7");
            assert_eq!(changed.contains(address), was_its, "{address}");
            assert_eq!(before != after, was_its, "{address}");
        }
        let heirs: BTreeSet<_> =
            before.iter().zip(&after).filter(|(old, new)| old != new).map(|(_, new)| new.clone()).collect();
        assert!(heirs.len() > 5, "{heirs:?}");
        assert_eq!(election.set_electorate(all), changed, "it gets the same ones back");
    }

    #[test]
    fn addresses_are_spread_evenly() {
        let addresses = hosts("10.0.0.0/16", 5000);
        let election = election(nodes(10, "10.0.0.0/16"), &addresses);
        let mut counts: HashMap<_, u32> = HashMap::new();
        winners(&election, &addresses).into_iter().for_each(|winner| *counts.entry(winner).or_default() += 1);
        assert_eq!(counts.len(), 10);
        // Six standard deviations of a fair draw around 500.
        assert!(counts.values().all(|count| (373..=627).contains(count)), "{counts:?}");
    }

    #[test]
    fn an_address_is_forgotten_with_its_last_user() {
        let address = hosts("192.0.2.0/24", 1)[0];
        let mut election = election(nodes(3, "192.0.2.0/24"), &[address, address]);
        election.remove(address);
        assert!(election.winner(address).is_some());
        election.remove(address);
        election.remove(address);
        assert!(election.seats.is_empty());
    }

    #[test]
    fn one_of_the_preferred_nodes_has_the_address_if_one_can_and_any_node_otherwise() {
        let addresses = hosts("192.0.2.0/24", 40);
        let mut election = election(nodes(6, "192.0.2.0/24"), &addresses);
        let before = winners(&election, &addresses);
        let prefer = |election: &mut Election, names: &[&str]| {
            let nodes: BTreeSet<_> = names.iter().map(|name| NodeId::of(name)).collect();
            addresses.iter().for_each(|address| election.prefer(*address, nodes.clone()));
        };
        prefer(&mut election, &["node2", "node4", "elsewhere"]);
        let counts = |winners: Vec<Option<Arc<str>>>| {
            winners.into_iter().flatten().map(|node| node.to_string()).collect::<BTreeSet<_>>()
        };
        let both: BTreeSet<_> = ["node2", "node4"].map(str::to_owned).into();
        assert_eq!(counts(winners(&election, &addresses)), both, "spread over those that can");
        let mut fewer = nodes(6, "192.0.2.0/24");
        fewer.remove("node2");
        let changed = election.set_electorate(fewer.clone());
        assert!(!changed.is_empty() && changed.len() < addresses.len());
        assert_eq!(counts(winners(&election, &addresses)), ["node4".to_owned()].into());
        fewer.remove("node4");
        election.set_electorate(fewer);
        assert!(counts(winners(&election, &addresses)).len() > 2, "better than nobody");
        election.set_electorate(nodes(6, "192.0.2.0/24"));
        assert_eq!(counts(winners(&election, &addresses)), both, "they are back");
        prefer(&mut election, &[]);
        assert_eq!(winners(&election, &addresses), before);
    }

    proptest! {
        #[test]
        fn increments_equal_an_election_from_scratch_and_say_exactly_what_changed(
            steps in prop::collection::vec(any_electorate(), 1..8),
            preferred in prop::collection::btree_set(0..8u8, 0..3),
        ) {
            let addresses = some_addresses();
            let mut election = election(Electorate::new(), &addresses);
            election.prefer(addresses[0], preferred.into_iter().map(|node| NodeId::of(&name(node))).collect());
            for electorate in steps {
                let before = winners(&election, &addresses);
                let changed = election.set_electorate(electorate.clone());
                let after = winners(&election, &addresses);
                for (address, (before, after)) in addresses.iter().zip(before.iter().zip(&after)) {
                    prop_assert_eq!(changed.contains(address), before != after);
                    let scratch = elect(&electorate, *address, &election.seats[address].preferred).map(|claim| claim.node);
                    prop_assert_eq!(after, &scratch);
                    let has_candidate = electorate.values().any(|subnets| can_serve(subnets, *address));
                    prop_assert_eq!(after.is_some(), has_candidate, "exactly one winner where there is a candidate");
                }
            }
        }

        #[test]
        fn the_order_in_which_nodes_become_known_leaves_no_trace(
            order in Just((0..8).collect::<Vec<u8>>()).prop_shuffle()
        ) {
            let addresses = hosts("192.0.2.0/24", 16);
            let at_once = election(nodes(8, "192.0.2.0/24"), &addresses);
            let mut one_by_one = election(Electorate::new(), &addresses);
            let mut known = Electorate::new();
            for node in order {
                known.insert(name(node), ["192.0.2.0/24".parse().unwrap()].into());
                one_by_one.set_electorate(known.clone());
            }
            prop_assert_eq!(one_by_one, at_once);
        }
    }
}
