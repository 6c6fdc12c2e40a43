//! What the demo plays on: the machines, the two routers, the cluster, and the commands that a user would type
//! there.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde_json::Value;

use super::narrator::Narrator;
use crate::{
    Cluster, Error, Host, Process, Result, Router, RouterConfig, Run, Topology,
    cluster::source_root,
    control_plane::Choice,
    helpers::{self, probe},
    pods::Workload,
    router::Software,
    secs, until,
};

const NODES: u8 = 3;
const NODE_AS: u32 = 64512;
const POOLS: [&str; 4] = ["192.168.1.0/24", "198.51.100.0/24", "fd00:1::/64", "2001:db8:51::/64"];

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stage<'r> {
    pub(super) run: &'r Run,
    pub(super) narrator: Narrator,
    pub(super) routers: Vec<Router>,
    pub(super) cluster: Cluster,
    pub(super) topology: Topology,
    /// The Services with pods, as far as the story has come.
    pub(super) workloads: Vec<Workload>,
    prober: Option<Process>,
}

impl<'r> Stage<'r> {
    /// Builds the machines, and starts the routers and the cluster on them.
    pub(super) fn set(narrator: Narrator, run: &'r Run, choice: Choice) -> Result<Self> {
        let topology = Topology::build(run, NODES, 2)?;
        let pools = POOLS.iter().filter_map(|pool| pool.parse::<IpNet>().ok()).collect::<Vec<_>>();
        let plan = [(Software::Frr, 65001), (Software::Bird, 4_200_000_002)];
        let routers = topology.routers.iter().zip(plan).map(|(host, (software, local_as))| {
            let config = RouterConfig { local_as, node_as: NODE_AS, pools: pools.clone() };
            Router::start(run, host, software, config)
        });
        let routers = routers.collect::<Result<Vec<_>>>()?;
        let mut cluster = Cluster::start(run, &topology, choice)?;
        cluster.start_allocator(run, &topology.control)?;
        for node in &topology.nodes {
            cluster.start_agent(run, node)?;
        }
        for node in &topology.nodes {
            cluster.wait_agent_ready(node)?;
        }
        let stage = Self { run, narrator, routers, cluster, topology, workloads: Vec::new(), prober: None };
        stage.write_shortcuts()?;
        Ok(stage)
    }

    /// Runs `kubectl` and shows it.
    pub(super) fn kubectl(&self, typed: &str, limit: usize) -> Result<String> {
        let words = typed.split_whitespace().collect::<Vec<_>>();
        let mut command = self.cluster.kubectl().command(&words);
        command.current_dir(source_root());
        self.narrator.show("$", &format!("kubectl {typed}"), &mut command, limit)
    }

    /// Runs a command of a router's own command line and shows it.
    pub(super) fn router_cli(&self, router: &Router, words: &str, limit: usize) -> Result<String> {
        self.narrator.prompt(&format!("{}#", router.name()), words);
        let output = crate::command::run(&mut router.cli(words))?;
        let lines = output.lines().filter(|line| !is_noise(line)).collect::<Vec<_>>();
        self.narrator.output(&lines.join("\n"), limit);
        Ok(output)
    }

    /// The nodes by name.
    pub(super) fn nodes(&self, names: &[&str]) -> Vec<&Host> {
        self.topology.nodes.iter().filter(|node| names.contains(&node.name.as_str())).collect()
    }

    /// Waits until every router has these prefixes from these nodes (or from none), in table and kernel.
    pub(super) fn wait_routes(&self, addresses: &[IpAddr], nodes: &[&str]) -> Result<()> {
        let hosts = self.nodes(nodes);
        for address in addresses {
            for router in &self.routers {
                router.wait_next_hops(IpNet::from(*address), &hosts, secs(20))?;
            }
        }
        Ok(())
    }

    /// Waits until a Service has an address of each of its families, and returns them.
    pub(super) fn wait_addresses(&self, namespace: &str, service: &str) -> Result<Vec<IpAddr>> {
        let words = ["service", service, "-n", namespace];
        self.cluster.kubectl().wait("addresses in the Service's status", &words, secs(20), |object| {
            let families = object.pointer("/spec/ipFamilies").and_then(Value::as_array).map_or(0, Vec::len);
            let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
            let ips =
                ingress.into_iter().flatten().filter_map(|entry| entry.get("ip")?.as_str()?.parse().ok());
            let ips = ips.collect::<Vec<_>>();
            crate::require!(families > 0 && ips.len() == families, "status {}", object["status"]);
            Ok(ips)
        })
    }

    /// Starts a pod on each of the nodes for a Service that has its addresses, and publishes the endpoints.
    pub(super) fn deploy(&mut self, namespace: &str, addresses: &[IpAddr], nodes: &[&str]) -> Result<()> {
        let mut workload = Workload::new(namespace, "my-app", 80, addresses);
        for node in nodes {
            workload.start(self.run, &self.topology, node)?;
        }
        workload.publish(self.cluster.kubectl())?;
        self.workloads.push(workload);
        Ok(())
    }

    /// Starts the client that never stops asking for these addresses through both routers.
    pub(super) fn start_prober(&mut self, addresses: &[IpAddr]) -> Result<()> {
        let mut command = self.topology.client.namespace.command(helpers::binary("lab")?);
        command.args(["probe", "--interface", "eth1", "--interface", "eth2", "--patience-ms", "1000"]);
        command.args(["--pace-ms", "50"]).arg("--out").arg(self.attempts_file());
        for address in addresses {
            command.args(["--target", &std::net::SocketAddr::new(*address, 80).to_string()]);
        }
        let mut process = Process::spawn("client-probe", command, self.run.log("client-probe"))?;
        until("the client's first answers", secs(10), || {
            process.check_running()?;
            let attempts = self.attempts_since(0)?;
            crate::require!(
                attempts.iter().any(|attempt| attempt.error.is_none()),
                "{} attempts",
                attempts.len()
            );
            Ok::<_, Error>(())
        })?;
        self.prober = Some(process);
        Ok(())
    }

    /// What the client that never stops has seen.
    pub(super) fn attempts_since(&self, since_ms: u64) -> Result<Vec<probe::Attempt>> {
        probe::attempts_since(&self.attempts_file(), since_ms)
    }

    /// Ends the client that never stops.
    pub(super) fn stop_prober(&mut self) -> Result<()> {
        self.prober.take().map_or(Ok(()), |mut prober| prober.kill())
    }

    fn attempts_file(&self) -> PathBuf {
        self.run.folder().join("attempts.jsonl")
    }

    /// Scripts that run a command on a machine, or on a router's command line.
    fn write_shortcuts(&self) -> Result<()> {
        let folder = self.run.folder().join("bin");
        fs::create_dir_all(&folder).map_err(Error::path(&folder))?;
        for (host, namespace) in self.topology.namespaces() {
            script(&folder.join(host), &format!("exec ip netns exec {} \"$@\"", namespace.name()))?;
        }
        for router in &self.routers {
            let line = crate::command::line(&router.cli("WORDS")).replace("WORDS", "\"$*\"");
            script(&folder.join(format!("{}-cli", router.name())), &format!("exec {line}"))?;
        }
        Ok(())
    }
}

fn script(path: &Path, line: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{line}\n")).map_err(Error::path(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::path(path))
}

/// Lines of a router's answer that say nothing about the question.
fn is_noise(line: &str) -> bool {
    line.trim().is_empty() || (line.starts_with("BIRD ") && line.ends_with(" ready."))
}
