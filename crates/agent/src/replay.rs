//! `lbnodeagent plan`: the decisions of a node, from recorded objects. A user's problem is a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use api::{BGPPeer, LBNodeAgent, ServiceGroup};
use ipnet::IpNet;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    election::Electorate,
    facts::subnets::{LocalInterface, NodeFacts},
    inputs::{self, bgp_peer::Surroundings},
    key::ObjectKey,
    local_pools::Others,
    peers,
    planner::{Planner, Timing},
    settings::Settings,
    stores::Change,
    world::{Input, World},
};

fn read<K: DeserializeOwned + kube::Resource>(item: &Value) -> anyhow::Result<(ObjectKey, K)> {
    let object: K = serde_json::from_value(item.clone())
        .with_context(|| format!("{} {}", item["kind"], item["metadata"]["name"]))?;
    Ok((ObjectKey::of(&object), object))
}

/// One object as the agent sees it; `None` where it is none of its business.
fn input(item: &Value, settings: &Settings) -> anyhow::Result<Option<Input>> {
    let is_ours = |key: &ObjectKey| key.namespace() == settings.namespace;
    Ok(match item["kind"].as_str().unwrap_or_default() {
        "Service" => {
            let (key, service) = read::<Service>(item)?;
            inputs::service::parse(&service, &settings.default_announcer)
                .map(|service| Input::Service(Change::Applied(key, service)))
        }
        "EndpointSlice" => {
            let (key, slice) = read::<EndpointSlice>(item)?;
            inputs::endpoints::parse(&slice, &settings.node_name)
                .map(|slice| Input::EndpointSlice(Change::Applied(key, slice)))
        }
        "Node" => {
            let (key, node) = read::<Node>(item)?;
            (key.name() == settings.node_name)
                .then(|| Input::Node(Change::Applied(key, inputs::node::parse(&node))))
        }
        "ServiceGroup" => {
            let (key, group) = read::<ServiceGroup>(item)?;
            is_ours(&key).then_some(Input::ServiceGroup(Change::Applied(key, group.spec)))
        }
        "LBNodeAgent" => {
            let (key, agent) = read::<LBNodeAgent>(item)?;
            is_ours(&key).then_some(Input::LBNodeAgent(Change::Applied(key, agent.spec)))
        }
        "BGPPeer" => {
            let (key, peer) = read::<BGPPeer>(item)?;
            is_ours(&key).then_some(Input::BGPPeer(Change::Applied(key, peer.spec)))
        }
        _ => None,
    })
}

/// What the Leases say: the nodes that serve local pools, all of which are taken to live, and this node's own subnets.
/// The names of its interfaces are in no recording.
fn nodes(items: &[Value], settings: &Settings) -> anyhow::Result<(Electorate, NodeFacts)> {
    let mut nodes = Electorate::new();
    let (mut subnets, mut addresses) = (BTreeMap::new(), BTreeSet::new());
    for item in items.iter().filter(|item| item["kind"] == "Lease") {
        let (key, lease) = read::<Lease>(item)?;
        let lease = inputs::lease::parse(&lease).filter(|_| key.namespace() == settings.namespace);
        let Some(lease) = lease else { continue };
        if *lease.node == *settings.node_name {
            addresses = lease.heartbeats.iter().map(SocketAddr::ip).collect();
            let own = |subnet: &IpNet| addresses.iter().find(|address| subnet.contains(*address)).copied();
            subnets = lease.subnets.iter().map(|net| (*net, own(net).unwrap_or(net.network()))).collect();
        }
        nodes.insert(lease.node, lease.subnets);
    }
    let own = subnets.keys().copied().collect();
    let interface = LocalInterface { name: "local".into(), index: 0, mac: None, subnets, addresses };
    let facts = NodeFacts {
        node_uid: String::new(),
        subnets: own,
        heartbeats: BTreeSet::new(),
        interfaces: vec![interface],
        agent: None,
        macs: BTreeSet::new(),
        conflicts: BTreeSet::new(),
    };
    Ok((nodes, facts))
}

