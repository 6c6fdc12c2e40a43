//! The allocator and nodes' Leases, against an API server: what nodes say decides what Services get.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use allocator::{
    metrics::Metrics,
    settings::{Arguments, Settings},
};
use api::ServiceGroup;
use apiserver::{Options, Server};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Event, Namespace, Service},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "purelb-system";

/// An API server and one allocator in this process; the allocator is killed when dropped.
struct Cluster {
    _server: Server,
    client: Client,
    allocator: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.allocator.abort();
    }
}

impl Cluster {
    async fn start() -> Cluster {
        let server = Server::start(Options::default()).await.unwrap();
        let config = kube::Config::new(server.url().parse().unwrap());
        let client = Client::try_from(config.clone()).unwrap();
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        for (_, crd) in api::crds::all() {
            crds.create(&PostParams::default(), &serde_json::from_value(crd).unwrap()).await.unwrap();
        }
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
        let groups: Api<ServiceGroup> = Api::namespaced(client.clone(), NAMESPACE);
        within("ServiceGroups are served", async || groups.list(&ListParams::default()).await.is_ok()).await;
        let group = json!({"metadata": {"name": "default"}, "spec": {"local": {"multiPool": true, "v4pools": [
            {"pool": "192.0.2.10-192.0.2.19", "subnet": "192.0.2.0/24"},
            {"pool": "198.51.100.10-198.51.100.19", "subnet": "198.51.100.0/24"},
        ]}}});
        groups.create(&PostParams::default(), &serde_json::from_value(group).unwrap()).await.unwrap();
        let arguments = Arguments { pod_name: Some("test".to_owned()), ..Arguments::default() };
        let settings = Arc::new(Settings::load(&arguments).unwrap());
        let metrics = Arc::new(Metrics::default());
        let run = allocator::run(config, settings, metrics, CancellationToken::new());
        Cluster { _server: server, client, allocator: tokio::spawn(async { run.await.unwrap() }) }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// A node's Lease, made or renewed.
    async fn lease(&self, node: &str, duration: u32, annotations: Value) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": format!("purelb-{node}"), "labels": {"app": "purelb"}, "annotations": annotations},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": duration, "renewTime": MicroTime(Timestamp::now())},
        });
        let params = PatchParams::apply("test").force();
        self.leases().patch(&format!("purelb-{node}"), &params, &Patch::Apply(lease)).await.unwrap();
    }

    async fn service(&self, name: &str, annotations: Value) {
        let service = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
        });
        let service = serde_json::from_value(service).unwrap();
        self.services().create(&PostParams::default(), &service).await.unwrap();
    }

    async fn addresses(&self, name: &str) -> Vec<String> {
        let service = self.services().get(name).await.unwrap();
        let ingress =
            service.status.and_then(|s| s.load_balancer).and_then(|l| l.ingress).unwrap_or_default();
        ingress.into_iter().filter_map(|entry| entry.ip).collect()
    }

    async fn wait_addresses(&self, name: &str, expected: &[&str]) {
        within(&format!("{name} has {expected:?}"), async || self.addresses(name).await == expected).await;
    }

    async fn wait_event(&self, name: &str, reason: &str, part: &str) {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        within(&format!("{name} is told {part:?}"), async || {
            let all = events.list(&ListParams::default()).await.unwrap();
            let mut of_service = all.iter().filter(|e| e.involved_object.name.as_deref() == Some(name));
            of_service.any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().is_some_and(|message| message.contains(part))
            })
        })
        .await;
    }

    async fn group(&self) -> ServiceGroup {
        Api::namespaced(self.client.clone(), NAMESPACE).get("default").await.unwrap()
    }
}

