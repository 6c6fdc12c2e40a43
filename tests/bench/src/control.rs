//! The surroundings of the allocator's benchmarks: an API server, the ServiceGroups of the fleet, and the
//! allocator's own binary. No node, no router.

use std::{
    fmt,
    future::Future,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use lab::{Cluster, Host, Run, Topology, control_plane::Choice};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::{fleet, process::Memory};

/// How many requests the benchmark itself makes at once.
const REQUESTS_AT_ONCE: usize = 16;
const API_SERVER_PORT: u16 = 6443;
const METRICS_PORT: u16 = api::names::METRICS_PORT;
/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the allocator is asked for its figures: to tell them takes it longer than to allocate a Service.
const PAUSE_BETWEEN_FIGURES: Duration = Duration::from_millis(20);
/// The same while the end is far away.
const LONGEST_BETWEEN_FIGURES: Duration = Duration::from_millis(250);
const TIMEOUT: Duration = Duration::from_secs(600);

const LEADER: &str = "purelb_allocator_leader";
/// Addresses that are held, a group.
pub(crate) const IN_USE: &str = "purelb_address_pool_addresses_in_use";

/// Everything that runs. Fields are dropped in order: the run last, which ends what is left.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) cluster: Cluster,
    topology: Topology,
    run: Run,
}

/// Requests that the API server has counted.
#[derive(Debug, Deserialize)]
struct Counted {
    verb: String,
    /// Plural name, with `/status` for the subresource.
    resource: String,
    client: String,
    count: u64,
}

/// How many writes the allocator has made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Writes {
    /// On Services and their status.
    pub(crate) services: u64,
    /// Events.
    pub(crate) events: u64,
    /// On anything else, the Lease left out.
    pub(crate) others: u64,
}

impl Counted {
    /// Whether it is a write of the allocator that is not about its Lease.
    fn is_write_of_the_allocator(&self) -> bool {
        self.client.starts_with("purelb-allocator")
            && !matches!(self.verb.as_str(), "get" | "list" | "watch")
            && self.resource != "leases"
    }
}

impl Control {
    /// An API server with the namespaces of the fleet; no group, no allocator yet.
    pub(crate) fn build(choice: Choice) -> Result<Self> {
        let run = Run::start()?;
        // A cluster without any node is none.
        let topology = Topology::build(&run, 1, 0)?;
        let cluster = Cluster::start(&run, &topology, choice)?;
        let control = Self { cluster, topology, run };
        control.with_client(|client| async move {
            let api = Api::<Namespace>::all(client);
            for number in 0..fleet::NAMESPACES {
                let name = fleet::namespace_number(number);
                let namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
                api.create(&PostParams::default(), &namespace).await?;
            }
            Ok(())
        })?;
        Ok(control)
    }

    /// Runs `work` with a client of the API server, on threads in the API server's own namespace.
    pub(crate) fn with_client<T, F>(&self, work: impl FnOnce(Client) -> F + Send) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>>,
    {
        with_client(&self.cluster, &self.topology.control, &mut Builder::new_multi_thread(), work)
    }

    /// Creates ServiceGroups.
    pub(crate) fn create_groups(&self, groups: &[(&str, Value)]) -> Result<()> {
        self.with_client(|client| create_groups(client, groups))
    }

    /// Creates Services, as [`fleet::service`] or another shape has them.
    pub(crate) fn create_services(&self, services: impl Iterator<Item = Value> + Send) -> Result<()> {
        self.with_client(|client| create_services(client, services))
    }

    /// Deletes a Service.
    pub(crate) fn delete_service(&self, namespace: &str, name: &str) -> Result<()> {
        self.with_client(|client| async move {
            let api = Api::<Service>::namespaced(client, namespace);
            api.delete(name, &DeleteParams::default()).await?;
            Ok(())
        })
    }

    /// Starts the allocator; says when.
    pub(crate) fn start_allocator(&mut self) -> Result<Instant> {
        let start = Instant::now();
        self.cluster.spawn_allocator(&self.run, &self.topology.control)?;
        Ok(start)
    }

    /// Ends the allocator in order, so that the next one need not wait for its Lease.
    pub(crate) fn stop_allocator(&mut self) -> Result<()> {
        self.cluster.allocator()?.terminate(Duration::from_secs(30))?;
        Ok(())
    }

    /// The allocator's process.
    pub(crate) fn allocator_pid(&mut self) -> Result<u32> {
        Ok(self.cluster.allocator()?.pid())
    }

