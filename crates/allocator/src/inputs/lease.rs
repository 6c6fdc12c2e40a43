//! Node agents' Leases: which nodes live, on which subnets they are, and which strangers they have seen answer for
//! addresses of ours.
//!
//! A Lease is live for its duration from when its `renewTime` was seen to change, on our monotonic clock: clocks of
//! two machines are never compared. So the Lease of a node that died while nobody watched counts as live once more,
//! for its duration from when it was first seen.
//!
//! **Silence is no evidence.** A Lease ends only by what is heard after its time is over. The Lease of the allocator
//! itself is renewed every two seconds: while nothing is heard, the API server is gone or we are cut off from it, and
//! every Lease stays as it is. After such a silence all begin anew from when the list is current again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    AddressConflict, AddressRange, LinkLayerAddress,
    names::annotation,
    node_lease::{node_of, parse_conflicts, parse_subnets},
};
use ipnet::IpNet;
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};

/// A node agent's Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLease {
    /// The node.
    pub node: Arc<str>,
    said: Said,
    renewed: Option<MicroTime>,
    duration: Duration,
}

/// What a Lease says of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    subnets: BTreeSet<IpNet>,
    conflicts: BTreeSet<AddressConflict>,
}

impl NodeLease {
    /// What matters of an object; `None` for a Lease that is no node's, or that nobody holds. An annotation that
    /// cannot be read says nothing.
    pub fn from_object(lease: &Lease) -> Option<NodeLease> {
        let node = node_of(lease.metadata.name.as_deref()?)?;
        let annotations = lease.metadata.annotations.as_ref()?;
        let subnets = parse_subnets(annotations.get(annotation::SUBNETS)?);
        let conflicts = annotations.get(annotation::ADDRESS_CONFLICTS).map(|text| parse_conflicts(text));
        let conflicts = conflicts.unwrap_or_else(|| Ok(BTreeSet::new()));
        let spec = lease.spec.as_ref()?;
        spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
        for error in [subnets.as_ref().err(), conflicts.as_ref().err()].into_iter().flatten() {
            tracing::debug!(node, %error, "a part of the node's Lease cannot be read");
        }
        Some(NodeLease {
            node: node.into(),
            said: Said { subnets: subnets.unwrap_or_default(), conflicts: conflicts.unwrap_or_default() },
            renewed: spec.renew_time.clone(),
            duration: Duration::from_secs(spec.lease_duration_seconds?.try_into().ok()?),
        })
    }
}

/// Longer than two renewals of the leader's own Lease are apart, and short against the duration of nodes' Leases.
const SILENCE: Duration = Duration::from_secs(15);

/// A Lease and until when it is live.
#[derive(Clone, Debug)]
struct Member {
    lease: NodeLease,
    until: Instant,
}

/// Every node's Lease. Takes `now` and never reads a clock.
#[derive(Clone, Debug, Default)]
pub struct Members {
    leases: BTreeMap<Arc<str>, Member>,
    /// When anything was heard last: what was live then is live.
    heard: Option<Instant>,
}

impl Members {
    /// Something was heard: of a node's Lease, or of the allocator's own. Whether a Lease has ended by now.
    pub fn hear(&mut self, now: Instant) -> bool {
        let before = self.heard.replace(now);
        let Some(before) = before else { return false };
        if now.duration_since(before) > SILENCE {
            // Nobody is judged by what could not be heard.
            for member in self.leases.values_mut().filter(|member| member.until > before) {
                member.until = now + member.lease.duration;
            }
        }
        self.leases.values().any(|member| member.until > before && member.until <= now)
    }

    /// A Lease as it is now. Whether that changes what is live: a renewal does not.
    pub fn on_lease(&mut self, lease: NodeLease, now: Instant) -> bool {
        let has_ended = self.hear(now);
        let until = now + lease.duration;
        let Some(member) = self.leases.get_mut(&lease.node) else {
            self.leases.insert(lease.node.clone(), Member { lease, until });
            return true;
        };
        let was_live = member.until > now;
        let says_other = member.lease.said != lease.said || member.lease.duration != lease.duration;
        if member.lease.renewed != lease.renewed {
            member.until = until;
        }
        member.lease = lease;
        let is_live = member.until > now;
        has_ended || was_live != is_live || (is_live && says_other)
    }

    /// A Lease that is gone, or is no node's any more. Whether that changes what is live.
    pub fn on_gone(&mut self, node: &str, now: Instant) -> bool {
        let has_ended = self.hear(now);
        self.leases.remove(node).is_some_and(|member| member.until > now) || has_ended
    }

