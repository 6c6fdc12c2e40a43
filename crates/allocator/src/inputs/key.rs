//! Which Service: namespace and name.
//!
//! A key is looked up many times for every decision, and every Service has one in several places: so it is one
//! pointer to a text that is kept once, with its hash beside it.

use std::{
    cmp::Ordering,
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::LazyLock,
};

use foldhash::fast::RandomState;
use triomphe::ThinArc;

/// Seeded anew in every process: owners choose the names.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// Namespace and name.
#[derive(Clone)]
pub struct ServiceKey(ThinArc<Head, u8>);

/// What is kept before the text.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// Of the text.
    hash: u32,
    /// How many octets of the text are the namespace.
    namespace: u32,
}

impl ServiceKey {
    /// The key of `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> ServiceKey {
        let text = format!("{namespace}/{name}");
        let namespace = u32::try_from(namespace.len()).expect("a namespace is shorter than four gigabytes");
        let head = Head { hash: HASHER.hash_one(text.as_bytes()) as u32, namespace };
        ServiceKey(ThinArc::from_header_and_slice(head, text.as_bytes()))
    }

    fn octets(&self) -> &[u8] {
        &self.0.slice
    }

    /// `namespace/name`.
    pub fn as_str(&self) -> &str {
        text(self.octets())
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        text(self.octets().get(..self.0.header.header.namespace as usize).unwrap_or_default())
    }

    /// The name.
    pub fn name(&self) -> &str {
        text(self.octets().get(self.0.header.header.namespace as usize + 1..).unwrap_or_default())
    }

    /// What tables find it by: the same for the same key, within this process.
    pub fn hash_value(&self) -> u32 {
        self.0.header.header.hash
    }

    /// The same for a table that takes the place from the low bits and a mark from the highest.
    pub fn spread_hash(&self) -> u64 {
        spread(self.hash_value())
    }
}

/// See [`ServiceKey::spread_hash`].
pub fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).expect("it is cut from a str at a slash")
}

impl PartialEq for ServiceKey {
    fn eq(&self, other: &ServiceKey) -> bool {
        // Nearly always the two are one, or have another hash: then no text is looked at.
        std::ptr::eq(self.0.ptr(), other.0.ptr())
            || self.hash_value() == other.hash_value() && self.octets() == other.octets()
    }
}

impl Eq for ServiceKey {}

impl Hash for ServiceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash_value());
    }
}

impl PartialOrd for ServiceKey {
    fn partial_cmp(&self, other: &ServiceKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ServiceKey {
    fn cmp(&self, other: &ServiceKey) -> Ordering {
        self.octets().cmp(other.octets())
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn a_key_comes_apart_as_it_was_put_together() {
        for (namespace, name) in [("team-01", "web"), ("a", "b"), ("", "web"), ("ns", ""), ("ä", "ö")] {
            let key = ServiceKey::new(namespace, name);
            assert_eq!((key.namespace(), key.name()), (namespace, name));
            assert_eq!(key.as_str(), format!("{namespace}/{name}"));
            assert_eq!(
                (key.to_string(), format!("{key:?}")),
                (key.as_str().to_owned(), format!("{:?}", key.as_str()))
            );
        }
        assert_eq!(size_of::<Option<ServiceKey>>(), size_of::<usize>());
    }

    #[test]
    fn keys_that_were_made_apart_are_equal_where_namespace_and_name_are() {
        let names = [("a", "b"), ("a", "c"), ("b", "b"), ("a-b", "c"), ("a", "b-c")];
        let keys = || names.map(|(namespace, name)| ServiceKey::new(namespace, name));
        let unique: HashSet<ServiceKey> = keys().into_iter().chain(keys()).collect();
        assert_eq!(unique.len(), names.len());
        assert!(keys().iter().zip(keys()).all(|(a, b)| *a == b && a.hash_value() == b.hash_value()));
        let sorted: Vec<String> = BTreeSet::from(keys()).iter().map(ToString::to_string).collect();
        let mut expected = sorted.clone();
        expected.sort();
        assert_eq!(sorted, expected, "the order is that of the text");
    }
}
