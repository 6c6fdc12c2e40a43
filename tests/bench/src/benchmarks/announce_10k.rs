//! 10,000 remote Services, allocated before: from the start of the agent's process until both routers hold all
//! prefixes in their own tables, and what the agent weighs then.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use api::names::annotation;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use lab::router::Family;
use serde_json::{Value, json};

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    figure::Sample,
    process::{CpuTime, Memory, megabytes},
    site::{GROUP, Site},
};

pub(super) const ENTRY: Entry = Entry {
    name: "announce_10k",
    also: &[],
    about: "10,000 IPv4 Services held: start of the agent to all prefixes in both routers' tables; its memory",
    prepare: |context| prepare(context, "announce_10k", &[Family::Ipv4]),
};

pub(super) const DUAL_STACK: Entry = Entry {
    name: "announce_10k_dual",
    also: &[],
    about: "the same with 10,000 dual-stack Services, 20,000 prefixes",
    prepare: |context| prepare(context, "announce_10k_dual", &[Family::Ipv4, Family::Ipv6]),
};

const SERVICES: u16 = 10_000;
const LIMIT_SECS: f64 = 10.0;
const LIMIT_MEGABYTES: f64 = 60.0;
const TIMEOUT: Duration = Duration::from_secs(90);
/// Asking FRR costs tens of milliseconds of processor time that the agent needs, too.
const PAUSE: Duration = Duration::from_millis(50);
const REQUESTS_AT_ONCE: usize = 16;

struct Announce {
    name: &'static str,
    families: &'static [Family],
    site: Site,
}

fn prepare(context: &Context, name: &'static str, families: &'static [Family]) -> Result<Box<dyn Benchmark>> {
    context.program("lbnodeagent", "agent")?;
    let site = Site::build()?;
    site.with_client(|client| create_services(client, families))?;
    Ok(Box::new(Announce { name, families, site }))
}

impl Benchmark for Announce {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let expected = usize::from(SERVICES) * self.families.len();
        let start = self.site.start_agent()?;
        let finished = self.wait_for_routers(expected)?;
        let node = self.site.node().name.clone();
        let pid = self.site.cluster.agent(&node)?.pid();
        let (memory, cpu) = (Memory::of(pid)?, CpuTime::of(pid)?);
        let held = self.site.held_addresses()?;
        if held != expected {
            bail!("the node holds {held} of {expected} addresses although it announced all of them");
        }
        self.site.stop_agent()?;

        let since_start = |at: Instant| at.duration_since(start).as_secs_f64();
        let last = finished.values().copied().max().map_or(f64::NAN, since_start);
        let mut samples = vec![self.limited(self.name.to_owned(), last, "s", LIMIT_SECS)];
        let routers =
            finished.iter().map(|(router, at)| Sample::note(self.name_of(router), since_start(*at), "s"));
        samples.extend(routers);
        samples.push(self.limited(self.name_of("rss"), megabytes(memory.resident), "MB", LIMIT_MEGABYTES));
        samples.push(self.limited(self.name_of("rss_peak"), megabytes(memory.peak), "MB", LIMIT_MEGABYTES));
        samples.push(Sample::note(self.name_of("cpu_user"), cpu.user.as_secs_f64(), "s"));
        samples.push(Sample::note(self.name_of("cpu_system"), cpu.system.as_secs_f64(), "s"));
        Ok(samples)
    }
}

impl Announce {
    fn name_of(&self, part: &str) -> String {
        format!("{}_{part}", self.name)
    }

    /// The bars are for one address a Service; with two the figures stand beside them.
    fn limited(&self, name: String, value: f64, unit: &'static str, limit: f64) -> Sample {
        match self.families {
            [_] => Sample::bar(name, value, unit, limit),
            _ => Sample::note(name, value, unit),
        }
    }

    /// When each router, by the name of its software, had everything.
    fn wait_for_routers(&mut self, expected: usize) -> Result<BTreeMap<&'static str, Instant>> {
        let deadline = Instant::now() + TIMEOUT;
        let mut finished = BTreeMap::new();
        loop {
            let mut seen = Vec::new();
            for (router, name) in self.site.routers.iter().zip(["frr", "bird"]) {
                if finished.contains_key(name) {
                    continue;
                }
                let count = self.site.prefixes(router)?;
                seen.push(format!("{name} {count}"));
                if count == expected {
                    finished.insert(name, Instant::now());
                }
            }
            if finished.len() == self.site.routers.len() {
                return Ok(finished);
            }
            self.site.check_agent()?;
            if Instant::now() > deadline {
                bail!("{} of {expected} prefixes after {TIMEOUT:.0?}", seen.join(", "));
            }
            thread::sleep(PAUSE);
        }
    }
}

async fn create_services(client: Client, families: &'static [Family]) -> Result<()> {
    let api = Api::<Service>::default_namespaced(client);
    let create = |number: u16| {
        let api = api.clone();
        async move {
            let name = format!("service-{number:05}");
            let service = serde_json::from_value(service(&name, families))?;
            api.create(&PostParams::default(), &service).await?;
            let held = Patch::Merge(held(number, families));
            api.patch_status(&name, &PatchParams::default(), &held).await?;
            anyhow::Ok(())
        }
    };
    // From 1: the first address of a pool is nobody's favourite.
    stream::iter(1..=SERVICES).map(create).buffer_unordered(REQUESTS_AT_ONCE).try_collect().await
}

/// What a user would create. Without node ports: there are fewer of them than Services.
fn service(name: &str, families: &[Family]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "externalTrafficPolicy": "Cluster",
            "ipFamilyPolicy": if families.len() == 2 { "RequireDualStack" } else { "SingleStack" },
            "ipFamilies": families.iter().map(|family| match family {
                Family::Ipv4 => "IPv4",
                Family::Ipv6 => "IPv6",
            }).collect::<Vec<_>>(),
            "selector": { "app": name },
            "ports": [
                { "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" },
                { "name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP" },
            ],
        },
    })
}

/// What the allocator would have written.
fn held(number: u16, families: &[Family]) -> Value {
    let address = |family: &Family| json!({ "ip": Site::address(*family, number), "ipMode": "VIP" });
    json!({
        "metadata": { "annotations": {
            annotation::ALLOCATED_BY: api::names::PURELB,
            annotation::ALLOCATED_FROM: GROUP,
            annotation::POOL_TYPE: "remote",
            annotation::SERVICE_GROUP: GROUP,
        }},
        "status": { "loadBalancer": { "ingress": families.iter().map(address).collect::<Vec<_>>() } },
    })
}
