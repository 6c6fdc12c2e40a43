//! Neighbor Solicitations and Advertisements (RFC 4861 §4.3, §4.4) as whole IPv6 packets.

use std::net::Ipv6Addr;

use super::{Heard, Kind};
use crate::mac::Mac;

const IPV6_OCTETS: usize = 40;
const ICMPV6: u8 = 58;
/// RFC 4861 §7.1: a packet with another has been forwarded, so it is from somewhere else.
const HOP_LIMIT: u8 = 255;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Without options.
const MESSAGE_OCTETS: usize = 24;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// RFC 4861 §7.2.6: to all nodes, Solicited clear, Override set, with the link-layer address. From the address itself,
/// which is one of the interface's.
pub(super) fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr, is_router: bool) -> (Mac, Vec<u8>) {
    let flags = if is_router { OVERRIDE | ROUTER } else { OVERRIDE };
    let mut message = message(ADVERTISEMENT, flags, address);
    // Type, length in units of eight octets, address.
    message.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    message.extend(mac.0);
    (group_mac(ALL_NODES), packet(address, ALL_NODES, message))
}

/// RFC 4862 §5.4.2: from nobody, to the address's solicited-node group, without a link-layer address.
pub(super) fn probe(address: Ipv6Addr) -> (Mac, Vec<u8>) {
    let group = solicited_node(address);
    (group_mac(group), packet(Ipv6Addr::UNSPECIFIED, group, message(SOLICITATION, 0, address)))
}

/// RFC 4291 §2.7.1.
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// RFC 2464 §7.
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// Without checksum.
fn message(kind: u8, flags: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(source, destination, &message).to_be_bytes();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum);
    }
    let length = u16::try_from(message.len()).expect("a message of some 32 octets");
    let mut packet = Vec::with_capacity(IPV6_OCTETS + message.len());
    // Version 6, no traffic class, no flow label.
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([ICMPV6, HOP_LIMIT]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(message);
    packet
}

/// RFC 4443 §2.3 with the pseudo-header of RFC 8200 §8.1. Over a message that carries its checksum it is 0.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let addresses = source.octets().into_iter().chain(destination.octets());
    let pseudo = addresses.chain(length).chain([0, 0, 0, ICMPV6]);
    let mut sum = 0u32;
    let mut high = None;
    for octet in pseudo.chain(message.iter().copied()) {
        match high.take() {
            None => high = Some(octet),
            Some(high) => sum += u32::from(u16::from_be_bytes([high, octet])),
        }
    }
    sum += u32::from(high.unwrap_or_default()) << 8;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

/// One packet of Neighbor Discovery after the checks that RFC 4861 §7.1.1 and §7.1.2 ask for.
struct Received<'a> {
    kind: u8,
    flags: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    options: &'a [u8],
}

/// `from`: the sender of the frame, where the packet does not name it.
pub(super) fn read(octets: &[u8], from: Mac) -> Option<Heard> {
    let received = receive(octets)?;
    let (source_mac, target_mac) = link_layer_addresses(received.options)?;
    let address = received.target.into();
    match received.kind {
        SOLICITATION => {
            // Others ask for the address of a neighbour; a probe has no sender (§7.1.1).
            let is_probe = received.source.is_unspecified()
                && received.destination == solicited_node(received.target)
                && source_mac.is_none();
            is_probe.then_some(Heard { address, mac: from, kind: Kind::Probe })
        }
        ADVERTISEMENT => {
            let is_solicited = received.flags & SOLICITED != 0;
            // §7.1.2: nobody can have solicited what goes to all.
            if received.destination.is_multicast() && is_solicited {
                return None;
            }
            let kind = if is_solicited { Kind::Answer } else { Kind::Announcement };
            Some(Heard { address, mac: target_mac.unwrap_or(from), kind })
        }
        _ => None,
    }
}

fn receive(octets: &[u8]) -> Option<Received<'_>> {
    let (header, rest) = octets.split_first_chunk::<IPV6_OCTETS>()?;
    let [version, _, _, _, l0, l1, ICMPV6, HOP_LIMIT, addresses @ ..] = header else { return None };
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let source = Ipv6Addr::from(*source);
    let destination = Ipv6Addr::from(*destination.first_chunk::<16>()?);
    let message = rest.get(..usize::from(u16::from_be_bytes([*l0, *l1])))?;
    let (fixed, options) = message.split_first_chunk::<MESSAGE_OCTETS>()?;
    let [kind, 0, _, _, flags, _, _, _, target @ ..] = fixed else { return None };
    let target = Ipv6Addr::from(*target.first_chunk::<16>()?);
    let is_valid = version >> 4 == 6
        && !target.is_multicast()
        && !target.is_unspecified()
        && checksum(source, destination, message) == 0;
    is_valid.then_some(Received { kind: *kind, flags: *flags, source, destination, target, options })
}

/// Source and target link-layer address; `None` where the options are broken (§7.1: of length 0).
fn link_layer_addresses(mut options: &[u8]) -> Option<(Option<Mac>, Option<Mac>)> {
    let (mut source, mut target) = (None, None);
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        let (option, rest) = options.split_at_checked(length).filter(|_| length > 0)?;
        options = rest;
        let mac = option.get(2..8).and_then(|octets| octets.try_into().ok()).map(Mac);
        match kind {
            SOURCE_LINK_LAYER_ADDRESS => source = mac,
            TARGET_LINK_LAYER_ADDRESS => target = mac,
            _ => {}
        }
    }
    options.is_empty().then_some((source, target))
}
