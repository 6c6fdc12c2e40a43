//! OpenBGPD.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context as _, Result};
use lab::{Process, command};

use super::{Software, Values, wait_answer, write};
use crate::wire::{Family, Pair};

const CONFIGURATION: &str = r#"
AS {speaker_as}
router-id {router_id}
listen on {speaker}
socket "{folder}/bgpd.sock"
fib-update no
neighbor {feeder} {
    remote-as {feeder_as}
    passive
    announce IPv4 unicast
    announce IPv6 unicast
}
neighbor {sink} {
    remote-as {sink_as}
    passive
    announce IPv4 unicast
    announce IPv6 unicast
}
allow from any
allow to {sink}
"#;

/// The home of its user in Debian.
const CHROOT: &str = "/run/openbgpd";

pub(super) struct OpenBgpd;

impl Software for OpenBgpd {
    fn name(&self) -> &'static str {
        "OpenBGPD"
    }

    fn package(&self) -> &'static str {
        "openbgpd"
    }

    fn program(&self) -> &'static str {
        "/usr/sbin/bgpd"
    }

    fn version(&self) -> Result<String> {
        // "OpenBGPD 7.7", on standard error.
        let said = command::outcome_with_input(Command::new(self.program()).arg("-V"), "")?;
        Ok(format!("{}{}", said.stdout, said.stderr).replace("OpenBGPD", "").trim().to_owned())
    }

    fn start(&self, pair: &Pair, folder: &Path, family: Family) -> Result<Vec<Process>> {
        // Its processes lock themselves into this folder, which else its system service makes.
        fs::create_dir_all(CHROOT).context(CHROOT)?;
        let configuration = folder.join("bgpd.conf");
        write(&configuration, &Values::new(folder, family).fill(CONFIGURATION))?;
        // It refuses a configuration that others can read.
        fs::set_permissions(&configuration, fs::Permissions::from_mode(0o600))?;
        let mut bgpd = pair.speaker.command(self.program());
        bgpd.arg("-d").arg("-f").arg(&configuration);
        let mut process = Process::spawn("openbgpd", bgpd, pair.run.log("openbgpd"))?;
        wait_answer(&mut process, || bgpctl(folder, &["show", "summary"]))?;
        Ok(vec![process])
    }

    fn prefixes(&self, _: &Pair, folder: &Path, family: Family) -> Result<usize> {
        let shown = command::run(&mut bgpctl(folder, &["show", "rib", "memory"]))?;
        let version = if family == Family::Ipv4 { "IPv4 unicast" } else { "IPv6 unicast" };
        // "    100000 IPv4 unicast network entries using 3.8M of memory"
        let line = shown.lines().find(|line| line.contains(version));
        let Some(line) = line else { return Ok(0) };
        let count = line.split_whitespace().next().and_then(|word| word.parse().ok());
        count.with_context(|| format!("bgpctl show rib memory said {shown}"))
    }
}

fn bgpctl(folder: &Path, words: &[&str]) -> Command {
    let mut bgpctl = Command::new("bgpctl");
    bgpctl.arg("-s").arg(folder.join("bgpd.sock")).args(words);
    bgpctl
}
