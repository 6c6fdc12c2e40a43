//! Received path attributes one by one: what RFC 4271 §6.3 calls an error, and what RFC 7606 makes of it.
//!
//! Values are checked and not kept, so none is handed to `zettabgp`: that would allocate for communities nobody
//! reads, and it panics on half of what is looked for here.

use std::fmt;

use super::{code, flags};
use crate::{
    notification::{
        Code, Notification, UPDATE_ATTRIBUTE_FLAGS, UPDATE_ATTRIBUTE_LENGTH, UPDATE_INVALID_NEXT_HOP,
        UPDATE_INVALID_ORIGIN, UPDATE_MALFORMED_AS_PATH, UPDATE_UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE,
    },
    wire::{DecodeContext, reader::Reader},
};

/// What becomes of an UPDATE with an error (RFC 7606 §2), the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// No error.
    Keep,
    /// The attribute is left out, its routes stay.
    Discard,
    /// Every route of the UPDATE counts as withdrawn.
    TreatAsWithdraw,
    /// NOTIFICATION, and the session ends.
    Reset,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Keep => "kept",
            Verdict::Discard => "discarded",
            Verdict::TreatAsWithdraw => "the routes are treated as withdrawn",
            Verdict::Reset => "the session is reset",
        })
    }
}

/// An error: its verdict, and the NOTIFICATION in case the session is reset after all.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) verdict: Verdict,
    pub(super) notification: Notification,
}

impl Fault {
    pub(super) fn withdraw(code: Code, data: Vec<u8>) -> Fault {
        Fault { verdict: Verdict::TreatAsWithdraw, notification: Notification::with_data(code, data) }
    }

    /// No reset comes of these.
    pub(super) fn discard() -> Fault {
        Fault {
            verdict: Verdict::Discard,
            notification: Notification::new(crate::notification::UPDATE_OPTIONAL_ATTRIBUTE),
        }
    }
}

/// One path attribute as received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) flags: u8,
    pub(super) code: u8,
    pub(super) value: &'a [u8],
    /// Flags, code, length and value: the data of a NOTIFICATION.
    pub(super) whole: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// `None` where the header or the value goes past the end of the list.
    pub(super) fn read(reader: &mut Reader<'a>) -> Option<Attribute<'a>> {
        let list = reader.rest();
        let (flags, code) = (reader.u8()?, reader.u8()?);
        let value =
            if flags & flags::EXTENDED_LENGTH == 0 { reader.u8_prefixed() } else { reader.u16_prefixed() }?;
        let whole = list.get(..list.len() - reader.len())?;
        Some(Attribute { flags, code, value, whole })
    }

    fn fault(&self, verdict: Verdict, code: Code) -> Fault {
        Fault { verdict, notification: Notification::with_data(code, self.whole) }
    }
}

/// How an attribute's value is checked.
enum Check {
    /// Exactly so many octets.
    Length(usize),
    /// A multiple of so many octets, and not empty.
    Multiple(usize),
    Origin,
    AsPath,
    As4Path,
    NextHop,
    Aggregator,
    /// Nothing of its own: any length is right, or it is checked where it is read.
    Nothing,
}

/// What is known of an attribute.
struct Rule {
    name: &'static str,
    flags: u8,
    check: Check,
    /// Verdict of an error in it.
    verdict: Verdict,
    /// Where it is discarded unread.
    scope: Scope,
}

/// On which sessions an attribute means something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Any,
    /// Internal ones (RFC 7606 §7.5, §7.9, §7.10).
    Internal,
    /// Those with 2-octet AS numbers (RFC 6793 §4.1).
    TwoOctetAsn,
}

impl Scope {
    /// What is wrong with the session, to say behind the attribute's name.
    fn violation(self, context: &DecodeContext) -> Option<&'static str> {
        match self {
            Scope::Internal if context.is_ebgp => Some("from an external peer"),
            Scope::TwoOctetAsn if context.four_octet_asn => Some("on a session with 4-octet AS numbers"),
            _ => None,
        }
    }
}

