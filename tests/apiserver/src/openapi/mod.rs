//! The OpenAPI documents.

use axum::body::Body;
use http::Response;

use crate::verbs::Api;

/// The answer, if the path is one of the OpenAPI documents.
pub(crate) fn answer(_api: &Api, _path: &str, _accept: &str) -> Option<Response<Body>> {
    None
}
