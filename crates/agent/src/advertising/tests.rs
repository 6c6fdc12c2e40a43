use std::collections::BTreeSet;

use api::bgp_peer::Advertisement as Spec;
use bgp::{
    config::PeerAsn,
    types::{Asn, RouterId},
};

use super::*;
use crate::{
    inputs::{advertisement, overrides::Overrides},
    plan::traits::Weight,
};

fn config(name: &str, peer_asn: u32) -> PeerConfig {
    let asn = |asn| Asn::new(asn).unwrap();
    let router_id = RouterId::new("192.0.2.10".parse().unwrap()).unwrap();
    PeerConfig::new(
        name,
        "192.0.2.1".parse().unwrap(),
        router_id,
        asn(64512),
        PeerAsn::Exactly(asn(peer_asn)),
    )
}

/// Peers `(name, AS, advertisements)`; ours is 64512.
fn advertising(peers: &[(&str, u32, &str)]) -> Advertising {
    let read = |yaml: &str| {
        let specs: Vec<Spec> = serde_norway::from_str(yaml).unwrap();
        advertisement::parse(&specs).unwrap()
    };
    let peers: Vec<_> = peers.iter().map(|(name, asn, yaml)| (config(name, *asn), read(yaml))).collect();
    let everywhere =
        peers.iter().map(|(config, entries)| (config.name.to_string(), entries.clone())).collect();
    Advertising::new(peers.iter().map(|(config, advertisements)| (config, advertisements.as_slice())))
        .among(Arc::new(everywhere))
}

fn service(group: &str, overrides: Overrides) -> Traits {
    let overrides = Arc::new(overrides);
    Traits { group: group.into(), overrides, weight: Weight { ipv4: 3, ipv6: 0 }, ..Traits::default() }
}

fn outcome(advertising: &Advertising, services: &[(&Traits, u32)]) -> Outcome {
    advertising.outcome(IpFamily::IPv4, services.iter().copied()).unwrap()
}

fn standard(text: &str) -> u32 {
    match text.parse().unwrap() {
        Community::Standard(value) => value,
        other => panic!("{other}"),
    }
}

#[test]
fn peers_without_advertisements_get_everything_and_nobody_counts_classes() {
    for yaml in ["[]", "[{}]"] {
        let advertising = advertising(&[("tor1", 64513, yaml)]);
        let mut classes = Classes::default();
        let traits = service("public", Overrides::default());
        assert!(!advertising.is_selective());
        assert_eq!(classes.take(&advertising, IpFamily::IPv4, [(&traits, 1)].into_iter()), RouteClass(0));
        assert_eq!(classes.policy(&advertising, "tor1"), ExportPolicy::All);
        assert!(!classes.take_changed());
    }
}

#[test]
fn communities_of_all_that_match_and_of_the_rest_the_first_that_says_it() {
    let advertising = advertising(&[(
        "tor1",
        64513,
        "[{serviceGroups: [public], communities: ['64512:1'], med: 5}, \
          {communities: ['64512:2', '64512:1'], med: 7, localPref: 200, asPathPrepend: 2, nextHop: '2001:db8::9'}, \
          {serviceGroups: [other], communities: ['64512:3']}]",
    )]);
    let attributes = &outcome(&advertising, &[(&service("public", Overrides::default()), 1)])["tor1"];
    assert_eq!(attributes.communities, [standard("64512:1"), standard("64512:2")]);
    assert_eq!((attributes.med, attributes.local_pref, attributes.prepend), (Some(5), Some(200), 2));
    assert_eq!(attributes.next_hop, None, "an IPv6 next hop is for IPv6 routes");
}

#[test]
fn a_peer_whose_advertisements_do_not_match_does_not_get_the_route_and_the_others_do() {
    let advertising = advertising(&[("tor1", 64513, "[{serviceGroups: [public]}]"), ("tor2", 64513, "[]")]);
    let of =
        |group| outcome(&advertising, &[(&service(group, Overrides::default()), 1)]).into_keys().collect();
    let (public, private): (Vec<Arc<str>>, Vec<Arc<str>>) = (of("public"), of("private"));
    assert_eq!(public, ["tor1".into(), "tor2".into()]);
    assert_eq!(private, ["tor2".into()]);
}

