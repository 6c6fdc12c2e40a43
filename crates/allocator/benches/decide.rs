//! Decide and commit with 100,000 Services held: the bar is a million a second on one core.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::time::{Duration, Instant};

use allocator::{
    assign::{Decision, Edge},
    engine::Engine,
    inputs::{Groups, Service, group::GroupObject, object::ServiceObject},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

const HELD: usize = 100_000;
const BATCH: usize = 1_000;

fn service(number: usize) -> Service {
    let object: ServiceObject = serde_json::from_value(json!({
        "metadata": {"namespace": "bench", "name": format!("service-{number}"), "resourceVersion": "1"},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]},
    }))
    .unwrap();
    Service::from_object(&object, true).unwrap()
}

/// Decides and commits: what the API server would confirm becomes what is published.
fn allocate(engine: &mut Engine, service: &mut Service) {
    let Decision::Write(write) = engine.decide(service, Edge::default()).decision else {
        panic!("not served")
    };
    service.facts.ingress = write.ingress.unwrap();
    engine.sync(service);
}

fn decide_and_commit(criterion: &mut Criterion) {
    let group = GroupObject {
        name: "default".into(),
        created: 0,
        spec: Ok(serde_json::from_value(json!({"remote": {"v4pool": {
            "pool": "10.0.0.0/8", "subnet": "10.0.0.0/8", "aggregation": "/32"}}}))
        .unwrap()),
    };
    let mut engine = Engine::default();
    engine.set_groups(Groups::new([&group]));
    let mut services: Vec<Service> = (0..HELD).map(service).collect();
    services.iter_mut().for_each(|service| allocate(&mut engine, service));
    // Every third goes, so that the books have 33,000 holes to find the lowest of.
    for service in services.iter().step_by(3) {
        engine.forget(&service.key);
    }
    let fresh: Vec<Service> = (HELD..HELD + BATCH).map(service).collect();
    let mut measured = criterion.benchmark_group("allocator");
    measured.throughput(Throughput::Elements(BATCH as u64));
    measured.bench_function("decide_and_commit", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                let mut batch = fresh.clone();
                let start = Instant::now();
                batch.iter_mut().for_each(|service| allocate(&mut engine, service));
                spent += start.elapsed();
                fresh.iter().for_each(|service| drop(engine.forget(&service.key)));
            }
            spent
        });
    });
}

criterion_group!(benches, decide_and_commit);
criterion_main!(benches);
