//! BGPPeers: one spec and this node make the configuration of one session, or a refusal that names the field.
//!
//! Every field is acted on; a value that cannot be is refused, never ignored.

use std::{net::Ipv6Addr, time::Duration};

use api::{
    BGPPeerSpec, GoDuration, Refusal,
    bgp_peer::{AddressFamily, BgpRole, DynamicAsn},
};
use bgp::{
    config::{GracefulRestartConfig, Hops, OwnNextHops, PeerAsn, PeerConfig, Role, RoleConfig},
    md5::Md5Key,
    types::{Asn, Family, HoldTime, LongLivedStaleTime, RestartTime},
};

use crate::inputs::{bfd, node::NodeInput};
use addresses::{peer_address, router_id, source_address};

mod addresses;

/// Where a session finds what its spec only names.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Index of an interface of this node.
    pub interface_index: &'a dyn Fn(&str) -> Option<u32>,
    /// Link-local address of the router on an interface, once it has been heard.
    pub router: &'a dyn Fn(&str) -> Option<Ipv6Addr>,
    /// Key of a Secret. `None` is for those who only report: a session always gets a key or a refusal.
    pub password: &'a dyn Fn(&str) -> Result<Option<Md5Key>, Refusal>,
}

impl Surroundings<'static> {
    /// For those who look at a spec where it is not used: whatever it names is there.
    pub const ANYWHERE: Surroundings<'static> = Surroundings {
        interface_index: &|_| Some(1),
        router: &|_| Some(SOME_ROUTER),
        password: &|_| Ok(None),
    };
}

const SOME_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Reads a peer for a node.
pub fn parse(
    name: &str,
    spec: &BGPPeerSpec,
    node: &NodeInput,
    surroundings: Surroundings<'_>,
) -> Result<PeerConfig, Refusal> {
    let local_asn = asn("spec.myASN", spec.my_asn)?;
    let (address, scope) = peer_address(spec, surroundings)?;
    let mut peer = PeerConfig::new(name, address, router_id(spec, node)?, local_asn, peer_asn(spec)?);
    peer.scope = scope;
    if spec.peer_port == 0 {
        return Err(Refusal::invalid("spec.peerPort", "0 is not a port: expected 1 to 65535"));
    }
    peer.port = spec.peer_port;
    peer.source_address = source_address(spec, address)?;
    peer.hold_time = hold_time(spec.hold_time)?;
    peer.keepalive_time = keepalive_time(spec)?;
    peer.connect_retry_time = connect_time(spec.connect_time)?;
    peer.passive = spec.passive;
    peer.families = families(spec)?;
    peer.hops = hops(spec)?;
    peer.graceful_restart = graceful_restart(spec)?;
    peer.role = role(spec, peer.is_external())?;
    if let Some(secret) = &spec.password_secret {
        peer.md5_key = (surroundings.password)(&secret.name)?;
    }
    peer.bfd = bfd::parse(spec)?;
    peer.next_hops = OwnNextHops { ipv4: node.ipv4, ipv6: node.ipv6 };
    Ok(peer)
}

fn asn(path: &str, number: u32) -> Result<Asn, Refusal> {
    if number == Asn::TRANS.value() {
        let message =
            "AS 23456 stands for numbers of four octets (RFC 6793) and is nobody's: expected your own";
        return Err(Refusal::invalid(path, message));
    }
    Asn::new(number).ok_or_else(|| Refusal::invalid(path, "AS 0 is reserved: expected 1 to 4294967295"))
}

fn peer_asn(spec: &BGPPeerSpec) -> Result<PeerAsn, Refusal> {
    match (spec.peer_asn, spec.dynamic_asn) {
        (Some(number), None) => Ok(PeerAsn::Exactly(asn("spec.peerASN", number)?)),
        (None, Some(DynamicAsn::Internal)) => Ok(PeerAsn::Internal),
        (None, Some(DynamicAsn::External)) => Ok(PeerAsn::External),
        (Some(_), Some(_)) => {
            Err(Refusal::invalid("spec.dynamicASN", "peerASN is set as well: keep one of them"))
        }
        (None, None) => {
            Err(Refusal::invalid("spec.peerASN", "neither peerASN nor dynamicASN is set: set one of them"))
        }
    }
}

