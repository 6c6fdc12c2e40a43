//! The sidecar beside an allocator and an API server: what a Service owner sees, and what crashes on either side
//! change about that.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod former;
mod hostile;

use cluster::Cluster;
use kube::api::DeleteParams;
use nix::sys::signal::Signal;
use serde_json::json;

const DUAL: &str = "198.51.100.0/30,2001:db8:9::/126";

#[tokio::test]
async fn an_external_group_serves_moves_and_releases() {
    let cluster = Cluster::start().await;
    let (_sidecar, _allocator) = (cluster.sidecar("ext", DUAL), cluster.allocator().await);
    cluster.external("ext").await;
    let require = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]});
    cluster.service("both", "ext", json!({}), require).await;
    cluster.has("both", &["2001:db8:9::", "198.51.100.0"]).await;
    let service = cluster.services().get("both").await.unwrap();
    let annotations = service.metadata.annotations.unwrap();
    assert_eq!(annotations["purelb.io/allocated-from"], "ext");
    assert_eq!(annotations["purelb.io/pool-type"], "remote");

    // Very addresses: taken, outside, free.
    let asks = |address: &str| json!({"purelb.io/addresses": address});
    cluster.service("exact", "ext", asks("198.51.100.0"), json!({})).await;
    cluster.event("exact", "AllocationFailed", "in use by default/both").await;
    cluster.patch("exact", json!({"metadata": {"annotations": asks("203.0.113.1")}})).await;
    cluster.event("exact", "AllocationFailed", "203.0.113.1 is in no range of pool ext").await;
    cluster.patch("exact", json!({"metadata": {"annotations": asks("198.51.100.3")}})).await;
    cluster.has("exact", &["198.51.100.3"]).await;
    // Moved within the group: the new one first, the old one goes back after.
    cluster.patch("exact", json!({"metadata": {"annotations": asks("198.51.100.2")}})).await;
    cluster.has("exact", &["198.51.100.2"]).await;
    let both = [("198.51.100.0", "both"), ("198.51.100.2", "exact"), ("2001:db8:9::", "both")];
    cluster.books_are("ext", &both).await;
    cluster
        .status("ext", "names and figures", |status| {
            status.external_services == ["default/both", "default/exact"]
                && (status.allocated_ipv4, status.available_ipv4) == (2, Some(2))
                && (status.allocated_ipv6, status.available_ipv6) == (1, Some(3))
                && status.addresses == ["198.51.100.0-198.51.100.3", "2001:db8:9::-2001:db8:9::3"]
                && status.ipam.as_deref() == Some("file")
        })
        .await;

    // To a group of ours and back.
    let to = |group: &str| json!({"metadata": {"annotations": {"purelb.io/service-group": group, "purelb.io/addresses": null}}});
    cluster.patch("exact", to("default")).await;
    cluster.has("exact", &["192.0.2.0"]).await;
    cluster.books_are("ext", &[("198.51.100.0", "both"), ("2001:db8:9::", "both")]).await;
    cluster.patch("exact", to("ext")).await;
    cluster.has("exact", &["198.51.100.1"]).await;
    cluster.delete("both").await;
    cluster.patch("exact", json!({"spec": {"type": "ClusterIP"}})).await;
    cluster.books_are("ext", &[]).await;
    cluster.status("ext", "no names", |status| status.external_services.is_empty()).await;
}

