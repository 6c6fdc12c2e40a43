//! The control endpoint under `/-/`, for tests that are not written in Rust:
//!
//! | request | does |
//! |---|---|
//! | `GET /-/faults` | lists the faults in force |
//! | `POST /-/faults` | adds one: `{"match": {"verb": "write", "resource": "services/status", "client": "kube"}, "action": {"refuse": {"code": 409}}, "times": 1}`; other actions: `{"delay": {"millis": 100}}`, `"hang"`, `"mute"`, `"drop"`, `"loseAnswer"`, `{"stale": {}}`; `"skip": 2` lets two pass before |
//! | `DELETE /-/faults` | removes all faults, heals the partition |
//! | `POST /-/close-watches`, `POST /-/expire-watches` | ends running watches, without and with a 410 event; body: a match, or empty |
//! | `POST /-/partition` | `{"cut": "refuse", "peers": ["127.0.0.1"]}`, `cut` also `hang` or `none`; the control endpoint is cut off too, so add `"seconds": 5` to have it healed |
//! | `POST /-/compact` | forgets the history: resuming watches get 410 |
//! | `GET /-/requests` | counts by verb, resource and client; `DELETE` starts again |

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Response};
use serde::Deserialize;
use serde_json::json;

use crate::faults::{Cut, Fault, Matcher};
use crate::http::answer;
use crate::refusal::Refusal;
use crate::server::Shared;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionOrder {
    cut: Cut,
    #[serde(default)]
    peers: Vec<IpAddr>,
    #[serde(default)]
    seconds: Option<u64>,
}

/// Serves a control request.
pub(crate) fn serve(
    shared: &Arc<Shared>,
    method: &Method,
    command: &str,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    match (method.as_str(), command) {
        ("GET", "faults") => return Ok(answer::json(200, &json!(shared.faults.in_force()))),
        ("POST", "faults") => shared.faults.add(read::<Fault>(body)?),
        ("DELETE", "faults") => shared.faults.clear(),
        ("POST", "close-watches") => shared.faults.close_watches(matcher(body)?),
        ("POST", "expire-watches") => shared.faults.expire_watches(matcher(body)?),
        ("POST", "partition") => partition(shared, read(body)?),
        ("POST", "compact") => {
            for resource in &shared.api.registry.table().resources {
                resource.objects.compact();
            }
        }
        ("GET", "requests") => {
            let all = shared.counters.all();
            let rows = all.iter().map(|(call, count)| {
                json!({"verb": call.verb, "resource": call.resource, "client": call.client, "count": count})
            });
            return Ok(answer::json(200, &rows.collect()));
        }
        ("DELETE", "requests") => shared.counters.reset(),
        _ => return Err(Refusal::no_such_path()),
    }
    Ok(answer::json(200, &json!({"done": command})))
}

fn partition(shared: &Arc<Shared>, order: PartitionOrder) {
    shared.faults.partition(order.cut, order.peers);
    if let Some(seconds) = order.seconds {
        let shared = shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            shared.faults.heal();
        });
    }
}

fn matcher(body: &[u8]) -> Result<Matcher, Refusal> {
    if body.is_empty() { Ok(Matcher::all()) } else { read(body) }
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| Refusal::bad_request(format!("unreadable order: {e}")))
}
