//! The acts of the plain story: a cluster, pools and peers, Services, routes, traffic, and the end of a Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde_json::Value;

use super::stage::Stage;
use crate::{
    Error, Result, Router, command, helpers::echo::Reply, require, secs, topology::client_addresses, until,
};

pub(super) const ALL: [&str; 3] = ["node1", "node2", "node3"];
const MANIFESTS: &str = "tests/lab/manifests";

pub(super) fn cluster(stage: &mut Stage<'_>) -> Result<()> {
    let control_plane = stage.lab.cluster.control_plane.describe();
    let versions = stage.lab.routers.iter().map(Router::version).collect::<Result<Vec<_>>>()?.join(" and ");
    stage.narrator.act(
        "A cluster and two routers",
        &format!(
            "Three nodes without any load balancer hardware, {control_plane}, PureLB's allocator and an lbnodeagent \
             on every node. The routers run {versions} with plain configurations: tests/lab/routers/frr.conf and \
             bird.conf."
        ),
    );
    stage.kubectl("get nodes -o wide", 6)?;
    let nodes = stage.lab.cluster.kubectl().get(&["nodes"])?;
    let count = nodes.pointer("/items").and_then(Value::as_array).map_or(0, Vec::len);
    require!(count == ALL.len(), "{count} nodes are registered");
    stage
        .narrator
        .verified("three nodes are registered, the allocator and three agents answer that they are ready");
    Ok(())
}

pub(super) fn pools_and_peers(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "Pools of addresses, and routers to tell",
        "All configuration is custom resources. A ServiceGroup says which addresses may be given out; a BGPPeer names \
         one router. Each agent speaks BGP itself: nothing else runs on the nodes.",
    );
    stage.kubectl(&format!("apply -f {MANIFESTS}/servicegroups.yaml -f {MANIFESTS}/bgppeers.yaml"), 8)?;
    let hosts = &stage.lab.topology.nodes;
    let over_v4 = hosts.iter().map(|host| host.addresses.v4.into()).collect::<BTreeSet<IpAddr>>();
    let over_v6 = hosts.iter().map(|host| host.addresses.v6.into()).collect::<BTreeSet<IpAddr>>();
    for (router, peers) in stage.lab.routers.iter().zip([over_v4, over_v6]) {
        router.wait_established(&peers, secs(20))?;
        stage.router_cli(router, router.sessions_words(), 14)?;
    }
    stage.lab.wait_node_statuses(&ALL)?;
    wait_peers_ready(stage)?;
    stage.kubectl("get bgpnodestatuses,bgppeers -n purelb-system", 12)?;
    stage.narrator.verified(
        "six sessions are Established, by the routers' own account and by the agents': three on router1 over IPv4, \
         three on router2 over IPv6",
    );
    Ok(())
}

/// Waits until each BGPPeer says that all of its nodes have a session.
fn wait_peers_ready(stage: &Stage<'_>) -> Result<()> {
    let words = ["bgppeers", "-n", "purelb-system"];
    stage.lab.cluster.kubectl().wait("three established nodes of each BGPPeer", &words, secs(30), |list| {
        let items = list.pointer("/items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let statuses = items.iter().map(|item| &item["status"]).collect::<Vec<_>>();
        let ready = statuses.iter().filter(|status| status["establishedNodes"] == ALL.len()).count();
        require!(ready == 2, "statuses {statuses:?}");
        Ok(())
    })
}

pub(super) fn services(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "A Service gets its address",
        "The owner of a Service asks for `type: LoadBalancer`, nothing more, and may choose families and, by \
         annotation, a group or the very addresses. The allocator picks from the group and writes the status.",
    );
    stage.kubectl(&format!("apply -f {MANIFESTS}/namespaces.yaml"), 4)?;
    for (namespace, manifest) in [("blog", "basic"), ("wiki", "address"), ("shop", "dual-stack")] {
        stage.kubectl(&format!("apply -n {namespace} -f {MANIFESTS}/{manifest}.yaml"), 1)?;
        let addresses = stage.lab.wait_addresses(namespace, "my-app")?;
        stage.deploy(namespace, &addresses, &ALL)?;
    }
    stage.kubectl("describe svc my-app -n shop", 30)?;
    let object = stage.lab.cluster.kubectl().get(&["service", "my-app", "-n", "shop"])?;
    for (annotation, expected) in
        [("allocated-by", "PureLB"), ("allocated-from", "default"), ("pool-type", "remote")]
    {
        let found = object["metadata"]["annotations"][format!("purelb.io/{annotation}")].as_str();
        require!(found == Some(expected), "annotation purelb.io/{annotation} is {found:?}, not {expected}");
    }
    let blog = address_in("192.168.1.0/24", &stage.lab.wait_addresses("blog", "my-app")?)?;
    let shop = stage.lab.wait_addresses("shop", "my-app")?;
    let (v4, v6) = (address_in("192.168.1.0/24", &shop)?, address_in("fd00:1::/64", &shop)?);
    require!(v4 != blog, "both Services have {v4}");
    let wiki = stage.lab.wait_addresses("wiki", "my-app")?.iter().map(IpAddr::to_string).collect::<Vec<_>>();
    require!(wiki == ["192.168.1.100", "fd00:1::100"], "wiki/my-app has {wiki:?}, not what it asks for");
    stage.lab.wait_event("shop", "my-app", "AddressAssigned")?;
    stage.narrator.verified(&format!(
        "blog/my-app has {blog}; shop/my-app, dual-stack, has {v4} and {v6}; wiki/my-app has the addresses that it asks \
         for; all are from the pools of the group default"
    ));
    Ok(())
}

