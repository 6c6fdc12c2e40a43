//! How sessions end, from either side, and come back.

use bgp::{
    config::{PeerConfig, ShutdownMode},
    notification::{
        CEASE_ADMINISTRATIVE_SHUTDOWN, CEASE_PEER_DECONFIGURED, Code, HOLD_TIMER_EXPIRED, OPEN_BAD_PEER_AS,
    },
    status::State,
    types::Family,
};
use lab::{PATIENCE, Result, require};

use crate::{Ground, Plan, Scene, scene::prefix};

/// Codes that have subcodes.
const OPEN_ERROR: u8 = OPEN_BAD_PEER_AS.0;
const CEASE: u8 = CEASE_PEER_DECONFIGURED.0;

/// What an operator types.
const TEXT: &str = "ticket 4711: new line cards at 21:00";

/// A session with the shortest hold time that has a prefix of each family at the router.
fn short_lived(ground: &Ground) -> Result<Scene> {
    let scene = Scene::start(ground, Plan { hold_secs: 3, ..Plan::default() })?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    Ok(scene)
}

fn wait_routes(scene: &Scene) -> Result<()> {
    Family::ALL.into_iter().try_for_each(|family| scene.wait_route(prefix(family, 1)).map(drop))
}

fn wait_no_routes(scene: &Scene) -> Result<()> {
    Family::ALL.into_iter().try_for_each(|family| scene.wait_count(family, 0))
}

fn wait_received(scene: &Scene, (code, subcode): Code) -> Result<()> {
    scene.wait_router(&format!("to say that NOTIFICATION {code}/{subcode} came"), || {
        require!(scene.router.has_received((code, subcode))?, "it does not");
        Ok(())
    })
}

fn wait_sent(scene: &Scene, (code, subcode): Code) -> Result<()> {
    scene.wait_router(&format!("to say that it sent NOTIFICATION {code}/{subcode}"), || {
        require!(scene.router.has_sent((code, subcode))?, "it does not");
        Ok(())
    })
}

/// The NOTIFICATION on the wire, from the speaker or from the router.
fn require_notification(scene: Scene, from_speaker: bool, (code, subcode): Code) -> Result<()> {
    let source = if from_speaker { scene.link.speaker.addresses.v4 } else { scene.link.router.addresses.v4 };
    let captured = scene.finish()?;
    let minor = match code {
        OPEN_ERROR => format!("&& bgp.notify.minor_error_open == {subcode}"),
        CEASE => format!("&& bgp.notify.minor_error_cease == {subcode}"),
        // The others that are looked for have no subcode.
        _ => String::new(),
    };
    let sent = format!("bgp.type == 3 && ip.src == {source}");
    let found = captured
        .packets(&format!("{sent} && bgp.notify.major_error == {code} {minor}"), &["frame.number"])?;
    let all = captured.packets(&sent, &["bgp.notify.major_error", "_ws.col.info"])?;
    require!(!found.is_empty(), "no NOTIFICATION {code}/{subcode} from {source}, but {all:?}");
    Ok(())
}

/// A router that stands still: our hold timer ends the session and says so; afterwards all is as before.
pub fn router_frozen(ground: &Ground) -> Result<()> {
    let mut scene = short_lived(ground)?;
    scene.router.process().pause()?;
    let peer = scene.speaker.wait_error("hold timer expired (4/0)", PATIENCE)?;
    require!(peer.flaps == 1, "{} sessions were lost", peer.flaps);
    scene.router.process().resume()?;
    scene.wait_up()?;
    wait_routes(&scene)?;
    require_notification(scene, true, HOLD_TIMER_EXPIRED)
}

/// A speaker that stands still: the router drops its routes; afterwards all is as before.
pub fn speaker_frozen(ground: &Ground) -> Result<()> {
    let scene = short_lived(ground)?;
    let frozen = scene.speaker.freeze()?;
    wait_no_routes(&scene)?;
    wait_sent(&scene, HOLD_TIMER_EXPIRED)?;
    drop(frozen);
    scene.speaker.wait_error("hold timer expired (4/0)", PATIENCE)?;
    scene.wait_up()?;
    wait_routes(&scene)?;
    require_notification(scene, false, HOLD_TIMER_EXPIRED)
}

