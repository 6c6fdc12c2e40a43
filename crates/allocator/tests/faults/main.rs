//! One story of a few Services, told again and again, each time with another fault at another request to the API
//! server or at another call of the IPAM provider: the end is always the same, and no version of any Service that ever
//! was published gives an address to two owners.
//!
//! `PURELB_ALL_FAULTS=1` tries every fault at every request, `PURELB_ALL_FAULTS='Refuse(429), "services/status", 6'`
//! those that a failure has named; without it, every twenty-third is tried.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod provider;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
};

use apiserver::{Action, Fault, Matcher, Server};
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use provider::{Ill, METHODS, Provider};
use support::{AGENT, Allocator, Cluster, within};

const RESOURCES: [&str; 5] = ["services/status", "services", "servicegroups/status", "leases", "events"];

/// How many stories are told at once: most of each is waiting, and more would have to wait for each other.
const AT_ONCE: usize = 3;

/// Nobody waits for a Lease to end: see [`Story::expire_lease`].
const LEASE_MS: u64 = 15_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The allocator is killed before the request reaches the API server.
    CrashBefore,
    /// The allocator is killed after the request was served, before the answer.
    CrashAfter,
    Drop,
    LoseAnswer,
    Refuse(u16),
    /// All watches end after the request; with 410 or without.
    EndWatches(bool),
}

const KINDS: [Kind; 10] = [
    Kind::CrashBefore,
    Kind::CrashAfter,
    Kind::Drop,
    Kind::LoseAnswer,
    Kind::Refuse(409),
    Kind::Refuse(429),
    Kind::Refuse(500),
    Kind::Refuse(403),
    Kind::EndWatches(false),
    Kind::EndWatches(true),
];

