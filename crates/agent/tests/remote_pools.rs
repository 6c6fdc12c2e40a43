//! Remote pools end to end on one node: the agent's binary against an API server, the kernel and a real router.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and what they skip is said")]

mod harness;

use std::time::Duration;

use api::condition;
use apiserver::{Action, Fault, Matcher};
use harness::{Lab, addresses, eventually, in_namespace, output};
use kube::api::{DeleteParams, Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_service_reaches_interface_and_router_in_both_families_and_leaves_them() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.start_agent(&[]);
        lab.service("web", "Cluster", &["192.0.2.1", "2001:db8:5::1"]).await;
        lab.wait_prefixes(&["192.0.2.1/32", "2001:db8:5::1/128"]).await;
        assert_eq!(addresses(), ["192.0.2.1/32", "2001:db8:5::1/128"]);
        lab.service("two", "Cluster", &["192.0.2.2"]).await;
        lab.wait_prefixes(&["192.0.2.1/32", "192.0.2.2/32", "2001:db8:5::1/128"]).await;
        lab.services().delete("web", &DeleteParams::default()).await.unwrap();
        lab.wait_prefixes(&["192.0.2.2/32"]).await;
        lab.wait_addresses(&["192.0.2.2/32"]).await;
    });
}

#[test]
fn a_local_service_follows_its_endpoints_and_its_address_outlives_its_route() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.start_agent(&[]);
        lab.service("other", "Cluster", &["192.0.2.1"]).await;
        lab.service("web", "Local", &["192.0.2.2"]).await;
        lab.endpoints("web", &[("n2", true, true, false)]).await;
        lab.wait_prefixes(&["192.0.2.1/32"]).await;
        lab.endpoints("web", &[("n1", true, true, false), ("n2", true, true, false)]).await;
        lab.wait_prefixes(&["192.0.2.1/32", "192.0.2.2/32"]).await;
        lab.endpoints("web", &[("n1", false, true, true), ("n2", true, true, false)]).await;
        lab.wait_prefixes(&["192.0.2.1/32"]).await;
        assert_eq!(addresses(), ["192.0.2.1/32", "192.0.2.2/32"], "flows in flight finish");
        lab.endpoints("web", &[("n2", true, true, false)]).await;
        lab.wait_addresses(&["192.0.2.1/32"]).await;
    });
}

#[test]
fn an_aggregate_has_its_prefix_length_and_a_blackhole_while_an_address_inside_is_held() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.start_agent(&[]);
        lab.service("a", "Cluster", &["198.51.100.7"]).await;
        lab.service("b", "Cluster", &["198.51.100.8"]).await;
        lab.wait_addresses(&["198.51.100.7/24", "198.51.100.8/24"]).await;
        lab.wait_prefixes(&["198.51.100.0/24"]).await;
        assert!(output("ip route show type blackhole").contains("198.51.100.0/24"));
        lab.services().delete("a", &DeleteParams::default()).await.unwrap();
        lab.wait_addresses(&["198.51.100.8/24"]).await;
        assert_eq!(lab.router.prefixes(), ["198.51.100.0/24"]);
        lab.services().delete("b", &DeleteParams::default()).await.unwrap();
        lab.wait_prefixes(&[]).await;
        eventually("no blackhole", || output("ip route show type blackhole").is_empty()).await;
    });
}

#[test]
fn what_others_do_to_our_addresses_and_interface_is_undone_without_a_withdrawal() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.start_agent(&[]);
        lab.service("web", "Cluster", &["192.0.2.1", "2001:db8:5::1"]).await;
        lab.wait_prefixes(&["192.0.2.1/32", "2001:db8:5::1/128"]).await;
        let withdrawals = lab.router.withdrawals();
        for damage in [
            "ip addr del 192.0.2.1/32 dev kube-lb0",
            "ip addr flush dev kube-lb0",
            "ip link set kube-lb0 down",
            "ip link del kube-lb0",
        ] {
            output(damage);
            lab.wait_addresses(&["192.0.2.1/32", "2001:db8:5::1/128"]).await;
            eventually("the interface is up", || output("ip -o link show kube-lb0").contains(",UP")).await;
        }
        assert_eq!(lab.router.withdrawals(), withdrawals);
    });
}

