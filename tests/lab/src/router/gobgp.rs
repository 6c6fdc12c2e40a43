//! GoBGP in a namespace, asked through `gobgp` and its JSON. It puts nothing into a kernel, which a script does from what
//! it tells of its best paths: a prefix has one next hop, whatever it knows.

use std::{collections::BTreeSet, net::IpAddr, path::Path, process::Command};

use ipnet::IpNet;
use serde_json::Value;

use super::{Family, RouterConfig, Session};
use crate::{Error, Host, Namespace, PATIENCE, Process, Result, Run, command, until};

const TEMPLATE: &str = include_str!("../../routers/gobgpd.toml");
const FIB: &str = include_str!("../../routers/gobgp-fib.sh");

pub(super) const SESSIONS_WORDS: &str = "neighbor";

pub(super) fn route_words(prefix: IpNet) -> String {
    format!("global rib {prefix} -a {}", word(Family::of(prefix)))
}

#[derive(Debug)]
pub(super) struct GoBgp {
    namespace: Namespace,
    daemon: Process,
    _fib: Vec<Process>,
}

impl GoBgp {
    pub(super) fn start(run: &Run, host: &Host, folder: &Path, config: &RouterConfig) -> Result<Self> {
        let (configuration, script) = (folder.join("gobgpd.toml"), folder.join("fib.sh"));
        super::write(&configuration, &super::render(TEMPLATE, &host.name, host.addresses.v4, config))?;
        super::write(&script, FIB)?;
        let mut command = host.namespace.command(super::daemon("/usr/bin/gobgpd", "gobgpd")?);
        command.arg("-f").arg(&configuration).arg("--pprof-disable");
        let name = format!("{}-gobgpd", host.name);
        let log = run.log(&name);
        let daemon = Process::spawn(name, command, log)?;
        let mut gobgp = Self { namespace: host.namespace.clone(), daemon, _fib: Vec::new() };
        until(format!("gobgpd of {} to answer", host.name), PATIENCE, || {
            gobgp.daemon.check_running()?;
            super::run_cli(&mut gobgp.cli("global"))
        })?;
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut shell = host.namespace.command("/bin/sh");
            shell.arg(&script).arg(word(family));
            let name = format!("{}-fib-{}", host.name, word(family));
            let log = run.log(&name);
            gobgp._fib.push(Process::spawn(name, shell, log)?);
        }
        Ok(gobgp)
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.daemon
    }

    pub(super) fn cli(&self, words: &str) -> Command {
        let mut gobgp = self.namespace.command("gobgp");
        gobgp.args(words.split_whitespace());
        gobgp
    }

    fn json(&self, words: &str) -> Result<Value> {
        let shown = super::run_cli(self.cli(words).arg("-j"))?;
        serde_json::from_str(&shown).map_err(|error| Error::parse(format!("gobgp {words}"), error))
    }

    pub(super) fn version(&self) -> Result<String> {
        // "gobgpd version 3.10.0"
        let said = command::run(Command::new("/usr/bin/gobgpd").arg("--version"))?;
        Ok(said.trim().replace("gobgpd version", "GoBGP"))
    }

    pub(super) fn next_hops(&self, prefix: IpNet) -> Result<BTreeSet<IpAddr>> {
        match self.json(&route_words(prefix)) {
            Err(Error::Command { stderr, .. }) if stderr.contains("not in table") => Ok(BTreeSet::new()),
            answer => Ok(best_next_hop(&answer?, prefix).into_iter().collect()),
        }
    }

    pub(super) fn sessions(&self) -> Result<Vec<Session>> {
        Ok(sessions(&self.json(SESSIONS_WORDS)?))
    }

    pub(super) fn prefix_count(&self, family: Family) -> Result<usize> {
        let shown = super::run_cli(&mut self.cli(&format!("global rib summary -a {}", word(family))))?;
        destinations(&shown).ok_or_else(|| Error::parse("gobgp global rib summary", shown))
    }
}

const fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

/// Of the first path, which is the best: NEXT_HOP, or that of MP_REACH_NLRI, by their numbers on the wire.
fn best_next_hop(shown: &Value, prefix: IpNet) -> Option<IpAddr> {
    let attributes = shown.get(prefix.to_string())?.get(0)?.get("attrs")?.as_array()?;
    let hop = |code: u8| attributes.iter().find(|attribute| attribute["type"] == code);
    hop(3).or_else(|| hop(14))?["nexthop"].as_str()?.parse().ok()
}

/// From `neighbor -j`: states are numbers of the OpenConfig model.
fn sessions(shown: &Value) -> Vec<Session> {
    let names = ["unknown", "Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"];
    let session = |neighbor: &Value| {
        let peer = neighbor.pointer("/state/neighbor_address")?.as_str()?.parse().ok()?;
        let state = neighbor.pointer("/state/session_state").and_then(Value::as_u64).unwrap_or_default();
        let state = usize::try_from(state).ok().and_then(|at| names.get(at)).unwrap_or(&"unknown");
        Some(Session { peer, state: (*state).to_owned() })
    };
    shown.as_array().into_iter().flatten().filter_map(session).collect()
}

/// From "Table afi:AFI_IP safi:SAFI_UNICAST\nDestination: 10, Path: 30": the destinations.
fn destinations(shown: &str) -> Option<usize> {
    shown.split("Destination:").nth(1)?.split(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_best_path_is_the_first_in_either_family() {
        for (prefix, code, hop) in
            [("192.0.2.1/32", 3, "172.30.1.11"), ("2001:db8::1/128", 14, "fd00:30:1::b")]
        {
            let path = |hop: &str| json!({ "attrs": [{ "type": 1 }, { "type": code, "nexthop": hop }] });
            let shown = json!({ prefix: [path(hop), path("192.0.2.99")] });
            assert_eq!(best_next_hop(&shown, prefix.parse().unwrap()), Some(hop.parse().unwrap()));
        }
        assert_eq!(best_next_hop(&json!({}), "192.0.2.1/32".parse().unwrap()), None);
    }

    #[test]
    fn sessions_and_destinations_are_read() {
        let shown = json!([
            { "state": { "neighbor_address": "172.30.1.11", "session_state": 6 } },
            { "state": { "neighbor_address": "172.30.1.12" } },
        ]);
        let sessions = sessions(&shown);
        assert!(sessions[0].is_established() && sessions[1].state == "unknown", "{sessions:?}");
        let shown = "Table afi:AFI_IP safi:SAFI_UNICAST\nDestination: 10, Path: 30\n";
        assert_eq!(destinations(shown), Some(10));
    }
}
