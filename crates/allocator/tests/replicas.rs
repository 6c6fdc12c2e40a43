//! Two replicas, the real program, and all that may happen to the one that decides: it is killed, stopped for
//! longer than its Lease, cut off, its requests are held back on the way. At no time does any version of any Service
//! give an address to two owners, and whoever has lost the Lease writes nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use apiserver::Server;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};

use support::{Cluster, within};

/// What the way to the API server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// What the replica says is taken and kept until the way is open again, even if the replica is gone by then.
    Held,
    /// Nothing is taken in either direction.
    Cut,
}

/// The way of one replica to the API server.
struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    patches: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    async fn to(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, way) = (listener.local_addr().unwrap(), watch::Sender::new(Way::Open));
        let patches = Arc::new(AtomicUsize::new(0));
        let (ways, counter) = (way.clone(), patches.clone());
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(near, server, ways.subscribe(), counter.clone()));
            }
        });
        Proxy { address, way, patches, task }
    }

    /// How many writes on Services and groups have been taken from the replica.
    fn patches(&self) -> usize {
        self.patches.load(Ordering::SeqCst)
    }
}

async fn carry(near: TcpStream, to: SocketAddr, mut way: watch::Receiver<Way>, patches: Arc<AtomicUsize>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let (mut near_out, mut near_in) = near.into_split();
    let (mut far_out, mut far_in) = far.into_split();
    let mut back_way = way.clone();
    let back = async move {
        let mut octets = vec![0; 16_384];
        loop {
            let length = far_out.read(&mut octets).await.unwrap_or(0);
            if length == 0 || back_way.wait_for(|way| *way != Way::Cut).await.is_err() {
                return;
            }
            if near_in.write_all(&octets[..length]).await.is_err() {
                return;
            }
        }
    };
    let forth = async move {
        let mut octets = vec![0; 16_384];
        loop {
            if way.wait_for(|way| *way != Way::Cut).await.is_err() {
                return;
            }
            let length = near_out.read(&mut octets).await.unwrap_or(0);
            if length == 0 {
                return;
            }
            let found = octets[..length].windows(7).filter(|part| part == b"PATCH /").count();
            patches.fetch_add(found, Ordering::SeqCst);
            if way.wait_for(|way| *way == Way::Open).await.is_err() {
                return;
            }
            if far_in.write_all(&octets[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(back, forth);
}

/// One replica: the program, and its way.
struct Replica {
    name: String,
    child: Child,
    proxy: Proxy,
}

impl Replica {
    fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

/// A cluster and a folder for what replicas need.
struct Scene {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn begin() -> Scene {
        Scene { cluster: Cluster::start().await, folder: tempfile::tempdir().unwrap() }
    }

    async fn replica(&self, name: &str) -> Replica {
        let proxy = Proxy::to(self.cluster.server.address()).await;
        let kubeconfig: PathBuf = self.folder.path().join(name);
        let address = self.cluster.server.address().to_string();
        let config = self.cluster.server.kubeconfig().replace(&address, &proxy.address.to_string());
        std::fs::write(&kubeconfig, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_allocator"))
            .env("KUBECONFIG", &kubeconfig)
            .env("PURELB_POD_NAME", name)
            .env("PURELB_METRICS_ADDRESS", "127.0.0.1:0")
            .env("PURELB_LEASE_DURATION_MS", "3000")
            .env("PURELB_RENEW_DEADLINE_MS", "2000")
            .env("PURELB_RETRY_PERIOD_MS", "100")
            .stderr(Stdio::from(
                std::fs::File::create(self.folder.path().join(format!("{name}.log"))).unwrap(),
            ))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Replica { name: name.to_owned(), child, proxy }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.cluster.client.clone(), "purelb-system")
    }

    /// Two replicas: first the one that decides.
    async fn two(&self) -> (Replica, Replica) {
        let first = self.replica("first").await;
        self.holds("first").await;
        (first, self.replica("second").await)
    }

    async fn holds(&self, name: &str) {
        let leases = self.leases();
        within(&format!("{name} holds the Lease"), async || {
            let holder = leases.get("purelb-allocator").await.ok()?.spec?.holder_identity?;
            holder.starts_with(&format!("{name}_")).then_some(())
        })
        .await;
    }

    async fn burst(&self, prefix: &str, count: usize) {
        for number in 0..count {
            self.cluster.plain(&format!("{prefix}-{number}")).await;
        }
    }

    async fn log(&self, replica: &Replica, line: &str) {
        let path = self.folder.path().join(format!("{}.log", replica.name));
        within(&format!("{:?} in the log of {}", line, replica.name), async || {
            std::fs::read_to_string(&path).ok()?.contains(line).then_some(())
        })
        .await;
    }
}

/// Every version of every Service ever published: an address has one owner at a time.
fn check_history(server: &Server) {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version) in server.versions("services") {
        let ingress = version.as_ref().map(|object| &object["status"]["loadBalancer"]["ingress"]);
        let entries = ingress.and_then(Value::as_array).into_iter().flatten();
        owners.insert(name, entries.filter_map(|entry| Some(entry["ip"].as_str()?.to_owned())).collect());
        support::assert_unique(&owners);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_in_a_burst_leaves_nothing_half_done() {
    let scene = Scene::begin().await;
    let (mut first, _second) = scene.two().await;
    scene.burst("a", 60).await;
    first.child.kill().await.unwrap();
    scene.burst("b", 20).await;
    scene.cluster.all_served(80).await;
    check_history(&scene.cluster.server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_stopped_for_longer_than_its_lease_writes_nothing_any_more() {
    let scene = Scene::begin().await;
    let (first, second) = scene.two().await;
    scene.burst("a", 30).await;
    scene.cluster.all_served(30).await;
    // In the middle of a burst.
    scene.burst("b", 10).await;
    first.signal("-STOP");
    scene.burst("c", 30).await;
    scene.holds("second").await;
    scene.cluster.all_served(70).await;
    // Addresses change hands behind the back of the first.
    for number in 0..10 {
        let name = format!("a-{number}");
        scene.cluster.services().delete(&name, &DeleteParams::default()).await.unwrap();
    }
    scene.burst("d", 10).await;
    let before = scene.cluster.all_served(70).await;
    let patches = first.proxy.patches();
    first.signal("-CONT");
    scene.log(&first, "Lease lost").await;
    scene.burst("e", 10).await;
    let after = scene.cluster.all_served(80).await;
    assert!(before.iter().all(|(name, addresses)| after[name] == *addresses));
    assert_eq!(first.proxy.patches(), patches, "the first has written");
    assert!(second.proxy.patches() > 0);
    check_history(&scene.cluster.server);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_were_held_back_on_the_way_do_no_harm_when_they_arrive() {
    let scene = Scene::begin().await;
    let (first, _second) = scene.two().await;
    scene.burst("a", 5).await;
    scene.cluster.all_served(5).await;
    let patches = first.proxy.patches();
    first.proxy.way.send_replace(Way::Held);
    scene.burst("b", 30).await;
    within("writes are held back", async || (first.proxy.patches() >= patches + 20).then_some(())).await;
    scene.holds("second").await;
    scene.cluster.all_served(35).await;
    // What the second frees and gives to others is what the first may still try to give.
    for number in 0..10 {
        let name = format!("b-{number}");
        scene.cluster.services().delete(&name, &DeleteParams::default()).await.unwrap();
    }
    scene.burst("c", 10).await;
    let before = scene.cluster.all_served(35).await;
    first.proxy.way.send_replace(Way::Open);
    scene.log(&first, "Lease lost").await;
    scene.cluster.plain("last").await;
    let after = scene.cluster.all_served(36).await;
    assert!(before.iter().all(|(name, addresses)| after[name] == *addresses));
    check_history(&scene.cluster.server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_in_a_burst_stops_and_may_lead_again_later() {
    let scene = Scene::begin().await;
    let (first, mut second) = scene.two().await;
    scene.burst("a", 20).await;
    first.proxy.way.send_replace(Way::Cut);
    scene.burst("b", 20).await;
    scene.log(&first, "Lease lost").await;
    scene.holds("second").await;
    scene.cluster.all_served(40).await;
    first.proxy.way.send_replace(Way::Open);
    scene.burst("c", 5).await;
    scene.cluster.all_served(45).await;
    second.child.kill().await.unwrap();
    scene.burst("d", 5).await;
    scene.cluster.all_served(50).await;
    scene.holds("first").await;
    check_history(&scene.cluster.server);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_start_at_once_one_decides_and_the_other_follows_when_it_is_asked_to_end() {
    let scene = Scene::begin().await;
    scene.burst("a", 20).await;
    let (first, second) = tokio::join!(scene.replica("first"), scene.replica("second"));
    scene.cluster.all_served(20).await;
    let holder = scene.leases().get("purelb-allocator").await.unwrap().spec.unwrap().holder_identity.unwrap();
    let (mut leader, follower) = if holder.starts_with("first_") { (first, second) } else { (second, first) };
    assert_eq!(follower.proxy.patches(), 0, "both write");
    leader.signal("-TERM");
    assert!(leader.child.wait().await.unwrap().success());
    scene.log(&leader, "Lease released").await;
    scene.burst("b", 5).await;
    scene.cluster.all_served(25).await;
    scene.holds(&follower.name).await;
    check_history(&scene.cluster.server);
}
