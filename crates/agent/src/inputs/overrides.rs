//! What a Service asks for its own routes with annotations. Whether it may, the BGPPeers say.

use std::collections::{BTreeMap, BTreeSet};

use api::{bgp_peer::ServiceOverride, names::annotation};
use bgp::community::Community;
use serde::Serialize;

/// As often as BGPPeer allows it, too.
const MAX_PREPEND: u8 = 32;
/// As many as BGPPeer allows, too. A route with thousands fits no message, and would take with it the routes of
/// those that share its address.
const MAX_COMMUNITIES: usize = 64;

/// Attributes that a Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Overrides {
    /// `purelb.io/bgp-communities`.
    pub communities: BTreeSet<Community>,
    /// `purelb.io/bgp-local-pref`.
    pub local_pref: Option<u32>,
    /// `purelb.io/bgp-med`.
    pub med: Option<u32>,
    /// `purelb.io/bgp-prepend`.
    pub prepend: Option<u8>,
    /// `purelb.io/bgp-peers`: names of BGPPeers.
    pub peers: Option<BTreeSet<String>>,
}

/// An annotation that cannot be read: it is as if it were not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, thiserror::Error)]
#[error("{annotation}: {message}")]
pub struct Unreadable {
    /// Its name.
    pub annotation: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Overrides {
    /// Reads them all; what cannot be read is left out and returned beside them.
    pub fn parse(annotations: &BTreeMap<String, String>) -> (Overrides, Vec<Unreadable>) {
        let mut unreadable = Vec::new();
        let read = |annotation: &'static str| -> Option<(&'static str, &str)> {
            annotations.get(annotation).map(|text| (annotation, text.trim()))
        };
        let (communities, local_pref) = (read(annotation::BGP_COMMUNITIES), read(annotation::BGP_LOCAL_PREF));
        let (med, prepend, peers) =
            (read(annotation::BGP_MED), read(annotation::BGP_PREPEND), read(annotation::BGP_PEERS));
        let mut keep = |annotation, message| unreadable.push(Unreadable { annotation, message });
        let overrides = Overrides {
            communities: communities
                .and_then(|(name, text)| read_communities(text).map_err(|error| keep(name, error)).ok())
                .unwrap_or_default(),
            local_pref: local_pref
                .and_then(|(name, text)| number(text).map_err(|error| keep(name, error)).ok()),
            med: med.and_then(|(name, text)| number(text).map_err(|error| keep(name, error)).ok()),
            prepend: prepend.and_then(|(name, text)| times(text).map_err(|error| keep(name, error)).ok()),
            peers: peers.and_then(|(name, text)| names(text).map_err(|error| keep(name, error)).ok()),
        };
        (overrides, unreadable)
    }

    /// The kinds that are asked for.
    pub fn kinds(&self) -> impl Iterator<Item = ServiceOverride> + use<> {
        [
            (!self.communities.is_empty(), ServiceOverride::Communities),
            (self.local_pref.is_some(), ServiceOverride::LocalPref),
            (self.med.is_some(), ServiceOverride::Med),
            (self.prepend.is_some(), ServiceOverride::Prepend),
            (self.peers.is_some(), ServiceOverride::Peers),
        ]
        .into_iter()
        .filter_map(|(is_set, kind)| is_set.then_some(kind))
    }
}

/// The annotation of a kind.
pub fn annotation_of(kind: ServiceOverride) -> &'static str {
    match kind {
        ServiceOverride::Communities => annotation::BGP_COMMUNITIES,
        ServiceOverride::LocalPref => annotation::BGP_LOCAL_PREF,
        ServiceOverride::Med => annotation::BGP_MED,
        ServiceOverride::Prepend => annotation::BGP_PREPEND,
        ServiceOverride::Peers => annotation::BGP_PEERS,
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn read_communities(text: &str) -> Result<BTreeSet<Community>, String> {
    let count = list(text).count();
    if count > MAX_COMMUNITIES {
        return Err(format!("{count} communities are too many: expected {MAX_COMMUNITIES} at most"));
    }
    list(text).map(|part| part.parse::<Community>().map_err(|error| error.to_string())).collect()
}

/// None at all would be no BGPPeer at all, and so no route: nobody means that with an empty annotation.
fn names(text: &str) -> Result<BTreeSet<String>, String> {
    let names: BTreeSet<_> = list(text).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(format!("{text:?} names nobody: expected names of BGPPeers, separated by commas"));
    }
    Ok(names)
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number: expected 0 to 4294967295"))
}

fn times(text: &str) -> Result<u8, String> {
    let times = text.parse().ok().filter(|times| (1..=MAX_PREPEND).contains(times));
    times.ok_or_else(|| format!("{text:?} cannot be: expected 1 to {MAX_PREPEND}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> (Overrides, Vec<Unreadable>) {
        let pairs = pairs.iter().map(|(name, value)| (format!("purelb.io/{name}"), (*value).to_owned()));
        Overrides::parse(&pairs.collect())
    }

    #[test]
    fn every_annotation_is_read() {
        let (overrides, unreadable) = parse(&[
            ("bgp-communities", "64512:1, no-export,1:2:3"),
            ("bgp-local-pref", "200"),
            ("bgp-med", "0"),
            ("bgp-prepend", "3"),
            ("bgp-peers", "tor2 , tor1"),
        ]);
        assert!(unreadable.is_empty(), "{unreadable:?}");
        assert_eq!(overrides.communities.len(), 3);
        assert_eq!((overrides.local_pref, overrides.med, overrides.prepend), (Some(200), Some(0), Some(3)));
        assert_eq!(overrides.peers.clone().unwrap().into_iter().collect::<Vec<_>>(), ["tor1", "tor2"]);
        assert_eq!(overrides.kinds().count(), 5);
        assert_eq!(parse(&[]), (Overrides::default(), vec![]));
    }

    #[test]
    fn more_communities_than_a_bgppeer_may_list_are_refused() {
        let list = |count: u32| (0..count).map(|i| format!("64512:{i}")).collect::<Vec<_>>().join(",");
        let (overrides, unreadable) = parse(&[("bgp-communities", &list(64))]);
        assert_eq!((overrides.communities.len(), unreadable.len()), (64, 0));
        let (overrides, unreadable) = parse(&[("bgp-communities", &list(65)), ("bgp-med", "5")]);
        assert_eq!(overrides, Overrides { med: Some(5), ..Overrides::default() });
        let told = unreadable.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told, ["purelb.io/bgp-communities: 65 communities are too many: expected 64 at most"]);
    }

    #[test]
    fn bgp_peers_without_a_name_is_unreadable_and_not_nobody() {
        for text in ["", " , "] {
            let (overrides, unreadable) = parse(&[("bgp-peers", text)]);
            assert_eq!(overrides, Overrides::default(), "{text:?}");
            assert!(unreadable[0].to_string().contains("expected names of BGPPeers"), "{unreadable:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_told_and_the_rest_counts() {
        let (overrides, unreadable) = parse(&[
            ("bgp-communities", "64512:1,banana"),
            ("bgp-local-pref", "high"),
            ("bgp-med", "5"),
            ("bgp-prepend", "33"),
        ]);
        assert_eq!(overrides, Overrides { med: Some(5), ..Overrides::default() });
        let told: Vec<_> = unreadable.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with("purelb.io/bgp-communities: \"banana\" is no community"), "{told:?}");
        assert!(told[1].contains("expected 0 to 4294967295"), "{told:?}");
        assert!(told[2].contains("expected 1 to 32"), "{told:?}");
    }
}
