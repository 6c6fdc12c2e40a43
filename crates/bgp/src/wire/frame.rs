//! The message header (RFC 4271 §4.1) and its errors (§6.1), with the lengths of RFC 8654.

use bytes::{BufMut, BytesMut};

use super::reader::Reader;
use crate::notification::{BAD_MESSAGE_LENGTH, BAD_MESSAGE_TYPE, CONNECTION_NOT_SYNCHRONIZED, Notification};

/// Length of the header: marker, length, type.
pub const HEADER_LENGTH: usize = 19;
/// Longest message (RFC 4271 §4.1).
pub const MAX_LENGTH: usize = 4096;
/// Longest message where the receiver has offered the Extended Message capability (RFC 8654 §4).
pub const MAX_EXTENDED_LENGTH: usize = 65_535;

const MARKER: [u8; 16] = [0xff; 16];

/// Type of a message (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageType {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

impl MessageType {
    fn from_code(code: u8) -> Option<MessageType> {
        Some(match code {
            1 => MessageType::Open,
            2 => MessageType::Update,
            3 => MessageType::Notification,
            4 => MessageType::Keepalive,
            5 => MessageType::RouteRefresh,
            _ => return None,
        })
    }

    /// Lengths that a message of this type can have, header included. A ROUTE-REFRESH of a wrong length has
    /// an error code of its own (RFC 7313 §5), so here it may be as short as its header.
    fn lengths(self, max_length: usize) -> std::ops::RangeInclusive<usize> {
        match self {
            // RFC 8654 §4: these two keep the old limit.
            MessageType::Open => 29..=max_length.min(MAX_LENGTH),
            MessageType::Keepalive => HEADER_LENGTH..=HEADER_LENGTH,
            MessageType::Update => 23..=max_length,
            MessageType::Notification => 21..=max_length,
            MessageType::RouteRefresh => HEADER_LENGTH..=max_length,
        }
    }
}

/// Length of the first message in `buffer` once all of it is there, `None` until then. `max_length` is what we
/// take: [`MAX_LENGTH`], or [`MAX_EXTENDED_LENGTH`] where we have offered extended messages.
///
/// A header that is wrong is an error as soon as the wrong octet is there (RFC 4271 §6.1): the marker first, then
/// the length, then the type, then the length for that type.
pub fn next(buffer: &[u8], max_length: usize) -> Result<Option<usize>, Notification> {
    let Some((length, _)) = header(buffer, max_length)? else { return Ok(None) };
    Ok((buffer.len() >= length).then_some(length))
}

/// Type and body of a buffer that holds exactly one message.
pub(super) fn split(message: &[u8]) -> Result<(MessageType, &[u8]), Notification> {
    let body = message.get(HEADER_LENGTH..);
    match (header(message, MAX_EXTENDED_LENGTH)?, body) {
        (Some((length, message_type)), Some(body)) if length == message.len() => Ok((message_type, body)),
        // The caller cut the message elsewhere than the header says.
        _ => Err(Notification::with_data(BAD_MESSAGE_LENGTH, message.get(16..18).unwrap_or_default())),
    }
}

fn header(buffer: &[u8], max_length: usize) -> Result<Option<(usize, MessageType)>, Notification> {
    if buffer.iter().zip(&MARKER).any(|(octet, expected)| octet != expected) {
        return Err(Notification::new(CONNECTION_NOT_SYNCHRONIZED));
    }
    let mut reader = Reader::new(buffer);
    let Some(length_field) = reader.take(MARKER.len()).and_then(|_| reader.array::<2>()) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(length_field));
    // "The Data field MUST contain the erroneous Length field."
    let bad_length = || Notification::with_data(BAD_MESSAGE_LENGTH, length_field);
    if !(HEADER_LENGTH..=max_length).contains(&length) {
        return Err(bad_length());
    }
    let Some(code) = reader.u8() else { return Ok(None) };
    // "The Data field MUST contain the erroneous Type field."
    let message_type =
        MessageType::from_code(code).ok_or_else(|| Notification::with_data(BAD_MESSAGE_TYPE, [code]))?;
    if !message_type.lengths(max_length).contains(&length) {
        return Err(bad_length());
    }
    Ok(Some((length, message_type)))
}

/// Appends a message whose body is what `body` appends.
pub(super) fn write(message_type: MessageType, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_slice(&header_bytes(message_type, HEADER_LENGTH));
    body(out);
    let length = out.len() - start;
    if let Some(header) = out.get_mut(start..start + HEADER_LENGTH) {
        header.copy_from_slice(&header_bytes(message_type, length));
    }
}

