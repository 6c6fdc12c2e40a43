//! Addresses of the dummy interface: what the kernel has, what the plan wants, and the difference.
//!
//! No I/O: [`Addresses`] says what to add and what to delete and is told what came of it; the reconcile loop talks
//! to the kernel. Touching an address puts it on the list of those to look at, so a change costs what it changes.
//!
//! Guarantees: nothing is deleted that we did not add, in this run or (by the mark) in an earlier one; one
//! address that fails is tried again later and stops no other.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use bgp::types::Family;
use ipnet::IpNet;
use netlink::Address;

use crate::plan::node::NodePlan;

/// Wait before an address that failed is tried again: doubled up to the second one.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// An address that someone takes away again and again is put back at most so often.
const FIGHT: Duration = Duration::from_millis(50);

/// An address on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Observed {
    is_ours: bool,
    added_at: Option<Instant>,
}

/// The addresses of one interface.
#[derive(Debug, Default)]
pub struct Addresses {
    observed: HashMap<IpNet, Observed>,
    touched: VecDeque<IpNet>,
    failures: HashMap<IpNet, u32>,
    lost_at: HashMap<IpNet, Instant>,
    due: Vec<(Instant, IpNet)>,
    counts_unmarked: bool,
}

impl Addresses {
    /// `counts_unmarked`: the kernel keeps no marks, so every address of this interface, which is ours alone,
    /// counts as ours.
    pub fn new(counts_unmarked: bool) -> Addresses {
        Addresses { counts_unmarked, ..Addresses::default() }
    }

    /// The whole truth, as dumped: what differs from what was known is touched.
    pub fn on_dump(&mut self, dump: &[Address], now: Instant) {
        let mut before = std::mem::take(&mut self.observed);
        for address in dump.iter().filter(|address| !address.is_link_local) {
            let known = before.remove(&address.prefix);
            if known.is_none() {
                self.touch(address.prefix);
            }
            let is_ours = known.is_some_and(|known| known.is_ours) || self.is_ours(address);
            let added_at = known.and_then(|known| known.added_at);
            self.observed.insert(address.prefix, Observed { is_ours, added_at });
        }
        for (address, observed) in before {
            self.lose(address, observed, now);
        }
    }

    /// An address came.
    pub fn on_added_by_kernel(&mut self, address: &Address) {
        if address.is_link_local || self.observed.contains_key(&address.prefix) {
            return;
        }
        let is_ours = self.is_ours(address);
        self.observed.insert(address.prefix, Observed { is_ours, added_at: None });
        self.touch(address.prefix);
    }

    /// An address went, maybe by our own hand.
    pub fn on_removed_by_kernel(&mut self, address: &Address, now: Instant) {
        if let Some(observed) = self.observed.remove(&address.prefix) {
            self.lose(address.prefix, observed, now);
        }
    }

    /// The interface went, and all its addresses with it.
    pub fn on_link_gone(&mut self, now: Instant) {
        for (address, observed) in std::mem::take(&mut self.observed) {
            self.lose(address, observed, now);
        }
    }

    fn lose(&mut self, address: IpNet, observed: Observed, now: Instant) {
        let is_fight = observed.added_at.is_some_and(|added| now.duration_since(added) < FIGHT)
            && self.lost_at.insert(address, now).is_some();
        if is_fight {
            self.due.push((now + FIGHT, address));
        } else {
            self.touch(address);
        }
    }

    const fn is_ours(&self, address: &Address) -> bool {
        self.counts_unmarked || matches!(address.protocol, Some(netlink::PROTOCOL))
    }

    /// Families of which an earlier run of ours has left addresses that are still there.
    pub fn kept_families(&self) -> Vec<Family> {
        let is_kept = |family: &Family| {
            let kept = self.observed.iter().filter(|(_, it)| it.is_ours && it.added_at.is_none());
            kept.map(|(address, _)| Family::of(address)).any(|kept| kept == *family)
        };
        Family::ALL.into_iter().filter(is_kept).collect()
    }

    /// Has the address looked at in the next round.
    pub fn touch(&mut self, address: IpNet) {
        self.touched.push_back(address);
    }

