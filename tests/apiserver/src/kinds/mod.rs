//! The rules of each kind: defaults, what a write to the main resource or to `/status` may change, what is
//! valid, what must be reserved elsewhere. One file a family of kinds; [`Plain`] for those without rules.

pub(crate) mod apps;
pub(crate) mod cluster;
pub(crate) mod custom;
pub(crate) mod metadata;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod pod;
pub(crate) mod service;

use serde_json::Value;

use crate::object;
use crate::refusal::Cause;

/// When `metadata.generation` grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    Absent,
    /// With every change of `spec`.
    Spec,
    /// With every change outside `metadata` and, if `/status` exists, outside `status`.
    Content,
    /// The same, and with every change of labels.
    ContentAndLabels,
}

/// Something reserved for an object that is about to be stored.
pub trait Reservation: Send {
    /// The object was stored: keep what is new, give back what it no longer uses.
    fn keep(self: Box<Self>);
    /// It was not: give back what was taken.
    fn give_back(self: Box<Self>);
}

/// The rules of one kind.
pub trait Kind: Send + Sync + std::fmt::Debug {
    /// Whether a name is acceptable; the text says what would be.
    fn name_fault(&self, name: &str) -> Option<String> {
        names::dns_subdomain(name)
    }

    /// Fills in defaults, on every write.
    fn default(&self, _object: &mut Value) {}

    /// Clears what a creator may not set.
    fn prepare_create(&self, object: &mut Value) {
        object::put(object, "status", Value::Null);
    }

    /// Clears what a writer of the main resource may not change.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::carry(new, old, "status");
    }

    /// Clears what a writer of `/status` may not change.
    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object::carry(new, old, "spec");
    }

    /// What is wrong with the object; `old` on updates.
    fn validate(&self, _new: &Value, _old: Option<&Value>) -> Vec<Cause> {
        Vec::new()
    }

    /// What is wrong with a write to `/status`.
    fn validate_status(&self, _new: &Value, _old: &Value) -> Vec<Cause> {
        Vec::new()
    }

    /// Reserves what the object needs from shared pools and writes it into the object.
    fn reserve(
        &self,
        _new: &mut Value,
        _old: Option<&Value>,
        _dry_run: bool,
    ) -> Result<Option<Box<dyn Reservation>>, Vec<Cause>> {
        Ok(None)
    }

    /// Gives back what a deleted object held.
    fn release(&self, _gone: &Value) {}

    /// When the generation grows.
    fn generation(&self) -> Generation {
        Generation::Absent
    }

    /// Whether a PUT to a free name creates.
    fn creates_on_update(&self) -> bool {
        false
    }

    /// Whether a PUT without resourceVersion is taken.
    fn updates_unconditionally(&self) -> bool {
        true
    }
}

/// A kind with no rules beyond its schema.
#[derive(Debug)]
pub(crate) struct Plain {
    /// Whether a PUT to a free name creates.
    pub creates_on_update: bool,
}

impl Kind for Plain {
    fn prepare_create(&self, _object: &mut Value) {}

    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    fn creates_on_update(&self) -> bool {
        self.creates_on_update
    }
}

/// Whether `new` needs a higher generation than `old`.
pub(crate) fn content_changed(rule: Generation, has_status: bool, new: &Value, old: &Value) -> bool {
    match rule {
        Generation::Absent => false,
        Generation::Spec => new["spec"] != old["spec"],
        Generation::ContentAndLabels => {
            object::at(new, &["metadata", "labels"]) != object::at(old, &["metadata", "labels"])
                || content_changed(Generation::Content, has_status, new, old)
        }
        Generation::Content => {
            let content = |v: &Value| {
                let mut rest = v.clone();
                for name in ["metadata", "apiVersion", "kind"] {
                    object::put(&mut rest, name, Value::Null);
                }
                if has_status {
                    object::put(&mut rest, "status", Value::Null);
                }
                rest
            };
            content(new) != content(old)
        }
    }
}