/// The header of a message of this length.
///
/// `zettabgp` has the same in `prepare_message_buf`, which wraps the length silently beyond 65,535.
pub(super) fn header_bytes(message_type: MessageType, length: usize) -> [u8; HEADER_LENGTH] {
    let length = u16::try_from(length).expect("every encoder here keeps below 65,535 octets");
    let mut header = [0xff; HEADER_LENGTH];
    header[16..18].copy_from_slice(&length.to_be_bytes());
    header[18] = message_type as u8;
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(length: u16, code: u8) -> Vec<u8> {
        let mut header = MARKER.to_vec();
        header.extend(length.to_be_bytes());
        header.push(code);
        header
    }

    fn message(length: usize, code: u8) -> Vec<u8> {
        let mut message = header_of(u16::try_from(length).unwrap(), code);
        message.resize(length, 0);
        message
    }

    #[test]
    fn a_message_is_found_once_all_of_it_is_there() {
        let mut buffer = message(23, 2);
        buffer.extend(message(19, 4));
        for have in 0..23 {
            assert_eq!(next(&buffer[..have], MAX_LENGTH), Ok(None), "{have} octets");
        }
        for have in 23..=buffer.len() {
            assert_eq!(next(&buffer[..have], MAX_LENGTH), Ok(Some(23)), "{have} octets");
        }
    }

    #[test]
    fn an_octet_of_the_marker_that_is_not_all_ones_is_connection_not_synchronized() {
        for at in 0..16 {
            let mut buffer = message(19, 4);
            buffer[at] = 0xfe;
            let error = next(&buffer[..=at], MAX_LENGTH).unwrap_err();
            assert_eq!((error.code(), error.data), (CONNECTION_NOT_SYNCHRONIZED, vec![]), "octet {at}");
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_bad_message_length_with_that_length_as_data() {
        let cases = [
            (0, 4, MAX_LENGTH),
            (18, 4, MAX_LENGTH),
            (4097, 2, MAX_LENGTH),
            (65_535, 2, MAX_LENGTH),
            (28, 1, MAX_LENGTH),
            (22, 2, MAX_LENGTH),
            (20, 3, MAX_LENGTH),
            (20, 4, MAX_LENGTH),
            // RFC 8654 §4 leaves these at 4,096 octets and 19 octets.
            (4097, 1, MAX_EXTENDED_LENGTH),
            (4097, 4, MAX_EXTENDED_LENGTH),
        ];
        for (length, code, max_length) in cases {
            let error = next(&header_of(length, code), max_length).unwrap_err();
            assert_eq!(error.code(), BAD_MESSAGE_LENGTH, "length {length} of type {code}");
            assert_eq!(error.data, length.to_be_bytes(), "length {length} of type {code}");
        }
    }

    #[test]
    fn lengths_at_the_bounds_are_taken() {
        let cases = [
            (29, 1, MAX_LENGTH),
            (4096, 1, MAX_LENGTH),
            (23, 2, MAX_LENGTH),
            (4096, 2, MAX_LENGTH),
            (65_535, 2, MAX_EXTENDED_LENGTH),
            (21, 3, MAX_LENGTH),
            (4097, 3, MAX_EXTENDED_LENGTH),
            (19, 4, MAX_LENGTH),
            (23, 5, MAX_LENGTH),
        ];
        for (length, code, max_length) in cases {
            let buffer = message(length, code);
            assert_eq!(next(&buffer, max_length), Ok(Some(length)), "length {length} of type {code}");
        }
    }

    #[test]
    fn an_unknown_type_is_bad_message_type_with_that_type_as_data() {
        for code in [0, 6, 128, 255] {
            let error = next(&header_of(19, code), MAX_LENGTH).unwrap_err();
            assert_eq!((error.code(), error.data), (BAD_MESSAGE_TYPE, vec![code]));
        }
    }

    #[test]
    fn a_buffer_that_is_not_exactly_one_message_is_not_split() {
        let whole = message(23, 2);
        assert_eq!(split(&whole).unwrap(), (MessageType::Update, &[0; 4][..]));
        assert_eq!(split(&whole[..22]).unwrap_err().code(), BAD_MESSAGE_LENGTH);
        assert_eq!(split(&whole[..3]).unwrap_err().code(), BAD_MESSAGE_LENGTH);
        let longer: Vec<u8> = whole.into_iter().chain([0]).collect();
        assert_eq!(split(&longer).unwrap_err().code(), BAD_MESSAGE_LENGTH);
    }
}
