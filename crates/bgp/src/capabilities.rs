//! Capabilities (RFC 5492): what is offered, what a peer offers, and what both make of it.

use crate::{
    config::{PeerAsn, PeerConfig, Role},
    message::Open,
    notification::{
        Notification, OPEN_BAD_PEER_AS, OPEN_BAD_ROUTER_ID, OPEN_ROLE_MISMATCH, OPEN_UNSUPPORTED_CAPABILITY,
    },
    types::{Asn, Family},
};

/// The capabilities of one OPEN that are understood here; others are ignored, as RFC 5492 §3 asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Multiprotocol Extensions (code 1): families, unknown ones left out, in the order received.
    pub multiprotocol: Vec<Family>,
    /// Multiprotocol Extensions named a family that is not spoken here. Received only: it tells a peer without
    /// the capability, which means IPv4 unicast, from one that has other families.
    pub other_families: bool,
    /// 4-octet AS number (code 65).
    pub four_octet_asn: Option<u32>,
    /// Route Refresh (code 2).
    pub route_refresh: bool,
    /// Enhanced Route Refresh (code 70).
    pub enhanced_route_refresh: bool,
    /// Extended Next Hop Encoding (code 5, RFC 8950): families that may have an IPv6 next hop
    /// (only IPv4 unicast means anything).
    pub extended_next_hop: Vec<Family>,
    /// Extended Message (code 6, RFC 8654).
    pub extended_message: bool,
    /// Graceful Restart (code 64, RFC 4724, RFC 8538).
    pub graceful_restart: Option<GracefulRestart>,
    /// Long-Lived Graceful Restart (code 71, RFC 9494); means nothing without `graceful_restart`.
    pub long_lived: Vec<LongLivedFamily>,
    /// BGP Role (code 9, RFC 9234): every value that was said, each once.
    pub roles: Vec<u8>,
    /// Host name of the FQDN capability (code 73), for people to read; never sent.
    pub hostname: Option<String>,
}

/// The Graceful Restart capability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted.
    pub restarting: bool,
    /// N bit (RFC 8538): NOTIFICATIONs and hold timer expiry are handled gracefully.
    pub notification: bool,
    /// Restart Time in seconds, at most 4095.
    pub restart_time_secs: u16,
    /// Families, each with its F bit (forwarding state preserved).
    pub families: Vec<(Family, bool)>,
}

/// A family of the Long-Lived Graceful Restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLivedFamily {
    /// The family.
    pub family: Family,
    /// F bit: forwarding state was preserved.
    pub is_forwarding: bool,
    /// Long-lived Stale Time in seconds, at most 16,777,215.
    pub stale_time_secs: u32,
}

/// What the OPEN of this moment says of a restart of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartState {
    /// R bit: we have restarted, and the peer has not been told our whole table since.
    pub is_restarting: bool,
    /// F bits, by family: what the peer has of us from before is still forwarded.
    pub is_forwarding: [bool; 2],
}

/// What holds on a session after both OPENs: computed once, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The smaller of both hold times.
    pub hold_time: crate::types::HoldTime,
    /// Families both sides opened, in the order of [`Family::ALL`].
    pub families: Vec<Family>,
    /// AS numbers in AS_PATH are 4 octets wide.
    pub four_octet_asn: bool,
    /// The peer takes ROUTE-REFRESH.
    pub route_refresh: bool,
    /// What a refresh sends again stands between two marks (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// IPv4 prefixes may have an IPv6 next hop.
    pub extended_next_hop: bool,
    /// Messages of up to 65,535 octets may be sent.
    pub extended_message: bool,
    /// What the peer said of graceful restart, where both offered it; the N bit, where both have set it.
    pub graceful_restart: Option<GracefulRestart>,
}

impl Negotiated {
    /// NOTIFICATIONs but a Hard Reset leave routes as they are: both have set the N bit (RFC 8538 §2).
    pub fn takes_notifications_gracefully(&self) -> bool {
        self.graceful_restart.as_ref().is_some_and(|agreed| agreed.notification)
    }

    /// A new connection of the peer means that it has restarted: it keeps forwarding state (RFC 4724 §4.2).
    pub fn restarts_gracefully(&self) -> bool {
        self.graceful_restart.as_ref().is_some_and(|theirs| !theirs.families.is_empty())
    }
}