#[tokio::test]
async fn families_come_and_go_on_a_live_service() {
    let cluster = Cluster::start().await;
    let (_sidecar, _allocator) = (cluster.sidecar("ext", DUAL), cluster.allocator().await);
    cluster.external("ext").await;
    cluster.plain("web", "ext").await;
    cluster.has("web", &["198.51.100.0"]).await;
    let dual = json!({"spec": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"]}});
    cluster.patch("web", dual).await;
    cluster.has("web", &["198.51.100.0", "2001:db8:9::"]).await;
    cluster.patch("web", json!({"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}})).await;
    cluster.has("web", &["198.51.100.0"]).await;
    cluster.books_are("ext", &[("198.51.100.0", "web")]).await;
}

#[tokio::test]
async fn one_family_is_enough_for_prefer_and_not_for_require() {
    let cluster = Cluster::start().await;
    let (_sidecar, _allocator) = (cluster.sidecar("ext", "198.51.100.0/30"), cluster.allocator().await);
    cluster.external("ext").await;
    let policy = |policy| json!({"ipFamilyPolicy": policy, "ipFamilies": ["IPv4", "IPv6"]});
    cluster.service("require", "ext", json!({}), policy("RequireDualStack")).await;
    cluster.event("require", "AllocationFailed", "pool ext has no IPv6 range").await;
    cluster.service("prefer", "ext", json!({}), policy("PreferDualStack")).await;
    cluster.has("prefer", &["198.51.100.0"]).await;
    assert!(cluster.addresses("require").await.is_empty());
    cluster.books_are("ext", &[("198.51.100.0", "prefer")]).await;
}

#[tokio::test]
async fn services_of_one_sharing_key_have_one_address() {
    let cluster = Cluster::start().await;
    let (_sidecar, _allocator) = (cluster.sidecar("ext", "198.51.100.0/30"), cluster.allocator().await);
    cluster.external("ext").await;
    let key = || json!({"purelb.io/allow-shared-ip": "k"});
    cluster.service("a", "ext", key(), json!({})).await;
    cluster.has("a", &["198.51.100.0"]).await;
    cluster.service("b", "ext", key(), json!({"ports": [{"port": 443}]})).await;
    cluster.has("b", &["198.51.100.0"]).await;
    cluster.service("c", "ext", key(), json!({})).await;
    cluster.event("c", "AllocationFailed", "TCP 80 on the shared address 198.51.100.0").await;
    cluster.books_are("ext", &[("198.51.100.0", "a"), ("198.51.100.0", "b")]).await;
    // The port becomes free, and with it the one who waits for it is served.
    cluster.delete("a").await;
    cluster.has("c", &["198.51.100.0"]).await;
    cluster.books_are("ext", &[("198.51.100.0", "b"), ("198.51.100.0", "c")]).await;
}

#[tokio::test]
async fn an_exhausted_pool_serves_the_oldest_that_waits_when_something_is_released() {
    let cluster = Cluster::start().await;
    let (_sidecar, _allocator) = (cluster.sidecar("ext", "198.51.100.0/32"), cluster.allocator().await);
    cluster.external("ext").await;
    cluster.plain("first", "ext").await;
    cluster.has("first", &["198.51.100.0"]).await;
    for name in ["second", "third"] {
        cluster.plain(name, "ext").await;
        cluster.event(name, "AllocationFailed", "nothing free").await;
    }
    cluster.delete("first").await;
    cluster.has("second", &["198.51.100.0"]).await;
    assert!(cluster.addresses("third").await.is_empty());
}

#[tokio::test]
async fn a_dead_sidecar_blocks_its_own_group_only_and_is_used_when_it_answers_again() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator().await;
    cluster.external("ext").await;
    cluster.provider_is("ext", "False").await;
    cluster.plain("web", "ext").await;
    let message = cluster.event("web", "AllocationFailed", "does not serve on").await;
    assert!(message.contains("ext.sock"), "{message}");
    cluster.plain("other", "default").await;
    cluster.has("other", &["192.0.2.0"]).await;
    let sidecar = cluster.sidecar("ext", DUAL);
    cluster.has("web", &["198.51.100.0"]).await;
    cluster.provider_is("ext", "True").await;

    // Stopped in its tracks: calls run into their deadline; nothing that is held is lost.
    sidecar.signal(Signal::SIGSTOP);
    cluster.plain("slow", "ext").await;
    cluster.event("slow", "AllocationFailed", "no answer within 5s").await;
    cluster.plain("another", "default").await;
    cluster.has("another", &["192.0.2.1"]).await;
    sidecar.signal(Signal::SIGCONT);
    cluster.has("slow", &["198.51.100.1"]).await;

    // Killed and started again: it has forgotten nothing.
    drop(sidecar);
    let sidecar = cluster.sidecar("ext", DUAL);
    cluster.plain("later", "ext").await;
    cluster.has("later", &["198.51.100.2"]).await;
    sidecar.terminate().await;
    assert!(allocator.count("purelb_allocator_sidecar_rpc_total") > 3);
}

#[tokio::test]
async fn what_is_deleted_while_the_sidecar_is_away_is_released_when_it_is_back() {
    let cluster = Cluster::start().await;
    let (sidecar, _allocator) = (cluster.sidecar("ext", DUAL), cluster.allocator().await);
    cluster.external("ext").await;
    for (name, address) in [("gone", "198.51.100.0"), ("again", "198.51.100.1")] {
        cluster.plain(name, "ext").await;
        cluster.has(name, &[address]).await;
    }
    drop(sidecar);
    cluster.delete("gone").await;
    cluster.delete("again").await;
    cluster.plain("again", "ext").await;
    cluster.event("again", "AllocationFailed", "does not serve on").await;
    let _sidecar = cluster.sidecar("ext", DUAL);
    let address = cluster.served("again").await;
    // The release that was due for the first of that name has not hit the second.
    cluster.books_are("ext", &[(&address, "again")]).await;
    cluster.status("ext", "one name", |status| status.external_services == ["default/again"]).await;
}

#[tokio::test]
async fn what_is_deleted_while_no_allocator_runs_is_released_by_the_next() {
    let cluster = Cluster::start().await;
    let (_sidecar, allocator) = (cluster.sidecar("ext", DUAL), cluster.allocator().await);
    cluster.external("ext").await;
    for (name, address) in [("gone", "198.51.100.0"), ("moved", "198.51.100.1"), ("stays", "198.51.100.2")] {
        cluster.plain(name, "ext").await;
        cluster.has(name, &[address]).await;
    }
    allocator.stop().await;
    cluster.delete("gone").await;
    cluster
        .patch("moved", json!({"metadata": {"annotations": {"purelb.io/service-group": "default"}}}))
        .await;
    let allocator = cluster.allocator().await;
    cluster.books_are("ext", &[("198.51.100.2", "stays")]).await;
    assert_eq!(cluster.addresses("stays").await, ["198.51.100.2"]);
    assert_eq!(allocator.count("purelb_allocator_sidecar_rpc_total{socket=\"x\""), 0);
    // A restart with nothing to do asks for nothing and writes nothing.
    cluster
        .status("ext", "one name", |s| s.external_services == ["default/stays"] && s.allocated_ipv4 == 1)
        .await;
    allocator.stop().await;
    let allocator = cluster.allocator().await;
    cluster.plain("marker", "ext").await;
    cluster.has("marker", &["198.51.100.0"]).await;
    let calls = |method: &str| {
        let text = "purelb_allocator_sidecar_rpc_total{socket=\"".to_owned();
        allocator.count(&format!("{text}{}\",method=\"{method}\"", cluster.socket("ext").display()))
    };
    assert_eq!((calls("Allocate"), calls("Release")), (1, 0));
}

#[tokio::test]
async fn an_allocator_that_is_killed_anywhere_leaks_nothing() {
    let cluster = Cluster::start().await;
    let _sidecar = cluster.sidecar("ext", "198.51.100.0/28");
    cluster.external("ext").await;
    // Killed ever later: before the record, between record and question, between answer and write, after it.
    for round in 0..12_u64 {
        let allocator = cluster.allocator().await;
        let name = format!("web{round}");
        cluster.plain(&name, "ext").await;
        let calls = || {
            allocator.count("purelb_allocator_sidecar_rpc_total")
                + allocator.count("purelb_allocator_writes_total")
        };
        cluster::within("something happens", async || (calls() >= round % 4).then_some(())).await;
        tokio::time::sleep(std::time::Duration::from_micros(round * 700)).await;
        allocator.kill().await;
        cluster.delete(&name).await;
    }
    let _allocator = cluster.allocator().await;
    cluster.plain("last", "ext").await;
    let address = cluster.served("last").await;
    cluster.books_are("ext", &[(&address, "last")]).await;
}

#[tokio::test]
async fn a_group_that_is_deleted_revokes_nothing_and_releases_go_out_later() {
    let cluster = Cluster::start().await;
    let (_sidecar, _allocator) = (cluster.sidecar("ext", DUAL), cluster.allocator().await);
    cluster.external("ext").await;
    cluster.plain("web", "ext").await;
    cluster.has("web", &["198.51.100.0"]).await;
    cluster.groups().delete("ext", &DeleteParams::default()).await.unwrap();
    // Seen by the allocator, as the refusal of another Service shows.
    cluster.plain("late", "ext").await;
    cluster.event("late", "AllocationFailed", "no ServiceGroup ext").await;
    assert_eq!(cluster.addresses("web").await, ["198.51.100.0"]);
    cluster.delete("web").await;
    cluster.books_are("ext", &[]).await;
    cluster.external("ext").await;
    cluster.has("late", &["198.51.100.0"]).await;
}

#[tokio::test]
async fn a_group_that_leaves_a_dead_socket_and_comes_back_to_it_is_served() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator().await;
    cluster.external("ext").await;
    cluster.provider_is("ext", "False").await;
    // Elsewhere, where nobody is either, until the first socket would have been probed again.
    cluster.move_group("ext", "other").await;
    let calls = format!(
        "purelb_allocator_sidecar_rpc_total{{socket=\"{}\",method=\"Stats\"",
        cluster.socket("other").display()
    );
    cluster::within("the other is probed", async || (allocator.count(&calls) >= 4).then_some(())).await;
    let _sidecar = cluster.sidecar("ext", DUAL);
    cluster.move_group("ext", "ext").await;
    cluster.plain("web", "ext").await;
    cluster.has("web", &["198.51.100.0"]).await;
}
