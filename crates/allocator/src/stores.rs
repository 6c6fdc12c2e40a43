//! Watches → changes of small values. A watch that ends, for whatever reason, starts again; a list is handed over
//! only when it is complete.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    ServiceGroup, ServiceGroupStatus,
    names::{ALLOCATOR_LEASE, label},
    node_lease::node_of,
};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ObjectReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::inputs::{
    Live, Service, ServiceKey,
    group::GroupObject,
    group_object::LenientGroup,
    lease::{Members, NodeLease},
    listed::Listed,
    object::ServiceObject,
    words::Words,
};

/// A ServiceGroup as the loop keeps it.
#[derive(Clone, Debug)]
pub struct GroupRecord {
    /// What is judged.
    pub object: GroupObject,
    /// For conditions.
    pub generation: Option<i64>,
    /// What a write of its status is conditional on.
    pub version: String,
    /// What the API server has as its status.
    pub status: ServiceGroupStatus,
}

/// What the watches report.
#[derive(Debug)]
pub enum Change {
    /// Every Service there is, and when this list was begun.
    Services(Vec<Arc<Service>>, Instant),
    /// A Service as it is now, and when it was seen.
    Service(Arc<Service>, Instant),
    /// A Service that is gone or has nothing to do with load balancers any more.
    ServiceGone(ServiceKey),
    /// Every ServiceGroup of the install namespace.
    Groups(Vec<GroupRecord>),
    /// A ServiceGroup of the install namespace as it is now.
    Group(Box<GroupRecord>),
    /// A ServiceGroup of the install namespace that is gone.
    GroupGone(String),
    /// What live nodes say, all of it.
    Live(Live),
    /// A ServiceGroup of another namespace: nobody reads it there.
    Stray(Box<ObjectReference>),
    /// A ServiceGroup of another namespace that is gone: its UID.
    StrayGone(String),
}

/// How many changes may wait for the loop.
const QUEUE: usize = 4096;

/// Starts the watches. They end when the set is dropped.
pub fn watch(client: &Client, namespace: &str, default_class: bool) -> (JoinSet<()>, mpsc::Receiver<Change>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(services(Api::all(client.clone()), default_class, sender.clone()));
    tasks.spawn(groups(Api::all(client.clone()), namespace.to_owned(), sender.clone()));
    tasks.spawn(leases(Api::namespaced(client.clone(), namespace), sender));
    (tasks, receiver)
}

async fn services(api: Api<ServiceObject>, default_class: bool, changes: mpsc::Sender<Change>) {
    let stream = watcher(api, watcher::Config::default()).backoff(Pause::default());
    pin_mut!(stream);
    let (mut listed, mut begun) = (Listed::default(), Instant::now());
    let mut words = Words::default();
    let mut read = |object: &ServiceObject| {
        let mut service = Service::from_object(object, default_class)?;
        words.share(&mut service);
        Some(service)
    };
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(Event::Init) => {
                (listed, begun) = (Listed::default(), Instant::now());
                continue;
            }
            Ok(Event::InitApply(object)) => {
                read(&object).into_iter().for_each(|service| listed.add(service));
                continue;
            }
            Ok(Event::InitDone) => Change::Services(mem::take(&mut listed).settle(), begun),
            Ok(Event::Apply(object)) => match read(&object) {
                Some(service) => Change::Service(Arc::new(service), Instant::now()),
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

async fn groups(api: Api<LenientGroup>, namespace: String, changes: mpsc::Sender<Change>) {
    let stream = watcher(api, watcher::Config::default()).backoff(Pause::default());
    pin_mut!(stream);
    let mut listed = Vec::new();
    let is_stray = |object: &LenientGroup| object.namespace().as_deref() != Some(&namespace);
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
            Ok(Event::Delete(object)) if is_stray(&object) => {
                Change::StrayGone(object.meta().uid.clone().unwrap_or_default())
            }
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

fn record(object: &LenientGroup) -> GroupRecord {
    GroupRecord {
        object: GroupObject::from_object(object),
        generation: object.metadata.generation,
        version: object.resource_version().unwrap_or_default(),
        status: object.status.clone(),
    }
}

fn stray(object: &LenientGroup) -> Change {
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

/// Nodes' Leases. Only what changes what live nodes say is passed on: a renewal wakes nobody. The allocator's own Lease is
/// watched with them: as long as it is seen to be renewed, so would those of nodes be.
async fn leases(api: Api<Lease>, changes: mpsc::Sender<Change>) {
    let config = watcher::Config::default().labels(&format!("{}={}", label::APP, label::APP_VALUE));
    let stream = watcher(api, config).backoff(Pause::default());
    pin_mut!(stream);
    let mut members = Members::default();
    let (mut listed, mut told) = (Vec::new(), None);
    while let Some(event) = stream.next().await {
        let now = Instant::now();
        let is_news = match event {
            Ok(Event::Init) => {
                listed = Vec::new();
                false
            }
            Ok(Event::InitApply(lease)) => {
                listed.extend(NodeLease::from_object(&lease));
                false
            }
            Ok(Event::InitDone) => {
                members.on_list(mem::take(&mut listed), now);
                true
            }
            Ok(Event::Apply(lease) | Event::Delete(lease))
                if lease.metadata.name.as_deref() == Some(ALLOCATOR_LEASE) =>
            {
                members.hear(now)
            }
            Ok(Event::Apply(lease)) => on_lease(&mut members, &lease, now),
            Ok(Event::Delete(lease)) => members.on_gone(node(&lease), now),
            Err(error) => {
                tracing::warn!(%error, "the watch of nodes' Leases starts again");
                false
            }
        };
        if !is_news {
            continue;
        }
        let live = members.live();
        if told.as_ref() != Some(&live) {
            told = Some(live.clone());
            if changes.send(Change::Live(live)).await.is_err() {
                return;
            }
        }
    }
}

fn on_lease(members: &mut Members, lease: &Lease, now: Instant) -> bool {
    match NodeLease::from_object(lease) {
        Some(lease) => members.on_lease(lease, now),
        None => members.on_gone(node(lease), now),
    }
}

fn node(lease: &Lease) -> &str {
    lease.metadata.name.as_deref().and_then(node_of).unwrap_or_default()
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
