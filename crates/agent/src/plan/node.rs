//! The plan for the node: what its Services' plans come to together.
//!
//! Guarantees: an address is wanted as long as any Service's plan has it, a prefix is announced as long as any
//! has a route to an address inside it; setting the plan of one Service costs what that plan holds, whatever the
//! others do; the order of changes leaves no trace (merging increments equals planning from scratch).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{LocalAddress, ServicePlan, traits::Traits};
use crate::key::ObjectKey;

/// The merged plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePlan {
    services: HashMap<ObjectKey, ServicePlan>,
    /// Address with prefix length → how many Services want it held.
    addresses: HashMap<IpNet, u32>,
    /// Prefix → on whose account it is announced.
    routes: HashMap<IpNet, Holders>,
    /// Address of a local pool on a subnet of this node → how it is to be held and by whom, and how many Services
    /// say so.
    local: HashMap<IpAddr, BTreeMap<LocalAddress, u32>>,
}

/// Who wants a prefix announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holders {
    /// The addresses inside it, and how many Services want each.
    addresses: BTreeMap<IpNet, u32>,
    /// What these Services are like, and how many routes of each kind.
    traits: BTreeMap<Arc<Traits>, u32>,
}

impl Holders {
    fn add(&mut self, address: &IpNet, traits: &Arc<Traits>) {
        *self.addresses.entry(*address).or_default() += 1;
        *self.traits.entry(traits.clone()).or_default() += 1;
    }

    /// Whether nobody is left.
    fn remove(&mut self, address: &IpNet, traits: &Arc<Traits>) -> bool {
        count_down(&mut self.addresses, address);
        count_down(&mut self.traits, traits);
        self.addresses.is_empty()
    }
}