const fn rule(name: &'static str, flags: u8, check: Check) -> Rule {
    Rule { name, flags, check, verdict: Verdict::TreatAsWithdraw, scope: Scope::Any }
}

impl Rule {
    const fn only(self, scope: Scope) -> Rule {
        Rule { scope, ..self }
    }

    const fn discard(self) -> Rule {
        Rule { verdict: Verdict::Discard, ..self }
    }
}

/// RFC 7606 §7 as a table.
fn rule_of(code: u8) -> Option<Rule> {
    use flags::{OPTIONAL, OPTIONAL_TRANSITIVE, WELL_KNOWN};
    Some(match code {
        code::ORIGIN => rule("ORIGIN", WELL_KNOWN, Check::Origin),
        code::AS_PATH => rule("AS_PATH", WELL_KNOWN, Check::AsPath),
        code::NEXT_HOP => rule("NEXT_HOP", WELL_KNOWN, Check::NextHop),
        code::MULTI_EXIT_DISC => rule("MULTI_EXIT_DISC", OPTIONAL, Check::Length(4)),
        code::LOCAL_PREF => rule("LOCAL_PREF", WELL_KNOWN, Check::Length(4)).only(Scope::Internal),
        code::ATOMIC_AGGREGATE => rule("ATOMIC_AGGREGATE", WELL_KNOWN, Check::Length(0)).discard(),
        code::AGGREGATOR => rule("AGGREGATOR", OPTIONAL_TRANSITIVE, Check::Aggregator).discard(),
        code::COMMUNITIES => rule("COMMUNITIES", OPTIONAL_TRANSITIVE, Check::Multiple(4)),
        code::ORIGINATOR_ID => rule("ORIGINATOR_ID", OPTIONAL, Check::Length(4)).only(Scope::Internal),
        code::CLUSTER_LIST => rule("CLUSTER_LIST", OPTIONAL, Check::Multiple(4)).only(Scope::Internal),
        code::MP_REACH_NLRI => rule("MP_REACH_NLRI", OPTIONAL, Check::Nothing),
        code::MP_UNREACH_NLRI => rule("MP_UNREACH_NLRI", OPTIONAL, Check::Nothing),
        code::EXTENDED_COMMUNITIES => rule("EXTENDED COMMUNITIES", OPTIONAL_TRANSITIVE, Check::Multiple(8)),
        // RFC 6793 §6: whatever is wrong in them costs only them.
        code::AS4_PATH => {
            rule("AS4_PATH", OPTIONAL_TRANSITIVE, Check::As4Path).only(Scope::TwoOctetAsn).discard()
        }
        code::AS4_AGGREGATOR => {
            rule("AS4_AGGREGATOR", OPTIONAL_TRANSITIVE, Check::Length(8)).only(Scope::TwoOctetAsn).discard()
        }
        code::IPV6_EXTENDED_COMMUNITIES => {
            rule("IPv6 EXTENDED COMMUNITIES", OPTIONAL_TRANSITIVE, Check::Multiple(20))
        }
        code::LARGE_COMMUNITIES => rule("LARGE_COMMUNITIES", OPTIONAL_TRANSITIVE, Check::Multiple(12)),
        code::ONLY_TO_CUSTOMER => rule("ONLY_TO_CUSTOMER", OPTIONAL_TRANSITIVE, Check::Length(4)),
        _ => return None,
    })
}

/// The error in an attribute, if there is one, and why it is one.
pub(super) fn check(attribute: &Attribute<'_>, context: &DecodeContext) -> Option<(Fault, String)> {
    let Some(rule) = rule_of(attribute.code) else {
        // RFC 4271 §6.3: an attribute that is not known has to be optional.
        return (attribute.flags & flags::OPTIONAL == 0).then(|| {
            let fault = attribute.fault(Verdict::Reset, UPDATE_UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE);
            (fault, format!("attribute {} is not known and said to be well-known", attribute.code))
        });
    };
    if let Some(violation) = rule.scope.violation(context) {
        return Some((Fault::discard(), format!("{} {violation}", rule.name)));
    }
    // RFC 7606 §3 c: only these two bits count.
    if attribute.flags & flags::OPTIONAL_TRANSITIVE != rule.flags {
        let why =
            format!("{} has the flags {:#04x}, expected {:#04x}", rule.name, attribute.flags, rule.flags);
        return Some((attribute.fault(rule.verdict, UPDATE_ATTRIBUTE_FLAGS), why));
    }
    let (code, why) = check_value(&rule.check, attribute.value, context)?;
    Some((attribute.fault(rule.verdict, code), format!("{} {why}", rule.name)))
}

