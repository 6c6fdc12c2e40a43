//! The act about local pools: addresses on the nodes' own subnet, and what a client there sees when the node that
//! answers for them dies.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{acts, stage::Stage};
use crate::{
    Error, Process, Result, command,
    helpers::{self, echo::Reply, probe},
    require, secs, until,
};

const NAMESPACE: &str = "blog";
const SERVICE: &str = "on-link";
/// What an outage may last here: the bar is one second on a machine with nothing else to do.
const BOUND: Duration = Duration::from_secs(2);
/// How long the client has to be served without a gap afterwards, in milliseconds.
const CALM_MS: u64 = 1_000;
/// Between two requests of the client that never stops, and how long it waits for an answer.
const PACE_MS: u64 = 10;
const PATIENCE_MS: u64 = 300;

pub(super) fn failover(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "An address on the nodes' own subnet",
        "A local pool needs no router: one node of the subnet is elected for each address and answers for it by ARP, \
         in IPv6 by neighbour discovery. The nodes hear each other's heartbeats: when the holder dies, the next one \
         takes over and tells the whole subnet at once.",
    );
    stage.kubectl("apply -f tests/lab/manifests/local-pools.yaml", 2)?;
    stage.kubectl(&format!("apply -n {NAMESPACE} -f tests/lab/manifests/on-link.yaml"), 1)?;
    let addresses = stage.lab.wait_addresses(NAMESPACE, SERVICE)?;
    let workload = stage.lab.deploy(NAMESPACE, SERVICE, &addresses, &acts::ALL)?;
    let before = holders(stage, &addresses)?;
    describe(stage)?;
    show_neighbours(stage, &addresses)?;

    let victim = before.first().cloned().unwrap_or_default();
    let mut client = start_client(stage, &addresses)?;
    stage.narrator.plain("");
    stage
        .narrator
        .say(&format!("{victim} holds {}. It loses power: its link is cut, its agent killed.", addresses[0]));
    stage.narrator.prompt("fabric$", &format!("ip link set {victim} down; kill -9 $(pidof lbnodeagent)"));
    let died_ms = probe::unix_ms(SystemTime::now());
    stage.lab.topology.unplug(&victim)?;
    stage.lab.cluster.agent(&victim)?.kill()?;
    let outages = wait_calm(stage, &addresses, died_ms)?;
    client.kill()?;
    let after = holders(stage, &addresses)?;
    show_neighbours(stage, &addresses)?;
    for (((address, outage), old), new) in addresses.iter().zip(&outages).zip(&before).zip(&after) {
        let text = format!("{address}: {old}, then {new}; no answer for {} ms", outage.as_millis());
        stage.narrator.output(&text, 1);
        require!(*new != victim, "{address} is said to be at {victim}, which is dead");
        require!(*outage <= BOUND, "{address} did not answer for {outage:?}");
    }
    let longest = outages.iter().max().copied().unwrap_or_default();
    stage.narrator.verified(&format!(
        "both addresses answer on the subnet again, from a node that lives; the client was without an answer for {} ms \
         at most",
        longest.as_millis()
    ));

    stage.lab.topology.plug(&victim)?;
    stage.lab.start_agent(&victim)?;
    stage.lab.wait_node_statuses(&acts::ALL)?;
    stage.kubectl(&format!("delete svc {SERVICE} -n {NAMESPACE}"), 1)?;
    for address in &addresses {
        stage.lab.wait_on_nodes(*address, &[])?;
    }
    drop(workload);
    Ok(())
}

/// Which node answers for each address, once the client on the subnet and the Service's annotations agree.
fn holders(stage: &Stage<'_>, addresses: &[IpAddr]) -> Result<Vec<String>> {
    addresses.iter().map(|address| holder(stage, *address)).collect()
}

fn holder(stage: &Stage<'_>, address: IpAddr) -> Result<String> {
    let annotation = if address.is_ipv4() { "announcing-IPv4" } else { "announcing-IPv6" };
    until(format!("{address} to answer where purelb.io/{annotation} says"), secs(30), || {
        let node = curl(stage, address)?.node;
        let service = stage.lab.cluster.kubectl().get(&["service", SERVICE, "-n", NAMESPACE])?;
        let said = &service["metadata"]["annotations"][format!("purelb.io/{annotation}")];
        require!(*said == Value::String(format!("{node},eth0")), "{node} answers, and it says {said}");
        Ok::<_, Error>(node)
    })
}