    /// A complete list: what it lacks is gone.
    pub fn on_list(&mut self, leases: Vec<NodeLease>, now: Instant) {
        self.hear(now);
        let listed: BTreeSet<Arc<str>> = leases.iter().map(|lease| lease.node.clone()).collect();
        self.leases.retain(|node, _| listed.contains(node));
        for lease in leases {
            self.on_lease(lease, now);
        }
    }

    /// What live nodes say.
    pub fn live(&self) -> Live {
        let mut live = Live::default();
        let is_live = |member: &&Member| self.heard.is_none_or(|heard| member.until > heard);
        for member in self.leases.values().filter(is_live) {
            let NodeLease { node, said, .. } = &member.lease;
            live.subnets.extend(&said.subnets);
            for AddressConflict { address, link_layer_address } in said.conflicts.iter().copied() {
                let stranger = || Stranger { node: node.clone(), link_layer_address };
                live.strangers.entry(address).or_insert_with(stranger);
            }
        }
        live
    }
}

/// Who answers on the wire for an address of ours, and is none of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The node that has seen it; of several the first by name.
    pub node: Arc<str>,
    /// The stranger's.
    pub link_layer_address: LinkLayerAddress,
}

/// What live nodes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    subnets: BTreeSet<IpNet>,
    strangers: BTreeMap<IpAddr, Stranger>,
}

impl Live {
    /// Whether the addresses are on the subnet of a live node.
    pub fn reaches(&self, range: &AddressRange) -> bool {
        self.subnets.iter().any(|subnet| range.is_within(subnet))
    }

    /// Who else answers for the address.
    pub fn stranger(&self, address: IpAddr) -> Option<&Stranger> {
        self.strangers.get(&address)
    }

    /// Addresses that strangers answer for, sorted.
    pub fn strangers(&self) -> impl Iterator<Item = (IpAddr, &Stranger)> {
        self.strangers.iter().map(|(address, stranger)| (*address, stranger))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(node: &str, subnets: &str, renewed: u32) -> NodeLease {
        object(node, json!({"purelb.io/subnets": subnets}), renewed).unwrap()
    }

    fn object(node: &str, annotations: serde_json::Value, renewed: u32) -> Option<NodeLease> {
        let lease = json!({
            "metadata": {"name": format!("purelb-{node}"), "annotations": annotations},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": 40,
                     "renewTime": format!("2026-01-01T00:00:{renewed:02}.000000Z")},
        });
        NodeLease::from_object(&serde_json::from_value(lease).unwrap())
    }

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    fn secs(start: Instant, secs: u64) -> Instant {
        start + Duration::from_secs(secs)
    }

    #[test]
    fn a_range_is_reached_where_a_node_has_its_subnet_or_a_wider_one() {
        let mut members = Members::default();
        let now = Instant::now();
        assert!(members.on_lease(lease("n1", "192.0.2.0/24,fd00:1::/64", 0), now));
        let live = members.live();
        for (text, is_reached) in [
            ("192.0.2.10-192.0.2.20", true),
            ("192.0.2.0/24", true),
            ("192.0.2.0/23", false),
            ("198.51.100.0/24", false),
            ("fd00:1::5-fd00:1::9", true),
            ("fd00:2::/64", false),
        ] {
            assert_eq!(live.reaches(&range(text)), is_reached, "{text}");
        }
    }

    /// The allocator's own Lease is renewed in these seconds. Whether a node's has ended meanwhile.
    fn hear(members: &mut Members, start: Instant, seconds: std::ops::RangeInclusive<u64>) -> bool {
        seconds.step_by(2).filter(|second| members.hear(secs(start, *second))).count() > 0
    }

    #[test]
    fn a_lease_is_live_for_its_duration_from_when_its_renewal_was_seen() {
        let mut members = Members::default();
        let start = Instant::now();
        members.on_lease(lease("n1", "192.0.2.0/24", 0), start);
        assert!(!hear(&mut members, start, 2..=30));
        // Seen again without a renewal: it does not live any longer for that.
        assert!(!members.on_lease(lease("n1", "192.0.2.0/24", 0), secs(start, 30)));
        assert!(!hear(&mut members, start, 32..=38));
        assert!(members.live().reaches(&range("192.0.2.1-192.0.2.2")));
        assert!(members.hear(secs(start, 40)) && !members.hear(secs(start, 42)), "told once");
        assert_eq!(members.live(), Live::default());
        // Whatever its own clock says, a change of the time is a renewal.
        assert!(members.on_lease(lease("n1", "192.0.2.0/24", 1), secs(start, 50)), "it lives again");
        assert!(!members.on_lease(lease("n1", "192.0.2.0/24", 0), secs(start, 60)));
        assert!(!hear(&mut members, start, 60..=98) && members.hear(secs(start, 100)));
    }

