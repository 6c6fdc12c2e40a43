//! One Service after the other is created: from the request to the prefix in each router, with what the allocator,
//! the agent and the router take of it.
//!
//! The bar is measured at each router's kernel, by rtnetlink notification, which is after the router's own table:
//! a route that forwards. The router's own table, asked through its control socket, is measured with further
//! Services, because asking costs the router time.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::mpsc::{self, Receiver, Sender},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    figure::Sample,
    kernel_watch::{self, Kind},
    router_table::Table,
    site::Site,
    statistics::percentile,
};

pub(super) const ENTRY: Entry = Entry {
    name: "service_to_router",
    also: &[],
    about: "a Service created: time to its prefix in each router, and where that time goes",
    prepare,
};

/// Measured at the kernels.
const SERVICES: usize = 100;
/// Measured at the routers' own tables.
const SERVICES_BY_TABLE: usize = 30;
const LIMIT_MILLISECONDS: f64 = 100.0;
const TIMEOUT: Duration = Duration::from_secs(20);

struct ServiceToRouter {
    site: Site,
    created: usize,
}

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    context.program("lbnodeagent", "agent")?;
    context.program("allocator", "allocator")?;
    let mut site = Site::build()?;
    let control = site.topology.control.clone();
    site.cluster.start_allocator(&site.run, &control)?;
    site.start_agent()?;
    let node = site.node().clone();
    site.cluster.wait_agent_ready(&node)?;
    for router in &site.routers {
        lab::until(format!("a session of {}", router.name()), TIMEOUT, || {
            let sessions = router.sessions()?;
            lab::require!(sessions.iter().any(lab::router::Session::is_established), "sessions {sessions:?}");
            Ok::<_, lab::Error>(())
        })?;
    }
    Ok(Box::new(ServiceToRouter { site, created: 0 }))
}

/// Where something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// In the Service's status, by a watch of the API server.
    Status,
    /// On the node's interface.
    Address,
    /// In the kernel of the FRR router.
    Frr,
    /// In the kernel of the BIRD router.
    Bird,
}

impl Place {
    const ALL: [Place; 4] = [Place::Status, Place::Address, Place::Frr, Place::Bird];
}

type Seen = (Place, IpAddr, Instant);

/// The way of one Service.
struct Way {
    start: Instant,
    /// When the API server had answered the request.
    answered: Instant,
    seen: BTreeMap<Place, Instant>,
}

impl Benchmark for ServiceToRouter {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let (first, count) = (self.created, SERVICES + SERVICES_BY_TABLE);
        self.created += count;
        let events = self.watch_kernels()?;
        let site = &self.site;
        let (ways, tables) = site.with_client(|client| async move {
            let api = Api::<Service>::default_namespaced(client.clone());
            let (sender, events) = events;
            watch_statuses(client, sender).await?;
            let mut ways = Vec::new();
            for number in first..first + SERVICES {
                ways.push(follow(&api, &events, number).await?);
            }
            let mut tables = [Vec::new(), Vec::new()];
            let mut asked = [
                Table::frr(&site.run.folder().join("router1"))?,
                Table::bird(&site.run.folder().join("router2"))?,
            ];
            for number in first + SERVICES..first + count {
                // One router at a time, so that asking one does not slow the other.
                let (table, took) = if number % 2 == 0 {
                    (&mut asked[0], &mut tables[0])
                } else {
                    (&mut asked[1], &mut tables[1])
                };
                took.push(ask_table(&api, &events, table, number).await?);
            }
            api.delete_collection(
                &DeleteParams::default(),
                &ListParams::default().labels("bench=service-to-router"),
            )
            .await?;
            Ok((ways, tables))
        })?;
        self.wait_for_withdrawal()?;
        Ok(samples(&ways, &tables))
    }
}

impl ServiceToRouter {
    fn watch_kernels(&self) -> Result<(Sender<Seen>, Receiver<Seen>)> {
        let (sender, events) = mpsc::channel();
        let topology = &self.site.topology;
        let places = [
            (&topology.nodes[0].namespace, Kind::Addresses, Place::Address),
            (&topology.routers[0].namespace, Kind::HostRoutes, Place::Frr),
            (&topology.routers[1].namespace, Kind::HostRoutes, Place::Bird),
        ];
        for (namespace, kind, place) in places {
            let sender = sender.clone();
            kernel_watch::watch(namespace, kind, move |address, at| {
                sender.send((place, address, at)).is_ok()
            })?;
        }
        Ok((sender, events))
    }

    fn wait_for_withdrawal(&self) -> Result<()> {
        for router in &self.site.routers {
            lab::until(format!("{} to forget the deleted Services", router.name()), TIMEOUT, || match self
                .site
                .prefixes(router)?
            {
                0 => Ok(()),
                count => bail!("{count} prefixes"),
            })?;
        }
        Ok(())
    }
}

