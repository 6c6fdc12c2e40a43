//! Watches → changes of small values. A watch that ends, for whatever reason, starts again; a list is handed over
//! only when it is complete.

use std::{
    mem,
    time::{Duration, Instant},
};

use api::{ServiceGroup, ServiceGroupStatus};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::inputs::{Service, ServiceKey, group::GroupObject, object::ServiceObject};

/// A ServiceGroup as the loop keeps it.
#[derive(Clone, Debug)]
pub struct GroupRecord {
    /// What is judged.
    pub object: GroupObject,
    /// For conditions.
    pub generation: Option<i64>,
    /// What the API server has as its status.
    pub status: ServiceGroupStatus,
}

/// What the watches report.
#[derive(Debug)]
pub enum Change {
    /// Every Service there is, and when this list was begun.
    Services(Vec<Service>, Instant),
    /// A Service as it is now, and when it was seen.
    Service(Box<Service>, Instant),
    /// A Service that is gone or has nothing to do with load balancers any more.
    ServiceGone(ServiceKey),
    /// Every ServiceGroup of the install namespace.
    Groups(Vec<GroupRecord>),
    /// A ServiceGroup of the install namespace as it is now.
    Group(Box<GroupRecord>),
    /// A ServiceGroup of the install namespace that is gone.
    GroupGone(String),
    /// A ServiceGroup of another namespace: nobody reads it there.
    Stray(Box<ObjectReference>),
}

/// How many changes may wait for the loop.
const QUEUE: usize = 4096;

/// Starts the watches. They end when the set is dropped.
pub fn watch(client: &Client, namespace: &str, default_class: bool) -> (JoinSet<()>, mpsc::Receiver<Change>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(services(Api::all(client.clone()), default_class, sender.clone()));
    tasks.spawn(groups(Api::all(client.clone()), namespace.to_owned(), sender));
    (tasks, receiver)
}

async fn services(api: Api<ServiceObject>, default_class: bool, changes: mpsc::Sender<Change>) {
    let stream = watcher(api, watcher::Config::default()).backoff(Pause::default());
    pin_mut!(stream);
    let (mut listed, mut begun) = (Vec::new(), Instant::now());
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(Event::Init) => {
                (listed, begun) = (Vec::new(), Instant::now());
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.extend(Service::from_object(&object, default_class));
                continue;
            }
            Ok(Event::InitDone) => Change::Services(mem::take(&mut listed), begun),
            Ok(Event::Apply(object)) => match Service::from_object(&object, default_class) {
                Some(service) => Change::Service(Box::new(service), Instant::now()),
                None => Change::ServiceGone(key(&object)),
            },
            Ok(Event::Delete(object)) => Change::ServiceGone(key(&object)),
            Err(error) => {
                tracing::warn!(%error, "the watch of Services starts again");
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn key(object: &ServiceObject) -> ServiceKey {
    ServiceKey::new(&object.namespace().unwrap_or_default(), &object.name_any())
}

async fn groups(api: Api<DeserializeGuard<ServiceGroup>>, namespace: String, changes: mpsc::Sender<Change>) {
    let stream = watcher(api, watcher::Config::default()).backoff(Pause::default());
    pin_mut!(stream);
    let mut listed = Vec::new();
    let is_stray =
        |object: &DeserializeGuard<ServiceGroup>| object.namespace().as_deref() != Some(&namespace);
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(Event::Init) => {
                listed = Vec::new();
                continue;
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) if is_stray(&object) => stray(&object),
            Ok(Event::InitApply(object)) => {
                listed.push(record(&object));
                continue;
            }
            Ok(Event::InitDone) => Change::Groups(mem::take(&mut listed)),
            Ok(Event::Apply(object)) => Change::Group(Box::new(record(&object))),
            Ok(Event::Delete(object)) if is_stray(&object) => continue,
            Ok(Event::Delete(object)) => Change::GroupGone(object.name_any()),
            Err(error) => {
                tracing::warn!(%error, "the watch of ServiceGroups starts again");
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn record(object: &DeserializeGuard<ServiceGroup>) -> GroupRecord {
    let status = object.0.as_ref().ok().and_then(|group| group.status.clone());
    GroupRecord {
        object: GroupObject::from_object(object),
        generation: object.meta().generation,
        status: status.unwrap_or_default(),
    }
}

fn stray(object: &DeserializeGuard<ServiceGroup>) -> Change {
    let metadata = object.meta();
    Change::Stray(Box::new(ObjectReference {
        api_version: Some(ServiceGroup::api_version(&()).into_owned()),
        kind: Some(ServiceGroup::kind(&()).into_owned()),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    }))
}

/// Between two attempts to watch: 100 ms, doubled up to 5 s, with jitter, so that a server that comes back is
/// not met by everybody at once and is met soon.
#[derive(Debug, Default)]
pub struct Pause(u32);

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(100).saturating_mul(1 << self.0.min(6)).min(Duration::from_secs(5));
        self.0 = self.0.saturating_add(1);
        Some(pause.mul_f64(rand::random_range(0.5..1.0)))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = 0;
    }
}
