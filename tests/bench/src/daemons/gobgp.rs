//! GoBGP.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use lab::{Process, command};

use super::{Software, Values, wait_answer, write};
use crate::wire::{Family, Pair};

const CONFIGURATION: &str = r#"
[global.config]
as = {speaker_as}
router-id = "{router_id}"
local-address-list = ["{speaker}"]

[[neighbors]]
[neighbors.config]
neighbor-address = "{feeder}"
peer-as = {feeder_as}
[neighbors.transport.config]
passive-mode = true
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "{ipv}-unicast"

[[neighbors]]
[neighbors.config]
neighbor-address = "{sink}"
peer-as = {sink_as}
[neighbors.transport.config]
passive-mode = true
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "{ipv}-unicast"
"#;

pub(super) struct GoBgp;

impl Software for GoBgp {
    fn name(&self) -> &'static str {
        "GoBGP"
    }

    fn package(&self) -> &'static str {
        "gobgpd"
    }

    fn program(&self) -> &'static str {
        "/usr/bin/gobgpd"
    }

    fn version(&self) -> Result<String> {
        // "gobgpd version 3.10.0"
        let said = command::run(Command::new(self.program()).arg("--version"))?;
        Ok(said.replace("gobgpd version", "").trim().to_owned())
    }

    fn start(&self, pair: &Pair, folder: &Path, family: Family) -> Result<Vec<Process>> {
        let configuration = folder.join("gobgpd.toml");
        write(&configuration, &Values::new(folder, family).fill(CONFIGURATION))?;
        let mut gobgpd = pair.speaker.command(self.program());
        gobgpd.arg("-f").arg(&configuration).args(["--log-level", "warn", "--pprof-disable"]);
        let mut process = Process::spawn("gobgpd", gobgpd, pair.run.log("gobgpd"))?;
        wait_answer(&mut process, || gobgp(pair, &["global"]))?;
        Ok(vec![process])
    }

    fn prefixes(&self, pair: &Pair, folder: &Path, family: Family) -> Result<usize> {
        let version = Values::new(folder, family).version;
        let shown = command::run(&mut gobgp(pair, &["global", "rib", "summary", "-a", version]))?;
        // "Table ipv4-unicast\nDestination: 100000, Path: 100000"
        let count =
            shown.split("Destination:").nth(1).and_then(|rest| rest.split(',').next()?.trim().parse().ok());
        count.with_context(|| format!("gobgp global rib summary said {shown}"))
    }
}

fn gobgp(pair: &Pair, words: &[&str]) -> Command {
    let mut gobgp = pair.speaker.command("gobgp");
    gobgp.args(words);
    gobgp
}
