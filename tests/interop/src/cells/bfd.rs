//! BFD beside BGP (RFC 5880, RFC 5881, RFC 5883), and what the session makes of it (RFC 5882).

use std::time::Duration;

use bgp::{
    bfd,
    config::{GracefulRestartConfig, Hops},
    status::State,
    types::Family,
};
use lab::{Captured, PATIENCE, Result, require};

use crate::{
    Ground, Plan, Scene,
    link::address_of,
    plan::{BFD_INTERVAL, BFD_MULTIPLIER},
    scene::source,
};

/// Both sides are Up, every packet of ours as RFC 5881 wants it.
pub fn bfd_ipv4(ground: &Ground) -> Result<()> {
    let scene = up(ground, Plan { bfd: true, ..Plan::default() })?;
    single_hop(scene)
}

/// The same over IPv6.
pub fn bfd_ipv6(ground: &Ground) -> Result<()> {
    let scene = up(ground, Plan { bfd: true, ..Plan::single(Family::Ipv6Unicast) })?;
    single_hop(scene)
}

/// Over a router: port 4784.
pub fn bfd_multihop(ground: &Ground) -> Result<()> {
    let plan = Plan { bfd: true, hops: Hops::Multihop(2), ..Plan::default() };
    let scene = up(ground, plan)?;
    let from = source(scene.link.speaker.addresses.v4.into());
    let captured = scene.finish()?;
    // The forwarder has taken one.
    require_all(&captured, &from, "ip.ttl == 254 && udp.dstport == 4784")
}

/// The link is cut: the session ends long before its hold timer, on both sides, and comes back with the link.
pub fn bfd_link_cut(ground: &Ground) -> Result<()> {
    let scene = up(ground, Plan { bfd: true, ..Plan::default() })?;
    scene.announce_and_see()?;
    scene.link.cut()?;
    let down = scene.speaker.wait_error("BFD down: control detection time expired", PATIENCE)?;
    require!(down.state == State::Idle, "it is {} and not kept down", down.state);
    scene.wait_router_down()?;
    scene.link.heal()?;
    wait_up(&scene)?;
    scene.announce_and_see()?;
    require!(scene.speaker.peer()?.flaps == 1, "the session flapped");
    scene.finish().map(drop)
}

/// BFD is taken away here and then at the router: the session knows nothing of it. To say AdminDown would cost one with
/// BIRD and FRR, although RFC 5882 §4.2 says that it should not.
pub fn bfd_removed(ground: &Ground) -> Result<()> {
    let mut scene = up(ground, Plan { bfd: true, ..Plan::default() })?;
    let without = Plan { bfd: false, ..scene.plan.clone() };
    scene.speaker.set_peers(vec![without.peer(&scene.link)?])?;
    scene.speaker.wait("no BFD", PATIENCE, |peer| peer.bfd.is_none())?;
    scene.announce_and_see()?;
    let state = scene.router.bfd_state()?;
    require!(is_up(&state), "the router's BFD session is {state}");
    scene.router.remove_bfd()?;
    scene.wait_router("to have no BFD session", || {
        // Where there is none it says so.
        let state = scene.router.bfd_state().unwrap_or_default();
        require!(!is_up(&state), "it is {state}");
        Ok(())
    })?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    let peer = scene.speaker.peer()?;
    require!(peer.flaps == 0, "the session was lost: {:?}", peer.last_error);
    let captured = scene.finish()?;
    let ended = captured.packets("bgp.type == 3", &["frame.number"])?;
    require!(ended.is_empty(), "a NOTIFICATION was sent: {ended:?}");
    Ok(())
}

/// BFD is shut down at the router, which says so: that is no failure of the path (RFC 5882 §4.2), so our session stays.
pub fn bfd_shut_by_router(ground: &Ground) -> Result<()> {
    let mut scene = up(ground, Plan { bfd: true, ..Plan::default() })?;
    scene.announce_and_see()?;
    scene.router.shut_bfd_down()?;
    scene.speaker.wait("BFD not Up", PATIENCE, |peer| peer.bfd != Some(bfd::State::Up))?;
    scene.announce_and_see()?;
    let peer = scene.speaker.peer()?;
    require!(peer.flaps == 0, "the session was lost: {:?}", peer.last_error);
    let from = source(scene.link.speaker.addresses.v4.into());
    let captured = scene.finish()?;
    let ended = captured.packets(&format!("{from} && bgp.type == 3"), &["frame.number"])?;
    require!(ended.is_empty(), "a NOTIFICATION was sent: {ended:?}");
    Ok(())
}

