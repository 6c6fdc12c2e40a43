//! Where objects live: one [`Collection`] per stored resource, with a bounded history of events from which
//! watches are served. Not a database: nothing is written to disk, and nothing here knows a kind.
//!
//! Guarantees: revisions are given out in the order of commits over all collections; an event and its list
//! agree (a list at revision R holds exactly the effects of events up to R); an object is encoded once.
//! Assumptions: callers compute new values without holding anything and commit against the revision they read.

mod event;
mod history;
mod pages;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

pub(crate) use event::{Event, EventKind, event_line};
pub(crate) use history::{History, TooOld};
pub(crate) use pages::{Page, Pages};

use crate::object;

/// The revision counter shared by all collections, the store's only global.
#[derive(Debug, Clone, Default)]
pub struct Revisions(Arc<AtomicU64>);

impl Revisions {
    /// A counter that starts like a fresh cluster's.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1)))
    }

    /// The newest revision given out.
    pub fn current(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// Where an object lives within its collection. Cluster-scoped objects have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of a namespace and a name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of an object.
    pub fn of(value: &Value) -> Self {
        Self::new(object::namespace(value), object::name(value))
    }
}

/// One stored state of an object, immutable.
#[derive(Debug)]
pub struct Stored {
    /// The object, with its resourceVersion.
    pub value: Value,
    /// Its JSON, shared by every list and watch that sends it.
    pub json: Bytes,
    /// Its revision.
    pub revision: u64,
}

impl Stored {
    /// A state that is shown but not stored: the result of a dry run.
    pub fn detached(value: Value) -> Self {
        let revision = object::resource_version(&value).parse().unwrap_or_default();
        let json = Bytes::from(serde_json::to_vec(&value).expect("a JSON tree always encodes"));
        Self { value, json, revision }
    }

    fn new(mut value: Value, revision: u64) -> Self {
        object::meta_mut(&mut value).insert("resourceVersion".into(), Value::String(revision.to_string()));
        let value = type_first(value);
        let json = Bytes::from(serde_json::to_vec(&value).expect("a JSON tree always encodes"));
        Self { value, json, revision }
    }
}

