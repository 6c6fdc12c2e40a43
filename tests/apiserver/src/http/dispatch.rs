//! One request: counted, subjected to the injected faults, led to its verb.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderMap, Method, Request, Response};
use serde_json::{Value, json};

use super::accept::{Accepted, negotiate};
use super::path::{Objects, Path};
use super::query::Query;
use super::{answer, body, health, path};
use crate::faults::{Call, Interruption, Verdict};
use crate::openapi;
use crate::patch::Language;
use crate::present::Form;
use crate::refusal::Refusal;
use crate::server::Shared;
use crate::store::{Stored, event_line};
use crate::verbs::delete::Deleted;
use crate::verbs::watch::{Watch, WatchOptions};
use crate::verbs::{Target, Written};
use crate::{control, discovery};

/// A request's parts that verbs need.
struct Asked {
    query: Query,
    headers: HeaderMap,
    accepted: Accepted,
    agent: String,
    body: Bytes,
}

/// The connection is to be closed instead of an answer: an injected fault.
#[derive(Debug, thiserror::Error)]
#[error("closed by an injected fault")]
pub(crate) struct Closed;

/// Answers a request.
pub(crate) async fn serve(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, Closed> {
    let mut is_lost = false;
    let answered = route(&shared, request, &mut is_lost).await;
    if is_lost {
        return Err(Closed);
    }
    Ok(answered.unwrap_or_else(|refusal| answer::refusal(&refusal)))
}

/// Routes a request; `is_lost` when the answer, if there is one, must not reach the client.
async fn route(
    shared: &Arc<Shared>,
    request: Request<Body>,
    is_lost: &mut bool,
) -> Result<Response<Body>, Refusal> {
    let (parts, request_body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    if let Some(command) = path.strip_prefix("/-/") {
        let bytes = body::read(request_body).await?;
        return control::serve(shared, &parts.method, command, &bytes);
    }
    if let Some(response) = health::answer(&path) {
        return Ok(response);
    }
    let accept = header(&parts.headers, &ACCEPT);
    if let Some(response) = openapi::answer(&shared.api, &path, accept) {
        return Ok(response);
    }
    let objects = match path::parse(&path) {
        Path::Objects(objects) => objects,
        other => return discovery::answer(&shared.api.registry.table(), &other, accept),
    };
    let asked = Asked {
        accepted: negotiate(accept, query.include())?,
        agent: header(&parts.headers, &USER_AGENT).to_owned(),
        body: Bytes::new(),
        headers: parts.headers,
        query,
    };
    let target = find_target(shared, &objects)?;
    let verb = verb(&parts.method, &target, &asked.query)?;
    let call = Call::new(verb, &target, &objects, &asked.agent);
    shared.counters.count(&call);
    let verdict = shared.faults.judge(&call).await;
    *is_lost = matches!(verdict, Verdict::Drop | Verdict::LoseAnswer);
    let is_mute = matches!(verdict, Verdict::Mute);
    match verdict {
        Verdict::Go | Verdict::Mute | Verdict::LoseAnswer => {}
        Verdict::Drop => return Err(Refusal::no_such_path()),
        Verdict::Refuse(refusal) => return Err(refusal),
        Verdict::Stale(revision) => return stale_list(shared, &target, asked, revision),
    }
    let bytes = body::read(request_body).await?;
    let answer = answer_verb(shared, verb, &target, call, Asked { body: bytes, ..asked });
    if is_mute {
        std::future::pending::<()>().await;
    }
    answer
}

fn header<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> &'h str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

fn find_target(shared: &Shared, objects: &Objects<'_>) -> Result<Target, Refusal> {
    let table = shared.api.registry.table();
    let resource =
        table.find(objects.group, objects.version, objects.plural).ok_or_else(Refusal::no_such_path)?;
    let status = match objects.subresource {
        "" => false,
        "status" if resource.has_status => true,
        "status" => return Err(Refusal::no_such_path()),
        other => {
            return Err(Refusal::not_implemented(&format!("the subresource {}/{other}", objects.plural)));
        }
    };
    if !resource.namespaced && !objects.namespace.is_empty() {
        return Err(Refusal::no_such_path());
    }
    Ok(Target { resource, namespace: objects.namespace.to_owned(), name: objects.name.to_owned(), status })
}

fn verb(method: &Method, target: &Target, query: &Query) -> Result<&'static str, Refusal> {
    let has_name = !target.name.is_empty();
    let scoped = !target.resource.namespaced || !target.namespace.is_empty();
    let verb = match (method.as_str(), has_name) {
        ("GET", _) if query.flag("watch") && !target.status => "watch",
        ("GET", true) => "get",
        ("GET", false) => "list",
        ("POST", false) => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) if !target.status => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return Err(Refusal::method_not_allowed()),
    };
    // Only lists and watches go over all namespaces.
    if !scoped && !matches!(verb, "list" | "watch") {
        return Err(Refusal::method_not_allowed());
    }
    Ok(verb)
}

