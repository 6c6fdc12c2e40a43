//! Writing answers.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use serde_json::Value;

use crate::refusal::Refusal;

/// An answer with a body already encoded as JSON.
pub(crate) fn json_bytes(code: u16, bytes: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "application/json", bytes.into())
}

/// An answer with a JSON value.
pub(crate) fn json(code: u16, value: &Value) -> Response<Body> {
    json_bytes(code, serde_json::to_vec(value).expect("a JSON tree always encodes"))
}

/// An answer with a value as YAML.
pub(crate) fn yaml(code: u16, value: &Value) -> Response<Body> {
    with_type(code, "application/yaml", serde_norway::to_string(value).unwrap_or_default().into())
}

/// A plain text answer.
pub(crate) fn text(code: u16, text: &str) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", Bytes::copy_from_slice(text.as_bytes()))
}

/// An answer of any type.
pub(crate) fn with_type(code: u16, media_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut answer = Response::new(Body::from(bytes));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// A refusal as its `Status` object.
pub(crate) fn refusal(refusal: &Refusal) -> Response<Body> {
    let mut answer = json(refusal.code, &refusal.to_status());
    if let Some(seconds) = refusal.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Adds `Warning` headers.
pub(crate) fn warn(answer: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&quoted) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}
