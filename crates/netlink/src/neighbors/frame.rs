//! Whole Ethernet frames of ARP (RFC 826) and Neighbor Discovery (RFC 4861), written and read. No I/O.
//!
//! Only what a claim to an address takes: RFC 5227's probe and announcement and their IPv6 likes (RFC 4862 §5.4.2,
//! RFC 4861 §7.2.6). What is read comes from anyone on the wire: it is heard or passed over, never believed further
//! than a claim goes.

use std::net::IpAddr;

use super::{Heard, arp, ndp};
use crate::mac::Mac;

/// Destination, source and EtherType.
const HEADER_OCTETS: usize = 14;

pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Frames that say to all that `mac` has the address now: for IPv4 a gratuitous ARP request and a gratuitous ARP
/// reply (RFC 5944 §4.6), as some listen to the one and some to the other; for IPv6 an unsolicited Neighbor
/// Advertisement, its Router flag as given.
pub fn announcements(mac: Mac, address: IpAddr, is_router: bool) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => {
            [arp::announcement_request(mac, address), arp::announcement_reply(mac, address)]
                .map(|packet| ethernet(Mac::BROADCAST, mac, ETHERTYPE_ARP, &packet))
                .into()
        }
        IpAddr::V6(address) => {
            let (to, packet) = ndp::unsolicited_advertisement(mac, address, is_router);
            vec![ethernet(to, mac, ETHERTYPE_IPV6, &packet)]
        }
    }
}

/// A frame that asks who has the address without claiming it: an ARP probe (RFC 5227 §1.1), or a Neighbor
/// Solicitation from the unspecified address (RFC 4862 §5.4.2).
pub fn probe(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => ethernet(Mac::BROADCAST, mac, ETHERTYPE_ARP, &arp::probe(mac, address)),
        IpAddr::V6(address) => {
            let (to, packet) = ndp::probe(address);
            ethernet(to, mac, ETHERTYPE_IPV6, &packet)
        }
    }
}

/// The answer to a probe of `prober`, as the holder's kernel gives it: for IPv4 to the prober alone, for IPv6 to all
/// nodes, since the prober has no address yet (RFC 4861 §7.2.4).
pub fn answer(mac: Mac, address: IpAddr, prober: Mac, is_router: bool) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            ethernet(prober, mac, ETHERTYPE_ARP, &arp::answer_to_probe(mac, address, prober))
        }
        IpAddr::V6(address) => {
            let (to, packet) = ndp::unsolicited_advertisement(mac, address, is_router);
            ethernet(to, mac, ETHERTYPE_IPV6, &packet)
        }
    }
}

/// What a frame says about who has an address; `None`: nothing that matters here, or nothing valid.
pub fn read(frame: &[u8]) -> Option<Heard> {
    let (header, packet) = frame.split_at_checked(HEADER_OCTETS)?;
    let [_, _, _, _, _, _, s0, s1, s2, s3, s4, s5, t0, t1] = *header else { return None };
    let source = Mac([s0, s1, s2, s3, s4, s5]);
    let heard = match u16::from_be_bytes([t0, t1]) {
        ETHERTYPE_ARP => arp::read(packet),
        ETHERTYPE_IPV6 => ndp::read(packet, source),
        _ => None,
    };
    heard.filter(|heard| heard.mac.is_station())
}

fn ethernet(to: Mac, from: Mac, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_OCTETS + packet.len());
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}
