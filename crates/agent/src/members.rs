//! The members: nodes that hold a Lease, and whether it is good.
//!
//! A registry, not the detector of failure (that is the heartbeats): a Lease is good for its duration from when its
//! `renewTime` was seen to change, on our monotonic clock. **Silence is no evidence.** A Lease ends only while
//! others are seen to be renewed, at least this node's own, each ten seconds; when nothing is heard, the API server
//! is gone or we are cut off from it, and every Lease stays as it is. After such a silence all begin anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    NodeAgentUse,
    names::{ALLOCATOR_LEASE, label},
};
use ipnet::IpNet;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, runtime::watcher::Config};
use netlink::Mac;
use tokio::sync::{mpsc, watch};

use crate::{
    inputs::lease::{self, MemberLease},
    key::ObjectKey,
    stores::{self, Change, Listing},
};

/// Longer than two renewals of one's own Lease can be apart while the API server answers.
const SILENCE: Duration = Duration::from_secs(30);
/// Changes that may wait.
const QUEUE: usize = 256;

/// A node with a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Subnets that it is on.
    pub subnets: BTreeSet<IpNet>,
    /// Where it hears heartbeats, one address a subnet; none where it has no key for them.
    pub heartbeats: BTreeSet<SocketAddr>,
    /// Ethernet addresses that it may answer with there.
    pub macs: BTreeSet<Mac>,
    /// The LBNodeAgent for it, and what of that cannot be used there.
    pub agent: Option<NodeAgentUse>,
    /// Whether the Lease is good.
    pub is_live: bool,
}

/// Every node with a Lease, by its name.
pub type Roster = BTreeMap<Arc<str>, Member>;

/// Watches the Leases and tells who is there: nothing before all have been listed once, then each change.
pub async fn run(api: Api<Lease>, roster: watch::Sender<Option<Arc<Roster>>>) {
    let (changes, mut arrivals) = mpsc::channel(QUEUE);
    let config = Config::default()
        .labels(&format!("{}={}", label::APP, label::APP_VALUE))
        .fields(&format!("metadata.name!={ALLOCATOR_LEASE}"));
    let watching = stores::watch(api, config, lease::parse, |change| change, changes);
    let telling = async {
        let mut members = Members::default();
        while let Some(arrival) = arrivals.recv().await {
            members.on(arrival.value, arrival.at);
            let Some(now) = members.roster() else { continue };
            roster.send_if_modified(|told| {
                let is_news = told.as_deref() != Some(&now);
                if is_news {
                    *told = Some(Arc::new(now));
                }
                is_news
            });
        }
    };
    tokio::join!(watching, telling);
}

/// A Lease, and since when it is good.
#[derive(Clone, Debug)]
struct Tracked {
    lease: MemberLease,
    since: Instant,
}

/// The Leases as they were seen. Takes `now` and never reads a clock.
#[derive(Debug, Default)]
pub struct Members {
    leases: BTreeMap<ObjectKey, Tracked>,
    listing: Listing,
    /// When a Lease was last seen to be renewed.
    heard: Option<Instant>,
}

impl Members {
    /// Takes a change in.
    pub fn on(&mut self, change: Change<MemberLease>, now: Instant) {
        match change {
            Change::Applied(key, lease) => {
                self.listing.note(&key);
                let before = self.leases.get(&key);
                let is_renewal = before.is_none_or(|before| before.lease.renewed != lease.renewed);
                let since = before.filter(|_| !is_renewal).map_or(now, |before| before.since);
                self.leases.insert(key, Tracked { lease, since });
                if is_renewal {
                    self.hear(now);
                }
            }
            Change::Deleted(key) => drop(self.leases.remove(&key)),
            Change::Listing => self.listing.begin(),
            Change::Listed => {
                for key in self.listing.finish(self.leases.keys()) {
                    self.leases.remove(&key);
                }
            }
        }
    }

    /// News: the API server lives. After a silence nobody is judged by what could not be heard.
    fn hear(&mut self, now: Instant) {
        if self.heard.is_some_and(|heard| now.duration_since(heard) > SILENCE) {
            self.leases.values_mut().for_each(|tracked| tracked.since = now);
        }
        self.heard = Some(now);
    }