/// The interface that a peer's address is on, where its spec names one.
pub fn interface(spec: &BGPPeerSpec) -> Option<&str> {
    let zone = || Some(spec.peer_address.as_deref()?.split_once('%')?.1);
    spec.interface.as_deref().or_else(zone)
}

fn hold_time(time: GoDuration) -> Result<HoldTime, Refusal> {
    let secs = whole_secs(time).and_then(|secs| u16::try_from(secs).ok());
    secs.and_then(HoldTime::new).ok_or_else(|| {
        Refusal::invalid(
            "spec.holdTime",
            format!("{time} cannot be: expected 0s, or whole seconds from 3s to 65535s"),
        )
    })
}

fn keepalive_time(spec: &BGPPeerSpec) -> Result<Option<Duration>, Refusal> {
    let Some(time) = spec.keepalive_time else { return Ok(None) };
    let path = "spec.keepaliveTime";
    if time.0 < Duration::from_secs(1) {
        return Err(Refusal::invalid(path, format!("{time} is too short: expected at least 1s")));
    }
    if spec.hold_time.0 != Duration::ZERO && time >= spec.hold_time {
        let message =
            format!("{time} is not shorter than holdTime {}: expected a third of it", spec.hold_time);
        return Err(Refusal::invalid(path, message));
    }
    Ok(Some(time.0))
}

/// On unless it is turned off.
fn graceful_restart(spec: &BGPPeerSpec) -> Result<Option<GracefulRestartConfig>, Refusal> {
    // Without BFD the hold timer is what tells the router that a node has died: it has to end the routes.
    let has_bfd = spec.bfd.is_some();
    let Some(asked) = &spec.graceful_restart else {
        return Ok(Some(GracefulRestartConfig { notification: has_bfd, ..GracefulRestartConfig::default() }));
    };
    if !asked.enabled {
        return Ok(None);
    }
    let time = asked.restart_time;
    let secs = whole_secs(time).and_then(|secs| u16::try_from(secs).ok());
    let restart_time = secs.and_then(RestartTime::new).ok_or_else(|| {
        let message = format!("{time} cannot be: expected whole seconds from 1s to 4095s");
        Refusal::invalid("spec.gracefulRestart.restartTime", message)
    })?;
    let long_lived = asked.long_lived_stale_time.map(|time| {
        let secs = whole_secs(time).and_then(|secs| u32::try_from(secs).ok());
        secs.and_then(LongLivedStaleTime::new).ok_or_else(|| {
            let message = format!("{time} cannot be: expected whole seconds from 1s to 16777215s");
            Refusal::invalid("spec.gracefulRestart.longLivedStaleTime", message)
        })
    });
    let notification = asked.notification.unwrap_or(has_bfd);
    Ok(Some(GracefulRestartConfig { restart_time, long_lived: long_lived.transpose()?, notification }))
}

fn role(spec: &BGPPeerSpec, is_external: bool) -> Result<Option<RoleConfig>, Refusal> {
    let role = match spec.role {
        None if spec.strict_role => {
            let message =
                "it asks the router for a role that goes with ours, but spec.role is not set: set both";
            return Err(Refusal::invalid("spec.strictRole", message));
        }
        None => return Ok(None),
        Some(_) if !is_external => {
            let message = "within one AS there are no roles: leave it out, or peer with another AS";
            return Err(Refusal::invalid("spec.role", message));
        }
        Some(BgpRole::Provider) => Role::Provider,
        Some(BgpRole::RouteServer) => Role::RouteServer,
        Some(BgpRole::RouteServerClient) => Role::RouteServerClient,
        Some(BgpRole::Customer) => Role::Customer,
        Some(BgpRole::Peer) => Role::Peer,
    };
    Ok(Some(RoleConfig { role, is_strict: spec.strict_role }))
}

fn whole_secs(time: GoDuration) -> Option<u64> {
    (time.0.subsec_nanos() == 0).then_some(time.0.as_secs())
}

