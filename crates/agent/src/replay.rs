//! `lbnodeagent plan`: the decisions of a node, from recorded objects. A user's problem is a file.

use std::time::{Duration, Instant};

use anyhow::Context;
use api::{BGPPeer, LBNodeAgent, ServiceGroup};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    inputs,
    key::ObjectKey,
    peers,
    planner::Planner,
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
    anyhow::ensure!(world.node().is_some(), "the file has no Node {}", settings.node_name);
    // Nobody can be asked whether kube-proxy forwards: it is taken to.
    let mut planner = Planner::new(Duration::ZERO, false);
    let mut keys = world.service_keys();
    keys.sort();
    let now = Instant::now();
    for key in &keys {
        planner.replan(key, &world, now);
    }
    let services: serde_json::Map<_, _> =
        keys.iter().filter_map(|key| Some((key.to_string(), json!(planner.plan().service(key)?)))).collect();
    let node = world.node().cloned().unwrap_or_default();
    let set = peers::resolve(&node, &world.peers(), |_| None);
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
