//! A cluster in this process, and allocators that work on it.

#![allow(dead_code, clippy::unwrap_used, reason = "each test needs a part of it")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use allocator::{
    metrics::Metrics,
    settings::{Arguments, Settings},
};
use api::ServiceGroup;
use apiserver::{Matcher, Options, Server};
use k8s_openapi::{
    api::core::v1::{Event, Service},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long something that comes may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How allocators introduce themselves to the API server.
pub(crate) const AGENT: &str = "purelb-allocator/test";

pub(crate) struct Cluster {
    pub(crate) server: Server,
    pub(crate) client: Client,
}

/// One allocator in this process; killed when dropped.
pub(crate) struct Allocator {
    pub(crate) task: JoinHandle<()>,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Allocator {
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn exposition(&self) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.metrics.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        text
    }

    /// Whether there is a series whose name begins so.
    pub(crate) fn has_metric(&self, name: &str) -> bool {
        self.exposition().lines().any(|line| line.starts_with(name))
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.exposition();
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        // `RUST_LOG=info cargo test … -- --nocapture` tells what happened.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let server = Server::start(Options::default()).await.unwrap();
        let client = client(&server).await;
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        for (_, crd) in api::crds::all() {
            crds.create(&PostParams::default(), &serde_json::from_value(crd).unwrap()).await.unwrap();
        }
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        let namespace = json!({"metadata": {"name": "purelb-system"}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
        let cluster = Cluster { server, client };
        let groups = cluster.groups();
        within("ServiceGroups are served", async || groups.list(&ListParams::default()).await.ok().map(drop))
            .await;
        cluster
            .group(
                "default",
                json!({"remote": {
            "v4pool": {"pool": "192.0.2.0/24", "subnet": "192.0.2.0/24", "aggregation": "/32"},
            "v6pool": {"pool": "fd00:1::/64", "subnet": "fd00:1::/64", "aggregation": "/128"}}}),
            )
            .await;
        cluster
    }

    pub(crate) fn groups(&self) -> Api<ServiceGroup> {
        Api::namespaced(self.client.clone(), "purelb-system")
    }

    pub(crate) fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn group(&self, name: &str, spec: Value) {
        let group = json!({"apiVersion": "purelb.io/v2", "kind": "ServiceGroup", "metadata": {"name": name}, "spec": spec});
        self.groups().create(&PostParams::default(), &serde_json::from_value(group).unwrap()).await.unwrap();
    }

    pub(crate) async fn service(&self, name: &str, annotations: Value, spec: Value) {
        let mut service = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"type": "LoadBalancer", "selector": {"app": "x"}, "ports": [{"port": 80}]},
        });
        service["spec"].as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
        self.services()
            .create(&PostParams::default(), &serde_json::from_value(service).unwrap())
            .await
            .unwrap();
    }

    pub(crate) async fn plain(&self, name: &str) {
        self.service(name, json!({}), json!({})).await;
    }

    pub(crate) async fn patch(&self, name: &str, patch: Value) {
        self.services().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Name → published addresses, of Services that have any.
    pub(crate) async fn published(&self) -> BTreeMap<String, Vec<String>> {
        let services = self.services().list(&ListParams::default()).await.unwrap();
        services.into_iter().map(|s| (s.name_any(), addresses(&s))).filter(|(_, a)| !a.is_empty()).collect()
    }

    pub(crate) async fn served(&self, name: &str) -> Service {
        let services = self.services();
        within(&format!("{name} has an address"), async || {
            services.get(name).await.ok().filter(|service| !addresses(service).is_empty())
        })
        .await
    }

    pub(crate) async fn all_served(&self, count: usize) -> BTreeMap<String, Vec<String>> {
        within(&format!("{count} Services have addresses"), async || {
            Some(self.published().await).filter(|published| published.len() == count)
        })
        .await
    }

    pub(crate) async fn event(&self, service: &str, reason: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        within(&format!("{reason} on {service}"), async || {
            let events = events.list(&ListParams::default()).await.ok()?;
            let about = |event: &Event| event.involved_object.name.as_deref() == Some(service);
            let event = events.into_iter().find(|e| about(e) && e.reason.as_deref() == Some(reason))?;
            event.message
        })
        .await
    }

    pub(crate) fn writes(&self) -> u64 {
        let of = |resource| self.server.counters().total(&Matcher::verb("write").on(resource));
        of("services") + of("services/status") + of("servicegroups/status")
    }

    /// An allocator with short times, ready and deciding unless another does.
    pub(crate) async fn allocator(&self, name: &str) -> Allocator {
        self.allocator_leasing(name, 1_500).await
    }

    /// The same with a Lease of so many milliseconds: a long one where nobody waits for its end and the machine may be
    /// too busy for a short one.
    pub(crate) async fn allocator_leasing(&self, name: &str, lease_duration_ms: u64) -> Allocator {
        let arguments = Arguments { pod_name: Some(name.to_owned()), ..Arguments::default() };
        let settings = Settings {
            lease_duration_ms,
            renew_deadline_ms: lease_duration_ms / 3 * 2,
            retry_period_ms: 100,
            ..Settings::load(&arguments).unwrap()
        };
        let (stop, metrics) = (CancellationToken::new(), Arc::new(Metrics::default()));
        let mut config = config(&self.server).await;
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(AGENT)));
        let run = allocator::run(config, Arc::new(settings), metrics.clone(), stop.clone());
        Allocator { task: tokio::spawn(async { run.await.unwrap() }), stop, metrics }
    }
}

pub(crate) async fn config(server: &Server) -> kube::Config {
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
    kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap()
}

pub(crate) async fn client(server: &Server) -> Client {
    Client::try_from(config(server).await).unwrap()
}

pub(crate) fn addresses(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|entry| entry.ip.clone()).collect()
}

/// Asks until there is an answer.
pub(crate) async fn within<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn assert_unique(published: &BTreeMap<String, Vec<String>>) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (service, addresses) in published {
        for address in addresses {
            let other = owners.insert(address, service);
            assert_eq!(other, None, "{address} is published for two Services, one is {service}");
        }
    }
}
