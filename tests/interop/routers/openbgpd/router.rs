//! OpenBGPD, asked through `bgpctl` and its JSON.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, process::Command};

use bgp::{notification as codes, notification::Code, types::Family};
use ipnet::IpNet;
use lab::{Error, Process, Result, command, PATIENCE};
use serde_json::Value;

use super::{Place, Route, Router, labelled, require_installed, wait_answer};

pub(super) const TITLE: &str = "OpenBGPD";
const DAEMON: &str = "/usr/sbin/bgpd";
const LOG: &str = "bgpd";
/// The home of its user in Debian: its processes lock themselves into it. Else its system service makes it.
const CHROOT: &str = "/run/openbgpd";

pub(super) fn version() -> Result<String> {
    require_installed(DAEMON)?;
    // "OpenBGPD 7.7", on standard error.
    let said = command::outcome_with_input(Command::new(DAEMON).arg("-V"), "")?;
    Ok(format!("{}{}", said.stdout, said.stderr).replace("OpenBGPD", "").trim().to_owned())
}

pub(super) fn start(place: Place) -> Result<Box<dyn Router>> {
    fs::create_dir_all(CHROOT).map_err(Error::path(CHROOT))?;
    let configuration = place.write("bgpd.conf", include_str!("bgpd.conf"))?;
    // It refuses a configuration that others can read.
    fs::set_permissions(&configuration, fs::Permissions::from_mode(0o600))
        .map_err(Error::path(&configuration))?;
    let process = spawn(&place)?;
    Ok(Box::new(OpenBgpd { place, process }))
}

fn spawn(place: &Place) -> Result<Process> {
    let mut bgpd = place.program(DAEMON)?;
    bgpd.args(["-d", "-v", "-f"]).arg(place.folder.join("bgpd.conf"));
    let mut process = place.spawn(LOG, bgpd)?;
    wait_answer(&mut process, || bgpctl(place, &["show", "summary"]))?;
    Ok(process)
}

fn bgpctl(place: &Place, words: &[&str]) -> Command {
    let mut bgpctl = Command::new("bgpctl");
    bgpctl.arg("-s").arg(place.folder.join("bgpd.sock")).args(words);
    bgpctl
}

struct OpenBgpd {
    place: Place,
    process: Process,
}

impl OpenBgpd {
    fn tell(&self, words: &[&str]) -> Result<()> {
        let speaker = self.place.speaker.to_string();
        command::run(&mut bgpctl(&self.place, &[&["neighbor", &speaker], words].concat())).map(drop)
    }

    fn has_logged(&self, words: &str) -> bool {
        self.place.has_logged(LOG, &format!("neighbor {}{words}", self.place.speaker))
    }
}

impl Router for OpenBgpd {
    fn session_state(&self) -> Result<String> {
        let words = ["show", "neighbor", &self.place.speaker.to_string()];
        let shown = command::run(&mut bgpctl(&self.place, &words))?;
        let state = labelled(&shown, "BGP state =").and_then(|state| state.split(',').next());
        Ok(state.unwrap_or("unknown").to_owned())
    }

    fn route(&self, prefix: IpNet) -> Result<Option<Route>> {
        let words = ["-j", "show", "rib", "detail", &prefix.to_string()];
        let shown = command::run(&mut bgpctl(&self.place, &words))?;
        let shown = serde_json::from_str::<Value>(&shown);
        let shown = shown.map_err(|error| Error::parse("bgpctl -j show rib detail", error))?;
        shown.pointer("/rib/0").map(route).transpose()
    }

    fn prefix_count(&self, family: Family) -> Result<usize> {
        let shown = command::run(&mut bgpctl(&self.place, &["show", "rib", "memory"]))?;
        let version = if family == Family::Ipv4Unicast { "IPv4 unicast" } else { "IPv6 unicast" };
        // "    100000 IPv4 unicast network entries using 3.8M of memory"
        let line = shown.lines().find(|line| line.contains(version));
        let Some(line) = line else { return Ok(0) };
        let count = line.split_whitespace().next().and_then(|word| word.parse().ok());
        count.ok_or_else(|| Error::parse("bgpctl show rib memory", shown))
    }

    fn has_end_of_rib(&self, family: Family) -> Result<bool> {
        let name = if family == Family::Ipv4Unicast { "IPv4" } else { "IPv6" };
        Ok(self.has_logged(&format!(": received {name} unicast EOR marker")))
    }

    fn has_received(&self, notification: Code) -> Result<bool> {
        Ok(self.has_logged(&format!(": received notification: {}", words(notification)?)))
    }

    fn has_sent(&self, notification: Code) -> Result<bool> {
        Ok(self.has_logged(&format!(": sending notification: {}", words(notification)?)))
    }

    fn has_shutdown_text(&self, text: &str) -> Result<bool> {
        Ok(self.has_logged(&format!(": received shutdown reason: \"{text}\"")))
    }

    fn refresh(&mut self) -> Result<()> {
        self.tell(&["refresh"])
    }

    fn shut_down(&mut self, text: &str) -> Result<()> {
        self.tell(&["down", text])
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

/// How OpenBGPD names a NOTIFICATION.
fn words(notification: Code) -> Result<&'static str> {
    match notification {
        codes::HOLD_TIMER_EXPIRED => Ok("HoldTimer expired"),
        codes::CEASE_ADMINISTRATIVE_SHUTDOWN => Ok("Cease, administratively down"),
        codes::CEASE_PEER_DECONFIGURED => Ok("Cease, peer unconfigured"),
        codes::OPEN_BAD_PEER_AS => Ok("error in OPEN message, AS unacceptable"),
        (code, subcode) => Err(Error::unmet(format!("no words of OpenBGPD for {code}/{subcode}"))),
    }
}

/// From an entry of `rib`.
fn route(shown: &Value) -> Result<Route> {
    let number = |key: &str| shown[key].as_u64().and_then(|number| u32::try_from(number).ok());
    let words = |key: &str| {
        let words = shown[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        words.map(|word| word.replace(' ', ":")).collect::<BTreeSet<_>>()
    };
    let next_hop = shown["exit_nexthop"].as_str().and_then(|hop| hop.parse().ok());
    let as_path = shown["aspath"].as_str().unwrap_or_default();
    Ok(Route {
        next_hop: next_hop.ok_or_else(|| Error::parse("bgpctl show rib", shown))?,
        as_path: as_path.split_whitespace().flat_map(str::parse).collect(),
        med: number("metric"),
        local_pref: number("localpref"),
        communities: words("communities"),
        extended_communities: words("extended_communities"),
        large_communities: words("large_communities"),
    })
}
