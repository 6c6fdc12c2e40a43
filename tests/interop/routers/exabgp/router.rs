//! ExaBGP, which has no table of its own: what it tells its API process of every message is the router's view.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    net::IpAddr,
    path::PathBuf,
    process::Command,
};

use bgp::{notification::Code, types::Family};
use ipnet::IpNet;
use lab::{Error, Process, Result, command, PATIENCE, until};
use serde_json::Value;

use super::{Place, Route, Router, require_installed};

pub(super) const TITLE: &str = "ExaBGP";
const DAEMON: &str = "/usr/sbin/exabgp";
const LOG: &str = "exabgp";

pub(super) fn version() -> Result<String> {
    require_installed(DAEMON)?;
    // "ExaBGP : 4.2.21", among others.
    let said = command::run(Command::new(DAEMON).arg("--version"))?;
    let version = super::labelled(&said, "ExaBGP :");
    version.map(str::to_owned).ok_or_else(|| Error::parse("exabgp --version", said))
}

pub(super) fn start(place: Place) -> Result<Box<dyn Router>> {
    place.write("exabgp.conf", include_str!("exabgp.conf"))?;
    place.write("table.sh", include_str!("table.sh"))?;
    command::run(Command::new("mkfifo").arg(place.folder.join("orders")))?;
    let process = spawn(&place)?;
    Ok(Box::new(ExaBgp { place, process }))
}

fn events(place: &Place) -> PathBuf {
    place.folder.join("events")
}

fn spawn(place: &Place) -> Result<Process> {
    let mut exabgp = place.program("/usr/bin/env")?;
    exabgp.args(["exabgp.daemon.user=root", "exabgp.api.cli=false", "exabgp.tcp.port=179"]);
    if place.values.is("listening")? {
        exabgp.arg(format!("exabgp.tcp.bind={}", place.values.text_of("router")?));
    }
    exabgp.arg(DAEMON).arg(place.folder.join("exabgp.conf"));
    let mut process = place.spawn(LOG, exabgp)?;
    until("ExaBGP to start its API process", PATIENCE, || {
        process.check_running()?;
        lab::require!(events(place).exists(), "no events yet");
        Ok::<_, Error>(())
    })?;
    Ok(process)
}

struct ExaBgp {
    place: Place,
    process: Process,
}

/// What the events come to.
#[derive(Default)]
struct View {
    state: String,
    routes: BTreeMap<IpNet, Route>,
    ends: Vec<String>,
    received: Vec<(u64, u64)>,
    /// Why sessions ended, in words.
    reasons: Vec<String>,
}

impl View {
    fn take(&mut self, event: &Value) -> Result<()> {
        let neighbor = &event["neighbor"];
        match event["type"].as_str() {
            Some("state") => {
                let state = neighbor["state"].as_str().unwrap_or("unknown");
                state.clone_into(&mut self.state);
                self.reasons.extend(neighbor["reason"].as_str().map(str::to_owned));
                if state == "down" {
                    self.routes.clear();
                    self.ends.clear();
                }
            }
            Some("notification") => {
                let shown = &neighbor["notification"];
                let code = (shown["code"].as_u64().unwrap_or(0), shown["subcode"].as_u64().unwrap_or(0));
                self.received.push(code);
            }
            Some("update") => {
                let message = &neighbor["message"];
                self.ends.extend(message["eor"]["afi"].as_str().map(str::to_owned));
                self.update(&message["update"])?;
            }
            _ => {}
        }
        Ok(())
    }

