//! Loc-RIB → Adj-RIB-Out: what one session makes of a route (RFC 4271 §5.1, §9.1.3): whether its peer gets it,
//! and with which AS_PATH, next hop, LOCAL_PREF and communities.

use std::net::{IpAddr, Ipv6Addr};

use crate::{
    attributes::{Attributes, NextHop},
    community::{Community, GRACEFUL_SHUTDOWN, is_link_bandwidth},
    config::OwnNextHops,
    route::{ExportPolicy, RouteAttributes, RouteClass},
    types::{Asn, Family},
};

/// LOCAL_PREF of a route that says none (RFC 4271 §9.1.1 leaves it to policy; 100 is what everyone takes).
const DEFAULT_LOCAL_PREF: u32 = 100;

/// What export needs to know of a session. Two equal ones export equally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exporter {
    pub(crate) local_asn: Asn,
    /// iBGP: the peer has our AS.
    pub(crate) is_internal: bool,
    /// Our end of the session.
    pub(crate) local_address: IpAddr,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub(crate) extended_next_hop: bool,
    /// Families of the session.
    pub(crate) families: Vec<Family>,
    pub(crate) next_hops: OwnNextHops,
    /// Our role is one whose routes may only go on to customers (RFC 9234 §5).
    pub(crate) is_downwards: bool,
    /// We are about to leave (RFC 8326).
    pub(crate) is_leaving: bool,
    pub(crate) policy: ExportPolicy,
}

/// What becomes of a route on a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Export {
    /// The policy or the families of the session leave it out.
    Filtered,
    /// It should go out but has no next hop.
    Unsendable,
    /// It goes out like this.
    Route(Exported),
}

/// A route as its peer sees it, but for the prefix. Equal values share their UPDATEs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Exported {
    pub(crate) family: Family,
    pub(crate) next_hop: NextHop,
    pub(crate) attributes: Attributes,
}

impl Exporter {
    /// What this session makes of routes of this family, class and attributes.
    pub(crate) fn export(&self, family: Family, class: RouteClass, route: &RouteAttributes) -> Export {
        if !self.families.contains(&family) {
            return Export::Filtered;
        }
        let none = RouteAttributes::default();
        let added = match &self.policy {
            ExportPolicy::All => &none,
            ExportPolicy::Classes(classes) => match classes.get(&class) {
                Some(added) => added,
                None => return Export::Filtered,
            },
        };
        let own = added.next_hop.or(route.next_hop);
        match own.map_or_else(|| self.next_hop(family), |own| self.accept(family, own)) {
            Some(next_hop) => {
                Export::Route(Exported { family, next_hop, attributes: self.attributes(route, added) })
            }
            None => Export::Unsendable,
        }
    }

    /// Why routes of this family have no next hop, in words.
    pub(crate) fn reason(&self, family: Family) -> String {
        let (own, other) = match family {
            Family::Ipv4Unicast => ("IPv4", "IPv6"),
            Family::Ipv6Unicast => ("IPv6", "IPv4"),
        };
        if self.local_address.is_ipv4() == (family == Family::Ipv4Unicast) {
            return format!("{own} routes ask for a next hop that this session cannot carry");
        }
        let or_else = match family {
            Family::Ipv4Unicast => " and the peer does not take IPv6 next hops (RFC 8950)",
            Family::Ipv6Unicast => "",
        };
        format!(
            "{own} routes need an {own} next hop: the session runs over {other} (from {}), no own global {own} \
             address is known{or_else}",
            self.local_address
        )
    }

    fn attributes(&self, route: &RouteAttributes, added: &RouteAttributes) -> Attributes {
        let prepend = if added.prepend > 0 { added.prepend } else { route.prepend };
        // RFC 4271 §5.1.2: on eBGP our own AS, once and as often again as policy asks; on iBGP nothing.
        let ases = if self.is_internal { 0 } else { 1 + usize::from(prepend) };
        // RFC 4271 §5.1.5: LOCAL_PREF goes to internal peers and to no other.
        let local_pref = added.local_pref.or(route.local_pref).unwrap_or(DEFAULT_LOCAL_PREF);
        // RFC 8326 §4.2: the community for everyone, and for those of our AS the least preference there is.
        let local_pref = if self.is_leaving { 0 } else { local_pref };
        let mut communities = union(&route.communities, &added.communities);
        if let (true, Community::Standard(value)) = (self.is_leaving, GRACEFUL_SHUTDOWN) {
            communities = union(&communities, &[value]);
        }
        Attributes {
            as_path: vec![self.local_asn.value(); ases],
            med: added.med.or(route.med),
            local_pref: self.is_internal.then_some(local_pref),
            communities,
            extended_communities: extended(&route.extended_communities, &added.extended_communities),
            large_communities: union(&route.large_communities, &added.large_communities),
            only_to_customer: (self.is_downwards && !self.is_internal).then_some(self.local_asn.value()),
        }
    }

