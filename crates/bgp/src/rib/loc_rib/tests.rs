//! What a Loc-RIB does with routes, beside a map.

use std::collections::BTreeMap;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

fn route(prefix: &str, class: u32, med: Option<u32>) -> Route {
    let attributes = Arc::new(RouteAttributes { med, ..RouteAttributes::default() });
    Route { prefix: prefix.parse().unwrap(), class: RouteClass(class), attributes }
}

#[test]
fn setting_an_equal_route_again_changes_nothing() {
    let mut rib = LocRib::default();
    assert!(rib.set(&route("192.0.2.1/32", 1, None)).is_some());
    assert_eq!(rib.set(&route("192.0.2.1/32", 1, None)), None);
    assert!(rib.set(&route("192.0.2.1/32", 2, None)).is_some(), "the class differs");
    assert!(rib.set(&route("192.0.2.1/32", 2, Some(5))).is_some(), "the attributes differ");
    assert_eq!(rib.counts(), [1, 0]);
}

#[test]
fn host_bits_do_not_make_another_route() {
    let mut rib = LocRib::default();
    rib.set(&route("192.0.2.7/24", 1, None));
    assert_eq!(rib.set(&route("192.0.2.0/24", 1, None)), None);
    assert!(rib.unset(&"192.0.2.9/24".parse().unwrap()).is_some());
    assert_eq!(rib.counts(), [0, 0]);
}

#[test]
fn a_block_stays_until_its_last_route_is_removed_and_its_last_holder_has_released_it() {
    let mut rib = LocRib::default();
    let (held, first) = rib.set(&route("192.0.2.1/32", 1, None)).unwrap();
    let second = rib.set(&route("192.0.2.2/32", 1, None)).unwrap();
    assert_eq!(second, (held, first << 1), "neighbours share a block");
    rib.hold(held);
    rib.unset(&"192.0.2.1/32".parse().unwrap());
    rib.unset(&"192.0.2.2/32".parse().unwrap());
    let (other, _) = rib.set(&route("192.0.2.64/32", 1, None)).unwrap();
    assert_ne!(held, other);
    assert_eq!(rib.neighbours(held, 1).first, "192.0.2.0/32".parse().unwrap());
    rib.release(held);
    let (again, _) = rib.set(&route("2001:db8::1/128", 1, None)).unwrap();
    assert_eq!(again, held, "the block is used again");
    assert_eq!(rib.counts(), [1, 1]);
}

#[test]
fn replace_all_with_the_same_routes_changes_nothing() {
    let mut rib = LocRib::default();
    let routes = [route("192.0.2.1/32", 1, None), route("2001:db8::1/128", 1, None)];
    let mut changed = 0;
    rib.replace_all(&routes, |_, members| changed += members.count_ones());
    assert_eq!(changed, 2);
    rib.replace_all(&routes, |_, members| assert_eq!(members, 0, "nothing changed"));
}

proptest! {
    #[test]
    fn changes_come_to_what_they_say_one_after_the_other(
        batches in prop::collection::vec(
            prop::collection::vec((0u8..12, prop::option::of((0u32..2, 0usize..3))), 0..30),
            0..6,
        ),
    ) {
        // Equal attributes from different calls, too.
        let values = [None, Some(1), Some(1)].map(|med| {
            Arc::new(RouteAttributes { med, ..RouteAttributes::default() })
        });
        let (mut rib, mut model) = (LocRib::default(), BTreeMap::new());
        for batch in batches {
            let before = model.clone();
            let mut changes = Changes::default();
            for (host, fate) in batch {
                let text = if host % 2 == 0 { format!("192.0.2.{host}/32") } else { format!("2001:db8::{host}/128") };
                let prefix: IpNet = text.parse().unwrap();
                match fate {
                    Some((class, value)) => {
                        let attributes = Arc::clone(&values[value]);
                        let route = Route { prefix, class: RouteClass(class), attributes };
                        changes.announce(&route);
                        model.insert(prefix, route);
                    }
                    None => {
                        changes.withdraw(&prefix);
                        model.remove(&prefix);
                    }
                }
            }
            let mut told = Vec::new();
            rib.apply(&changes, |block, members| told.push((block, members)));
            let told = told.into_iter().flat_map(|(block, members)| {
                let key = rib.entry(block).key;
                places(members).map(move |place| key.nth(place))
            });
            let told = told.collect::<Vec<_>>();
            for prefix in before.keys().chain(model.keys()) {
                let is_told = told.contains(prefix) || !model.contains_key(prefix);
                prop_assert!(before.get(prefix) == model.get(prefix) || is_told, "{}", prefix);
            }
            let routes = rib.routes().map(|route| (route.prefix, route)).collect::<BTreeMap<_, _>>();
            prop_assert_eq!(&routes, &model);
        }
        // Nobody uses any attributes but the routes.
        for prefix in model.keys() {
            prop_assert!(rib.unset(prefix).is_some());
        }
        prop_assert_eq!((rib.kinds.len(), rib.counts()), (0, [0, 0]));
    }

    #[test]
    fn a_loc_rib_behaves_like_a_map(
        operations in prop::collection::vec((0u8..3, 0u8..12, 0u32..3), 0..80),
    ) {
        let (mut rib, mut model) = (LocRib::default(), BTreeMap::new());
        for (operation, host, med) in operations {
            let text = if host % 2 == 0 { format!("192.0.2.{host}/32") } else { format!("2001:db8::{host}/128") };
            let route = route(&text, 0, Some(med));
            match operation {
                0 => {
                    let is_changed = model.insert(route.prefix, route.clone()) != Some(route.clone());
                    prop_assert_eq!(rib.set(&route).is_some(), is_changed);
                }
                1 => prop_assert_eq!(rib.unset(&route.prefix).is_some(), model.remove(&route.prefix).is_some()),
                _ => {
                    model.retain(|prefix, _| *prefix < route.prefix);
                    rib.replace_all(&model.values().cloned().collect::<Vec<_>>(), |_, _| {});
                }
            }
        }
        let mut routes: Vec<_> = rib.routes().collect();
        routes.sort_by_key(|route| route.prefix);
        prop_assert!(routes.iter().eq(model.values()));
        prop_assert_eq!(rib.counts().iter().sum::<usize>(), model.len());
    }
}
