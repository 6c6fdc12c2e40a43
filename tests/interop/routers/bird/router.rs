//! BIRD 2, asked through `birdc`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bgp::{notification as codes, notification::Code, types::Family};
use ipnet::IpNet;
use lab::{Error, Process, Result, command, PATIENCE};

use super::{Place, Route, Router, labelled, require_installed, wait_answer};

pub(super) const TITLE: &str = "BIRD";
const DAEMON: &str = "/usr/sbin/bird";
const LOG: &str = "bird";
/// The name of the one BGP protocol in the template.
const PROTOCOL: &str = "speaker";

pub(super) fn version() -> Result<String> {
    require_installed(DAEMON)?;
    // "BIRD version 2.0.12", on standard error.
    let said = command::outcome_with_input(Command::new(DAEMON).arg("--version"), "")?;
    Ok(format!("{}{}", said.stdout, said.stderr).replace("BIRD version", "").trim().to_owned())
}

pub(super) fn start(place: Place) -> Result<Box<dyn Router>> {
    let configuration = place.write("bird.conf", include_str!("bird.conf"))?;
    let process = spawn(&place, &configuration)?;
    Ok(Box::new(Bird { place, configuration, process }))
}

fn spawn(place: &Place, configuration: &Path) -> Result<Process> {
    let mut bird = place.program(DAEMON)?;
    bird.arg("-f").arg("-c").arg(configuration).arg("-s").arg(socket(place));
    let mut process = place.spawn(LOG, bird)?;
    wait_answer(&mut process, || birdc(place, &["show", "status"]))?;
    Ok(process)
}

fn socket(place: &Place) -> PathBuf {
    place.folder.join("bird.ctl")
}

fn birdc(place: &Place, words: &[&str]) -> Command {
    let mut birdc = Command::new("birdc");
    birdc.arg("-s").arg(socket(place)).args(words);
    birdc
}

struct Bird {
    place: Place,
    configuration: PathBuf,
    process: Process,
}

impl Bird {
    fn ask(&self, words: &[&str]) -> Result<String> {
        command::run(&mut birdc(&self.place, words))
    }
}

impl Router for Bird {
    fn session_state(&self) -> Result<String> {
        let shown = self.ask(&["show", "protocols", "all", PROTOCOL])?;
        Ok(labelled(&shown, "BGP state:").unwrap_or("unknown").to_owned())
    }

    fn route(&self, prefix: IpNet) -> Result<Option<Route>> {
        let words = ["show", "route", &prefix.to_string(), "protocol", PROTOCOL, "all"];
        match self.ask(&words) {
            Err(Error::Command { stderr, .. }) if stderr.ends_with("Network not found") => Ok(None),
            answer => route(&answer?).map(Some),
        }
    }

    fn prefix_count(&self, family: Family) -> Result<usize> {
        let table = if family == Family::Ipv4Unicast { "master4" } else { "master6" };
        let shown = self.ask(&["show", "route", "table", table, "protocol", PROTOCOL, "count"])?;
        // "2 of 2 routes for 2 networks in table master4"
        let line = shown.lines().find(|line| line.contains(" networks in table"));
        let count = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        count.ok_or_else(|| Error::parse("birdc show route count", shown))
    }

    fn has_end_of_rib(&self, _: Family) -> Result<bool> {
        // Its trace does not say of which family, so both have to be there.
        let seen = lab::process::tail(&self.place.log(LOG), usize::MAX).matches("Got END-OF-RIB").count();
        Ok(seen == Family::ALL.len())
    }

    fn has_received(&self, notification: Code) -> Result<bool> {
        let shown = self.ask(&["show", "protocols", "all", PROTOCOL])?;
        let words = format!("Received: {}", words(notification)?);
        Ok(labelled(&shown, "Last error:") == Some(words.as_str()) || self.place.has_logged(LOG, &words))
    }

    fn has_sent(&self, notification: Code) -> Result<bool> {
        let words = words(notification)?;
        Ok(self.place.has_logged(LOG, &format!("Error: {words}")))
    }

    fn has_shutdown_text(&self, text: &str) -> Result<bool> {
        let shown = self.ask(&["show", "protocols", "all", PROTOCOL])?;
        Ok(labelled(&shown, "Message:") == Some(text) || self.place.has_logged(LOG, text))
    }

    fn bfd_state(&self) -> Result<String> {
        // "172.31.7.1  eth0  Up  12:00:00.000  0.200  1.000"
        let shown = self.ask(&["show", "bfd", "sessions"])?;
        let speaker = self.place.speaker.to_string();
        let mut lines = shown.lines().map(str::split_whitespace);
        let state = lines.find_map(|mut words| (words.next() == Some(&speaker)).then(|| words.nth(1))?);
        state.map(str::to_owned).ok_or_else(|| Error::unmet("it has no BFD session"))
    }

    fn remove_bfd(&mut self) -> Result<()> {
        let with = fs::read_to_string(&self.configuration).map_err(Error::path(&self.configuration))?;
        let without = with.replace("bfd on;", "bfd off;");
        fs::write(&self.configuration, without).map_err(Error::path(&self.configuration))?;
        self.ask(&["configure"]).map(drop)
    }

    fn refresh(&mut self) -> Result<()> {
        self.ask(&["reload", "in", PROTOCOL]).map(drop)
    }

    fn shut_down(&mut self, text: &str) -> Result<()> {
        self.ask(&["disable", PROTOCOL, &format!("\"{text}\"")]).map(drop)
    }

    fn restart(&mut self) -> Result<()> {
        self.process.terminate(PATIENCE)?;
        self.process = spawn(&self.place, &self.configuration)?;
        Ok(())
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// How BIRD names a NOTIFICATION.
fn words(notification: Code) -> Result<&'static str> {
    match notification {
        codes::HOLD_TIMER_EXPIRED => Ok("Hold timer expired"),
        codes::CEASE_ADMINISTRATIVE_SHUTDOWN => Ok("Administrative shutdown"),
        codes::CEASE_PEER_DECONFIGURED => Ok("Peer de-configured"),
        codes::OPEN_BAD_PEER_AS => Ok("Bad peer AS"),
        (code, subcode) => Err(Error::unmet(format!("no words of BIRD for {code}/{subcode}"))),
    }
}

/// From `show route PREFIX all`.
fn route(shown: &str) -> Result<Route> {
    let attribute = |name: &str| labelled(shown, &format!("BGP.{name}:"));
    let number = |name: &str| attribute(name).and_then(|word| word.parse().ok());
    let next_hop = attribute("next_hop").and_then(|hops| hops.split_whitespace().next()?.parse().ok());
    Ok(Route {
        next_hop: next_hop.ok_or_else(|| Error::parse("birdc show route all", shown))?,
        as_path: attribute("as_path").unwrap_or_default().split_whitespace().flat_map(str::parse).collect(),
        med: number("med"),
        local_pref: number("local_pref"),
        communities: tuples(attribute("community")),
        extended_communities: tuples(attribute("ext_community")),
        large_communities: tuples(attribute("large_community")),
    })
}

/// "(64512,1) (64512,2)" and "(rt, 64512, 5)", parts joined by colons.
fn tuples(shown: Option<&str>) -> BTreeSet<String> {
    let inner = shown.unwrap_or_default().split(['(', ')']).filter(|part| !part.trim().is_empty());
    inner.map(|tuple| tuple.split(',').map(str::trim).collect::<Vec<_>>().join(":")).collect()
}
