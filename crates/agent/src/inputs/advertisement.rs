//! `advertisements[]` of a BGPPeer, understood: which routes the router gets, and with what.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use api::{
    Refusal,
    bgp_peer::{Advertisement as Spec, LinkBandwidth, ServiceOverride},
    selector_matches,
};
use bgp::{attributes::NextHop, community::Community};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::plan::traits::Traits;

/// One entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advertisement {
    /// Empty: every remote group.
    groups: BTreeSet<Arc<str>>,
    selector: Option<LabelSelector>,
    /// To be added.
    pub communities: Vec<Community>,
    /// On iBGP.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Beyond the one of RFC 4271.
    pub prepend: Option<u8>,
    /// A link bandwidth community, weighted by the endpoints on this node.
    pub weighs_endpoints: bool,
    /// Instead of this node.
    pub next_hop: Option<NextHop>,
    /// What Services may set for themselves.
    pub overrides: BTreeSet<ServiceOverride>,
}

impl Advertisement {
    /// Whether it is about routes of such a Service at all; which peers the Service names is not looked at.
    pub fn matches(&self, service: &Traits) -> bool {
        (self.groups.is_empty() || self.groups.contains(&service.group))
            && self.selector.as_ref().is_none_or(|selector| selector_matches(selector, &service.labels))
    }

    /// Whether Services may set this for themselves.
    pub fn allows(&self, kind: ServiceOverride) -> bool {
        self.overrides.contains(&kind)
    }
}

/// Reads all entries of a BGPPeer. Empty: everything is announced as it is.
pub fn parse(specs: &[Spec]) -> Result<Vec<Advertisement>, Refusal> {
    specs.iter().enumerate().map(|(i, spec)| entry(spec, &format!("spec.advertisements[{i}]"))).collect()
}

fn entry(spec: &Spec, path: &str) -> Result<Advertisement, Refusal> {
    let communities = spec.communities.iter().enumerate().map(|(i, text)| {
        text.parse::<Community>()
            .map_err(|error| Refusal::invalid(format!("{path}.communities[{i}]"), error.to_string()))
    });
    let next_hop = spec.next_hop.as_deref().map(|text| next_hop(text, path)).transpose()?;
    Ok(Advertisement {
        groups: spec.service_groups.iter().map(|name| name.as_str().into()).collect(),
        selector: spec.service_selector.clone(),
        communities: communities.collect::<Result<_, _>>()?,
        local_pref: spec.local_pref,
        med: spec.med,
        prepend: spec.as_path_prepend,
        weighs_endpoints: spec.link_bandwidth == Some(LinkBandwidth::Endpoints),
        next_hop,
        overrides: spec.allow_service_overrides.iter().copied().collect(),
    })
}

fn next_hop(text: &str, path: &str) -> Result<NextHop, Refusal> {
    let path = || format!("{path}.nextHop");
    let address: IpAddr = text.parse().map_err(|_| {
        Refusal::invalid(path(), format!("{text:?} is not an address: expected one like 192.0.2.1"))
    })?;
    // 240.0.0.0/4 is of no use as an address (RFC 1112 §4). A link-local address, which says nothing beyond its link, is no
    // global next hop (RFC 2545 §3), and an IPv4 address goes by itself.
    let cannot_be = match address {
        IpAddr::V4(address) => address.octets().first().is_some_and(|first| *first >= 240),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    if cannot_be || address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err(Refusal::invalid(
            path(),
            format!("{address} cannot be a next hop: expected a unicast address that is not link-local"),
        ));
    }
    Ok(match address {
        IpAddr::V4(address) => NextHop::V4(address),
        IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(yaml: &str) -> Result<Vec<Advertisement>, Refusal> {
        let specs: Vec<Spec> = serde_norway::from_str(yaml).unwrap();
        parse(&specs)
    }

    fn service(group: &str, labels: &[(&str, &str)]) -> Traits {
        let labels: BTreeMap<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Traits { group: group.into(), labels: Arc::new(labels), ..Traits::default() }
    }

    #[test]
    fn groups_and_labels_say_which_services_it_is_about() {
        let entries = read(
            "[{serviceGroups: [public, dmz]}, {serviceSelector: {matchLabels: {tier: web}}}, \
             {serviceGroups: [public], serviceSelector: {matchLabels: {tier: web}}}, {}]",
        )
        .unwrap();
        for (service, expected) in [
            (service("public", &[]), [true, false, false, true]),
            (service("dmz", &[("tier", "web")]), [true, true, false, true]),
            (service("public", &[("tier", "web")]), [true, true, true, true]),
            (service("other", &[("tier", "db")]), [false, false, false, true]),
        ] {
            let matched: Vec<bool> = entries.iter().map(|entry| entry.matches(&service)).collect();
            assert_eq!(matched, expected, "{service:?}");
        }
    }

    #[test]
    fn every_field_is_understood() {
        let entries = read(
            "[{communities: ['64512:1', no-export, '1:2:3', 'rt:1:2'], localPref: 200, med: 5, \
             asPathPrepend: 2, linkBandwidth: endpoints, nextHop: 192.0.2.9, allowServiceOverrides: [med, peers]}]",
        )
        .unwrap();
        let entry = &entries[0];
        assert_eq!(entry.communities.len(), 4);
        assert_eq!((entry.local_pref, entry.med, entry.prepend), (Some(200), Some(5), Some(2)));
        assert!(entry.weighs_endpoints && entry.allows(ServiceOverride::Med));
        assert!(!entry.allows(ServiceOverride::Communities));
        assert_eq!(entry.next_hop, Some(NextHop::V4("192.0.2.9".parse().unwrap())));
    }

    #[test]
    fn bad_values_are_refused_with_their_field() {
        for (yaml, path) in [
            ("[{}, {communities: ['1:2', '70000:1']}]", "spec.advertisements[1].communities[1]"),
            ("[{nextHop: banana}]", "spec.advertisements[0].nextHop"),
            ("[{nextHop: 224.0.0.1}]", "spec.advertisements[0].nextHop"),
            ("[{nextHop: 240.0.0.1}]", "spec.advertisements[0].nextHop"),
            ("[{nextHop: 255.255.255.255}]", "spec.advertisements[0].nextHop"),
            ("[{nextHop: 'fe80::1'}]", "spec.advertisements[0].nextHop"),
            ("[{nextHop: '::ffff:192.0.2.1'}]", "spec.advertisements[0].nextHop"),
        ] {
            assert_eq!(read(yaml).unwrap_err().path, path);
        }
    }
}
