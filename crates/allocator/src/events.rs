//! Events on Services and ServiceGroups: what owners read in `kubectl describe`.
//!
//! Events are told after the fact and never hold up a decision: they queue, they make way for writes, and where
//! too many queue the newest are dropped and counted.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::names::{ALLOCATOR_FIELD_MANAGER, event};
use futures::StreamExt;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::{assign::Note, inputs::Service, metrics::Metrics};

/// How many events may wait.
const QUEUE: usize = 20_000;
/// How many are sent at once.
const CONCURRENCY: usize = 4;
/// How long an event makes way for writes.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long the API server may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The same event again within this time is counted, not told anew.
const SERIES: Duration = Duration::from_secs(360);
/// How many events are remembered before the old ones are forgotten.
const REMEMBERED: usize = 4_096;
/// Longest note that the API server takes, in octets.
const NOTE_LIMIT: usize = 1024;

/// Whether an event is good or bad news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

/// One event, to be sent. Equal ones are the same event again.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    about: ObjectReference,
    type_: EventType,
    reason: &'static str,
    note: String,
}

/// What is sent.
enum Message {
    New(Box<Event>),
    /// One of a series: namespace, name and how often by now.
    Again(String, String, i32),
}

/// What has been told, so that a repetition is recognised.
struct Memory {
    instance: String,
    told: HashMap<(String, &'static str, String), (String, i32, Instant)>,
}

impl Memory {
    fn message(&mut self, told: Told) -> Message {
        let namespace = told.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        if self.told.len() > REMEMBERED {
            self.told.retain(|_, (_, _, last)| last.elapsed() < SERIES);
        }
        let subject = told.about.uid.clone().or_else(|| told.about.name.clone()).unwrap_or_default();
        let key = (subject, told.reason, told.note.clone());
        if let Some((name, count, last)) = self.told.get_mut(&key)
            && last.elapsed() < SERIES
        {
            (*count, *last) = (count.saturating_add(1), Instant::now());
            return Message::Again(namespace, name.clone(), *count);
        }
        let now = Timestamp::now();
        let mut name = told.about.name.clone().unwrap_or_default();
        name.truncate(200);
        let name = format!("{name}.{:x}", now.as_nanosecond());
        self.told.insert(key, (name.clone(), 1, Instant::now()));
        Message::New(Box::new(Event {
            metadata: ObjectMeta { namespace: Some(namespace), name: Some(name), ..ObjectMeta::default() },
            event_time: Some(MicroTime(now)),
            action: Some("Allocate".to_owned()),
            reason: Some(told.reason.to_owned()),
            note: Some(told.note),
            regarding: Some(told.about),
            reporting_controller: Some(ALLOCATOR_FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(format!("{:?}", told.type_)),
            ..Event::default()
        }))
    }
}

/// Where events go in.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Told>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// The queue and the task that empties it. `busy` says whether writes are under way.
    pub fn new(
        client: Client,
        instance: &str,
        metrics: Arc<Metrics>,
        busy: watch::Receiver<bool>,
    ) -> (Events, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        // An instance is at most 128 octets.
        let instance = instance.chars().take(63).collect();
        let mut memory = Memory { instance, told: HashMap::new() };
        let queued = metrics.events_queued.clone();
        let task = async move {
            ReceiverStream::new(receiver)
                .map(|told| memory.message(told))
                .for_each_concurrent(CONCURRENCY, async |message| {
                    publish(&client, busy.clone(), message).await;
                    queued.dec();
                })
                .await;
        };
        (Events { queue: sender, metrics }, task)
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
        if self.queue.try_send(Told { about, type_, reason, note: cut(note) }).is_ok() {
            self.metrics.events_queued.inc();
        } else {
            self.metrics.events_dropped.inc();
            tracing::debug!(reason, "event dropped, too many are waiting");
        }
    }
}

async fn publish(client: &Client, mut busy: watch::Receiver<bool>, message: Message) {
    // Whether it is over or not after that: the event has waited long enough.
    let _ = tokio::time::timeout(PATIENCE, busy.wait_for(|busy| !busy)).await;
    match tokio::time::timeout(REQUEST_TIMEOUT, send(client, message)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "event not published"),
        Err(_) => tracing::debug!("event not published: the API server does not answer"),
    }
}

async fn send(client: &Client, message: Message) -> Result<(), kube::Error> {
    match message {
        Message::New(event) => {
            let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
            let events: Api<Event> = Api::namespaced(client.clone(), namespace);
            events.create(&PostParams::default(), &event).await.map(drop)
        }
        Message::Again(namespace, name, count) => {
            let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
            let series = EventSeries { count, last_observed_time: MicroTime(Timestamp::now()) };
            let patch = Patch::Merge(json!({ "series": series }));
            events.patch(&name, &PatchParams::default(), &patch).await.map(drop)
        }
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

    fn told(note: &str) -> Told {
        let about = ObjectReference { uid: Some("u".into()), name: Some("web".into()), ..Default::default() };
        Told { about, type_: EventType::Warning, reason: event::ALLOCATION_FAILED, note: note.into() }
    }

    #[test]
    fn the_same_again_is_counted_and_another_note_is_told_anew() {
        let mut memory = Memory { instance: "pod".into(), told: HashMap::new() };
        let Message::New(first) = memory.message(told("full")) else { panic!("the first is a repetition") };
        assert_eq!((first.note.as_deref(), first.type_.as_deref()), (Some("full"), Some("Warning")));
        let Message::Again(_, name, 2) = memory.message(told("full")) else { panic!("not counted") };
        assert_eq!(Some(name), first.metadata.name);
        let Message::New(other) = memory.message(told("banana")) else { panic!("the new note is lost") };
        assert_eq!(other.note.as_deref(), Some("banana"));
    }

    #[test]
    fn a_note_is_cut_to_what_the_api_server_takes() {
        let note = cut("ä".repeat(2_000));
        assert!(note.len() <= NOTE_LIMIT && note.ends_with('…'));
        assert_eq!(cut("short".into()), "short");
    }
}