fn describe(stage: &Stage<'_>) -> Result<()> {
    let typed = format!("get svc {SERVICE} -n {NAMESPACE} -o yaml");
    stage.narrator.prompt("$", &format!("kubectl {typed} | grep announcing"));
    let words: Vec<&str> = typed.split_whitespace().collect();
    let yaml = stage.lab.cluster.kubectl().run(&words)?;
    let lines = yaml.lines().map(str::trim).filter(|line| line.starts_with("purelb.io/announcing"));
    stage.narrator.output(&lines.collect::<Vec<_>>().join("\n"), 4);
    Ok(())
}

/// One `curl` from the client on the nodes' subnet.
fn curl(stage: &Stage<'_>, address: IpAddr) -> Result<Reply> {
    let mut curl = stage.lab.topology.neighbour.namespace.command("curl");
    let answer = command::run(curl.args(["-s", "-S", "-g", "--max-time", "1", &acts::url(address)]))?;
    serde_json::from_str(&answer).map_err(|error| Error::parse("the pod", error))
}

/// The client's table of neighbours: at which MAC address it believes each address to be.
fn show_neighbours(stage: &Stage<'_>, addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        let typed = format!("ip neighbour show to {address}");
        let mut command = stage.lab.topology.neighbour.namespace.command("ip");
        command.args(typed.split_whitespace().skip(1));
        stage.narrator.show("neighbour$", &typed, &mut command, 1)?;
    }
    Ok(())
}

fn attempts_file(stage: &Stage<'_>) -> PathBuf {
    stage.lab.run.folder().join("neighbour-attempts.jsonl")
}

fn start_client(stage: &Stage<'_>, addresses: &[IpAddr]) -> Result<Process> {
    let mut command = stage.lab.topology.neighbour.namespace.command(helpers::binary("lab")?);
    command.args(["probe", "--interface", "eth0", "--pace-ms", &PACE_MS.to_string()]);
    command.args(["--patience-ms", &PATIENCE_MS.to_string()]).arg("--out").arg(attempts_file(stage));
    for address in addresses {
        command.args(["--target", &SocketAddr::new(*address, 80).to_string()]);
    }
    let client = Process::spawn("neighbour-probe", command, stage.lab.run.log("neighbour-probe"))?;
    until("the neighbour's first answers", secs(10), || {
        let answered = probe::attempts_since(&attempts_file(stage), 0)?;
        require!(answered.iter().any(|attempt| attempt.error.is_none()), "{} attempts", answered.len());
        Ok::<_, Error>(())
    })?;
    Ok(client)
}

/// Waits until every address has answered for a while without any failure; how long each had not since then.
fn wait_calm(stage: &Stage<'_>, addresses: &[IpAddr], since_ms: u64) -> Result<Vec<Duration>> {
    until("a second of answers for every address", secs(30), || {
        let attempts = probe::attempts_since(&attempts_file(stage), since_ms)?;
        let now = probe::unix_ms(SystemTime::now());
        addresses.iter().map(|address| outage(&attempts, *address, since_ms, now)).collect()
    })
}

fn outage(attempts: &[probe::Attempt], address: IpAddr, since_ms: u64, now_ms: u64) -> Result<Duration> {
    let target = SocketAddr::new(address, 80).to_string();
    let of_address = || attempts.iter().filter(|attempt| attempt.path.ends_with(&target));
    let failed = of_address().filter(|attempt| attempt.error.is_some()).map(|attempt| attempt.began_ms).max();
    let answered =
        of_address().filter(|attempt| attempt.error.is_none()).map(|attempt| attempt.began_ms).max();
    let bad_until = failed.unwrap_or(since_ms);
    require!(
        answered.is_some_and(|at| at > bad_until) && now_ms > bad_until + CALM_MS,
        "{address} failed last {} ms ago",
        now_ms.saturating_sub(bad_until)
    );
    Ok(Duration::from_millis(bad_until - since_ms))
}
