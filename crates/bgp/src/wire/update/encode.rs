//! UPDATEs on the way out: as many prefixes in each as the peer takes.
//!
//! Prefixes are written here and not by `zettabgp`, which wants a `Vec` of its own prefix type for each message, has no
//! limit to a message's length (5,000 prefixes become one of 25,004 octets) and no next hop of 32 octets. This is
//! where 100,000 routes have to go out in a millisecond: nothing is allocated per prefix, and a property test
//! proves the octets equal to those of `zettabgp`.

use bytes::{BufMut, BytesMut};

use super::{code, flags, neighbours::Neighbours, path_attributes};
use crate::{
    attributes::{Attributes, NextHop},
    types::Family,
    wire::{
        EncodeContext,
        frame::{self, HEADER_LENGTH, MessageType},
    },
};

/// What was appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// UPDATE messages.
    pub messages: usize,
    /// Octets, headers included.
    pub octets: usize,
    /// Prefixes in them: the first so many that were given.
    pub prefixes: usize,
}

/// Why routes can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// No prefix fits behind the attributes.
    #[error(
        "the path attributes take {octets} octets, which leaves no room for a prefix in a message of {max_length}: \
         expected fewer communities or a shorter AS_PATH"
    )]
    AttributesTooLong {
        /// Length of an UPDATE with these attributes and no prefix.
        octets: usize,
        /// Longest message that the peer takes.
        max_length: usize,
    },
    /// IPv6 prefixes need an IPv6 next hop (RFC 4760 §3).
    #[error("an IPv6 prefix can't have an IPv4 next hop: expected an IPv6 address of this node")]
    NextHopFamily,
}

/// An UPDATE but for its prefixes: what stands before and behind them, and which lengths depend on them.
#[derive(Debug, Default)]
pub(crate) struct Template {
    /// Header and everything up to the first prefix.
    before: BytesMut,
    /// Everything behind the last prefix.
    behind: BytesMut,
    /// Where in `before` two-octet lengths stand, each with what it is without the prefixes' octets.
    lengths: [Option<(usize, usize)>; 2],
}

impl Template {
    fn new() -> Template {
        let mut template = Template::default();
        template.before.put_bytes(0, HEADER_LENGTH);
        template
    }

    /// Of UPDATEs that announce prefixes of the family with these attributes; see [`encode_reach`].
    pub(crate) fn of_reach(
        family: Family,
        next_hop: &NextHop,
        attributes: &Attributes,
        context: &EncodeContext,
    ) -> Result<Template, EncodeError> {
        let mut encoded = BytesMut::new();
        let template = match (family, next_hop) {
            (Family::Ipv4Unicast, NextHop::V4(address)) => {
                path_attributes::encode(attributes, Some(*address), context, &mut encoded);
                let mut template = Template::new();
                template.before.put_u16(0);
                template.before.put_u16(u16::try_from(encoded.len()).unwrap_or(u16::MAX));
                template.before.put_slice(&encoded);
                template
            }
            (Family::Ipv6Unicast, NextHop::V4(_)) => return Err(EncodeError::NextHopFamily),
            (_, NextHop::V6 { global, link_local }) => {
                path_attributes::encode(attributes, None, context, &mut encoded);
                let mut value = family_octets(family).to_vec();
                value.push(if link_local.is_some() { 32 } else { 16 });
                value.extend(global.octets());
                value.extend(link_local.iter().flat_map(|address| address.octets()));
                // The reserved octet, which once counted SNPAs.
                value.push(0);
                Template::new().multiprotocol(code::MP_REACH_NLRI, &value, encoded)
            }
        };
        let octets = template.length();
        if octets + longest_prefix(family) > context.max_length {
            return Err(EncodeError::AttributesTooLong { octets, max_length: context.max_length });
        }
        Ok(template)
    }

    /// Total Path Attribute Length and the head of MP_REACH_NLRI or MP_UNREACH_NLRI, whose value begins with
    /// `value`; the prefixes end the attribute, and `behind` are the other attributes.
    fn multiprotocol(mut self, code: u8, value: &[u8], behind: BytesMut) -> Template {
        /// Flags, code and two octets of length.
        const ATTRIBUTE_HEADER: usize = 4;
        self.before.put_u16(0);
        self.lengths = [
            Some((self.before.len(), ATTRIBUTE_HEADER + value.len() + behind.len())),
            Some((self.before.len() + 4, value.len())),
        ];
        self.before.put_u16(0);
        self.before.put_slice(&[flags::OPTIONAL | flags::EXTENDED_LENGTH, code, 0, 0]);
        self.before.put_slice(value);
        self.behind = behind;
        self
    }

    /// Length of the message without prefixes.
    fn length(&self) -> usize {
        self.before.len() + self.behind.len()
    }