    /// Who is there; `None` before the first list is complete.
    pub fn roster(&self) -> Option<Roster> {
        let member = |tracked: &Tracked| {
            let MemberLease { node, subnets, heartbeats, macs, agent, duration, .. } = tracked.lease.clone();
            let is_live = self.heard.is_none_or(|heard| heard < tracked.since + duration);
            (node, Member { subnets, heartbeats, macs, agent, is_live })
        };
        self.listing.is_complete().then(|| self.leases.values().map(member).collect())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

    use super::*;

    struct Case {
        members: Members,
        start: Instant,
    }

    impl Case {
        fn new() -> Case {
            Case { members: Members::default(), start: Instant::now() }
        }

        fn on(&mut self, second: u64, change: Change<MemberLease>) {
            self.members.on(change, self.start + Duration::from_secs(second));
        }

        /// The Lease of a node, renewed at that second, is seen at that second.
        fn renew(&mut self, node: &str, second: u64) {
            self.see(node, second, second);
        }

        fn see(&mut self, node: &str, renewed: u64, second: u64) {
            let renewed = Timestamp::from_second(renewed.try_into().unwrap()).unwrap();
            let lease = MemberLease {
                node: node.into(),
                subnets: ["192.0.2.0/24".parse().unwrap()].into(),
                heartbeats: BTreeSet::new(),
                macs: BTreeSet::new(),
                agent: None,
                renewed: Some(MicroTime(renewed)),
                duration: Duration::from_secs(40),
            };
            self.on(second, Change::Applied(ObjectKey::new("purelb-system", node), lease));
        }

        fn live(&self) -> Vec<Arc<str>> {
            let roster = self.members.roster().unwrap();
            roster.into_iter().filter(|(_, member)| member.is_live).map(|(node, _)| node).collect()
        }
    }

    fn listed(nodes: &[&str]) -> Case {
        let mut case = Case::new();
        case.on(0, Change::Listing);
        nodes.iter().for_each(|node| case.renew(node, 0));
        case.on(0, Change::Listed);
        case
    }

    #[test]
    fn nothing_is_said_before_all_are_listed() {
        let mut case = Case::new();
        case.on(0, Change::Listing);
        case.renew("a", 0);
        assert!(case.members.roster().is_none());
        case.on(1, Change::Listed);
        assert_eq!(case.live(), ["a".into()]);
    }

    #[test]
    fn a_lease_ends_while_others_are_renewed() {
        let mut case = listed(&["dead", "own"]);
        for second in [10, 20, 30, 39] {
            case.renew("own", second);
            assert_eq!(case.live().len(), 2, "{second}");
        }
        case.renew("own", 40);
        assert_eq!(case.live(), ["own".into()]);
        case.renew("dead", 45);
        assert_eq!(case.live().len(), 2, "it is back");
    }

    #[test]
    fn without_the_api_server_no_lease_ends_and_after_it_all_begin_anew() {
        let mut case = listed(&["dead", "other", "own"]);
        // Ten minutes without a word; then a list with nothing new in it, then the first renewals.
        case.on(600, Change::Listing);
        for node in ["dead", "other", "own"] {
            case.see(node, 0, 600);
        }
        case.on(600, Change::Listed);
        assert_eq!(case.live().len(), 3);
        case.renew("own", 603);
        case.renew("other", 610);
        assert_eq!(case.live().len(), 3, "nobody is judged by the silence");
        for second in [613, 623, 633, 642] {
            case.renew("own", second);
            case.renew("other", second);
        }
        assert_eq!(case.live().len(), 3);
        case.renew("own", 643);
        assert_eq!(case.live(), ["other".into(), "own".into()]);
    }

    #[test]
    fn a_lease_that_is_deleted_or_missing_in_a_list_is_gone() {
        let mut case = listed(&["a", "b", "c"]);
        case.on(1, Change::Deleted(ObjectKey::new("purelb-system", "a")));
        assert_eq!(case.live(), ["b".into(), "c".into()]);
        case.on(2, Change::Listing);
        case.see("b", 0, 2);
        assert_eq!(case.live().len(), 2, "a list in progress says nothing");
        case.on(3, Change::Listed);
        assert_eq!(case.live(), ["b".into()]);
    }
}
