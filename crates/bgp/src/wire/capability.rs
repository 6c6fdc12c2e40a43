//! Single capabilities (RFC 5492 §4): code, length, value.
//!
//! `zettabgp` decodes and encodes those it knows, one at a time and only after their length was checked; a capability
//! that is unknown or broken is dropped here, because there it fails the whole OPEN (as the FQDN capability of
//! FRR does). Extended Next Hop Encoding, Extended Message, Role, FQDN, Long-Lived Graceful Restart and the N bit of
//! Graceful Restart are not in it.

use bytes::{BufMut, BytesMut};
use zettabgp::{BgpCapGR, BgpCapability, BgpMessage, message::BgpOpenMessage};

use super::{reader::Reader, session_params};
use crate::{
    capabilities::{Capabilities, GracefulRestart, LongLivedFamily},
    types::Family,
};

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const ROLE: u8 = 9;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_ASN: u8 = 65;
const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;
const ENHANCED_ROUTE_REFRESH: u8 = 70;
const FQDN: u8 = 73;

/// N bit in the flags of Graceful Restart (RFC 8538 §2).
const NOTIFICATION_BIT: u8 = 0x40;
/// F bit of a family, in both graceful restart capabilities.
const FORWARDING_BIT: u8 = 0x80;
/// Longest Long-lived Stale Time: 24 bits (RFC 9494 §3.1).
const MAX_STALE_TIME: u32 = 0x00ff_ffff;
/// Longest Restart Time: 12 bits (RFC 4724 §3).
const MAX_RESTART_TIME: u16 = 0x0fff;

/// Reads the value of one Capabilities optional parameter into `capabilities`; `None` where a capability's length
/// goes past the end.
pub(super) fn decode_all(parameter: &[u8], capabilities: &mut Capabilities) -> Option<()> {
    let mut reader = Reader::new(parameter);
    while !reader.is_empty() {
        let start = reader.rest();
        let code = reader.u8()?;
        let value = reader.u8_prefixed()?;
        let whole = start.get(..2 + value.len())?;
        decode(code, value, whole, capabilities);
    }
    Some(())
}

/// One capability, `whole` with code and length. Codes listed here and lengths checked here are the ones that
/// `zettabgp` decodes right.
fn decode(code: u8, value: &[u8], whole: &[u8], capabilities: &mut Capabilities) {
    match (code, value.len()) {
        (MULTIPROTOCOL, 4) => {
            let family = decode_known(whole).and_then(|known| known.afi_safi());
            match family.and_then(|(afi, safi)| Family::from_afi_safi(afi, safi)) {
                Some(family) if !capabilities.multiprotocol.contains(&family) => {
                    capabilities.multiprotocol.push(family);
                }
                Some(_) => {}
                None => capabilities.other_families = true,
            }
        }
        (ROUTE_REFRESH, 0) => capabilities.route_refresh = true,
        (ENHANCED_ROUTE_REFRESH, 0) => capabilities.enhanced_route_refresh = true,
        (ROLE, 1) => {
            let said = value.iter().filter(|role| !capabilities.roles.contains(role)).copied();
            let said: Vec<u8> = said.collect();
            capabilities.roles.extend(said);
        }
        (EXTENDED_MESSAGE, 0) => capabilities.extended_message = true,
        (EXTENDED_NEXT_HOP, length) if length % 6 == 0 => decode_extended_next_hop(value, capabilities),
        (FOUR_OCTET_ASN, 4) => {
            if let Some(BgpCapability::CapASN32(asn)) = decode_known(whole) {
                capabilities.four_octet_asn = Some(asn);
            }
        }
        (GRACEFUL_RESTART, length) if length >= 2 && (length - 2) % 4 == 0 => {
            if let Some(BgpCapability::CapGR { restart_time, restart_state, afis }) = decode_known(whole) {
                let notification = value.first().is_some_and(|flags| flags & NOTIFICATION_BIT != 0);
                capabilities.graceful_restart =
                    Some(graceful_restart(restart_time, restart_state, notification, &afis));
            }
        }
        (LONG_LIVED_GRACEFUL_RESTART, length) if length % 7 == 0 => decode_long_lived(value, capabilities),
        (FQDN, _) => capabilities.hostname = decode_hostname(value),
        // RFC 5492 §3: what is not recognized is ignored.
        _ => {}
    }
}

fn decode_known(whole: &[u8]) -> Option<BgpCapability> {
    BgpCapability::from_buffer(whole).ok()?.0.ok()
}

fn graceful_restart(time: u16, restarting: bool, notification: bool, afis: &[BgpCapGR]) -> GracefulRestart {
    let mut families: Vec<(Family, bool)> = Vec::new();
    for afi in afis {
        if let Some(family) = Family::from_afi_safi(afi.afi, afi.safi)
            && families.iter().all(|(known, _)| *known != family)
        {
            families.push((family, afi.forwarding_state));
        }
    }
    GracefulRestart { restarting, notification, restart_time_secs: time, families }
}

