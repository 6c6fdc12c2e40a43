//! The site that the cluster benchmarks measure on: one node, an FRR and a BIRD router, the in-memory API server,
//! a remote ServiceGroup and a BGPPeer for each router, all of it with default timers.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use kube::Client;
use lab::{
    Cluster, Host, Router, RouterConfig, Run, Topology,
    control_plane::Choice,
    router::{Family, Software},
    until,
};
use serde_json::json;

use crate::control;

/// The name of the ServiceGroup: the one that Services without an annotation get.
pub(crate) const GROUP: &str = "default";

const NODE_AS: u32 = 64512;
const ROUTERS: [(Software, u32); 2] = [(Software::Frr, 65001), (Software::Bird, 65002)];
const POOL_V4: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 0);
const POOL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, 0);
/// What agents call the interface of remote addresses unless told otherwise.
const DUMMY_INTERFACE: &str = "kube-lb0";

/// Everything that runs. Fields are dropped in order: the run last, which ends what is left.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) routers: Vec<Router>,
    pub(crate) topology: Topology,
    pub(crate) run: Run,
}

impl Site {
    /// Builds it; neither allocator nor agent runs yet.
    pub(crate) fn build() -> Result<Self> {
        let run = Run::start()?;
        let topology = Topology::build(&run, 1, ROUTERS.len().try_into()?)?;
        let pools = vec![IpNet::new(POOL_V4.into(), 16)?, IpNet::new(POOL_V6.into(), 112)?];
        let routers = topology.routers.iter().zip(ROUTERS).map(|(host, (software, local_as))| {
            let nodes = topology.nodes.iter().map(|node| node.addresses).collect();
            let config = RouterConfig { local_as, node_as: NODE_AS, nodes, pools: pools.clone() };
            Router::start(&run, host, software, config)
        });
        let routers = routers.collect::<lab::Result<Vec<_>>>()?;
        let cluster = Cluster::start(&run, &topology, Choice::InMemory)?;
        let site = Self { cluster, routers, topology, run };
        site.configure()?;
        Ok(site)
    }

    fn configure(&self) -> Result<()> {
        let namespace = lab::cluster::INSTALL_NAMESPACE;
        let mut items = vec![json!({
            "apiVersion": "purelb.io/v2",
            "kind": "ServiceGroup",
            "metadata": { "name": GROUP, "namespace": namespace },
            "spec": { "remote": {
                "v4pool": { "pool": format!("{POOL_V4}/16"), "subnet": format!("{POOL_V4}/16"), "aggregation": "/32" },
                "v6pool": { "pool": format!("{POOL_V6}/112"), "subnet": format!("{POOL_V6}/112"), "aggregation": "/128" },
            }},
        })];
        for (host, (software, asn)) in self.topology.routers.iter().zip(ROUTERS) {
            // One session of each family.
            let address = match software {
                Software::Frr => IpAddr::from(host.addresses.v4),
                Software::Bird | Software::GoBgp => host.addresses.v6.into(),
            };
            items.push(json!({
                "apiVersion": "bgp.purelb.io/v1",
                "kind": "BGPPeer",
                "metadata": { "name": host.name, "namespace": namespace },
                "spec": { "myASN": NODE_AS, "peerASN": asn, "peerAddress": address },
            }));
        }
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        self.cluster.kubectl().apply(&list.to_string())?;
        Ok(())
    }

    /// The one node.
    pub(crate) fn node(&self) -> &Host {
        &self.topology.nodes[0]
    }

    /// Address number `number` of the pool.
    pub(crate) fn address(family: Family, number: u16) -> IpAddr {
        match family {
            Family::Ipv4 => Ipv4Addr::from(u32::from(POOL_V4) + u32::from(number)).into(),
            Family::Ipv6 => Ipv6Addr::from(u128::from(POOL_V6) + u128::from(number)).into(),
        }
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

    /// Starts the agent of the node; says when.
    pub(crate) fn start_agent(&mut self) -> Result<Instant> {
        let start = Instant::now();
        let node = self.topology.nodes.first().context("the site has a node")?;
        self.cluster.start_agent(&self.run, node)?;
        Ok(start)
    }

    /// Fails with the end of its log when the agent has ended.
    pub(crate) fn check_agent(&mut self) -> Result<()> {
        let name = self.node().name.clone();
        Ok(self.cluster.agent(&name)?.check_running()?)
    }

    /// Ends the agent and takes what it left, so that the next start is a first one.
    pub(crate) fn stop_agent(&mut self) -> Result<()> {
        let node = self.node().clone();
        self.cluster.agent(&node.name)?.terminate(Duration::from_secs(30))?;
        if node.namespace.ip_show(&["link", "show", DUMMY_INTERFACE]).is_ok() {
            node.namespace.ip(&format!("link del {DUMMY_INTERFACE}"))?;
        }
        for router in &self.routers {
            until(
                format!("{} to forget the prefixes", router.name()),
                Duration::from_secs(60),
                || match self.prefixes(router)? {
                    0 => Ok(()),
                    count => bail!("{count} prefixes"),
                },
            )?;
        }
        Ok(())
    }

    /// How many prefixes of both families a router's own table holds.
    pub(crate) fn prefixes(&self, router: &Router) -> Result<usize> {
        Ok(router.prefix_count(Family::Ipv4)? + router.prefix_count(Family::Ipv6)?)
    }

    /// How many addresses of the pool the node's kernel has.
    pub(crate) fn held_addresses(&self) -> Result<usize> {
        let shown = self.node().namespace.ip_show(&["-o", "address", "show", "dev", DUMMY_INTERFACE])?;
        Ok(shown.lines().filter(|line| line.contains(" 10.100.") || line.contains(" fd00:100::")).count())
    }
}
