//! Nodes of one subnet with agents and local pools, and a client among them: where failovers of local addresses are
//! measured, ours and those of whoever else answers for an address there.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;
use lab::{
    Capture, Cluster, Host, Namespace, PATIENCE, Pings, Run, Topology, answers,
    cluster::{INSTALL_NAMESPACE, source_root, wait_acquainted},
    control_plane::Choice,
    pings::Asked,
    secs, until,
};
use serde_json::json;

use crate::control;

/// IPv4 and IPv6: the nodes have one of each.
const SUBNETS: usize = 2;
/// In a subnet of so many nodes each hears all others.
const ALL_HEAR_ALL: u8 = 4;
/// What tells who has an address.
const WHO_HAS: &str = "arp or (icmp6 and ip6[40] == 136)";

/// Everything that runs. Fields are dropped in order: the run last, which ends what is left.
#[derive(Debug)]
pub(crate) struct Subnet {
    pub(crate) cluster: Cluster,
    pub(crate) topology: Topology,
    pub(crate) run: Run,
}

/// Whoever makes nodes answer for an address.
pub(crate) trait Announcer {
    /// Ends what runs on a node, as a loss of power would.
    fn kill(&mut self, subnet: &mut Subnet, node: &str) -> Result<()>;
    /// Starts it again.
    fn start(&mut self, subnet: &mut Subnet, node: &str) -> Result<()>;
    /// Whether it may have put this address on a node, which is none of the node's own.
    fn is_its(&self, address: IpAddr) -> bool;
}

/// Our agents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agents;

impl Announcer for Agents {
    fn kill(&mut self, subnet: &mut Subnet, node: &str) -> Result<()> {
        Ok(subnet.cluster.agent(node)?.kill()?)
    }

    fn start(&mut self, subnet: &mut Subnet, node: &str) -> Result<()> {
        subnet.start_agent(node)
    }

    fn is_its(&self, _: IpAddr) -> bool {
        true
    }
}

impl Subnet {
    /// Nodes whose agents all know each other, with everything at its default. No Service yet.
    pub(crate) fn build(nodes: u8) -> Result<Self> {
        let run = Run::start()?;
        let topology = Topology::build(&run, nodes, 0)?;
        let cluster = Cluster::start(&run, &topology, Choice::InMemory)?;
        let mut subnet = Self { cluster, topology, run };
        let control = subnet.topology.control.clone();
        subnet.cluster.start_allocator(&subnet.run, &control)?;
        let pools = source_root().join("tests/lab/manifests/local-pools.yaml");
        subnet.cluster.kubectl().run(&["apply", "-f", &pools.display().to_string()])?;
        for node in subnet.topology.nodes.clone() {
            subnet.cluster.start_agent(&subnet.run, &node)?;
        }
        for node in subnet.topology.nodes.clone() {
            subnet.cluster.wait_agent_ready(&node)?;
        }
        // Of many, each hears only its neighbours in the ring.
        if nodes <= ALL_HEAR_ALL {
            wait_acquainted(&subnet.run, &subnet.topology.nodes, SUBNETS)?;
        }
        Ok(subnet)
    }

