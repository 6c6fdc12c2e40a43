//! UPDATEs on the way in: checked as RFC 7606 asks, counted, dropped.
//!
//! The walk over the attribute list and over the prefixes is done here: `zettabgp` panics on a truncated attribute or
//! a short MP_UNREACH_NLRI, takes a default route for a path identifier, knows one error for the whole message and
//! no RFC 7606. Nothing of a route is kept, so what is left to find out about a prefix is its length.

use super::{
    attributes::{self, Attribute, Fault, Verdict},
    code,
};
use crate::{
    message::ReceivedUpdate,
    notification::{
        Notification, UPDATE_INVALID_NETWORK_FIELD, UPDATE_MALFORMED_ATTRIBUTE_LIST,
        UPDATE_MISSING_WELL_KNOWN_ATTRIBUTE, UPDATE_OPTIONAL_ATTRIBUTE,
    },
    types::Family,
    wire::{DecodeContext, reader::Reader},
};

/// Faults that are told in words; those beyond are as bad, but a message full of them must not fill logs.
const MAX_FAULTS: usize = 8;

/// The three parts of an UPDATE.
pub(super) struct Parts<'a> {
    pub(super) withdrawn: &'a [u8],
    pub(super) attributes: &'a [u8],
    pub(super) nlri: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Parts<'a>> {
        let mut reader = Reader::new(body);
        let withdrawn = reader.u16_prefixed()?;
        let attributes = reader.u16_prefixed()?;
        Some(Parts { withdrawn, attributes, nlri: reader.rest() })
    }
}

/// MP_REACH_NLRI or MP_UNREACH_NLRI, once it was read.
#[derive(Clone, Copy, Debug)]
struct Multiprotocol {
    /// `None`: a family that is not of this session, whose prefixes are ignored.
    family: Option<Family>,
    prefixes: usize,
}

/// What the walk over the attributes has found so far.
struct Walk<'c> {
    context: &'c DecodeContext,
    /// One bit for each attribute code.
    seen: [u64; 4],
    reach: Option<Multiprotocol>,
    unreach: Option<Multiprotocol>,
    /// The list ended within an attribute, so what else it was to hold is not known.
    truncated: bool,
    /// The strongest verdict so far, and what a reset would say (RFC 7606 §3 h).
    worst: Option<Fault>,
    faults: Vec<String>,
}

/// Decodes the body of an UPDATE.
pub(in crate::wire) fn decode(body: &[u8], context: &DecodeContext) -> Result<ReceivedUpdate, Notification> {
    // RFC 4271 §6.3: lengths that exceed the message.
    let parts = Parts::read(body).ok_or_else(|| Notification::new(UPDATE_MALFORMED_ATTRIBUTE_LIST))?;
    let invalid_network = || Notification::new(UPDATE_INVALID_NETWORK_FIELD);
    let withdrawn = count_prefixes(parts.withdrawn, 32).ok_or_else(invalid_network)?;
    let mut walk = Walk::new(context);
    walk.attributes(parts.attributes)?;
    let announced = count_prefixes(parts.nlri, 32).ok_or_else(invalid_network)?;
    walk.check_mandatory(announced);
    walk.check_resettable(announced)?;
    Ok(walk.finish(&parts, withdrawn, announced))
}