    /// The next hop that the session itself gives: its own end where that is of the family, an IPv6 next hop
    /// for IPv4 where both sides can (RFC 8950), else this node's own address. Never a mapped address.
    fn next_hop(&self, family: Family) -> Option<NextHop> {
        match (family, self.local_address.to_canonical()) {
            (Family::Ipv4Unicast, IpAddr::V4(local)) => Some(NextHop::V4(local)),
            (Family::Ipv4Unicast, IpAddr::V6(local)) if self.extended_next_hop => Some(self.pair(local)),
            (Family::Ipv4Unicast, IpAddr::V6(_)) => self.next_hops.ipv4.map(NextHop::V4),
            (Family::Ipv6Unicast, IpAddr::V6(local)) => Some(self.pair(local)),
            (Family::Ipv6Unicast, IpAddr::V4(_)) => {
                self.own_ipv6().map(|global| NextHop::V6 { global, link_local: None })
            }
        }
    }

    /// RFC 2545 §3: the link-local address goes along where the session runs over it.
    fn pair(&self, local: Ipv6Addr) -> NextHop {
        match self.own_ipv6() {
            Some(global) if local.is_unicast_link_local() => NextHop::V6 { global, link_local: Some(local) },
            _ => NextHop::V6 { global: local, link_local: None },
        }
    }

    fn own_ipv6(&self) -> Option<Ipv6Addr> {
        let is_global = |own: &Ipv6Addr| own.to_ipv4_mapped().is_none() && !own.is_unicast_link_local();
        self.next_hops.ipv6.filter(is_global)
    }

    /// A next hop that the route itself asks for, where the session can carry it.
    fn accept(&self, family: Family, next_hop: NextHop) -> Option<NextHop> {
        let is_carried = match (family, next_hop) {
            (Family::Ipv4Unicast, NextHop::V4(_)) => true,
            (Family::Ipv4Unicast, NextHop::V6 { .. }) => self.extended_next_hop,
            (Family::Ipv6Unicast, NextHop::V4(_)) => false,
            (Family::Ipv6Unicast, NextHop::V6 { global, .. }) => global.to_ipv4_mapped().is_none(),
        };
        is_carried.then_some(next_hop)
    }
}

/// Both; of link bandwidths, of which a route has one at most, that of the policy before the route's own.
fn extended(route: &[[u8; 8]], added: &[[u8; 8]]) -> Vec<[u8; 8]> {
    let mut all = union(route, added);
    let bandwidth = added.iter().chain(route).find(|octets| is_link_bandwidth(octets));
    all.retain(|octets| !is_link_bandwidth(octets) || Some(octets) == bandwidth);
    all
}