/// RFC 9494 §3.1: AFI, SAFI, flags and three octets of seconds for each family.
fn decode_long_lived(value: &[u8], capabilities: &mut Capabilities) {
    for tuple in value.chunks_exact(7) {
        let &[afi_high, afi_low, safi, flags, high, middle, low] = tuple else { continue };
        let Some(family) = Family::from_afi_safi(u16::from_be_bytes([afi_high, afi_low]), safi) else {
            continue;
        };
        if capabilities.long_lived.iter().all(|known| known.family != family) {
            capabilities.long_lived.push(LongLivedFamily {
                family,
                is_forwarding: flags & FORWARDING_BIT != 0,
                stale_time_secs: u32::from_be_bytes([0, high, middle, low]),
            });
        }
    }
}

/// RFC 8950 §4: triples of AFI, SAFI (two octets here) and the AFI of the next hop. Only IPv6 next hops are new.
fn decode_extended_next_hop(value: &[u8], capabilities: &mut Capabilities) {
    let mut reader = Reader::new(value);
    while let (Some(afi), Some(safi), Some(next_hop)) = (reader.u16(), reader.u16(), reader.u16()) {
        let family = u8::try_from(safi).ok().and_then(|safi| Family::from_afi_safi(afi, safi));
        if let Some(family) = family
            && next_hop == Family::Ipv6Unicast.afi()
            && !capabilities.extended_next_hop.contains(&family)
        {
            capabilities.extended_next_hop.push(family);
        }
    }
}

/// draft-walton-bgp-hostname-capability: host name and domain name, each behind its length. Control characters are
/// replaced: the name comes from outside and ends in logs.
fn decode_hostname(value: &[u8]) -> Option<String> {
    let host = std::str::from_utf8(Reader::new(value).u8_prefixed()?).ok()?;
    (!host.is_empty()).then(|| host.replace(char::is_control, "\u{fffd}"))
}

/// Appends every capability that is offered, families first.
pub(super) fn encode_all(capabilities: &Capabilities, out: &mut BytesMut) {
    for family in &capabilities.multiprotocol {
        encode_known(family_capability(*family), out);
    }
    if capabilities.route_refresh {
        encode_known(BgpCapability::CapRR, out);
    }
    encode_extended_next_hop(&capabilities.extended_next_hop, out);
    if capabilities.extended_message {
        out.put_slice(&[EXTENDED_MESSAGE, 0]);
    }
    for role in &capabilities.roles {
        out.put_slice(&[ROLE, 1, *role]);
    }
    if let Some(graceful_restart) = &capabilities.graceful_restart {
        encode_graceful_restart(graceful_restart, out);
    }
    encode_long_lived(&capabilities.long_lived, out);
    if let Some(asn) = capabilities.four_octet_asn {
        encode_known(BgpCapability::CapASN32(asn), out);
    }
    if capabilities.enhanced_route_refresh {
        encode_known(BgpCapability::CapEnhancedRR, out);
    }
}

fn family_capability(family: Family) -> BgpCapability {
    match family {
        Family::Ipv4Unicast => BgpCapability::SafiIPv4u,
        Family::Ipv6Unicast => BgpCapability::SafiIPv6u,
    }
}

/// Appends a capability as `zettabgp` writes it. It only writes them inside an OPEN, each in a parameter of its
/// own: behind the ten octets of the OPEN and the two of the parameter.
fn encode_known(capability: BgpCapability, out: &mut BytesMut) {
    const BEFORE: usize = 12;
    let mut scratch = [0; 64];
    let open = BgpOpenMessage { caps: vec![capability], ..BgpOpenMessage::new() };
    let end = open
        .encode_to(&session_params(true), &mut scratch)
        .expect("a capability with at most two families fits into 64 octets");
    out.put_slice(&scratch[BEFORE..end]);
}

fn encode_extended_next_hop(families: &[Family], out: &mut BytesMut) {
    if families.is_empty() {
        return;
    }
    out.put_u8(EXTENDED_NEXT_HOP);
    out.put_u8(u8::try_from(families.len() * 6).expect("there are two families"));
    for family in families {
        out.put_u16(family.afi());
        out.put_u16(u16::from(family.safi()));
        out.put_u16(Family::Ipv6Unicast.afi());
    }
}

fn encode_long_lived(families: &[LongLivedFamily], out: &mut BytesMut) {
    if families.is_empty() {
        return;
    }
    out.put_u8(LONG_LIVED_GRACEFUL_RESTART);
    out.put_u8(u8::try_from(families.len() * 7).expect("there are two families"));
    for of in families {
        out.put_u16(of.family.afi());
        out.put_u8(of.family.safi());
        let flags = if of.is_forwarding { u32::from(FORWARDING_BIT) << 24 } else { 0 };
        out.put_u32(flags | of.stale_time_secs.min(MAX_STALE_TIME));
    }
}

fn encode_graceful_restart(restart: &GracefulRestart, out: &mut BytesMut) {
    let flags_at = out.len() + 2;
    encode_known(
        BgpCapability::CapGR {
            restart_time: restart.restart_time_secs.min(MAX_RESTART_TIME),
            restart_state: restart.restarting,
            afis: restart
                .families
                .iter()
                .map(|&(family, forwarding_state)| BgpCapGR {
                    afi: family.afi(),
                    safi: family.safi(),
                    forwarding_state,
                })
                .collect(),
        },
        out,
    );
    if restart.notification
        && let Some(flags) = out.get_mut(flags_at)
    {
        *flags |= NOTIFICATION_BIT;
    }
}
