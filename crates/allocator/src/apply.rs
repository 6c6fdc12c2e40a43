//! Decision → requests. Status and annotations of one decision go out in one merge patch on `/status`, on
//! condition of the `resourceVersion` that was read. A change of `externalTrafficPolicy` is a patch of its own,
//! before that.
//!
//! An answer is either certain or not ([`Written`]); what follows from it is decided at the [`crate::desk`].

use std::{sync::Arc, time::Duration};

use api::ServiceGroup;
use api::names::ALLOCATOR_FIELD_MANAGER;
use kube::{
    Client, Resource,
    api::{Patch, PatchParams},
    client::Body,
    core::Status,
};
use prometheus_client::metrics::{counter::Counter, family::Family};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::{
    assign::{Annotation, Write},
    desk::{Order, Written},
    inputs::{Service, object::ServiceObject},
    leader::Tenure,
    metrics::ErrorLabels,
    settings::Settings,
};

/// How long the API server may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// More than that the API server cannot make us wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What became of a write on the status of a ServiceGroup.
#[derive(Debug)]
pub enum GroupWritten {
    /// It is applied, and has made this version.
    Done(String),
    /// The group has changed in between; nothing was written.
    Conflict,
    /// It was refused, or nobody knows.
    Failed(String),
}

/// How writes reach the API server.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    /// For the first attempt of each write.
    first: Arc<Semaphore>,
    /// For repetitions: those that hang must not hold up the others.
    repeated: Arc<Semaphore>,
    tenure: Tenure,
    default_class: bool,
    /// How long the API server may be busy with a request.
    timeout: Duration,
    errors: Family<ErrorLabels, Counter>,
}

impl Writer {
    /// A writer whose first attempts are limited by [`Settings::write_concurrency`], and that sends nothing once
    /// the tenure is over. `errors` counts requests that did not succeed.
    pub fn new(
        client: Client,
        settings: &Settings,
        tenure: Tenure,
        errors: Family<ErrorLabels, Counter>,
    ) -> Writer {
        let concurrency = settings.write_concurrency;
        let permits = |count: usize| Arc::new(Semaphore::new(count));
        let (first, repeated) = (permits(concurrency), permits(concurrency.div_ceil(2)));
        let (default_class, timeout) = (settings.is_default_class(), settings.delivery());
        Writer { client, first, repeated, tenure, default_class, timeout, errors }
    }

    /// Sends what a decision takes, once.
    pub async fn send(&self, order: &mut Order) -> Written {
        let (service, write) = (order.service.clone(), order.write.clone());
        if write.cluster_policy.is_some() && !order.policy_done {
            match self.patch(&service, &policy_patch(&order.version), None, order).await {
                Ok(object) if is_policy_only(&write) => return self.done(&object),
                Ok(object) => {
                    let version = object.metadata.resource_version.unwrap_or_default();
                    order.policy_confirmed(version.into());
                }
                Err(written) => return written,
            }
        }
        let patch = status_patch(&order.version, &write);
        match self.patch(&service, &patch, Some("status"), order).await {
            Ok(object) => self.done(&object),
            Err(written) => written,
        }
    }

