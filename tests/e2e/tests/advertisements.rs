//! What routers are told about routes: by BGPPeer's advertisements, and by Services where a BGPPeer lets them. Read
//! from the router's own table.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, net::IpAddr};

use e2e::{INSTALL_NAMESPACE, peer, service, with_one_router};
use lab::{DataCentre, PATIENCE, Run, command, require, until};
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node1", "node2"];

fn apply(lab: &DataCentre<'_>, manifest: &Value) -> IpAddr {
    lab.cluster.kubectl().apply(&manifest.to_string()).unwrap();
    lab.wait_addresses("default", manifest["metadata"]["name"].as_str().unwrap()).unwrap()[0]
}

fn advertise(lab: &DataCentre<'_>, advertisements: &Value) {
    let patch = json!({ "spec": { "advertisements": advertisements } }).to_string();
    let words = ["patch", "bgppeer", "router1", "-n", INSTALL_NAMESPACE, "--type=merge", "-p", &patch];
    lab.cluster.kubectl().run(&words).unwrap();
}

/// What the router knows of the route, by the node that told it.
fn paths(lab: &DataCentre<'_>, address: IpAddr) -> lab::Result<BTreeMap<String, Value>> {
    let words = format!("show bgp ipv4 unicast {address}/32 json");
    let shown = command::run(&mut lab.routers[0].cli(&words))?;
    let shown: Value = serde_json::from_str(&shown).map_err(|error| lab::Error::parse("vtysh", error))?;
    let paths = shown["paths"].as_array().cloned().unwrap_or_default();
    let node_of = |path: &Value| {
        let peer: IpAddr = path["peer"]["peerId"].as_str()?.parse().ok()?;
        let node = lab.topology.nodes.iter().find(|node| IpAddr::from(node.addresses.v4) == peer)?;
        Some(node.name.clone())
    };
    Ok(paths.iter().filter_map(|path| Some((node_of(path)?, path.clone()))).collect())
}

/// Waits until the paths of these nodes, and no others, are as `is_right` says.
fn wait_paths(
    lab: &DataCentre<'_>,
    address: IpAddr,
    nodes: &[&str],
    what: &str,
    is_right: impl Fn(&str, &Value) -> bool,
) {
    until(format!("{address} at the router with {what}"), PATIENCE, || {
        let paths = paths(lab, address)?;
        require!(paths.keys().eq(nodes.iter()), "paths of {:?}", paths.keys());
        let wrong = paths.iter().find(|(node, path)| !is_right(node, path));
        require!(wrong.is_none(), "{wrong:?}");
        Ok::<_, lab::Error>(())
    })
    .unwrap();
}

fn communities(path: &Value) -> Vec<String> {
    let text = |list: &Value| list["string"].as_str().unwrap_or_default().to_owned();
    let all = format!("{} {}", text(&path["community"]), text(&path["largeCommunity"]));
    all.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn advertisements_choose_routes_and_add_attributes_and_a_change_of_them_keeps_the_session() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let web = apply(&lab, &service("web", &json!({})));
    let mut labelled = service("db", &json!({}));
    labelled["metadata"]["labels"] = json!({ "tier": "db" });
    let db = apply(&lab, &labelled);
    lab.wait_routes(&[web, db], &NODES).unwrap();
    let since = || {
        let sessions = command::run(&mut lab.routers[0].cli("show bgp neighbors json")).unwrap();
        let sessions: Value = serde_json::from_str(&sessions).unwrap();
        let counts = sessions.as_object().unwrap().values();
        counts.map(|session| session["connectionsEstablished"].as_u64().unwrap_or(0)).sum::<u64>()
    };
    let established = since();

    advertise(
        &lab,
        &json!([
            { "serviceSelector": { "matchLabels": { "tier": "db" } }, "communities": ["64512:7", "64512:1:2", "no-peer"], "med": 50 },
            { "serviceSelector": { "matchExpressions": [{ "key": "tier", "operator": "DoesNotExist" }] }, "asPathPrepend": 2 },
        ]),
    );
    wait_paths(&lab, db, &NODES, "communities and MED", |_, path| {
        communities(path) == ["64512:7", "no-peer", "64512:1:2"] && path["metric"] == 50
    });
    wait_paths(&lab, web, &NODES, "AS_PATH of three", |_, path| path["aspath"]["length"] == 3);

    advertise(&lab, &json!([{ "serviceSelector": { "matchLabels": { "tier": "db" } }, "med": 60 }]));
    wait_paths(&lab, db, &NODES, "the new MED only", |_, path| {
        communities(path).is_empty() && path["metric"] == 60
    });
    lab.wait_routes(&[web], &[]).unwrap();

    advertise(&lab, &Value::Null);
    lab.wait_routes(&[web, db], &NODES).unwrap();
    wait_paths(&lab, db, &NODES, "nothing extra", |_, path| path["metric"].is_null() || path["metric"] == 0);
    assert_eq!(since(), established, "no session was reset");
}