impl Capabilities {
    /// What a peer is offered.
    pub fn offer(config: &PeerConfig, restart: &RestartState) -> Capabilities {
        // An IPv6 next hop for IPv4 prefixes costs nothing to accept (RFC 8950 §4): received routes are dropped.
        let extended_next_hop =
            config.families.iter().copied().filter(|family| *family == Family::Ipv4Unicast).collect();
        Capabilities {
            multiprotocol: config.families.clone(),
            four_octet_asn: Some(config.local_asn.value()),
            route_refresh: true,
            enhanced_route_refresh: true,
            extended_next_hop,
            extended_message: true,
            graceful_restart: config.graceful_restart.map(|offered| {
                let forwarding = |family: &Family| (*family, restart.is_forwarding[*family as usize]);
                GracefulRestart {
                    restarting: restart.is_restarting,
                    notification: offered.notification,
                    restart_time_secs: offered.restart_time.secs(),
                    families: config.families.iter().map(forwarding).collect(),
                }
            }),
            long_lived: long_lived(config, restart),
            // RFC 9234 §4.2: not between speakers of one AS.
            roles: config.role.iter().filter(|_| config.is_external()).map(|it| it.role as u8).collect(),
            ..Capabilities::default()
        }
    }

    /// The families that an OPEN with these capabilities opens. One without Multiprotocol Extensions is from a
    /// speaker of RFC 4271 alone, which means IPv4 unicast.
    pub fn families(&self) -> &[Family] {
        if self.multiprotocol.is_empty() && !self.other_families {
            &[Family::Ipv4Unicast]
        } else {
            &self.multiprotocol
        }
    }
}

/// RFC 9494 §3.1.
fn long_lived(config: &PeerConfig, restart: &RestartState) -> Vec<LongLivedFamily> {
    let Some(time) = config.graceful_restart.and_then(|offered| offered.long_lived) else {
        return Vec::new();
    };
    let of = |family: &Family| LongLivedFamily {
        family: *family,
        is_forwarding: restart.is_forwarding[*family as usize],
        stale_time_secs: time.secs(),
    };
    config.families.iter().map(of).collect()
}

/// What both OPENs come to, or the NOTIFICATION that refuses the peer's.
pub fn negotiate(ours: &Open, theirs: &Open, expected: PeerAsn) -> Result<Negotiated, Notification> {
    let peer_asn = check_peer_asn(ours, theirs, expected)?;
    // RFC 6286 §2.2: within an AS identifiers are unique.
    if theirs.asn == ours.asn && theirs.router_id == ours.router_id {
        let id = theirs.router_id.value().to_be_bytes();
        return Err(Notification::with_data(OPEN_BAD_ROUTER_ID, id));
    }
    let (our, their) = (&ours.capabilities, &theirs.capabilities);
    let in_both = |family: &Family| our.families().contains(family) && their.families().contains(family);
    let families: Vec<Family> = Family::ALL.into_iter().filter(in_both).collect();
    if families.is_empty() {
        return Err(unsupported_families(our.families()));
    }
    let ipv4 = Family::Ipv4Unicast;
    Ok(Negotiated {
        peer_asn,
        hold_time: ours.hold_time.min(theirs.hold_time),
        four_octet_asn: our.four_octet_asn.is_some() && their.four_octet_asn.is_some(),
        route_refresh: our.route_refresh && their.route_refresh,
        enhanced_route_refresh: our.enhanced_route_refresh && their.enhanced_route_refresh,
        extended_next_hop: families.contains(&ipv4)
            && our.extended_next_hop.contains(&ipv4)
            && their.extended_next_hop.contains(&ipv4),
        extended_message: our.extended_message && their.extended_message,
        graceful_restart: their.graceful_restart.clone().zip(our.graceful_restart.as_ref()).map(
            |(theirs, ours)| GracefulRestart {
                notification: theirs.notification && ours.notification,
                ..theirs
            },
        ),
        families,
    })
}

/// RFC 9234 §4.2: the roles of both sides must go together. Without one of ours the peer's means nothing, and a peer
/// without one is refused only where `is_strict`.
pub fn check_roles(ours: &Capabilities, theirs: &Capabilities, is_strict: bool) -> Result<(), Notification> {
    let Some(ours) = ours.roles.first().copied().and_then(Role::from_value) else { return Ok(()) };
    match theirs.roles.as_slice() {
        [] if !is_strict => Ok(()),
        [theirs] if *theirs == ours.counterpart() as u8 => Ok(()),
        _ => Err(Notification::new(OPEN_ROLE_MISMATCH)),
    }
}

