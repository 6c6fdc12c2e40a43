//! How far away a router may be, and how the TTL tells.

use std::net::Ipv4Addr;

use bgp::{config::Hops, types::Family};
use lab::{Captured, Result, require};

use crate::{Dials, Ground, Plan, Scene};

/// A router behind another one; eBGP with the TTL of two hops.
pub fn multihop(ground: &Ground) -> Result<()> {
    // The forwarder takes one of our two.
    let plan = Plan { hops: Hops::Multihop(2), ..Plan::default() };
    let (captured, [speaker, _]) = play(ground, plan)?;
    require_ttl(&captured, speaker, "tcp.len > 0", "1")
}

/// TTL security on both sides, we dial: every packet of both has 255, from the first SYN and its answer on.
pub fn ttl_security(ground: &Ground) -> Result<()> {
    secured(ground, Dials::Speaker)
}

/// The same where the router dials: what answers to strangers has 255, too.
pub fn ttl_security_router_dials(ground: &Ground) -> Result<()> {
    secured(ground, Dials::Router)
}

fn secured(ground: &Ground, dials: Dials) -> Result<()> {
    let plan = Plan { hops: Hops::TtlSecurity(1), dials, ..Plan::default() };
    let (captured, ends) = play(ground, plan)?;
    // A refusal (RST) is the kernel's own.
    ends.into_iter().try_for_each(|end| require_ttl(&captured, end, "tcp.flags.reset == 0", "255"))
}

/// A session at this distance that carries prefixes; its capture at the router's end, and the addresses of the
/// speaker and of the router.
fn play(ground: &Ground, plan: Plan) -> Result<(Captured, [Ipv4Addr; 2])> {
    let scene = Scene::start(ground, plan)?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    let ends = [scene.link.speaker.addresses.v4, scene.link.router.addresses.v4];
    Ok((scene.finish()?, ends))
}

/// All of these packets from an end have this TTL.
fn require_ttl(captured: &Captured, end: Ipv4Addr, packets: &str, expected: &str) -> Result<()> {
    let ttls = captured.packets(&format!("ip.src == {end} && {packets}"), &["ip.ttl"])?;
    require!(!ttls.is_empty(), "no packets from {end}");
    require!(ttls.iter().all(|ttl| ttl == expected), "packets from {end} with TTLs {ttls:?}");
    Ok(())
}

/// Unnumbered: both sides learn each other's link-local address from Router Advertisements, the speaker the router's
/// AS from its OPEN; prefixes of both families have IPv6 next hops (RFC 8950).
pub fn unnumbered(ground: &Ground) -> Result<()> {
    let plan =
        Plan { unnumbered: true, extended_next_hop: true, over: Family::Ipv6Unicast, ..Plan::default() };
    let scene = Scene::start(ground, plan)?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    scene.finish().map(drop)
}