fn connect_time(time: GoDuration) -> Result<Duration, Refusal> {
    if (Duration::from_secs(1)..=Duration::from_secs(65_535)).contains(&time.0) {
        return Ok(time.0);
    }
    Err(Refusal::invalid("spec.connectTime", format!("{time} cannot be: expected 1s to 65535s")))
}

fn families(spec: &BGPPeerSpec) -> Result<Vec<Family>, Refusal> {
    let listed = |family| {
        spec.address_families.contains(&match family {
            Family::Ipv4Unicast => AddressFamily::Ipv4Unicast,
            Family::Ipv6Unicast => AddressFamily::Ipv6Unicast,
        })
    };
    let families: Vec<_> = Family::ALL.into_iter().filter(|family| listed(*family)).collect();
    if families.is_empty() {
        let message = "it is empty: list ipv4-unicast, ipv6-unicast or both";
        return Err(Refusal::invalid("spec.addressFamilies", message));
    }
    Ok(families)
}

fn hops(spec: &BGPPeerSpec) -> Result<Hops, Refusal> {
    match (spec.ebgp_multi_hop, spec.ttl_security) {
        (None, None) => Ok(Hops::Default),
        (Some(0), _) => Err(Refusal::invalid("spec.ebgpMultiHop", "0 hops reach nobody: expected 1 to 255")),
        (_, Some(0 | 255)) => Err(Refusal::invalid("spec.ttlSecurity", "expected 1 to 254 hops")),
        (Some(hops), None) => Ok(Hops::Multihop(hops)),
        (None, Some(hops)) => Ok(Hops::TtlSecurity(hops)),
        (Some(_), Some(_)) => {
            Err(Refusal::invalid("spec.ttlSecurity", "ebgpMultiHop is set as well: keep one of them"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeInput {
        NodeInput {
            name: "n1".to_owned(),
            ipv4: Some("192.0.2.10".parse().unwrap()),
            ipv6: Some("2001:db8::10".parse().unwrap()),
            ..NodeInput::default()
        }
    }

    fn read(yaml: &str) -> Result<PeerConfig, Refusal> {
        let spec: BGPPeerSpec = serde_norway::from_str(&format!("{{myASN: 64512, {yaml}}}")).unwrap();
        let surroundings = Surroundings {
            interface_index: &|name| ["eth0", "eth1"].contains(&name).then_some(7),
            router: &|name| (name == "eth0").then_some(SOME_ROUTER),
            password: &|name| match name {
                "there" => Ok(Some(Md5Key::new(b"key").unwrap())),
                _ => Err(Refusal::invalid("spec.passwordSecret.name", "there is no such Secret")),
            },
        };
        parse("tor1", &spec, &node(), surroundings)
    }

    #[test]
    fn a_plain_peer_has_the_defaults() {
        let peer = read("peerASN: 64513, peerAddress: 192.0.2.1").unwrap();
        let expected = PeerConfig {
            connect_retry_time: Duration::from_secs(10),
            graceful_restart: Some(GracefulRestartConfig {
                notification: false,
                ..GracefulRestartConfig::default()
            }),
            next_hops: OwnNextHops { ipv4: node().ipv4, ipv6: node().ipv6 },
            ..PeerConfig::new(
                "tor1",
                "192.0.2.1".parse().unwrap(),
                bgp::types::RouterId::new("192.0.2.10".parse().unwrap()).unwrap(),
                Asn::new(64512).unwrap(),
                PeerAsn::Exactly(Asn::new(64513).unwrap()),
            )
        };
        assert_eq!(peer, expected);
    }

    #[test]
    fn as_trans_is_nobodys_number() {
        assert_eq!(read("peerASN: 23456, peerAddress: 192.0.2.1").unwrap_err().path, "spec.peerASN");
        let spec = serde_norway::from_str("{myASN: 23456, peerASN: 1, peerAddress: 192.0.2.1}").unwrap();
        let refusal = parse("tor1", &spec, &node(), Surroundings::ANYWHERE).unwrap_err();
        assert_eq!(refusal.path, "spec.myASN");
    }

    #[test]
    fn every_supported_field_reaches_the_session() {
        let peer = read(
            "dynamicASN: internal, peerAddress: 'fe80::1%eth0', peerPort: 1790, sourceAddress: 'fe80::2', \
             routerID: 10.0.0.1, holdTime: 9s, keepaliveTime: 2s, connectTime: 3s, passive: true, \
             ebgpMultiHop: 4, addressFamilies: [ipv6-unicast]",
        )
        .unwrap();
        assert_eq!((peer.peer_asn, peer.scope, peer.port), (PeerAsn::Internal, 7, 1790));
        assert_eq!(peer.source_address, Some("fe80::2".parse().unwrap()));
        assert_eq!(peer.router_id.to_string(), "10.0.0.1");
        assert_eq!((peer.hold_time.secs(), peer.keepalive_time), (9, Some(Duration::from_secs(2))));
        assert_eq!((peer.connect_retry_time, peer.passive), (Duration::from_secs(3), true));
        assert_eq!((peer.hops, peer.families), (Hops::Multihop(4), vec![Family::Ipv6Unicast]));
        let gtsm = read("dynamicASN: external, peerAddress: 192.0.2.1, ttlSecurity: 1").unwrap();
        assert_eq!((gtsm.peer_asn, gtsm.hops), (PeerAsn::External, Hops::TtlSecurity(1)));
    }

    #[test]
    fn graceful_restart_is_on_unless_it_is_turned_off() {
        let with = |yaml: &str| {
            let read = read(&format!("peerASN: 1, peerAddress: 192.0.2.1, gracefulRestart: {yaml}"));
            read.map(|peer| peer.graceful_restart.map(|it| (it.restart_time.secs(), it.long_lived)))
        };
        assert_eq!(with("{}"), Ok(Some((120, None))));
        assert_eq!(with("{enabled: false}"), Ok(None));
        let an_hour = LongLivedStaleTime::new(3600);
        assert_eq!(with("{restartTime: 4095s, longLivedStaleTime: 1h}"), Ok(Some((4095, an_hour))));
        for (yaml, path) in [
            ("{restartTime: 0s}", "spec.gracefulRestart.restartTime"),
            ("{restartTime: 4096s}", "spec.gracefulRestart.restartTime"),
            ("{restartTime: 1500ms}", "spec.gracefulRestart.restartTime"),
            ("{longLivedStaleTime: 0s}", "spec.gracefulRestart.longLivedStaleTime"),
            ("{longLivedStaleTime: 16777216s}", "spec.gracefulRestart.longLivedStaleTime"),
        ] {
            assert_eq!(with(yaml).unwrap_err().path, path, "{yaml}");
        }
    }

    #[test]
    fn a_role_is_said_to_routers_of_other_ases_only() {
        let with = |yaml: &str| read(&format!("peerAddress: 192.0.2.1, {yaml}")).map(|peer| peer.role);
        let expected = RoleConfig { role: Role::RouteServerClient, is_strict: true };
        assert_eq!(with("peerASN: 1, role: route-server-client, strictRole: true"), Ok(Some(expected)));
        assert_eq!(with("peerASN: 1"), Ok(None));
        assert_eq!(with("dynamicASN: internal, role: peer").unwrap_err().path, "spec.role");
        assert_eq!(with("peerASN: 1, strictRole: true").unwrap_err().path, "spec.strictRole");
    }

    #[test]
    fn an_unnumbered_peer_is_the_router_that_is_heard_on_its_interface() {
        let peer = read("dynamicASN: external, interface: eth0").unwrap();
        assert_eq!((peer.address, peer.scope), (SOME_ROUTER.into(), 7));
        for (interface, part) in [("eth1", "no router is heard on eth1 yet"), ("eth9", "no interface eth9")] {
            let refusal = read(&format!("dynamicASN: external, interface: {interface}")).unwrap_err();
            assert_eq!(refusal.path, "spec.interface");
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }

    #[test]
    fn a_password_is_the_key_of_its_secret_or_no_session() {
        let peer = read("peerASN: 1, peerAddress: 192.0.2.1, passwordSecret: {name: there}").unwrap();
        assert_eq!(peer.md5_key, Some(Md5Key::new(b"key").unwrap()));
        let refusal = read("peerASN: 1, peerAddress: 192.0.2.1, passwordSecret: {name: gone}").unwrap_err();
        assert_eq!(refusal.path, "spec.passwordSecret.name");
    }

    #[test]
    fn families_come_in_one_order_whatever_the_spec_says() {
        let peer = read("peerASN: 1, peerAddress: 192.0.2.1, addressFamilies: [ipv6-unicast, ipv4-unicast]")
            .unwrap();
        assert_eq!(peer.families, Family::ALL);
    }

    #[test]
    fn bad_values_are_refused_with_their_field_and_what_would_do() {
        let plain = "peerASN: 64513, peerAddress: 192.0.2.1";
        for (yaml, path, part) in [
            (
                "peerASN: 1, dynamicASN: internal, peerAddress: 192.0.2.1".to_owned(),
                "spec.dynamicASN",
                "keep one",
            ),
            ("peerAddress: 192.0.2.1".to_owned(), "spec.peerASN", "set one"),
            ("peerASN: 0, peerAddress: 192.0.2.1".to_owned(), "spec.peerASN", "1 to 4294967295"),
            ("peerASN: 1".to_owned(), "spec.peerAddress", "expected an IPv4 or IPv6"),
            ("peerASN: 1, peerAddress: 192.0.2.300".to_owned(), "spec.peerAddress", "not an address"),
            ("peerASN: 1, peerAddress: 0.0.0.0".to_owned(), "spec.peerAddress", "unicast"),
            ("peerASN: 1, peerAddress: 'fe80::1'".to_owned(), "spec.peerAddress", "fe80::1%eth0"),
            ("peerASN: 1, peerAddress: 'fe80::1%eth9'".to_owned(), "spec.peerAddress", "no interface eth9"),
            ("peerASN: 1, peerAddress: '192.0.2.1%eth0'".to_owned(), "spec.peerAddress", "leave out"),
            (format!("{plain}, interface: eth0"), "spec.interface", "keep one"),
            (format!("{plain}, sourceAddress: '2001:db8::1'"), "spec.sourceAddress", "one family"),
            (format!("{plain}, sourceAddress: eth0"), "spec.sourceAddress", "not an address"),
            (format!("{plain}, routerID: 0.0.0.0"), "spec.routerID", "other than 0.0.0.0"),
            (format!("{plain}, holdTime: 2s"), "spec.holdTime", "3s to 65535s"),
            (format!("{plain}, holdTime: 3500ms"), "spec.holdTime", "whole seconds"),
            (format!("{plain}, keepaliveTime: 90s"), "spec.keepaliveTime", "not shorter"),
            (format!("{plain}, connectTime: 0s"), "spec.connectTime", "1s to 65535s"),
            (format!("{plain}, ebgpMultiHop: 2, ttlSecurity: 1"), "spec.ttlSecurity", "keep one"),
            (format!("{plain}, addressFamilies: []"), "spec.addressFamilies", "empty"),
            (format!("{plain}, peerPort: 0"), "spec.peerPort", "1 to 65535"),
        ] {
            let refusal = read(&yaml).unwrap_err();
            assert_eq!((refusal.reason, refusal.path.as_str()), ("Invalid", path), "{yaml}");
            assert!(refusal.message.contains(part), "{yaml}: {refusal}");
        }
    }

    #[test]
    fn a_node_without_ipv4_has_a_router_id_of_its_own_that_stays() {
        let spec: BGPPeerSpec =
            serde_norway::from_str("{myASN: 1, peerASN: 2, peerAddress: '2001:db8::1'}").unwrap();
        let id = |name: &str| {
            let node = NodeInput { name: name.to_owned(), ..NodeInput::default() };
            parse("p", &spec, &node, Surroundings::ANYWHERE).unwrap().router_id
        };
        assert_eq!(id("n1"), id("n1"));
        assert_ne!(id("n1"), id("n2"));
    }
}
