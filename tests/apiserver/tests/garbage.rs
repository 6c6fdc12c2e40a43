//! What goes with its owner.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::time::Duration;

use apiserver::{Options, Server};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams, PropagationPolicy};
use kube::{Client, Config};

async fn start() -> (Server, Api<ConfigMap>) {
    let server = Server::start(Options::default()).await.unwrap();
    let client = Client::try_from(Config::new(server.url().parse().unwrap())).unwrap();
    (server, Api::namespaced(client, "default"))
}

fn map(name: &str, owner: Option<&ConfigMap>) -> ConfigMap {
    let reference = owner.map(|o| OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: o.metadata.name.clone().unwrap(),
        uid: o.metadata.uid.clone().unwrap(),
        ..OwnerReference::default()
    });
    let owner_references = reference.map(|r| vec![r]);
    let metadata = ObjectMeta { name: Some(name.into()), owner_references, ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

async fn gone(maps: &Api<ConfigMap>, name: &str) {
    let wait = async {
        while maps.get_opt(name).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("{name} goes"));
}

#[tokio::test]
async fn dependents_go_with_the_last_of_their_owners_and_theirs_with_them() {
    let (server, maps) = start().await;
    let post = PostParams::default();
    let owner = maps.create(&post, &map("owner", None)).await.unwrap();
    let other = maps.create(&post, &map("other", None)).await.unwrap();
    let child = maps.create(&post, &map("child", Some(&owner))).await.unwrap();
    maps.create(&post, &map("grandchild", Some(&child))).await.unwrap();
    let mut both = map("both", Some(&owner));
    both.metadata
        .owner_references
        .as_mut()
        .unwrap()
        .extend(map("", Some(&other)).metadata.owner_references.unwrap());
    maps.create(&post, &both).await.unwrap();
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    gone(&maps, "child").await;
    gone(&maps, "grandchild").await;
    assert!(maps.get_opt("both").await.unwrap().is_some());
    maps.delete("other", &DeleteParams::default()).await.unwrap();
    gone(&maps, "both").await;
    server.stop().await;
}

#[tokio::test]
async fn an_object_whose_owner_never_was_goes() {
    let (server, maps) = start().await;
    let mut ghost = map("ghost", None);
    ghost.metadata.uid = Some("6f1f1f5e-0000-4000-8000-000000000000".into());
    maps.create(&PostParams::default(), &map("orphan", Some(&ghost))).await.unwrap();
    gone(&maps, "orphan").await;
    server.stop().await;
}

#[tokio::test]
async fn foreground_deletion_waits_for_dependents_and_orphaning_leaves_them() {
    let (server, maps) = start().await;
    let post = PostParams::default();
    let policy = |p| DeleteParams { propagation_policy: Some(p), ..DeleteParams::default() };
    let owner = maps.create(&post, &map("owner", None)).await.unwrap();
    let mut held = map("held", Some(&owner));
    held.metadata.finalizers = Some(vec!["x.io/hold".into()]);
    maps.create(&post, &held).await.unwrap();
    maps.delete("owner", &policy(PropagationPolicy::Foreground)).await.unwrap();
    let waiting = maps.get("owner").await.unwrap();
    assert_eq!(waiting.metadata.finalizers, Some(vec!["foregroundDeletion".to_owned()]));
    maps.patch(
        "held",
        &kube::api::PatchParams::default(),
        &kube::api::Patch::Merge(serde_json::json!({"metadata": {"finalizers": null}})),
    )
    .await
    .unwrap();
    gone(&maps, "held").await;
    gone(&maps, "owner").await;
    let owner = maps.create(&post, &map("owner", None)).await.unwrap();
    maps.create(&post, &map("kept", Some(&owner))).await.unwrap();
    maps.delete("owner", &policy(PropagationPolicy::Orphan)).await.unwrap();
    gone(&maps, "owner").await;
    assert_eq!(maps.get("kept").await.unwrap().metadata.owner_references.unwrap_or_default(), []);
    server.stop().await;
}
