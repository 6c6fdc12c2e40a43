//! What the demo plays on: the machines, the two routers, the cluster, and the commands that a user would type
//! there.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::narrator::Narrator;
use crate::{
    DataCentre, Error, Process, Result, Router, Run,
    cluster::source_root,
    control_plane::Choice,
    data_centre::Plan,
    helpers::{self, probe},
    pods::Workload,
    secs, until,
};

/// Everything that runs, and who tells about it.
#[derive(Debug)]
pub(super) struct Stage<'r> {
    pub(super) narrator: Narrator,
    pub(super) lab: DataCentre<'r>,
    /// The Services with pods, as far as the story has come.
    pub(super) workloads: Vec<Workload>,
    prober: Option<Process>,
}

impl<'r> Stage<'r> {
    /// Builds and starts everything.
    pub(super) fn set(narrator: Narrator, run: &'r Run, choice: Choice) -> Result<Self> {
        let lab = DataCentre::start(run, &Plan::with_nodes(3), choice)?;
        let stage = Self { narrator, lab, workloads: Vec::new(), prober: None };
        stage.write_shortcuts()?;
        Ok(stage)
    }

    /// Runs `kubectl` and shows it.
    pub(super) fn kubectl(&self, typed: &str, limit: usize) -> Result<String> {
        let words = typed.split_whitespace().collect::<Vec<_>>();
        let mut command = self.lab.cluster.kubectl().command(&words);
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

    /// Starts a pod on each of the nodes for the Service `my-app` of a namespace.
    pub(super) fn deploy(&mut self, namespace: &str, addresses: &[IpAddr], nodes: &[&str]) -> Result<()> {
        self.workloads.push(self.lab.deploy(namespace, "my-app", addresses, nodes)?);
        Ok(())
    }

    /// Starts the client that never stops asking for these addresses through both routers.
    pub(super) fn start_prober(&mut self, addresses: &[IpAddr]) -> Result<()> {
        let mut command = self.lab.topology.client.namespace.command(helpers::binary("lab")?);
        command.args(["probe", "--interface", "eth1", "--interface", "eth2", "--patience-ms", "1000"]);
        command.args(["--pace-ms", "50"]).arg("--out").arg(self.attempts_file());
        for address in addresses {
            command.args(["--target", &std::net::SocketAddr::new(*address, 80).to_string()]);
        }
        let mut process = Process::spawn("client-probe", command, self.lab.run.log("client-probe"))?;
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
        self.lab.run.folder().join("attempts.jsonl")
    }

    /// Scripts that run a command on a machine, or on a router's command line.
    fn write_shortcuts(&self) -> Result<()> {
        let folder = self.lab.run.folder().join("bin");
        fs::create_dir_all(&folder).map_err(Error::path(&folder))?;
        for (host, namespace) in self.lab.topology.namespaces() {
            script(&folder.join(host), &format!("exec ip netns exec {} \"$@\"", namespace.name()))?;
        }
        for router in &self.lab.routers {
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
    let ready = line.starts_with("BIRD ") && line.ends_with(" ready.");
    let counters = ["BGP table", "RIB entries", "Peers ", "Peer groups", "Total number", "Displayed"];
    let internals = ["device1 ", "kernel_v4 ", "kernel_v6 "];
    let beside = counters.iter().chain(&internals).any(|start| line.starts_with(start));
    line.trim().is_empty() || ready || beside
}
