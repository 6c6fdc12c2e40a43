//! `/version`, `/healthz` and their kin.

use axum::body::Body;
use http::Response;
use serde_json::json;

use super::answer;

/// The answer, if the path is one of these.
pub(super) fn answer(path: &str) -> Option<Response<Body>> {
    match path {
        "/healthz" | "/readyz" | "/livez" => Some(answer::text(200, "ok")),
        "/version" | "/version/" => Some(answer::json(
            200,
            &json!({
                "major": "1", "minor": "36", "gitVersion": "v1.36.0+inmemory", "gitCommit": "", "gitTreeState": "clean",
                "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
                "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
            }),
        )),
        _ => None,
    }
}
