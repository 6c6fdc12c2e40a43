//! The patch languages: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

pub(crate) mod strategic;

use serde_json::Value;

use crate::refusal::Refusal;

/// A language, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
    /// `application/apply-patch+yaml`
    Apply,
}

impl Language {
    /// The language of a media type.
    pub(crate) fn of(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            "application/apply-patch+yaml" | "application/apply-patch+json" => Self::Apply,
            _ => return None,
        })
    }
}

/// Applies a JSON patch.
pub(crate) fn json(mut object: Value, patch: &Value) -> Result<Value, Refusal> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| Refusal::bad_request(format!("error decoding patch: {e}")))?;
    json_patch::patch(&mut object, &patch).map_err(|e| {
        // The real server keeps the reason to itself.
        tracing::debug!(%e, "a JSON patch does not apply");
        Refusal::new(422, "Invalid", "the server rejected our request due to an error in our request")
    })?;
    Ok(object)
}

/// Applies a merge patch.
pub(crate) fn merge(mut object: Value, patch: &Value) -> Result<Value, Refusal> {
    if !patch.is_object() {
        return Err(Refusal::bad_request("a merge patch must be a JSON object"));
    }
    json_patch::merge(&mut object, patch);
    Ok(object)
}
