//! Label and field selectors.

pub(crate) mod field;
pub(crate) mod label;

use serde_json::Value;

/// What a list, a watch or a deletecollection selects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Label selector.
    pub labels: label::Selector,
    /// Field selector.
    pub fields: field::Selector,
}

impl Selection {
    /// Whether an object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(&object["metadata"]["labels"]) && self.fields.matches(object)
    }

    /// Whether everything is.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}
