//! Path attributes beyond those that every route has.

use std::{collections::BTreeSet, sync::Arc};

use bgp::{
    route::{Route, RouteAttributes},
    types::Family,
};
use lab::{Result, require};

use crate::{
    Ground, Plan, Scene, router,
    scene::{plain, prefix},
};

/// Announces a prefix of each family with these attributes and hands what the router has of them to `check`.
fn arrive(
    ground: &Ground,
    plan: Plan,
    attributes: RouteAttributes,
    check: impl Fn(&router::Route) -> Result<()>,
) -> Result<()> {
    let scene = Scene::start(ground, plan)?;
    scene.wait_up()?;
    let attributes = Arc::new(attributes);
    let prefixes = Family::ALL.map(|family| prefix(family, 1));
    let routes = prefixes.map(|prefix| Route { attributes: Arc::clone(&attributes), ..plain(prefix) });
    scene.speaker.announce(routes.to_vec())?;
    prefixes.into_iter().try_for_each(|prefix| check(&scene.wait_any_route(prefix)?))?;
    scene.finish().map(drop)
}

fn words(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Communities, extended communities and large communities, two of each.
pub fn communities(ground: &Ground) -> Result<()> {
    let route_target = |value: u8| [0x00, 0x02, 0xfc, 0x00, 0, 0, 0, value];
    let attributes = RouteAttributes {
        communities: vec![64512 << 16 | 1, 64512 << 16 | 2],
        extended_communities: vec![route_target(5), route_target(6)],
        large_communities: vec![(64512, 1, 2), (4_200_000_001, 3, 4_000_000_000)],
        ..RouteAttributes::default()
    };
    arrive(ground, Plan::default(), attributes, |path| {
        require!(path.communities == words(&["64512:1", "64512:2"]), "communities {:?}", path.communities);
        let extended = words(&["rt:64512:5", "rt:64512:6"]);
        require!(path.extended_communities == extended, "extended {:?}", path.extended_communities);
        let large = words(&["64512:1:2", "4200000001:3:4000000000"]);
        require!(path.large_communities == large, "large {:?}", path.large_communities);
        Ok(())
    })
}

/// MULTI_EXIT_DISC, and our AS three times.
pub fn med_and_prepend(ground: &Ground) -> Result<()> {
    let attributes = RouteAttributes { med: Some(77), prepend: 2, ..RouteAttributes::default() };
    arrive(ground, Plan::default(), attributes, |path| {
        require!(path.med == Some(77), "MED {:?}", path.med);
        require!(path.as_path == [64512; 3], "AS_PATH {:?}", path.as_path);
        Ok(())
    })
}

/// LOCAL_PREF on iBGP.
pub fn local_pref(ground: &Ground) -> Result<()> {
    let attributes = RouteAttributes { local_pref: Some(250), ..RouteAttributes::default() };
    arrive(ground, Plan::internal(), attributes, |path| {
        require!(path.local_pref == Some(250), "LOCAL_PREF {:?}", path.local_pref);
        require!(path.as_path.is_empty(), "AS_PATH {:?}", path.as_path);
        Ok(())
    })
}
