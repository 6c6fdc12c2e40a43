//! OPEN (RFC 4271 §4.2, §6.2), with the extended optional parameters of RFC 9072.
//!
//! Optional parameters are walked here: `zettabgp` refuses RFC 9072, reads past a parameter's end and lets more than
//! 255 octets of parameters wrap their length.

#[cfg(test)]
mod tests;

use bytes::{BufMut, BytesMut};

use super::{capability, reader::Reader};
use crate::{
    capabilities::Capabilities,
    message::Open,
    notification::{
        BAD_MESSAGE_LENGTH, Notification, OPEN_BAD_ROUTER_ID, OPEN_UNACCEPTABLE_HOLD_TIME, OPEN_UNSPECIFIC,
        OPEN_UNSUPPORTED_OPTIONAL_PARAMETER, OPEN_UNSUPPORTED_VERSION,
    },
    types::{Asn, HoldTime, RouterId},
};

const VERSION: u8 = 4;
/// Optional parameter that holds capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;
/// In the place of the first parameter's type: lengths are two octets from here on (RFC 9072 §2).
const EXTENDED: u8 = 255;

/// The fields of an OPEN before its optional parameters.
struct Fixed {
    version: u8,
    my_asn: u16,
    hold_time: u16,
    router_id: u32,
    parameters_length: u8,
}

impl Fixed {
    fn read(reader: &mut Reader<'_>) -> Option<Fixed> {
        Some(Fixed {
            version: reader.u8()?,
            my_asn: reader.u16()?,
            hold_time: reader.u16()?,
            router_id: reader.u32()?,
            parameters_length: reader.u8()?,
        })
    }
}

pub(super) fn decode(body: &[u8]) -> Result<Open, Notification> {
    let mut reader = Reader::new(body);
    let fixed = Fixed::read(&mut reader).ok_or_else(|| Notification::new(BAD_MESSAGE_LENGTH))?;
    if fixed.version != VERSION {
        // "The Data field is a 2-octet unsigned integer, which indicates the largest, locally-supported
        // version number."
        return Err(Notification::with_data(OPEN_UNSUPPORTED_VERSION, [0, VERSION]));
    }
    let hold_time = HoldTime::new(fixed.hold_time)
        .ok_or_else(|| Notification::with_data(OPEN_UNACCEPTABLE_HOLD_TIME, fixed.hold_time.to_be_bytes()))?;
    // RFC 6286 §2.1: any number but zero.
    let router_id = RouterId::new(fixed.router_id.into())
        .ok_or_else(|| Notification::with_data(OPEN_BAD_ROUTER_ID, fixed.router_id.to_be_bytes()))?;
    let capabilities = decode_parameters(fixed.parameters_length, reader)?;
    // RFC 6793 §4.1: the capability replaces the 2-octet field.
    let asn = capabilities.four_octet_asn.unwrap_or(u32::from(fixed.my_asn));
    Ok(Open { asn, hold_time, router_id, capabilities })
}

fn decode_parameters(length: u8, mut reader: Reader<'_>) -> Result<Capabilities, Notification> {
    // RFC 4271 §6.2: a malformed parameter, and a length that doesn't add up, are Unspecific.
    let malformed = || Notification::new(OPEN_UNSPECIFIC);
    // RFC 9072 §2: the length before the marker should be 255 and is ignored, but 0 means no parameters.
    let extended = length != 0 && reader.rest().first() == Some(&EXTENDED);
    let length = if extended {
        reader.u8().and_then(|_| reader.u16()).ok_or_else(malformed)?
    } else {
        u16::from(length)
    };
    if reader.len() != usize::from(length) {
        return Err(malformed());
    }
    let mut capabilities = Capabilities::default();
    while !reader.is_empty() {
        let parameter = reader.u8().ok_or_else(malformed)?;
        let value =
            if extended { reader.u16_prefixed() } else { reader.u8_prefixed() }.ok_or_else(malformed)?;
        if parameter != CAPABILITIES {
            return Err(Notification::new(OPEN_UNSUPPORTED_OPTIONAL_PARAMETER));
        }
        capability::decode_all(value, &mut capabilities).ok_or_else(malformed)?;
    }
    Ok(capabilities)
}

pub(super) fn encode(open: &Open, out: &mut BytesMut) {
    out.put_u8(VERSION);
    out.put_u16(Asn::new(open.asn).map_or(0, Asn::two_octets));
    out.put_u16(open.hold_time.secs());
    out.put_u32(open.router_id.value());
    let mut capabilities = BytesMut::new();
    capability::encode_all(&open.capabilities, &mut capabilities);
    encode_parameters(&capabilities, out);
}

/// All capabilities in one parameter, as RFC 5492 §4 asks; none at all where there are no capabilities, because an
/// empty parameter is refused by some.
pub(super) fn encode_parameters(capabilities: &[u8], out: &mut BytesMut) {
    let length = capabilities.len();
    if length == 0 {
        out.put_u8(0);
    } else if let (Ok(parameters), Ok(parameter)) = (u8::try_from(length + 2), u8::try_from(length)) {
        out.put_slice(&[parameters, CAPABILITIES, parameter]);
    } else {
        // RFC 9072 §2
        let parameter = u16::try_from(length).expect("the capabilities offered are below 400 octets");
        out.put_slice(&[EXTENDED, EXTENDED]);
        out.put_u16(parameter.saturating_add(3));
        out.put_u8(CAPABILITIES);
        out.put_u16(parameter);
    }
    out.put_slice(capabilities);
}
