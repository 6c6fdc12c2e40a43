//! Routes of the speaker: announced are the prefixes that the plan wants and of which the kernel has an address.
//! Aggregates have a blackhole route in the kernel as long as they are announced.
//!
//! No I/O: [`Routes`] says what to do and is told what came of it.

use std::collections::{HashMap, HashSet, VecDeque};

use api::IpFamily;
use bgp::route::RouteClass;
use ipnet::IpNet;

use super::addresses::Addresses;
use crate::{
    advertising::{Advertising, Classes},
    plan::node::NodePlan,
};

/// What the speaker has been told.
#[derive(Debug, Default)]
pub struct Routes {
    announced: HashMap<IpNet, RouteClass>,
    classes: Classes,
    blackholes: HashSet<IpNet>,
    touched: VecDeque<IpNet>,
}

/// What to do in one round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Blackholes to add before their prefixes are announced.
    pub add_blackholes: Vec<IpNet>,
    /// Prefixes to announce, or to announce anew in another class.
    pub announce: Vec<(IpNet, RouteClass)>,
    /// Prefixes to withdraw.
    pub withdraw: Vec<IpNet>,
    /// Blackholes to delete after their prefixes are withdrawn.
    pub remove_blackholes: Vec<IpNet>,
}

impl Routes {
    /// Blackholes that an earlier run left.
    pub fn adopt_blackholes(&mut self, blackholes: Vec<IpNet>) {
        self.touched.extend(&blackholes);
        self.blackholes.extend(blackholes);
    }

    /// Has the prefix of an address looked at in the next round.
    pub fn touch(&mut self, address: IpNet) {
        self.touched.push_back(address.trunc());
    }

    /// Has everything looked at.
    pub fn touch_all(&mut self, plan: &NodePlan) {
        self.touched.extend(plan.routes());
        self.touched.extend(self.announced.keys());
    }

    /// Whether there is anything to look at now.
    pub fn is_idle(&self) -> bool {
        self.touched.is_empty()
    }

    /// Whether the prefix is announced.
    pub fn is_announced(&self, prefix: &IpNet) -> bool {
        self.announced.contains_key(prefix)
    }

    /// How many prefixes are announced.
    pub fn len(&self) -> usize {
        self.announced.len()
    }

    /// Whether nothing is announced.
    pub fn is_empty(&self) -> bool {
        self.announced.is_empty()
    }

    /// Takes everything off the list that was touched.
    pub fn take(&mut self, plan: &NodePlan, addresses: &Addresses, advertising: &Advertising) -> Changes {
        let mut changes = Changes::default();
        for prefix in std::mem::take(&mut self.touched) {
            let is_wanted = plan.route_holders(&prefix).any(|address| addresses.has(address));
            let needs_blackhole = is_wanted && prefix.prefix_len() < prefix.max_prefix_len();
            match (needs_blackhole, self.blackholes.contains(&prefix)) {
                (true, false) => changes.add_blackholes.push(prefix),
                (false, true) => changes.remove_blackholes.push(prefix),
                _ => {}
            }
            if !is_wanted {
                if let Some(class) = self.announced.remove(&prefix) {
                    self.classes.give_back(class);
                    changes.withdraw.push(prefix);
                }
                continue;
            }
            let family = IpFamily::of(prefix.addr());
            let class = self.classes.take(advertising, family, plan.route_traits(&prefix));
            let before = self.announced.insert(prefix, class);
            if let Some(before) = before {
                self.classes.give_back(before);
            }
            // Touched twice in one round is decided once.
            if before != Some(class) {
                changes.announce.push((prefix, class));
            }
        }
        for list in [&mut changes.add_blackholes, &mut changes.remove_blackholes] {
            list.sort_unstable();
            list.dedup();
        }
        changes
    }

    /// The classes that the routes are in.
    pub const fn classes(&mut self) -> &mut Classes {
        &mut self.classes
    }

    /// A blackhole is in the kernel, or no longer.
    pub fn on_blackhole(&mut self, prefix: IpNet, is_there: bool) {
        if is_there {
            self.blackholes.insert(prefix);
        } else {
            self.blackholes.remove(&prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        key::ObjectKey,
        plan::{Decision, Reason, ServicePlan},
    };

    fn take(routes: &mut Routes, plan: &NodePlan, addresses: &Addresses) -> Changes {
        routes.take(plan, addresses, &Advertising::default())
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("x", name)
    }

    fn service(address: &str) -> ServicePlan {
        let addresses = vec![net(address)];
        ServicePlan {
            routes: addresses.clone(),
            addresses,
            decision: Decision::Announce,
            ..ServicePlan::skip(Reason::NoLocalEndpoint)
        }
    }

    #[test]
    fn a_route_waits_for_its_address() {
        let (mut plan, mut addresses, mut routes) =
            (NodePlan::default(), Addresses::new(false), Routes::default());
        plan.set(&key("a"), Some(service("192.0.2.1/32")));
        routes.touch(net("192.0.2.1/32"));
        assert_eq!(take(&mut routes, &plan, &addresses), Changes::default());
        addresses.on_added(net("192.0.2.1/32"), Instant::now());
        routes.touch(net("192.0.2.1/32"));
        routes.touch(net("192.0.2.1/32"));
        assert_eq!(
            take(&mut routes, &plan, &addresses).announce,
            [(net("192.0.2.1/32"), RouteClass::default())]
        );
        plan.set(&key("a"), None);
        routes.touch(net("192.0.2.1/32"));
        assert_eq!(take(&mut routes, &plan, &addresses).withdraw, [net("192.0.2.1/32")]);
        assert!(routes.is_empty());
    }

    #[test]
    fn an_aggregate_has_a_blackhole_as_long_as_any_address_inside_is_held() {
        let (mut plan, mut addresses, mut routes) =
            (NodePlan::default(), Addresses::new(false), Routes::default());
        for (name, address) in [("a", "192.0.2.1/24"), ("b", "192.0.2.2/24")] {
            plan.set(&key(name), Some(service(address)));
            addresses.on_added(net(address), Instant::now());
            routes.touch(net(address));
        }
        let aggregate = net("192.0.2.0/24");
        let changes = take(&mut routes, &plan, &addresses);
        assert_eq!(
            (changes.announce, changes.add_blackholes),
            (vec![(aggregate, RouteClass::default())], vec![aggregate])
        );
        routes.on_blackhole(aggregate, true);
        plan.set(&key("a"), None);
        routes.touch(net("192.0.2.1/24"));
        assert_eq!(take(&mut routes, &plan, &addresses), Changes::default());
        plan.set(&key("b"), None);
        routes.touch(net("192.0.2.2/24"));
        let changes = take(&mut routes, &plan, &addresses);
        assert_eq!((changes.withdraw, changes.remove_blackholes), (vec![aggregate], vec![aggregate]));
    }

    #[test]
    fn a_blackhole_that_an_earlier_run_left_is_removed_or_kept() {
        let (mut plan, mut addresses, mut routes) =
            (NodePlan::default(), Addresses::new(false), Routes::default());
        routes.adopt_blackholes(vec![net("192.0.2.0/24"), net("198.51.100.0/24")]);
        plan.set(&key("a"), Some(service("192.0.2.1/24")));
        addresses.on_added(net("192.0.2.1/24"), Instant::now());
        routes.touch_all(&plan);
        let changes = take(&mut routes, &plan, &addresses);
        assert_eq!(changes.remove_blackholes, [net("198.51.100.0/24")]);
        assert_eq!(
            (changes.announce, changes.add_blackholes),
            (vec![(net("192.0.2.0/24"), RouteClass::default())], vec![])
        );
    }
}
