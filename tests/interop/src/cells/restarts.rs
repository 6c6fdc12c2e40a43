//! What a restart of the announcing process costs: packets through the router to the addresses it announces, counted one
//! by one. A process of its own announces, so that it can be killed.

use std::collections::BTreeSet;

use bgp::{
    config::{GracefulRestartConfig, ShutdownMode},
    types::{Family, LongLivedStaleTime, RestartTime},
};
use ipnet::IpNet;
use lab::{PATIENCE, Process, Result, require, secs, until};
use nix::sys::signal::Signal;

use crate::{
    Ground, Plan, Scene,
    plan::{BFD_INTERVAL, BFD_MULTIPLIER},
    scene::{Forwarding, prefix},
};

/// How the announcing process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// SIGTERM: it says that it comes back, where that helps.
    Terminated,
    /// SIGKILL: its kernel closes the connection.
    Killed,
}

/// How long the process stays away beyond what the router takes to notice.
const AWAY: std::time::Duration = secs(2);

/// Ends the process under traffic and starts another one; returns how many packets were sent and lost.
fn restart(ground: &Ground, plan: Plan, end: End) -> Result<(u64, u64)> {
    let addresses = Family::ALL.map(|family| prefix(family, 1));
    let forwarding = Forwarding::start(ground, plan, &addresses)?;
    let mut announcer = announce(&forwarding, &addresses, false)?;
    forwarding.wait_reachable(&addresses)?;
    if forwarding.plan.bfd {
        forwarding.wait_bfd(true)?;
    }
    let stream = forwarding.stream(&addresses)?;
    match end {
        End::Terminated => {
            announcer.signal(Signal::SIGTERM)?;
        }
        End::Killed => announcer.kill()?,
    }
    until("the announcing process to end", PATIENCE, || {
        require!(announcer.exit_status()?.is_some(), "it runs");
        Ok::<_, lab::Error>(())
    })?;
    forwarding.wait_session(false)?;
    if forwarding.plan.bfd {
        forwarding.wait_bfd(false)?;
    }
    std::thread::sleep(AWAY);
    let again = announce(&forwarding, &addresses, true)?;
    forwarding.wait_session(true)?;
    forwarding.wait_reachable(&addresses)?;
    // Whatever End-of-RIB takes away is gone by now.
    std::thread::sleep(AWAY);
    let counted = forwarding.finish(stream)?;
    drop(again);
    Ok(counted)
}

fn announce(forwarding: &Forwarding, prefixes: &[IpNet], is_restarted: bool) -> Result<Process> {
    let (plan, link) = (&forwarding.plan, &forwarding.link);
    let mut command = link.speaker.namespace.command(&forwarding.announcer);
    command.args(["--local-as", &plan.speaker_as.to_string(), "--router-as", &plan.router_as.to_string()]);
    command.args(["--router-id", &plan.speaker_id.to_string()]);
    command.args(["--router", &link.router.addresses.v4.to_string()]);
    command.args(["--next-hop-ipv6", &link.speaker.addresses.v6.to_string()]);
    if is_restarted {
        command.arg("--restarted");
    }
    if plan.bfd {
        command.args(["--bfd-millis", &BFD_INTERVAL.as_millis().to_string()]);
        command.args(["--bfd-multiplier", &BFD_MULTIPLIER.to_string()]);
    }
    command.args(prefixes.iter().map(ToString::to_string));
    let name = if is_restarted { "announcer-again" } else { "announcer" };
    Process::spawn(name, command, forwarding.logs.join(format!("{name}.log")))
}

fn restartable() -> Plan {
    Plan { graceful_restart: Some(GracefulRestartConfig::default()), ..Plan::default() }
}

fn without_loss(ground: &Ground, plan: Plan, end: End) -> Result<()> {
    let (sent, lost) = restart(ground, plan, end)?;
    require!(lost == 0, "{lost} of {sent} packets were lost");
    require!(sent > 4000, "only {sent} packets were sent");
    Ok(())
}

/// Beyond the restart time the router keeps the routes as a last resort, marked as such.
pub fn long_lived(ground: &Ground) -> Result<()> {
    let offered = GracefulRestartConfig {
        restart_time: RestartTime::new(3).expect("three seconds"),
        long_lived: LongLivedStaleTime::new(600),
        ..GracefulRestartConfig::default()
    };
    let scene = Scene::start(ground, Plan { graceful_restart: Some(offered), ..Plan::default() })?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    scene.speaker.shut_down(ShutdownMode::Restart);
    for family in Family::ALL {
        until(format!("{family} to be marked as stale for long"), PATIENCE, || {
            let route = scene.router.route(prefix(family, 1))?;
            let communities = route.map(|route| route.communities);
            let communities = communities.ok_or_else(|| lab::Error::unmet("the route is gone"))?;
            let stale = ["65535:6", "llgr-stale"].map(str::to_owned);
            require!(!communities.is_disjoint(&BTreeSet::from(stale)), "its communities are {communities:?}");
            Ok(())
        })?;
    }
    scene.finish().map(drop)
}

/// A planned restart: the router keeps forwarding, not one packet is lost.
pub fn restart_terminated(ground: &Ground) -> Result<()> {
    without_loss(ground, restartable(), End::Terminated)
}

/// The process is killed: the same.
pub fn restart_killed(ground: &Ground) -> Result<()> {
    without_loss(ground, restartable(), End::Killed)
}

/// A planned restart under BFD, away for longer than BFD takes to notice: a router that knows that our BFD dies with
/// us (C is clear) goes on forwarding (RFC 5882 §4.3.2).
pub fn bfd_restart_terminated(ground: &Ground) -> Result<()> {
    without_loss(ground, Plan { bfd: true, bfd_shares_fate: true, ..restartable() }, End::Terminated)
}

/// The process is killed: the same.
pub fn bfd_restart_killed(ground: &Ground) -> Result<()> {
    without_loss(ground, Plan { bfd: true, bfd_shares_fate: true, ..restartable() }, End::Killed)
}

/// A router that does no graceful restart: what is lost is counted and told.
pub fn restart_without(ground: &Ground) -> Result<()> {
    let (sent, lost) = restart(ground, Plan::default(), End::Terminated)?;
    require!(lost > 0, "no packet of {sent} was lost: did the router do graceful restart?");
    ground.note(format!("{lost} of {sent} lost"));
    Ok(())
}