impl<'c> Walk<'c> {
    fn new(context: &'c DecodeContext) -> Walk<'c> {
        Walk {
            context,
            seen: [0; 4],
            reach: None,
            unreach: None,
            truncated: false,
            worst: None,
            faults: Vec::new(),
        }
    }

    /// Walks the whole list. Whatever is wrong in an attribute, the next one is found by its length, and the NLRI
    /// by Total Path Attribute Length (RFC 7606 §4).
    fn attributes(&mut self, list: &[u8]) -> Result<(), Notification> {
        let mut reader = Reader::new(list);
        while !reader.is_empty() {
            let Some(attribute) = Attribute::read(&mut reader) else {
                let fault = Fault::withdraw(UPDATE_MALFORMED_ATTRIBUTE_LIST, Vec::new());
                self.fault(fault, format_args!("the attribute list ends within an attribute"));
                self.truncated = true;
                break;
            };
            self.attribute(&attribute)?;
        }
        Ok(())
    }

    fn attribute(&mut self, attribute: &Attribute<'_>) -> Result<(), Notification> {
        let multiprotocol = matches!(attribute.code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI);
        if self.has(attribute.code) {
            // RFC 7606 §3 g: only the first occurrence counts, but there must be one of these at most.
            if multiprotocol {
                return Err(Notification::new(UPDATE_MALFORMED_ATTRIBUTE_LIST));
            }
            self.fault(Fault::discard(), format_args!("attribute {} occurs twice", attribute.code));
            return Ok(());
        }
        self.see(attribute.code);
        if let Some((fault, why)) = attributes::check(attribute, self.context) {
            if fault.verdict == Verdict::Reset {
                return Err(fault.notification);
            }
            self.fault(fault, format_args!("{why}"));
        }
        if multiprotocol {
            // RFC 7606 §3 j, §5.3: where the prefixes can't be found the session is reset.
            self.multiprotocol(attribute)
                .ok_or_else(|| Notification::with_data(UPDATE_OPTIONAL_ATTRIBUTE, attribute.whole))?;
        }
        Ok(())
    }

    fn multiprotocol(&mut self, attribute: &Attribute<'_>) -> Option<()> {
        let mut reader = Reader::new(attribute.value);
        let (afi, safi) = (reader.u16()?, reader.u8()?);
        let family = Family::from_afi_safi(afi, safi).filter(|family| self.context.families.contains(family));
        let mut part = Multiprotocol { family, prefixes: 0 };
        if attribute.code == code::MP_UNREACH_NLRI {
            if let Some(family) = family {
                part.prefixes = count_prefixes(reader.rest(), family_bits(family))?;
            }
            self.unreach = Some(part);
        } else {
            if let Some(family) = family {
                let next_hop = reader.u8_prefixed()?;
                self.next_hop(family, next_hop)?;
                // Reserved; once the number of SNPAs, to be ignored (RFC 4760 §3).
                reader.u8()?;
                part.prefixes = count_prefixes(reader.rest(), family_bits(family))?;
            }
            self.reach = Some(part);
        }
        if family.is_none() {
            let why =
                format_args!("prefixes of AFI {afi}, SAFI {safi}, which was not negotiated, are ignored");
            self.fault(Fault::discard(), why);
        }
        Some(())
    }

    /// A length that does not fit the family is `None`: behind it nothing can be found (RFC 7606 §7.11).
    fn next_hop(&mut self, family: Family, next_hop: &[u8]) -> Option<()> {
        let fits = match (family, next_hop.len()) {
            (Family::Ipv4Unicast, 4) | (Family::Ipv6Unicast, 16 | 32) => true,
            (Family::Ipv4Unicast, 16 | 32) => self.context.extended_next_hop,
            _ => false,
        };
        if fits && !attributes::is_host(next_hop) {
            let fault = Fault::withdraw(crate::notification::UPDATE_INVALID_NEXT_HOP, next_hop.to_vec());
            self.fault(fault, format_args!("the next hop in MP_REACH_NLRI is not the address of a host"));
        }
        fits.then_some(())
    }

    /// RFC 7606 §3 d, for messages that announce something.
    fn check_mandatory(&mut self, announced: usize) {
        if announced == 0 && self.reach.is_none() {
            return;
        }
        let mandatory = [
            (code::ORIGIN, "ORIGIN", true),
            (code::AS_PATH, "AS_PATH", true),
            (code::NEXT_HOP, "NEXT_HOP", announced > 0),
        ];
        for (code, name, wanted) in mandatory {
            if wanted && !self.has(code) {
                let fault = Fault::withdraw(UPDATE_MISSING_WELL_KNOWN_ATTRIBUTE, vec![code]);
                self.fault(fault, format_args!("{name} is missing"));
            }
        }
    }

    /// RFC 7606 §5.2: an error that would withdraw something, and no reachable prefix beside attributes other than
    /// MP_UNREACH_NLRI: perhaps the prefixes were not found.
    fn check_resettable(&self, announced: usize) -> Result<(), Notification> {
        let reachable =
            announced > 0 || self.reach.is_some_and(|reach| reach.prefixes > 0 || reach.family.is_none());
        let certain = reachable || (self.only_unreach() && !self.truncated);
        match &self.worst {
            Some(fault) if fault.verdict >= Verdict::TreatAsWithdraw && !certain => {
                Err(fault.notification.clone())
            }
            _ => Ok(()),
        }
    }

    fn only_unreach(&self) -> bool {
        self.unreach.is_some() && self.seen.iter().map(|word| word.count_ones()).sum::<u32>() == 1
    }

    fn finish(self, parts: &Parts<'_>, withdrawn: usize, announced: usize) -> ReceivedUpdate {
        let end_of_rib = self.end_of_rib(parts);
        let withdraw = self.verdict() == Verdict::TreatAsWithdraw;
        let mut update = ReceivedUpdate { end_of_rib, faults: self.faults, ..ReceivedUpdate::default() };
        let classic = self.context.families.contains(&Family::Ipv4Unicast).then_some(Family::Ipv4Unicast);
        let reach = [Multiprotocol { family: classic, prefixes: announced }].into_iter().chain(self.reach);
        let unreach =
            [Multiprotocol { family: classic, prefixes: withdrawn }].into_iter().chain(self.unreach);
        let counts = reach.map(|part| (part, withdraw)).chain(unreach.map(|part| (part, true)));
        for (part, withdrawn) in counts {
            let Some(family) = part.family else { continue };
            let counters = if withdrawn { &mut update.unreach } else { &mut update.reach };
            match family {
                Family::Ipv4Unicast => counters[0] += part.prefixes,
                Family::Ipv6Unicast => counters[1] += part.prefixes,
            }
        }
        update
    }

    /// RFC 4724 §2: an empty UPDATE, or nothing but an empty MP_UNREACH_NLRI.
    fn end_of_rib(&self, parts: &Parts<'_>) -> Option<Family> {
        if !parts.withdrawn.is_empty() || !parts.nlri.is_empty() {
            return None;
        }
        let family = if parts.attributes.is_empty() {
            Family::Ipv4Unicast
        } else {
            self.unreach.filter(|unreach| self.only_unreach() && unreach.prefixes == 0)?.family?
        };
        self.context.families.contains(&family).then_some(family)
    }

    fn fault(&mut self, fault: Fault, why: std::fmt::Arguments<'_>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(format!("{why}: {}", fault.verdict));
        }
        if self.verdict() < fault.verdict {
            self.worst = Some(fault);
        }
    }

    fn verdict(&self) -> Verdict {
        self.worst.as_ref().map_or(Verdict::Keep, |fault| fault.verdict)
    }

    fn has(&self, code: u8) -> bool {
        self.seen.get(usize::from(code / 64)).is_some_and(|word| word & (1 << (code % 64)) != 0)
    }

    fn see(&mut self, code: u8) {
        if let Some(word) = self.seen.get_mut(usize::from(code / 64)) {
            *word |= 1 << (code % 64);
        }
    }
}

const fn family_bits(family: Family) -> u8 {
    match family {
        Family::Ipv4Unicast => 32,
        Family::Ipv6Unicast => 128,
    }
}

/// How many prefixes a field holds; `None` where a length is beyond `max_bits` or the end (RFC 7606 §5.3).
fn count_prefixes(field: &[u8], max_bits: u8) -> Option<usize> {
    let mut reader = Reader::new(field);
    let mut count = 0;
    while let Some(bits) = reader.u8() {
        if bits > max_bits {
            return None;
        }
        reader.take(usize::from(bits.div_ceil(8)))?;
        count += 1;
    }
    Some(count)
}
