//! The secret that members share, and HMAC-SHA256 (RFC 2104) with it, truncated as §5 there allows.

use std::fmt;

use sha2::{Digest, Sha256};

/// Octets of a tag: half of the hash, which RFC 2104 §5 names as the least.
pub const TAG_OCTETS: usize = 16;

/// Least octets of a key's text.
pub const MIN_KEY_OCTETS: usize = 16;

const BLOCK_OCTETS: usize = 64;

/// One key: the two halves of HMAC, begun. Debug does not show it.
#[derive(Clone)]
struct Key {
    inner: Sha256,
    outer: Sha256,
}

impl Key {
    fn new(secret: &[u8]) -> Key {
        let mut block = [0_u8; BLOCK_OCTETS];
        let digest = Sha256::digest(secret);
        let key: &[u8] = if secret.len() > BLOCK_OCTETS { &digest } else { secret };
        for (octet, key) in block.iter_mut().zip(key) {
            *octet = *key;
        }
        let begin = |pad: u8| Sha256::new_with_prefix(block.map(|octet| octet ^ pad));
        Key { inner: begin(0x36), outer: begin(0x5c) }
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut inner = self.inner.clone();
        parts.iter().for_each(|part| inner.update(part));
        let mut outer = self.outer.clone();
        outer.update(inner.finalize());
        outer.finalize().into()
    }

    fn tag(&self, parts: &[&[u8]]) -> [u8; TAG_OCTETS] {
        let mac = self.mac(parts);
        *mac.first_chunk().expect("a hash has more octets than a tag")
    }
}

/// The keys of a group: the first one signs, each of them is accepted. Two while the key is changed: first the new
/// one as the second everywhere, then in front, then alone.
#[derive(Clone)]
pub struct Keys {
    first: Key,
    more: Vec<Key>,
}

/// Why a text holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none in it.
    #[error("it holds no key: expected one a line, of at least {MIN_KEY_OCTETS} characters")]
    Empty,
    /// One is too short to be secret.
    #[error("the key in line {line} has {octets} characters: expected at least {MIN_KEY_OCTETS}")]
    Short {
        /// Which line, from 1.
        line: usize,
        /// How many it has.
        octets: usize,
    },
}

impl Keys {
    /// Reads keys, one a line; blanks around them and empty lines do not count.
    ///
    /// # Errors
    ///
    /// When there is none, or one is too short.
    pub fn parse(text: &[u8]) -> Result<Keys, KeyError> {
        let mut keys = Vec::new();
        for (line, key) in text.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii).enumerate() {
            match key.len() {
                0 => {}
                octets if octets < MIN_KEY_OCTETS => {
                    return Err(KeyError::Short { line: line + 1, octets });
                }
                _ => keys.push(Key::new(key)),
            }
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(KeyError::Empty)?;
        Ok(Keys { first, more: keys.collect() })
    }

    /// The tag of these octets, with the key that signs.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> [u8; TAG_OCTETS] {
        self.first.tag(parts)
    }

    /// Whether one of the keys made the tag. Takes as long for a wrong octet at the end as for one at the beginning.
    pub(crate) fn verify(&self, parts: &[&[u8]], tag: &[u8; TAG_OCTETS]) -> bool {
        std::iter::once(&self.first).chain(&self.more).any(|key| {
            let difference =
                key.tag(parts).iter().zip(tag).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
            std::hint::black_box(difference) == 0
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secret keys", 1 + self.more.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    #[test]
    fn rfc_4231_test_cases_1_2_3_6_and_7() {
        let longer = b"This is a test using a larger than block-size key and a larger than block-size data. \
            The key needs to be hashed before being used by the HMAC algorithm.";
        for (key, data, expected) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (&[0xaa; 131], longer, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
        ] {
            assert_eq!(hex(&Key::new(key).mac(&[data])), expected);
        }
    }

    #[test]
    fn the_first_key_signs_and_each_is_accepted() {
        let (old, new) = ("old-key-of-16-oct", "new-key-of-16-oct");
        let both = Keys::parse(format!("\n {old} \n{new}\n").as_bytes()).unwrap();
        let [old, new] = [old, new].map(|key| Keys::parse(key.as_bytes()).unwrap());
        let text: &[&[u8]] = &[b"a", b"b"];
        assert_eq!(both.sign(text), old.sign(&[b"ab"]));
        assert!(both.verify(text, &old.sign(text)) && both.verify(text, &new.sign(text)));
        assert!(!old.verify(text, &new.sign(text)) && !old.verify(&[b"ac"], &old.sign(text)));
    }

    #[test]
    fn no_key_and_a_short_one_are_refused_and_none_is_shown() {
        assert_eq!(Keys::parse(b" \n\n").unwrap_err(), KeyError::Empty);
        let error = Keys::parse(b"a-key-of-16-octs\nshort").unwrap_err();
        assert_eq!(error, KeyError::Short { line: 2, octets: 5 });
        assert_eq!(format!("{:?}", Keys::parse(b"a-key-of-16-octs").unwrap()), "1 secret keys");
    }
}