    #[test]
    fn without_a_word_of_the_api_server_no_lease_ends_and_after_it_all_begin_anew() {
        let mut members = Members::default();
        let start = Instant::now();
        members.on_lease(lease("n1", "192.0.2.0/24", 0), start);
        members.on_lease(lease("dead", "10.0.0.0/8", 0), start);
        hear(&mut members, start, 2..=10);
        let before = members.live();
        // Ten minutes of silence; then the list, in which nobody has been renewed yet.
        members
            .on_list(vec![lease("n1", "192.0.2.0/24", 0), lease("dead", "10.0.0.0/8", 0)], secs(start, 600));
        assert_eq!(members.live(), before);
        assert!(!members.on_lease(lease("n1", "192.0.2.0/24", 3), secs(start, 603)));
        assert!(!hear(&mut members, start, 604..=638));
        assert_eq!(members.live(), before);
        assert!(members.hear(secs(start, 640)), "nobody renews it");
        assert!(!members.live().reaches(&range("10.0.0.0/24")));
        assert!(members.live().reaches(&range("192.0.2.0/30")));
    }

    #[test]
    fn what_had_ended_before_a_silence_does_not_live_again_for_it() {
        let mut members = Members::default();
        let start = Instant::now();
        members.on_lease(lease("dead", "10.0.0.0/8", 0), start);
        assert!(hear(&mut members, start, 2..=40));
        assert!(!members.hear(secs(start, 600)));
        assert_eq!(members.live(), Live::default());
    }

    #[test]
    fn only_what_a_live_lease_says_anew_is_a_change() {
        let mut members = Members::default();
        let start = Instant::now();
        members.on_lease(lease("n1", "192.0.2.0/24", 0), start);
        assert!(!members.on_lease(lease("n1", "192.0.2.0/24", 10), secs(start, 10)), "a renewal");
        assert!(members.on_lease(lease("n1", "192.0.2.0/24,10.0.0.0/8", 10), secs(start, 11)));
        assert!(hear(&mut members, start, 12..=58));
        assert!(!members.on_lease(lease("n1", "", 10), secs(start, 60)), "it has ended");
        assert!(!members.on_gone("n1", secs(start, 61)) && !members.on_gone("n2", secs(start, 61)));
    }

    #[test]
    fn a_list_removes_what_it_lacks_and_renews_nothing() {
        let mut members = Members::default();
        let start = Instant::now();
        members.on_list(vec![lease("n1", "192.0.2.0/24", 0), lease("n2", "10.0.0.0/8", 0)], start);
        hear(&mut members, start, 2..=28);
        members.on_list(vec![lease("n2", "10.0.0.0/8", 0)], secs(start, 30));
        let live = members.live();
        assert!(live.reaches(&range("10.0.0.0/24")) && !live.reaches(&range("192.0.2.0/30")));
        hear(&mut members, start, 32..=40);
        assert_eq!(members.live(), Live::default());
    }

    #[test]
    fn a_stranger_is_known_while_a_live_node_reports_it() {
        let report = |node: &str, text: &str, renewed: u32| {
            let annotations =
                json!({"purelb.io/subnets": "192.0.2.0/24", "purelb.io/address-conflicts": text});
            object(node, annotations, renewed).unwrap()
        };
        let mut members = Members::default();
        let start = Instant::now();
        members.on_lease(report("n2", "192.0.2.5,02:00:00:00:00:05", 0), start);
        members.on_lease(report("n1", "192.0.2.5,02:00:00:00:00:05 192.0.2.9,02:00:00:00:00:09", 0), start);
        let live = members.live();
        let stranger = live.stranger("192.0.2.5".parse().unwrap()).unwrap();
        assert_eq!((&*stranger.node, stranger.link_layer_address.0[5]), ("n1", 5));
        assert_eq!(live.strangers().count(), 2);
        assert!(members.on_lease(report("n1", "", 1), secs(start, 1)));
        assert_eq!(&*members.live().stranger("192.0.2.5".parse().unwrap()).unwrap().node, "n2");
        hear(&mut members, start, 2..=40);
        assert_eq!(members.live().strangers().count(), 0);
    }

    #[test]
    fn what_is_no_nodes_lease_is_left_out_and_what_cannot_be_read_says_nothing() {
        assert!(object("n1", json!({}), 0).is_none(), "the allocator's own looks like that");
        let mut released = Lease::default();
        released.metadata.name = Some("purelb-n1".to_owned());
        released.metadata.annotations = Some([(annotation::SUBNETS.to_owned(), String::new())].into());
        released.spec = Some(Default::default());
        assert!(NodeLease::from_object(&released).is_none());
        let odd = object("n1", json!({"purelb.io/subnets": "banana", "purelb.io/address-conflicts": "x"}), 0);
        assert_eq!(odd.unwrap().said, Said::default());
    }
}
