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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        notification::{CEASE_ADMINISTRATIVE_SHUTDOWN, CEASE_HARD_RESET},
        wire::{self, DecodeContext, Received},
    };

    fn there_and_back(notification: &Notification) -> Notification {
        let mut out = BytesMut::new();
        wire::encode_notification(notification, &mut out);
        match wire::decode(&out, &DecodeContext::default()) {
            Ok(Received::Notification(received)) => received,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_text_of_a_shutdown_arrives() {
        let sent = Notification::with_text(CEASE_ADMINISTRATIVE_SHUTDOWN, "bis gleich, später");
        let received = there_and_back(&sent);
        assert_eq!(received, sent);
        assert_eq!(received.text().as_deref(), Some("bis gleich, später"));
    }

    #[test]
    fn a_hard_reset_carries_the_notification_inside() {
        let sent = Notification::with_data(CEASE_HARD_RESET, [6, 2, 3, b'a', b'b', b'c']);
        assert_eq!(there_and_back(&sent), sent);
    }

    #[test]
    fn data_that_does_not_fit_is_cut_at_4096_octets() {
        let sent = Notification { code: 3, subcode: 9, data: vec![7; 5000] };
        let received = there_and_back(&sent);
        assert_eq!(received.data, vec![7; 4075]);
    }
}
