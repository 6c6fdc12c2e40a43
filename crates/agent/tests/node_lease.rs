//! The node's Lease end to end: the agent's binary against an API server and the kernel.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and what they skip is said")]

#[allow(dead_code, reason = "what other tests need of it")]
mod harness;

use std::time::{Duration, Instant};

use api::names::annotation;
use harness::{Lab, NAMESPACE, in_namespace, output};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use nix::sys::signal::Signal;
use serde_json::json;

fn leases(lab: &Lab) -> Api<Lease> {
    Api::namespaced(lab.client.clone(), NAMESPACE)
}

async fn lease(lab: &Lab) -> Option<Lease> {
    leases(lab).get_opt("purelb-n1").await.unwrap()
}

fn subnets(lease: Option<&Lease>) -> Option<&str> {
    lease?.metadata.annotations.as_ref()?.get(annotation::SUBNETS).map(String::as_str)
}

/// Waits until the Lease names these subnets.
async fn wait_subnets(lab: &Lab, expected: &str) -> Lease {
    let start = Instant::now();
    loop {
        let lease = lease(lab).await;
        if subnets(lease.as_ref()) == Some(expected) {
            return lease.unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(30), "not {expected:?}: {:?}", subnets(lease.as_ref()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn lab_with_default_route() -> Lab {
    let lab = Lab::start().await;
    output("ip route add default via 172.30.0.9");
    output("ip link add extra type veth peer name other; ip addr add 10.77.0.1/16 dev extra");
    output("ip link set extra up; ip link set other up");
    lab
}

#[test]
fn the_lease_names_the_subnets_of_interfaces_with_carrier_and_goes_with_the_agent() {
    in_namespace(async || {
        let mut lab = lab_with_default_route().await;
        lab.start_agent(&[]);
        let first = wait_subnets(&lab, "172.30.0.0/24,fd00:30::/64").await;
        let owner = &first.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", "n1"));
        assert_eq!(first.metadata.labels.as_ref().unwrap()["app"], "purelb");
        assert_eq!(first.spec.as_ref().unwrap().lease_duration_seconds, Some(40));
        // Our own addresses, also those with the prefix length of a subnet, are no subnet of the node.
        lab.service("web", "Cluster", &["198.51.100.7"]).await;
        lab.wait_addresses(&["198.51.100.7/24"]).await;
        lab.node_agent(json!({"local": {"localInterface": "ext.*|kube-.*", "interfaces": ["node"]}})).await;
        wait_subnets(&lab, "10.77.0.0/16,172.30.0.0/24,fd00:30::/64").await;
        output("ip link set other down");
        wait_subnets(&lab, "172.30.0.0/24,fd00:30::/64").await;
        output("ip link set other up");
        wait_subnets(&lab, "10.77.0.0/16,172.30.0.0/24,fd00:30::/64").await;
        output("ip addr del 10.77.0.1/16 dev extra");
        wait_subnets(&lab, "172.30.0.0/24,fd00:30::/64").await;
        lab.end_agent(Signal::SIGTERM).await;
        assert!(lease(&lab).await.is_none(), "it goes with an agent that leaves for good");
    });
}

#[test]
fn the_lease_of_a_successor_and_that_of_a_node_that_keeps_its_addresses_stay() {
    in_namespace(async || {
        let mut lab = lab_with_default_route().await;
        lab.start_agent(&[]);
        wait_subnets(&lab, "172.30.0.0/24,fd00:30::/64").await;
        let taken = Patch::Merge(json!({"spec": {"holderIdentity": "n1_successor"}}));
        leases(&lab).patch("purelb-n1", &PatchParams::default(), &taken).await.unwrap();
        lab.end_agent(Signal::SIGTERM).await;
        let holder = |lease: Lease| lease.spec.unwrap().holder_identity.unwrap();
        assert_eq!(holder(lease(&lab).await.unwrap()), "n1_successor");
        // An agent that starts takes what it finds, and leaves it to the next.
        lab.start_agent(&["--on-shutdown", "keep"]);
        let start = Instant::now();
        while holder(lease(&lab).await.unwrap()) == "n1_successor" {
            assert!(start.elapsed() < Duration::from_secs(30), "not taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        lab.end_agent(Signal::SIGTERM).await;
        let left = lease(&lab).await.expect("it stays for the next agent");
        assert_eq!(left.spec.as_ref().unwrap().lease_transitions, Some(1));
    });
}

#[test]
fn a_lease_that_is_no_nodes_is_left_alone() {
    in_namespace(async || {
        let mut lab = lab_with_default_route().await;
        let foreign = json!({"metadata": {"name": "purelb-n1"}, "spec": {"holderIdentity": "somebody"}});
        leases(&lab).create(&Default::default(), &serde_json::from_value(foreign).unwrap()).await.unwrap();
        lab.start_agent(&[]);
        lab.service("web", "Cluster", &["192.0.2.1"]).await;
        lab.wait_prefixes(&["192.0.2.1/32"]).await;
        lab.end_agent(Signal::SIGTERM).await;
        let lease = lease(&lab).await.unwrap();
        assert_eq!(lease.spec.as_ref().unwrap().holder_identity.as_deref(), Some("somebody"));
        assert_eq!(subnets(Some(&lease)), None);
    });
}
