//! The key of the TCP MD5 signature option (RFC 2385): a value that is neither printed nor serialised.

use std::{fmt, sync::Arc};

/// A key of 1 to 80 octets. Clones share it; `Debug` does not show it, and it has no `Serialize`.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Key(Arc<[u8]>);

/// Why octets are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Md5KeyError {
    /// An empty key would be no key.
    #[error("it is empty: expected 1 to 80 octets")]
    Empty,
    /// More than the kernel takes.
    #[error("it has {0} octets: expected 1 to 80")]
    TooLong(usize),
}

impl Md5Key {
    /// What Linux takes at most (TCP_MD5SIG_MAXKEYLEN; RFC 2385 §4.5 asks for it).
    pub const MAX_OCTETS: usize = 80;

    /// A key of these octets.
    pub fn new(octets: &[u8]) -> Result<Md5Key, Md5KeyError> {
        match octets.len() {
            0 => Err(Md5KeyError::Empty),
            length if length > Md5Key::MAX_OCTETS => Err(Md5KeyError::TooLong(length)),
            _ => Ok(Md5Key(octets.into())),
        }
    }

    /// For the socket option, and for nothing else.
    #[cfg(feature = "driver")]
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Md5Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_80_octets() {
        assert_eq!(Md5Key::new(b""), Err(Md5KeyError::Empty));
        assert!(Md5Key::new(&[b'x'; 80]).is_ok());
        assert_eq!(Md5Key::new(&[b'x'; 81]), Err(Md5KeyError::TooLong(81)));
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = Md5Key::new(b"hunter2").unwrap();
        let shown = format!("{key:?} {:#?}", Some(&key));
        assert!(!shown.contains("hunter2") && !shown.contains("104"), "{shown}");
    }
}
