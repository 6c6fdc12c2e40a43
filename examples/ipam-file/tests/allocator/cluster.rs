//! An API server in memory, an allocator in this process, sidecars as processes.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use allocator::{
    metrics::Metrics,
    settings::{Arguments, Settings},
};
use api::ServiceGroup;
use apiserver::{Options, Server};
use k8s_openapi::{
    api::core::v1::{Event, Namespace, Service},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) struct Cluster {
    pub(crate) server: Server,
    client: Client,
    pub(crate) dir: tempfile::TempDir,
}

/// One allocator in this process; killed when dropped.
pub(crate) struct Allocator {
    task: JoinHandle<()>,
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

    /// Ends at once, as with kill -9.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Sum of the counters whose line begins so.
    pub(crate) fn count(&self, line: &str) -> u64 {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.metrics.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        let found = text.lines().filter(|found| found.starts_with(line));
        found.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }
}

/// The sidecar as a process; killed when dropped.
pub(crate) struct Sidecar(Child);

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Sidecar {
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Asks it to end and waits for that.
    pub(crate) async fn terminate(mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let status = within("the sidecar ends", async || self.0.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
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
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = json!({"metadata": {"name": "purelb-system"}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
        let cluster = Cluster { server, client, dir: tempfile::tempdir().unwrap() };
        let groups = cluster.groups();
        within("ServiceGroups are served", async || groups.list(&ListParams::default()).await.ok().map(drop))
            .await;
        let pool =
            |pool, subnet, aggregation| json!({"pool": pool, "subnet": subnet, "aggregation": aggregation});
        cluster
            .group(
                "default",
                json!({"remote": {
                    "v4pool": pool("192.0.2.0/24", "192.0.2.0/24", "/32"),
                    "v6pool": pool("fd00:1::/64", "fd00:1::/64", "/128"),
                }}),
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

    pub(crate) async fn edit_group(&self, name: &str, patch: Value) {
        self.groups().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.sock"))
    }

    /// An external group whose provider is to serve at [`Cluster::socket`] of the same name.
    pub(crate) async fn external(&self, name: &str) {
        let external = json!({"provider": "file", "socket": self.socket(name), "announce": "remote"});
        self.group(name, json!({"external": external})).await;
    }

    /// The sidecar of a group, with these ranges.
    pub(crate) fn sidecar(&self, name: &str, ranges: &str) -> Sidecar {
        self.sidecar_at(name, name, ranges)
    }

    /// The same for a group of another name than the socket.
    pub(crate) fn sidecar_at(&self, socket: &str, name: &str, ranges: &str) -> Sidecar {
        let child = Command::new(env!("CARGO_BIN_EXE_ipam-file"))
            .arg("--socket")
            .arg(self.socket(socket))
            .arg("--store")
            .arg(self.store(socket))
            .arg("--pool")
            .arg(format!("{name}={ranges}"))
            .stderr(Stdio::inherit())
            .spawn();
        Sidecar(child.unwrap())
    }

    fn store(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.json"))
    }

    /// Waits until the sidecar of a group has written down just this: address and Service, in the order of the
    /// addresses.
    pub(crate) async fn books_are(&self, name: &str, expected: &[(&str, &str)]) {
        self.books_at_are(name, name, expected).await;
    }

    /// The same of the sidecar at this socket.
    pub(crate) async fn books_at_are(&self, socket: &str, name: &str, expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> =
            expected.iter().map(|(ip, service)| ((*ip).to_owned(), format!("default/{service}"))).collect();
        let mut last = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        while last != expected {
            assert!(Instant::now() < deadline, "the books have {last:?}, expected {expected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            last = books(&self.store(socket), name);
        }
    }

    pub(crate) async fn service(&self, name: &str, group: &str, annotations: Value, spec: Value) {
        let mut service = json!({
            "metadata": {"name": name, "annotations": {"purelb.io/service-group": group}},
            "spec": {"type": "LoadBalancer", "selector": {"app": "x"}, "ports": [{"port": 80}]},
        });
        let extend = |object: &mut Value, more: &Value| {
            object.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        };
        extend(&mut service["spec"], &spec);
        extend(&mut service["metadata"]["annotations"], &annotations);
        let service = serde_json::from_value(service).unwrap();
        self.services().create(&PostParams::default(), &service).await.unwrap();
    }

    pub(crate) async fn plain(&self, name: &str, group: &str) {
        self.service(name, group, json!({}), json!({})).await;
    }

    pub(crate) async fn patch(&self, name: &str, patch: Value) {
        self.services().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.services().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn addresses(&self, name: &str) -> Vec<String> {
        addresses(&self.services().get(name).await.unwrap())
    }

    pub(crate) async fn has(&self, name: &str, expected: &[&str]) {
        let mut last = None;
        let deadline = Instant::now() + Duration::from_secs(30);
        while last.as_deref().is_none_or(|last: &[String]| last != expected) {
            assert!(Instant::now() < deadline, "{name} has {last:?}, expected {expected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            last = Some(self.addresses(name).await);
        }
    }

    /// The one address of a Service, as soon as it has one.
    pub(crate) async fn served(&self, name: &str) -> String {
        within(&format!("{name} has an address"), async || self.addresses(name).await.pop()).await
    }

    /// The first event on a Service that says this.
    pub(crate) async fn event(&self, service: &str, reason: &str, part: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        within(&format!("{reason} on {service}: {part}"), async || {
            let events = events.list(&ListParams::default()).await.ok()?;
            let about = |event: &Event| event.involved_object.name.as_deref() == Some(service);
            let mut found = events.into_iter().filter(|e| about(e) && e.reason.as_deref() == Some(reason));
            found.find_map(|event| event.message.filter(|message| message.contains(part)))
        })
        .await
    }

    /// Waits until the status of a group is as it should be.
    pub(crate) async fn status(
        &self,
        group: &str,
        what: &str,
        is_so: impl Fn(&api::ServiceGroupStatus) -> bool,
    ) {
        let groups = self.groups();
        within(&format!("status of {group}: {what}"), async || {
            let status = groups.get(group).await.ok()?.status?;
            is_so(&status).then_some(())
        })
        .await;
    }

    pub(crate) async fn provider_is(&self, group: &str, ready: &str) {
        self.status(group, &format!("ProviderReady is {ready}"), |status| {
            status.conditions.iter().any(|c| c.type_ == "ProviderReady" && c.status == ready)
        })
        .await;
    }

    /// Waits until the group says this of the providers that it has had before.
    pub(crate) async fn former_is(&self, group: &str, reason: &str, part: &str) {
        self.status(group, &format!("FormerProvidersSettled: {reason}, {part}"), |status| {
            let condition = status.conditions.iter().find(|c| c.type_ == "FormerProvidersSettled");
            condition.is_some_and(|c| {
                let expected = if reason == "Settled" { "True" } else { "False" };
                c.reason == reason && c.status == expected && c.message.contains(part)
            })
        })
        .await;
    }

    /// The group names the provider at this socket from now on.
    pub(crate) async fn move_group(&self, group: &str, socket: &str) {
        let external = json!({"provider": "file", "socket": self.socket(socket), "announce": "remote"});
        self.edit_group(group, json!({"spec": {"external": external}})).await;
    }

    pub(crate) async fn patch_group_status(&self, group: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.groups().patch_status(group, &PatchParams::default(), &patch).await.unwrap();
    }

    /// An allocator with short times.
    pub(crate) async fn allocator(&self) -> Allocator {
        let settings = Settings {
            lease_duration_ms: 1_500,
            renew_deadline_ms: 1_000,
            retry_period_ms: 100,
            ..Settings::load(&Arguments::default()).unwrap()
        };
        let (stop, metrics) = (CancellationToken::new(), Arc::new(Metrics::default()));
        let run =
            allocator::run(config(&self.server).await, Arc::new(settings), metrics.clone(), stop.clone());
        Allocator { task: tokio::spawn(async { run.await.unwrap() }), stop, metrics }
    }
}

fn books(store: &Path, pool: &str) -> Vec<(String, String)> {
    let Ok(text) = std::fs::read(store) else { return Vec::new() };
    let content: Value = serde_json::from_slice(&text).unwrap();
    let mut books = Vec::new();
    for (address, holders) in content["pools"][pool].as_object().into_iter().flatten() {
        for holder in holders.as_array().into_iter().flatten() {
            books.push((address.clone(), holder["service"].as_str().unwrap_or_default().to_owned()));
        }
    }
    books
}

async fn config(server: &Server) -> kube::Config {
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
    kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap()
}

async fn client(server: &Server) -> Client {
    Client::try_from(config(server).await).unwrap()
}

fn addresses(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|entry| entry.ip.clone()).collect()
}

/// Asks until there is an answer.
pub(crate) async fn within<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
