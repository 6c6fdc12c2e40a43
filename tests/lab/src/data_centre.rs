//! The whole of it: machines, routers and a cluster with everything of ours running, as the demo, the end-to-end
//! tests and the benchmarks use it.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::{
    Cluster, Error, Host, PATIENCE, Result, Router, RouterConfig, Run, Topology, control_plane::Choice,
    pods::Workload, require, router::Software, until,
};

/// The AS number of the nodes.
pub const NODE_AS: u32 = 64512;

/// What to build.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many nodes.
    pub nodes: u8,
    /// The routers, in order, each with its AS number.
    pub routers: Vec<(Software, u32)>,
    /// What the routers accept.
    pub pools: Vec<IpNet>,
}

impl Plan {
    /// So many nodes; FRR as `router1` and BIRD, with a 4-octet AS number, as `router2`; the pools of the
    /// manifests in `tests/lab/manifests`.
    pub fn with_nodes(nodes: u8) -> Self {
        let pools = ["192.168.1.0/24", "198.51.100.0/24", "fd00:1::/64", "2001:db8:51::/64"];
        Self {
            nodes,
            routers: vec![(Software::Frr, 65001), (Software::Bird, 4_200_000_002)],
            pools: pools.iter().filter_map(|pool| pool.parse().ok()).collect(),
        }
    }
}

/// Machines, routers and a cluster.
#[derive(Debug)]
pub struct DataCentre<'r> {
    /// The run that it belongs to.
    pub run: &'r Run,
    /// The machines and links.
    pub topology: Topology,
    /// The routers, in the order of the plan.
    pub routers: Vec<Router>,
    /// The API server, the allocator and the agents.
    pub cluster: Cluster,
}

