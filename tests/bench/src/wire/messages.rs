//! BGP messages in their shortest form: OPEN, KEEPALIVE, and UPDATEs that each carry as many host routes as fit
//! (RFC 4271 §4, RFC 4760, RFC 6793). They are the optimum that speakers are compared with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// RFC 4271 §4.1.
pub(crate) const HEADER_OCTETS: usize = 19;
const MESSAGE_OCTETS: usize = 4096;
pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;

pub(crate) const MP_REACH_NLRI: u8 = 14;
pub(crate) const MP_UNREACH_NLRI: u8 = 15;

const AS_TRANS: u16 = 23456;
const FIRST_V4: u32 = 0x0a00_0000;
const FIRST_V6: u128 = 0xfd99_0000_0000_0000_0000_0000_0000_0000;

/// What the routes of a benchmark are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Family {
    #[value(name = "v4")]
    Ipv4,
    #[value(name = "v6")]
    Ipv6,
}

impl Family {
    /// Both of them.
    pub(crate) const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// `v4` or `v6`, for the names of figures.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Family::Ipv4 => "v4",
            Family::Ipv6 => "v6",
        }
    }

    /// Octets of one host route's NLRI.
    pub(crate) const fn nlri_octets(self) -> usize {
        match self {
            Family::Ipv4 => 5,
            Family::Ipv6 => 17,
        }
    }

    /// The host route of this number: consecutive addresses from 10.0.0.0 or fd99::.
    pub(crate) fn prefix(self, number: u32) -> IpNet {
        match self {
            Family::Ipv4 => IpNet::V4(Ipv4Net::from(Ipv4Addr::from(FIRST_V4 + number))),
            Family::Ipv6 => IpNet::V6(Ipv6Net::from(Ipv6Addr::from(FIRST_V6 + u128::from(number)))),
        }
    }

    /// The number of a host route from its NLRI; `None` when it is none of [`Family::prefix`].
    pub(crate) fn number(self, nlri: &[u8]) -> Option<usize> {
        let number = match (self, nlri) {
            (Family::Ipv4, [32, a, b, c, d]) => u32::from_be_bytes([*a, *b, *c, *d]).checked_sub(FIRST_V4)?,
            (Family::Ipv6, [128, address @ ..]) => {
                let address = u128::from_be_bytes(address.try_into().ok()?);
                u32::try_from(address.checked_sub(FIRST_V6)?).ok()?
            }
            _ => return None,
        };
        usize::try_from(number).ok()
    }

    fn nlri(self, number: u32, into: &mut Vec<u8>) {
        match self.prefix(number) {
            IpNet::V4(prefix) => {
                into.push(32);
                into.extend(prefix.addr().octets());
            }
            IpNet::V6(prefix) => {
                into.push(128);
                into.extend(prefix.addr().octets());
            }
        }
    }

    const fn afi(self) -> [u8; 3] {
        match self {
            Family::Ipv4 => [0, 1, 1],
            Family::Ipv6 => [0, 2, 1],
        }
    }
}

/// The messages of one speaker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages {
    /// Its AS.
    pub(crate) local_as: u32,
    /// Its BGP Identifier.
    pub(crate) router_id: Ipv4Addr,
}