fn count_down<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl NodePlan {
    /// The plan of a Service, if it has one.
    pub fn service(&self, key: &ObjectKey) -> Option<&ServicePlan> {
        self.services.get(key)
    }

    /// Every Service with its plan.
    pub fn services(&self) -> impl Iterator<Item = (&ObjectKey, &ServicePlan)> {
        self.services.iter()
    }

    /// Sets the plan of a Service; `None` removes it. Returns what was there.
    pub fn set(&mut self, key: &ObjectKey, plan: Option<ServicePlan>) -> Option<ServicePlan> {
        // The new one is counted first, so that what both have is never at zero in between.
        if let Some(plan) = &plan {
            for address in &plan.addresses {
                *self.addresses.entry(*address).or_default() += 1;
            }
            for address in &plan.routes {
                self.routes.entry(address.trunc()).or_default().add(address, &plan.traits);
            }
            for local in &plan.local {
                *self.local.entry(local.addr()).or_default().entry(local.clone()).or_default() += 1;
            }
        }
        let old = match plan {
            Some(plan) => self.services.insert(key.clone(), plan),
            None => self.services.remove(key),
        };
        for address in old.iter().flat_map(|old| &old.addresses) {
            if let Some(count) = self.addresses.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(address);
                }
            }
        }
        if let Some(old) = &old {
            for local in &old.local {
                if let Some(counts) = self.local.get_mut(&local.addr()) {
                    count_down(counts, local);
                    if counts.is_empty() {
                        self.local.remove(&local.addr());
                    }
                }
            }
            for address in &old.routes {
                let prefix = address.trunc();
                if self.routes.get_mut(&prefix).is_some_and(|holders| holders.remove(address, &old.traits)) {
                    self.routes.remove(&prefix);
                }
            }
        }
        old
    }

    /// How an address of a local pool is to be held and by whom; `None` where this node has no part in it. Where
    /// Services that share it differ, it is the first in order.
    pub fn local(&self, address: IpAddr) -> Option<&LocalAddress> {
        self.local.get(&address)?.keys().next()
    }

    /// Every address of a local pool on a subnet of this node.
    pub fn locals(&self) -> impl Iterator<Item = &LocalAddress> {
        self.local.values().filter_map(|counts| counts.keys().next())
    }

    /// Whether an address should be held.
    pub fn wants_address(&self, address: &IpNet) -> bool {
        self.addresses.contains_key(address)
    }

    /// The addresses for whose sake a prefix should be announced; none where it should not.
    pub fn route_holders(&self, prefix: &IpNet) -> impl Iterator<Item = &IpNet> {
        self.routes.get(prefix).into_iter().flat_map(|holders| holders.addresses.keys())
    }

    /// What the Services behind a prefix are like, each kind once with how many of it there are.
    pub fn route_traits(&self, prefix: &IpNet) -> impl Iterator<Item = (&Traits, u32)> + Clone {
        let holders = self.routes.get(prefix).into_iter();
        holders.flat_map(|holders| holders.traits.iter().map(|(traits, count)| (&**traits, *count)))
    }

    /// Every address that should be held.
    pub fn addresses(&self) -> impl Iterator<Item = &IpNet> {
        self.addresses.keys()
    }

    /// Every prefix that should be announced.
    pub fn routes(&self) -> impl Iterator<Item = &IpNet> {
        self.routes.keys()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Decision, Reason};

    fn plan(addresses: Vec<IpNet>, routes: Vec<IpNet>) -> ServicePlan {
        ServicePlan { addresses, routes, ..ServicePlan::skip(Reason::NoLocalEndpoint) }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_shared_address_goes_with_its_last_holder() {
        let (a, b) = (ObjectKey::new("x", "a"), ObjectKey::new("x", "b"));
        let shared = net("192.0.2.1/32");
        let mut node = NodePlan::default();
        node.set(&a, Some(plan(vec![shared], vec![shared])));
        node.set(&b, Some(plan(vec![shared], vec![])));
        node.set(&a, None);
        assert!(node.wants_address(&shared));
        assert_eq!(node.route_holders(&shared).count(), 0);
        node.set(&b, None);
        assert_eq!(node, NodePlan::default());
    }

    #[test]
    fn an_aggregate_is_announced_while_any_address_inside_it_is() {
        let (a, b) = (ObjectKey::new("x", "a"), ObjectKey::new("x", "b"));
        let mut node = NodePlan::default();
        for (key, address) in [(&a, net("192.0.2.1/24")), (&b, net("192.0.2.2/24"))] {
            node.set(key, Some(plan(vec![address], vec![address])));
        }
        assert_eq!(node.routes().collect::<Vec<_>>(), [&net("192.0.2.0/24")]);
        node.set(&a, None);
        assert_eq!(node.route_holders(&net("192.0.2.0/24")).collect::<Vec<_>>(), [&net("192.0.2.2/24")]);
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        (0u8..6, prop::sample::select(vec![24u8, 32])).prop_map(|(host, length)| {
            IpNet::new(std::net::Ipv4Addr::new(192, 0, 2, host).into(), length).expect("both fit IPv4")
        })
    }

    fn any_local() -> impl Strategy<Value = LocalAddress> {
        (any_net(), prop::option::of(0u8..2)).prop_map(|(address, other)| LocalAddress {
            address,
            interface: "eth0".into(),
            index: 2,
            no_dad: false,
            other: other.map(|other| format!("n{other}").into()),
        })
    }

    fn any_plan() -> impl Strategy<Value = Option<ServicePlan>> {
        let addresses = prop::collection::btree_set(any_net(), 0..4);
        let local = prop::collection::btree_set(any_local(), 0..3);
        prop::option::of((addresses, 0usize..4, local).prop_map(|(addresses, announced, local)| {
            let addresses: Vec<_> = addresses.into_iter().collect();
            let routes = addresses.iter().copied().take(announced).collect();
            let local = local.into_iter().collect();
            ServicePlan { decision: Decision::Announce, local, ..plan(addresses, routes) }
        }))
    }

    proptest! {
        #[test]
        fn merging_increments_equals_planning_from_scratch(
            changes in prop::collection::vec((0u8..4, any_plan()), 0..40)
        ) {
            let mut merged = NodePlan::default();
            let mut last = BTreeMap::new();
            for (name, plan) in changes {
                let key = ObjectKey::new("x", &name.to_string());
                merged.set(&key, plan.clone());
                last.insert(key, plan);
            }
            let mut scratch = NodePlan::default();
            for (key, plan) in last.into_iter().rev() {
                scratch.set(&key, plan);
            }
            prop_assert_eq!(merged, scratch);
        }
    }
}