/// Both, sorted and without duplicates.
fn union<T: Ord + Copy>(a: &[T], b: &[T]) -> Vec<T> {
    let mut all = [a, b].concat();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Role;

    fn exporter(local: &str) -> Exporter {
        Exporter {
            local_asn: Asn::new(64512).unwrap(),
            is_internal: false,
            local_address: local.parse().unwrap(),
            extended_next_hop: false,
            families: Family::ALL.to_vec(),
            next_hops: OwnNextHops::default(),
            is_downwards: false,
            is_leaving: false,
            policy: ExportPolicy::All,
        }
    }

    fn exported(exporter: &Exporter, family: Family, route: &RouteAttributes) -> Exported {
        match exporter.export(family, RouteClass(1), route) {
            Export::Route(exported) => exported,
            other => panic!("not exported: {other:?}"),
        }
    }

    #[test]
    fn ebgp_sends_the_own_as_once_and_no_local_pref() {
        let route = RouteAttributes { local_pref: Some(200), med: Some(5), ..RouteAttributes::default() };
        let sent = exported(&exporter("192.0.2.1"), Family::Ipv4Unicast, &route).attributes;
        assert_eq!((sent.as_path, sent.local_pref, sent.med), (vec![64512], None, Some(5)));
    }

    #[test]
    fn otc_goes_to_customers_peers_and_route_server_clients_and_never_to_our_own_as_rfc_9234_section_5() {
        for (role, expected) in [
            (Role::Provider, Some(64512)),
            (Role::RouteServer, Some(64512)),
            (Role::Peer, Some(64512)),
            (Role::Customer, None),
            (Role::RouteServerClient, None),
        ] {
            for (is_internal, expected) in [(false, expected), (true, None)] {
                let is_downwards = role.is_downwards();
                let exporter = Exporter { is_downwards, is_internal, ..exporter("192.0.2.1") };
                let sent = exported(&exporter, Family::Ipv4Unicast, &RouteAttributes::default()).attributes;
                assert_eq!(sent.only_to_customer, expected, "{role}, internal {is_internal}");
            }
        }
    }

    #[test]
    fn who_is_about_to_leave_says_so_rfc_8326_section_4() {
        let route =
            RouteAttributes { communities: vec![7], local_pref: Some(200), ..RouteAttributes::default() };
        for (is_internal, local_pref) in [(false, None), (true, Some(0))] {
            let exporter = Exporter { is_leaving: true, is_internal, ..exporter("192.0.2.1") };
            let sent = exported(&exporter, Family::Ipv4Unicast, &route).attributes;
            assert_eq!((sent.communities, sent.local_pref), (vec![7, 0xffff_0000], local_pref));
        }
    }

    #[test]
    fn a_route_has_one_link_bandwidth_the_policys_before_its_own() {
        let octets = |kind, value: f32| {
            let [a, b, c, d] = value.to_be_bytes();
            [kind, 4, 0xfc, 0, a, b, c, d]
        };
        let target = [0, 2, 0xfc, 0, 0, 0, 0, 5];
        let extended_communities = vec![target, octets(0, 1.0)];
        let route = RouteAttributes { extended_communities, ..RouteAttributes::default() };
        let sent = exported(&exporter("192.0.2.1"), Family::Ipv4Unicast, &route).attributes;
        assert_eq!(sent.extended_communities, route.extended_communities);
        let extended_communities = vec![octets(0x40, 2500.0)];
        let added = RouteAttributes { extended_communities, ..RouteAttributes::default() };
        let policy = ExportPolicy::Classes(BTreeMap::from([(RouteClass(1), added)]));
        let exporter = Exporter { policy, ..exporter("192.0.2.1") };
        let sent = exported(&exporter, Family::Ipv4Unicast, &route).attributes;
        assert_eq!(sent.extended_communities, [target, octets(0x40, 2500.0)]);
    }

    #[test]
    fn prepend_repeats_the_own_as() {
        let route = RouteAttributes { prepend: 2, ..RouteAttributes::default() };
        let sent = exported(&exporter("192.0.2.1"), Family::Ipv4Unicast, &route).attributes;
        assert_eq!(sent.as_path, vec![64512; 3]);
    }

    #[test]
    fn ibgp_sends_an_empty_as_path_and_local_pref() {
        let internal = Exporter { is_internal: true, ..exporter("192.0.2.1") };
        let route = RouteAttributes { prepend: 2, ..RouteAttributes::default() };
        let sent = exported(&internal, Family::Ipv4Unicast, &route).attributes;
        assert_eq!((sent.as_path, sent.local_pref), (vec![], Some(100)));
        let route = RouteAttributes { local_pref: Some(200), ..RouteAttributes::default() };
        assert_eq!(exported(&internal, Family::Ipv4Unicast, &route).attributes.local_pref, Some(200));
    }

    #[test]
    fn the_next_hop_follows_family_session_and_own_addresses() {
        let v4 = |address: &str| Some(NextHop::V4(address.parse().unwrap()));
        let v6 = |global: &str, link_local: Option<&str>| {
            let link_local = link_local.map(|address| address.parse().unwrap());
            Some(NextHop::V6 { global: global.parse().unwrap(), link_local })
        };
        let (four, six) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
        // local address, family, RFC 8950, own IPv4, own IPv6, expected
        let table = [
            ("192.0.2.1", four, false, None, None, v4("192.0.2.1")),
            ("192.0.2.1", four, true, None, Some("2001:db8::9"), v4("192.0.2.1")),
            ("::ffff:192.0.2.1", four, false, None, None, v4("192.0.2.1")),
            ("192.0.2.1", six, false, None, None, None),
            ("::ffff:192.0.2.1", six, false, None, None, None),
            ("192.0.2.1", six, false, None, Some("2001:db8::9"), v6("2001:db8::9", None)),
            ("192.0.2.1", six, false, None, Some("::ffff:192.0.2.1"), None),
            ("192.0.2.1", six, false, None, Some("fe80::9"), None),
            ("2001:db8::1", six, false, None, None, v6("2001:db8::1", None)),
            ("2001:db8::1", six, false, None, Some("2001:db8::9"), v6("2001:db8::1", None)),
            ("fe80::1", six, false, None, Some("2001:db8::9"), v6("2001:db8::9", Some("fe80::1"))),
            ("fe80::1", six, false, None, None, v6("fe80::1", None)),
            ("2001:db8::1", four, false, None, None, None),
            ("2001:db8::1", four, false, Some("192.0.2.9"), None, v4("192.0.2.9")),
            ("2001:db8::1", four, true, Some("192.0.2.9"), None, v6("2001:db8::1", None)),
            ("fe80::1", four, true, None, None, v6("fe80::1", None)),
        ];
        for (local, family, extended_next_hop, ipv4, ipv6, expected) in table {
            let next_hops = OwnNextHops {
                ipv4: ipv4.map(|own: &str| own.parse().unwrap()),
                ipv6: ipv6.map(|own: &str| own.parse().unwrap()),
            };
            let exporter = Exporter { extended_next_hop, next_hops, ..exporter(local) };
            let got = match exporter.export(family, RouteClass(0), &RouteAttributes::default()) {
                Export::Route(exported) => Some(exported.next_hop),
                Export::Unsendable => None,
                Export::Filtered => panic!("nothing filters here"),
            };
            assert_eq!(
                got, expected,
                "{family} over {local}, RFC 8950 {extended_next_hop}, own {next_hops:?}"
            );
        }
    }

    #[test]
    fn a_next_hop_of_the_route_is_used_where_the_session_can_carry_it() {
        let asked = |next_hop| RouteAttributes { next_hop: Some(next_hop), ..RouteAttributes::default() };
        let four = asked(NextHop::V4("198.51.100.1".parse().unwrap()));
        let six = asked(NextHop::V6 { global: "2001:db8::5".parse().unwrap(), link_local: None });
        let exporter = exporter("192.0.2.1");
        assert_eq!(exported(&exporter, Family::Ipv4Unicast, &four).next_hop, four.next_hop.unwrap());
        assert_eq!(exporter.export(Family::Ipv4Unicast, RouteClass(0), &six), Export::Unsendable);
        assert_eq!(exporter.export(Family::Ipv6Unicast, RouteClass(0), &four), Export::Unsendable);
        assert!(exporter.reason(Family::Ipv4Unicast).contains("cannot carry"));
    }

    #[test]
    fn a_family_that_the_peer_did_not_open_is_never_sent() {
        let exporter = Exporter { families: vec![Family::Ipv6Unicast], ..exporter("2001:db8::1") };
        let route = RouteAttributes::default();
        assert_eq!(exporter.export(Family::Ipv4Unicast, RouteClass(0), &route), Export::Filtered);
    }

    #[test]
    fn classes_select_routes_override_single_values_and_unite_communities() {
        let added = RouteAttributes {
            communities: vec![1, 3],
            large_communities: vec![(1, 2, 3)],
            med: Some(9),
            prepend: 1,
            ..RouteAttributes::default()
        };
        let policy = ExportPolicy::Classes(BTreeMap::from([(RouteClass(1), added)]));
        let exporter = Exporter { policy, ..exporter("192.0.2.1") };
        let route = RouteAttributes {
            communities: vec![3, 2],
            med: Some(1),
            prepend: 5,
            ..RouteAttributes::default()
        };
        let sent = exported(&exporter, Family::Ipv4Unicast, &route).attributes;
        assert_eq!(sent.communities, [1, 2, 3]);
        assert_eq!(sent.large_communities, [(1, 2, 3)]);
        assert_eq!((sent.med, sent.as_path.len()), (Some(9), 2));
        assert_eq!(exporter.export(Family::Ipv4Unicast, RouteClass(2), &route), Export::Filtered);
    }

    #[test]
    fn the_reason_names_the_family_the_session_and_what_is_missing() {
        let reason = exporter("192.0.2.1").reason(Family::Ipv6Unicast);
        assert!(reason.contains("IPv6 next hop") && reason.contains("192.0.2.1"), "{reason}");
    }
}
