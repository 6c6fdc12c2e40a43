//! BIRD 2 in a namespace, with its control socket in a folder of the run, asked through `birdc`.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use ipnet::IpNet;

use super::{Family, RouterConfig, Session};
use crate::{Error, Host, PATIENCE, Process, Result, Run, command, until};

const TEMPLATE: &str = include_str!("../../routers/bird.conf");

pub(super) const SESSIONS_WORDS: &str = "show protocols";

/// How birdc says, as an error, that a table has no such prefix.
const UNKNOWN: &str = "Network not found";

pub(super) fn route_words(prefix: IpNet) -> String {
    format!("show route {prefix}")
}

#[derive(Debug)]
pub(super) struct Bird {
    socket: PathBuf,
    daemon: Process,
}

impl Bird {
    pub(super) fn start(run: &Run, host: &Host, folder: &Path, config: &RouterConfig) -> Result<Self> {
        let configuration = folder.join("bird.conf");
        super::write(&configuration, &super::render(TEMPLATE, &host.name, host.addresses.v4, config))?;
        let bird = super::daemon("/usr/sbin/bird", "bird2")?;
        command::run(Command::new(bird).arg("-p").arg("-c").arg(&configuration))?;
        let socket = folder.join("bird.ctl");
        let mut command = host.namespace.command(bird);
        command.arg("-f").arg("-c").arg(&configuration).arg("-s").arg(&socket);
        command.arg("-P").arg(folder.join("bird.pid"));
        let name = format!("{}-bird", host.name);
        let log = run.log(&name);
        let mut bird = Self { socket, daemon: Process::spawn(name, command, log)? };
        until(format!("{} to answer", bird.socket.display()), PATIENCE, || {
            bird.daemon.check_running()?;
            super::run_cli(&mut bird.cli("show status"))
        })?;
        Ok(bird)
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.daemon
    }

    pub(super) fn cli(&self, words: &str) -> Command {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(&self.socket).args(words.split_whitespace());
        birdc
    }

    fn ask(&self, words: &str) -> Result<String> {
        super::run_cli(&mut self.cli(words))
    }

    pub(super) fn version(&self) -> Result<String> {
        let shown = self.ask("show status")?;
        // "BIRD 2.0.12 ready."
        let first = shown.lines().next().unwrap_or_default();
        Ok(first.trim_end_matches(" ready.").to_owned())
    }

    pub(super) fn next_hops(&self, prefix: IpNet) -> Result<BTreeSet<IpAddr>> {
        match self.ask(&route_words(prefix)) {
            Err(Error::Command { stderr, .. }) if stderr.ends_with(UNKNOWN) => Ok(BTreeSet::new()),
            answer => Ok(next_hops(&answer?)),
        }
    }

    pub(super) fn sessions(&self) -> Result<Vec<Session>> {
        Ok(sessions(&self.ask("show protocols all")?))
    }

    pub(super) fn prefix_count(&self, family: Family) -> Result<usize> {
        let table = if family == Family::Ipv4 { "master4" } else { "master6" };
        let shown = self.ask(&format!("show route table {table} count"))?;
        networks(&shown).ok_or_else(|| Error::parse("birdc show route count", shown))
    }
}

/// From `show route PREFIX`: every path's `via ADDRESS on INTERFACE`.
fn next_hops(shown: &str) -> BTreeSet<IpAddr> {
    let vias = shown.lines().filter_map(|line| line.trim().strip_prefix("via "));
    vias.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
}

/// From `show protocols all`: state and neighbour of each BGP protocol that has a neighbour.
fn sessions(shown: &str) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut state = None;
    for line in shown.lines() {
        if let Some(found) = line.trim().strip_prefix("BGP state:") {
            state = Some(found.trim().to_owned());
        }
        if let Some(address) = line.trim().strip_prefix("Neighbor address:")
            && let Ok(peer) = address.trim().parse()
            && let Some(state) = state.take()
        {
            sessions.push(Session { peer, state });
        }
    }
    sessions
}

/// From "30 of 30 routes for 10 networks in table master4": the networks.
fn networks(shown: &str) -> Option<usize> {
    let line = shown.lines().find(|line| line.contains(" networks in table"))?;
    line.split(" for ").nth(1)?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_of_all_paths_are_read() {
        let shown = "BIRD 2.0.12 ready.\nTable master4:\n192.0.2.1/32         unicast [n1 09:41:37.123] * (100) \
                     [AS64512i]\n\tvia 172.30.1.11 on eth0\n                     unicast [n2 09:41:37.123] (100) \
                     [AS64512i]\n\tvia 172.30.1.12 on eth0\n";
        let expected = ["172.30.1.11", "172.30.1.12"].map(|hop| hop.parse().unwrap());
        assert_eq!(next_hops(shown), BTreeSet::from(expected));
    }

    #[test]
    fn networks_are_counted_not_routes() {
        assert_eq!(networks("BIRD ready.\n30 of 30 routes for 10 networks in table master4\n"), Some(10));
        assert_eq!(networks("BIRD ready.\n"), None);
    }
}