fn answer_verb(
    shared: &Arc<Shared>,
    verb: &str,
    target: &Target,
    call: Call,
    asked: Asked,
) -> Result<Response<Body>, Refusal> {
    let api = &shared.api;
    match verb {
        "get" => {
            let object = api.get(target)?;
            Ok(object_answer(200, target, &object, asked.accepted))
        }
        "list" => list(shared, target, &asked),
        "watch" => watch(shared, target, call, &asked),
        "delete" => delete(shared, target, &asked),
        "deletecollection" => delete_collection(shared, target, &asked),
        _ => write(shared, verb, target, &asked),
    }
}

fn write(shared: &Shared, verb: &str, target: &Target, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let options = asked.query.write_options(&asked.agent)?;
    let media_type = body::media_type(&asked.headers);
    let written: Written = match verb {
        "create" => shared.api.create(target, body::parse(media_type, &asked.body)?, &options)?,
        "update" => shared.api.update(target, body::parse(media_type, &asked.body)?, &options)?,
        _ => {
            let language = Language::of(media_type).ok_or_else(|| {
                Refusal::unsupported_media_type(
                    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
                )
            })?;
            let patch = match language {
                Language::Apply => body::from_yaml(&asked.body)?,
                _ => body::from_json(&asked.body)?,
            };
            shared.api.patch(target, language, &patch, &options)?
        }
    };
    let code = if written.created { 201 } else { 200 };
    let mut response = object_answer(code, target, &written.object, asked.accepted);
    answer::warn(&mut response, &written.warnings);
    Ok(response)
}

fn object_answer(code: u16, target: &Target, object: &Stored, accepted: Accepted) -> Response<Body> {
    let resource = &target.resource;
    if accepted.form == Form::Object && !accepted.yaml && resource.view == crate::registry::View::Same {
        return answer::json_bytes(code, object.json.clone());
    }
    value_answer(code, &accepted.form.one(resource, object, true), accepted)
}

fn value_answer(code: u16, value: &Value, accepted: Accepted) -> Response<Body> {
    if accepted.yaml { answer::yaml(code, value) } else { answer::json(code, value) }
}

fn list(shared: &Shared, target: &Target, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let options = asked.query.list_options(&target.resource)?;
    list_answer(shared, target, asked, &options)
}

fn stale_list(
    shared: &Shared,
    target: &Target,
    asked: Asked,
    revision: u64,
) -> Result<Response<Body>, Refusal> {
    let mut options = asked.query.list_options(&target.resource)?;
    options.resource_version = revision.to_string();
    options.version_match = "Exact".to_owned();
    list_answer(shared, target, &asked, &options)
}

fn list_answer(
    shared: &Shared,
    target: &Target,
    asked: &Asked,
    options: &crate::verbs::list::ListOptions,
) -> Result<Response<Body>, Refusal> {
    let listed = shared.api.list(target, options)?;
    if asked.accepted.form == Form::Object {
        let bytes = listed.to_json(target);
        if asked.accepted.yaml {
            return Ok(answer::yaml(200, &body::from_json(&bytes)?));
        }
        return Ok(answer::json_bytes(200, bytes));
    }
    Ok(value_answer(200, &asked.accepted.form.list(target, &listed), asked.accepted))
}

