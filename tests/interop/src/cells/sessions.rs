//! Sessions of each kind: what they run over, what they carry, and the AS numbers of their ends.

use bgp::{config::Role, types::Family};
use lab::{Captured, Result, require};

use crate::{Ground, Plan, Scene};

/// A session as planned comes up and carries a prefix of each of its families.
fn carries(ground: &Ground, plan: Plan) -> Result<Captured> {
    let scene = Scene::start(ground, plan)?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    scene.finish()
}

/// IPv4 over an IPv4 session.
pub fn ipv4(ground: &Ground) -> Result<()> {
    carries(ground, Plan::single(Family::Ipv4Unicast)).map(drop)
}

/// IPv6 over an IPv6 session.
pub fn ipv6(ground: &Ground) -> Result<()> {
    carries(ground, Plan::single(Family::Ipv6Unicast)).map(drop)
}

/// Both families over one IPv4 session; IPv6 has our own IPv6 address as next hop, never a mapped one.
pub fn dual_over_ipv4(ground: &Ground) -> Result<()> {
    carries(ground, Plan::default()).map(drop)
}

/// Both families over one IPv6 session to a router that wants IPv4 next hops for IPv4.
pub fn dual_over_ipv6(ground: &Ground) -> Result<()> {
    carries(ground, Plan { over: Family::Ipv6Unicast, ..Plan::default() }).map(drop)
}

/// RFC 8950: both sides can, so IPv4 has the session's IPv6 address as next hop, in MP_REACH_NLRI.
pub fn extended_next_hop(ground: &Ground) -> Result<()> {
    let plan = Plan { over: Family::Ipv6Unicast, extended_next_hop: true, ..Plan::default() };
    let captured = carries(ground, plan)?;
    let ours = "ipv6.src == fd00:31:7::1 && bgp.update.path_attribute.mp_reach_nlri.afi == 1";
    let updates = captured.packets(ours, &["frame.number"])?;
    require!(!updates.is_empty(), "no UPDATE of ours has IPv4 in MP_REACH_NLRI");
    Ok(())
}

/// RFC 9234: we are the router's provider and insist on it; our routes say that they may only go to customers.
pub fn roles(ground: &Ground) -> Result<()> {
    let captured = carries(ground, Plan { role: Some(Role::Provider), ..Plan::default() })?;
    let ours = "ip.src == 172.31.7.1 && bgp.update.path_attribute.type_code == 35";
    let updates = captured.packets(ours, &["frame.number"])?;
    require!(!updates.is_empty(), "no UPDATE of ours has ONLY_TO_CUSTOMER");
    Ok(())
}

/// One AS: an empty AS_PATH, and LOCAL_PREF.
pub fn ibgp(ground: &Ground) -> Result<()> {
    carries(ground, Plan::internal()).map(drop)
}

/// AS numbers beyond two octets on both sides; the 2-octet field of the OPEN says AS_TRANS.
pub fn four_octet_as(ground: &Ground) -> Result<()> {
    let captured = carries(ground, Plan::default().with_as(4_200_000_001, 4_200_000_002))?;
    for field in captured.packets("bgp.type == 1", &["bgp.open.myas"])? {
        require!(field == "23456", "an OPEN says AS {field} in its 2-octet field, not AS_TRANS");
    }
    Ok(())
}
