//! Reading request bodies.

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::refusal::Refusal;

/// The real server's limit.
const LIMIT: usize = 3 * 1024 * 1024;

/// The whole body.
pub(super) async fn read(body: Body) -> Result<Bytes, Refusal> {
    to_bytes(body, LIMIT).await.map_err(|_| {
        Refusal::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {LIMIT}"))
    })
}

/// The media type without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let full = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    full.split(';').next().unwrap_or_default().trim()
}

/// The body as a JSON tree, from JSON or YAML.
pub(super) fn parse(media_type: &str, bytes: &[u8]) -> Result<Value, Refusal> {
    match media_type {
        "" | "application/json" => from_json(bytes),
        "application/yaml" | "application/x-yaml" => from_yaml(bytes),
        "application/vnd.kubernetes.protobuf" => super::protobuf::decode(bytes).map_err(Refusal::bad_request),
        _ => Err(Refusal::unsupported_media_type("application/json, application/yaml")),
    }
}

/// JSON.
pub(super) fn from_json(bytes: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(bytes).map_err(|e| {
        Refusal::bad_request(format!("the object provided is unrecognized (must be JSON or YAML): {e}"))
    })
}

/// YAML, of which JSON is a part.
pub(super) fn from_yaml(bytes: &[u8]) -> Result<Value, Refusal> {
    serde_norway::from_slice(bytes).map_err(|e| Refusal::bad_request(format!("error decoding YAML: {e}")))
}
