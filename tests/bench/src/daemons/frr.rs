//! FRR: `bgpd`, with `zebra` for the resolution of next hops; nothing goes into the kernel. Its timer that gathers
//! routes for up to a second before the first table goes out (`coalesce-time`) is off: without it it is faster.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use lab::{Process, command};
use serde_json::Value;

use super::{Software, Values, wait_answer, write};
use crate::wire::{Family, Pair};

const CONFIGURATION: &str = "\
router bgp {speaker_as}
 bgp router-id {router_id}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 coalesce-time 0
 neighbor {feeder} remote-as {feeder_as}
 neighbor {feeder} passive
 neighbor {sink} remote-as {sink_as}
 neighbor {sink} passive
 address-family {ipv} unicast
  neighbor {feeder} activate
  neighbor {feeder} route-map nothing out
  neighbor {sink} activate
 exit-address-family
exit
route-map nothing deny 10
exit
";

pub(super) struct Frr;

impl Software for Frr {
    fn name(&self) -> &'static str {
        "FRR"
    }

    fn package(&self) -> &'static str {
        "frr"
    }

    fn program(&self) -> &'static str {
        "/usr/lib/frr/bgpd"
    }

    fn version(&self) -> Result<String> {
        // "bgpd version 8.4.4"
        let said = command::run(Command::new(self.program()).arg("--version"))?;
        Ok(said.lines().next().unwrap_or_default().replace("bgpd version", "").trim().to_owned())
    }

    fn start(&self, pair: &Pair, folder: &Path, family: Family) -> Result<Vec<Process>> {
        write(&folder.join("empty.conf"), "")?;
        write(&folder.join("vtysh.conf"), "no service integrated-vtysh-config\n")?;
        let configuration = folder.join("frr.conf");
        write(&configuration, &Values::new(folder, family).fill(CONFIGURATION))?;
        command::run(Command::new("chown").args(["-R", "frr"]).arg(folder))?;
        let mut processes = Vec::new();
        for (daemon, arguments) in [("zebra", &[][..]), ("bgpd", &["--no_kernel"])] {
            let mut command = pair.speaker.command(format!("/usr/lib/frr/{daemon}"));
            command.arg("--config_file").arg(folder.join("empty.conf")).args(arguments);
            command.arg("--pid_file").arg(folder.join(format!("{daemon}.pid")));
            command.arg("--socket").arg(folder.join("zserv.api"));
            command.arg("--vty_socket").arg(folder).args(["--vty_port", "0", "--log", "stdout"]);
            let mut process = Process::spawn(daemon, command, pair.run.log(daemon))?;
            wait_answer(&mut process, || {
                let mut ask = vtysh(folder);
                ask.args(["-d", daemon, "-c", "show version"]);
                ask
            })?;
            processes.push(process);
        }
        command::run(vtysh(folder).arg("-f").arg(&configuration))?;
        Ok(processes)
    }

    fn prefixes(&self, _: &Pair, folder: &Path, family: Family) -> Result<usize> {
        // Not the summary's `ribCount`: that counts the inner nodes of the table's tree, too.
        let words = format!("show bgp {} unicast statistics json", Values::new(folder, family).version);
        let key = if family == Family::Ipv4 { "ipv4Unicast" } else { "ipv6Unicast" };
        let shown = command::run(vtysh(folder).args(["-c", &words]))?;
        let shown = serde_json::from_str::<Value>(&shown).context("vtysh show bgp statistics json")?;
        let count = shown.pointer(&format!("/{key}/0/totalPrefixes")).and_then(Value::as_u64);
        Ok(count.map(usize::try_from).with_context(|| format!("vtysh -c '{words}' said {shown}"))??)
    }
}

fn vtysh(folder: &Path) -> Command {
    let mut vtysh = Command::new("vtysh");
    vtysh.arg("--vty_socket").arg(folder).arg("--config_dir").arg(folder);
    vtysh
}
