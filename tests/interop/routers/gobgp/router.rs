//! GoBGP, asked through `gobgp` and its JSON.

use std::{collections::BTreeSet, process::Command};

use bgp::{
    notification::{Code, OPEN_BAD_PEER_AS},
    types::Family,
};
use ipnet::IpNet;
use lab::{Error, Process, Result, command, PATIENCE};
use serde_json::Value;

use super::{Place, Route, Router, require_installed, wait_answer};

pub(super) const TITLE: &str = "GoBGP";
const DAEMON: &str = "/usr/bin/gobgpd";
const LOG: &str = "gobgpd";

pub(super) fn version() -> Result<String> {
    require_installed(DAEMON)?;
    // "gobgpd version 3.10.0"
    let said = command::run(Command::new(DAEMON).arg("--version"))?;
    Ok(said.replace("gobgpd version", "").trim().to_owned())
}

pub(super) fn start(place: Place) -> Result<Box<dyn Router>> {
    place.write("gobgpd.toml", include_str!("gobgpd.toml"))?;
    let process = spawn(&place)?;
    let fib = if place.values.is("forwards")? { spawn_fib(&place)? } else { Vec::new() };
    Ok(Box::new(GoBgp { place, process, _fib: fib }))
}

/// What forwards, of each family.
fn spawn_fib(place: &Place) -> Result<Vec<Process>> {
    let script = place.write("fib.sh", include_str!("fib.sh"))?;
    let spawn = |family: &Family| {
        let mut shell = place.program("/bin/sh")?;
        shell.arg("-x").arg(&script).arg(word(*family));
        place.spawn(&format!("fib-{}", word(*family)), shell)
    };
    Family::ALL.iter().map(spawn).collect()
}

fn spawn(place: &Place) -> Result<Process> {
    let mut gobgpd = place.program(DAEMON)?;
    gobgpd.arg("-f").arg(place.folder.join("gobgpd.toml"));
    // What NOTIFICATIONs went and came is said in its log alone.
    gobgpd.args(["--log-level", "info", "--pprof-disable"]);
    let mut process = place.spawn(LOG, gobgpd)?;
    wait_answer(&mut process, || gobgp(place, &["global"]))?;
    Ok(process)
}

fn gobgp(place: &Place, words: &[&str]) -> Command {
    let mut gobgp = place.namespace.command("gobgp");
    gobgp.args(words);
    gobgp
}

struct GoBgp {
    place: Place,
    process: Process,
    _fib: Vec<Process>,
}

impl GoBgp {
    fn ask(&self, words: &[&str]) -> Result<Value> {
        let shown = command::run(gobgp(&self.place, words).arg("-j"))?;
        serde_json::from_str(&shown)
            .map_err(|error| Error::parse(format!("gobgp {}", words.join(" ")), error))
    }

    fn neighbor(&self) -> Result<Value> {
        self.ask(&["neighbor", &self.place.speaker.to_string()])
    }

    fn tell(&self, words: &[&str]) -> Result<()> {
        let speaker = self.place.speaker.to_string();
        command::run(&mut gobgp(&self.place, &[&["neighbor", &speaker], words].concat())).map(drop)
    }

    /// Whether its log has an entry with this message about which the rest holds.
    fn has_logged(&self, message: &str, is_it: impl Fn(&Value) -> bool) -> bool {
        let log = lab::process::tail(&self.place.log(LOG), usize::MAX);
        let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["msg"] == message).any(|entry| is_it(&entry))
    }
}

impl Router for GoBgp {
    fn session_state(&self) -> Result<String> {
        let state =
            self.neighbor()?["state"]["session_state"].as_u64().and_then(|at| usize::try_from(at).ok());
        let names = ["unknown", "idle", "connect", "active", "opensent", "openconfirm", "established"];
        Ok(state.and_then(|at| names.get(at).copied()).unwrap_or("unknown").to_owned())
    }

    fn route(&self, prefix: IpNet) -> Result<Option<Route>> {
        let prefix_words = prefix.to_string();
        let shown = self.ask(&["global", "rib", &prefix_words, "-a", word(Family::of(&prefix))])?;
        shown.get(&prefix_words).and_then(|paths| paths.get(0)).map(route).transpose()
    }

