//! 5,000 Services get addresses: how fast the allocator is, beside a bare client that only sends the same patches
//! of status and annotations, on condition of the same versions, to the same objects, as many at once.
//!
//! The bare client knows all patches before it begins: it watches nothing, decides nothing and tells nobody, so
//! what is between the two is what the allocator costs. Both run in every run, in turns first. After them the bare
//! client does it once more while another one only receives what a watch of Services brings, and throws it away: what
//! that takes longer no controller can save, since it must know what owners change. With
//! `KUBEBUILDER_ASSETS` set it is measured on the real API server, too.

use std::{
    collections::VecDeque,
    env,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use allocator::{
    apply::status_patch,
    assign::{Decision, Edge},
    engine::Engine,
    inputs::{Groups, Service, group::GroupObject, object::ServiceObject},
};
use anyhow::{Context as _, Result, bail, ensure};
use api::{ServiceGroup, names::ALLOCATOR_FIELD_MANAGER};
use futures::{AsyncBufRead, StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, Request, WatchParams},
};
use lab::control_plane::Choice;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    control::{Control, create_groups, fleet_groups},
    figure::Sample,
    fleet,
};

pub(super) const ENTRY: Entry = Entry {
    name: "allocate_vs_patch",
    also: &["allocator", "allocate_vs_patch_real"],
    about: "time to allocate 5,000 Services, as a multiple of what a bare client needs for the same patches",
    prepare,
};

const SERVICES: usize = 5_000;
/// As many as the allocator has under way unless told otherwise.
const AT_ONCE: usize = 32;
/// At least 0.9 of the rate.
const LIMIT_RATIO: f64 = 1.11;

/// The measurement on one kind of API server.
struct Place {
    name: &'static str,
    control: Control,
    runs: usize,
}

struct AllocateVsPatch(Vec<Place>);

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    context.program("allocator", "allocator")?;
    let mut places = vec![Place::prepare("allocate_vs_patch", Choice::InMemory)?];
    if env::var_os("KUBEBUILDER_ASSETS").is_some_and(|folder| !folder.is_empty()) {
        places.push(Place::prepare("allocate_vs_patch_real", Choice::from_environment(None))?);
    }
    Ok(Box::new(AllocateVsPatch(places)))
}

impl Benchmark for AllocateVsPatch {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let samples = self.0.iter_mut().map(Place::measure).collect::<Result<Vec<_>>>()?;
        Ok(samples.into_iter().flatten().collect())
    }
}

impl Place {
    fn prepare(name: &'static str, choice: Choice) -> Result<Self> {
        let control = Control::build(choice)?;
        control.create_services((0..SERVICES).map(fleet::service))?;
        let place = Self { name, control, runs: 0 };
        // The first run finds what the others find.
        place.clean()?;
        Ok(place)
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        self.runs += 1;
        let (bare, ours) = if self.runs.is_multiple_of(2) {
            let ours = self.allocate()?;
            (self.patch(false)?, ours)
        } else {
            (self.patch(false)?, self.allocate()?)
        };
        let watched = self.patch(true)?;
        let rate = |took: Duration| SERVICES as f64 / took.as_secs_f64();
        let name = self.name;
        let ratio = ours.as_secs_f64() / bare.as_secs_f64();
        Ok(vec![
            Sample::bar(name, ratio, "times", LIMIT_RATIO),
            Sample::note(format!("{name}_rate"), rate(ours), "Services/s"),
            Sample::note(format!("{name}_rate_of_the_bare_client"), rate(bare), "Services/s"),
            Sample::note(format!("{name}_rate_of_the_bare_client_watched"), rate(watched), "Services/s"),
        ])
    }

    /// The bare client: the first request to the last answer. Where it is watched, somebody receives what it changes.
    fn patch(&self, is_watched: bool) -> Result<Duration> {
        let took = self.control.with_client(|client| async move {
            let patches = Arc::new(Mutex::new(patches(&client).await?));
            let mut watching = JoinSet::new();
            if is_watched {
                let changes = watch(&client).await?;
                watching.spawn(async move { futures::io::copy(changes, &mut futures::io::sink()).await });
            }
            let mut workers = JoinSet::new();
            let start = Instant::now();
            for _ in 0..AT_ONCE {
                workers.spawn(send(client.clone(), patches.clone()));
            }
            while let Some(ended) = workers.join_next().await {
                ended??;
            }
            let took = start.elapsed();
            ensure!(watching.try_join_next().is_none(), "the watch has ended early");
            Ok(took)
        })?;
        self.clean()?;
        Ok(took)
    }