/// Reports the address of every Service of the benchmark as soon as its status has one.
async fn watch_statuses(client: Client, sender: Sender<Seen>) -> Result<()> {
    let api = Api::<Service>::default_namespaced(client);
    let version = api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let parameters = WatchParams::default().labels("bench=service-to-router");
    let mut events = api.watch(&parameters, &version).await?.boxed();
    tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            let (WatchEvent::Added(service) | WatchEvent::Modified(service)) = event else { continue };
            let at = Instant::now();
            let Some(address) = address_of(&service) else { continue };
            if sender.send((Place::Status, address, at)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn address_of(service: &Service) -> Option<IpAddr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.first()?.ip.as_ref()?.parse().ok()
}

/// Creates a Service and notes when it was seen where.
async fn follow(api: &Api<Service>, events: &Receiver<Seen>, number: usize) -> Result<Way> {
    // Late news of the Service before are not this one's.
    while events.try_recv().is_ok() {}
    let start = Instant::now();
    let name = create(api, number).await?;
    let answered = Instant::now();
    let mut seen = BTreeMap::new();
    let mut unclaimed = Vec::<Seen>::new();
    let mut address = None;
    while seen.len() < Place::ALL.len() {
        let (place, at_address, at) = next(events, start).await.with_context(|| {
            let missing =
                Place::ALL.into_iter().filter(|place| !seen.contains_key(place)).collect::<Vec<_>>();
            format!("Service {name} with address {address:?} was not seen at {missing:?}")
        })?;
        if place == Place::Status {
            address = Some(at_address);
        }
        unclaimed.push((place, at_address, at));
        for (place, _, at) in unclaimed.iter().filter(|(_, of, _)| Some(*of) == address) {
            seen.entry(*place).or_insert(*at);
        }
    }
    Ok(Way { start, answered, seen })
}

/// Creates a Service and asks a router's own table for it.
async fn ask_table(
    api: &Api<Service>,
    events: &Receiver<Seen>,
    table: &mut Table,
    number: usize,
) -> Result<f64> {
    while events.try_recv().is_ok() {}
    let start = Instant::now();
    create(api, number).await?;
    let address = loop {
        if let (Place::Status, address, _) = next(events, start).await? {
            break address;
        }
    };
    let at = table.wait(address, TIMEOUT)?;
    Ok(milliseconds(start, at))
}

/// The next event. The watch of the API server runs on this very thread, so that waiting must let it.
async fn next(events: &Receiver<Seen>, start: Instant) -> Result<Seen> {
    loop {
        if let Ok(event) = events.try_recv() {
            return Ok(event);
        }
        if start.elapsed() > TIMEOUT {
            bail!("waited {TIMEOUT:.0?}");
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

async fn create(api: &Api<Service>, number: usize) -> Result<String> {
    let name = format!("service-{number:04}");
    let service = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "labels": { "bench": "service-to-router" } },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ipFamilyPolicy": "SingleStack",
            "ipFamilies": ["IPv4"],
            "selector": { "app": name },
            "ports": [{ "port": 80 }],
        },
    }))?;
    Ok(api.create(&PostParams::default(), &service).await?.name_any())
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    // The watch of the API server may be served after the kernels: then a step took nothing.
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}

fn samples(ways: &[Way], tables: &[Vec<f64>; 2]) -> Vec<Sample> {
    let since_start = |place: Place| {
        ways.iter()
            .filter_map(|way| Some(milliseconds(way.start, *way.seen.get(&place)?)))
            .collect::<Vec<_>>()
    };
    let step = |from: Place, to: Place| {
        let step = |way: &Way| Some(milliseconds(*way.seen.get(&from)?, *way.seen.get(&to)?));
        ways.iter().filter_map(step).collect::<Vec<_>>()
    };
    let mut samples = Vec::new();
    for (router, place) in [("frr", Place::Frr), ("bird", Place::Bird)] {
        let name = format!("service_to_router_{router}");
        let took = since_start(place);
        samples.push(Sample::bar(format!("{name}_p50"), percentile(&took, 50), "ms", LIMIT_MILLISECONDS));
        samples.push(Sample::note(format!("{name}_p99"), percentile(&took, 99), "ms"));
    }
    let answered = ways.iter().map(|way| milliseconds(way.start, way.answered)).collect::<Vec<_>>();
    let parts = [
        ("create_answered", answered),
        ("create_to_status", since_start(Place::Status)),
        ("status_to_address", step(Place::Status, Place::Address)),
        ("address_to_frr", step(Place::Address, Place::Frr)),
        ("address_to_bird", step(Place::Address, Place::Bird)),
        ("create_to_frr_own_table", tables[0].clone()),
        ("create_to_bird_own_table", tables[1].clone()),
    ];
    for (part, took) in parts {
        for percent in [50, 99] {
            let name = format!("service_to_router_{part}_p{percent}");
            samples.push(Sample::note(name, percentile(&took, percent), "ms"));
        }
    }
    samples
}
