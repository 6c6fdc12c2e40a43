//! What owners, operators and probes are told, from end to end: events, health, metrics.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use allocator::metrics::Health;
use apiserver::{Action, Cut, Fault, Matcher};
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use telemetry::Probes;

use support::{Cluster, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_group_in_another_namespace_is_warned_about_where_it_is() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = json!({"metadata": {"name": "web"}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
    let _allocator = cluster.allocator("a").await;
    let astray: Api<api::ServiceGroup> = Api::namespaced(cluster.client.clone(), "web");
    let pool = json!({"pool": "203.0.113.0/30", "subnet": "203.0.113.0/24"});
    let group = json!({"apiVersion": "purelb.io/v2", "kind": "ServiceGroup", "metadata": {"name": "astray"},
        "spec": {"remote": {"v4pool": pool}}});
    astray.create(&PostParams::default(), &serde_json::from_value(group).unwrap()).await.unwrap();
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "web");
    let event = within("a warning on the group", async || {
        let events = events.list(&ListParams::default()).await.ok()?;
        events.into_iter().find(|event| event.involved_object.name.as_deref() == Some("astray"))
    })
    .await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(event.involved_object.kind.as_deref(), Some("ServiceGroup"));
    assert!(event.message.as_deref().unwrap().contains("only from the namespace purelb-system"), "{event:?}");
    // It serves nobody.
    cluster.service("web", json!({"purelb.io/service-group": "astray"}), json!({})).await;
    assert!(cluster.event("web", "AllocationFailed").await.contains("no ServiceGroup astray"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_released_is_told_whether_the_service_moves_or_ends() {
    let cluster = Cluster::start().await;
    let _allocator = cluster.allocator("a").await;
    cluster.service("moves", json!({"purelb.io/addresses": "192.0.2.7"}), json!({})).await;
    cluster.service("ends", json!({"purelb.io/addresses": "192.0.2.8"}), json!({})).await;
    cluster.served("moves").await;
    cluster.served("ends").await;
    let elsewhere = json!({"metadata": {"annotations": {"purelb.io/addresses": "192.0.2.9"}}});
    cluster.patch("moves", elsewhere).await;
    cluster.patch("ends", json!({"spec": {"type": "ClusterIP"}})).await;
    for (name, address, why) in
        [("moves", "192.0.2.7", "purelb.io/addresses"), ("ends", "192.0.2.8", "spec.type")]
    {
        let message = cluster.event(name, "AddressReleased").await;
        assert!(message.starts_with(&format!("{address}: ")) && message.contains(why), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_the_api_server_refuses_is_told_and_done_when_it_no_longer_does() {
    for code in [403, 422] {
        let cluster = Cluster::start().await;
        let allocator = cluster.allocator("a").await;
        let matcher = Matcher::verb("patch").on("services/status").named("web");
        let action = Action::Refuse { code, retry_after_secs: None };
        cluster.server.faults().add(Fault { matcher, action, times: Some(2), skip: 0 });
        cluster.plain("web").await;
        let message = cluster.event("web", "AllocationFailed").await;
        assert!(message.contains("the API server refuses"), "{code}: {message}");
        cluster.served("web").await;
        allocator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_that_do_not_count_are_warned_about() {
    let cluster = Cluster::start().await;
    let _allocator = cluster.allocator("a").await;
    for (name, annotation, value, part) in [
        ("re-evaluate", "re-evaluate", "yes", "expected \"true\""),
        ("allow-local", "allow-local", "ture", "expected \"true\""),
        ("affinity", "node-affinity", "service-endpoints", "no effect"),
    ] {
        cluster.service(name, json!({(format!("purelb.io/{annotation}")): value}), json!({})).await;
        cluster.served(name).await;
        let message = cluster.event(name, "ConfigurationWarning").await;
        assert!(message.contains(annotation) && message.contains(part), "{message}");
    }
    // What could be meant either way is not guessed.
    cluster.service("multi", json!({"purelb.io/multi-pool": "yes"}), json!({})).await;
    let message = cluster.event("multi", "AllocationFailed").await;
    assert!(message.contains("\"yes\"") && message.contains("expected \"true\" or \"false\""), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_api_server_is_alive_and_not_ready_and_ready_again_afterwards() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator("a").await;
    let health = Health(Arc::clone(allocator.metrics()));
    within("it is ready", async || health.ready().is_ok().then_some(())).await;
    cluster.server.faults().partition(Cut::Refuse, Vec::new());
    // It has lost the Lease, and what it knew with it: another replica, where there is one, is the one to ask.
    within("it is not ready", async || health.ready().is_err().then_some(())).await;
    assert_eq!(health.alive(), Ok(()));
    cluster.server.faults().heal();
    within("it is ready again", async || health.ready().is_ok().then_some(())).await;
    cluster.plain("web").await;
    cluster.served("web").await;
    assert_eq!((health.alive(), health.ready()), (Ok(()), Ok(())));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_only_the_one_that_decides_tells_figures_of_pools() {
    let cluster = Cluster::start().await;
    let first = cluster.allocator("first").await;
    cluster.plain("a").await;
    cluster.served("a").await;
    let second = cluster.allocator("second").await;
    let health = Health(Arc::clone(second.metrics()));
    within("the second has listed everything", async || health.ready().is_ok().then_some(())).await;
    cluster.plain("b").await;
    cluster.served("b").await;
    let in_use = "purelb_address_pool_addresses_in_use{pool=\"default\"}";
    within("the first counts", async || {
        (first.has_metric(in_use) && first.metric(in_use) == 2.0).then_some(())
    })
    .await;
    assert!(!second.has_metric("purelb_address_pool"), "the second tells figures of pools");
    // It does as soon as it decides, and of groups that are there.
    first.stop().await;
    within("the second counts", async || {
        (second.has_metric(in_use) && second.metric(in_use) == 2.0).then_some(())
    })
    .await;
    cluster.groups().delete("default", &DeleteParams::default()).await.unwrap();
    within("the group is gone", async || (!second.has_metric("purelb_address_pool")).then_some(())).await;
}