#[test]
fn an_agent_that_was_killed_leaves_addresses_that_the_next_one_adopts_or_removes() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.start_agent(&[]);
        lab.service("stays", "Cluster", &["192.0.2.1"]).await;
        lab.service("goes", "Cluster", &["192.0.2.2"]).await;
        lab.wait_prefixes(&["192.0.2.1/32", "192.0.2.2/32"]).await;
        lab.end_agent(Signal::SIGKILL).await;
        lab.services().delete("goes", &DeleteParams::default()).await.unwrap();
        output("ip addr add 203.0.113.1/32 dev kube-lb0");
        // As long as not everything has been listed, nothing is removed.
        lab.server.faults().refuse(Matcher::verb("list").on("servicegroups"), 500, 3);
        lab.start_agent(&[]);
        lab.wait_prefixes(&["192.0.2.1/32"]).await;
        lab.wait_addresses(&["192.0.2.1/32", "203.0.113.1/32"]).await;
    });
}

#[test]
fn an_agent_that_is_stopped_for_good_says_so_and_cleans_up_and_one_that_is_replaced_keeps_addresses() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.service("web", "Cluster", &["192.0.2.1", "198.51.100.7"]).await;
        lab.start_agent(&["--on-shutdown", "keep"]);
        lab.wait_prefixes(&["192.0.2.1/32", "198.51.100.0/24"]).await;
        lab.end_agent(Signal::SIGTERM).await;
        assert_eq!(addresses(), ["192.0.2.1/32", "198.51.100.7/24"]);
        // The router kept the routes meanwhile: that they are there says nothing of the new agent.
        lab.start_agent(&[]);
        eventually("the new session", || lab.router.session().contains("Established")).await;
        assert_eq!(lab.router.prefixes(), ["192.0.2.1/32", "198.51.100.0/24"]);
        lab.end_agent(Signal::SIGTERM).await;
        assert!(addresses().is_empty(), "{:?}", addresses());
        assert!(output("ip route show type blackhole").is_empty());
        eventually("Cease", || lab.router.session().contains("Administrative shutdown")).await;
        lab.wait_prefixes(&[]).await;
    });
}

#[test]
fn an_api_server_that_goes_away_costs_no_route() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.start_agent(&[]);
        lab.service("web", "Cluster", &["192.0.2.1"]).await;
        lab.wait_prefixes(&["192.0.2.1/32"]).await;
        let withdrawals = lab.router.withdrawals();
        // Every list and watch is refused, and the watches that run are closed.
        let faults = lab.server.faults();
        for verb in ["list", "watch"] {
            let action = Action::Refuse { code: 503, retry_after_secs: None };
            faults.add(Fault { matcher: Matcher::verb(verb), action, times: None, skip: 0 });
        }
        faults.close_watches(Matcher::all());
        lab.services().delete("web", &DeleteParams::default()).await.unwrap();
        lab.service("two", "Cluster", &["192.0.2.2"]).await;
        let refused = |verb| lab.server.counters().total(&Matcher::verb(verb));
        let before = refused("watch");
        eventually("the agent has tried again", || refused("watch") > before + 3).await;
        assert_eq!(lab.router.prefixes(), ["192.0.2.1/32"], "no news is no withdrawal");
        // What happened meanwhile is learnt from a new list, for the past is forgotten.
        lab.server.compact();
        faults.clear();
        lab.wait_prefixes(&["192.0.2.2/32"]).await;
        assert_ne!(lab.router.withdrawals(), withdrawals);
    });
}

