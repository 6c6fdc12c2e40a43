//! A node and a router on a link of their own that tell each other their addresses by Router Advertisements.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use e2e::{INSTALL_NAMESPACE, service};
use lab::{
    DataCentre, Run, command, control_plane::Choice, data_centre::Plan, router::Software, traffic::Sink,
};
use serde_json::json;

#[test]
fn a_node_peers_with_the_router_that_it_hears_and_both_families_go_over_link_local_next_hops() {
    let run = Run::start().unwrap();
    let mut plan = Plan::with_nodes(1);
    plan.routers = vec![(Software::Frr, 65001)];
    let lab = DataCentre::start(&run, &plan, Choice::from_environment(None)).unwrap();
    let (node, router) = (&lab.topology.nodes[0], &lab.topology.routers[0]);
    // No address but link-local ones, on neither side.
    let ends = [(node, "uplink"), (router, "downlink")];
    let far = router.namespace.name();
    node.namespace.ip(&format!("link add uplink type veth peer name downlink netns {far}")).unwrap();
    for (host, interface) in ends {
        let address = host.addresses.link_local;
        let lines = format!(
            "link set {interface} addrgenmode none\naddress add {address}/64 dev {interface} nodad\nlink set \
             {interface} up"
        );
        host.namespace.ip(&lines).unwrap();
    }
    let lines = [
        "configure terminal",
        "router bgp 65001",
        "neighbor downlink interface remote-as external",
        "neighbor downlink timers 1 3",
        "neighbor downlink timers connect 1",
        "address-family ipv4 unicast",
        "neighbor downlink activate",
        "neighbor downlink route-map from-nodes in",
        "neighbor downlink route-map to-nodes out",
        "exit-address-family",
        "address-family ipv6 unicast",
        "neighbor downlink activate",
        "neighbor downlink route-map from-nodes in",
        "neighbor downlink route-map to-nodes out",
    ];
    let mut vtysh = lab.routers[0].cli(lines[0]);
    for line in &lines[1..] {
        vtysh.args(["-c", line]);
    }
    command::run(&mut vtysh).unwrap();
    e2e::apply_file(&lab, "servicegroups.yaml").unwrap();
    let peer = json!({
        "apiVersion": "bgp.purelb.io/v1",
        "kind": "BGPPeer",
        "metadata": { "name": "uplink", "namespace": INSTALL_NAMESPACE },
        "spec": {
            "myASN": 64512, "dynamicASN": "external", "interface": "uplink",
            "holdTime": "3s", "keepaliveTime": "1s", "connectTime": "1s",
        },
    });
    lab.cluster.kubectl().apply(&peer.to_string()).unwrap();
    lab.wait_node_statuses(&["node1"]).unwrap();
    let mut service = service("my-app", &json!({}));
    service["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    lab.cluster.kubectl().apply(&service.to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    lab.wait_routes(&addresses, &["node1"]).unwrap();
    for address in &addresses {
        let next_hops = lab.routers[0].next_hops((*address).into()).unwrap();
        assert_eq!(next_hops, [node.addresses.link_local.into()].into(), "of {address}");
    }
    // A client's packets take that way.
    let sink = Sink::start(&node.namespace).unwrap();
    sink.wait_reachable(&lab.topology.client.namespace, &addresses).unwrap();
    // With the link goes the session, and with it the routes.
    lab.topology.blackhole(node, router).unwrap();
    lab.wait_routes(&addresses, &[]).unwrap();
    lab.topology.heal(node).unwrap();
    lab.wait_routes(&addresses, &["node1"]).unwrap();
}
