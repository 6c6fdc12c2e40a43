//! Which addresses are held under which sharing key: where somebody who has the key looks first.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

use foldhash::fast::RandomState;

use crate::inputs::Word;

/// The sharing keys of a namespace, each with its addresses in the order in which they came.
type Keys = HashMap<Word, Vec<IpAddr>, RandomState>;

/// Namespace → sharing key → addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct SharingKeys(HashMap<Box<str>, Keys, RandomState>);

impl SharingKeys {
    /// The addresses that are held under a key.
    pub(super) fn of(&self, namespace: &str, key: &Word) -> &[IpAddr] {
        self.0.get(namespace).and_then(|keys| keys.get(key)).map_or(&[], Vec::as_slice)
    }

    /// Somebody with the key has come to the address.
    pub(super) fn add(&mut self, namespace: &str, key: &Word, address: IpAddr) {
        let keys = match self.0.get_mut(namespace) {
            Some(keys) => keys,
            None => self.0.entry(namespace.into()).or_default(),
        };
        let shared = keys.entry(key.clone()).or_default();
        if !shared.contains(&address) {
            shared.push(address);
        }
    }

    /// The last one with the key has left the address.
    pub(super) fn remove(&mut self, namespace: &str, key: &Word, address: IpAddr) {
        let Some(keys) = self.0.get_mut(namespace) else { return };
        if let Entry::Occupied(mut shared) = keys.entry(key.clone()) {
            shared.get_mut().retain(|known| *known != address);
            if shared.get().is_empty() {
                shared.remove();
            }
        }
        if keys.is_empty() {
            self.0.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ip, ips};

    #[test]
    fn a_key_is_known_in_its_namespace_as_long_as_it_has_addresses() {
        let (mut keys, key) = (SharingKeys::default(), Word::from("k"));
        for address in ["192.0.2.2", "192.0.2.1", "192.0.2.2"] {
            keys.add("ns", &key, ip(address));
        }
        assert_eq!(keys.of("ns", &key), ips("192.0.2.2 192.0.2.1"));
        assert!(keys.of("other", &key).is_empty() && keys.of("ns", &"l".into()).is_empty());
        keys.remove("ns", &key, ip("192.0.2.2"));
        keys.remove("ns", &key, ip("192.0.2.9"));
        assert_eq!(keys.of("ns", &key), ips("192.0.2.1"));
        keys.remove("ns", &key, ip("192.0.2.1"));
        assert!(keys.0.is_empty());
    }
}
