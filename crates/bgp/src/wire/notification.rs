//! NOTIFICATION (RFC 4271 §4.5).
//!
//! Written here: `zettabgp` has two octets of data, always, so that neither the text of a shutdown (RFC 9003) nor
//! a Hard Reset (RFC 8538 §3.1) nor the attribute that was wrong (RFC 4271 §6.3) fits.

use bytes::{BufMut, BytesMut};

use super::{frame, reader::Reader};
use crate::notification::{BAD_MESSAGE_LENGTH, Notification};

/// Room for data: the peer need not take extended messages.
const MAX_DATA: usize = frame::MAX_LENGTH - frame::HEADER_LENGTH - 2;

/// A NOTIFICATION is never answered (RFC 4271 §6.4); the error only ends the session.
pub(super) fn decode(body: &[u8]) -> Result<Notification, Notification> {
    let mut reader = Reader::new(body);
    match (reader.u8(), reader.u8()) {
        (Some(code), Some(subcode)) => Ok(Notification { code, subcode, data: reader.rest().to_vec() }),
        _ => Err(Notification::new(BAD_MESSAGE_LENGTH)),
    }
}

pub(super) fn encode(notification: &Notification, out: &mut BytesMut) {
    out.put_slice(&[notification.code, notification.subcode]);
    let data = &notification.data;
    out.put_slice(data.get(..MAX_DATA).unwrap_or(data));
}