    /// Waits until the allocator decides and `condition` holds of its figures; says when that was seen.
    pub(crate) fn wait(
        &mut self,
        what: impl fmt::Display,
        condition: impl Fn(&Figures) -> bool,
    ) -> Result<Instant> {
        let start = Instant::now();
        loop {
            self.cluster.allocator()?.check_running()?;
            let seen = self.figures();
            match &seen {
                Ok(figures) if figures.value(LEADER) > 0.0 && condition(figures) => {
                    return Ok(Instant::now());
                }
                _ if start.elapsed() < TIMEOUT => thread::sleep(PAUSE_BETWEEN_FIGURES),
                Ok(figures) => bail!("waited {TIMEOUT:.0?} for {what}; the allocator says\n{}", figures.0),
                Err(error) => bail!("waited {TIMEOUT:.0?} for {what}: {error:#}"),
            }
        }
    }

    /// Waits until a figure that grows evenly has come to `count`; when that was. The allocator is asked ever more often
    /// as that comes near: making its figures costs it as much as several writes, and nobody asks for them all the time.
    pub(crate) fn wait_for_count(&mut self, figure: &str, count: f64) -> Result<Instant> {
        let start = Instant::now();
        loop {
            self.cluster.allocator()?.check_running()?;
            let value = self.figures()?.value(figure);
            let elapsed = start.elapsed();
            if value >= count {
                return Ok(Instant::now());
            }
            ensure!(elapsed < TIMEOUT, "waited {TIMEOUT:.0?} for {figure} to be {count}: it is {value}");
            let remaining = elapsed.as_secs_f64() * (count - value) / value.max(1.0);
            let pause = Duration::from_secs_f64((remaining / 2.0).min(LONGEST_BETWEEN_FIGURES.as_secs_f64()));
            thread::sleep(pause.max(PAUSE));
        }
    }

    /// Allocates the first `count` Services of the fleet and ends the allocator again, with every status written. What
    /// its process was like at the end, and how many addresses are held.
    pub(crate) fn allocate_fleet(&mut self, count: usize) -> Result<(Memory, f64)> {
        self.create_groups(&fleet_groups())?;
        self.create_services((0..count).map(fleet::service))?;
        self.start_allocator()?;
        self.wait("all Services to be allocated", |figures| {
            figures.value("purelb_allocator_writes_total") >= count as f64 && figures.is_idle()
        })?;
        let memory = Memory::of(self.allocator_pid()?)?;
        // What the allocator says is held is as old as the status that it has written last.
        let held = fleet::addresses(count) as f64;
        lab::until("the groups to show what is held", TIMEOUT, || match self.shown_by_groups()? {
            shown if shown >= held => Ok(()),
            shown => bail!("they show {shown} of {held} addresses"),
        })?;
        self.stop_allocator()?;
        Ok((memory, held))
    }

    /// How many addresses are held, as the groups' status says.
    fn shown_by_groups(&self) -> Result<f64> {
        self.with_client(|client| async move {
            let groups = Api::<api::ServiceGroup>::all(client).list(&ListParams::default()).await?;
            let shown = groups.iter().filter_map(|group| group.status.as_ref());
            Ok(shown.map(|status| (status.allocated_ipv4 + status.allocated_ipv6) as f64).sum())
        })
    }

    /// Waits until the allocator decides and says that it is ready, as often as it may be asked; says when.
    pub(crate) fn wait_ready(&mut self) -> Result<Instant> {
        let start = Instant::now();
        loop {
            self.cluster.allocator()?.check_running()?;
            // In this order: who begins to decide is not ready at first.
            let decides = self.figures().is_ok_and(|figures| figures.value(LEADER) > 0.0);
            if decides && self.get((Ipv4Addr::LOCALHOST, METRICS_PORT).into(), "/readyz").is_ok() {
                return Ok(Instant::now());
            }
            if start.elapsed() > TIMEOUT {
                bail!("waited {TIMEOUT:.0?} for the allocator to be ready");
            }
            thread::sleep(PAUSE);
        }
    }

