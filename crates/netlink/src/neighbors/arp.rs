//! ARP packets for IPv4 over Ethernet (RFC 826), as RFC 5227 and RFC 5944 §4.6 use them.

use std::net::Ipv4Addr;

use super::{Heard, Kind};
use crate::mac::Mac;

pub(super) const OCTETS: usize = 28;

/// Ethernet, IPv4, and the lengths of their addresses.
const SPACES: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const NOBODY: Mac = Mac([0; 6]);

/// One packet, field by field.
struct Packet {
    operation: u16,
    sender_mac: Mac,
    sender: Ipv4Addr,
    target_mac: Mac,
    target: Ipv4Addr,
}

impl Packet {
    fn encode(&self) -> [u8; OCTETS] {
        let mut octets = [0; OCTETS];
        let fields: [&[u8]; 6] = [
            &SPACES,
            &self.operation.to_be_bytes(),
            &self.sender_mac.0,
            &self.sender.octets(),
            &self.target_mac.0,
            &self.target.octets(),
        ];
        for (octet, value) in octets.iter_mut().zip(fields.into_iter().flatten()) {
            *octet = *value;
        }
        octets
    }

    /// A packet and whatever pads the frame behind it.
    fn decode(octets: &[u8]) -> Option<Packet> {
        let (octets, _padding) = octets.split_first_chunk::<OCTETS>()?;
        let rest = octets.strip_prefix(&SPACES)?;
        let (operation, rest) = rest.split_first_chunk()?;
        let (sender_mac, rest) = rest.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk()?;
        let target = rest.first_chunk::<4>()?;
        Some(Packet {
            operation: u16::from_be_bytes(*operation),
            sender_mac: Mac(*sender_mac),
            sender: (*sender).into(),
            target_mac: Mac(*target_mac),
            target: (*target).into(),
        })
    }
}

/// RFC 5227 §3: sender and target are the address, and the target's hardware address is nobody's.
pub(super) fn announcement_request(mac: Mac, address: Ipv4Addr) -> [u8; OCTETS] {
    let packet =
        Packet { operation: REQUEST, sender_mac: mac, sender: address, target_mac: NOBODY, target: address };
    packet.encode()
}

/// RFC 5944 §4.6: in a reply the target's hardware address is the new one, too.
pub(super) fn announcement_reply(mac: Mac, address: Ipv4Addr) -> [u8; OCTETS] {
    let packet =
        Packet { operation: REPLY, sender_mac: mac, sender: address, target_mac: mac, target: address };
    packet.encode()
}

/// RFC 5227 §2.1.1: no sender address, so that nobody's cache is changed by the question.
pub(super) fn probe(mac: Mac, address: Ipv4Addr) -> [u8; OCTETS] {
    let packet = Packet {
        operation: REQUEST,
        sender_mac: mac,
        sender: Ipv4Addr::UNSPECIFIED,
        target_mac: NOBODY,
        target: address,
    };
    packet.encode()
}

/// RFC 826: a reply turns the question around.
pub(super) fn answer_to_probe(mac: Mac, address: Ipv4Addr, prober: Mac) -> [u8; OCTETS] {
    let packet = Packet {
        operation: REPLY,
        sender_mac: mac,
        sender: address,
        target_mac: prober,
        target: Ipv4Addr::UNSPECIFIED,
    };
    packet.encode()
}

/// Deviation: an ordinary request whose sender is the address is no claim here, though RFC 5227 §2.4 takes any packet
/// with it for one. A Linux host lends the addresses of its other interfaces to its requests (`arp_announce=0`), a
/// node with the address on kube-proxy's `kube-ipvs0` among them, and does not answer for them with that.
pub(super) fn read(octets: &[u8]) -> Option<Heard> {
    let packet = Packet::decode(octets)?;
    let (address, kind) = match (packet.operation, packet.sender == packet.target) {
        (REQUEST, false) if packet.sender.is_unspecified() => (packet.target, Kind::Probe),
        (REQUEST | REPLY, true) => (packet.sender, Kind::Announcement),
        (REPLY, false) => (packet.sender, Kind::Answer),
        _ => return None,
    };
    let is_host = !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast();
    is_host.then_some(Heard { address: address.into(), mac: packet.sender_mac, kind })
}