#[test]
fn a_service_sets_attributes_only_where_the_peer_lets_it_and_is_told_where_not() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 1).unwrap();
    let wishes = json!({ "purelb.io/bgp-med": "77", "purelb.io/bgp-communities": "64512:9, no-export" });
    let web = apply(&lab, &service("web", &wishes));
    lab.wait_routes(&[web], &["node1"]).unwrap();
    let told = lab.wait_event("default", "web", "ConfigurationWarning").unwrap();
    assert!(told.contains("allowServiceOverrides"), "{told}");
    wait_paths(&lab, web, &["node1"], "nothing", |_, path| communities(path).is_empty());

    advertise(&lab, &json!([{ "allowServiceOverrides": ["communities"], "med": 5 }]));
    wait_paths(&lab, web, &["node1"], "its communities and the peer's MED", |_, path| {
        communities(path) == ["64512:9", "no-export"] && path["metric"] == 5
    });
    advertise(&lab, &json!([{ "allowServiceOverrides": ["communities", "med"], "med": 5 }]));
    wait_paths(&lab, web, &["node1"], "its MED", |_, path| path["metric"] == 77);
}

/// What nodes have said of a Service for this reason.
fn said(lab: &DataCentre<'_>, service: &str, reason: &str) -> Vec<String> {
    let events = lab.cluster.kubectl().get(&["events", "-n", "default"]).unwrap();
    let about = |event: &&Value| event["involvedObject"]["name"] == service && event["reason"] == reason;
    let events = events["items"].as_array().unwrap().iter().filter(about);
    events.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn with_a_bgppeer_for_each_node_a_wish_is_judged_by_both_and_told_once() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let of_node = |node: &str| json!([{ "matchLabels": { "kubernetes.io/hostname": node } }]);
    let mut second = peer("router2", 65001, lab.topology.routers[0].addresses.v4.into());
    second["spec"]["nodeSelectors"] = of_node("node2");
    second["spec"]["advertisements"] =
        json!([{ "communities": ["64512:2"], "allowServiceOverrides": ["peers"] }]);
    lab.cluster.kubectl().apply(&second.to_string()).unwrap();
    let first = json!({ "spec": {
        "nodeSelectors": of_node("node1"),
        "advertisements": [{ "communities": ["64512:1"], "allowServiceOverrides": ["peers", "med"] }],
    }});
    let words =
        ["patch", "bgppeer", "router1", "-n", INSTALL_NAMESPACE, "--type=merge", "-p", &first.to_string()];
    lab.cluster.kubectl().run(&words).unwrap();
    let plain = apply(&lab, &service("plain", &json!({})));
    wait_paths(&lab, plain, &NODES, "each node's own community: both know both BGPPeers", |node, path| {
        communities(path) == [if node == "node1" { "64512:1" } else { "64512:2" }]
    });

    let wishes = json!({ "purelb.io/bgp-med": "5", "purelb.io/bgp-peers": "router1, router2, router9" });
    let web = apply(&lab, &service("web", &wishes));
    wait_paths(&lab, web, &NODES, "the MED of the node whose BGPPeer allows it", |node, path| {
        (path["metric"] == 5) == (node == "node1")
    });
    // Each node tells in order: what it has to say of `web` it has said before this.
    apply(&lab, &service("later", &json!({})));
    until("both nodes to have told of the later one", PATIENCE, || {
        let told = said(&lab, "later", "Announcing");
        require!(told.len() == 2, "{told:?}");
        Ok::<_, lab::Error>(())
    })
    .unwrap();
    let expected = "purelb.io/bgp-peers: there is no BGPPeer router9";
    assert_eq!(said(&lab, "web", "ConfigurationWarning"), [expected]);
}

#[test]
fn link_bandwidth_follows_the_ready_endpoints_of_each_node() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    advertise(&lab, &json!([{ "linkBandwidth": "endpoints" }]));
    let mut manifest = service("web", &json!({ "purelb.io/service-group": "routed" }));
    manifest["spec"]["externalTrafficPolicy"] = json!("Local");
    let web = apply(&lab, &manifest);
    let endpoints = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": "web-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "ports": [{ "port": 80 }],
        "endpoints": [
            { "addresses": ["10.9.0.1"], "nodeName": "node1", "conditions": { "ready": true } },
            { "addresses": ["10.9.0.2"], "nodeName": "node1", "conditions": { "ready": true } },
            { "addresses": ["10.9.0.3"], "nodeName": "node1", "conditions": { "ready": true } },
            { "addresses": ["10.9.0.4"], "nodeName": "node2", "conditions": { "ready": true } },
        ],
    });
    lab.cluster.kubectl().apply(&endpoints.to_string()).unwrap();
    // FRR shows octets a second as bits: 1 Gbit/s an endpoint.
    wait_paths(&lab, web, &NODES, "bandwidths of 3:1", |node, path| {
        let shown = path["extendedCommunity"]["string"].as_str().unwrap_or_default();
        let expected = if node == "node1" { "3.000 Gbps" } else { "1.000 Gbps" };
        shown.starts_with("LB:64512:") && shown.contains(expected)
    });
}
