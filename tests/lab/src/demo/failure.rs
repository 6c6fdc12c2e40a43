//! The acts about a node that dies and one that comes back, with the outage as a client saw it.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::{acts, stage::Stage};
use crate::{
    Error, Result,
    helpers::probe::{Attempt, unix_ms},
    require, secs, until,
};

const VICTIM: &str = "node2";
const LEFT: [&str; 2] = ["node1", "node3"];
/// The hold time of `bgppeers.yaml`: how long a router believes in a silent node.
const HOLD_TIME: Duration = Duration::from_secs(3);
/// Beyond the hold time: the kernel's routes, and an attempt that began just before.
const SLACK: Duration = Duration::from_secs(2);
/// How long the client has to be served without a gap afterwards.
const CALM: Duration = Duration::from_secs(1);

pub(super) fn node_dies(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "A node dies",
        &format!(
            "The agent of {VICTIM} is killed with SIGKILL and the node's link is cut in the same moment, so that it \
             cannot say goodbye. The routers notice when its hold time of {} s is over, and go on with the other two. \
             (BFD would notice in a fraction of a second; it comes later.)",
            HOLD_TIME.as_secs()
        ),
    );
    let addresses = stage.lab.wait_addresses("shop", "my-app")?;
    stage.narrator.prompt("fabric$", &format!("ip link set {VICTIM} down; kill -9 $(pidof lbnodeagent)"));
    let died = unix_ms(SystemTime::now());
    stage.lab.topology.unplug(VICTIM)?;
    stage.lab.cluster.agent(VICTIM)?.kill()?;
    stage.lab.wait_routes(&addresses, &LEFT)?;
    let rerouted = unix_ms(SystemTime::now());
    wait_calm(stage, rerouted, &LEFT)?;
    let attempts = stage.attempts_since(died)?;
    let last_failed =
        attempts.iter().filter(|attempt| attempt.error.is_some()).map(|attempt| attempt.began_ms).max();
    let outage = Duration::from_millis(last_failed.map_or(0, |last| last - died));
    let failed = attempts.iter().filter(|attempt| attempt.error.is_some()).count();
    require!(outage <= HOLD_TIME + SLACK, "requests failed until {outage:.1?} after the node died");
    stage.narrator.output(
        &format!(
            "requests since: {}, answered: {}, lost: {failed}\nlast loss: {:.1} s after the node died",
            attempts.len(),
            attempts.len() - failed,
            outage.as_secs_f64()
        ),
        3,
    );
    stage.narrator.verified(&format!(
        "the last request was lost {:.1} s after {VICTIM} died; both routers go on with node1 and node3, and every \
         request is answered",
        outage.as_secs_f64()
    ));
    Ok(())
}

/// Waits until the client was served for a while without any failure, by exactly these nodes.
fn wait_calm(stage: &Stage<'_>, since_ms: u64, nodes: &[&str]) -> Result<()> {
    let calm = u64::try_from(CALM.as_millis()).unwrap_or(u64::MAX);
    let expected = nodes.iter().map(|node| (*node).to_owned()).collect::<BTreeSet<_>>();
    until(format!("a second of answers by {nodes:?} on every way"), secs(15), || {
        let attempts = stage.attempts_since(since_ms)?;
        let until_ms = attempts.iter().map(|attempt| attempt.began_ms).max().unwrap_or(0);
        require!(until_ms >= since_ms + calm, "{} attempts so far", attempts.len());
        let lately =
            attempts.iter().filter(|attempt| attempt.began_ms + calm >= until_ms).collect::<Vec<_>>();
        let failed = lately.iter().filter(|attempt| attempt.error.is_some()).collect::<Vec<&&Attempt>>();
        require!(failed.is_empty(), "failures within the last second: {failed:?}");
        let answering = lately.iter().filter_map(|attempt| attempt.node.clone()).collect::<BTreeSet<_>>();
        require!(answering == expected, "answers of {answering:?}");
        let ways = lately.iter().map(|attempt| attempt.path.as_str()).collect::<BTreeSet<_>>();
        require!(ways.len() == 4, "answers on {ways:?} only");
        Ok::<_, Error>(())
    })
}

pub(super) fn node_returns(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "The node comes back",
        "Its link is plugged in and its agent starts again. It finds the addresses that the killed agent left on \
         kube-lb0, adopts them, and announces once more.",
    );
    let addresses = stage.lab.wait_addresses("shop", "my-app")?;
    stage.narrator.prompt("fabric$", &format!("ip link set {VICTIM} up; lbnodeagent &"));
    let began = unix_ms(SystemTime::now());
    stage.lab.topology.plug(VICTIM)?;
    stage.lab.start_agent(VICTIM)?;
    stage.lab.wait_routes(&addresses, &acts::ALL)?;
    stage.lab.wait_node_statuses(&acts::ALL)?;
    wait_calm(stage, unix_ms(SystemTime::now()), &acts::ALL)?;
    let attempts = stage.attempts_since(began)?;
    let failed = attempts.iter().filter(|attempt| attempt.error.is_some()).count();
    stage.narrator.verified(&format!(
        "{VICTIM} is a next hop of both routers again and answers; of {} requests meanwhile {failed} were lost",
        attempts.len()
    ));
    Ok(())
}
