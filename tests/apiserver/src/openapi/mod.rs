//! The OpenAPI documents, as far as `kubectl` reads them: `explain`, `apply` and client-side validation.
//! Version 3 as JSON, version 2 as JSON and as the protobuf that older clients ask for.

mod definitions;
mod proto;
mod v3;

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::http::answer;
use crate::refusal::Refusal;
use crate::registry::{Table, api_version};
use crate::verbs::Api;

/// Clients ask for `…v2@v1.0+protobuf`, but cannot parse that `@` in an answer.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The answer, if the path is one of the OpenAPI documents.
pub(crate) fn answer(api: &Api, path: &str, accept: &str) -> Option<Response<Body>> {
    let table = api.registry.table();
    match path {
        "/openapi/v3" => Some(answer::json(200, &index(&table))),
        "/openapi/v2" => Some(second(&table, accept)),
        _ => Some(third(&table, path.strip_prefix("/openapi/v3/")?, accept)),
    }
}

fn group_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Where each group version's document is. The hash lets clients keep what has not changed.
fn index(table: &Table) -> Value {
    let mut paths = json!({});
    for (group, versions) in table.groups() {
        for version in versions {
            let path = group_path(&group, &version);
            let mut hasher = DefaultHasher::new();
            env!("CARGO_PKG_VERSION").hash(&mut hasher);
            for resource in definitions::of_version(table, &group, &version) {
                resource.id.plural.hash(&mut hasher);
                definitions::of_kind(resource, definitions::Dialect::V3).to_string().hash(&mut hasher);
            }
            let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
            paths[path] = json!({"serverRelativeURL": url});
        }
    }
    json!({"paths": paths})
}

fn third(table: &Table, path: &str, accept: &str) -> Response<Body> {
    let wants_json = accept.is_empty() || accept.contains("application/json") || accept.contains("*/*");
    if !wants_json {
        return answer::refusal(&Refusal::not_acceptable());
    }
    let found = table.groups().into_iter().find_map(|(group, versions)| {
        let version = versions.into_iter().find(|v| group_path(&group, v) == path)?;
        Some((group, version))
    });
    match found {
        Some((group, version)) => answer::json(200, &v3::document(table, &group, &version)),
        None => answer::refusal(&Refusal::no_such_path()),
    }
}

fn second(table: &Table, accept: &str) -> Response<Body> {
    let document = json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": {},
        "definitions": definitions::all(table),
    });
    if accept.contains("proto-openapi.spec.v2") {
        let bytes = proto::document(&document);
        return answer::with_type(200, PROTOBUF, bytes.into());
    }
    answer::json(200, &document)
}

/// The `x-kubernetes-group-version-kind` of a kind.
fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// The path below which a group version's objects are.
fn root(group: &str, version: &str) -> String {
    format!("/{}/{}", if group.is_empty() { "api" } else { "apis" }, api_version(group, version))
}
