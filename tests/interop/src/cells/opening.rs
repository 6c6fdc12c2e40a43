//! Who opens the connection, and what becomes of two of them (RFC 4271 §6.8).

use std::net::Ipv4Addr;

use lab::{PATIENCE, Result, require, until};

use crate::{Dials, Ground, Muted, Plan, Scene};

/// The speaker dials and does not listen; the router waits.
pub fn speaker_dials(ground: &Ground) -> Result<()> {
    one_connection(ground, Dials::Speaker, (1, 0))
}

/// The speaker is passive; the router dials.
pub fn router_dials(ground: &Ground) -> Result<()> {
    one_connection(ground, Dials::Router, (0, 1))
}

/// Both dial and listen; whoever comes first, there is one connection in the end.
pub fn both_dial(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan { dials: Dials::Both, ..Plan::default() })?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    until("one connection", PATIENCE, || {
        let (ours, theirs) = scene.link.connections()?;
        require!(ours + theirs == 1, "{ours} of ours, {theirs} of the router's");
        Ok::<_, lab::Error>(())
    })?;
    scene.finish().map(drop)
}

/// Both dial, we have the higher identifier: our connection stays.
pub fn simultaneous_open_won(ground: &Ground) -> Result<()> {
    collision(ground, Ipv4Addr::new(10, 0, 0, 3), (1, 0))
}

/// Both dial, the router has the higher identifier: its connection stays.
pub fn simultaneous_open_lost(ground: &Ground) -> Result<()> {
    collision(ground, Ipv4Addr::new(10, 0, 0, 1), (0, 1))
}

fn one_connection(ground: &Ground, dials: Dials, expected: (usize, usize)) -> Result<()> {
    let scene = Scene::start(ground, Plan { dials, ..Plan::default() })?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    wait_connections(&scene, expected)?;
    scene.finish().map(drop)
}

/// Lets both connections come up before either OPEN arrives, and both OPENs arrive before either session is
/// established, so that they always collide.
fn collision(ground: &Ground, speaker_id: Ipv4Addr, expected: (usize, usize)) -> Result<()> {
    let plan = Plan { dials: Dials::Both, speaker_id, ..Plan::default() };
    let scene = Scene::start_with(ground, plan, |link| link.mute(Muted::All))?;
    wait_connections(&scene, (1, 1))?;
    scene.link.mute(Muted::Keepalives)?;
    wait_connections(&scene, expected)?;
    scene.link.unmute()?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    wait_connections(&scene, expected)?;
    require!(scene.speaker.peer()?.flaps == 0, "an established session was lost over the collision");
    scene.finish().map(drop)
}

/// Waits for so many connections that we and that the router opened.
fn wait_connections(scene: &Scene, expected: (usize, usize)) -> Result<()> {
    until(format!("connections (ours, the router's) {expected:?}"), PATIENCE, || {
        let found = scene.link.connections()?;
        require!(found == expected, "{found:?}; {:?}", scene.speaker.peer()?.last_error);
        Ok::<_, lab::Error>(())
    })
}