    /// Writes the status of a ServiceGroup, once, on condition of this version of it. Like a write on a Service it is
    /// applied soon or never: names that a successor has written down are not taken away by one that comes late.
    pub async fn group_status(
        &self,
        namespace: &str,
        name: &str,
        version: &str,
        mut patch: Value,
    ) -> GroupWritten {
        patch["metadata"] = json!({"resourceVersion": version});
        self.tenure.check().await;
        let path = ServiceGroup::url_path(&(), Some(namespace));
        let request = match request(path, name, &patch, Some("status"), self.timeout) {
            Ok(request) => request,
            Err(error) => return GroupWritten::Failed(format!("the request cannot be built: {error}")),
        };
        // The group may be one that cannot be read as a whole; only its version matters.
        match tokio::time::timeout(REQUEST_TIMEOUT, exchange::<Value>(&self.client, request)).await {
            Ok(Ok(group)) => GroupWritten::Done(
                group["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            ),
            Ok(Err(Failure::Status { code: 409, .. })) => GroupWritten::Conflict,
            Ok(Err(failure)) => GroupWritten::Failed(failure.to_string()),
            Err(_) => GroupWritten::Failed(Failure::Timeout.to_string()),
        }
    }

    fn done(&self, object: &ServiceObject) -> Written {
        Written::Done(Service::from_object(object, self.default_class).map(Box::new))
    }

    async fn patch(
        &self,
        service: &Service,
        patch: &Value,
        subresource: Option<&str>,
        order: &mut Order,
    ) -> Result<ServiceObject, Written> {
        let permits = if order.is_repeated { &self.repeated } else { &self.first };
        let _permit = permits.acquire().await.expect("the semaphore is never closed");
        // The task is ended with the tenure; this is for the moment in which that has not happened yet.
        self.tenure.check().await;
        let path = ServiceObject::url_path(&(), Some(service.key.namespace()));
        let request = request(path, service.key.name(), patch, subresource, self.timeout)
            .map_err(|error| Written::Refused(format!("the request cannot be built: {error}")))?;
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, exchange(&self.client, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Timeout),
        };
        answer.map_err(|failure| {
            tracing::warn!(service = %service.key, error = %failure, "write not done");
            self.errors.get_or_create(&ErrorLabels { reason: failure.reason() }).inc();
            order.trouble = failure.trouble();
            verdict(failure)
        })
    }
}

/// The PATCH request on an object or its status.
fn request(
    path: String,
    name: &str,
    patch: &Value,
    subresource: Option<&str>,
    timeout: Duration,
) -> Result<http::Request<Vec<u8>>, kube::core::request::Error> {
    let params =
        PatchParams { field_manager: Some(ALLOCATOR_FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let request = kube::core::Request::new(path);
    let patch = Patch::Merge(patch);
    let mut request = match subresource {
        Some(subresource) => request.patch_subresource(subresource, name, &params, &patch)?,
        None => request.patch(name, &params, &patch)?,
    };
    // There is a query already: the field manager. What the API server has not done by then it does not do.
    let uri = format!("{}&timeout={}ms", request.uri(), timeout.as_millis());
    *request.uri_mut() = uri
        .parse()
        .map_err(|error: http::uri::InvalidUri| kube::core::request::Error::BuildRequest(error.into()))?;
    Ok(request)
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    #[error("{code} {message}")]
    Status { code: u16, message: String, retry_after: Option<Duration> },
    #[error(transparent)]
    Transport(#[from] kube::Error),
    #[error("the answer cannot be read: {0}")]
    Content(#[from] serde_json::Error),
}

impl Failure {
    /// What the API server says where it could not do it: an error of its own.
    fn trouble(&self) -> Option<String> {
        matches!(self, Failure::Status { code: 500.., .. }).then(|| self.to_string())
    }

    /// A word for the metric.
    fn reason(&self) -> &'static str {
        match self {
            Failure::Timeout => "timeout",
            Failure::Status { code: 409, .. } => "conflict",
            Failure::Status { code: 404, .. } => "gone",
            Failure::Status { code: 429, .. } => "throttled",
            Failure::Status { code: 500.., .. } => "server",
            Failure::Status { .. } => "refused",
            Failure::Transport(_) | Failure::Content(_) => "connection",
        }
    }
}

/// One request and its answer.
async fn exchange<T: DeserializeOwned>(
    client: &Client,
    request: http::Request<Vec<u8>>,
) -> Result<T, Failure> {
    let answer = client.send(request.map(Body::from)).await?;
    let (code, retry_after) = (answer.status(), retry_after(answer.headers()));
    let body = answer.into_body().collect_bytes().await?;
    if code.is_success() {
        return Ok(serde_json::from_slice(&body)?);
    }
    let text = || String::from_utf8_lossy(&body).trim().to_owned();
    let message = serde_json::from_slice::<Status>(&body).map_or_else(|_| text(), |status| status.message);
    Err(Failure::Status { code: code.as_u16(), message, retry_after })
}

/// How long the API server wants to be left alone. RFC 9110 §10.2.3, in its form of seconds, which is what
/// kube-apiserver sends.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let secs = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(secs).min(LONGEST_PAUSE))
}

/// What a failure says about the write.
fn verdict(failure: Failure) -> Written {
    match failure {
        Failure::Status { code: 409, .. } => Written::Conflict,
        Failure::Status { code: 404, .. } => Written::Gone,
        Failure::Status { code: 408 | 429 | 500.., retry_after, .. } => Written::Unknown(retry_after),
        Failure::Status { message, .. } => Written::Refused(message),
        Failure::Timeout | Failure::Transport(_) | Failure::Content(_) => Written::Unknown(None),
    }
}

fn is_policy_only(write: &Write) -> bool {
    write.ingress.is_none() && write.annotations.is_empty()
}

/// The request before it: the traffic policy.
pub fn policy_patch(version: &str) -> Value {
    json!({"metadata": {"resourceVersion": version}, "spec": {"externalTrafficPolicy": "Cluster"}})
}

/// The one request: annotations and status.
pub fn status_patch(version: &str, write: &Write) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), version.into());
    if !write.annotations.is_empty() {
        let values = write.annotations.iter().map(|(name, value)| (name.to_owned(), value.into()));
        metadata.insert("annotations".to_owned(), Value::Object(values.collect()));
    }
    let mut patch = Map::new();
    patch.insert("metadata".to_owned(), Value::Object(metadata));
    if let Some(addresses) = &write.ingress {
        let entries = addresses.iter().map(|address| json!({"ip": address, "ipMode": "VIP"}));
        let ingress = match addresses[..] {
            [] => Value::Null,
            _ => Value::Array(entries.collect()),
        };
        patch.insert("status".to_owned(), json!({"loadBalancer": {"ingress": ingress}}));
    }
    Value::Object(patch)
}

