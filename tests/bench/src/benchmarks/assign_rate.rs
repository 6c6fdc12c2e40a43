//! Decide and commit, on one core, while 100,000 Services hold addresses.
//!
//! One operation is what the allocator's loop does between seeing a new Service and having its addresses in the
//! books for good: [`Engine::decide`], which chooses and reserves, and [`Engine::sync`] with the Service as the API
//! server would answer after the write. It is measured in batches, after each of which as many Services end, in an
//! order of their own ([`Engine::retire`], a figure of its own): the number held stays the same, and the ranges have
//! thousands of holes at all times. Beside the fleet's groups there are bounded namespaces, a group that balances
//! its pools and one whose addresses wait for who has left them, and a thousand Services wait for what they cannot
//! have. Not measured: decoding objects and the requests.

use std::time::Duration;

use allocator::{
    assign::{Decision, Edge},
    engine::Engine,
    inputs::{Groups, Service, group::GroupObject, object::ServiceObject, words::Words},
};
use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{Benchmark, Entry};
use crate::{context::Context, figure::Sample, fleet, statistics::median};

pub(super) const ENTRY: Entry = Entry {
    name: "assign_rate",
    also: &["allocator"],
    about: "the allocator decides and commits on one core with 100,000 Services held",
    prepare,
};

const HELD: usize = 100_000;
/// Who ask for a group that does not exist.
const WAITING: usize = 1_000;
/// Allocated and ended before, so that the books have holes.
const ENDED_BEFORE: usize = 30_000;
/// Operations of one batch, and batches of one run.
const BATCH: usize = 5_000;
const BATCHES: usize = 24;
/// Namespaces that may use only groups that list them.
const BOUNDED: usize = 10;
/// A million a second.
const LIMIT_MICROSECONDS: f64 = 1.0;

struct AssignRate {
    engine: Engine,
    /// What Services have in common is kept once, as it is while the allocator reads them.
    words: Words,
    /// Who holds something.
    held: Vec<Service>,
    /// How many Services there have been.
    created: usize,
    order: Order,
}

fn prepare(_: &Context) -> Result<Box<dyn Benchmark>> {
    let mut engine = Engine::default();
    engine.set_groups(Groups::new(&groups()?));
    engine.advance_to(1);
    let mut this =
        AssignRate { engine, words: Words::default(), held: Vec::new(), created: 0, order: Order(1) };
    this.begin(HELD + ENDED_BEFORE)?;
    this.end(ENDED_BEFORE)?;
    for mut service in this.next_services(WAITING)? {
        service.facts.requests.group = Some("absent".into());
        this.engine.decide(&service, Edge::default());
    }
    ensure!(this.engine.waiting_len() == WAITING, "{} Services wait", this.engine.waiting_len());
    this.begin(BATCH)?;
    this.end(BATCH)?;
    Ok(Box::new(this))
}

impl Benchmark for AssignRate {
    fn run(&mut self) -> Result<Vec<Sample>> {
        // On a thread of its own: only that one is bound to a core.
        std::thread::scope(|scope| scope.spawn(|| self.measure()).join().expect("the measurement ends"))
    }
}

impl AssignRate {
    fn measure(&mut self) -> Result<Vec<Sample>> {
        bind_to_one_core()?;
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        for _ in 0..BATCHES {
            begun.push(self.begin(BATCH)?);
            ended.push(self.end(BATCH)?);
        }
        let fastest = begun.iter().copied().fold(f64::INFINITY, f64::min);
        Ok(vec![
            Sample::bar("assign_rate", median(&begun), "us/operation", LIMIT_MICROSECONDS),
            Sample::note("assign_rate_per_second", 1e6 / median(&begun), "1/s"),
            Sample::note("assign_rate_fastest_batch", fastest, "us/operation"),
            Sample::note("assign_rate_release", median(&ended), "us/operation"),
        ])
    }

    /// So many Services come. What one took, in microseconds.
    fn begin(&mut self, count: usize) -> Result<f64> {
        let mut coming = self.next_services(count)?;
        let start = time_on_core()?;
        for service in &mut coming {
            allocate(&mut self.engine, service)?;
        }
        let spent = time_on_core()? - start;
        self.held.extend(coming);
        Ok(microseconds(spent, count))
    }