    /// Has everything looked at.
    pub fn touch_all(&mut self, plan: &NodePlan) {
        self.touched.extend(self.observed.keys());
        self.touched.extend(plan.addresses());
    }

    /// Whether the kernel has it.
    pub fn has(&self, address: &IpNet) -> bool {
        self.observed.contains_key(address)
    }

    /// How many are on the interface.
    pub fn len(&self) -> usize {
        self.observed.len()
    }

    /// Whether none is on the interface.
    pub fn is_empty(&self) -> bool {
        self.observed.is_empty()
    }

    /// Those on the interface that are ours.
    pub fn held(&self) -> impl Iterator<Item = &IpNet> {
        self.observed.iter().filter(|(_, observed)| observed.is_ours).map(|(address, _)| address)
    }

    /// Whether there is anything to look at now.
    pub fn is_idle(&self) -> bool {
        self.touched.is_empty()
    }

    /// When the next retry is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.iter().map(|(at, _)| *at).min()
    }

    /// Puts the retries that are due on the list.
    pub fn on_time(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        self.touched.extend::<Vec<_>>(Vec::into_iter(due).map(|(_, address)| address).collect());
    }

    /// Takes up to `limit` touched addresses off the list: those to add, and those to remove. An IPv6 address
    /// can be on an interface with one prefix length only, so the one in the way of an addition is removed first;
    /// `conflicts` lists those.
    pub fn take(&mut self, plan: &NodePlan, limit: usize) -> Batch {
        let mut batch = Batch::default();
        for address in self.touched.drain(..limit.min(self.touched.len())) {
            match (plan.wants_address(&address), self.observed.get(&address)) {
                (true, None) => {
                    let in_the_way = |other: &IpNet| {
                        matches!(address, IpNet::V6(_)) && self.observed.get(other).is_some_and(|o| o.is_ours)
                    };
                    let lengths = (0..=128).filter_map(|length| IpNet::new(address.addr(), length).ok());
                    batch.conflicts.extend(lengths.filter(in_the_way));
                    batch.add.push(address);
                }
                (false, Some(observed)) if observed.is_ours => batch.remove.push(address),
                _ => {}
            }
        }
        batch
    }

    /// The kernel has it now. Returns whether it had not before.
    pub fn on_added(&mut self, address: IpNet, now: Instant) -> bool {
        self.failures.remove(&address);
        self.observed.insert(address, Observed { is_ours: true, added_at: Some(now) }).is_none()
    }

    /// The kernel has it no longer.
    pub fn on_removed(&mut self, address: &IpNet) {
        self.failures.remove(address);
        self.lost_at.remove(address);
        self.observed.remove(address);
    }

    /// It could not be added or removed: it is tried again later. Returns how often it has failed.
    pub fn on_failed(&mut self, address: IpNet, now: Instant) -> u32 {
        let failures = self.failures.entry(address).or_default();
        let wait = RETRY.0.saturating_mul(1 << (*failures).min(16)).min(RETRY.1);
        *failures = failures.saturating_add(1);
        self.due.push((now + wait, address));
        *failures
    }
}

/// What to do in one round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// To delete before anything is added.
    pub conflicts: Vec<IpNet>,
    /// To add.
    pub add: Vec<IpNet>,
    /// To delete once no route needs them.
    pub remove: Vec<IpNet>,
}

#[cfg(test)]
mod tests {
    use netlink::{AddressFlags, Lifetime};

    use super::*;
    use crate::{
        key::ObjectKey,
        plan::{Decision, Reason, ServicePlan},
    };

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn plan(addresses: &[&str]) -> NodePlan {
        let mut plan = NodePlan::default();
        let addresses: Vec<_> = addresses.iter().map(|text| net(text)).collect();
        let service = ServicePlan {
            routes: addresses.clone(),
            addresses,
            decision: Decision::Announce,
            ..ServicePlan::skip(Reason::NoLocalEndpoint)
        };
        plan.set(&ObjectKey::new("x", "a"), Some(service));
        plan
    }

    fn address(prefix: &str, protocol: Option<u8>) -> Address {
        Address {
            index: 7,
            prefix: net(prefix),
            protocol,
            flags: AddressFlags::default(),
            is_link_local: false,
            lifetime: Lifetime::Permanent,
        }
    }

