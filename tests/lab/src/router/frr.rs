//! FRR in a namespace: `zebra` and `bgpd` under their own user, with their sockets in a folder of the run
//! (`--vty_socket`), asked through `vtysh` and its JSON.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use ipnet::IpNet;
use serde_json::Value;

use super::{Family, RouterConfig, Session};
use crate::{Error, Host, PATIENCE, Process, Result, Run, command, until};

const TEMPLATE: &str = include_str!("../../routers/frr.conf");
const USER: &str = "frr";

pub(super) const SESSIONS_WORDS: &str = "show bgp summary established";

pub(super) fn route_words(prefix: IpNet) -> String {
    match prefix {
        IpNet::V4(_) => format!("show ip route {prefix}"),
        IpNet::V6(_) => format!("show ipv6 route {prefix}"),
    }
}

#[derive(Debug)]
pub(super) struct Frr {
    folder: PathBuf,
    daemons: Vec<Process>,
}

impl Frr {
    pub(super) fn start(run: &Run, host: &Host, folder: &Path, config: &RouterConfig) -> Result<Self> {
        let mut frr = Self { folder: folder.to_owned(), daemons: Vec::new() };
        super::write(&folder.join("empty.conf"), "")?;
        super::write(&folder.join("vtysh.conf"), "no service integrated-vtysh-config\n")?;
        let configuration = folder.join("frr.conf");
        super::write(&configuration, &super::render(TEMPLATE, &host.name, host.addresses.v4, config))?;
        command::run(Command::new("chown").arg("-R").arg(USER).arg(folder))?;
        for daemon in ["zebra", "bgpd"] {
            frr.start_daemon(run, host, daemon)?;
        }
        command::run(frr.vtysh().arg("-f").arg(&configuration))?;
        Ok(frr)
    }

    fn start_daemon(&mut self, run: &Run, host: &Host, daemon: &'static str) -> Result<()> {
        let path = match daemon {
            "zebra" => super::daemon("/usr/lib/frr/zebra", "frr")?,
            _ => super::daemon("/usr/lib/frr/bgpd", "frr")?,
        };
        let file = |name: String| self.folder.join(name);
        let mut command = host.namespace.command(path);
        command.arg("--config_file").arg(file("empty.conf".into()));
        command.arg("--pid_file").arg(file(format!("{daemon}.pid")));
        command.arg("--socket").arg(file("zserv.api".into()));
        command.arg("--vty_socket").arg(&self.folder);
        command.args(["--vty_port", "0", "--log", "stdout"]);
        let name = format!("{}-{daemon}", host.name);
        let log = run.log(&name);
        let mut process = Process::spawn(name, command, log)?;
        let socket = self.folder.join(format!("{daemon}.vty"));
        until(format!("{} to listen", socket.display()), PATIENCE, || {
            process.check_running()?;
            crate::require!(socket.exists(), "no such socket yet");
            command::run(self.vtysh().args(["-d", daemon, "-c", "show version"]))
        })?;
        self.daemons.push(process);
        Ok(())
    }

    fn vtysh(&self) -> Command {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(&self.folder).arg("--config_dir").arg(&self.folder);
        vtysh
    }

    pub(super) fn cli(&self, words: &str) -> Command {
        let mut vtysh = self.vtysh();
        vtysh.args(["-c", words]);
        vtysh
    }

    fn json(&self, words: &str) -> Result<Value> {
        let shown = super::run_cli(&mut self.cli(&format!("{words} json")))?;
        serde_json::from_str(&shown).map_err(|error| Error::parse(format!("vtysh -c '{words} json'"), error))
    }

    pub(super) fn version(&self) -> Result<String> {
        let shown = super::run_cli(&mut self.cli("show version"))?;
        let first = shown.lines().next().unwrap_or_default();
        // "FRRouting 8.4.4 (router1)."
        Ok(first.split(" (").next().unwrap_or(first).to_owned())
    }

    pub(super) fn next_hops(&self, prefix: IpNet) -> Result<BTreeSet<IpAddr>> {
        Ok(installed_next_hops(&self.json(&route_words(prefix))?, prefix))
    }

    pub(super) fn sessions(&self) -> Result<Vec<Session>> {
        sessions(&self.json("show bgp summary")?)
    }

    pub(super) fn prefix_count(&self, family: Family) -> Result<usize> {
        // Not the summary's `ribCount`: that counts the inner nodes of the table's tree, too.
        let (words, key) = match family {
            Family::Ipv4 => ("show bgp ipv4 unicast statistics", "/ipv4Unicast/0/totalPrefixes"),
            Family::Ipv6 => ("show bgp ipv6 unicast statistics", "/ipv6Unicast/0/totalPrefixes"),
        };
        let shown = self.json(words)?;
        let count = shown.pointer(key).and_then(Value::as_u64);
        let count = count.ok_or_else(|| Error::parse("vtysh", format!("no {key} in {shown}")))?;
        usize::try_from(count).map_err(|error| Error::parse("vtysh", error))
    }

    pub(super) fn processes(&mut self) -> Vec<&mut Process> {
        self.daemons.iter_mut().collect()
    }
}

/// The next hops that zebra selected and installed, from `show ip route PREFIX json`.
fn installed_next_hops(shown: &Value, prefix: IpNet) -> BTreeSet<IpAddr> {
    let routes = shown.get(prefix.to_string()).and_then(Value::as_array).into_iter().flatten();
    let selected = routes.filter(|route| is_true(route, "selected"));
    let hops = selected.filter_map(|route| route.get("nexthops").and_then(Value::as_array)).flatten();
    let installed = hops.filter(|hop| is_true(hop, "fib"));
    installed.filter_map(|hop| hop.get("ip").and_then(Value::as_str)?.parse().ok()).collect()
}

fn is_true(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The sessions of all families, each once, from `show bgp summary json`.
fn sessions(shown: &Value) -> Result<Vec<Session>> {
    let families = shown.as_object().into_iter().flatten();
    let peers = families.filter_map(|(_, family)| family.get("peers").and_then(Value::as_object)).flatten();
    let mut sessions = Vec::<Session>::new();
    for (address, details) in peers {
        let peer = address.parse().map_err(|error| Error::parse("show bgp summary json", error))?;
        let state = details.get("state").and_then(Value::as_str).unwrap_or("unknown");
        if !sessions.iter().any(|session| session.peer == peer) {
            sessions.push(Session { peer, state: state.to_owned() });
        }
    }
    Ok(sessions)
}