fn all_overrides() -> Overrides {
    Overrides {
        communities: BTreeSet::from(["64512:9".parse().unwrap()]),
        local_pref: Some(300),
        med: Some(1),
        prepend: Some(4),
        peers: Some(BTreeSet::from(["tor2".to_owned()])),
    }
}

#[test]
fn a_service_gets_of_its_wishes_only_what_the_peer_lists() {
    let wishes = service("public", all_overrides());
    for (allowed, expected) in [
        ("", (vec![], Some(5), 0)),
        ("communities", (vec![standard("64512:9")], Some(5), 0)),
        ("med", (vec![], Some(1), 0)),
        ("prepend", (vec![], Some(5), 4)),
        ("localPref, med", (vec![], Some(1), 0)),
    ] {
        let yaml = format!("[{{med: 5, allowServiceOverrides: [{allowed}]}}]");
        let advertising = advertising(&[("tor1", 64513, &yaml)]);
        let attributes = &outcome(&advertising, &[(&wishes, 1)])["tor1"];
        let found = (attributes.communities.clone(), attributes.med, attributes.prepend);
        assert_eq!(found, expected, "{allowed}");
        assert_eq!(attributes.local_pref, allowed.contains("localPref").then_some(300));
        let forbidden = advertising.forbidden(&wishes).len();
        assert_eq!(forbidden, 5 - allowed.split(", ").filter(|kind| !kind.is_empty()).count(), "{allowed}");
    }
}

#[test]
fn an_override_that_is_allowed_for_other_services_only_is_forbidden() {
    let advertising = advertising(&[(
        "tor1",
        64513,
        "[{serviceGroups: [public], allowServiceOverrides: [med]}, {serviceGroups: [private]}]",
    )]);
    let wishes = Overrides { med: Some(1), ..Overrides::default() };
    assert!(advertising.forbidden(&service("public", wishes.clone())).is_empty());
    let private = service("private", wishes);
    assert_eq!(advertising.forbidden(&private), [ServiceOverride::Med]);
    assert_eq!(outcome(&advertising, &[(&private, 1)])["tor1"].med, None);
}

#[test]
fn a_service_may_choose_its_peers_only_where_they_let_it() {
    let wishes = service("public", all_overrides());
    let may = "[{allowServiceOverrides: [peers]}]";
    let both = advertising(&[("tor1", 64513, may), ("tor2", 64513, may)]);
    assert_eq!(outcome(&both, &[(&wishes, 1)]).into_keys().collect::<Vec<_>>(), ["tor2".into()]);
    let one = advertising(&[("tor1", 64513, "[{med: 1}]"), ("tor2", 64513, may)]);
    assert_eq!(outcome(&one, &[(&wishes, 1)]).len(), 2, "tor1 does not let it");
    let other = advertising(&[("tor1", 64513, may)]);
    assert_eq!(other.unknown_peers(&wishes), ["tor2"]);
}

#[test]
fn link_bandwidth_adds_up_endpoints_and_is_transitive_only_between_ases() {
    let yaml = "[{linkBandwidth: endpoints}]";
    let advertising = advertising(&[("outside", 64513, yaml), ("inside", 64512, yaml)]);
    assert!(advertising.weighs_endpoints());
    let traits = service("public", Overrides::default());
    let peers = outcome(&advertising, &[(&traits, 2)]);
    let rate = (6.0 * ENDPOINT_OCTETS_PER_SECOND).to_be_bytes();
    for (peer, kind) in [("outside", 0x00), ("inside", 0x40)] {
        let [a, b, c, d] = rate;
        assert_eq!(peers[peer].extended_communities, [[kind, 0x04, 0xFC, 0x00, a, b, c, d]], "{peer}");
    }
}

