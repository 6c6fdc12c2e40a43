//! A group that names another provider: what the one before has given is released there.

use serde_json::json;

use crate::cluster::{Cluster, Sidecar};

const OLD: &str = "198.51.100.0/30";
const NEW: &str = "203.0.113.0/30";

/// The group `ext`, served at the socket `ext`, and these Services, which have its addresses in this order.
async fn served(cluster: &Cluster, services: &[&str]) -> Sidecar {
    let old = cluster.sidecar("ext", OLD);
    cluster.external("ext").await;
    for (number, name) in services.iter().enumerate() {
        cluster.plain(name, "ext").await;
        cluster.has(name, &[&format!("198.51.100.{number}")]).await;
    }
    old
}

#[tokio::test]
async fn what_a_former_provider_has_given_stays_and_is_released_there_when_it_is_given_up() {
    let cluster = Cluster::start().await;
    let _allocator = cluster.allocator().await;
    let _old = served(&cluster, &["web", "moved"]).await;
    let _new = cluster.sidecar_at("new", "ext", NEW);
    cluster.move_group("ext", "new").await;
    cluster.plain("late", "ext").await;
    cluster.has("late", &["203.0.113.0"]).await;
    cluster.has("web", &["198.51.100.0"]).await;
    cluster.former_is("ext", "InUse", "use addresses from there: 2").await;
    // Within the group, and away from it.
    let exactly = json!({"metadata": {"annotations": {"purelb.io/addresses": "203.0.113.2"}}});
    cluster.patch("moved", exactly).await;
    cluster.has("moved", &["203.0.113.2"]).await;
    cluster.books_at_are("ext", "ext", &[("198.51.100.0", "web")]).await;
    cluster.delete("web").await;
    cluster.books_at_are("ext", "ext", &[]).await;
    cluster.books_at_are("new", "ext", &[("203.0.113.0", "late"), ("203.0.113.2", "moved")]).await;
    cluster.former_is("ext", "Settled", "have all back").await;
    cluster.status("ext", "no former provider", |status| status.former_providers.is_empty()).await;
}

#[tokio::test]
async fn a_former_provider_that_is_away_holds_nobody_up_and_gets_its_releases_when_it_is_back() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator().await;
    let old = served(&cluster, &["web", "other"]).await;
    let _new = cluster.sidecar_at("new", "ext", NEW);
    drop(old);
    cluster.move_group("ext", "new").await;
    cluster.delete("web").await;
    cluster.plain("late", "ext").await;
    cluster.has("late", &["203.0.113.0"]).await;
    cluster.former_is("ext", "Unavailable", "have to be released there: 1").await;
    // The next term knows of it, and of one that is deleted meanwhile.
    allocator.stop().await;
    cluster.delete("other").await;
    let _allocator = cluster.allocator().await;
    cluster.former_is("ext", "Unavailable", "have to be released there: 2").await;
    let _old = cluster.sidecar("ext", OLD);
    cluster.books_at_are("ext", "ext", &[]).await;
    cluster.former_is("ext", "Settled", "").await;
}

#[tokio::test]
async fn an_edit_that_no_allocator_sees_releases_at_the_provider_that_has_given() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator().await;
    let _old = served(&cluster, &["gone", "stays"]).await;
    cluster.status("ext", "the socket of the names", |status| status.external_socket.is_some()).await;
    allocator.stop().await;
    cluster.move_group("ext", "new").await;
    cluster.delete("gone").await;
    let _new = cluster.sidecar_at("new", "ext", NEW);
    let _allocator = cluster.allocator().await;
    cluster.books_at_are("ext", "ext", &[("198.51.100.1", "stays")]).await;
    cluster.delete("stays").await;
    cluster.books_at_are("ext", "ext", &[]).await;
}

#[tokio::test]
async fn who_removes_a_former_provider_from_the_status_gives_its_releases_up() {
    let cluster = Cluster::start().await;
    let _allocator = cluster.allocator().await;
    drop(served(&cluster, &["web"]).await);
    cluster.move_group("ext", "new").await;
    cluster.delete("web").await;
    cluster.former_is("ext", "Unavailable", "remove its entry").await;
    cluster.patch_group_status("ext", json!({"formerProviders": null})).await;
    cluster.former_is("ext", "Settled", "").await;
}