fn watch(
    shared: &Arc<Shared>,
    target: &Target,
    call: Call,
    asked: &Asked,
) -> Result<Response<Body>, Refusal> {
    let query = &asked.query;
    let options = WatchOptions {
        list: query.list_options(&target.resource)?,
        bookmarks: query.flag("allowWatchBookmarks"),
        initial_events: query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents")),
        timeout: query.timeout()?,
        form: asked.accepted.form,
    };
    let watch = match shared.api.watch(target, &options) {
        Ok(watch) => watch,
        // A watch that cannot begin because of its age says so as its only event.
        Err(refusal) if refusal.code == 410 => {
            let line = event_line("ERROR", refusal.to_status().to_string().as_bytes());
            return Ok(answer::json_bytes(200, line));
        }
        Err(refusal) => return Err(refusal),
    };
    let interruptions = shared.faults.interruptions();
    let state = (watch, interruptions, call, false);
    let lines = stream::unfold(state, |(mut watch, mut interruptions, call, over)| async move {
        if over {
            return None;
        }
        let (line, over) = next_line(&mut watch, &mut interruptions, &call).await?;
        Some((Ok::<Bytes, std::convert::Infallible>(line), (watch, interruptions, call, over)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}

/// The next line of a watch, and whether it is the last; `None` when the watch ends or is closed.
async fn next_line(
    watch: &mut Watch,
    interruptions: &mut tokio::sync::broadcast::Receiver<Arc<Interruption>>,
    call: &Call,
) -> Option<(Bytes, bool)> {
    loop {
        tokio::select! {
            biased;
            interruption = interruptions.recv() => match interruption {
                Ok(i) if i.matches(call) => {
                    return i.status().map(|s| (event_line("ERROR", s.to_status().to_string().as_bytes()), true));
                }
                // One that is not for us, or some were missed: nothing to do.
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
            },
            line = watch.next() => return line.map(|l| (l, false)),
        }
    }
}

fn delete_body(asked: &Asked) -> Result<Option<Value>, Refusal> {
    if asked.body.is_empty() {
        return Ok(None);
    }
    body::parse(body::media_type(&asked.headers), &asked.body).map(Some)
}

fn delete(shared: &Shared, target: &Target, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let options = asked.query.delete_options(delete_body(asked)?.as_ref())?;
    match shared.api.delete(target, &options)? {
        Deleted::Waiting(object) => Ok(object_answer(200, target, &object, asked.accepted)),
        Deleted::Gone(object) if returns_deleted(target) => {
            Ok(object_answer(200, target, &object, asked.accepted))
        }
        Deleted::Gone(object) => Ok(answer::json(200, &success(target, &object))),
    }
}

/// Kinds whose deletion answers with the object.
fn returns_deleted(target: &Target) -> bool {
    target.resource.id.group.is_empty()
        && matches!(target.resource.id.plural.as_str(), "services" | "pods" | "serviceaccounts")
}

fn success(target: &Target, object: &Stored) -> Value {
    let id = &target.resource.id;
    let mut details = json!({"name": target.name});
    if !id.group.is_empty() {
        details["group"] = json!(id.group);
    }
    details["kind"] = json!(id.plural);
    details["uid"] = object.value["metadata"]["uid"].clone();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

fn delete_collection(shared: &Shared, target: &Target, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let options = asked.query.delete_options(delete_body(asked)?.as_ref())?;
    let selection = asked.query.selection(&target.resource)?;
    let objects = shared.api.delete_collection(target, &selection, &options)?;
    let revision = shared.api.revisions.current();
    let listed =
        crate::verbs::list::Listed { objects, revision, continue_token: String::new(), remaining: None };
    Ok(answer::json_bytes(200, listed.to_json(target)))
}