/// The object with `apiVersion` and `kind` as its first members, where lists of typed kinds cut them off.
fn type_first(value: Value) -> Value {
    let Value::Object(members) = value else { return value };
    if members.keys().take(2).eq(["apiVersion", "kind"]) {
        return Value::Object(members);
    }
    let mut ordered = serde_json::Map::with_capacity(members.len());
    for name in ["apiVersion", "kind"] {
        ordered.insert(name.to_owned(), members.get(name).cloned().unwrap_or_default());
    }
    ordered.extend(members.into_iter().filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind")));
    Value::Object(ordered)
}

/// Why a commit was refused: the object is not at the expected revision; holds what is there now.
#[derive(Debug)]
pub struct Moved(pub Option<Arc<Stored>>);

#[derive(Debug)]
struct State {
    objects: BTreeMap<Key, Arc<Stored>>,
    history: History,
}

/// The objects of one stored resource and their recent history.
#[derive(Debug)]
pub struct Collection {
    revisions: Revisions,
    state: Mutex<State>,
    /// Continued lists read from here.
    pub pages: Pages,
    newest: watch::Sender<u64>,
}

/// A list as of one revision.
#[derive(Debug)]
pub struct Snapshot {
    /// The objects in key order.
    pub objects: Vec<Arc<Stored>>,
    /// The revision it holds.
    pub revision: u64,
}

impl Collection {
    /// An empty collection that remembers `history` events.
    pub fn new(revisions: Revisions, history: usize) -> Self {
        Self {
            state: Mutex::new(State { objects: BTreeMap::new(), history: History::new(history) }),
            revisions,
            pages: Pages::default(),
            newest: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds a collection")
    }

    /// The current state of an object.
    pub fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.lock().objects.get(key).cloned()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.lock().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stores a new object; fails when the key is taken.
    pub fn create(&self, value: Value) -> Result<Arc<Stored>, Moved> {
        let key = Key::of(&value);
        let mut state = self.lock();
        if let Some(there) = state.objects.get(&key) {
            return Err(Moved(Some(there.clone())));
        }
        Ok(self.commit(&mut state, key, value, None))
    }

    /// Replaces the object at `key` if it still is at `expected`.
    pub fn replace(&self, key: &Key, expected: u64, value: Value) -> Result<Arc<Stored>, Moved> {
        let mut state = self.lock();
        let old = current(&state, key, expected)?;
        Ok(self.commit(&mut state, key.clone(), value, Some(old)))
    }

    /// Removes the object at `key` if it still is at `expected`; returns its last state with the deletion's
    /// revision.
    pub fn remove(&self, key: &Key, expected: u64) -> Result<Arc<Stored>, Moved> {
        let mut state = self.lock();
        let old = current(&state, key, expected)?;
        state.objects.remove(key);
        let gone = Arc::new(Stored::new(old.value.clone(), self.revisions.next()));
        state.history.push(Event::new(EventKind::Deleted, gone.clone(), Some(old)));
        self.announce(&state);
        Ok(gone)
    }

    fn commit(&self, state: &mut State, key: Key, value: Value, old: Option<Arc<Stored>>) -> Arc<Stored> {
        let stored = Arc::new(Stored::new(value, self.revisions.next()));
        state.objects.insert(key, stored.clone());
        let kind = if old.is_some() { EventKind::Modified } else { EventKind::Added };
        state.history.push(Event::new(kind, stored.clone(), old));
        self.announce(state);
        stored
    }

    fn announce(&self, state: &State) {
        self.newest.send_replace(state.history.end());
    }

    /// Everything in a namespace (empty: in all of them), now.
    pub fn snapshot(&self, namespace: &str) -> Snapshot {
        let state = self.lock();
        let revision = self.revisions.current();
        let objects = if namespace.is_empty() {
            state.objects.values().cloned().collect()
        } else {
            in_namespace(&state.objects, namespace).cloned().collect()
        };
        Snapshot { objects, revision }
    }

    /// Everything in a namespace as it was at `revision`, by undoing younger events.
    pub fn snapshot_at(&self, namespace: &str, revision: u64) -> Result<Snapshot, TooOld> {
        let state = self.lock();
        let mut objects = state.objects.clone();
        for event in state.history.since(revision)?.iter().rev() {
            let key = Key::of(&event.object.value);
            match &event.previous {
                Some(previous) => objects.insert(key, previous.clone()),
                None => objects.remove(&key),
            };
        }
        let objects = if namespace.is_empty() {
            objects.into_values().collect()
        } else {
            in_namespace(&objects, namespace).cloned().collect()
        };
        Ok(Snapshot { objects, revision })
    }

    /// A snapshot and the place in the history right behind it, for a watch that begins with a list.
    pub fn snapshot_and_place(&self, namespace: &str) -> (Snapshot, u64) {
        let state = self.lock();
        let revision = self.revisions.current();
        let objects = state
            .objects
            .values()
            .filter(|o| namespace.is_empty() || object::namespace(&o.value) == namespace)
            .cloned()
            .collect();
        (Snapshot { objects, revision }, state.history.end())
    }

    /// The place in the history of the first event younger than `revision`.
    pub fn place_after(&self, revision: u64) -> Result<u64, TooOld> {
        self.lock().history.place_after(revision)
    }

    /// At most `limit` events from `place` on, and the revision the collection stands at behind them.
    pub fn events_from(&self, place: u64, limit: usize) -> Result<(Vec<Arc<Event>>, u64), TooOld> {
        let state = self.lock();
        let events = state.history.at_place(place, limit)?;
        let reached_end = place + events.len() as u64 == state.history.end();
        let revision = match events.last() {
            Some(last) if !reached_end => last.object.revision,
            _ => self.revisions.current(),
        };
        Ok((events, revision))
    }

    /// All events, while none has been forgotten.
    pub fn events_from_first(&self) -> Option<Vec<Arc<Event>>> {
        self.lock().history.since(0).ok()
    }

    /// Wakes whenever an event is added.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Forgets the history: every resume and every running watch that lags gets 410.
    pub fn compact(&self) {
        self.lock().history.clear();
        self.pages.clear();
    }

    /// The store-wide newest revision.
    pub fn revision(&self) -> u64 {
        self.revisions.current()
    }
}

fn current(state: &State, key: &Key, expected: u64) -> Result<Arc<Stored>, Moved> {
    match state.objects.get(key) {
        Some(there) if there.revision == expected => Ok(there.clone()),
        there => Err(Moved(there.cloned())),
    }
}

fn in_namespace<'m>(
    objects: &'m BTreeMap<Key, Arc<Stored>>,
    namespace: &str,
) -> impl Iterator<Item = &'m Arc<Stored>> {
    let namespace = namespace.to_owned();
    let first = Key { namespace: namespace.clone(), name: String::new() };
    objects
        .range((Bound::Included(first), Bound::Unbounded))
        .take_while(move |(key, _)| key.namespace == namespace)
        .map(|(_, object)| object)
}