/// At which request what goes wrong.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Of the API server: a kind, a resource, how many requests before it.
    Api(Kind, &'static str, u32),
    /// Of the IPAM provider: what befalls which call, how many of that method before it.
    Ipam(Ill, &'static str, u32),
}

impl Place {
    fn is_crash(self) -> bool {
        let is_api = matches!(self, Place::Api(Kind::CrashBefore | Kind::CrashAfter, ..));
        is_api || matches!(self, Place::Ipam(Ill::CrashBefore | Ill::CrashAfter, ..))
    }
}

/// A story with its fault.
struct Story {
    cluster: Cluster,
    provider: Provider,
    allocator: Option<Allocator>,
    /// The fault whose consequences are still to come.
    place: Option<Place>,
    what: String,
}

impl Story {
    async fn begin(place: Option<Place>) -> Story {
        let cluster = Cluster::start().await;
        let ill = match place {
            Some(Place::Ipam(ill, method, skip)) => Some((ill, method, skip)),
            _ => None,
        };
        let provider = Provider::start(ill);
        if let Some(Place::Api(kind, resource, skip)) = place {
            let action = match kind {
                Kind::CrashBefore => Action::Hang,
                Kind::CrashAfter => Action::Mute,
                Kind::Drop => Action::Drop,
                Kind::LoseAnswer => Action::LoseAnswer,
                Kind::Refuse(code) => Action::Refuse { code, retry_after_secs: (code == 429).then_some(1) },
                Kind::EndWatches(_) => Action::Delay { millis: 0 },
            };
            let matcher = Matcher::verb("write").on(resource).from_client(AGENT);
            cluster.server.faults().add(Fault { matcher, action, times: Some(1), skip });
        }
        let allocator = Some(cluster.allocator_leasing("first", LEASE_MS).await);
        Story { cluster, provider, allocator, place, what: format!("{place:?}") }
    }

    /// What follows from the fault once it has struck.
    async fn follow_up(&mut self) {
        let faults = self.cluster.server.faults();
        let has_struck = match self.place {
            None => false,
            Some(Place::Api(..)) => faults.in_force().is_empty(),
            Some(Place::Ipam(..)) => self.provider.has_struck(),
        };
        let Some(place) = self.place.take_if(|_| has_struck) else { return };
        if place.is_crash() {
            if let Some(killed) = self.allocator.take() {
                killed.task.abort();
                drop(killed);
            }
            self.expire_lease().await;
            self.allocator = Some(self.cluster.allocator_leasing("second", LEASE_MS).await);
        }
        match place {
            Place::Api(Kind::EndWatches(true), ..) => faults.expire_watches(Matcher::all()),
            Place::Api(Kind::EndWatches(false), ..) => faults.close_watches(Matcher::all()),
            _ => {}
        }
    }

    /// The Lease of the dead is as good as expired; nobody needs to wait for that.
    async fn expire_lease(&self) {
        let leases: Api<Lease> = Api::namespaced(self.cluster.client.clone(), "purelb-system");
        let free = Patch::Merge(json!({"spec": {"holderIdentity": null}}));
        drop(leases.patch("purelb-allocator", &PatchParams::default(), &free).await);
    }

    /// Waits until this is published, and nothing else.
    async fn published(&mut self, expected: &[(&str, &str)]) {
        let expected: BTreeMap<String, Vec<String>> = expected
            .iter()
            .map(|(name, list)| ((*name).to_owned(), list.split(' ').map(str::to_owned).collect()))
            .collect();
        within(&format!("{}: {expected:?} is published", self.what), async || {
            self.follow_up().await;
            (self.cluster.published().await == expected).then_some(())
        })
        .await;
    }

    async fn tell(mut self) -> (Server, Provider) {
        let shared = json!({"purelb.io/allow-shared-ip": "k"});
        let local = json!({"externalTrafficPolicy": "Local"});
        let dual = json!({"ipFamilyPolicy": "PreferDualStack"});
        let of = |group: &str| json!({"purelb.io/service-group": group});
        let onlink =
            json!({"local": {"v4pool": {"pool": "198.51.100.1-198.51.100.2", "subnet": "198.51.100.0/29"}}});
        let socket = self.provider.socket();
        let cluster = &self.cluster;
        cluster.group("onlink", onlink).await;
        cluster
            .group("ext", json!({"external": {"provider": "p", "socket": socket, "announce": "remote"}}))
            .await;
        cluster.service("b", json!({"purelb.io/addresses": "192.0.2.7"}), json!({})).await;
        cluster.service("e", of("ext"), json!({})).await;
        cluster.service("local", of("onlink"), local.clone()).await;
        let three = [("b", "192.0.2.7"), ("e", provider::ADDRESS), ("local", "198.51.100.1")];
        self.published(&three).await;
        let cluster = &self.cluster;
        cluster.service("s1", shared.clone(), local).await;
        // It waits for what the other has.
        cluster.service("f", of("ext"), json!({})).await;
        self.published(&[&three[..], &[("s1", "192.0.2.0")]].concat()).await;
        let cluster = &self.cluster;
        cluster.service("s2", shared, json!({"ports": [{"port": 81}]})).await;
        cluster.service("w", json!({"purelb.io/addresses": "192.0.2.7"}), json!({})).await;
        let five = [&three[..], &[("s1", "192.0.2.0"), ("s2", "192.0.2.0")]].concat();
        self.published(&five).await;
        self.cluster.service("d", json!({}), dual).await;
        self.published(&[&five[..], &[("d", "192.0.2.1 fd00:1::")]].concat()).await;
        // A move, from which another one profits; one that leaves a shared address; a one-shot; a release; a move away
        // from the provider.
        let cluster = &self.cluster;
        cluster.patch("b", json!({"metadata": {"annotations": {"purelb.io/addresses": "192.0.2.9"}}})).await;
        cluster.patch("d", json!({"metadata": {"annotations": {"purelb.io/re-evaluate": "true"}}})).await;
        cluster.services().delete("s1", &DeleteParams::default()).await.unwrap();
        cluster.patch("local", json!({"spec": {"type": "ClusterIP"}})).await;
        cluster.patch("e", json!({"metadata": {"annotations": of("default")}})).await;
        let end = [
            ("b", "192.0.2.9"),
            ("d", "192.0.2.1 fd00:1::"),
            ("e", "192.0.2.2"),
            ("f", provider::ADDRESS),
            ("s2", "192.0.2.0"),
            ("w", "192.0.2.7"),
        ];
        self.published(&end).await;
        self.check_end().await;
        (self.cluster.server, self.provider)
    }

    /// Annotations and figures are as if nothing had happened.
    async fn check_end(&mut self) {
        let what = format!("{}: d is evaluated, local is left, and the groups count", self.what);
        within(&what, async || {
            self.follow_up().await;
            let services = self.cluster.services();
            let has = async |name: &str, annotation: &str| {
                services.get(name).await.is_ok_and(|s| {
                    s.metadata
                        .annotations
                        .unwrap_or_default()
                        .contains_key(&format!("purelb.io/{annotation}"))
                })
            };
            if has("d", "re-evaluate").await || has("local", "allocated-by").await {
                return None;
            }
            let groups = self.cluster.groups();
            let default = groups.get("default").await.ok()?.status?;
            let onlink = groups.get("onlink").await.ok()?.status?;
            let counts = (default.allocated_ipv4, default.allocated_ipv6, onlink.allocated_ipv4);
            let recorded = groups.get("ext").await.ok()?.status?.external_services;
            let is_settled =
                recorded == ["default/f"] && self.provider.holder().as_deref() == Some("default/f");
            (counts == (5, 1, 0) && is_settled).then_some(())
        })
        .await;
    }
}

/// Looks through every version of every Service: an address has one owner, or two that share it.
fn check_history(server: &Server, what: &str) {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version) in server.versions("services") {
        let ingress = version.as_ref().map(|object| &object["status"]["loadBalancer"]["ingress"]);
        let entries = ingress.and_then(Value::as_array).into_iter().flatten();
        let addresses = entries.filter_map(|entry| Some(entry["ip"].as_str()?.to_owned())).collect();
        owners.insert(name, addresses);
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, address) in owners.iter().flat_map(|(name, list)| list.iter().map(move |a| (name, a))) {
            if let Some(other) = seen.insert(address, name) {
                let both = BTreeSet::from([other, name.as_str()]);
                let sharing = BTreeSet::from(["default/s1", "default/s2"]);
                assert_eq!(both, sharing, "{what}: {address} is published for both");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_at_every_request_leads_to_the_same_end() {
    let (server, provider) = Story::begin(None).await.tell().await;
    check_history(&server, "without a fault");
    let writes = |resource| server.counters().total(&Matcher::verb("write").on(resource).from_client(AGENT));
    let wanted = std::env::var("PURELB_ALL_FAULTS").ok();
    let mut places = Vec::new();
    for resource in RESOURCES {
        let count = u32::try_from(writes(resource)).unwrap().min(24);
        places.extend((0..count).flat_map(|skip| KINDS.map(|kind| Place::Api(kind, resource, skip))));
    }
    for method in METHODS {
        let count = provider.calls(method).min(4);
        assert!(count > 0, "{method} is never called");
        places.extend((0..count).flat_map(|skip| Ill::ALL.map(|ill| Place::Ipam(ill, method, skip))));
    }
    let is_wanted = |number: usize, place: &Place| match wanted.as_deref() {
        None => number.is_multiple_of(23),
        Some("1") => true,
        Some(part) => format!("{place:?}").contains(part),
    };
    let chosen = places.into_iter().enumerate().filter(|(number, place)| is_wanted(*number, place));
    // A story that goes wrong is named, and the others are told to their ends.
    let stories = chosen.map(|(_, place)| async move {
        let story = async {
            let (server, _provider) = Story::begin(Some(place)).await.tell().await;
            check_history(&server, &format!("{place:?}"));
        };
        AssertUnwindSafe(story).catch_unwind().await.err().map(|_| place)
    });
    let results: Vec<_> = stream::iter(stories).buffer_unordered(AT_ONCE).collect().await;
    let told = results.len();
    let failed: Vec<_> = results.into_iter().flatten().collect();
    println!("{told} stories with a fault");
    assert!(failed.is_empty(), "{} of {told} stories went wrong: {failed:?}", failed.len());
    let is_some = if wanted.is_none() { told > 10 } else { told > 0 };
    assert!(is_some, "only {told} stories");
}
