//! The server as a whole: settings, start, stop, and what tests hold of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::faults::Faults;
use crate::garbage::Garbage;
use crate::kinds::service::{Pools, PoolsError};
use crate::registry::{Registry, builtin};
use crate::store::{Event, EventKind, Revisions};
use crate::verbs::{Api, Target, WriteOptions};
use crate::{connection, object};

/// Settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Cluster IPs: one CIDR, or one of each family; the first is the default family.
    pub service_cidrs: Vec<IpNet>,
    /// How many events each resource remembers for watches to resume from.
    pub history: usize,
    /// How often a watch that allows bookmarks gets one.
    pub bookmark_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            service_cidrs: vec![
                "10.96.0.0/16".parse().expect("it is a prefix"),
                "fd00:10:96::/112".parse().expect("it is a prefix"),
            ],
            history: 20_000,
            bookmark_every: Duration::from_secs(60),
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The service CIDRs are unusable.
    #[error(transparent)]
    Pools(#[from] PoolsError),
}

/// What every connection shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) api: Arc<Api>,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
}

/// A running server. It stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts a server with the four namespaces of a fresh cluster and the `kubernetes` Service.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let listen = options.listen;
        let fault = |source| StartError::Listen { address: listen, source };
        let pools = Arc::new(Pools::new(options.service_cidrs.clone())?);
        let listener = TcpListener::bind(listen).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let revisions = Revisions::new();
        let registry = Registry::default();
        registry.add(builtin::resources(&revisions, options.history, &pools));
        let faults = Faults::new(revisions.clone());
        let api = Arc::new(Api { registry, revisions, garbage: Garbage::default(), options });
        furnish(&api, address);
        let shared = Arc::new(Shared { api: api.clone(), faults, counters: Counters::default() });
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let collector = stop.clone().run_until_cancelled_owned(api.collect_garbage());
        tasks.spawn(async move {
            collector.await;
        });
        tasks.spawn(connection::accept(listener, shared.clone(), stop.clone()));
        Ok(Self { address, shared, stop, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for it, as YAML.
    pub fn kubeconfig(&self) -> String {
        kubeconfig(&self.url())
    }

    /// Writes the kubeconfig to a file.
    pub fn write_kubeconfig(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.kubeconfig())
    }

    /// Faults to inject.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Counts of the requests so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Every version of every object of a resource that is remembered, oldest first; `None` for its end.
    pub fn versions(&self, plural: &str) -> Vec<(String, Option<Value>)> {
        let table = self.shared.api.registry.table();
        let resource = table.resources.iter().find(|resource| resource.id.plural == plural);
        let events = resource.and_then(|resource| resource.objects.events_from_first());
        let version = |event: &Event| {
            let value = &event.object.value;
            let name = format!("{}/{}", object::namespace(value), object::name(value));
            (name, (event.kind != EventKind::Deleted).then(|| value.clone()))
        };
        events.unwrap_or_default().iter().map(|event| version(event)).collect()
    }

    /// Forgets the history of all resources: resuming watches get 410.
    pub fn compact(&self) {
        for resource in &self.shared.api.registry.table().resources {
            resource.objects.compact();
        }
    }

    /// Stops: connections are closed, the port is free when this returns.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A kubeconfig for a server at `url`.
fn kubeconfig(url: &str) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "in-memory",
        "clusters": [{"name": "in-memory", "cluster": {"server": url}}],
        "users": [{"name": "admin", "user": {}}],
        "contexts": [{"name": "in-memory", "context": {"cluster": "in-memory", "user": "admin"}}],
    });
    serde_norway::to_string(&config).expect("a JSON tree always encodes")
}

/// What a fresh cluster has.
fn furnish(api: &Api, address: SocketAddr) {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        put(
            api,
            "namespaces",
            "",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
    }
    let first = api.options.service_cidrs[0].hosts().next().map(|a| a.to_string());
    let port = json!({"name": "https", "port": 443, "protocol": "TCP", "targetPort": address.port()});
    let meta = json!({"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [port], "clusterIP": first},
    });
    put(api, "services", "default", service);
}

fn put(api: &Api, plural: &str, namespace: &str, object: Value) {
    let resource = api.registry.table().find("", "v1", plural).expect("core kinds are built in");
    let target = Target { resource, namespace: namespace.to_owned(), name: String::new(), status: false };
    let options = WriteOptions { manager: "kube-apiserver".to_owned(), ..WriteOptions::default() };
    if let Err(refusal) = api.create(&target, object.clone(), &options) {
        unreachable!("a fresh server takes {}: {refusal}", object::name(&object));
    }
}
