//! Whether any router is told of a route: what an owner reads in the event is to be true. No decision rests on it.

use std::{fmt, net::IpAddr};

use api::IpFamily;
use bgp::{status::SpeakerStatus, types::Family};

use crate::{advertising::Advertising, plan::traits::Traits};

/// How far a route gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A router that takes it has a session.
    Told,
    /// None that takes it has.
    NoSession,
    /// No BGPPeer takes it.
    NoPeer,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Told => "a router is told",
            Reach::NoSession => "no router that is to be told has a session yet",
            Reach::NoPeer => "no BGPPeer for this node takes it",
        })
    }
}

/// How far the route to an address of a Service gets; `can_be_told` says of a peer whether routes of a family go out to
/// it now.
pub fn reach(
    advertising: &Advertising,
    service: &Traits,
    address: IpAddr,
    can_be_told: impl Fn(&str, IpFamily) -> bool,
) -> Reach {
    let family = IpFamily::of(address);
    let mut takers = advertising.takers(service, family).peekable();
    if takers.peek().is_none() {
        return Reach::NoPeer;
    }
    if takers.any(|peer| can_be_told(peer, family)) { Reach::Told } else { Reach::NoSession }
}

/// Whether a peer's session is up for a family, and its routes have a next hop.
pub fn can_be_told(status: &SpeakerStatus, peer: &str, family: IpFamily) -> bool {
    let (family, index) = match family {
        IpFamily::IPv4 => (Family::Ipv4Unicast, 0),
        IpFamily::IPv6 => (Family::Ipv6Unicast, 1),
    };
    status.peers.iter().filter(|known| *known.name == *peer).any(|known| {
        let [sent, unsendable] = [known.advertised, known.unsendable].map(|counts: [usize; 2]| counts[index]);
        known.families.contains(&family) && (unsendable == 0 || sent > 0)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bgp::{
        config::{PeerAsn, PeerConfig},
        types::{Asn, RouterId},
    };

    use super::*;
    use crate::inputs::advertisement::{self, Advertisement};

    fn advertising(peers: &[(&str, &str)]) -> Advertising {
        let asn = |number| Asn::new(number).unwrap();
        let id = RouterId::new("192.0.2.10".parse().unwrap()).unwrap();
        let peers: Vec<(PeerConfig, Vec<Advertisement>)> = peers
            .iter()
            .map(|(name, yaml)| {
                let router = "192.0.2.1".parse().unwrap();
                let config = PeerConfig::new(*name, router, id, asn(64512), PeerAsn::Exactly(asn(64513)));
                (config, advertisement::parse(&serde_norway::from_str::<Vec<_>>(yaml).unwrap()).unwrap())
            })
            .collect();
        Advertising::new(peers.iter().map(|(config, entries)| (config, entries.as_slice())))
    }

    #[test]
    fn a_route_is_told_only_where_a_peer_takes_it_and_has_a_session_for_its_family() {
        let service = Traits { group: Arc::from("public"), ..Traits::default() };
        let of = |peers: &[(&str, &str)], up: &[(&str, IpFamily)]| {
            let address = "192.0.2.50".parse().unwrap();
            reach(&advertising(peers), &service, address, |name, family| up.contains(&(name, family)))
        };
        let (v4, v6) = (IpFamily::IPv4, IpFamily::IPv6);
        assert_eq!(of(&[], &[]), Reach::NoPeer);
        assert_eq!(of(&[("tor1", "[]")], &[]), Reach::NoSession);
        assert_eq!(of(&[("tor1", "[]")], &[("tor1", v6)]), Reach::NoSession);
        assert_eq!(of(&[("tor1", "[]")], &[("tor1", v4)]), Reach::Told);
        let other = "[{serviceGroups: [other]}]";
        assert_eq!(of(&[("tor1", other)], &[("tor1", v4)]), Reach::NoPeer);
        assert_eq!(of(&[("tor1", other), ("tor2", "[]")], &[("tor1", v4)]), Reach::NoSession);
    }
}