    /// Waits until the allocator has nothing left to do: it has looked at a Service that was created after all
    /// that happened before, and no write of it is under way. That Service asks for a group that does not exist,
    /// so that it costs no write but the event that says so.
    pub(crate) fn wait_until_quiet(&mut self, barrier: &str) -> Result<()> {
        let object = json!({
            "metadata": {
                "name": barrier, "namespace": "default", "annotations": { "purelb.io/service-group": barrier },
            },
            "spec": { "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{ "port": 80 }] },
        });
        // Only groups that there are have a series of their own.
        let refused =
            "purelb_address_pool_allocation_rejected_total{pool=\"<unknown>\",reason=\"unknown_pool\"}";
        let before = self.figures()?.value(refused);
        self.create_services(std::iter::once(object))?;
        self.wait(format!("the allocator to look at {barrier}"), |figures| {
            figures.value(refused) > before && figures.is_idle()
        })?;
        self.delete_service("default", barrier)
    }

    /// What the allocator counts.
    pub(crate) fn figures(&self) -> Result<Figures> {
        self.get((Ipv4Addr::LOCALHOST, METRICS_PORT).into(), "/metrics").map(Figures)
    }

    /// The allocator's writes that the in-memory API server has counted, those on its Lease left out.
    pub(crate) fn writes(&self) -> Result<Writes> {
        let text = self.get(self.api_server(), "/-/requests")?;
        let all: Vec<Counted> = serde_json::from_str(&text).context("the API server's counters")?;
        let mut writes = Writes::default();
        for call in all.iter().filter(|call| call.is_write_of_the_allocator()) {
            *match call.resource.as_str() {
                "services" | "services/status" => &mut writes.services,
                "events" => &mut writes.events,
                _ => &mut writes.others,
            } += call.count;
        }
        Ok(writes)
    }

    /// Waits until so many events are written: they come after what they tell of.
    pub(crate) fn wait_for_events(&self, count: u64) -> Result<Writes> {
        let writes = lab::until(format!("{count} events"), TIMEOUT, || match self.writes()? {
            writes if writes.events >= count => Ok(writes),
            writes => bail!("{} events", writes.events),
        })?;
        Ok(writes)
    }

    fn api_server(&self) -> SocketAddr {
        (self.topology.control.addresses.v4, API_SERVER_PORT).into()
    }

    fn get(&self, address: SocketAddr, path: &str) -> Result<String> {
        self.topology.control.namespace.enter(|| get(address, path))?
    }
}

/// The text of `/metrics`.
pub(crate) struct Figures(String);

impl Figures {
    /// The value behind a name with its labels; 0 where there is none.
    pub(crate) fn value(&self, name: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
    }

    /// The sum over all labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of_name = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let value =
                rest.strip_prefix('{').and_then(|rest| rest.rsplit_once("} ")).map(|(_, value)| value);
            value.or(rest.strip_prefix(' '))?.trim().parse::<f64>().ok()
        };
        self.0.lines().filter_map(of_name).sum()
    }

    /// Nothing waits for a decision, and no write is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.value("purelb_allocator_queue_length") == 0.0
            && self.value("purelb_allocator_writes_in_flight") == 0.0
    }
}

/// Runs `work` with a client of the API server, on threads in the namespace of its machine.
pub(crate) fn with_client<T, F>(
    cluster: &Cluster,
    control: &Host,
    runtime: &mut Builder,
    work: impl FnOnce(Client) -> F + Send,
) -> Result<T>
where
    T: Send,
    F: Future<Output = Result<T>>,
{
    let kubeconfig = Kubeconfig::read_from(cluster.control_plane.nodes_kubeconfig())?;
    control.namespace.enter(|| {
        runtime.enable_all().build()?.block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            work(Client::try_from(config)?).await
        })
    })?
}

/// Creates Services, some at once.
pub(crate) async fn create_services(client: Client, services: impl Iterator<Item = Value>) -> Result<()> {
    let create = |object: Value| {
        let client = client.clone();
        async move {
            let service: Service = serde_json::from_value(object)?;
            let namespace = service.metadata.namespace.clone().unwrap_or_default();
            let api = Api::<Service>::namespaced(client, &namespace);
            api.create(&PostParams::default(), &service).await?;
            anyhow::Ok(())
        }
    };
    stream::iter(services.map(create)).buffer_unordered(REQUESTS_AT_ONCE).try_collect::<()>().await
}

/// Creates ServiceGroups, all at once.
pub(crate) async fn create_groups(client: Client, groups: &[(&str, Value)]) -> Result<()> {
    let api = Api::<api::ServiceGroup>::namespaced(client, lab::cluster::INSTALL_NAMESPACE);
    let api = &api;
    let create = groups.iter().map(|(name, spec)| async move {
        let group = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?;
        api.create(&PostParams::default(), &group).await?;
        anyhow::Ok(())
    });
    futures::future::try_join_all(create).await.map(drop)
}

/// The groups of the fleet.
pub(crate) fn fleet_groups() -> Vec<(&'static str, Value)> {
    fleet::GROUPS.into_iter().map(|name| (name, fleet::group(name))).collect()
}

/// The smallest HTTP client: what is asked this way is asked while something is measured.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        bail!("{path}: {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_found_by_name_and_labels_and_summed_over_them() {
        let figures = Figures("# HELP a b\na 3\nab{x=\"1\"} 2\nab{x=\"2\"} 0.5\n".to_owned());
        assert_eq!(figures.value("a").to_string(), "3");
        assert_eq!(figures.value("ab{x=\"1\"}").to_string(), "2");
        assert_eq!(figures.value("c").to_string(), "0");
        assert_eq!(figures.sum("ab").to_string(), "2.5");
        assert_eq!(figures.sum("a").to_string(), "3");
    }
}
