//! Watches of the API server: every object is turned into its small value at once, and the changes go to the one
//! task that decides. An API server that is gone, slow or has forgotten where we were (410) costs nothing but
//! news: what is known stays, and only a complete new list says that something is gone.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    time::{Duration, Instant},
};

use futures::{StreamExt, pin_mut};
use kube::{
    Api, Resource,
    runtime::watcher::{self, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::key::ObjectKey;

/// Wait between attempts while the API server does not answer: doubled up to the second one.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// One change of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// An object came, changed, or is in the list.
    Applied(ObjectKey, T),
    /// An object went, or is none of ours any more.
    Deleted(ObjectKey),
    /// A complete list begins.
    Listing,
    /// The list is complete: what was not in it is gone.
    Listed,
}

/// A value, and when what it was made of arrived.
#[derive(Clone, Debug)]
pub struct Stamped<T> {
    /// When it arrived.
    pub at: Instant,
    /// The value.
    pub value: T,
}

/// Watches a kind until the receiver is gone. `project` says what the agent has to know of an object, or `None`
/// where it is none of ours.
pub async fn watch<K, T, I>(
    api: Api<K>,
    config: watcher::Config,
    project: impl Fn(&K) -> Option<T>,
    wrap: impl Fn(Change<T>) -> I,
    changes: mpsc::Sender<Stamped<I>>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let events = watcher(api, config);
    pin_mut!(events);
    let mut wait = RETRY.0;
    let mut is_failing = false;
    while let Some(event) = events.next().await {
        let change = match event {
            // Announces only that a list will be asked for.
            Ok(event @ watcher::Event::Init) => change(event, &project),
            Ok(event) => {
                if is_failing {
                    tracing::info!(%kind, "watch works again");
                }
                (is_failing, wait) = (false, RETRY.0);
                change(event, &project)
            }
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%kind, %error, "watch failed: nothing is concluded from it, trying again");
                }
                is_failing = true;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
                continue;
            }
        };
        let Some(change) = change else { continue };
        if changes.send(Stamped { at: Instant::now(), value: wrap(change) }).await.is_err() {
            return;
        }
    }
}

fn change<K: Resource, T>(event: watcher::Event<K>, project: impl Fn(&K) -> Option<T>) -> Option<Change<T>> {
    match event {
        watcher::Event::Init => Some(Change::Listing),
        watcher::Event::InitDone => Some(Change::Listed),
        watcher::Event::InitApply(object) => {
            project(&object).map(|value| Change::Applied(ObjectKey::of(&object), value))
        }
        watcher::Event::Apply(object) => Some(match project(&object) {
            Some(value) => Change::Applied(ObjectKey::of(&object), value),
            None => Change::Deleted(ObjectKey::of(&object)),
        }),
        watcher::Event::Delete(object) => Some(Change::Deleted(ObjectKey::of(&object))),
    }
}

/// Which objects a list in progress has shown, and whether there has been a whole one.
#[derive(Debug, Default)]
pub struct Listing {
    seen: Option<HashSet<ObjectKey>>,
    is_complete: bool,
}

impl Listing {
    /// Whether a list has been complete once.
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// A list begins.
    pub fn begin(&mut self) {
        self.seen = Some(HashSet::new());
    }

    /// An object was seen.
    pub fn note(&mut self, key: &ObjectKey) {
        if let Some(seen) = &mut self.seen {
            seen.insert(key.clone());
        }
    }

    /// The list is complete: which of the known ones are gone.
    pub fn finish<'a>(&mut self, known: impl Iterator<Item = &'a ObjectKey>) -> Vec<ObjectKey> {
        self.is_complete = true;
        let Some(seen) = self.seen.take() else { return Vec::new() };
        known.filter(|key| !seen.contains(*key)).cloned().collect()
    }
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Store<T> {
    objects: HashMap<ObjectKey, T>,
    listing: Listing,
}

impl<T> Default for Store<T> {
    fn default() -> Store<T> {
        Store { objects: HashMap::new(), listing: Listing::default() }
    }
}

impl<T: PartialEq> Store<T> {
    /// Takes a change in; returns the keys whose value is not what it was.
    pub fn on(&mut self, change: Change<T>) -> Vec<ObjectKey> {
        match change {
            Change::Applied(key, value) => {
                self.listing.note(&key);
                if self.objects.get(&key) == Some(&value) {
                    return Vec::new();
                }
                self.objects.insert(key.clone(), value);
                vec![key]
            }
            Change::Deleted(key) => self.objects.remove(&key).map(|_| key).into_iter().collect(),
            Change::Listing => {
                self.listing.begin();
                Vec::new()
            }
            Change::Listed => {
                let gone = self.listing.finish(self.objects.keys());
                for key in &gone {
                    self.objects.remove(key);
                }
                gone
            }
        }
    }

    /// Whether a list has been complete once.
    pub const fn is_listed(&self) -> bool {
        self.listing.is_complete()
    }

    /// The value of an object.
    pub fn get(&self, key: &ObjectKey) -> Option<&T> {
        self.objects.get(key)
    }

    /// Every object, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &T)> {
        self.objects.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("x", name)
    }

    fn applied(name: &str, value: u8) -> Change<u8> {
        Change::Applied(key(name), value)
    }

    #[test]
    fn only_real_changes_are_dirty() {
        let mut store = Store::default();
        assert_eq!(store.on(applied("a", 1)), [key("a")]);
        assert!(store.on(applied("a", 1)).is_empty());
        assert_eq!(store.on(applied("a", 2)), [key("a")]);
        assert_eq!(store.on(Change::Deleted(key("a"))), [key("a")]);
        assert!(store.on(Change::Deleted(key("a"))).is_empty());
    }

    #[test]
    fn only_a_complete_list_removes_what_it_lacks() {
        let mut store = Store::default();
        store.on(Change::Listing);
        store.on(applied("a", 1));
        store.on(applied("b", 1));
        assert!(!store.is_listed());
        assert!(store.on(Change::Listed).is_empty());
        assert!(store.is_listed());
        // The watch breaks; a new list begins and breaks, too; then one gets through.
        for change in [Change::Listing, Change::Listing, applied("a", 1)] {
            assert!(store.on(change).is_empty());
        }
        assert!(store.get(&key("b")).is_some(), "kept until the list is complete");
        assert_eq!(store.on(Change::Listed), [key("b")]);
        assert_eq!(store.iter().count(), 1);
    }

    #[test]
    fn what_comes_while_a_list_is_under_way_is_not_taken_for_gone() {
        let mut store = Store::default();
        store.on(Change::Listing);
        store.on(applied("new", 1));
        assert!(store.on(Change::Listed).is_empty());
        assert!(store.get(&key("new")).is_some());
    }
}
