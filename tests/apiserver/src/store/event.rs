//! One change of a collection, and its one encoding for all watchers.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Stored;

/// The type of a watch event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Came into being, or into the watcher's selection.
    Added,
    /// Changed.
    Modified,
    /// Went, or left the watcher's selection.
    Deleted,
}

impl EventKind {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A change.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; for a deletion, its last state with the deletion's revision.
    pub object: Arc<Stored>,
    /// The object before the change.
    pub previous: Option<Arc<Stored>>,
    line: OnceLock<Bytes>,
}

impl Event {
    pub(super) fn new(kind: EventKind, object: Arc<Stored>, previous: Option<Arc<Stored>>) -> Self {
        Self { kind, object, previous, line: OnceLock::new() }
    }

    /// The event as a line of a JSON watch; encoded by the first watcher that asks, shared by the others.
    pub fn line(&self) -> Bytes {
        self.line.get_or_init(|| event_line(self.kind.word(), &self.object.json)).clone()
    }
}

/// A line of a JSON watch around an encoded object.
pub(crate) fn event_line(word: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + word.len() + 24);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(word.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}
