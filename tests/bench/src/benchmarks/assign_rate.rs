//! Decide and commit, on one core, while 100,000 Services hold addresses.
//!
//! One operation is what the allocator's loop does between seeing a new Service and having its addresses in the
//! books for good: [`Engine::decide`], which chooses and reserves, and [`Engine::sync`] with the Service as the API
//! server would answer after the write. Every operation is preceded by the end of another Service
//! ([`Engine::forget`]), whose time counts, too, so that the number held stays the same and the ranges have
//! thousands of holes at all times; and a thousand more wait for what they cannot have. Not measured: decoding objects and the requests.

use std::time::{Duration, Instant};

use allocator::{
    assign::{Decision, Edge},
    engine::Engine,
    inputs::{Groups, Service, ServiceKey, group::GroupObject, object::ServiceObject},
};
use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{Benchmark, Entry};
use crate::{context::Context, figure::Sample, fleet};

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
/// Operations of one run, in batches between which the Services to come are built.
const OPERATIONS: usize = 200_000;
const BATCH: usize = 20_000;
/// A million a second.
const LIMIT_MICROSECONDS: f64 = 1.0;

struct AssignRate {
    engine: Engine,
    /// Who holds something.
    held: Vec<ServiceKey>,
    /// How many Services there have been.
    created: usize,
    order: Order,
}

fn prepare(_: &Context) -> Result<Box<dyn Benchmark>> {
    let mut engine = Engine::default();
    engine.set_groups(Groups::new(&groups()?));
    let mut this = AssignRate { engine, held: Vec::new(), created: 0, order: Order(1) };
    for mut service in this.next_services(HELD + ENDED_BEFORE)? {
        allocate(&mut this.engine, &mut service)?;
        this.held.push(service.key);
    }
    for _ in 0..ENDED_BEFORE {
        let key = this.order.take(&mut this.held);
        this.engine.forget(&key);
    }
    for mut service in this.next_services(WAITING)? {
        service.facts.requests.group = Some("absent".into());
        this.engine.decide(&service, Edge::default());
    }
    ensure!(this.engine.waiting_len() == WAITING, "{} Services wait", this.engine.waiting_len());
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
        let (mut on_core, mut on_wall) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..OPERATIONS / BATCH {
            let mut coming = self.next_services(BATCH)?;
            let going: Vec<ServiceKey> = (0..BATCH).map(|_| self.order.take(&mut self.held)).collect();
            let (core, wall) = (time_on_core()?, Instant::now());
            for (service, gone) in coming.iter_mut().zip(&going) {
                self.engine.forget(gone);
                allocate(&mut self.engine, service)?;
            }
            on_core += time_on_core()? - core;
            on_wall += wall.elapsed();
            self.held.extend(coming.into_iter().map(|service| service.key));
        }
        let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / OPERATIONS as f64;
        Ok(vec![
            Sample::bar("assign_rate", micros(on_core), "us/operation", LIMIT_MICROSECONDS),
            Sample::note("assign_rate_per_second", 1e6 / micros(on_core), "1/s"),
            Sample::note("assign_rate_on_the_wall_clock", 1e6 / micros(on_wall), "1/s"),
        ])
    }

    fn next_services(&mut self, count: usize) -> Result<Vec<Service>> {
        let numbers = self.created..self.created + count;
        self.created = numbers.end;
        numbers.map(service).collect()
    }
}

/// The groups of the fleet, as the allocator reads them.
fn groups() -> Result<Vec<GroupObject>> {
    let group = |name: &str| {
        let spec = serde_json::from_value(fleet::group(name)).context("the spec of a group")?;
        Ok(GroupObject { name: name.into(), created: 0, spec: Ok(spec) })
    };
    fleet::GROUPS.into_iter().map(group).collect()
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
