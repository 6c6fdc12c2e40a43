//! Events on Services and ServiceGroups: what owners read in `kubectl describe`.
//!
//! Events are told after the fact and never hold up a decision: they queue, they make way for writes, and where
//! too many queue the newest are dropped and counted.

use std::{net::IpAddr, time::Duration};

use api::names::event;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::{apply::FIELD_MANAGER, assign::Note, inputs::Service};

/// How many events may wait.
const QUEUE: usize = 20_000;
/// How many are sent at once.
const CONCURRENCY: usize = 4;
/// How long an event makes way for writes.
const PATIENCE: Duration = Duration::from_millis(50);
/// Longest note that the API server takes, in octets.
const NOTE_LIMIT: usize = 1024;

/// One event, to be sent.
pub struct Told {
    about: ObjectReference,
    event: Event,
}

/// Where events go in.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Told>);

impl Events {
    /// The queue and the task that empties it. `busy` says whether writes are under way.
    pub fn new(
        client: Client,
        instance: &str,
        busy: watch::Receiver<bool>,
    ) -> (Events, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let task = async move {
            ReceiverStream::new(receiver)
                .for_each_concurrent(CONCURRENCY, |told| publish(&recorder, busy.clone(), told))
                .await;
        };
        (Events(sender), task)
    }

    /// Queues an event on a Service.
    pub fn service(&self, service: &Service, type_: EventType, reason: &'static str, note: String) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(service.key.namespace().to_owned()),
            name: Some(service.key.name().to_owned()),
            uid: Some(service.uid.to_string()),
            resource_version: Some(service.resource_version.to_string()),
            ..ObjectReference::default()
        };
        self.queue(about, type_, reason, note);
    }

    /// Queues a note of a decision.
    pub fn note(&self, service: &Service, note: &Note) {
        let (type_, reason, text) = in_words(note);
        self.service(service, type_, reason, text);
    }

    /// Queues an event on anything.
    pub fn queue(&self, about: ObjectReference, type_: EventType, reason: &'static str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(cut(note)),
            action: "Allocate".to_owned(),
            secondary: None,
        };
        if self.0.try_send(Told { about, event }).is_err() {
            tracing::debug!(reason, "event dropped, too many are waiting");
        }
    }
}

async fn publish(recorder: &Recorder, mut busy: watch::Receiver<bool>, told: Told) {
    // Whether it is over or not after that: the event has waited long enough.
    let _ = tokio::time::timeout(PATIENCE, busy.wait_for(|busy| !busy)).await;
    if let Err(error) = recorder.publish(&told.event, &told.about).await {
        let name = told.about.name.unwrap_or_default();
        tracing::debug!(%error, name, reason = told.event.reason, "event not published");
    }
}

fn cut(mut note: String) -> String {
    if note.len() > NOTE_LIMIT {
        let mut end = NOTE_LIMIT - '…'.len_utf8();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push('…');
    }
    note
}

fn in_words(note: &Note) -> (EventType, &'static str, String) {
    match note {
        Note::Assigned(addresses, group) => (
            EventType::Normal,
            event::ADDRESS_ASSIGNED,
            format!("{} from ServiceGroup {group}", list(addresses)),
        ),
        Note::Released(addresses) => (EventType::Normal, event::ADDRESS_RELEASED, list(addresses)),
        Note::Warning(text) => (EventType::Warning, event::CONFIGURATION_WARNING, text.clone()),
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_to_what_the_api_server_takes() {
        let note = cut("ä".repeat(2_000));
        assert!(note.len() <= NOTE_LIMIT && note.ends_with('…'));
        assert_eq!(cut("short".into()), "short");
    }
}
