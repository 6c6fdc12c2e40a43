//! BIRD 2.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use lab::{Process, command};

use super::{Software, Values, wait_answer, write};
use crate::wire::{Family, Pair};

const CONFIGURATION: &str = "\
router id {router_id};
log stderr all;
protocol device { }
template bgp one {
    local {speaker} as {speaker_as};
    passive yes;
}
protocol bgp feeder from one {
    neighbor {feeder} as {feeder_as};
    {ipv} { import all; export none; };
}
protocol bgp sink from one {
    neighbor {sink} as {sink_as};
    {ipv} { import none; export all; };
}
";

pub(super) struct Bird;

impl Software for Bird {
    fn name(&self) -> &'static str {
        "BIRD"
    }

    fn package(&self) -> &'static str {
        "bird2"
    }

    fn program(&self) -> &'static str {
        "/usr/sbin/bird"
    }

    fn version(&self) -> Result<String> {
        // "BIRD version 2.0.12", on standard error.
        let said = command::outcome_with_input(Command::new(self.program()).arg("--version"), "")?;
        Ok(format!("{}{}", said.stdout, said.stderr).replace("BIRD version", "").trim().to_owned())
    }

    fn start(&self, pair: &Pair, folder: &Path, family: Family) -> Result<Vec<Process>> {
        let configuration = folder.join("bird.conf");
        write(&configuration, &Values::new(folder, family).fill(CONFIGURATION))?;
        let mut bird = pair.speaker.command(self.program());
        bird.arg("-f").arg("-c").arg(&configuration).arg("-s").arg(folder.join("ctl"));
        let mut process = Process::spawn("bird", bird, pair.run.log("bird"))?;
        wait_answer(&mut process, || birdc(folder, "show status"))?;
        Ok(vec![process])
    }

    fn prefixes(&self, _: &Pair, folder: &Path, family: Family) -> Result<usize> {
        let table = if family == Family::Ipv4 { "master4" } else { "master6" };
        let shown = command::run(&mut birdc(folder, &format!("show route table {table} count")))?;
        // "100000 of 100000 routes for 100000 networks in table master4"
        let words = shown.lines().find(|line| line.contains("networks in table"));
        let count = words.and_then(|line| line.split_whitespace().next()?.parse().ok());
        count.with_context(|| format!("birdc show route count said {shown}"))
    }
}

fn birdc(folder: &Path, words: &str) -> Command {
    let mut birdc = Command::new("birdc");
    birdc.arg("-s").arg(folder.join("ctl")).args(words.split(' '));
    birdc
}