fn check_value(check: &Check, value: &[u8], context: &DecodeContext) -> Option<(Code, String)> {
    match check {
        Check::Length(expected) => wrong_length(value, *expected),
        Check::Multiple(unit) => (value.is_empty() || !value.len().is_multiple_of(*unit)).then(|| {
            let why = format!("has {} octets, expected a multiple of {unit}", value.len());
            (UPDATE_ATTRIBUTE_LENGTH, why)
        }),
        Check::Origin => wrong_length(value, 1).or_else(|| {
            let origin = value.first().filter(|origin| **origin > 2)?;
            Some((UPDATE_INVALID_ORIGIN, format!("is {origin}, expected 0, 1 or 2")))
        }),
        Check::NextHop => wrong_length(value, 4).or_else(|| {
            (!is_host(value)).then(|| (UPDATE_INVALID_NEXT_HOP, "is not the address of a host".to_owned()))
        }),
        Check::AsPath => malformed_path(value, context.four_octet_asn),
        Check::As4Path => malformed_path(value, true),
        Check::Aggregator => check_aggregator(value, context.four_octet_asn),
        Check::Nothing => None,
    }
}

fn wrong_length(value: &[u8], expected: usize) -> Option<(Code, String)> {
    let length = value.len();
    (length != expected)
        .then(|| (UPDATE_ATTRIBUTE_LENGTH, format!("has {length} octets, expected {expected}")))
}

fn malformed_path(path: &[u8], four_octet_asn: bool) -> Option<(Code, String)> {
    let why = check_as_path(path, four_octet_asn).err()?;
    Some((UPDATE_MALFORMED_AS_PATH, why.to_owned()))
}

/// RFC 7606 §7.2, RFC 7607 §2, and RFC 5065 §5 for a speaker that is in no confederation.
fn check_as_path(path: &[u8], four_octet_asn: bool) -> Result<(), &'static str> {
    let width = if four_octet_asn { 4 } else { 2 };
    let mut reader = Reader::new(path);
    while let Some(segment_type) = reader.u8() {
        if !matches!(segment_type, 1 | 2) {
            return Err("has a segment that is neither AS_SET nor AS_SEQUENCE");
        }
        let count = reader.u8().ok_or("ends within a segment")?;
        if count == 0 {
            return Err("has an empty segment");
        }
        let segment = reader.take(usize::from(count) * width).ok_or("ends within a segment")?;
        if segment.chunks_exact(width).any(|asn| asn.iter().all(|octet| *octet == 0)) {
            return Err("has AS 0 in it");
        }
    }
    Ok(())
}

/// RFC 7606 §7.7, RFC 7607 §2.
fn check_aggregator(value: &[u8], four_octet_asn: bool) -> Option<(Code, String)> {
    let width = if four_octet_asn { 4 } else { 2 };
    wrong_length(value, width + 4).or_else(|| {
        let zero = value.iter().take(width).all(|octet| *octet == 0);
        zero.then(|| (UPDATE_ATTRIBUTE_LENGTH, "has AS 0 in it".to_owned()))
    })
}

/// A next hop that can be a host's: not unspecified, not multicast, not reserved (RFC 4271 §6.3). With two IPv6 addresses
/// the first may be unspecified, as some routers write it where they have only a link-local one.
pub(super) fn is_host(next_hop: &[u8]) -> bool {
    match next_hop {
        [first, _, _, _] => *first != 0 && *first < 224,
        [0xff, ..] => false,
        octets => octets.iter().any(|octet| *octet != 0),
    }
}