/// The router's operator shuts the session down; our status shows the code and the text.
pub fn router_shutdown(ground: &Ground) -> Result<()> {
    let mut scene = Scene::start(ground, Plan::default())?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    scene.router.shut_down(TEXT)?;
    let peer = scene.speaker.wait_error(TEXT, PATIENCE)?;
    let error = peer.last_error.unwrap_or_default();
    require!(error.contains("received NOTIFICATION: cease: administrative shutdown (6/2)"), "{error}");
    wait_no_routes(&scene)?;
    require_notification(scene, false, CEASE_ADMINISTRATIVE_SHUTDOWN)
}

/// We shut down for good; the router shows the code and the text and drops our routes.
pub fn speaker_shutdown(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan::default())?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    scene.speaker.shut_down(ShutdownMode::Administrative(TEXT.to_owned()));
    wait_received(&scene, CEASE_ADMINISTRATIVE_SHUTDOWN)?;
    scene.wait_router("to show our text", || {
        require!(scene.router.has_shutdown_text(TEXT)?, "it does not");
        Ok(())
    })?;
    wait_no_routes(&scene)?;
    require_notification(scene, true, CEASE_ADMINISTRATIVE_SHUTDOWN)
}

/// We are about to leave (RFC 8326): every route comes again with GRACEFUL_SHUTDOWN, on the same session.
pub fn graceful_shutdown(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan::internal())?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    let leaving = PeerConfig { graceful_shutdown: true, ..scene.plan.peer(&scene.link)? };
    scene.speaker.set_peers(vec![leaving])?;
    for family in Family::ALL {
        scene.wait_router("to have the route marked", || {
            let route = scene.router.route(prefix(family, 1))?;
            let route = route.ok_or_else(|| lab::Error::unmet("the route is gone"))?;
            let names = ["65535:0", "graceful-shutdown", "GRACEFUL_SHUTDOWN"];
            let is_marked = names.iter().any(|name| route.communities.contains(*name));
            require!(is_marked && route.local_pref == Some(0), "it is {route:?}");
            Ok(())
        })?;
    }
    let flaps = scene.speaker.peer()?.flaps;
    require!(flaps == 0, "the session was lost {flaps} times");
    scene.finish().map(drop)
}

/// A peer taken out of our configuration is told so.
pub fn peer_removed(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan::default())?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    scene.speaker.set_peers(Vec::new())?;
    wait_received(&scene, CEASE_PEER_DECONFIGURED)?;
    wait_no_routes(&scene)?;
    require_notification(scene, true, CEASE_PEER_DECONFIGURED)
}

/// The router goes and comes back: so do session and routes, without anyone doing anything here.
pub fn router_restart(ground: &Ground) -> Result<()> {
    let mut scene = Scene::start(ground, Plan::default())?;
    scene.wait_up()?;
    scene.announce_and_see()?;
    scene.router.restart()?;
    scene.speaker.wait("a lost session that is up again", PATIENCE, |peer| {
        peer.flaps >= 1 && peer.state == State::Established
    })?;
    scene.wait_up()?;
    wait_routes(&scene)?;
    scene.finish().map(drop)
}

/// The router expects another AS than ours and says so; our status shows it.
pub fn as_refused_by_router(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan { speaker_as_at_router: 64999, ..Plan::default() })?;
    let words = "received NOTIFICATION: OPEN message error: peer AS differs from configuration (2/2)";
    let peer = scene.speaker.wait_error(words, PATIENCE)?;
    require!(peer.flaps == 0, "a session was established with the wrong AS");
    wait_sent(&scene, OPEN_BAD_PEER_AS)?;
    require_notification(scene, false, OPEN_BAD_PEER_AS)
}

/// The router has another AS than we expect: our status says which and which, the router hears why.
pub fn as_refused_by_speaker(ground: &Ground) -> Result<()> {
    let scene = Scene::start(ground, Plan { router_as_at_speaker: 64999, ..Plan::default() })?;
    let words = "the peer says it is AS 65001, but AS 64999 is configured";
    let peer = scene.speaker.wait_error(words, PATIENCE)?;
    require!(peer.flaps == 0, "a session was established with the wrong AS");
    wait_received(&scene, OPEN_BAD_PEER_AS)?;
    require_notification(scene, true, OPEN_BAD_PEER_AS)
}
