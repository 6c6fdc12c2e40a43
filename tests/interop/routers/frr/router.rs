//! FRR: `bgpd`, with `zebra` for the resolution of next hops, asked through `vtysh` and its JSON.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use bgp::{notification::Code, types::Family};
use ipnet::IpNet;
use lab::{Error, Process, Result, command, PATIENCE};
use serde_json::Value;

use super::{Place, Route, Router, require_installed, wait_answer};

pub(super) const TITLE: &str = "FRR";
const DAEMONS: &str = "/usr/lib/frr";
const USER: &str = "frr";

pub(super) fn version() -> Result<String> {
    let bgpd = format!("{DAEMONS}/bgpd");
    require_installed(&bgpd)?;
    // "bgpd version 8.4.4"
    let said = command::run(Command::new(bgpd).arg("--version"))?;
    Ok(said.lines().next().unwrap_or_default().replace("bgpd version", "").trim().to_owned())
}

pub(super) fn start(place: Place) -> Result<Box<dyn Router>> {
    place.write("empty.conf", "")?;
    place.write("vtysh.conf", "no service integrated-vtysh-config\n")?;
    let configuration = place.write("frr.conf", include_str!("frr.conf"))?;
    command::run(Command::new("chown").args(["-R", USER]).arg(&place.folder))?;
    let zebra = spawn(&place, "zebra", &place.folder.join("empty.conf"), &[])?;
    let bfdd = if place.values.is("bfd")? { Some(spawn_bfdd(&place)?) } else { None };
    let bgpd = spawn_bgpd(&place, &configuration)?;
    Ok(Box::new(Frr { place, configuration, bgpd, _bfdd: bfdd, _zebra: zebra }))
}

fn spawn(place: &Place, daemon: &str, configuration: &Path, options: &[&str]) -> Result<Process> {
    let mut command = place.program(&format!("{DAEMONS}/{daemon}"))?;
    command.arg("--config_file").arg(configuration).args(options);
    command.arg("--pid_file").arg(place.folder.join(format!("{daemon}.pid")));
    command.arg("--socket").arg(place.folder.join("zserv.api"));
    command.arg("--vty_socket").arg(&place.folder).args(["--vty_port", "0", "--log", "stdout"]);
    let mut process = place.spawn(daemon, command)?;
    wait_answer(&mut process, || {
        let mut ask = vtysh(place);
        ask.args(["-d", daemon, "-c", "show version"]);
        ask
    })?;
    Ok(process)
}

/// With its configuration from the start: what comes from vtysh later is held back for seconds. What it learns goes
/// into the kernel only where packets are to be forwarded: else only its own table is looked at.
fn spawn_bgpd(place: &Place, configuration: &Path) -> Result<Process> {
    let options: &[&str] = if place.values.is("forwards")? { &[] } else { &["--no_kernel"] };
    spawn(place, "bgpd", configuration, options)
}

fn spawn_bfdd(place: &Place) -> Result<Process> {
    let configuration = place.write("bfdd.conf", include_str!("bfdd.conf"))?;
    let socket = place.folder.join("bfdd.sock");
    spawn(place, "bfdd", &configuration, &["--bfdctl", &socket.to_string_lossy()])
}

fn vtysh(place: &Place) -> Command {
    let mut vtysh = Command::new("vtysh");
    vtysh.arg("--vty_socket").arg(&place.folder).arg("--config_dir").arg(&place.folder);
    vtysh
}

struct Frr {
    place: Place,
    configuration: PathBuf,
    bgpd: Process,
    _bfdd: Option<Process>,
    _zebra: Process,
}

impl Frr {
    fn tell(&self, lines: &[&str]) -> Result<String> {
        let mut vtysh = vtysh(&self.place);
        vtysh.args(["-d", "bgpd"]);
        for line in lines {
            vtysh.args(["-c", line]);
        }
        command::run(&mut vtysh)
    }

    fn ask(&self, words: &str) -> Result<Value> {
        let words = format!("{words} json");
        let shown = self.tell(&[&words])?;
        serde_json::from_str(&shown).map_err(|error| Error::parse(format!("vtysh -c '{words}'"), error))
    }

    fn neighbor(&self) -> Result<Value> {
        let speaker = self.place.values.text_of("neighbor")?;
        Ok(self.ask(&format!("show bgp neighbors {speaker}"))?[speaker].take())
    }

    /// Whether its log has a NOTIFICATION of this code that went this way.
    fn has_logged(&self, way: &str, (code, subcode): Code) -> bool {
        let log = lab::process::tail(&self.place.log("bgpd"), usize::MAX);
        let words = format!("%NOTIFICATION: {way} neighbor {} {code}/{subcode} ", self.place.speaker);
        log.contains(&words)
    }
}

impl Router for Frr {
    fn session_state(&self) -> Result<String> {
        Ok(self.neighbor()?["bgpState"].as_str().unwrap_or("unknown").to_owned())
    }

