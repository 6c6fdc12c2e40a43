//! Who the two ends of a session are: the router's address, ours where it is said, and our router ID.

use std::net::{IpAddr, Ipv4Addr};

use api::{BGPPeerSpec, Refusal};
use bgp::types::RouterId;
use sha2::{Digest, Sha256};

use super::Surroundings;
use crate::inputs::node::NodeInput;

pub(super) fn peer_address(
    spec: &BGPPeerSpec,
    surroundings: Surroundings<'_>,
) -> Result<(IpAddr, u32), Refusal> {
    let path = "spec.peerAddress";
    let text = match (&spec.peer_address, &spec.interface) {
        (Some(text), None) => text,
        (Some(_), Some(_)) => {
            return Err(Refusal::invalid("spec.interface", "peerAddress is set as well: keep one of them"));
        }
        (None, Some(interface)) => return router_address(interface, surroundings),
        (None, None) => {
            return Err(Refusal::invalid(path, "no address is set: expected an IPv4 or IPv6 address"));
        }
    };
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text.as_str(), None),
    };
    let address: IpAddr = address.parse().map_err(|_| {
        Refusal::invalid(
            path,
            format!("{text:?} is not an address: expected one as 192.0.2.1 or fe80::1%eth0"),
        )
    })?;
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err(Refusal::invalid(
            path,
            format!("{address} is no router's address: expected a unicast one"),
        ));
    }
    let is_link_local = matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
    match (is_link_local, zone) {
        (false, None) => Ok((address, 0)),
        (true, Some(zone)) => {
            (surroundings.interface_index)(zone).map(|index| (address, index)).ok_or_else(|| {
                Refusal::invalid(
                    path,
                    format!("this node has no interface {zone}: expected one as in `ip link`"),
                )
            })
        }
        (true, None) => Err(Refusal::invalid(
            path,
            format!("{address} is link-local: append its interface, as {address}%eth0"),
        )),
        (false, Some(zone)) => {
            Err(Refusal::invalid(path, format!("{address} is not link-local: leave out %{zone}")))
        }
    }
}

/// Unnumbered: who is heard on the interface.
fn router_address(interface: &str, surroundings: Surroundings<'_>) -> Result<(IpAddr, u32), Refusal> {
    let path = "spec.interface";
    let index = (surroundings.interface_index)(interface).ok_or_else(|| {
        Refusal::invalid(
            path,
            format!("this node has no interface {interface}: expected one as in `ip link`"),
        )
    })?;
    let router = (surroundings.router)(interface).ok_or_else(|| {
        let message = format!(
            "no router is heard on {interface} yet: expected its Router Advertisements (IPv6 has to be on at both ends)"
        );
        Refusal::invalid(path, message)
    })?;
    Ok((router.into(), index))
}

pub(super) fn source_address(spec: &BGPPeerSpec, peer: IpAddr) -> Result<Option<IpAddr>, Refusal> {
    let path = "spec.sourceAddress";
    let Some(text) = &spec.source_address else { return Ok(None) };
    let source: IpAddr = text.parse().map_err(|_| {
        Refusal::invalid(path, format!("{text:?} is not an address: expected one as 192.0.2.1"))
    })?;
    if source.is_ipv4() != peer.is_ipv4() {
        let message = format!("{source} and the peer {peer} are of different families: expected one family");
        return Err(Refusal::invalid(path, message));
    }
    Ok(Some(source))
}

/// As configured; else the node's IPv4 address; else a number made of its name, so that it stays the same and
/// differs between nodes. Any non-zero number will do (RFC 6286).
pub(super) fn router_id(spec: &BGPPeerSpec, node: &NodeInput) -> Result<RouterId, Refusal> {
    let path = "spec.routerID";
    if let Some(text) = &spec.router_id {
        let id: Option<Ipv4Addr> = text.parse().ok();
        return id.and_then(RouterId::new).ok_or_else(|| {
            Refusal::invalid(
                path,
                format!("{text:?} is not a router ID: expected an IPv4 address other than 0.0.0.0"),
            )
        });
    }
    Ok(node.ipv4.and_then(RouterId::new).unwrap_or_else(|| derived_router_id(&node.name)))
}

fn derived_router_id(node_name: &str) -> RouterId {
    let hash = Sha256::digest(node_name.as_bytes());
    let fallback = RouterId::new(Ipv4Addr::LOCALHOST).expect("127.0.0.1 is not zero");
    hash.chunks_exact(4)
        .filter_map(|octets| <[u8; 4]>::try_from(octets).ok())
        .find_map(|octets| RouterId::new(octets.into()))
        .unwrap_or(fallback)
}