/// RFC 4271 §6.2, RFC 7607 §2. Numbers are compared as they are: 65536 is not 1.
fn check_peer_asn(ours: &Open, theirs: &Open, expected: PeerAsn) -> Result<Asn, Notification> {
    let bad_peer_as = || Notification::new(OPEN_BAD_PEER_AS);
    let asn = Asn::new(theirs.asn).ok_or_else(bad_peer_as)?;
    let accepted = match expected {
        PeerAsn::Exactly(expected) => asn == expected,
        PeerAsn::Internal => theirs.asn == ours.asn,
        PeerAsn::External => theirs.asn != ours.asn,
    };
    if accepted { Ok(asn) } else { Err(bad_peer_as()) }
}

/// RFC 5492 §5: the data lists the capabilities that would have been needed, as they are in an OPEN.
fn unsupported_families(families: &[Family]) -> Notification {
    let mut data = Vec::new();
    for family in families {
        let [high, low] = family.afi().to_be_bytes();
        data.extend([1, 4, high, low, 0, family.safi()]);
    }
    Notification::with_data(OPEN_UNSUPPORTED_CAPABILITY, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{HoldTime, RouterId};

    fn open(asn: u32, id: u8, families: &[Family]) -> Open {
        let capabilities = Capabilities {
            multiprotocol: families.to_vec(),
            four_octet_asn: Some(asn),
            route_refresh: true,
            extended_next_hop: vec![Family::Ipv4Unicast],
            ..Capabilities::default()
        };
        let router_id = RouterId::new([10, 0, 0, id].into()).unwrap();
        Open { asn, hold_time: HoldTime::DEFAULT, router_id, capabilities }
    }

    fn asn(value: u32) -> Asn {
        Asn::new(value).unwrap()
    }

    #[test]
    fn families_of_both_sides_are_negotiated_in_the_fixed_order() {
        let ours = open(64512, 1, &Family::ALL);
        let theirs = open(64513, 2, &[Family::Ipv6Unicast, Family::Ipv4Unicast]);
        assert_eq!(negotiate(&ours, &theirs, PeerAsn::External).unwrap().families, Family::ALL);
        let theirs = open(64513, 2, &[Family::Ipv6Unicast]);
        let negotiated = negotiate(&ours, &theirs, PeerAsn::External).unwrap();
        assert_eq!(negotiated.families, [Family::Ipv6Unicast]);
        assert!(!negotiated.extended_next_hop, "without IPv4 there is no IPv4 next hop to extend");
    }

    #[test]
    fn a_peer_without_multiprotocol_means_ipv4_unicast() {
        let ours = open(64512, 1, &Family::ALL);
        let theirs = Open { capabilities: Capabilities::default(), ..open(64513, 2, &[]) };
        let negotiated = negotiate(&ours, &theirs, PeerAsn::External).unwrap();
        assert_eq!(negotiated.families, [Family::Ipv4Unicast]);
        assert!(!negotiated.four_octet_asn && !negotiated.route_refresh && !negotiated.extended_next_hop);
    }

    #[test]
    fn a_peer_with_only_unknown_families_is_refused_with_the_capabilities_it_lacks() {
        let ours = open(64512, 1, &Family::ALL);
        let mut theirs = open(64513, 2, &[]);
        theirs.capabilities.other_families = true;
        let refusal = negotiate(&ours, &theirs, PeerAsn::External).unwrap_err();
        assert_eq!(refusal.code(), OPEN_UNSUPPORTED_CAPABILITY);
        assert_eq!(refusal.data, [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1]);
    }

    #[test]
    fn a_peer_of_another_as_than_expected_is_refused() {
        let cases = [
            (64513, PeerAsn::Exactly(asn(64513)), true),
            (64513, PeerAsn::Exactly(asn(64514)), false),
            (64513, PeerAsn::External, true),
            (64513, PeerAsn::Internal, false),
            (64512, PeerAsn::External, false),
            (64512, PeerAsn::Internal, true),
            (0, PeerAsn::External, false),
        ];
        for (peer, expected, accepted) in cases {
            let result = negotiate(&open(64512, 1, &Family::ALL), &open(peer, 2, &Family::ALL), expected);
            match result {
                Ok(negotiated) => {
                    assert!(accepted && negotiated.peer_asn == asn(peer), "{peer} {expected:?}");
                }
                Err(error) => {
                    assert!(!accepted && error.code() == OPEN_BAD_PEER_AS, "{peer} {expected:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn an_internal_peer_with_our_router_id_is_refused_and_an_external_one_is_not() {
        let ours = open(64512, 1, &Family::ALL);
        let refusal = negotiate(&ours, &open(64512, 1, &Family::ALL), PeerAsn::Internal).unwrap_err();
        assert_eq!((refusal.code(), refusal.data), (OPEN_BAD_ROUTER_ID, vec![10, 0, 0, 1]));
        assert!(negotiate(&ours, &open(64513, 1, &Family::ALL), PeerAsn::External).is_ok());
    }

    #[test]
    fn the_smaller_hold_time_holds_and_zero_is_the_smallest() {
        for (ours, theirs, expected) in [(90, 30, 30), (30, 90, 30), (0, 90, 0), (90, 0, 0)] {
            let with = |open: Open, secs| Open { hold_time: HoldTime::new(secs).unwrap(), ..open };
            let ours = with(open(64512, 1, &Family::ALL), ours);
            let theirs = with(open(64513, 2, &Family::ALL), theirs);
            let negotiated = negotiate(&ours, &theirs, PeerAsn::External).unwrap();
            assert_eq!(negotiated.hold_time.secs(), expected);
        }
    }

    #[test]
    fn roles_must_go_together_rfc_9234_section_4() {
        let says = |roles: &[u8]| Capabilities { roles: roles.to_vec(), ..Capabilities::default() };
        let pairs = [(0, 3), (1, 2), (2, 1), (3, 0), (4, 4)];
        for (ours, theirs) in (0..5).flat_map(|ours| (0..6).map(move |theirs| (ours, theirs))) {
            let result = check_roles(&says(&[ours]), &says(&[theirs]), false);
            let expected = pairs.contains(&(ours, theirs));
            assert_eq!(result.is_ok(), expected, "we say {ours}, the peer {theirs}");
            assert!(result.is_ok() || result.unwrap_err().code() == OPEN_ROLE_MISMATCH);
        }
        assert!(check_roles(&says(&[0]), &says(&[3, 4]), false).is_err(), "two different ones");
        assert!(check_roles(&says(&[0]), &says(&[]), false).is_ok());
        assert!(check_roles(&says(&[0]), &says(&[]), true).is_err(), "strict mode");
        assert!(check_roles(&says(&[]), &says(&[0, 1, 77]), true).is_ok(), "we have none to compare");
    }

    #[test]
    fn an_offer_has_everything_that_this_speaker_does() {
        let router_id = RouterId::new([10, 0, 0, 1].into()).unwrap();
        let address = "192.0.2.1".parse().unwrap();
        let config = PeerConfig::new("p", address, router_id, asn(64512), PeerAsn::External);
        let offer = Capabilities::offer(&config, &RestartState::default());
        assert!(offer.route_refresh && offer.enhanced_route_refresh && offer.extended_message);
        assert_eq!((offer.multiprotocol, offer.four_octet_asn), (Family::ALL.to_vec(), Some(64512)));
        assert_eq!((offer.graceful_restart, offer.long_lived), (None, vec![]), "where it is not configured");
    }

    #[test]
    fn what_only_one_side_has_does_not_hold() {
        let ours = open(64512, 1, &Family::ALL);
        let mut theirs = open(64513, 2, &Family::ALL);
        theirs.capabilities.extended_message = true;
        theirs.capabilities.graceful_restart = Some(GracefulRestart::default());
        theirs.capabilities.extended_next_hop.clear();
        let negotiated = negotiate(&ours, &theirs, PeerAsn::External).unwrap();
        assert!(!negotiated.extended_message && !negotiated.extended_next_hop);
        assert_eq!(negotiated.graceful_restart, None);
        let mut ours = ours;
        ours.capabilities = theirs.capabilities.clone();
        let negotiated = negotiate(&ours, &theirs, PeerAsn::External).unwrap();
        assert!(negotiated.extended_message && negotiated.graceful_restart.is_some());
    }

    #[test]
    fn notifications_are_graceful_only_where_both_say_so() {
        for (ours_says, theirs_says) in [(false, false), (false, true), (true, false), (true, true)] {
            let open = |says, asn, id| {
                let mut open = open(asn, id, &Family::ALL);
                let restart = GracefulRestart { notification: says, ..GracefulRestart::default() };
                open.capabilities.graceful_restart = Some(restart);
                open
            };
            let (ours, theirs) = (open(ours_says, 64512, 1), open(theirs_says, 64513, 2));
            let negotiated = negotiate(&ours, &theirs, PeerAsn::External).unwrap();
            assert_eq!(negotiated.takes_notifications_gracefully(), ours_says && theirs_says);
        }
    }
}