    fn prefix_count(&self, family: Family) -> Result<usize> {
        let shown = command::run(&mut gobgp(&self.place, &["global", "rib", "summary", "-a", word(family)]))?;
        // "Table afi:AFI_IP safi:SAFI_UNICAST\nDestination: 100000, Path: 100000"
        let count =
            shown.split("Destination:").nth(1).and_then(|rest| rest.split(',').next()?.trim().parse().ok());
        count.ok_or_else(|| Error::parse("gobgp global rib summary", shown))
    }

    fn has_end_of_rib(&self, family: Family) -> Result<bool> {
        let neighbor = self.neighbor()?;
        let of = |entry: &&Value| entry["config"]["family"]["afi"] == family.afi();
        let entry = neighbor["afi_safis"].as_array().into_iter().flatten().find(of);
        let seen = entry.and_then(|entry| entry.pointer("/mp_graceful_restart/state/end_of_rib_received"));
        Ok(seen.is_some_and(|seen| *seen == true))
    }

    fn has_received(&self, (code, subcode): Code) -> Result<bool> {
        let is_it = |entry: &Value| entry["Code"] == code && entry["Subcode"] == subcode;
        Ok(self.has_logged("received notification", is_it))
    }

    fn has_sent(&self, (code, subcode): Code) -> Result<bool> {
        // Before a session is up it says in words what was wrong, and no code.
        let is_bad_as = |entry: &Value| {
            let words = entry["Data"].as_str().unwrap_or_default();
            (code, subcode) == OPEN_BAD_PEER_AS && words.starts_with("as number mismatch")
        };
        let is_it = |entry: &Value| entry["Code"] == code && entry["Subcode"] == subcode;
        Ok(self.has_logged("sent notification", |entry| is_it(entry) || is_bad_as(entry)))
    }

    fn has_shutdown_text(&self, text: &str) -> Result<bool> {
        Ok(self.has_logged("received notification", |entry| entry["Communicated-Reason"] == text))
    }

    fn refresh(&mut self) -> Result<()> {
        self.tell(&["softresetin"])
    }

    fn shut_down(&mut self, text: &str) -> Result<()> {
        self.tell(&["shutdown", "--reason", text])
    }

    fn restart(&mut self) -> Result<()> {
        self.process.terminate(PATIENCE)?;
        self.process = spawn(&self.place)?;
        Ok(())
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn word(family: Family) -> &'static str {
    if family == Family::Ipv4Unicast { "ipv4" } else { "ipv6" }
}

/// From a path of `gobgp global rib PREFIX -j`, whose attributes have the numbers that they have on the wire.
fn route(shown: &Value) -> Result<Route> {
    let attributes = shown["attrs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let attribute = |code: u8| attributes.iter().find(|attribute| attribute["type"] == code);
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let list =
        |code: u8, key: &str| attribute(code).and_then(|found| found[key].as_array()).into_iter().flatten();
    let hop =
        attribute(3).or_else(|| attribute(14)).and_then(|found| found["nexthop"].as_str()?.parse().ok());
    let segments = list(2, "as_paths").filter_map(|segment| segment["asns"].as_array()).flatten();
    let pair = |community| format!("{}:{}", community >> 16, community & 0xffff);
    let extended = |entry: &Value| {
        let kind = if entry["subtype"] == 2 { "rt" } else { "other" };
        format!("{kind}:{}", entry["value"].as_str().unwrap_or_default())
    };
    let large = |entry: &Value| {
        let parts = ["ASN", "LocalData1", "LocalData2"].map(|part| entry[part].to_string());
        parts.join(":")
    };
    Ok(Route {
        next_hop: hop.ok_or_else(|| Error::parse("gobgp global rib", shown))?,
        as_path: segments.filter_map(number).collect(),
        med: attribute(4).and_then(|found| number(&found["metric"])),
        local_pref: attribute(5).and_then(|found| number(&found["value"])),
        communities: list(8, "communities").filter_map(number).map(pair).collect::<BTreeSet<_>>(),
        extended_communities: list(16, "value").map(extended).collect(),
        large_communities: list(32, "value").map(large).collect(),
    })
}
