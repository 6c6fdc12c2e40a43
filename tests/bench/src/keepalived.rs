//! keepalived (VRRP, RFC 9568) on the nodes of a subnet, from its Debian package, as the peer of failovers: one virtual
//! router for each family, timers and rules at their defaults, the first node with the highest priority.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use lab::{PATIENCE, Process, command};

use crate::subnet::{Announcer, Subnet};

const PROGRAM: &str = "/usr/sbin/keepalived";
/// Beside the addresses of the pools.
const V4: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 200);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 1, 0, 0, 0, 0, 0x200);
/// The first address of an IPv6 virtual router is link-local (RFC 9568 §5.2.9).
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x5200);
/// The default of keepalived; the next nodes have less.
const PRIORITY: usize = 100;

/// A keepalived on every node.
#[derive(Debug)]
pub(crate) struct Keepalived {
    processes: BTreeMap<String, Process>,
}

impl Keepalived {
    /// Its addresses.
    pub(crate) const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];

    /// The version as it says itself; installs the package where it is missing.
    pub(crate) fn version() -> Result<String> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("bench: keepalived is missing: installing it from Debian's packages");
            install()?;
        }
        // It goes to standard error.
        let said = command::outcome_with_input(Command::new(PROGRAM).arg("--version"), "")?;
        let text = said.stderr + &said.stdout;
        // "Keepalived v2.2.7 (01/16,2022)"
        let version = text.split_whitespace().nth(1).and_then(|word| word.strip_prefix('v'));
        Ok(version.with_context(|| format!("no version in {text:?}"))?.to_owned())
    }

    /// Starts one on every node, and waits until one of them has each address.
    pub(crate) fn start_all(subnet: &mut Subnet) -> Result<Self> {
        let mut keepalived = Self { processes: BTreeMap::new() };
        for node in subnet.topology.nodes.clone() {
            keepalived.start(subnet, &node.name)?;
        }
        let first = subnet.topology.nodes.first().context("the subnet has nodes")?.name.clone();
        for address in Self::ADDRESSES {
            subnet.wait_at(address, &first)?;
        }
        Ok(keepalived)
    }

    /// Ends all in order, which takes the addresses from the nodes.
    pub(crate) fn stop_all(mut self) -> Result<()> {
        self.processes.values_mut().try_for_each(|process| process.terminate(PATIENCE).map(drop))?;
        Ok(())
    }
}

impl Announcer for Keepalived {
    fn kill(&mut self, _: &mut Subnet, node: &str) -> Result<()> {
        let process = self.processes.get_mut(node).with_context(|| format!("no keepalived on {node}"))?;
        Ok(process.kill_group()?)
    }

    fn start(&mut self, subnet: &mut Subnet, node: &str) -> Result<()> {
        let number = subnet.topology.nodes.iter().position(|it| it.name == node);
        let priority = PRIORITY - number.with_context(|| format!("there is no node {node}"))?;
        let folder = subnet.run.folder().join(format!("keepalived-{node}"));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let file = folder.join("keepalived.conf");
        fs::write(&file, configuration(priority)).with_context(|| file.display().to_string())?;
        let mut program = subnet.node(node)?.namespace.command(PROGRAM);
        program.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]).arg("--use-file").arg(&file);
        program.arg("--pid").arg(folder.join("pid")).arg("--vrrp_pid").arg(folder.join("vrrp.pid"));
        let name = format!("{node}-keepalived");
        let process = Process::spawn(&name, program, subnet.run.log(&name))?;
        self.processes.insert(node.to_owned(), process);
        Ok(())
    }

    fn is_its(&self, address: IpAddr) -> bool {
        Self::ADDRESSES.contains(&address) || address == IpAddr::V6(LINK_LOCAL)
    }
}

/// Everything that is not needed to tell the nodes and the addresses apart is left at its default.
fn configuration(priority: usize) -> String {
    let instance = |name: &str, router: u8, addresses: &str| {
        format!(
            "vrrp_instance {name} {{\n  interface eth0\n  virtual_router_id {router}\n  priority {priority}\n  \
             virtual_ipaddress {{\n{addresses}  }}\n}}\n"
        )
    };
    let v6 = format!("    {LINK_LOCAL}/64\n    {V6}/64\n");
    instance("V4", 51, &format!("    {V4}/24\n")) + &instance("V6", 52, &v6)
}

/// What `make bench` does, for whoever starts the benchmark without it.
fn install() -> Result<()> {
    let script = lab::cluster::source_root().join("tests/tools/install.sh");
    let outcome = command::outcome_with_input(Command::new(script).arg("keepalived"), "")?;
    if !outcome.success || !Path::new(PROGRAM).exists() {
        bail!("apt install keepalived: {}", outcome.stderr.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_addresses_and_priorities_are_configured() {
        let text = configuration(99);
        assert_eq!(text.matches("priority 99").count(), 2);
        assert!(text.contains("172.30.1.200/24") && text.contains("fd00:30:1::200/64"), "{text}");
        assert!(!text.contains("advert_int") && !text.contains("garp"), "{text}");
    }
}
