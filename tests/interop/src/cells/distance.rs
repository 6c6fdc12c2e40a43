//! How far away a router may be, and how the TTL tells.

use bgp::config::Hops;
use lab::{Result, require};

use crate::{Ground, Plan, Scene};

/// A router behind another one; eBGP with the TTL of two hops.
pub fn multihop(ground: &Ground) -> Result<()> {
    // The forwarder takes one: at the router's end ours arrive with 1, its own leave with 2.
    // Messages only: a listener that does not know yet who dials answers with the TTL of RFC 5082.
    ttls(ground, Hops::Multihop(2), "tcp.len > 0", ["1", "2"])
}

/// TTL security on both sides: every packet of both has 255, the first SYN and its answer included.
pub fn ttl_security(ground: &Ground) -> Result<()> {
    // But a refusal (RST), which is the kernel's own.
    ttls(ground, Hops::TtlSecurity(1), "tcp.flags.reset == 0", ["255", "255"])
}

/// A session at this distance; the TTLs at the router's end of these packets of the speaker, and of the router.
fn ttls(ground: &Ground, hops: Hops, packets: &str, expected: [&str; 2]) -> Result<()> {
    let scene = Scene::start(ground, Plan { hops, ..Plan::default() })?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    let ends = [scene.link.speaker.addresses.v4, scene.link.router.addresses.v4];
    let captured = scene.finish()?;
    for (end, expected) in ends.into_iter().zip(expected) {
        let ttls = captured.packets(&format!("ip.src == {end} && {packets}"), &["ip.ttl"])?;
        require!(!ttls.is_empty(), "no packets from {end}");
        require!(ttls.iter().all(|ttl| ttl == expected), "packets from {end} with TTLs {ttls:?}");
    }
    Ok(())
}
