//! A node and a router for one test: two network namespaces with a veth pair between them, an in-memory API
//! server and the agent's binary in the first, BIRD in the second. Everything ends with the test.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    future::Future,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use api::{BGPNodeStatus, BGPPeer, LBNodeAgent, ServiceGroup, names::annotation};
use apiserver::{Options, Server};
use k8s_openapi::{
    api::{
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const NAMESPACE: &str = "purelb-system";
/// Who the test is in the API server's counters.
pub(crate) const TEST: &str = "test";

/// Runs a test in a thread with a network namespace of its own.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(90), test()).await.unwrap() });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a command prints; empty where it fails.
pub(crate) fn output(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// BIRD in a namespace of its own, at the other end of a veth pair.
pub(crate) struct Router {
    folder: TempDir,
    _bird: Process,
    _holder: Process,
}

impl Router {
    fn start() -> Router {
        let folder = TempDir::new().unwrap();
        let holder = Process(Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap());
        let pid = holder.0.id();
        // The child is born in this thread's namespace and leaves it.
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs == ours) {
            std::thread::yield_now();
        }
        let inside = format!("nsenter --net=/proc/{pid}/ns/net");
        run(&format!(
            "ip link set lo up; ip link add node type veth peer name router netns {pid}
             ip addr add 172.30.0.1/24 dev node; ip addr add fd00:30::1/64 dev node nodad; ip link set node up
             {inside} ip addr add 172.30.0.9/24 dev router; {inside} ip addr add fd00:30::9/64 dev router nodad
             {inside} ip link set router up"
        ));
        let config = folder.path().join("bird.conf");
        std::fs::write(
            &config,
            "router id 172.30.0.9; protocol device {}
             protocol bgp n1 { local 172.30.0.9 as 64513; neighbor 172.30.0.1 as 64512; hold time 9;
               ipv4 { import all; export none; }; ipv6 { import all; export none; }; }",
        )
        .unwrap();
        let socket = folder.path().join("bird.ctl");
        let bird = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .args(["bird", "-f", "-c"])
            .arg(&config)
            .arg("-s")
            .arg(&socket)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Router { folder, _bird: Process(bird), _holder: holder }
    }

    /// What BIRD answers.
    pub(crate) fn ask(&self, question: &str) -> String {
        output(&format!("birdc -s {}/bird.ctl {question}", self.folder.path().display()))
    }

    /// The prefixes in the router's tables, sorted.
    pub(crate) fn prefixes(&self) -> Vec<String> {
        let table = self.ask("show route");
        let mut prefixes: Vec<_> = table
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_hexdigit()) && line.contains("unicast"))
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect();
        prefixes.sort();
        prefixes
    }

    /// What it says of the session.
    pub(crate) fn session(&self) -> String {
        self.ask("show protocols all n1")
    }

    /// How often each kind of message has come in, as BIRD counts them.
    pub(crate) fn withdrawals(&self) -> String {
        let session = self.session();
        session.lines().filter(|line| line.contains("Import withdraws")).collect::<Vec<_>>().join("\n")
    }
}

/// The addresses on the dummy interface, without link-local ones, sorted.
pub(crate) fn addresses() -> Vec<String> {
    let mut addresses: Vec<_> = output("ip -o addr show dev kube-lb0")
        .lines()
        .filter(|line| line.contains("scope global"))
        .filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned))
        .collect();
    addresses.sort();
    addresses
}

/// The node: API server, agent, router.
pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) router: Router,
    kubeconfig: PathBuf,
    _folder: TempDir,
    agent: Option<Process>,
}