    fn update(&mut self, update: &Value) -> Result<()> {
        let prefix = |entry: &Value| {
            let shown = entry["nlri"].as_str().unwrap_or_default();
            shown
                .parse::<IpNet>()
                .map_err(|error| Error::parse("an event of ExaBGP", format!("{entry}: {error}")))
        };
        for entry in update["withdraw"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, list)| list.as_array())
            .flatten()
        {
            self.routes.remove(&prefix(entry)?);
        }
        let families = update["announce"].as_object().into_iter().flatten();
        for (hop, entries) in families.filter_map(|(_, hops)| hops.as_object()).flatten() {
            let hop = hop.parse::<IpAddr>().map_err(|error| Error::parse("an event of ExaBGP", error))?;
            // With a global next hop goes a link-local one where there is one.
            if matches!(hop, IpAddr::V6(hop) if hop.is_unicast_link_local()) {
                continue;
            }
            for entry in entries.as_array().into_iter().flatten() {
                self.routes.insert(prefix(entry)?, route(hop, &update["attribute"]));
            }
        }
        Ok(())
    }
}

impl ExaBgp {
    fn view(&self) -> Result<View> {
        let path = events(&self.place);
        let text = fs::read_to_string(&path).map_err(Error::path(&path))?;
        let mut view = View::default();
        // Beside the events there are answers to orders, and the last line may not be whole yet.
        for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            view.take(&event)?;
        }
        Ok(view)
    }

    fn order(&self, order: &str) -> Result<()> {
        let path = self.place.folder.join("orders");
        let mut pipe = File::options().write(true).open(&path).map_err(Error::path(&path))?;
        writeln!(pipe, "{order}").map_err(Error::path(&path))
    }
}

impl Router for ExaBgp {
    fn session_state(&self) -> Result<String> {
        let state = self.view()?.state;
        Ok(if state == "up" { "established".to_owned() } else { state })
    }

    fn route(&self, prefix: IpNet) -> Result<Option<Route>> {
        Ok(self.view()?.routes.remove(&prefix))
    }

    fn prefix_count(&self, family: Family) -> Result<usize> {
        Ok(self.view()?.routes.keys().filter(|prefix| Family::of(prefix) == family).count())
    }

    fn has_end_of_rib(&self, family: Family) -> Result<bool> {
        let name = if family == Family::Ipv4Unicast { "ipv4" } else { "ipv6" };
        Ok(self.view()?.ends.iter().any(|end| end == name))
    }

    fn has_received(&self, (code, subcode): Code) -> Result<bool> {
        Ok(self.view()?.received.contains(&(code.into(), subcode.into())))
    }

    fn has_sent(&self, (code, subcode): Code) -> Result<bool> {
        let words = format!("notification sent ({code},{subcode})");
        Ok(self.view()?.reasons.iter().any(|reason| reason.contains(&words)))
    }

    fn has_shutdown_text(&self, text: &str) -> Result<bool> {
        Ok(self.place.has_logged(LOG, text))
    }

    fn refresh(&mut self) -> Result<()> {
        for family in ["ipv4", "ipv6"] {
            self.order(&format!("neighbor {} announce route-refresh {family} unicast", self.place.speaker))?;
        }
        Ok(())
    }

    fn shut_down(&mut self, _text: &str) -> Result<()> {
        self.order(&format!("neighbor {} teardown 2", self.place.speaker))
    }

    fn restart(&mut self) -> Result<()> {
        self.process.terminate(PATIENCE)?;
        let path = events(&self.place);
        fs::remove_file(&path).map_err(Error::path(&path))?;
        self.process = spawn(&self.place)?;
        Ok(())
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// From a next hop and the attributes of an event.
fn route(next_hop: IpAddr, attributes: &Value) -> Route {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let list = |key: &str| attributes[key].as_array().into_iter().flatten();
    let joined = |entry: &Value| {
        let parts = entry.as_array().into_iter().flatten().map(Value::to_string);
        parts.collect::<Vec<_>>().join(":")
    };
    let extended = |entry: &Value| entry["string"].as_str().unwrap_or_default().replace("target:", "rt:");
    Route {
        next_hop,
        as_path: list("as-path").filter_map(number).collect(),
        med: number(&attributes["med"]),
        local_pref: number(&attributes["local-preference"]),
        communities: list("community").map(joined).collect(),
        extended_communities: list("extended-community").map(extended).collect(),
        large_communities: list("large-community").map(joined).collect(),
    }
}
