//! Which peers get a route, and with what: BGPPeers' advertisements × the Services behind a prefix → the class of
//! its route and each peer's export policy.
//!
//! A class is an outcome: what every peer makes of a route. Routes with equal outcomes share a class, so the policies
//! grow with the number of different outcomes and not with the number of Services. Pure, but for the numbers that it
//! gives to outcomes.
//!
//! Where several Services are behind one prefix (a shared address, an aggregate) a peer gets it once: communities
//! are united, endpoints are added up, and of LOCAL_PREF, MED and prepending the most attractive counts.

use std::{
    collections::{BTreeMap, HashMap},
    iter,
    sync::Arc,
};

use api::{IpFamily, bgp_peer::ServiceOverride};
use bgp::{
    attributes::NextHop,
    community::{self, Community},
    config::PeerConfig,
    route::{ExportPolicy, RouteAttributes, RouteClass},
    types::Asn,
};

use crate::{inputs::advertisement::Advertisement, plan::traits::Traits};

/// Octets a second that one endpoint counts for: one gigabit. Routers compare these figures with each other only.
const ENDPOINT_OCTETS_PER_SECOND: f32 = 125_000_000.0;

/// A peer and what it gets.
#[derive(Clone, Debug, PartialEq)]
struct Rules {
    name: Arc<str>,
    local_asn: Asn,
    is_external: bool,
    /// Empty: everything as it is.
    advertisements: Vec<Advertisement>,
}

/// What the peers choose by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advertising {
    peers: Vec<Rules>,
    /// What every BGPPeer of the cluster says, other nodes' too, by name: what an owner is told is judged by these.
    everywhere: Arc<Everywhere>,
}

/// The advertisements of all BGPPeers, by name.
pub type Everywhere = BTreeMap<String, Vec<Advertisement>>;

/// What becomes of a route: attributes for each peer that gets it.
type Outcome = BTreeMap<Arc<str>, RouteAttributes>;

impl Advertising {
    /// The peers with their advertisements.
    pub fn new<'a>(peers: impl IntoIterator<Item = (&'a PeerConfig, &'a [Advertisement])>) -> Advertising {
        let rules = |(config, advertisements): (&PeerConfig, &[Advertisement])| {
            let is_plain = advertisements.iter().all(|entry| *entry == Advertisement::default());
            Rules {
                name: (&*config.name).into(),
                local_asn: config.local_asn,
                is_external: config.is_external(),
                advertisements: if is_plain { Vec::new() } else { advertisements.to_vec() },
            }
        };
        Advertising { peers: peers.into_iter().map(rules).collect(), everywhere: Arc::default() }
    }

    /// The same, where these are all BGPPeers that there are.
    #[must_use]
    pub fn among(self, everywhere: Arc<Everywhere>) -> Advertising {
        Advertising { everywhere, ..self }
    }

    /// Whether any peer chooses: else nobody need know what a Service is like.
    pub fn is_selective(&self) -> bool {
        self.entries().next().is_some()
    }

    /// Whether any peer weighs routes by endpoints.
    pub fn weighs_endpoints(&self) -> bool {
        self.entries().any(|advertisement| advertisement.weighs_endpoints)
    }

    fn entries(&self) -> impl Iterator<Item = &Advertisement> {
        self.peers.iter().flat_map(|peer| &peer.advertisements)
    }

    /// The overrides that a Service asks for and that no BGPPeer of the cluster lets it have. Nobody is blamed while
    /// there is no BGPPeer at all.
    pub fn forbidden(&self, service: &Traits) -> Vec<ServiceOverride> {
        let allowed = |kind: ServiceOverride| {
            let mut entries = self.everywhere.values().flatten();
            entries.any(|advertisement| advertisement.allows(kind) && advertisement.matches(service))
        };
        let kinds = service.overrides.kinds().filter(|_| !self.everywhere.is_empty());
        kinds.filter(|kind| !allowed(*kind)).collect()
    }

    /// Names that a Service gives in `purelb.io/bgp-peers` and that no BGPPeer of the cluster has.
    pub fn unknown_peers<'a>(&self, service: &'a Traits) -> Vec<&'a str> {
        let asked = service.overrides.peers.iter().flatten().filter(|_| !self.everywhere.is_empty());
        asked.filter(|name| !self.everywhere.contains_key(*name)).map(String::as_str).collect()
    }

    /// Whether no BGPPeer at all is among those that a Service gives in `purelb.io/bgp-peers`, and some BGPPeer heeds
    /// that: its routes go to none of those that do.
    pub fn names_nobody(&self, service: &Traits) -> bool {
        let asked = service.overrides.peers.iter().flatten().count();
        let is_heeded = !self.forbidden(service).contains(&ServiceOverride::Peers);
        asked > 0 && is_heeded && self.unknown_peers(service).len() == asked
    }

    /// The peers of this node that a Service's routes of a family are meant for.
    pub fn takers<'a>(&'a self, service: &'a Traits, family: IpFamily) -> impl Iterator<Item = &'a str> {
        let takes = move |peer: &&Rules| peer.attributes(family, iter::once((service, 1))).is_some();
        self.peers.iter().filter(takes).map(|peer| &*peer.name)
    }

    /// What the peers make of a route with these Services behind it, and how many of each; `None` where no peer
    /// chooses.
    fn outcome<'a>(
        &self,
        family: IpFamily,
        services: impl Iterator<Item = (&'a Traits, u32)> + Clone,
    ) -> Option<Outcome> {
        if !self.is_selective() {
            return None;
        }
        let attributes = |peer: &Rules| Some((peer.name.clone(), peer.attributes(family, services.clone())?));
        Some(self.peers.iter().filter_map(attributes).collect())
    }
}