impl Lab {
    /// Everything but the agent; a ServiceGroup `default`, a BGPPeer `bird` and the Node `n1` are there.
    pub(crate) async fn start() -> Lab {
        let router = Router::start();
        let server = Server::start(Options::default()).await.unwrap();
        let folder = TempDir::new().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        server.write_kubeconfig(&kubeconfig).unwrap();
        let mut config = kube::Config::new(server.url().parse().unwrap());
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(TEST)));
        let client = Client::try_from(config).unwrap();
        let lab = Lab { server, client, router, kubeconfig, _folder: folder, agent: None };
        lab.furnish().await;
        lab
    }

    async fn furnish(&self) {
        // As they are written: the typed form does not keep every default.
        let kind = ApiResource::erase::<CustomResourceDefinition>(&());
        let crds = Api::<DynamicObject>::all_with(self.client.clone(), &kind);
        for (_, crd) in api::crds::all() {
            crds.create(&PostParams::default(), &serde_json::from_value(crd).unwrap()).await.unwrap();
        }
        let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(self.client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let nodes = Api::<Node>::all(self.client.clone());
        let node = json!({"metadata": {"name": "n1"}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        let addresses = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "172.30.0.1"}, {"type": "InternalIP", "address": "fd00:30::1"},
        ]}});
        nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(addresses)).await.unwrap();
        self.group(json!({"v4pools": [
            {"pool": "192.0.2.0/24", "subnet": "192.0.2.0/24", "aggregation": "/32"},
            {"pool": "198.51.100.0/24", "subnet": "198.51.100.0/24", "aggregation": "default"},
            {"pool": "10.50.0.0/16", "subnet": "10.50.0.0/16", "aggregation": "/32"},
        ], "v6pool": {"pool": "2001:db8:5::/64", "subnet": "2001:db8:5::/64", "aggregation": "/128"}}))
            .await;
        self.peer("bird", json!({"peerAddress": "172.30.0.9", "connectTime": "1s"})).await;
    }

    async fn group(&self, remote: Value) {
        let group =
            json!({"metadata": {"name": "default", "namespace": NAMESPACE}, "spec": {"remote": remote}});
        let groups = Api::<ServiceGroup>::namespaced(self.client.clone(), NAMESPACE);
        groups.create(&PostParams::default(), &serde_json::from_value(group).unwrap()).await.unwrap();
    }

    /// Creates a BGPPeer.
    pub(crate) async fn peer(&self, name: &str, mut spec: Value) {
        spec["myASN"] = json!(64512);
        spec["peerASN"] = json!(64513);
        let peer = json!({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
        let peers = Api::<BGPPeer>::namespaced(self.client.clone(), NAMESPACE);
        peers.create(&PostParams::default(), &serde_json::from_value(peer).unwrap()).await.unwrap();
    }

    /// A BGPPeer as it is now.
    pub(crate) async fn read_peer(&self, name: &str) -> BGPPeer {
        Api::namespaced(self.client.clone(), NAMESPACE).get(name).await.unwrap()
    }

    /// The BGPNodeStatus of the node, if it has been written.
    pub(crate) async fn node_status(&self) -> Option<BGPNodeStatus> {
        Api::namespaced(self.client.clone(), NAMESPACE).get_opt("n1").await.unwrap()
    }

    /// Creates an LBNodeAgent.
    pub(crate) async fn node_agent(&self, spec: Value) {
        let agent = json!({"metadata": {"name": "default", "namespace": NAMESPACE}, "spec": spec});
        let agents = Api::<LBNodeAgent>::namespaced(self.client.clone(), NAMESPACE);
        agents.create(&PostParams::default(), &serde_json::from_value(agent).unwrap()).await.unwrap();
    }

    /// Services.
    pub(crate) fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a Service that holds addresses, as the allocator would leave it.
    pub(crate) async fn service(&self, name: &str, policy: &str, addresses: &[&str]) {
        let service = json!({
            "metadata": {"name": name, "annotations": {
                annotation::ALLOCATED_BY: "PureLB", annotation::ALLOCATED_FROM: "default", annotation::POOL_TYPE: "remote",
            }},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": 80}]},
        });
        let services = self.services();
        services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        services.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    /// Sets the endpoints of a Service: node, ready, serving, terminating.
    pub(crate) async fn endpoints(&self, service: &str, endpoints: &[(&str, bool, bool, bool)]) {
        let list: Vec<_> = endpoints
            .iter()
            .map(|(node, ready, serving, terminating)| {
                json!({"addresses": ["10.1.0.1"], "nodeName": node, "conditions":
                    {"ready": ready, "serving": serving, "terminating": terminating}})
            })
            .collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [], "endpoints": list,
        });
        let slices = Api::<EndpointSlice>::namespaced(self.client.clone(), "default");
        slices.delete(&format!("{service}-1"), &Default::default()).await.map_or_else(drop, drop);
        slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    }

    /// Starts the agent.
    pub(crate) fn start_agent(&mut self, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lbnodeagent"));
        command
            .args(["--node-name", "n1", "--metrics-address", "127.0.0.1:7472"])
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("PURELB_LINGER", "1s")
            .env("PURELB_DRAIN_WAIT", "200ms")
            .env("PURELB_ON_SHUTDOWN", "withdraw");
        self.agent = Some(Process(command.spawn().unwrap()));
    }

    /// Sends the agent a signal and waits for its end, while the API server, which is in this process, goes on.
    pub(crate) async fn end_agent(&mut self, signal: Signal) {
        let mut agent = self.agent.take().expect("the agent was started");
        kill(Pid::from_raw(agent.0.id().try_into().unwrap()), signal).unwrap();
        eventually("the agent ends", || agent.0.try_wait().unwrap().is_some()).await;
    }

    /// Waits until the router has exactly these prefixes.
    pub(crate) async fn wait_prefixes(&self, expected: &[&str]) {
        eventually(&format!("prefixes {expected:?}"), || self.router.prefixes() == expected).await;
    }

    /// Waits until the interface has exactly these addresses.
    pub(crate) async fn wait_addresses(&self, expected: &[&str]) {
        eventually(&format!("addresses {expected:?}"), || addresses() == expected).await;
    }
}