impl Messages {
    /// OPEN with IPv4 and IPv6 unicast and four-octet AS numbers, Hold Time 240 s.
    pub(crate) fn open(&self) -> Vec<u8> {
        let [a, b, c, d] = self.local_as.to_be_bytes();
        let mut capabilities = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1];
        capabilities.extend([65, 4, a, b, c, d]);
        let short_as = u16::try_from(self.local_as).unwrap_or(AS_TRANS);
        let mut body = vec![4];
        body.extend(short_as.to_be_bytes());
        body.extend(240u16.to_be_bytes());
        body.extend(self.router_id.octets());
        body.extend([octet(capabilities.len() + 2), 2, octet(capabilities.len())]);
        body.extend(capabilities);
        message(OPEN, &body)
    }

    /// KEEPALIVE.
    pub(crate) fn keepalive() -> Vec<u8> {
        message(KEEPALIVE, &[])
    }

    /// The UPDATEs that announce host routes `numbers`, over eBGP, with one attribute set.
    pub(crate) fn announcement(
        &self,
        family: Family,
        next_hop: IpAddr,
        numbers: std::ops::Range<u32>,
    ) -> Vec<u8> {
        let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1];
        attributes.extend(self.local_as.to_be_bytes());
        if let (Family::Ipv4, IpAddr::V4(next_hop)) = (family, next_hop) {
            attributes.extend([0x40, 3, 4]);
            attributes.extend(next_hop.octets());
            return packed(family, numbers, attributes.len(), |nlri| {
                [&[0, 0], &length(attributes.len())[..], &attributes, nlri].concat()
            });
        }
        let next_hop = match next_hop {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let reach = [&family.afi()[..], &[octet(next_hop.len())], &next_hop, &[0]].concat();
        packed(family, numbers, attributes.len() + 4 + reach.len(), |nlri| {
            let all = attributes.len() + 4 + reach.len() + nlri.len();
            let value = length(reach.len() + nlri.len());
            [&[0, 0], &length(all)[..], &attributes, &[0x90, MP_REACH_NLRI], &value, &reach, nlri].concat()
        })
    }

    /// The UPDATEs that withdraw them.
    pub(crate) fn withdrawal(family: Family, numbers: std::ops::Range<u32>) -> Vec<u8> {
        match family {
            Family::Ipv4 => {
                packed(family, numbers, 0, |nlri| [&length(nlri.len())[..], nlri, &[0, 0]].concat())
            }
            Family::Ipv6 => packed(family, numbers, 7, |nlri| {
                let (all, value) = (length(7 + nlri.len()), length(3 + nlri.len()));
                [&[0, 0], &all[..], &[0x90, MP_UNREACH_NLRI], &value, &family.afi(), nlri].concat()
            }),
        }
    }
}

/// As few UPDATEs as possible around the NLRI of `numbers`, each with `overhead` octets beside the two lengths.
fn packed(
    family: Family,
    numbers: std::ops::Range<u32>,
    overhead: usize,
    body: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let room = (MESSAGE_OCTETS - HEADER_OCTETS - 4 - overhead) / family.nlri_octets();
    let numbers = numbers.collect::<Vec<_>>();
    let mut out = Vec::new();
    for some in numbers.chunks(room) {
        let mut nlri = Vec::with_capacity(some.len() * family.nlri_octets());
        some.iter().for_each(|number| family.nlri(*number, &mut nlri));
        out.extend(message(UPDATE, &body(&nlri)));
    }
    out
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(length(HEADER_OCTETS + body.len()));
    message.push(kind);
    message.extend(body);
    message
}

fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).expect("a BGP message has at most 4096 octets").to_be_bytes()
}

fn octet(value: usize) -> u8 {
    u8::try_from(value).expect("the optional parameters of our OPEN are few")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEAKER: Messages = Messages { local_as: 64512, router_id: Ipv4Addr::new(10, 9, 0, 1) };

    fn count(mut octets: &[u8]) -> usize {
        let mut messages = 0;
        while !octets.is_empty() {
            let length = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
            assert!((HEADER_OCTETS..=MESSAGE_OCTETS).contains(&length));
            octets = &octets[length..];
            messages += 1;
        }
        messages
    }

    #[test]
    fn a_hundred_thousand_routes_take_the_known_optimum_of_messages_and_octets() {
        let v4 = SPEAKER.announcement(Family::Ipv4, "10.9.0.1".parse().unwrap(), 0..100_000);
        assert_eq!((count(&v4), v4.len()), (124, 505_332));
        let v6 = SPEAKER.announcement(Family::Ipv6, "fd00:9::1".parse().unwrap(), 0..100_000);
        assert_eq!((count(&v6), v6.len()), (422, 1_725_742));
        assert_eq!(count(&Messages::withdrawal(Family::Ipv4, 0..100_000)), 123);
        assert_eq!(count(&Messages::withdrawal(Family::Ipv6, 0..100_000)), 419);
    }

    #[test]
    fn numbers_survive_the_way_through_the_wire_form() {
        for family in Family::ALL {
            let mut nlri = Vec::new();
            family.nlri(99_999, &mut nlri);
            assert_eq!(nlri.len(), family.nlri_octets());
            assert_eq!(family.number(&nlri), Some(99_999));
        }
        assert_eq!(Family::Ipv4.number(&[24, 10, 0, 0, 0]), None);
    }
}
