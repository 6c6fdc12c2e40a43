//! NOTIFICATION codes and subcodes in one table (RFC 4271 §4.5 and its successors).

use std::fmt;

/// A NOTIFICATION: code, subcode and data as on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode, 0 where there is none.
    pub subcode: u8,
    /// Data, whose meaning depends on both.
    pub data: Vec<u8>,
}

/// One row of the table: code and subcode.
pub type Code = (u8, u8);

macro_rules! codes {
    ($($name:ident = ($code:literal, $subcode:literal) $text:literal;)*) => {
        $(
            #[doc = $text]
            pub const $name: Code = ($code, $subcode);
        )*
        const TEXTS: &[(Code, &str)] = &[$((($code, $subcode), $text)),*];
    };
}

codes! {
    CONNECTION_NOT_SYNCHRONIZED = (1, 1) "message header error: connection not synchronized";
    BAD_MESSAGE_LENGTH = (1, 2) "message header error: bad message length";
    BAD_MESSAGE_TYPE = (1, 3) "message header error: bad message type";
    OPEN_UNSPECIFIC = (2, 0) "OPEN message error";
    OPEN_UNSUPPORTED_VERSION = (2, 1) "OPEN message error: unsupported version number";
    OPEN_BAD_PEER_AS = (2, 2) "OPEN message error: peer AS differs from configuration";
    OPEN_BAD_ROUTER_ID = (2, 3) "OPEN message error: bad BGP identifier";
    OPEN_UNSUPPORTED_OPTIONAL_PARAMETER = (2, 4) "OPEN message error: unsupported optional parameter";
    OPEN_UNACCEPTABLE_HOLD_TIME = (2, 6) "OPEN message error: unacceptable hold time";
    OPEN_UNSUPPORTED_CAPABILITY = (2, 7) "OPEN message error: unsupported capability";
    OPEN_ROLE_MISMATCH = (2, 11) "OPEN message error: role mismatch";
    UPDATE_MALFORMED_ATTRIBUTE_LIST = (3, 1) "UPDATE message error: malformed attribute list";
    UPDATE_UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE = (3, 2) "UPDATE message error: unrecognized well-known attribute";
    UPDATE_MISSING_WELL_KNOWN_ATTRIBUTE = (3, 3) "UPDATE message error: missing well-known attribute";
    UPDATE_ATTRIBUTE_FLAGS = (3, 4) "UPDATE message error: attribute flags error";
    UPDATE_ATTRIBUTE_LENGTH = (3, 5) "UPDATE message error: attribute length error";
    UPDATE_INVALID_ORIGIN = (3, 6) "UPDATE message error: invalid ORIGIN attribute";
    UPDATE_INVALID_NEXT_HOP = (3, 8) "UPDATE message error: invalid NEXT_HOP attribute";
    UPDATE_OPTIONAL_ATTRIBUTE = (3, 9) "UPDATE message error: optional attribute error";
    UPDATE_INVALID_NETWORK_FIELD = (3, 10) "UPDATE message error: invalid network field";
    UPDATE_MALFORMED_AS_PATH = (3, 11) "UPDATE message error: malformed AS_PATH";
    HOLD_TIMER_EXPIRED = (4, 0) "hold timer expired";
    FSM_UNSPECIFIC = (5, 0) "finite state machine error";
    FSM_UNEXPECTED_IN_OPEN_SENT = (5, 1) "finite state machine error: unexpected message in OpenSent";
    FSM_UNEXPECTED_IN_OPEN_CONFIRM = (5, 2) "finite state machine error: unexpected message in OpenConfirm";
    FSM_UNEXPECTED_IN_ESTABLISHED = (5, 3) "finite state machine error: unexpected message in Established";
    CEASE_MAXIMUM_PREFIXES = (6, 1) "cease: maximum number of prefixes reached";
    CEASE_ADMINISTRATIVE_SHUTDOWN = (6, 2) "cease: administrative shutdown";
    CEASE_PEER_DECONFIGURED = (6, 3) "cease: peer de-configured";
    CEASE_ADMINISTRATIVE_RESET = (6, 4) "cease: administrative reset";
    CEASE_CONNECTION_REJECTED = (6, 5) "cease: connection rejected";
    CEASE_OTHER_CONFIGURATION_CHANGE = (6, 6) "cease: other configuration change";
    CEASE_CONNECTION_COLLISION = (6, 7) "cease: connection collision resolution";
    CEASE_OUT_OF_RESOURCES = (6, 8) "cease: out of resources";
    CEASE_HARD_RESET = (6, 9) "cease: hard reset";
    CEASE_BFD_DOWN = (6, 10) "cease: BFD down";
    ROUTE_REFRESH_INVALID_LENGTH = (7, 1) "ROUTE-REFRESH message error: invalid message length";
    SEND_HOLD_TIMER_EXPIRED = (8, 0) "send hold timer expired";
}