impl<'r> DataCentre<'r> {
    /// Builds it without any program of ours.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn build(run: &'r Run, plan: &Plan, choice: Choice) -> Result<Self> {
        let count = u8::try_from(plan.routers.len()).map_err(|error| Error::parse("the plan", error))?;
        let topology = Topology::build(run, plan.nodes, count)?;
        let nodes = topology.nodes.iter().map(|node| node.addresses).collect::<Vec<_>>();
        let routers = topology.routers.iter().zip(&plan.routers).map(|(host, (software, local_as))| {
            let (nodes, pools) = (nodes.clone(), plan.pools.clone());
            let config = RouterConfig { local_as: *local_as, node_as: NODE_AS, nodes, pools };
            Router::start(run, host, *software, config)
        });
        let routers = routers.collect::<Result<Vec<_>>>()?;
        let cluster = Cluster::start(run, &topology, choice)?;
        Ok(Self { run, topology, routers, cluster })
    }

    /// Builds it and starts the allocator and an agent on every node.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(run: &'r Run, plan: &Plan, choice: Choice) -> Result<Self> {
        let mut it = Self::build(run, plan, choice)?;
        it.cluster.start_allocator(run, &it.topology.control)?;
        for node in &it.topology.nodes {
            it.cluster.start_agent(run, node)?;
        }
        for node in &it.topology.nodes {
            it.cluster.wait_agent_ready(node)?;
        }
        Ok(it)
    }

    /// A node by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Host> {
        let node = self.topology.nodes.iter().find(|node| node.name == name);
        node.ok_or_else(|| Error::unmet(format!("the lab has no node {name}")))
    }

    /// Starts the agent of a node, again or for the first time, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_agent(&mut self, node: &str) -> Result<()> {
        let node = self.node(node)?.clone();
        self.cluster.start_agent(self.run, &node)?;
        self.cluster.wait_agent_ready(&node)
    }

    /// Starts the allocator again and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_allocator(&mut self) -> Result<()> {
        self.cluster.start_allocator(self.run, &self.topology.control)
    }

    /// Waits until every router has exactly these nodes as next hops of these addresses (or, with no nodes, does
    /// not know them), in its table and its kernel.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub fn wait_routes(&self, addresses: &[IpAddr], nodes: &[&str]) -> Result<()> {
        let hosts = nodes.iter().map(|name| self.node(name)).collect::<Result<Vec<_>>>()?;
        for address in addresses {
            for router in &self.routers {
                router.wait_next_hops(IpNet::from(*address), &hosts, PATIENCE)?;
            }
        }
        Ok(())
    }

    /// Waits until an address is on `kube-lb0` of exactly these nodes.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub fn wait_on_nodes(&self, address: IpAddr, nodes: &[&str]) -> Result<()> {
        until(format!("{address} on exactly {nodes:?}"), PATIENCE, || {
            let mut holders = Vec::new();
            for node in &self.topology.nodes {
                let shown = node.namespace.ip_show(&["-brief", "address"])?;
                if shown.contains(&format!(" {address}/")) {
                    holders.push(node.name.as_str());
                }
            }
            require!(holders == nodes, "it is on {holders:?}");
            Ok::<_, Error>(())
        })
    }

    /// Waits until a Service has one address of each of its families, and returns them in the status's order.
    ///
    /// # Errors
    /// When it does not get them in time.
    pub fn wait_addresses(&self, namespace: &str, service: &str) -> Result<Vec<IpAddr>> {
        let words = ["service", service, "-n", namespace];
        let what = format!("addresses in the status of {namespace}/{service}");
        self.cluster.kubectl().wait(&what, &words, PATIENCE, |object| {
            let families = object.pointer("/spec/ipFamilies").and_then(Value::as_array).map_or(0, Vec::len);
            let ips = ingress(object);
            require!(families > 0 && ips.len() == families, "status {}", object["status"]);
            Ok(ips)
        })
    }

    /// The addresses that a Service has now.
    ///
    /// # Errors
    /// When there is no such Service.
    pub fn addresses(&self, namespace: &str, service: &str) -> Result<Vec<IpAddr>> {
        Ok(ingress(&self.cluster.kubectl().get(&["service", service, "-n", namespace])?))
    }

    /// Waits for an event about an object, and returns its message.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_event(&self, namespace: &str, object: &str, reason: &str) -> Result<String> {
        let what = format!("an event {reason} about {namespace}/{object}");
        self.cluster.kubectl().wait(&what, &["events", "-n", namespace], PATIENCE, |list| {
            let about = items(list).iter().filter(|event| event["involvedObject"]["name"] == object);
            let events = about.map(|event| (event["reason"].as_str(), event["message"].as_str()));
            let events = events.collect::<Vec<_>>();
            let found =
                events.iter().find(|(found, _)| *found == Some(reason)).and_then(|(_, message)| *message);
            found.map(str::to_owned).ok_or_else(|| Error::unmet(format!("events {events:?}")))
        })
    }

    /// Waits until exactly these nodes say in their BGPNodeStatus that all of their sessions are established.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn wait_node_statuses(&self, nodes: &[&str]) -> Result<()> {
        let words = ["bgpnodestatuses", "-n", crate::cluster::INSTALL_NAMESPACE];
        let what = format!("established sessions in the BGPNodeStatus of {nodes:?}");
        let expected = nodes.iter().copied().collect::<BTreeSet<_>>();
        self.cluster.kubectl().wait(&what, &words, PATIENCE, |list| {
            let mut up = BTreeSet::new();
            for item in items(list) {
                let peers = item.pointer("/status/peers").and_then(Value::as_array).into_iter().flatten();
                let established = peers.filter(|peer| peer["state"] == "Established").count();
                if established == self.routers.len() {
                    up.extend(item["metadata"]["name"].as_str());
                }
            }
            require!(up == expected, "all established on {up:?}: {}", states(list));
            Ok(())
        })
    }

    /// Starts a pod on each of the nodes for the port 80 of a Service that has its addresses, and publishes the
    /// endpoints.
    ///
    /// # Errors
    /// When a pod does not start.
    pub fn deploy(
        &self,
        namespace: &str,
        service: &str,
        addresses: &[IpAddr],
        nodes: &[&str],
    ) -> Result<Workload> {
        let mut workload = Workload::new(namespace, service, 80, addresses);
        for node in nodes {
            workload.start(self.run, &self.topology, node)?;
        }
        workload.publish(self.cluster.kubectl())?;
        Ok(workload)
    }
}

fn items(list: &Value) -> &[Value] {
    list.pointer("/items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn ingress(service: &Value) -> Vec<IpAddr> {
    let entries =
        service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(|entry| entry.get("ip")?.as_str()?.parse().ok()).collect()
}

/// The sessions of all nodes in short, for messages.
fn states(list: &Value) -> Value {
    let nodes = items(list).iter().map(|item| {
        let peers = item.pointer("/status/peers").and_then(Value::as_array).into_iter().flatten();
        let peers = peers.map(|peer| json!([peer["name"], peer["state"], peer["lastError"]]));
        json!({ "node": item["metadata"]["name"], "peers": peers.collect::<Vec<_>>() })
    });
    Value::Array(nodes.collect())
}