impl Rules {
    /// What this peer gets; `None`: nothing.
    fn attributes<'a>(
        &self,
        family: IpFamily,
        services: impl Iterator<Item = (&'a Traits, u32)>,
    ) -> Option<RouteAttributes> {
        if self.advertisements.is_empty() {
            return Some(RouteAttributes::default());
        }
        let mut united: Option<RouteAttributes> = None;
        let mut weight: Option<u32> = None;
        for (service, count) in services {
            let matching: Vec<_> = self.matching(service).collect();
            if matching.is_empty() {
                continue;
            }
            if matching.iter().any(|advertisement| advertisement.weighs_endpoints) {
                let endpoints = service.weight.of(family).saturating_mul(count);
                weight = Some(weight.unwrap_or(0).saturating_add(endpoints));
            }
            let mine = combine(service, &matching, family);
            united = Some(match united {
                Some(others) => unite(others, mine),
                None => mine,
            });
        }
        if let (Some(attributes), Some(weight)) = (&mut united, weight) {
            attributes.add_communities([self.bandwidth(weight)]);
        }
        united
    }

    fn matching<'a>(&'a self, service: &'a Traits) -> impl Iterator<Item = &'a Advertisement> {
        let is_left_out = service.overrides.peers.as_ref().is_some_and(|peers| !peers.contains(&*self.name));
        self.advertisements.iter().filter(move |advertisement| {
            advertisement.matches(service) && !(is_left_out && advertisement.allows(ServiceOverride::Peers))
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a weight is a few bits")]
    fn bandwidth(&self, weight: u32) -> Community {
        let rate = weight.max(1) as f32 * ENDPOINT_OCTETS_PER_SECOND;
        community::link_bandwidth(self.local_asn, rate, self.is_external)
    }
}

/// One Service: communities of every advertisement that matches; of the rest, the first that says it; what the
/// Service asks for and may have comes before all of them.
fn combine(service: &Traits, matching: &[&Advertisement], family: IpFamily) -> RouteAttributes {
    let may = |kind| matching.iter().any(|advertisement| advertisement.allows(kind));
    let asked = &service.overrides;
    let mut attributes = RouteAttributes {
        local_pref: asked
            .local_pref
            .filter(|_| may(ServiceOverride::LocalPref))
            .or_else(|| matching.iter().find_map(|advertisement| advertisement.local_pref)),
        med: asked
            .med
            .filter(|_| may(ServiceOverride::Med))
            .or_else(|| matching.iter().find_map(|advertisement| advertisement.med)),
        prepend: asked
            .prepend
            .filter(|_| may(ServiceOverride::Prepend))
            .or_else(|| matching.iter().find_map(|advertisement| advertisement.prepend))
            .unwrap_or(0),
        next_hop: matching
            .iter()
            .filter_map(|advertisement| advertisement.next_hop)
            .find(|next_hop| matches!(next_hop, NextHop::V4(_)) == (family == IpFamily::IPv4)),
        ..RouteAttributes::default()
    };
    attributes.add_communities(matching.iter().flat_map(|advertisement| advertisement.communities.clone()));
    if may(ServiceOverride::Communities) {
        attributes.add_communities(asked.communities.iter().copied());
    }
    attributes
}

fn unite(mut a: RouteAttributes, b: RouteAttributes) -> RouteAttributes {
    let RouteAttributes { communities, extended_communities, large_communities, .. } = b;
    a.add_communities(communities.into_iter().map(Community::Standard));
    a.add_communities(extended_communities.into_iter().map(Community::Extended));
    a.add_communities(large_communities.into_iter().map(|(x, y, z)| Community::Large(x, y, z)));
    // Absent LOCAL_PREF is sent as 100, absent MED counts as 0 (RFC 4271 §9.1.2.2).
    a.local_pref = match (a.local_pref, b.local_pref) {
        (None, None) => None,
        (x, y) => Some(x.unwrap_or(100).max(y.unwrap_or(100))),
    };
    a.med = a.med.zip(b.med).map(|(x, y)| x.min(y));
    a.prepend = a.prepend.min(b.prepend);
    a.next_hop = a.next_hop.or(b.next_hop);
    a
}

/// The classes that routes are in.
///
/// A class is known to the policies from before the first route is in it until after the last has left it: a change
/// of advertisements replaces routes and withdraws none in between.
#[derive(Debug, Default)]
pub struct Classes {
    by_outcome: HashMap<Arc<Outcome>, RouteClass>,
    outcomes: BTreeMap<RouteClass, Entry>,
    /// Routes in the default class, from a time when no peer chose.
    plain_routes: usize,
    last: u32,
    is_changed: bool,
}

#[derive(Debug)]
struct Entry {
    outcome: Arc<Outcome>,
    routes: usize,
}

impl Classes {
    /// The class of a route with these Services behind it, and how many of each; the route is in it from now on. The
    /// default class where no peer chooses.
    pub fn take<'a>(
        &mut self,
        advertising: &Advertising,
        family: IpFamily,
        services: impl Iterator<Item = (&'a Traits, u32)> + Clone,
    ) -> RouteClass {
        let Some(outcome) = advertising.outcome(family, services) else {
            self.plain_routes += 1;
            return RouteClass::default();
        };
        let class = match self.by_outcome.get(&outcome) {
            Some(class) => *class,
            None => self.add(outcome),
        };
        if let Some(entry) = self.outcomes.get_mut(&class) {
            entry.routes += 1;
        }
        class
    }

    fn add(&mut self, outcome: Outcome) -> RouteClass {
        self.last += 1;
        let (class, outcome) = (RouteClass(self.last), Arc::new(outcome));
        self.by_outcome.insert(outcome.clone(), class);
        self.outcomes.insert(class, Entry { outcome, routes: 0 });
        self.is_changed = true;
        class
    }

    /// A route is no longer in the class.
    pub fn give_back(&mut self, class: RouteClass) {
        let routes = match self.outcomes.get_mut(&class) {
            Some(entry) => &mut entry.routes,
            None => &mut self.plain_routes,
        };
        *routes = routes.saturating_sub(1);
    }

    /// Forgets classes that no route is in: after the routes that left them have been announced anew.
    pub fn forget_unused(&mut self) {
        let by_outcome = &mut self.by_outcome;
        self.outcomes.retain(|_, entry| {
            if entry.routes == 0 {
                by_outcome.remove(&entry.outcome);
            }
            entry.routes > 0
        });
    }

    /// Whether there are classes that the peers have not been told of.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// The export policy of a peer.
    pub fn policy(&self, advertising: &Advertising, peer: &str) -> ExportPolicy {
        if !advertising.peers.iter().any(|rules| *rules.name == *peer && !rules.advertisements.is_empty()) {
            return ExportPolicy::All;
        }
        let known = self.outcomes.iter();
        let known = known.filter_map(|(class, entry)| Some((*class, entry.outcome.get(peer)?.clone())));
        let plain = (self.plain_routes > 0).then(|| (RouteClass::default(), RouteAttributes::default()));
        ExportPolicy::Classes(known.chain(plain).collect())
    }
}

#[cfg(test)]
mod tests;