fn address_in(pool: &str, addresses: &[IpAddr]) -> Result<IpAddr> {
    let pool = pool.parse::<IpNet>().map_err(|error| Error::parse(pool, error))?;
    let found = addresses.iter().copied().find(|address| pool.contains(address));
    found.ok_or_else(|| Error::unmet(format!("no address of {pool} among {addresses:?}")))
}

pub(super) fn routes(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "The routers learn the way",
        "Every node puts the address on kube-lb0 and announces it. Each router then has three equal ways to it, and \
         uses all three: equal-cost multipath.",
    );
    let addresses = stage.lab.wait_addresses("shop", "my-app")?;
    stage.lab.wait_routes(&addresses, &ALL)?;
    for router in &stage.lab.routers {
        for address in &addresses {
            stage.router_cli(router, &router.route_words(IpNet::from(*address)), 12)?;
        }
    }
    let typed = "ip -brief address show kube-lb0";
    let mut command = stage.lab.topology.nodes[0].namespace.command("ip");
    command.args(typed.split_whitespace().skip(1));
    stage.narrator.show("node1$", typed, &mut command, 4)?;
    stage.narrator.verified(&format!(
        "{} and {} are in both routers' own tables and kernels with exactly node1, node2 and node3 as next hops",
        addresses[0], addresses[1]
    ));
    Ok(())
}

pub(super) fn traffic(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "Traffic",
        "The client reaches the address through either router (its eth1 leads to router1, eth2 to router2). The \
         routers spread connections over the nodes; each pod answers with its node and the client's address as it \
         saw it.",
    );
    let addresses = stage.lab.wait_addresses("shop", "my-app")?;
    for address in &addresses {
        for number in [1, 2] {
            let answers = ask_until_all_answer(stage, number, *address, &ALL)?;
            stage.narrator.output(&answers, 1);
        }
    }
    stage.start_prober(&addresses)?;
    stage.narrator.verified(
        "through each router, over IPv4 and IPv6, all three nodes answered, and every pod saw the client's own address",
    );
    Ok(())
}

/// One `curl` from the client through a router.
pub(super) fn curl(stage: &Stage<'_>, router: u8, address: IpAddr) -> Result<Reply> {
    let mut curl = stage.lab.topology.client.namespace.command("curl");
    curl.args(["-s", "-S", "-g", "--max-time", "3", "--interface", &format!("eth{router}"), &url(address)]);
    let answer = command::run(&mut curl)?;
    let reply = serde_json::from_str::<Reply>(&answer).map_err(|error| Error::parse("the pod", error))?;
    let own = client_addresses(router).like(address).to_string();
    require!(reply.client == own, "{} saw the client as {}, not as {own}", reply.pod, reply.client);
    Ok(reply)
}

/// What one types to ask an address.
pub(super) fn url(address: IpAddr) -> String {
    if address.is_ipv4() { format!("http://{address}/") } else { format!("http://[{address}]/") }
}

/// Asks until every one of the nodes has answered, and says how often each did. Nobody else may answer.
pub(super) fn ask_until_all_answer(
    stage: &Stage<'_>,
    router: u8,
    address: IpAddr,
    nodes: &[&str],
) -> Result<String> {
    let typed = format!("curl --interface eth{router} {}", url(address));
    stage.narrator.prompt("client$", &typed);
    let first = curl(stage, router, address)?;
    let shown = serde_json::to_string(&first).unwrap_or_default();
    stage.narrator.output(&shown, 1);
    let mut answers = BTreeMap::from([(first.node, 1)]);
    until(format!("answers of {nodes:?} to `{typed}`"), secs(20), || {
        let reply = curl(stage, router, address)?;
        *answers.entry(reply.node).or_insert(0) += 1;
        let total = answers.values().sum::<u32>();
        require!(answers.len() == nodes.len() && total >= 10, "answers by node: {answers:?}");
        Ok::<_, Error>(())
    })?;
    let expected = answers.keys().all(|node| nodes.contains(&node.as_str()));
    require!(expected, "answers by node: {answers:?}, where only {nodes:?} may answer");
    let counts = answers.iter().map(|(node, count)| format!("{node} {count}×")).collect::<Vec<_>>();
    Ok(format!("{} times: {}", answers.values().sum::<u32>(), counts.join(", ")))
}

pub(super) fn deletion(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "A Service is deleted",
        "Its addresses go back to the pool, off every node, and out of every router. The other Services stay.",
    );
    stage.stop_prober()?;
    let addresses = stage.lab.wait_addresses("shop", "my-app")?;
    stage.kubectl("delete svc my-app -n shop", 1)?;
    stage.lab.wait_routes(&addresses, &[])?;
    for router in &stage.lab.routers {
        stage.narrator.prompt(&format!("{}#", router.name()), &router.route_words(IpNet::from(addresses[0])));
        stage.narrator.output("(not in the table)", 1);
    }
    for address in &addresses {
        stage.lab.wait_on_nodes(*address, &[])?;
    }
    let blog = stage.lab.wait_addresses("blog", "my-app")?;
    stage.lab.wait_routes(&blog, &ALL)?;
    ask_until_all_answer(stage, 1, blog[0], &ALL).map(|answers| stage.narrator.output(&answers, 1))?;
    stage.narrator.verified(&format!(
        "{} and {} are gone from both routers and from every node; blog/my-app still answers",
        addresses[0], addresses[1]
    ));
    Ok(())
}