    #[test]
    fn leftovers_with_our_mark_are_adopted_or_removed_and_strangers_stay() {
        let mut addresses = Addresses::new(false);
        let dump = [
            address("192.0.2.1/32", Some(netlink::PROTOCOL)),
            address("192.0.2.2/32", Some(netlink::PROTOCOL)),
            address("192.0.2.3/32", None),
            Address { is_link_local: true, ..address("fe80::1/64", None) },
        ];
        addresses.on_dump(&dump, Instant::now());
        let batch = addresses.take(&plan(&["192.0.2.1/32"]), 100);
        assert_eq!(batch, Batch { remove: vec![net("192.0.2.2/32")], ..Batch::default() });
        assert!(addresses.is_idle());
    }

    #[test]
    fn where_the_kernel_keeps_no_marks_everything_on_our_interface_is_ours() {
        let mut addresses = Addresses::new(true);
        addresses.on_dump(&[address("192.0.2.3/32", None)], Instant::now());
        assert_eq!(addresses.take(&plan(&[]), 100).remove, [net("192.0.2.3/32")]);
    }

    #[test]
    fn families_are_kept_where_an_earlier_run_has_left_addresses() {
        let mut addresses = Addresses::new(false);
        let dump = [address("192.0.2.1/32", Some(netlink::PROTOCOL)), address("2001:db8::1/128", None)];
        addresses.on_dump(&dump, Instant::now());
        addresses.on_added(net("2001:db8::2/128"), Instant::now());
        assert_eq!(addresses.kept_families(), [Family::Ipv4Unicast], "neither another's nor this run's");
    }

    #[test]
    fn an_address_that_someone_takes_away_is_put_back_at_once_but_a_fight_is_slowed_down() {
        let mut addresses = Addresses::new(false);
        let plan = plan(&["192.0.2.1/32"]);
        let start = Instant::now();
        let mut now = start;
        addresses.on_added(net("192.0.2.1/32"), now);
        for n in 0..3 {
            now += Duration::from_millis(1);
            addresses.on_removed_by_kernel(&address("192.0.2.1/32", Some(netlink::PROTOCOL)), now);
            if n > 0 {
                assert!(addresses.is_idle());
                now = addresses.next_due().unwrap();
                assert!(now - start < Duration::from_millis(200));
                addresses.on_time(now);
            }
            assert_eq!(addresses.take(&plan, 100).add, [net("192.0.2.1/32")]);
            addresses.on_added(net("192.0.2.1/32"), now);
        }
    }

    #[test]
    fn what_fails_is_tried_again_ever_more_slowly() {
        let mut addresses = Addresses::new(false);
        let plan = plan(&["192.0.2.1/32"]);
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..12 {
            addresses.on_failed(net("192.0.2.1/32"), now);
            let due = addresses.next_due().unwrap();
            waits.push(due - now);
            now = due;
            addresses.on_time(now);
            assert_eq!(addresses.take(&plan, 100).add.len(), 1);
        }
        assert_eq!((waits[0], waits[1], waits[11]), (RETRY.0, RETRY.0 * 2, RETRY.1));
    }

    #[test]
    fn an_ipv6_address_with_another_prefix_length_makes_way() {
        let mut addresses = Addresses::new(false);
        addresses.on_added(net("2001:db8::1/64"), Instant::now());
        addresses.on_added(net("192.0.2.1/24"), Instant::now());
        let plan = plan(&["2001:db8::1/128", "192.0.2.1/32"]);
        addresses.touch_all(&plan);
        let batch = addresses.take(&plan, 100);
        assert_eq!(batch.conflicts, [net("2001:db8::1/64")]);
        assert_eq!((batch.add.len(), batch.remove.len()), (2, 2));
    }

    #[test]
    fn a_dump_that_lacks_an_address_brings_it_back() {
        let mut addresses = Addresses::new(false);
        addresses.on_added(net("192.0.2.1/32"), Instant::now());
        addresses.on_dump(&[], Instant::now());
        assert_eq!(addresses.take(&plan(&["192.0.2.1/32"]), 100).add, [net("192.0.2.1/32")]);
    }
}