    /// Appends messages, each as full as the next prefix allows.
    pub(crate) fn pack(
        &self,
        family: Family,
        nlri: impl IntoIterator<Item = impl Into<Neighbours>>,
        max: usize,
        limit: usize,
        out: &mut BytesMut,
    ) -> Packed {
        let start = out.len();
        let mut messages = 0;
        let mut prefixes = 0;
        let mut nlri = nlri.into_iter().map(Into::<Neighbours>::into).filter(|neighbours| {
            debug_assert_eq!(Family::of(&neighbours.first), family, "a prefix of another family");
            Family::of(&neighbours.first) == family && neighbours.members != 0
        });
        let mut next = nlri.next();
        while let Some(neighbours) = &next
            && out.len() < limit
        {
            let message = out.len();
            // No more room than what is left can take: most calls bring a prefix or two.
            let left = nlri.size_hint().1.map_or(max, |left| {
                let left = left.saturating_mul(64).saturating_add(neighbours.members.count_ones() as usize);
                left.saturating_mul(longest_prefix(family))
            });
            out.resize(message + max.min(self.length().saturating_add(left)), 0);
            let room = out.get_mut(message..).unwrap_or_default();
            let (length, filled) = self.fill(room, &mut next, &mut nlri);
            prefixes += filled;
            out.truncate(message + length);
            messages += 1;
        }
        Packed { messages, octets: out.len() - start, prefixes }
    }

    /// Writes one message into `room`, which is as long as a message may be, and returns its length. `next` is
    /// the first to go in, and then what did not. Also returns how many prefixes went in.
    fn fill(
        &self,
        room: &mut [u8],
        next: &mut Option<Neighbours>,
        nlri: &mut impl Iterator<Item = Neighbours>,
    ) -> (usize, usize) {
        let begin = self.before.len();
        let mut filled = 0;
        let limit = room.len() - self.behind.len();
        let mut end = begin;
        while let Some(neighbours) = next {
            let (octets, count) = neighbours.put(room.get_mut(end..limit).unwrap_or_default());
            end += octets;
            filled += count;
            if neighbours.members != 0 {
                break;
            }
            *next = nlri.next();
        }
        let length = end + self.behind.len();
        room[..begin].copy_from_slice(&self.before);
        room[end..length].copy_from_slice(&self.behind);
        room[..HEADER_LENGTH].copy_from_slice(&frame::header_bytes(MessageType::Update, length));
        for (at, without_prefixes) in self.lengths.iter().flatten() {
            let value = u16::try_from(without_prefixes + end - begin).expect("shorter than the message");
            room[*at..*at + 2].copy_from_slice(&value.to_be_bytes());
        }
        (length, filled)
    }
}

/// Octets that the longest prefix of the family takes.
const fn longest_prefix(family: Family) -> usize {
    match family {
        Family::Ipv4Unicast => 5,
        Family::Ipv6Unicast => 17,
    }
}

/// Appends UPDATEs that announce every prefix of `nlri`, in that order, with these attributes, but begins no message
/// once `out` has `limit` octets, so that every one but the last of all is full. Prefixes of another family are a
/// mistake of the caller and left out. IPv4 with an IPv4 next hop is classic NLRI with NEXT_HOP; everything else is
/// MP_REACH_NLRI (RFC 4760, RFC 8950), the first of the attributes (RFC 7606 §5.1).
pub fn encode_reach(
    family: Family,
    next_hop: &NextHop,
    attributes: &Attributes,
    nlri: impl IntoIterator<Item = impl Into<Neighbours>>,
    context: &EncodeContext,
    limit: usize,
    out: &mut BytesMut,
) -> Result<Packed, EncodeError> {
    let template = Template::of_reach(family, next_hop, attributes, context)?;
    Ok(template.pack(family, nlri, context.max_length, limit, out))
}

/// Appends UPDATEs that withdraw every prefix of `nlri`, in that order and up to `limit` as [`encode_reach`] does:
/// IPv4 in Withdrawn Routes, also where it was announced with an IPv6 next hop (they are the same routes), IPv6 in
/// MP_UNREACH_NLRI.
pub fn encode_unreach(
    family: Family,
    nlri: impl IntoIterator<Item = impl Into<Neighbours>>,
    context: &EncodeContext,
    limit: usize,
    out: &mut BytesMut,
) -> Packed {
    let template = match family {
        Family::Ipv4Unicast => {
            let mut template = Template::new();
            template.lengths = [Some((HEADER_LENGTH, 0)), None];
            template.before.put_u16(0);
            // Total Path Attribute Length.
            template.behind.put_u16(0);
            template
        }
        Family::Ipv6Unicast => {
            Template::new().multiprotocol(code::MP_UNREACH_NLRI, &family_octets(family), BytesMut::new())
        }
    };
    template.pack(family, nlri, context.max_length, limit, out)
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2): an empty UPDATE for IPv4, else an empty
/// MP_UNREACH_NLRI.
pub fn encode_end_of_rib(family: Family, out: &mut BytesMut) {
    frame::write(MessageType::Update, out, |out| {
        out.put_u16(0);
        match family {
            Family::Ipv4Unicast => out.put_u16(0),
            Family::Ipv6Unicast => {
                out.put_u16(6);
                out.put_slice(&[flags::OPTIONAL, code::MP_UNREACH_NLRI, 3]);
                out.put_slice(&family_octets(family));
            }
        }
    });
}

fn family_octets(family: Family) -> [u8; 3] {
    let [high, low] = family.afi().to_be_bytes();
    [high, low, family.safi()]
}