impl Notification {
    /// A NOTIFICATION without data.
    pub fn new((code, subcode): Code) -> Notification {
        Notification { code, subcode, data: Vec::new() }
    }

    /// A NOTIFICATION with data.
    pub fn with_data((code, subcode): Code, data: impl Into<Vec<u8>>) -> Notification {
        Notification { code, subcode, data: data.into() }
    }

    /// A shutdown or reset with a text for the other side's operator (RFC 9003), cut at 255 octets on a
    /// character boundary.
    pub fn with_text(code: Code, text: &str) -> Notification {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut data = vec![u8::try_from(end).unwrap_or(u8::MAX)];
        data.extend_from_slice(&text.as_bytes()[..end]);
        Notification::with_data(code, data)
    }

    /// A Hard Reset (RFC 8538 §3.1): the session ends as if there were no graceful restart, for what stands inside.
    pub fn hard_reset(inner: &Notification) -> Notification {
        let mut data = vec![inner.code, inner.subcode];
        data.extend(&inner.data);
        Notification::with_data(CEASE_HARD_RESET, data)
    }

    /// What stands inside a Hard Reset.
    pub fn encapsulated(&self) -> Option<Notification> {
        match self.data.as_slice() {
            [code, subcode, data @ ..] if self.code() == CEASE_HARD_RESET => {
                Some(Notification { code: *code, subcode: *subcode, data: data.to_vec() })
            }
            _ => None,
        }
    }

    /// Code and subcode, to compare with the table.
    pub fn code(&self) -> Code {
        (self.code, self.subcode)
    }

    /// The text of a shutdown or reset (RFC 9003 §2), if there is one and it is UTF-8. Control characters
    /// are replaced: the text comes from outside and ends in logs.
    pub fn text(&self) -> Option<String> {
        if !matches!(self.code(), CEASE_ADMINISTRATIVE_SHUTDOWN | CEASE_ADMINISTRATIVE_RESET) {
            return None;
        }
        let (&length, rest) = self.data.split_first()?;
        let text = std::str::from_utf8(rest.get(..usize::from(length))?).ok()?;
        (!text.is_empty()).then(|| text.replace(char::is_control, "\u{fffd}"))
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TEXTS.iter().find(|(code, _)| *code == self.code()) {
            Some((_, text)) => f.write_str(text)?,
            None => write!(f, "unknown error")?,
        }
        write!(f, " ({}/{})", self.code, self.subcode)?;
        match (self.text(), self.encapsulated()) {
            (Some(text), _) => write!(f, ": {text:?}"),
            // One inside the other ends here: what is inside is told by its numbers alone.
            (None, Some(inner)) if inner.code() == CEASE_HARD_RESET => write!(f, ": hard reset"),
            (None, Some(inner)) => write!(f, ": {inner}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_reset_says_what_it_is_for_rfc_8538_section_3() {
        let inner = Notification::with_text(CEASE_ADMINISTRATIVE_SHUTDOWN, "bye");
        let outer = Notification::hard_reset(&inner);
        assert_eq!((outer.code(), &outer.data[..]), (CEASE_HARD_RESET, &[6, 2, 3, b'b', b'y', b'e'][..]));
        assert_eq!(outer.encapsulated(), Some(inner));
        assert_eq!(
            outer.to_string(),
            "cease: hard reset (6/9): cease: administrative shutdown (6/2): \"bye\""
        );
        assert_eq!(Notification::new(CEASE_HARD_RESET).to_string(), "cease: hard reset (6/9)");
        let twice = Notification::hard_reset(&outer);
        assert_eq!(twice.to_string(), "cease: hard reset (6/9): hard reset", "no text nests for ever");
    }
}
