//! Names and stamps the server gives out: timestamps, uids, generated name suffixes.

use jiff::Timestamp;
use rand::Rng;

/// Now, as `metav1.Time` is written: whole seconds, UTC.
pub(crate) fn now_secs() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// So many seconds from now, in the same form.
pub(crate) fn secs_from_now(secs: i64) -> String {
    let then = Timestamp::now() + jiff::SignedDuration::from_secs(secs);
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random (version 4) UUID.
pub(crate) fn uuid() -> String {
    let n: u128 = rand::rng().random();
    let n = (n & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{n:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// `prefix` with five random characters, as `generateName` makes; the prefix is cut to keep 63 characters.
pub(crate) fn generated_name(prefix: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const SUFFIX: usize = 5;
    let mut rng = rand::rng();
    let mut name: String = prefix.chars().take(63 - SUFFIX).collect();
    name.extend((0..SUFFIX).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
    name
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_uuid_is_version_four_with_the_rfc_9562_variant() {
        let id = super::uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
    }
}