    fn route(&self, prefix: IpNet) -> Result<Option<Route>> {
        let shown = self.ask(&format!("show bgp {} unicast {prefix}", word(Family::of(&prefix))))?;
        shown.pointer("/paths/0").map(route).transpose()
    }

    fn prefix_count(&self, family: Family) -> Result<usize> {
        // Not the summary's `ribCount`: that counts the inner nodes of the table's tree, too.
        let shown = self.ask(&format!("show bgp {} unicast statistics", word(family)))?;
        let key = if family == Family::Ipv4Unicast { "ipv4Unicast" } else { "ipv6Unicast" };
        let count = shown.pointer(&format!("/{key}/0/totalPrefixes")).and_then(Value::as_u64);
        let count = count.ok_or_else(|| Error::parse("vtysh show bgp statistics", shown))?;
        usize::try_from(count).map_err(|error| Error::parse("vtysh", error))
    }

    fn has_end_of_rib(&self, family: Family) -> Result<bool> {
        let name = if family == Family::Ipv4Unicast { "IPv4 Unicast" } else { "IPv6 Unicast" };
        Ok(self.place.has_logged("bgpd", &format!("rcvd End-of-RIB for {name} from {}", self.place.speaker)))
    }

    fn has_received(&self, notification: Code) -> Result<bool> {
        Ok(self.has_logged("received from", notification))
    }

    fn has_sent(&self, notification: Code) -> Result<bool> {
        Ok(self.has_logged("sent to", notification))
    }

    fn has_shutdown_text(&self, text: &str) -> Result<bool> {
        Ok(self.place.has_logged("bgpd", text))
    }

    fn bfd_state(&self) -> Result<String> {
        let shown = command::run(vtysh(&self.place).args(["-d", "bfdd", "-c", "show bfd peers json"]))?;
        let peers: Value = serde_json::from_str(&shown).map_err(|error| Error::parse("vtysh show bfd", error))?;
        let state = peers.pointer("/0/status").and_then(Value::as_str);
        state.map(str::to_owned).ok_or_else(|| Error::unmet("it has no BFD session"))
    }

    fn remove_bfd(&mut self) -> Result<()> {
        let context = format!("router bgp {}", self.place.values.text_of("router_as")?);
        let order = format!("no neighbor {} bfd", self.place.speaker);
        self.tell(&["configure terminal", &context, &order]).map(drop)
    }

    fn shut_bfd_down(&mut self) -> Result<()> {
        let mut vtysh = vtysh(&self.place);
        vtysh.args(["-d", "bfdd"]);
        for line in ["configure terminal", "bfd", "profile fast", "shutdown"] {
            vtysh.args(["-c", line]);
        }
        command::run(&mut vtysh).map(drop)
    }

    fn refresh(&mut self) -> Result<()> {
        // Without stored copies of what came in, this is what makes FRR send ROUTE-REFRESH.
        for family in Family::ALL {
            self.tell(&[&format!("clear bgp {} unicast {} soft in", word(family), self.place.speaker)])?;
        }
        Ok(())
    }

    fn shut_down(&mut self, text: &str) -> Result<()> {
        let context = format!("router bgp {}", self.place.values.text_of("router_as")?);
        let order = format!("neighbor {} shutdown message {text}", self.place.speaker);
        self.tell(&["configure terminal", &context, &order]).map(drop)
    }

    fn restart(&mut self) -> Result<()> {
        self.bgpd.terminate(PATIENCE)?;
        self.bgpd = spawn_bgpd(&self.place, &self.configuration)?;
        Ok(())
    }

    fn process(&mut self) -> &mut Process {
        &mut self.bgpd
    }
}

fn word(family: Family) -> &'static str {
    if family == Family::Ipv4Unicast { "ipv4" } else { "ipv6" }
}

/// From an entry of `paths`.
fn route(shown: &Value) -> Result<Route> {
    let hops = shown["nexthops"].as_array().into_iter().flatten();
    let mut global = hops.filter(|hop| hop["scope"] != "link-local").filter_map(|hop| hop["ip"].as_str());
    let next_hop = global.next().and_then(|hop| hop.parse().ok());
    let number = |key: &str| shown[key].as_u64().and_then(|number| u32::try_from(number).ok());
    let text = |pointer: &str| shown.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let words = |pointer| text(pointer).split_whitespace().map(str::to_lowercase).collect::<BTreeSet<_>>();
    Ok(Route {
        next_hop: next_hop.ok_or_else(|| Error::parse("vtysh show bgp PREFIX", shown))?,
        as_path: text("/aspath/string").split_whitespace().flat_map(str::parse).collect(),
        med: number("metric"),
        local_pref: number("locPrf"),
        communities: words("/community/string"),
        extended_communities: words("/extendedCommunity/string"),
        large_communities: words("/largeCommunity/string"),
    })
}
