//! ROUTE-REFRESH (RFC 2918 §3, RFC 7313 §3.2 and §5).

use bytes::{BufMut, BytesMut};
use zettabgp::{BgpMessage, message::BgpRouterefreshMessage};

use super::session_params;
use crate::{
    message::{RefreshSubtype, RouteRefresh},
    notification::{BAD_MESSAGE_LENGTH, Notification, ROUTE_REFRESH_INVALID_LENGTH},
};

/// Length of the body: AFI, subtype, SAFI.
const LENGTH: usize = 4;

pub(super) fn decode(message: &[u8], body: &[u8]) -> Result<RouteRefresh, Notification> {
    if body.len() != LENGTH {
        return Err(match body.get(2).copied() {
            // RFC 7313 §5: for subtypes 1 and 2, with the complete message.
            Some(1 | 2) => Notification::with_data(ROUTE_REFRESH_INVALID_LENGTH, message),
            _ => Notification::with_data(BAD_MESSAGE_LENGTH, message.get(16..18).unwrap_or_default()),
        });
    }
    let mut refresh = BgpRouterefreshMessage::new();
    refresh
        .decode_from(&session_params(true), body)
        .map_err(|_| Notification::with_data(ROUTE_REFRESH_INVALID_LENGTH, message))?;
    Ok(RouteRefresh {
        afi: refresh.afi,
        safi: refresh.safi,
        subtype: match refresh.subtype {
            0 => RefreshSubtype::Request,
            1 => RefreshSubtype::Begin,
            2 => RefreshSubtype::End,
            other => RefreshSubtype::Unknown(other),
        },
    })
}

pub(super) fn encode(refresh: &RouteRefresh, out: &mut BytesMut) {
    let mut message = BgpRouterefreshMessage::new();
    message.afi = refresh.afi;
    message.safi = refresh.safi;
    message.subtype = match refresh.subtype {
        RefreshSubtype::Request => 0,
        RefreshSubtype::Begin => 1,
        RefreshSubtype::End => 2,
        RefreshSubtype::Unknown(other) => other,
    };
    let mut body = [0; LENGTH];
    message.encode_to(&session_params(true), &mut body).expect("the body of a ROUTE-REFRESH is 4 octets");
    out.put_slice(&body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, DecodeContext, Received};

    fn message(body: &[u8]) -> Vec<u8> {
        let mut message = vec![0xff; 16];
        message.extend([0, u8::try_from(19 + body.len()).unwrap(), 5]);
        message.extend(body);
        message
    }

    #[test]
    fn every_subtype_is_read_and_written() {
        let cases = [
            (0, RefreshSubtype::Request),
            (1, RefreshSubtype::Begin),
            (2, RefreshSubtype::End),
            (9, RefreshSubtype::Unknown(9)),
        ];
        for (code, subtype) in cases {
            let bytes = message(&[0, 2, code, 1]);
            let refresh = RouteRefresh { afi: 2, safi: 1, subtype };
            let received = wire::decode(&bytes, &DecodeContext::default());
            assert_eq!(received, Ok(Received::RouteRefresh(refresh)));
            let mut out = BytesMut::new();
            wire::encode_route_refresh(&refresh, &mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn begin_and_end_of_a_wrong_length_are_answered_with_the_whole_message() {
        for body in [&[0, 1, 1][..], &[0, 1, 2, 1, 0]] {
            let bytes = message(body);
            let error = wire::decode(&bytes, &DecodeContext::default()).unwrap_err();
            assert_eq!((error.code(), error.data), (ROUTE_REFRESH_INVALID_LENGTH, bytes));
        }
    }

    #[test]
    fn a_request_of_a_wrong_length_is_bad_message_length() {
        for body in [&[][..], &[0, 1], &[0, 1, 0], &[0, 1, 0, 1, 0]] {
            let bytes = message(body);
            let error = wire::decode(&bytes, &DecodeContext::default()).unwrap_err();
            assert_eq!((error.code(), error.data), (BAD_MESSAGE_LENGTH, bytes[16..18].to_vec()));
        }
    }
}