    /// The allocator, which knows all Services and waits for their groups: the first request for a group to the
    /// last confirmed write.
    fn allocate(&mut self) -> Result<Duration> {
        self.control.start_allocator()?;
        self.control.wait("all Services to wait for their groups", |figures| {
            figures.sum("purelb_allocator_waiting_services") >= SERVICES as f64
                && figures.value("purelb_allocator_events_queued") == 0.0
                && figures.is_idle()
        })?;
        let start = self.control.with_client(|client| async move {
            // As the bare client has, it has a connection by then.
            groups(&client).list(&ListParams::default()).await?;
            let start = Instant::now();
            create_groups(client, &fleet_groups()).await?;
            Ok(start)
        })?;
        let end = self.control.wait_for_count("purelb_allocator_writes_total", SERVICES as f64)?;
        self.control.stop_allocator()?;
        self.clean()?;
        Ok(end.duration_since(start))
    }

    /// No group, and every Service as its owner has left it.
    fn clean(&self) -> Result<()> {
        self.control.with_client(|client| async move {
            groups(&client).delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
            let reset = (0..SERVICES).map(|number| reset(client.clone(), number));
            stream::iter(reset).buffer_unordered(AT_ONCE).try_collect::<()>().await
        })
    }
}

fn groups(client: &Client) -> Api<ServiceGroup> {
    Api::namespaced(client.clone(), lab::cluster::INSTALL_NAMESPACE)
}

async fn reset(client: Client, number: usize) -> Result<()> {
    let api = Api::<ServiceObject>::namespaced(client, &fleet::namespace(number));
    let object = fleet::service(number);
    let mut annotations = json!({
        "purelb.io/allocated-by": null, "purelb.io/allocated-from": null, "purelb.io/pool-type": null,
        "purelb.io/service-group": null,
    });
    if let Some(group) = object.pointer("/metadata/annotations/purelb.io~1service-group") {
        annotations["purelb.io/service-group"] = group.clone();
    }
    let patch = json!({ "metadata": { "annotations": annotations }, "status": { "loadBalancer": null } });
    api.patch_status(&fleet::name(number), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// The patch of every Service, as the allocator would send it: namespace, name, body.
async fn patches(client: &Client) -> Result<VecDeque<(String, String, Value)>> {
    let groups = fleet_groups().into_iter().map(|(name, spec)| {
        Ok(GroupObject { name: name.into(), created: 0, spec: Ok(serde_json::from_value(spec)?) })
    });
    let mut engine = Engine::default();
    engine.set_groups(Groups::new(&groups.collect::<Result<Vec<_>>>()?));
    let objects = Api::<ServiceObject>::all(client.clone()).list(&ListParams::default()).await?;
    let services = objects.iter().filter_map(|object| Service::from_object(object, true));
    services
        .map(|service| {
            let Decision::Write(write) = engine.decide(&service, Edge::default()).decision else {
                bail!("{} would not be served", service.key);
            };
            let patch = status_patch(&service.resource_version, &write);
            Ok((service.key.namespace().to_owned(), service.key.name().to_owned(), patch))
        })
        .collect()
}

/// What a watch of all Services brings from now on, as it comes.
async fn watch(client: &Client) -> Result<impl AsyncBufRead + use<>> {
    let now = Api::<ServiceObject>::all(client.clone()).list(&ListParams::default().limit(1)).await?;
    let version = now.metadata.resource_version.unwrap_or_default();
    let request =
        Request::new(ServiceObject::url_path(&(), None)).watch(&WatchParams::default(), &version)?;
    Ok(client.request_stream(request).await?)
}

/// One of those that send: takes the next patch until there is none.
async fn send(client: Client, patches: Arc<Mutex<VecDeque<(String, String, Value)>>>) -> Result<()> {
    let parameters =
        PatchParams { field_manager: Some(ALLOCATOR_FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    loop {
        let next = patches.lock().expect("nobody panics with the queue").pop_front();
        let Some((namespace, name, patch)) = next else { return Ok(()) };
        let api = Api::<ServiceObject>::namespaced(client.clone(), &namespace);
        api.patch_status(&name, &parameters, &Patch::Merge(&patch)).await.context(name)?;
    }
}