/// The link is cut where both ends do graceful restart: that is no restart (RFC 5882 §4.3.2.2), so the router forgets
/// our routes long before the restart time is over, and we begin anew.
pub fn bfd_cut_restartable(ground: &Ground) -> Result<()> {
    let graceful_restart = Some(GracefulRestartConfig::default());
    let scene = up(ground, Plan { bfd: true, graceful_restart, ..Plan::default() })?;
    scene.announce_and_see()?;
    scene.link.cut()?;
    scene.speaker.wait_error("BFD down: control detection time expired", PATIENCE)?;
    for family in Family::ALL {
        scene.wait_count(family, 0)?;
    }
    scene.link.heal()?;
    wait_up(&scene)?;
    scene.announce_and_see()?;
    scene.finish().map(drop)
}

/// A scene whose session and whose BFD are up on both sides.
fn up(ground: &Ground, plan: Plan) -> Result<Scene> {
    let scene = Scene::start(ground, plan)?;
    wait_up(&scene)?;
    Ok(scene)
}

fn wait_up(scene: &Scene) -> Result<()> {
    scene.wait_up()?;
    scene.speaker.wait("BFD Up", PATIENCE, |peer| peer.bfd == Some(bfd::State::Up))?;
    scene.wait_router("its BFD session to be up", || {
        let state = scene.router.bfd_state()?;
        require!(is_up(&state), "it is {state}");
        Ok(())
    })
}

fn is_up(state: &str) -> bool {
    state.eq_ignore_ascii_case("up")
}

fn single_hop(scene: Scene) -> Result<()> {
    let from = address_of(&scene.link.speaker, scene.plan.over);
    let captured = scene.finish()?;
    let (ttl, class) = match from.is_ipv4() {
        true => ("ip.ttl == 255", "ip.dsfield.dscp == 48"),
        false => ("ipv6.hlim == 255", "ipv6.tclass.dscp == 48"),
    };
    let from = source(from);
    require_all(&captured, &from, &format!("{ttl} && {class} && udp.dstport == 3784"))?;
    require_intervals(&captured, &from)
}

/// Every BFD packet of ours is so, and comes from a port of RFC 5881 §4, always the same.
fn require_all(captured: &Captured, from: &str, rule: &str) -> Result<()> {
    let fields = ["udp.srcport"];
    let all = captured.packets(&format!("bfd && {from}"), &fields)?;
    let right = captured.packets(&format!("bfd && {from} && {rule} && udp.srcport >= 49152"), &fields)?;
    require!(!all.is_empty(), "no BFD packets of ours");
    require!(all.len() == right.len(), "{} of {} packets are as {rule:?}", right.len(), all.len());
    require!(all.iter().all(|port| *port == all[0]), "several source ports: {all:?}");
    Ok(())
}

/// While Up no two packets are further apart than the interval, but for how late a busy machine makes one. It counts
/// from when both are Up for good: FRR takes its session down and up once more while it starts.
fn require_intervals(captured: &Captured, from: &str) -> Result<()> {
    let times = captured.packets(&format!("bfd && {from} && bfd.sta == 3"), &["frame.time_epoch"])?;
    let not_up = captured.packets("bfd && bfd.sta != 3", &["frame.time_epoch"])?;
    let since: f64 = not_up.last().and_then(|time| time.parse().ok()).unwrap_or(0.0);
    let times = times.iter().filter_map(|time| time.parse::<f64>().ok());
    let times: Vec<f64> = times.filter(|time| *time > since).collect();
    require!(times.len() > 1, "we sent {} packets after both were Up", times.len());
    let detection = BFD_INTERVAL * u32::from(BFD_MULTIPLIER.get());
    let late = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    require!(Duration::from_secs_f64(late) < detection, "{late} s between two packets");
    Ok(())
}
