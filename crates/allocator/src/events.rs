//! Events on Services and ServiceGroups: what owners read in `kubectl describe`.
//!
//! Events are told after the fact and never hold up a decision: they queue, they make way for writes, and where
//! too many queue the newest are dropped and counted. To make one costs the API server as much as a write: where
//! thousands of Services are served at once, addresses come first, and what there is to tell of them right behind.
//!
//! An event is named after what it says of whom. So the replica that takes over does not tell anew what its
//! predecessor has told: the API server has an event of that name already.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    mem,
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
/// How long an event makes way for writes: so many of them at once, and as many again a second, are told even while
/// writes never end.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the API server may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The same event again within this time is counted, not told anew.
const SERIES: Duration = Duration::from_secs(360);
/// So many events, and as many before them, are remembered.
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
    /// New to this process, or told so long ago that the API server may have forgotten it: how often by now.
    New(Box<Event>, i32),
    /// One of a series: namespace, name and how often by now.
    Again(String, String, i32),
}

/// An event: what it is about, its reason and its note.
type Subject = (String, &'static str, String);

/// How often an event was told, and when it was last.
#[derive(Clone, Copy)]
struct Count {
    times: i32,
    last: Instant,
}

/// What has been told, so that a repetition is recognised: the latest, and those before them. Nothing is searched,
/// and there are never more than twice [`REMEMBERED`].
struct Memory {
    instance: String,
    latest: HashMap<Subject, Count>,
    before: HashMap<Subject, Count>,
}

impl Memory {
    fn new(instance: String) -> Memory {
        Memory { instance, latest: HashMap::new(), before: HashMap::new() }
    }

    fn message(&mut self, told: Told) -> Message {
        let namespace = told.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let about = told.about.uid.clone().or_else(|| told.about.name.clone()).unwrap_or_default();
        let subject = (about, told.reason, told.note.clone());
        let name = event_name(told.about.name.as_deref().unwrap_or_default(), &subject);
        let now = Instant::now();
        let known = self.latest.remove(&subject).or_else(|| self.before.remove(&subject));
        let times = known.map_or(1, |known| known.times.saturating_add(1));
        if self.latest.len() >= REMEMBERED {
            self.before = mem::take(&mut self.latest);
        }
        self.latest.insert(subject, Count { times, last: now });
        if known.is_some_and(|known| now.duration_since(known.last) < SERIES) {
            return Message::Again(namespace, name, times);
        }
        let event = Event {
            metadata: ObjectMeta { namespace: Some(namespace), name: Some(name), ..ObjectMeta::default() },
            event_time: Some(MicroTime(Timestamp::now())),
            action: Some("Allocate".to_owned()),
            reason: Some(told.reason.to_owned()),
            note: Some(told.note),
            regarding: Some(told.about),
            reporting_controller: Some(ALLOCATOR_FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(format!("{:?}", told.type_)),
            ..Event::default()
        };
        Message::New(Box::new(event), times)
    }
}

/// The same in every process of one version; another version tells anew at worst.
fn event_name(about: &str, subject: &Subject) -> String {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    let about: String = about.chars().take(200).collect();
    format!("{about}.{:016x}", hasher.finish())
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
        let mut memory = Memory::new(instance);
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
        Message::New(event, times) => {
            let ObjectMeta { namespace, name, .. } = &event.metadata;
            let (namespace, name) = (namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default());
            let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
            match events.create(&PostParams::default(), &event).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    // Told by our predecessor: a warning still holds, anything else has happened once more.
                    let is_known = times == 1 && event.type_.as_deref() == Some("Warning");
                    if is_known { Ok(()) } else { count(client, &namespace, &name, times.max(2)).await }
                }
                answer => answer.map(drop),
            }
        }
        Message::Again(namespace, name, times) => count(client, &namespace, &name, times).await,
    }
}

/// Makes a series of an event, or goes on with it.
async fn count(client: &Client, namespace: &str, name: &str, times: i32) -> Result<(), kube::Error> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let series = EventSeries { count: times, last_observed_time: MicroTime(Timestamp::now()) };
    let patch = Patch::Merge(json!({ "series": series }));
    events.patch(name, &PatchParams::default(), &patch).await.map(drop)
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
        Note::Released(addresses, why) => {
            (EventType::Normal, event::ADDRESS_RELEASED, format!("{}: {why}", list(addresses)))
        }
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
        let mut memory = Memory::new("pod".into());
        let Message::New(first, 1) = memory.message(told("full")) else {
            panic!("the first is a repetition")
        };
        assert_eq!((first.note.as_deref(), first.type_.as_deref()), (Some("full"), Some("Warning")));
        let Message::Again(_, name, 2) = memory.message(told("full")) else { panic!("not counted") };
        assert_eq!(Some(name), first.metadata.name);
        let Message::New(other, 1) = memory.message(told("banana")) else { panic!("the new note is lost") };
        assert_eq!(other.note.as_deref(), Some("banana"));
    }

    #[test]
    fn two_replicas_give_the_same_event_the_same_name_and_others_others() {
        let name = |instance: &str, told: Told| {
            let Message::New(event, _) = Memory::new(instance.into()).message(told) else {
                panic!("the first is a repetition")
            };
            event.metadata.name.unwrap()
        };
        assert_eq!(name("a", told("full")), name("b", told("full")));
        assert_ne!(name("a", told("full")), name("a", told("banana")));
        let mut again = told("full");
        again.about.uid = Some("created again".into());
        assert_ne!(name("a", told("full")), name("a", again));
    }

    #[test]
    fn memory_is_bounded_however_much_is_told_at_once() {
        let mut memory = Memory::new("pod".into());
        for number in 0..5 * REMEMBERED {
            memory.message(told(&number.to_string()));
            assert!(memory.latest.len() + memory.before.len() <= 2 * REMEMBERED);
        }
        let latest = told(&(5 * REMEMBERED - 1).to_string());
        assert!(matches!(memory.message(latest), Message::Again(_, _, 2)));
    }

    #[test]
    fn a_note_is_cut_to_what_the_api_server_takes() {
        let note = cut("ä".repeat(2_000));
        assert!(note.len() <= NOTE_LIMIT && note.ends_with('…'));
        assert_eq!(cut("short".into()), "short");
    }
}
