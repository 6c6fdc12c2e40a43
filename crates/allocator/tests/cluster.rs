//! The allocator against an API server: what is written, when, by whom, and what faults change about that.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use apiserver::{Action, Cut, Fault, Matcher};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use support::{AGENT, Cluster, addresses, assert_unique, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_served_with_one_write_that_carries_status_and_annotations() {
    let cluster = Cluster::start().await;
    let _allocator = cluster.allocator("a").await;
    cluster.service("web", json!({}), json!({"ipFamilyPolicy": "PreferDualStack"})).await;
    let service = cluster.served("web").await;
    assert_eq!(addresses(&service), ["192.0.2.0", "fd00:1::"]);
    let annotations = service.annotations();
    for (name, value) in [
        ("purelb.io/allocated-by", "PureLB"),
        ("purelb.io/allocated-from", "default"),
        ("purelb.io/pool-type", "remote"),
        ("purelb.io/service-group", "default"),
    ] {
        assert_eq!(annotations.get(name).map(String::as_str), Some(value), "{name}");
    }
    let ingress = service.status.unwrap().load_balancer.unwrap().ingress.unwrap();
    assert!(ingress.iter().all(|entry| entry.ip_mode.as_deref() == Some("VIP")));
    assert_eq!(cluster.server.counters().total(&Matcher::verb("patch").on("services/status")), 1);
    assert_eq!(cluster.server.counters().total(&Matcher::verb("patch").on("services")), 0);
    assert_eq!(
        cluster.event("web", "AddressAssigned").await,
        "192.0.2.0, fd00:1:: from ServiceGroup default"
    );
    let groups = cluster.groups();
    within("the group counts", async || {
        let status = groups.get("default").await.ok()?.status?;
        (status.allocated_ipv4 == 1 && status.allocated_ipv6 == 1 && status.available_ipv4 == Some(255))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_local_on_a_local_pool_is_reset_before_the_address_is_published() {
    let cluster = Cluster::start().await;
    cluster
        .group(
            "onlink",
            json!({"local": {"v4pool": {"pool": "198.51.100.0/29", "subnet": "198.51.100.0/29"}}}),
        )
        .await;
    let _allocator = cluster.allocator("a").await;
    let local = json!({"externalTrafficPolicy": "Local"});
    cluster.service("web", json!({"purelb.io/service-group": "onlink"}), local.clone()).await;
    let service = cluster.served("web").await;
    assert_eq!(addresses(&service), ["198.51.100.1"]);
    assert_eq!(service.spec.unwrap().external_traffic_policy.as_deref(), Some("Cluster"));
    cluster.event("web", "LocalOverridden").await;
    cluster.service("remote", json!({}), local).await;
    let remote = cluster.served("remote").await;
    assert_eq!(remote.spec.unwrap().external_traffic_policy.as_deref(), Some("Local"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_writes_nothing_and_changes_nothing() {
    let cluster = Cluster::start().await;
    for number in 0..40 {
        cluster.plain(&format!("web-{number}")).await;
    }
    let first = cluster.allocator("a").await;
    let before = cluster.all_served(40).await;
    assert_unique(&before);
    let groups = cluster.groups();
    within("the group counts", async || {
        (groups.get("default").await.ok()?.status?.allocated_ipv4 == 40).then_some(())
    })
    .await;
    first.stop().await;
    cluster.server.counters().reset();
    let second = cluster.allocator("a").await;
    within("the second decides", async || (second.metric("purelb_allocator_leader") > 0.0).then_some(()))
        .await;
    // One that is new comes after all the others.
    cluster.plain("late").await;
    cluster.served("late").await;
    assert_eq!(cluster.server.counters().total(&Matcher::verb("patch").on("services/status")), 1);
    let mut after = cluster.published().await;
    assert_eq!(after.remove("late"), Some(vec!["192.0.2.40".to_owned()]));
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_gives_back_goes_to_the_one_that_waits() {
    let cluster = Cluster::start().await;
    let _allocator = cluster.allocator("a").await;
    let wanted = json!({"purelb.io/addresses": "192.0.2.7"});
    cluster.service("first", wanted.clone(), json!({})).await;
    cluster.served("first").await;
    cluster.service("second", wanted, json!({})).await;
    let message = cluster.event("second", "AllocationFailed").await;
    assert!(message.contains("192.0.2.7 is in use by default/first"), "{message}");
    cluster.patch("first", json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(addresses(&cluster.served("second").await), ["192.0.2.7"]);
    let services = cluster.services();
    within("the first has lost our annotations", async || {
        let first = services.get("first").await.ok()?;
        let ours = first.annotations().keys().any(|name| name == "purelb.io/allocated-by");
        (!ours && addresses(&first).is_empty()).then_some(())
    })
    .await;
    services.delete("second", &DeleteParams::default()).await.unwrap();
    cluster.service("third", json!({"purelb.io/addresses": "192.0.2.7"}), json!({})).await;
    assert_eq!(addresses(&cluster.served("third").await), ["192.0.2.7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_service_or_group_is_told_and_the_others_go_on() {
    let cluster = Cluster::start().await;
    cluster
        .group("outside", json!({"remote": {"v4pool": {"pool": "192.0.3.0/28", "subnet": "192.0.2.0/24"}}}))
        .await;
    let _allocator = cluster.allocator("a").await;
    cluster.service("banana", json!({"purelb.io/addresses": "banana"}), json!({})).await;
    cluster.service("missing", json!({"purelb.io/service-group": "later"}), json!({})).await;
    cluster.plain("good").await;
    cluster.served("good").await;
    assert!(cluster.event("banana", "AllocationFailed").await.contains("banana"));
    assert!(cluster.event("missing", "AllocationFailed").await.contains("no ServiceGroup later"));
    let groups = cluster.groups();
    let condition = within("the group is refused", async || {
        groups.get("outside").await.ok()?.status?.conditions.into_iter().find(|c| c.type_ == "Accepted")
    })
    .await;
    assert_eq!((condition.status.as_str(), condition.observed_generation), ("False", Some(1)));
    assert!(condition.message.contains("not inside the subnet"), "{}", condition.message);
    cluster
        .group("later", json!({"remote": {"v4pool": {"pool": "203.0.113.0/30", "subnet": "203.0.113.0/24"}}}))
        .await;
    assert_eq!(addresses(&cluster.served("missing").await), ["203.0.113.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_api_server_neither_lose_nor_double_an_address() {
    let cluster = Cluster::start().await;
    let _allocator = cluster.allocator("a").await;
    let status = || Matcher::verb("patch").on("services/status");
    for round in 0..4 {
        let faults = cluster.server.faults();
        faults.refuse(status(), [409, 500, 503, 403][round], 5);
        for number in 0..15 {
            cluster.plain(&format!("web-{round}-{number}")).await;
        }
        faults.close_watches(Matcher::all().on("services"));
        faults.expire_watches(Matcher::all().on("servicegroups"));
        cluster.services().delete(&format!("web-{round}-0"), &DeleteParams::default()).await.unwrap();
        faults.expire_watches(Matcher::all().on("services"));
    }
    let published = cluster.all_served(56).await;
    assert_unique(&published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_applied_after_we_gave_up_waiting_keeps_its_address() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator("a").await;
    within("it decides", async || (allocator.metric("purelb_allocator_leader") > 0.0).then_some(())).await;
    // Longer than a request may take: the answer is lost, the write is not.
    let action = Action::Delay { millis: 6_000 };
    let matcher = Matcher::verb("patch").on("services/status").named("slow");
    cluster.server.faults().add(Fault { matcher, action, times: Some(1), skip: 0 });
    cluster.plain("slow").await;
    for number in 0..5 {
        cluster.plain(&format!("web-{number}")).await;
    }
    let published = cluster.all_served(6).await;
    assert_unique(&published);
    // The first attempt still comes in; it must change nothing.
    within("the late write has come in", async || {
        let writes = cluster.server.counters().total(&Matcher::verb("patch").on("services/status"));
        (writes >= 7).then_some(())
    })
    .await;
    assert_eq!(cluster.published().await, published);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_goes_away_and_comes_back_changes_nothing() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator("a").await;
    for number in 0..10 {
        cluster.plain(&format!("web-{number}")).await;
    }
    let before = cluster.all_served(10).await;
    let writes = cluster.writes();
    cluster.server.faults().partition(Cut::Refuse, Vec::new());
    // Until the Lease could not be renewed: the allocator must stop writing, and begin anew afterwards.
    within("it decides no more", async || (allocator.metric("purelb_allocator_leader") == 0.0).then_some(()))
        .await;
    cluster.server.faults().heal();
    cluster.plain("late").await;
    cluster.served("late").await;
    let mut after = cluster.published().await;
    after.remove("late");
    assert_eq!(after, before);
    // The new Service, its group's count, and the count that may have been due before.
    assert!(cluster.writes() - writes <= 4, "{} writes", cluster.writes() - writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_one_decides_and_the_other_takes_over() {
    let cluster = Cluster::start().await;
    let first = cluster.allocator("first").await;
    cluster.plain("a").await;
    cluster.served("a").await;
    let second = cluster.allocator("second").await;
    cluster.plain("b").await;
    cluster.served("b").await;
    assert_eq!(second.metric("purelb_allocator_leader"), 0.0);
    assert_eq!(second.metric("purelb_allocator_writes_total"), 0.0);
    // Killed: the Lease has to run out.
    drop(first);
    cluster.plain("c").await;
    cluster.served("c").await;
    // The answer is counted a moment after the write is seen by others.
    within("the write is counted", async || {
        (second.metric("purelb_allocator_writes_total") == 1.0).then_some(())
    })
    .await;
    // Stopped: the Lease is given back.
    let third = cluster.allocator("third").await;
    second.stop().await;
    cluster.plain("d").await;
    cluster.served("d").await;
    within("the write is counted", async || {
        (third.metric("purelb_allocator_writes_total") == 1.0).then_some(())
    })
    .await;
    let published = cluster.published().await;
    let expected = [("a", "192.0.2.0"), ("b", "192.0.2.1"), ("c", "192.0.2.2"), ("d", "192.0.2.3")];
    let expected = expected.map(|(name, address)| (name.to_owned(), vec![address.to_owned()]));
    assert_eq!(published, BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_stopped_ends_as_soon_as_its_writes_have() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator("a").await;
    cluster.plain("web").await;
    cluster.served("web").await;
    cluster.event("web", "AddressAssigned").await;
    let begun = Instant::now();
    allocator.stop().await;
    // Not the second that queued events may take.
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_created_again_gets_its_address_even_from_the_next_allocator() {
    let cluster = Cluster::start().await;
    let pool = json!({"pool": "203.0.113.0/29", "subnet": "203.0.113.0/24", "aggregation": "/32"});
    let spec = json!({"remote": {"v4pool": pool}, "stickyFor": "10m", "namespaces": ["default"]});
    cluster.group("sticky", spec).await;
    let allocator = cluster.allocator("a").await;
    for name in ["a", "b"] {
        cluster.plain(name).await;
        cluster.served(name).await;
    }
    cluster.services().delete("a", &DeleteParams::default()).await.unwrap();
    let groups = cluster.groups();
    let reserved = within("the reservation is in the status", async || {
        let status = groups.get("sticky").await.ok()?.status?;
        Some(status).filter(|status| !status.reservations.is_empty())
    })
    .await;
    assert_eq!(reserved.reservations[0].address, "203.0.113.0");
    assert_eq!(reserved.reservations[0].service, "default/a");
    assert_eq!((reserved.allocated_ipv4, reserved.available_ipv4), (2, Some(6)));
    assert_eq!(reserved.bound_namespaces, ["default"], "those that the group is for");
    allocator.stop().await;

    let _next = cluster.allocator("b").await;
    cluster.plain("c").await;
    assert_eq!(addresses(&cluster.served("c").await), ["203.0.113.2"]);
    cluster.plain("a").await;
    assert_eq!(addresses(&cluster.served("a").await), ["203.0.113.0"]);
    within("the reservation has gone", async || {
        groups.get("sticky").await.ok()?.status?.reservations.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_that_is_freed_costs_one_write_to_the_oldest_that_waits() {
    let cluster = Cluster::start().await;
    let pool = json!({"remote": {"v4pool": {"pool": "203.0.113.1-203.0.113.2", "subnet": "203.0.113.0/24"}}});
    cluster.group("small", pool).await;
    let allocator = cluster.allocator("a").await;
    let small = json!({"purelb.io/service-group": "small"});
    for number in 10..60 {
        cluster.service(&format!("web-{number}"), small.clone(), json!({})).await;
    }
    within("all others wait", async || {
        (allocator.metric("purelb_allocator_waiting_services{reason=\"room\"}") == 48.0).then_some(())
    })
    .await;
    let before = cluster.published().await;
    assert_eq!(before.len(), 2);
    cluster.server.counters().reset();
    let gone = before.keys().next().unwrap();
    cluster.services().delete(gone, &DeleteParams::default()).await.unwrap();
    within("the next has the address", async || {
        let published = cluster.published().await;
        (published.len() == 2 && published != before).then_some(())
    })
    .await;
    // One that comes later is the last to be decided about; nobody else has been written until then.
    cluster.plain("barrier").await;
    cluster.served("barrier").await;
    assert_eq!(cluster.server.counters().total(&Matcher::verb("write").on("services/status")), 2);
    assert_eq!(allocator.metric("purelb_allocator_waiting_services{reason=\"room\"}"), 47.0);
    // Those that were created in one second are served by name.
    let published = cluster.published().await;
    assert!(published.contains_key("web-12"), "{published:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_and_nobody_is_woken_where_nothing_has_changed() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator("a").await;
    for number in 0..20 {
        cluster.plain(&format!("web-{number}")).await;
    }
    cluster.all_served(20).await;
    let groups = cluster.groups();
    within("the group counts", async || {
        (groups.get("default").await.ok()?.status?.allocated_ipv4 == 20).then_some(())
    })
    .await;
    within("every answer to be taken in", async || {
        let is_zero = |name| allocator.metric(name) == 0.0;
        (is_zero("purelb_allocator_writes_in_flight") && is_zero("purelb_allocator_queue_length"))
            .then_some(())
    })
    .await;
    let decided = allocator.metric("purelb_allocator_decisions_total");
    cluster.server.counters().reset();
    // What nodes' agents write, and lists and watches that begin anew.
    let announced = json!({"metadata": {"annotations": {"example.org/announced": "node1,eth0"}}});
    for number in 0..20 {
        cluster.patch(&format!("web-{number}"), announced.clone()).await;
    }
    cluster.server.compact();
    cluster.server.faults().expire_watches(Matcher::all());
    let lists = || cluster.server.counters().total(&Matcher::verb("list").on("services").from_client(AGENT));
    within("everything is listed again", async || (lists() > 0).then_some(())).await;
    // The barrier: it is seen after all that.
    cluster.plain("barrier").await;
    cluster.served("barrier").await;
    let ours =
        |resource| cluster.server.counters().total(&Matcher::verb("write").on(resource).from_client(AGENT));
    assert_eq!((ours("services/status"), ours("services")), (1, 0));
    let decided = allocator.metric("purelb_allocator_decisions_total") - decided;
    assert!(decided <= 2.0, "{decided} decisions for one new Service");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_whose_writes_fail_do_not_hold_up_the_others() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator("a").await;
    // A webhook of one namespace that is down, say: more writes than may be under way at once fail, for ever.
    let failing = Matcher { namespace: Some("broken".into()), ..Matcher::verb("patch").from_client(AGENT) };
    cluster.server.faults().refuse(failing, 500, u32::MAX);
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = json!({"metadata": {"name": "broken"}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
    let large = json!({"remote": {"v4pool": {"pool": "10.1.0.0/22", "subnet": "10.1.0.0/16"}}});
    cluster.group("large", large).await;
    let broken: Api<Service> = Api::namespaced(cluster.client.clone(), "broken");
    let service = |number: usize| {
        let annotations = json!({"purelb.io/service-group": "large"});
        serde_json::from_value(json!({
            "metadata": {"name": format!("web-{number}"), "annotations": annotations},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
        }))
        .unwrap()
    };
    for number in 0..520 {
        broken.create(&PostParams::default(), &service(number)).await.unwrap();
    }
    within("all of them fail", async || {
        (allocator.metric("purelb_allocator_writes_in_flight") == 520.0).then_some(())
    })
    .await;
    cluster.plain("web").await;
    cluster.served("web").await;
    assert_eq!(allocator.metric("purelb_allocator_writes_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_list_services_waits_instead_of_turning() {
    let cluster = Cluster::start().await;
    // What is due for it cannot be done before everything is listed.
    let external = json!({"provider": "p", "socket": "/nonexistent/ipam.sock", "announce": "remote"});
    cluster.group("ext", json!({"external": external})).await;
    cluster.server.faults().refuse(Matcher::verb("list").on("services"), 403, 5);
    let allocator = cluster.allocator("a").await;
    cluster.plain("web").await;
    cluster.served("web").await;
    let turns = allocator.metric("purelb_allocator_turns_total");
    assert!(turns < 1_000.0, "{turns} turns");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_cannot_be_read_has_its_status_written_once_and_keeps_its_boundary() {
    let cluster = Cluster::start().await;
    let pool = json!({"pool": "203.0.113.0/30", "subnet": "203.0.113.0/24"});
    let spec = json!({"remote": {"v4pool": pool}, "namespaces": ["default"], "enforceNamespaces": true,
        "stickyFor": "9999999h"});
    let unread = json!({"apiVersion": "purelb.io/v2", "kind": "ServiceGroup", "metadata": {"name": "bounded"}, "spec": spec});
    let resource = kube::core::ApiResource::erase::<api::ServiceGroup>(&());
    let groups: Api<kube::core::DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), "purelb-system", &resource);
    groups.create(&PostParams::default(), &serde_json::from_value(unread).unwrap()).await.unwrap();
    let allocator = cluster.allocator("a").await;
    cluster.plain("web").await;
    let message = cluster.event("web", "AllocationFailed").await;
    assert!(message.contains("bounded is refused"), "{message}");
    let refused = async || {
        let conditions = groups.get("bounded").await.ok()?.data["status"]["conditions"].clone();
        Some(conditions).filter(|conditions| conditions[0]["status"] == "False")
    };
    let before = within("the group is refused", refused).await;
    allocator.stop().await;
    // The next one finds nothing to write on it: when it was refused stays what it was.
    let second = cluster.allocator("b").await;
    within("the second decides", async || (second.metric("purelb_allocator_leader") > 0.0).then_some(()))
        .await;
    cluster.service("elsewhere", json!({"purelb.io/service-group": "default"}), json!({})).await;
    cluster.event("elsewhere", "AllocationFailed").await;
    second.stop().await;
    assert_eq!(refused().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_to_end_waits_for_the_status_of_a_group_that_is_being_written() {
    let cluster = Cluster::start().await;
    let allocator = cluster.allocator("a").await;
    let groups = cluster.groups();
    let allocated = async || Some(groups.get("default").await.ok()?.status?.allocated_ipv4);
    within("the status is there", allocated).await;
    let statuses = || Matcher::verb("patch").on("servicegroups/status");
    let before = cluster.server.counters().total(&statuses());
    let action = Action::Delay { millis: 1_000 };
    cluster.server.faults().add(Fault { matcher: statuses(), action, times: Some(1), skip: 0 });
    cluster.plain("web").await;
    let is_sent = async || (cluster.server.counters().total(&statuses()) > before).then_some(());
    within("its status is being written", is_sent).await;
    allocator.stop().await;
    assert_eq!(allocated().await, Some(1));
}