/// Plans everything in a list of objects and returns the plans, by Service, and what became of the peers.
pub fn plan(list: &Value, settings: &Settings) -> anyhow::Result<Value> {
    let items = list["items"].as_array().context("the file has no items: expected a JSON list of objects")?;
    let mut world = World::default();
    for item in items {
        if let Some(input) = input(item, settings)? {
            world.on(input);
        }
    }
    world.on(Input::EndpointSlice(Change::Listed));
    let (nodes, facts) = nodes(items, settings)?;
    world.on(Input::Others(Others { electorate: nodes, ..Others::default() }));
    world.on(Input::Facts(facts));
    anyhow::ensure!(world.node().is_some(), "the file has no Node {}", settings.node_name);
    // Nobody can be asked whether kube-proxy forwards: it is taken to.
    let timing = Timing {
        linger: Duration::ZERO,
        weight_damping: Duration::ZERO,
        asks_kube_proxy: false,
        takeover: Duration::ZERO,
    };
    let mut planner = Planner::new(timing);
    let node = world.node().cloned().unwrap_or_default();
    // Passwords are in no recording.
    let surroundings =
        Surroundings { interface_index: &|_| None, router: &|_| None, ..Surroundings::ANYWHERE };
    let set = peers::resolve(&node, &world.peers(), surroundings).among(world.all_peers());
    planner.set_advertising(set.advertising());
    planner.set_withdrawn(node.leaving().is_some());
    let mut keys = world.service_keys();
    keys.sort();
    let now = Instant::now();
    for key in &keys {
        planner.replan(key, &world, now);
    }
    let services: serde_json::Map<_, _> =
        keys.iter().filter_map(|key| Some((key.to_string(), json!(planner.plan().service(key)?)))).collect();
    let peers: serde_json::Map<_, _> = set
        .peers
        .iter()
        .map(|peer| {
            let verdict = match &peer.config {
                Ok(config) => format!("accepted: {}", config.address),
                Err(refusal) => format!("refused: {refusal}"),
            };
            (peer.name.clone(), json!(verdict))
        })
        .collect();
    Ok(json!({"node": settings.node_name, "services": services, "peers": peers}))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::settings::CommandLine;

    fn settings() -> Settings {
        let line = CommandLine::try_parse_from(["lbnodeagent", "--node-name", "n1"]).unwrap();
        Settings::load(&line).unwrap()
    }

    fn service(name: &str, policy: &str, address: &str) -> Value {
        json!({
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default", "annotations": {
                "purelb.io/allocated-by": "PureLB",
                "purelb.io/allocated-from": "default",
                "purelb.io/pool-type": "remote",
            }},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy},
            "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
        })
    }

    #[test]
    fn recorded_objects_give_the_decisions_with_their_reasons() {
        let own = |kind: &str, name: &str, spec: Value| json!({"kind": kind, "metadata": {"name": name, "namespace": "purelb-system"}, "spec": spec});
        let pool = json!({"pool": "192.0.2.0/24", "subnet": "192.0.2.0/24", "aggregation": "/32"});
        let peer = json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.300"});
        let list = json!({"items": [
            service("web", "Cluster", "192.0.2.1"),
            service("local", "Local", "192.0.2.2"),
            {"kind": "ConfigMap", "metadata": {"name": "other"}},
            {"kind": "Node", "metadata": {"name": "n1"}},
            {"kind": "Node", "metadata": {"name": "n2"}},
            own("ServiceGroup", "default", json!({"remote": {"v4pool": pool}})),
            own("BGPPeer", "tor1", peer),
        ]});
        let plan = plan(&list, &settings()).unwrap();
        assert_eq!(plan["services"]["default/web"]["routes"], json!(["192.0.2.1/32"]));
        assert_eq!(plan["services"]["default/web"]["decision"], json!("announce"));
        assert_eq!(plan["services"]["default/local"]["decision"], json!({"skip": "noLocalEndpoint"}));
        assert!(plan["peers"]["tor1"].as_str().unwrap().starts_with("refused: spec.peerAddress"), "{plan}");
    }

    #[test]
    fn a_recorded_lease_makes_a_node_a_candidate_for_local_pools() {
        let lease = |node: &str, subnets: &str| {
            json!({"kind": "Lease",
                "metadata": {"name": format!("purelb-{node}"), "namespace": "purelb-system", "annotations": {
                    "purelb.io/subnets": subnets, "purelb.io/heartbeat": "192.0.2.7:7473",
                }},
                "spec": {"holderIdentity": node, "leaseDurationSeconds": 40}})
        };
        let mut web = service("web", "Cluster", "192.0.2.100");
        web["metadata"]["annotations"]["purelb.io/pool-type"] = json!("local");
        let pool = json!({"pool": "192.0.2.64/26", "subnet": "192.0.2.0/24", "aggregation": "default"});
        let group = json!({"kind": "ServiceGroup", "metadata": {"name": "default", "namespace": "purelb-system"},
                           "spec": {"local": {"v4pool": pool}}});
        let decision = |leases: &[Value]| {
            let mut items =
                vec![web.clone(), group.clone(), json!({"kind": "Node", "metadata": {"name": "n1"}})];
            items.extend_from_slice(leases);
            plan(&json!({"items": items}), &settings()).unwrap()["services"]["default/web"].clone()
        };
        let alone = decision(&[lease("n1", "192.0.2.0/24"), lease("n2", "198.51.100.0/24")]);
        assert_eq!(alone["decision"], json!("announce"));
        assert_eq!(alone["local"], json!([{"address": "192.0.2.100/24", "interface": "local"}]));
        let away = decision(&[lease("n1", "198.51.100.0/24"), lease("n2", "192.0.2.0/24")]);
        assert_eq!(away["decision"], json!({"skip": "noSubnet"}));
        let others: Vec<_> = (1..30).map(|node| lease(&format!("n{node}"), "192.0.2.0/24")).collect();
        let lost = decision(&others);
        assert_eq!(lost["decision"]["skip"]["notElected"]["winner"], lost["local"][0]["other"], "{lost}");
    }

    #[test]
    fn a_file_without_the_node_is_no_case() {
        let error = plan(&json!({"items": []}), &settings()).unwrap_err();
        assert!(error.to_string().contains("no Node n1"), "{error}");
        assert!(plan(&json!({}), &settings()).is_err());
    }
}
