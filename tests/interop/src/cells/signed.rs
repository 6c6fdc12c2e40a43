//! TCP MD5 signatures (RFC 2385).

use bgp::{status::State, types::Family};
use lab::{PATIENCE, Result, require};

use crate::{Dials, Ground, Plan, Scene, link::address_of, scene::source};

const KEY: &str = "one-of-the-80-octets-allowed";
const OTHER: &str = "another";

/// We dial; every segment of both sides is signed.
pub fn md5(ground: &Ground) -> Result<()> {
    play(ground, Plan { md5: Some(KEY), router_md5: Some(KEY), ..Plan::default() })
}

/// The router dials: our listener knows the key.
pub fn md5_router_dials(ground: &Ground) -> Result<()> {
    play(ground, Plan { md5: Some(KEY), router_md5: Some(KEY), dials: Dials::Router, ..Plan::default() })
}

/// Over IPv6.
pub fn md5_ipv6(ground: &Ground) -> Result<()> {
    play(ground, Plan { md5: Some(KEY), router_md5: Some(KEY), ..Plan::single(Family::Ipv6Unicast) })
}

/// Another key here: no session, and the status says what it may be; with the right one there is a session.
pub fn md5_wrong_key(ground: &Ground) -> Result<()> {
    let plan = Plan { md5: Some(OTHER), router_md5: Some(KEY), ..Plan::default() };
    let scene = Scene::start(ground, plan)?;
    let peer = scene.speaker.wait_error("MD5 password", PATIENCE)?;
    require!(peer.state < State::OpenSent, "it is {}", peer.state);
    set_key(&scene, KEY)?;
    scene.wait_up()?;
    scene.finish().map(drop)
}

/// The key changes here while the session is up: the session ends, there is none with the new key that the router
/// does not know, and there is one again with the old.
pub fn md5_rotation(ground: &Ground) -> Result<()> {
    let plan = Plan { md5: Some(KEY), router_md5: Some(KEY), dials: Dials::Both, ..Plan::default() };
    let scene = Scene::start(ground, plan)?;
    scene.wait_up()?;
    set_key(&scene, OTHER)?;
    scene.speaker.wait_error("MD5 password", PATIENCE)?;
    scene.wait_router_down()?;
    set_key(&scene, KEY)?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    scene.finish().map(drop)
}

fn set_key(scene: &Scene, key: &'static str) -> Result<()> {
    let plan = Plan { md5: Some(key), ..scene.plan.clone() };
    scene.speaker.set_peers(vec![plan.peer(&scene.link)?])
}

fn play(ground: &Ground, plan: Plan) -> Result<()> {
    let scene = Scene::start(ground, plan)?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    let ends = [&scene.link.speaker, &scene.link.router].map(|end| address_of(end, scene.plan.over));
    let captured = scene.finish()?;
    for end in ends.map(source) {
        let signed = captured.packets(&format!("{end} && tcp.options.md5"), &["frame.number"])?;
        // A refusal (RST) while nobody listens is the kernel's own.
        let unsigned = format!("{end} && tcp && !tcp.options.md5 && tcp.flags.reset == 0");
        let unsigned = captured.packets(&unsigned, &["frame.number"])?;
        require!(!signed.is_empty() && unsigned.is_empty(), "{end}: unsigned segments {unsigned:?}");
    }
    Ok(())
}