#[test]
fn services_behind_one_prefix_are_one_route_with_the_most_attractive_attributes() {
    let yaml = "[{serviceGroups: [a], med: 5, localPref: 50, asPathPrepend: 3, communities: ['1:1']}, \
                 {serviceGroups: [b], med: 3, localPref: 70, asPathPrepend: 1, communities: ['1:2']}]";
    let advertising = advertising(&[("tor1", 64512, yaml)]);
    let (a, b) = (service("a", Overrides::default()), service("b", Overrides::default()));
    for order in [[(&a, 1), (&b, 1)], [(&b, 1), (&a, 1)]] {
        let attributes = &outcome(&advertising, &order)["tor1"];
        assert_eq!((attributes.med, attributes.local_pref, attributes.prepend), (Some(3), Some(70), 1));
        assert_eq!(attributes.communities, [standard("1:1"), standard("1:2")]);
    }
}

#[test]
fn routes_alike_share_a_class_and_the_last_to_leave_takes_it_along() {
    let advertising = advertising(&[("tor1", 64513, "[{serviceGroups: [a], med: 5}]")]);
    let mut classes = Classes::default();
    let (a, b) = (service("a", Overrides::default()), service("b", Overrides::default()));
    let take =
        |classes: &mut Classes, traits| classes.take(&advertising, IpFamily::IPv4, [(traits, 1)].into_iter());
    let first = take(&mut classes, &a);
    assert!(classes.take_changed());
    assert_eq!(take(&mut classes, &a), first);
    assert!(!classes.take_changed());
    let other = take(&mut classes, &b);
    assert_ne!(other, first);
    let ExportPolicy::Classes(policy) = classes.policy(&advertising, "tor1") else { panic!("all") };
    assert_eq!(policy.keys().collect::<Vec<_>>(), [&first], "b's class is for nobody");
    for class in [first, first, other] {
        classes.give_back(class);
    }
    classes.forget_unused();
    assert_eq!(classes.policy(&advertising, "tor1"), ExportPolicy::Classes(BTreeMap::new()));
}

#[test]
fn while_advertisements_change_every_route_stays_known_to_the_policies() {
    let traits = service("a", Overrides::default());
    let mut classes = Classes::default();
    let plain = advertising(&[("tor1", 64513, "[]"), ("tor2", 64513, "[]")]);
    let selective = advertising(&[("tor1", 64513, "[{med: 5}]"), ("tor2", 64513, "[]")]);
    let both = advertising(&[("tor1", 64513, "[{med: 6}]"), ("tor2", 64513, "[{med: 7}]")]);
    let mut class = classes.take(&plain, IpFamily::IPv4, [(&traits, 1)].into_iter());
    for advertising in [&selective, &both, &selective] {
        let next = classes.take(advertising, IpFamily::IPv4, [(&traits, 1)].into_iter());
        for peer in ["tor1", "tor2"] {
            if let ExportPolicy::Classes(policy) = classes.policy(advertising, peer) {
                assert!(policy.contains_key(&class) && policy.contains_key(&next), "{peer}: {policy:?}");
            }
        }
        classes.give_back(class);
        classes.forget_unused();
        class = next;
    }
}

#[test]
fn what_an_owner_is_told_is_judged_by_all_bgppeers_and_not_by_those_of_one_rack() {
    let cluster = advertising(&[
        ("tor1", 64513, "[{allowServiceOverrides: [peers]}]"),
        ("tor2", 64513, "[{allowServiceOverrides: [peers, med]}]"),
    ]);
    // A node of the first rack: tor2 is not for it.
    let rack =
        advertising(&[("tor1", 64513, "[{allowServiceOverrides: [peers]}]")]).among(cluster.everywhere);
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let wishes = |peers| service("public", Overrides { med: Some(5), peers, ..Overrides::default() });
    let both = wishes(names(&["tor1", "tor2"]));
    assert!(rack.forbidden(&both).is_empty() && rack.unknown_peers(&both).is_empty());
    let typo = wishes(names(&["tor1", "tor9"]));
    assert_eq!((rack.unknown_peers(&typo), rack.names_nobody(&typo)), (vec!["tor9"], false));
    let nobody = wishes(names(&["tor8", "tor9"]));
    assert!(rack.names_nobody(&nobody));
    // Where there is no BGPPeer yet it is not the Service that is wrong.
    let empty = Advertising::default();
    assert!(empty.forbidden(&nobody).is_empty() && empty.unknown_peers(&nobody).is_empty());
    assert!(!empty.names_nobody(&nobody));
}