    /// Creates a Service with an address of each family, and returns them once each is at a node.
    pub(crate) fn dual_stack(&self, name: &str) -> Result<Vec<IpAddr>> {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name, "namespace": "default", "annotations": { "purelb.io/service-group": "onlink" },
            },
            "spec": {
                "type": "LoadBalancer", "selector": { "app": name }, "ports": [{ "port": 80 }],
                "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            },
        });
        let kubectl = self.cluster.kubectl();
        kubectl.apply(&service.to_string())?;
        let words = ["service", name, "-n", "default"];
        let addresses = kubectl.wait("addresses of both families", &words, PATIENCE, |service| {
            let ingress =
                service.pointer("/status/loadBalancer/ingress").and_then(serde_json::Value::as_array);
            let ips = ingress.into_iter().flatten().filter_map(|entry| entry["ip"].as_str()?.parse().ok());
            let ips: Vec<IpAddr> = ips.collect();
            lab::require!(ips.len() == 2, "{}", service["status"]);
            Ok(ips)
        })?;
        for address in &addresses {
            self.wait_holder(*address)?;
        }
        Ok(addresses)
    }

    /// Who asks.
    pub(crate) fn client(&self) -> &Namespace {
        &self.topology.neighbour.namespace
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Host> {
        let node = self.topology.nodes.iter().find(|node| node.name == name);
        node.with_context(|| format!("there is no node {name}"))
    }

    /// The nodes whose kernel has an address.
    pub(crate) fn holders(&self, address: IpAddr) -> Result<Vec<String>> {
        let mut holders = Vec::new();
        for node in &self.topology.nodes {
            if node.namespace.ip_show(&["-brief", "address"])?.contains(&format!(" {address}/")) {
                holders.push(node.name.clone());
            }
        }
        Ok(holders)
    }

    /// The node that has an address, once it is only one.
    pub(crate) fn wait_holder(&self, address: IpAddr) -> Result<String> {
        let what = format!("{address} on one node");
        let holder = until(what, PATIENCE, || match self.holders(address)?.as_slice() {
            [holder] => Ok(holder.clone()),
            holders => bail!("it is on {holders:?}"),
        });
        Ok(holder?)
    }

    /// Waits until an address is on this node and no other.
    pub(crate) fn wait_at(&self, address: IpAddr, node: &str) -> Result<()> {
        until(format!("{address} on {node}"), PATIENCE, || {
            let holders = self.holders(address)?;
            ensure!(holders == [node], "it is on {holders:?}");
            Ok(())
        })?;
        Ok(())
    }

    /// Waits until an address is on another node than this, and on one only.
    pub(crate) fn wait_elsewhere(&self, address: IpAddr, node: &str) -> Result<()> {
        until(format!("{address} on another node than {node}"), PATIENCE, || {
            let holders = self.holders(address)?;
            ensure!(holders.len() == 1 && holders != [node], "it is on {holders:?}");
            Ok(())
        })?;
        Ok(())
    }

    /// Starts the agent of a node and waits until it is ready.
    pub(crate) fn start_agent(&mut self, node: &str) -> Result<()> {
        let node = self.node(node)?.clone();
        self.cluster.start_agent(&self.run, &node)?;
        Ok(self.cluster.wait_agent_ready(&node)?)
    }

    /// A node loses power: its link is cut, its program is killed.
    pub(crate) fn lose_power(&mut self, announcer: &mut dyn Announcer, node: &str) -> Result<()> {
        self.topology.unplug(node)?;
        announcer.kill(self, node)
    }

    /// Takes from a node what was put there by whoever died on it: nothing of that outlives a loss of power.
    pub(crate) fn wipe(&self, announcer: &dyn Announcer, node: &str) -> Result<()> {
        let host = self.node(node)?;
        let shown = host.namespace.ip_show(&["-o", "address", "show", "dev", "eth0"])?;
        // "2: eth0    inet 172.30.1.11/24 scope global eth0"
        let found = shown.lines().filter_map(|line| line.split_whitespace().nth(3));
        let others = found.filter(|found| {
            let address = found.split('/').next().and_then(|address| address.parse().ok());
            address.is_some_and(|address| !host.addresses.contains(address) && announcer.is_its(address))
        });
        let lines: String = others.map(|address| format!("address del {address} dev eth0\n")).collect();
        if !lines.is_empty() {
            host.namespace.ip(&lines)?;
        }
        Ok(())
    }

    /// A node that had lost its power comes back.
    pub(crate) fn boot(&mut self, announcer: &mut dyn Announcer, node: &str) -> Result<()> {
        self.wipe(announcer, node)?;
        self.topology.plug(node)?;
        announcer.start(self, node)
    }

    /// The holder of an address loses power: what the client misses until another node answers, before it comes back.
    pub(crate) fn fail_over(&mut self, announcer: &mut dyn Announcer, address: IpAddr) -> Result<Asked> {
        let victim = self.wait_holder(address)?;
        let pings = Pings::start(self.client(), address)?;
        let start = std::time::Instant::now();
        self.lose_power(announcer, &victim)?;
        // Long enough that a node which comes back can be told from a second one that answers.
        pings.wait_calm(start + secs(2))?;
        let asked = pings.finish()?;
        ensure!(asked.lost() > 0, "{address} answered all the time while {victim} was dead");
        self.boot(announcer, &victim)?;
        self.wait_at(address, &victim)?;
        Ok(asked)
    }

    /// Runs `story` and checks on the client's link that at no time two machines answered for one of the addresses.
    /// Returns how often two did: never, or once at least.
    pub(crate) fn watched<T>(
        &mut self,
        addresses: &[IpAddr],
        story: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<(T, f64)> {
        let capture = Capture::start(&self.run, &self.topology.neighbour, "eth0", WHO_HAS)?;
        let told = story(self)?;
        let seen = answers::of(&capture.finish()?, addresses)?;
        ensure!(!seen.is_empty(), "nobody answered for {addresses:?} on the client's link");
        let outcome = answers::check_never_two(&seen);
        if let Err(error) = &outcome {
            eprintln!("bench: {error}");
        }
        Ok((told, f64::from(u8::from(outcome.is_err()))))
    }

    /// Runs `work` with a client of the API server, on a thread in the API server's own namespace.
    pub(crate) fn with_client<T, F>(&self, work: impl FnOnce(Client) -> F + Send) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>>,
    {
        let mut one_thread = tokio::runtime::Builder::new_current_thread();
        control::with_client(&self.cluster, &self.topology.control, &mut one_thread, work)
    }

    /// A node announces nothing any more, as before a drain; or it may again.
    pub(crate) fn set_excluded(&self, node: &str, is_excluded: bool) -> Result<()> {
        let sign = if is_excluded { "=true" } else { "-" };
        let label = format!("node.kubernetes.io/exclude-from-external-load-balancers{sign}");
        Ok(self.cluster.kubectl().run(&["label", "node", node, &label]).map(drop)?)
    }

    /// The pool's own group, with another name and other addresses of IPv6: as many as are asked for.
    pub(crate) fn create_group_v6(&self, name: &str, addresses: u16) -> Result<()> {
        let group = json!({
            "apiVersion": "purelb.io/v2",
            "kind": "ServiceGroup",
            "metadata": { "name": name, "namespace": INSTALL_NAMESPACE },
            "spec": { "local": {
                "v6pool": {
                    "subnet": "fd00:30:1::/64",
                    "pool": format!("fd00:30:1::1:0-fd00:30:1::1:{:x}", addresses - 1),
                    "aggregation": "default",
                },
                "skipIPv6DAD": true,
            } },
        });
        Ok(self.cluster.kubectl().apply(&group.to_string()).map(drop)?)
    }
}