async fn within(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_live_subnets_when_they_begin_and_when_they_ask_and_never_lose() {
    let cluster = Cluster::start().await;
    cluster.service("early", json!({})).await;
    cluster.wait_event("early", "AllocationFailed", "no live node on its subnet 192.0.2.0/24").await;
    cluster.lease("n1", 40, json!({"purelb.io/subnets": "192.0.2.0/24"})).await;
    cluster.wait_addresses("early", &["192.0.2.10"]).await;
    cluster.wait_event("early", "ConfigurationWarning", "no live node on its subnet 198.51.100.0/24").await;

    cluster.lease("n2", 40, json!({"purelb.io/subnets": "198.51.100.0/24"})).await;
    cluster.service("late", json!({})).await;
    cluster.wait_addresses("late", &["192.0.2.11", "198.51.100.10"]).await;
    assert_eq!(cluster.addresses("early").await, ["192.0.2.10"], "it has not asked");

    let ask = Patch::Merge(json!({"metadata": {"annotations": {"purelb.io/re-evaluate": "true"}}}));
    cluster.services().patch("early", &PatchParams::default(), &ask).await.unwrap();
    cluster.wait_addresses("early", &["192.0.2.10", "198.51.100.11"]).await;

    cluster.leases().delete("purelb-n1", &DeleteParams::default()).await.unwrap();
    cluster.services().patch("late", &PatchParams::default(), &ask).await.unwrap();
    within("it has been evaluated again", async || {
        let annotations = cluster.services().get("late").await.unwrap().metadata.annotations;
        !annotations.unwrap_or_default().contains_key("purelb.io/re-evaluate")
    })
    .await;
    assert_eq!(cluster.addresses("late").await, ["192.0.2.11", "198.51.100.10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_renews_ends_and_one_that_is_renewed_does_not() {
    let cluster = Cluster::start().await;
    cluster.lease("n1", 1, json!({"purelb.io/subnets": "192.0.2.0/24"})).await;
    cluster.lease("n2", 40, json!({"purelb.io/subnets": "198.51.100.0/24"})).await;
    // As long as n1 counts, a Service that is new gets two addresses.
    let mut number = 0;
    within("the Lease of n1 has ended", async || {
        number += 1;
        let name = format!("s{number}");
        cluster.service(&name, json!({})).await;
        within("it is served", async || !cluster.addresses(&name).await.is_empty()).await;
        let is_over = cluster.addresses(&name).await.len() == 1;
        cluster.services().delete(&name, &DeleteParams::default()).await.unwrap();
        is_over
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_stranger_answers_for_is_not_handed_out_until_that_ends() {
    let cluster = Cluster::start().await;
    let quiet = json!({"purelb.io/subnets": "192.0.2.0/24"});
    let report = json!({"purelb.io/subnets": "192.0.2.0/24", "purelb.io/address-conflicts":
        "192.0.2.10,02:00:00:00:00:0a 192.0.2.11,02:00:00:00:00:0b"});
    cluster.lease("n1", 40, quiet.clone()).await;
    cluster.service("holder", json!({})).await;
    cluster.wait_addresses("holder", &["192.0.2.10"]).await;
    cluster.lease("n1", 40, report).await;
    cluster.wait_event("holder", "ConfigurationWarning", "02:00:00:00:00:0a").await;
    cluster.service("next", json!({})).await;
    cluster.wait_addresses("next", &["192.0.2.12"]).await;
    cluster.service("asks", json!({"purelb.io/addresses": "192.0.2.11"})).await;
    cluster
        .wait_event("asks", "AllocationFailed", "02:00:00:00:00:0b, which is none of our nodes, as node n1")
        .await;
    within("the group shows both", async || {
        let status = cluster.group().await.status.unwrap_or_default();
        status.conflicts.len() == 2 && api::condition::is_true(&status.conditions, "AddressConflict")
    })
    .await;
    assert_eq!(cluster.group().await.status.unwrap().conflicts[1].node, "n1");

    cluster.lease("n1", 40, quiet).await;
    cluster.wait_addresses("asks", &["192.0.2.11"]).await;
    within("the group shows none", async || {
        let status = cluster.group().await.status.unwrap_or_default();
        status.conflicts.is_empty() && !api::condition::is_true(&status.conditions, "AddressConflict")
    })
    .await;
    assert_eq!(cluster.addresses("holder").await, ["192.0.2.10"]);
}
