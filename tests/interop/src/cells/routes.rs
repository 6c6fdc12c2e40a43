//! Routes that come, go, come again, and are many.

use bgp::types::Family;
use lab::{Captured, PATIENCE, Result, require};

use crate::{
    Ground, Plan, Scene,
    scene::{is_long_message, plain, prefix},
};

/// How many prefixes of each family are many.
const MANY: u16 = 10_000;

/// End-of-RIB arrives for each family, with routes and without.
pub fn end_of_rib(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan::default())?;
    scene.wait_up()?;
    for family in Family::ALL {
        scene.wait_router(&format!("to have seen End-of-RIB of {family}"), || {
            require!(scene.router.has_end_of_rib(family)?, "it has not");
            Ok(())
        })?;
    }
    scene.finish().map(drop)
}

/// Of two prefixes of each family one is withdrawn; the router has exactly the other.
pub fn withdraw(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan::default())?;
    scene.wait_up()?;
    let both = |number| Family::ALL.map(|family| prefix(family, number));
    scene.speaker.announce([both(1), both(2)].concat().into_iter().map(plain).collect())?;
    for family in Family::ALL {
        scene.wait_count(family, 2)?;
    }
    scene.speaker.withdraw(both(1).to_vec())?;
    for family in Family::ALL {
        scene.wait_count(family, 1)?;
        require!(scene.router.route(prefix(family, 1))?.is_none(), "the withdrawn prefix is still there");
        scene.wait_route(prefix(family, 2))?;
    }
    scene.finish().map(drop)
}

/// The router asks with ROUTE-REFRESH, and every prefix is sent a second time on the same session.
pub fn route_refresh(ground: &Ground) -> Result<()> {
    refreshed(ground).map(drop)
}

fn refreshed(ground: &Ground) -> Result<Captured> {
    let mut scene = Scene::start(ground, Plan::default())?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    let before = scene.speaker.peer()?.updates_sent;
    scene.router.refresh()?;
    let again = before + 2;
    scene.speaker.wait("both families sent again", PATIENCE, |peer| peer.updates_sent >= again)?;
    let flaps = scene.speaker.peer()?.flaps;
    require!(flaps == 0, "the session was lost {flaps} times");
    for family in Family::ALL {
        scene.wait_route(prefix(family, 1))?;
    }
    let captured = scene.finish()?;
    let asked = captured.packets("bgp.type == 5", &["bgp.route_refresh.afi"])?;
    for afi in ["1", "2"] {
        let is_asked = asked.iter().any(|asked| asked.split(',').any(|asked| asked == afi));
        require!(is_asked, "no ROUTE-REFRESH for AFI {afi} in the capture, only {asked:?}");
    }
    Ok(captured)
}

/// The router asks again, and what comes stands between Beginning and End of Route Refresh (RFC 7313).
pub fn enhanced_route_refresh(ground: &Ground) -> Result<()> {
    let captured = refreshed(ground)?;
    let ours = captured.packets("bgp.type == 5 && ip.src == 172.31.7.1", &["bgp.route_refresh.subtype"])?;
    for (subtype, name) in [("1", "Beginning"), ("2", "End")] {
        let is_said = ours.iter().any(|said| said.split(',').any(|said| said == subtype));
        require!(is_said, "no {name} of Route Refresh of ours in the capture, only {ours:?}");
    }
    Ok(())
}

/// A table that fits into few messages of more than 4,096 octets (RFC 8654).
pub fn extended_message(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan { extended_message: true, ..Plan::default() })?;
    scene.wait_up()?;
    let all = (0..MANY).map(|number| prefix(Family::Ipv4Unicast, number));
    scene.speaker.announce(all.map(plain).collect())?;
    scene.wait_count(Family::Ipv4Unicast, usize::from(MANY))?;
    scene.wait_route(prefix(Family::Ipv4Unicast, MANY - 1))?;
    let captured = scene.finish()?;
    let long = captured.packets("ip.src == 172.31.7.1 && bgp.length.invalid", &["_ws.expert.message"])?;
    let is_sent = long.iter().any(|shown| is_long_message(shown));
    require!(is_sent, "no message of ours has more than 4,096 octets: {long:?}");
    Ok(())
}

/// 10,000 prefixes of each family come and go.
pub fn ten_thousand(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan::default())?;
    scene.wait_up()?;
    let all =
        (0..MANY).flat_map(|number| Family::ALL.map(|family| prefix(family, number))).collect::<Vec<_>>();
    scene.speaker.announce(all.iter().copied().map(plain).collect())?;
    for family in Family::ALL {
        scene.wait_count(family, usize::from(MANY))?;
        for number in [0, MANY - 1] {
            scene.wait_route(prefix(family, number))?;
        }
    }
    scene.speaker.withdraw(all)?;
    for family in Family::ALL {
        scene.wait_count(family, 0)?;
    }
    scene.finish().map(drop)
}