#[test]
fn conditions_and_node_status_tell_of_good_and_bad_peers_and_settle() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.peer("bad", json!({"peerAddress": "172.30.0.8", "sourceAddress": "2001:db8::1"})).await;
        lab.node_agent(json!({"local": {"localInterface": "eth["}})).await;
        lab.start_agent(&[]);
        lab.service("web", "Cluster", &["192.0.2.1"]).await;
        lab.wait_prefixes(&["192.0.2.1/32"]).await;
        let status = loop {
            let status = lab.read_peer("bird").await.status.unwrap_or_default();
            if condition::is_true(&status.conditions, condition::READY) {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!((status.matched_nodes, status.established_nodes), (1, 1));
        let bad = lab.read_peer("bad").await.status.unwrap_or_default();
        let accepted = bad.conditions.iter().find(|c| c.type_ == condition::ACCEPTED).unwrap();
        assert!(
            accepted.status == "False" && accepted.message.contains("spec.sourceAddress"),
            "{accepted:?}"
        );
        let node = loop {
            let status = lab.node_status().await.and_then(|node| node.status).unwrap_or_default();
            if status.peers.iter().any(|peer| peer.advertised.ipv4 == 1) {
                break lab.node_status().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(node.metadata.owner_references.unwrap()[0].kind, "Node");
        // From here on nothing changes, so nothing but the Lease is written.
        tokio::time::sleep(Duration::from_secs(3)).await;
        lab.server.counters().reset();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let leases = lab.server.counters().total(&Matcher::verb("write").on("leases"));
        assert_eq!(lab.server.counters().total(&Matcher::verb("write")), leases);
    });
}

#[test]
fn an_excluded_node_announces_nothing_until_the_label_goes() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.start_agent(&[]);
        lab.service("web", "Cluster", &["192.0.2.1"]).await;
        lab.wait_prefixes(&["192.0.2.1/32"]).await;
        let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(lab.client.clone());
        for (value, prefixes) in [(json!(""), &[][..]), (json!(null), &["192.0.2.1/32"][..])] {
            let labels =
                json!({"metadata": {"labels": {api::names::label::EXCLUDE_FROM_LOAD_BALANCERS: value}}});
            nodes.patch("n1", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
            lab.wait_prefixes(prefixes).await;
        }
    });
}

#[test]
fn metrics_and_probes_are_served() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.start_agent(&[]);
        lab.service("web", "Cluster", &["192.0.2.1"]).await;
        lab.wait_prefixes(&["192.0.2.1/32"]).await;
        let get = |path: &str| output(&format!("curl -sf http://127.0.0.1:7472{path}"));
        eventually("ready", || get("/readyz") == "ok\n").await;
        assert_eq!(get("/healthz"), "ok\n");
        eventually("metrics", || {
            let metrics = get("/metrics");
            [
                "purelb_lbnodeagent_address_additions_total 1",
                "purelb_bgp_session_state{peer=\"bird\"} 5",
                "purelb_bgp_prefixes_advertised{peer=\"bird\",family=\"ipv4-unicast\"} 1",
                "purelb_service_to_wire_seconds_count",
            ]
            .iter()
            .all(|line| metrics.contains(line))
        })
        .await;
        lab.router.ask("disable n1");
        let line = "purelb_bgp_notifications_total{peer=\"bird\",direction=\"received\",code=\"6\"} 1";
        eventually("the router's Cease is counted", || get("/metrics").contains(line)).await;
    });
}

#[test]
fn addresses_move_to_another_dummy_interface_without_a_withdrawal() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        lab.start_agent(&[]);
        lab.service("web", "Cluster", &["192.0.2.1", "2001:db8:5::1"]).await;
        lab.wait_prefixes(&["192.0.2.1/32", "2001:db8:5::1/128"]).await;
        let withdrawals = lab.router.withdrawals();
        lab.node_agent(json!({"local": {"dummyInterface": "lb7"}})).await;
        lab.wait_addresses(&[]).await;
        let moved = output("ip -o addr show dev lb7");
        assert!(moved.contains("192.0.2.1/32") && moved.contains("2001:db8:5::1/128"), "{moved}");
        assert_eq!(lab.router.withdrawals(), withdrawals);
        assert_eq!(lab.router.prefixes(), ["192.0.2.1/32", "2001:db8:5::1/128"]);
    });
}
