//! Why an object, or a part of one, is not accepted. A value, not an error: it ends up in a condition.

use crate::condition::reason;

/// One reason not to accept an object: what is wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Refusal {
    /// Reason of the condition, one of [`crate::condition::reason`].
    pub reason: &'static str,
    /// Path of the field, as `spec.local.v4pool.pool`.
    pub path: String,
    /// What is wrong with it and what would be accepted.
    pub message: String,
}

impl Refusal {
    /// A value that cannot be accepted.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Refusal {
        Refusal { reason: reason::INVALID, path: path.into(), message: message.into() }
    }

    /// A field that this version knows but does not act on. Refused rather than ignored.
    pub fn unsupported(path: impl Into<String>) -> Refusal {
        let path = path.into();
        let message = "this version does not support the field yet: leave it out".to_owned();
        Refusal { reason: reason::UNSUPPORTED_FIELD, path, message }
    }
}
