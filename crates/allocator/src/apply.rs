//! Decision → requests. Status and annotations of one decision go out in one merge patch on `/status`, on
//! condition of the `resourceVersion` that was read. A change of `externalTrafficPolicy` is a patch of its own,
//! before that.
//!
//! A write whose fate is unknown (timeout, broken connection, server error) is sent again, unchanged, until the
//! API server answers for certain: the condition makes a second application impossible, and as long as the fate
//! is unknown the addresses stay reserved.

use std::{sync::Arc, time::Duration};

use api::names::{ALLOCATOR_FIELD_MANAGER, annotation};
use kube::{
    Api, Client, Error,
    api::{Patch, PatchParams},
};
use prometheus_client::metrics::{counter::Counter, family::Family};
use rand::Rng;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::{
    assign::{Text, Write},
    inputs::{Service, object::ServiceObject},
    leader::Tenure,
    metrics::ErrorLabels,
};

/// How long the API server may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What became of a write, for certain.
#[derive(Debug)]
pub enum Written {
    /// The Service as it is now.
    Done(Box<ServiceObject>),
    /// The Service has changed in between; nothing was written.
    Conflict,
    /// The Service is gone.
    Gone,
    /// The API server refuses the write, with this message; nothing was written.
    Refused(String),
}

/// How writes reach the API server.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    permits: Arc<Semaphore>,
    tenure: Tenure,
    errors: Family<ErrorLabels, Counter>,
}

impl Writer {
    /// At most `concurrency` requests are under way at once, and none once the tenure is over.
    /// `errors` counts those that did not succeed.
    pub fn new(
        client: Client,
        concurrency: usize,
        tenure: Tenure,
        errors: Family<ErrorLabels, Counter>,
    ) -> Writer {
        Writer { client, permits: Arc::new(Semaphore::new(concurrency)), tenure, errors }
    }

    /// Writes a decision.
    pub async fn write(&self, service: &Service, write: &Write) -> Written {
        let api: Api<ServiceObject> = Api::namespaced(self.client.clone(), service.key.namespace());
        let mut version = service.resource_version.to_string();
        if write.cluster_policy.is_some() {
            match self.patch(&api, service, &policy_patch(&version), false).await {
                Written::Done(object) if is_policy_only(write) => return Written::Done(object),
                Written::Done(object) => version = object.metadata.resource_version.unwrap_or(version),
                other => return other,
            }
        }
        self.patch(&api, service, &status_patch(&version, write), true).await
    }

    async fn patch(
        &self,
        api: &Api<ServiceObject>,
        service: &Service,
        patch: &Value,
        status: bool,
    ) -> Written {
        let mut pause = FIRST_RETRY;
        let mut is_first = true;
        loop {
            let answer = self.attempt(api, service.key.name(), patch, status).await;
            let error = match answer {
                Ok(object) => return Written::Done(Box::new(object)),
                Err(error) => error,
            };
            self.errors.get_or_create(&ErrorLabels { reason: error.reason() }).inc();
            match verdict(&error) {
                // An attempt before this one may have been applied: only the Service's version can tell.
                Some(Written::Refused(_)) if !is_first => {}
                Some(written) => return written,
                None => {}
            }
            tracing::warn!(service = %service.key, %error, "write not answered, sending it again");
            is_first = false;
            tokio::time::sleep(with_jitter(pause)).await;
            pause = (pause * 2).min(LAST_RETRY);
        }
    }

    async fn attempt(
        &self,
        api: &Api<ServiceObject>,
        name: &str,
        patch: &Value,
        status: bool,
    ) -> Result<ServiceObject, Failure> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        // The task is ended with the tenure; this is for the moment in which that has not happened yet.
        self.tenure.check().await;
        let params =
            PatchParams { field_manager: Some(ALLOCATOR_FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(patch);
        let request = async {
            if status {
                api.patch_status(name, &params, &patch).await
            } else {
                api.patch(name, &params, &patch).await
            }
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(Failure::Answer),
            Err(_) => Err(Failure::Timeout),
        }
    }
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Answer(Error),
}

impl Failure {
    /// A word for the metric.
    fn reason(&self) -> &'static str {
        match self {
            Failure::Timeout => "timeout",
            Failure::Answer(Error::Api(status)) => match status.code {
                409 => "conflict",
                404 => "gone",
                429 => "throttled",
                500.. => "server",
                _ => "refused",
            },
            Failure::Answer(_) => "connection",
        }
    }
}

/// What a failure says about the write; `None` when it may have happened or not, or may work later.
fn verdict(failure: &Failure) -> Option<Written> {
    let Failure::Answer(Error::Api(status)) = failure else { return None };
    match status.code {
        409 => Some(Written::Conflict),
        404 => Some(Written::Gone),
        408 | 429 | 500.. => None,
        _ => Some(Written::Refused(status.message.clone())),
    }
}

/// Between half and all of it.
fn with_jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

fn is_policy_only(write: &Write) -> bool {
    write.ingress.is_none() && write.annotations.is_empty()
}

fn policy_patch(version: &str) -> Value {
    json!({"metadata": {"resourceVersion": version}, "spec": {"externalTrafficPolicy": "Cluster"}})
}

/// The one request: annotations and status.
pub fn status_patch(version: &str, write: &Write) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), version.into());
    if !write.annotations.is_empty() {
        let values = write.annotations.iter();
        let values =
            values.map(|(name, value)| ((*name).to_owned(), value.as_ref().map(Text::as_str).into()));
        metadata.insert("annotations".to_owned(), Value::Object(values.collect()));
    }
    let mut patch = Map::new();
    patch.insert("metadata".to_owned(), Value::Object(metadata));
    if let Some(addresses) = &write.ingress {
        let entries = addresses.iter().map(|address| json!({"ip": address, "ipMode": "VIP"}));
        let ingress = match addresses.as_slice() {
            [] => Value::Null,
            _ => Value::Array(entries.collect()),
        };
        patch.insert("status".to_owned(), json!({"loadBalancer": {"ingress": ingress}}));
    }
    Value::Object(patch)
}

/// The group that a write names, for logs.
pub fn group_of(write: &Write) -> Option<&str> {
    let named = write.annotations.iter().find(|(name, _)| *name == annotation::ALLOCATED_FROM);
    named.and_then(|(_, group)| group.as_ref().map(Text::as_str))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answer(code: u16) -> Failure {
        Failure::Answer(Error::Api(Box::new(Status::failure("message", "reason").with_code(code))))
    }

    #[test]
    fn status_and_annotations_are_one_patch_on_condition_of_the_version() {
        let write = Write {
            ingress: Some(vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
            annotations: vec![
                (annotation::ALLOCATED_BY, Some(Text::Word("PureLB"))),
                (annotation::RE_EVALUATE, None),
            ],
            ..Write::default()
        };
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
        let write = Write { ingress: Some(Vec::new()), ..Write::default() };
        assert_eq!(
            status_patch("7", &write),
            json!({"metadata": {"resourceVersion": "7"}, "status": {"loadBalancer": {"ingress": null}}})
        );
    }

    #[test]
    fn only_an_answer_that_is_certain_ends_a_write() {
        assert!(matches!(verdict(&answer(409)), Some(Written::Conflict)));
        assert!(matches!(verdict(&answer(404)), Some(Written::Gone)));
        for code in [400, 403, 422] {
            assert!(matches!(verdict(&answer(code)), Some(Written::Refused(_))), "{code}");
        }
        for code in [408, 429, 500, 503, 504] {
            assert!(verdict(&answer(code)).is_none(), "{code}");
        }
        assert!(verdict(&Failure::Timeout).is_none());
    }
}