/// The group that a write names, for logs.
pub fn group_of(write: &Write) -> Option<&str> {
    write.annotations.value(Annotation::AllocatedFrom)
}

#[cfg(test)]
mod tests {
    use api::PoolType;

    use super::*;
    use crate::{assign::Annotations, testing::ips};

    fn answer(code: u16) -> Failure {
        Failure::Status { code, message: "message".to_owned(), retry_after: Some(Duration::from_secs(3)) }
    }

    #[test]
    fn status_and_annotations_are_one_patch_on_condition_of_the_version() {
        let mut annotations =
            Annotations::setting([Annotation::AllocatedBy], &"default".into(), PoolType::Remote);
        annotations.remove([Annotation::ReEvaluate]);
        let write = Write { ingress: Some(ips("192.0.2.1 fd00::1")), annotations, ..Write::default() };
        assert_eq!(
            status_patch("7", &write),
            json!({
                "metadata": {
                    "resourceVersion": "7",
                    "annotations": {"purelb.io/allocated-by": "PureLB", "purelb.io/re-evaluate": null},
                },
                "status": {"loadBalancer": {"ingress": [
                    {"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "fd00::1", "ipMode": "VIP"},
                ]}},
            })
        );
    }

    #[test]
    fn a_release_empties_the_ingress() {
        let write = Write { ingress: Some(ips("")), ..Write::default() };
        assert_eq!(
            status_patch("7", &write),
            json!({"metadata": {"resourceVersion": "7"}, "status": {"loadBalancer": {"ingress": null}}})
        );
    }

    #[test]
    fn only_an_answer_that_is_certain_ends_a_write() {
        assert!(matches!(verdict(answer(409)), Written::Conflict));
        assert!(matches!(verdict(answer(404)), Written::Gone));
        for code in [400, 403, 422] {
            assert!(matches!(verdict(answer(code)), Written::Refused(_)), "{code}");
        }
        for code in [408, 429, 500, 503, 504] {
            let Written::Unknown(Some(pause)) = verdict(answer(code)) else { panic!("{code} is certain") };
            assert_eq!(pause, Duration::from_secs(3));
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_bounded() {
        let pause = |text: &'static str| {
            let value = http::HeaderValue::from_static(text);
            retry_after(&http::HeaderMap::from_iter([(http::header::RETRY_AFTER, value)]))
        };
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("86400"), Some(LONGEST_PAUSE));
        assert_eq!(pause("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
