//! 5,000 Services wait for an address of a pool that is exhausted, and one address of it is freed: what the
//! allocator writes, and to whom. One address serves one Service, the oldest; whoever wakes all of them writes and
//! decides 5,000 times.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, ResourceExt, api::ListParams};
use lab::control_plane::Choice;
use serde_json::{Value, json};

use super::{Benchmark, Entry};
use crate::{context::Context, control::Control, figure::Sample};

pub(super) const ENTRY: Entry = Entry {
    name: "exhausted_wakeup",
    also: &["allocator"],
    about: "one address of an exhausted pool is freed with 5,000 Services waiting: the writes on Services",
    prepare,
};

const GROUP: &str = "small";
/// How many addresses the pool has.
const ADDRESSES: usize = 64;
const WAITING: usize = 5_000;
const NAMESPACE: &str = "team-00";

struct Wakeup {
    control: Control,
    runs: usize,
}

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    context.program("allocator", "allocator")?;
    let mut control = Control::build(Choice::InMemory)?;
    let pool = json!({ "pool": "192.0.2.0/26", "subnet": "192.0.2.0/24", "aggregation": "/32" });
    control.create_groups(&[(GROUP, json!({ "remote": { "v4pool": pool } }))])?;
    control.start_allocator()?;
    control.create_services((0..ADDRESSES).map(|number| service("holder", number)))?;
    control.wait("the pool to be exhausted", |figures| {
        figures.value("purelb_allocator_writes_total") >= ADDRESSES as f64 && figures.is_idle()
    })?;
    control.create_services((0..WAITING).map(|number| service("waiting", number)))?;
    control.wait("the others to wait", |figures| {
        figures.sum("purelb_allocator_waiting_services") >= WAITING as f64
    })?;
    Ok(Box::new(Wakeup { control, runs: 0 }))
}

fn service(name: &str, number: usize) -> Value {
    json!({
        "metadata": {
            "name": format!("{name}-{number:04}"),
            "namespace": NAMESPACE,
            "annotations": { "purelb.io/service-group": GROUP },
        },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{ "port": 80 }],
        },
    })
}

impl Benchmark for Wakeup {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let oldest = self.oldest_waiting()?;
        let before = self.control.writes()?;
        let decided = self.control.figures()?.value("purelb_allocator_decisions_total");
        self.control.delete_service(NAMESPACE, &format!("holder-{:04}", self.runs))?;
        self.runs += 1;
        self.control.wait_until_quiet(&format!("barrier-{}", self.runs))?;
        let writes = self.control.writes()?;
        let decisions = self.control.figures()?.value("purelb_allocator_decisions_total") - decided;
        ensure!(self.has_address(&oldest)?, "{oldest}, the oldest that waits, was not given the address");
        Ok(vec![
            Sample::bar("exhausted_wakeup", (writes.services - before.services) as f64, "writes", 1.0),
            // One is about the barrier.
            Sample::note("exhausted_wakeup_decisions", decisions - 1.0, "decisions"),
        ])
    }
}

impl Wakeup {
    fn services(&self) -> Result<Vec<Service>> {
        self.control.with_client(|client| async move {
            let api = Api::<Service>::namespaced(client, NAMESPACE);
            Ok(api.list(&ListParams::default()).await?.items)
        })
    }

    /// The name of the Service whose turn it is: by the time of creation, then by name.
    fn oldest_waiting(&self) -> Result<String> {
        let waiting = self.services()?.into_iter().filter(|service| !is_served(service));
        let oldest = waiting.min_by_key(|service| (service.creation_timestamp(), service.name_any()));
        Ok(oldest.context("nobody waits")?.name_any())
    }

    fn has_address(&self, name: &str) -> Result<bool> {
        Ok(self.services()?.iter().any(|service| service.name_any() == name && is_served(service)))
    }
}

fn is_served(service: &Service) -> bool {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.as_ref()).is_some_and(|ingress| !ingress.is_empty())
}