    /// So many Services go. What one took, in microseconds.
    fn end(&mut self, count: usize) -> Result<f64> {
        let going: Vec<Service> = (0..count).map(|_| self.order.take(&mut self.held)).collect();
        let start = time_on_core()?;
        for service in &going {
            self.engine.retire(service);
        }
        self.engine.take_touched();
        Ok(microseconds(time_on_core()? - start, count))
    }

    fn next_services(&mut self, count: usize) -> Result<Vec<Service>> {
        let numbers = self.created..self.created + count;
        self.created = numbers.end;
        let mut services = numbers.map(service).collect::<Result<Vec<_>>>()?;
        services.iter_mut().for_each(|service| self.words.share(service));
        Ok(services)
    }
}

/// The groups of the fleet, as the allocator reads them, with what this benchmark has beside.
fn groups() -> Result<Vec<GroupObject>> {
    let namespaces: Vec<String> = (0..fleet::NAMESPACES).map(fleet::namespace_number).collect();
    let group = |name: &str, mut spec: Value| {
        spec["namespaces"] = json!(namespaces);
        match name {
            "fence" => spec["namespaces"] = json!(namespaces[..BOUNDED]),
            "default" => spec["namespaceDefault"] = true.into(),
            "edge" => spec["stickyFor"] = "10m".into(),
            "voice" => {
                spec["remote"]["balancePools"] = true.into();
                spec["remote"]["v4pools"] = ["10.64.0.0/17", "10.64.128.0/17", "10.65.0.0/16"]
                    .map(|prefix| json!({ "pool": prefix, "subnet": prefix, "aggregation": "/32" }))
                    .into();
            }
            _ => {}
        }
        let spec = serde_json::from_value(spec).context("the spec of a group")?;
        Ok(GroupObject { name: name.into(), created: 0, spec: Ok(spec) })
    };
    let mut fence = fleet::group("fence");
    fence["remote"] =
        json!({ "v4pool": { "pool": "10.96.0.0/24", "subnet": "10.96.0.0/24", "aggregation": "/32" } });
    fence["enforceNamespaces"] = true.into();
    let fleets = fleet::GROUPS.into_iter().map(|name| group(name, fleet::group(name)));
    fleets.chain([group("fence", fence)]).collect()
}

/// A Service of the fleet, as the API server would send it and the allocator reads it.
fn service(number: usize) -> Result<Service> {
    let mut object = fleet::service(number);
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        bail!("the Service has no metadata");
    };
    metadata.insert("uid".to_owned(), format!("6f1c9a52-4c1d-4a7e-9b1e-{number:012x}").into());
    metadata.insert("resourceVersion".to_owned(), number.to_string().into());
    metadata.insert("creationTimestamp".to_owned(), json!("2026-01-01T00:00:00Z"));
    let object: ServiceObject = serde_json::from_value(object)?;
    Service::from_object(&object, true).context("the Service is not the allocator's")
}

/// One operation.
fn allocate(engine: &mut Engine, service: &mut Service) -> Result<()> {
    let outcome = engine.decide(service, Edge::default());
    let Decision::Write(write) = outcome.decision else {
        bail!("{} was not served: {:?}", service.key, outcome.decision);
    };
    service.facts.ingress = write.ingress.context("a new Service was given no address")?;
    engine.sync(service);
    Ok(())
}

fn microseconds(spent: Duration, count: usize) -> f64 {
    spent.as_secs_f64() * 1e6 / count as f64
}

fn bind_to_one_core() -> Result<()> {
    let here = Pid::from_raw(0);
    let allowed = sched_getaffinity(here)?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no core is allowed")?)?;
    Ok(sched_setaffinity(here, &one)?)
}

/// What this thread has used of its core: what others use of it in between does not count.
fn time_on_core() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Who goes next: the same order in every run, and none that the addresses have.
struct Order(u64);

impl Order {
    fn take<T>(&mut self, from: &mut Vec<T>) -> T {
        // Knuth's MMIX generator; the high bits are the random ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (self.0 >> 33) as usize % from.len();
        from.swap_remove(index)
    }
}
