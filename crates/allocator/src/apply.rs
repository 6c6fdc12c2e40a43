//! Decision → requests. Status and annotations of one decision go out in one merge patch on `/status`, on
//! condition of the `resourceVersion` that was read. A change of `externalTrafficPolicy` is a patch of its own,
//! before that.
//!
//! An answer is either certain or not ([`Written`]); what follows from it is decided at the [`crate::desk`].

mod patch;

use std::{sync::Arc, time::Duration};

use api::ServiceGroup;
use api::names::ALLOCATOR_FIELD_MANAGER;
use http::{
    HeaderMap, HeaderValue, Method, Request,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::BodyExt;
use kube::{Resource, client::Body, core::Status};
use prometheus_client::metrics::{counter::Counter, family::Family};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::{BoxError, ServiceExt};

pub use patch::{StatusPatch, policy_patch, status_patch};

use crate::{
    assign::{Annotation, Write},
    desk::{Order, Written},
    fence::Transport,
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
    /// It was refused, because the allocator may not write it.
    Forbidden(String),
    /// It was refused for another reason, or nobody knows.
    Failed(String),
}

impl GroupWritten {
    /// The word by which dashboards of PureLB know it.
    pub const fn outcome(&self) -> &'static str {
        match self {
            GroupWritten::Done(_) => "success",
            GroupWritten::Conflict => "conflict",
            GroupWritten::Forbidden(_) => "forbidden",
            GroupWritten::Failed(_) => "other",
        }
    }
}

/// How writes reach the API server.
#[derive(Clone)]
pub struct Writer {
    transport: Transport,
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
        transport: Transport,
        settings: &Settings,
        tenure: Tenure,
        errors: Family<ErrorLabels, Counter>,
    ) -> Writer {
        let concurrency = settings.write_concurrency;
        let permits = |count: usize| Arc::new(Semaphore::new(count));
        let (first, repeated) = (permits(concurrency), permits(concurrency.div_ceil(2)));
        let (default_class, timeout) = (settings.is_default_class(), settings.delivery());
        Writer { transport, first, repeated, tenure, default_class, timeout, errors }
    }

    /// Sends what a decision takes, once.
    pub async fn send(&self, order: &mut Order) -> Written {
        if order.write.cluster_policy.is_some() && !order.policy_done {
            let patch = octets(&policy_patch(&order.version));
            match self.patch(order, "", patch).await {
                Ok(object) if is_policy_only(&order.write) => return self.done(&object),
                Ok(object) => {
                    let version = object.metadata.resource_version.unwrap_or_default();
                    order.policy_confirmed(version.into());
                }
                Err(written) => return written,
            }
        }
        let patch = octets(&StatusPatch::new(&order.version, &order.write));
        match self.patch(order, "/status", patch).await {
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
        let request = match request(&path, name, "/status", octets(&patch), self.timeout) {
            Ok(request) => request,
            Err(error) => return GroupWritten::Failed(format!("the request cannot be built: {error}")),
        };
        // The group may be one that cannot be read as a whole; only its version matters.
        match tokio::time::timeout(REQUEST_TIMEOUT, exchange::<Value>(&self.transport, request)).await {
            Ok(Ok(group)) => GroupWritten::Done(
                group["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            ),
            Ok(Err(Failure::Status { code: 409, .. })) => GroupWritten::Conflict,
            Ok(Err(failure @ Failure::Status { code: 403, .. })) => {
                GroupWritten::Forbidden(failure.to_string())
            }
            Ok(Err(failure)) => GroupWritten::Failed(failure.to_string()),
            Err(_) => GroupWritten::Failed(Failure::Timeout.to_string()),
        }
    }

    fn done(&self, object: &ServiceObject) -> Written {
        Written::Done(Service::from_object(object, self.default_class).map(Box::new))
    }

    /// One request on the Service, or on the subresource at the end of its path.
    async fn patch(
        &self,
        order: &mut Order,
        subresource: &str,
        patch: Vec<u8>,
    ) -> Result<ServiceObject, Written> {
        let permits = if order.is_repeated { &self.repeated } else { &self.first };
        let _permit = permits.acquire().await.expect("the semaphore is never closed");
        // The task is ended with the tenure; this is for the moment in which that has not happened yet.
        self.tenure.check().await;
        let key = &order.service.key;
        let path = ServiceObject::url_path(&(), Some(key.namespace()));
        let request = request(&path, key.name(), subresource, patch, self.timeout)
            .map_err(|error| Written::Refused(format!("the request cannot be built: {error}")))?;
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, exchange(&self.transport, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Timeout),
        };
        answer.map_err(|failure| {
            tracing::warn!(service = %key, error = %failure, "write not done");
            self.errors.get_or_create(&ErrorLabels { reason: failure.reason() }).inc();
            order.trouble = failure.trouble();
            verdict(failure)
        })
    }
}

fn octets(patch: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(patch).expect("maps with texts as keys are JSON")
}

/// The PATCH request on an object of the resource at `path`, or on the subresource at the end of its path.
fn request(
    path: &str,
    name: &str,
    subresource: &str,
    patch: Vec<u8>,
    timeout: Duration,
) -> Result<Request<Body>, http::Error> {
    // What the API server has not done by then it does not do.
    let timeout = timeout.as_millis();
    Request::builder()
        .method(Method::PATCH)
        .uri(format!("{path}/{name}{subresource}?fieldManager={ALLOCATOR_FIELD_MANAGER}&timeout={timeout}ms"))
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json"))
        .body(Body::from(patch))
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    #[error("{code} {message}")]
    Status { code: u16, message: String, retry_after: Option<Duration> },
    #[error("{0}")]
    Transport(#[from] BoxError),
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
async fn exchange<T: DeserializeOwned>(transport: &Transport, request: Request<Body>) -> Result<T, Failure> {
    let answer = transport.clone().oneshot(request).await?;
    let (code, retry_after) = (answer.status(), retry_after(answer.headers()));
    let body = answer.into_body().collect().await.map_err(BoxError::from)?.to_bytes();
    if code.is_success() {
        return Ok(serde_json::from_slice(&body)?);
    }
    let text = || String::from_utf8_lossy(&body).trim().to_owned();
    let message = serde_json::from_slice::<Status>(&body).map_or_else(|_| text(), |status| status.message);
    Err(Failure::Status { code: code.as_u16(), message, retry_after })
}

/// How long the API server wants to be left alone. RFC 9110 §10.2.3, in its form of seconds, which is what
/// kube-apiserver sends.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let secs = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
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

/// The group that a write names, for logs.
pub fn group_of(write: &Write) -> Option<&str> {
    write.annotations.value(Annotation::AllocatedFrom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16) -> Failure {
        Failure::Status { code, message: "message".to_owned(), retry_after: Some(Duration::from_secs(3)) }
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
            let value = HeaderValue::from_static(text);
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("86400"), Some(LONGEST_PAUSE));
        assert_eq!(pause("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
