//! `lbnodeagent`: reads the settings, opens what the parts need, and starts them.

use std::{collections::BTreeSet, process::ExitCode, sync::Arc, time::Duration};

use agent::{
    apply::{announcing, events::Events, node_lease, node_status, peer_status},
    facts::{links, routers, subnets},
    inputs,
    metrics::{Health, Metrics, SpeakerCollector, local::LivenessCollector},
    neighbourhood::{Neighbourhood, Observed},
    peers::PeerSet,
    reconcile::{Outputs, Reconciler, Watches},
    replay,
    settings::{Command, CommandLine, Settings},
    shutdown::{Ending, shut_down},
    stores::{Stamped, watch as watch_kind},
    world::Input,
};
use anyhow::Context;
use api::{BGPPeer, LBNodeAgent, ServiceGroup};
use bgp::config::SpeakerConfig;
use clap::Parser;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, runtime::watcher::Config};
use prometheus_client::registry::Registry;
use telemetry::LogFilter;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

/// Observations that may wait for the loop: beyond that the API server's answers do.
const QUEUE: usize = 1024;
/// How long the removal of the node's Lease, and the last status, may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How long routers are kept from taking a table that is not whole for all there is.
const ROUTES_BOUND: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match start(&line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lbnodeagent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(line: &CommandLine) -> anyhow::Result<()> {
    let settings = Settings::load(line)?;
    match &line.command {
        Some(Command::Plan { inputs }) => print_plan(inputs, &settings),
        None => {
            let log = telemetry::log::start(&settings.log_filter, settings.log_format)?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let result = runtime.block_on(run(settings, log));
            // Watches hang in reads that nobody has to wait for.
            runtime.shutdown_background();
            result
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is what the command is for")]
fn print_plan(path: &std::path::Path, settings: &Settings) -> anyhow::Result<()> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let list = serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    println!("{}", serde_json::to_string_pretty(&replay::plan(&list, settings)?)?);
    Ok(())
}

async fn run(settings: Settings, log: LogFilter) -> anyhow::Result<()> {
    let stop = stop_on_signals()?;
    let client = Client::try_default().await.context("finding the API server")?;
    let speaker = bgp::driver::spawn(SpeakerConfig {
        listen_port: settings.bgp_port,
        listen_always: settings.bgp_listen,
        seed: rand::random(),
        await_routes: Some(ROUTES_BOUND),
        ..SpeakerConfig::default()
    })
    .context("starting the BGP speaker")?;

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    registry.register_collector(Box::new(SpeakerCollector(speaker.clone())));
    telemetry::process::register(&mut registry, "lbnodeagent", env!("CARGO_PKG_VERSION"));
    let (applied_at, is_applied) = watch::channel(None);
    let probes = Health { applied_at: is_applied.clone(), speaker: speaker.clone() };

    let (peers, known_peers) = watch::channel(Arc::new(PeerSet::default()));
    let (changes, inputs) = mpsc::channel(QUEUE);
    start_watches(&client, &settings, &changes);
    let (namespace, node_name) = (settings.namespace.clone(), settings.node_name.clone());
    let told = tokio::spawn(node_status::run(
        client.clone(),
        namespace.clone(),
        node_name.clone(),
        speaker.clone(),
        known_peers.clone(),
    ));

    let (membership, is_member) = watch::channel(None);
    let (facts, known_facts) = watch::channel(None);
    let (conflicts, known_conflicts) = watch::channel(BTreeSet::new());
    let (added, known_added) = watch::channel(subnets::Added::new());
    let sources = subnets::Sources { membership: is_member, conflicts: known_conflicts, added: known_added };
    let mut observer = tokio::spawn(subnets::run(sources, facts));
    let observed =
        Observed { facts: known_facts.clone(), applied_at: is_applied, metrics: metrics.local.clone() };
    let (mut neighbourhood, claims) =
        Neighbourhood::start(&settings, client.clone(), observed, changes.clone(), added)?;
    registry.register_collector(Box::new(LivenessCollector(neighbourhood.liveness())));
    let server = telemetry::serve(settings.metrics_address, registry, probes, Some(log));
    let sources = peer_status::Sources { peers: known_peers, roster: neighbourhood.roster() };
    tokio::spawn(peer_status::run(client.clone(), namespace, node_name.clone(), sources));
    let leave = CancellationToken::new();
    let lease = tokio::spawn(node_lease::run(
        client.clone(),
        settings.namespace.clone(),
        node_name.clone(),
        lease_holder(&settings),
        known_facts,
        metrics.local.clone(),
        leave.clone(),
    ));

    let events = Events::start(client.clone(), &node_name, &settings.dummy_interface, metrics.clone());
    let (announcements, to_announce) = mpsc::unbounded_channel();
    tokio::spawn(announcing::run(client.clone(), node_name.as_str().into(), to_announce));
    let outputs = Outputs { peers, membership, conflicts, announcements, applied_at, events, metrics };
    let watches = on_demand(client, &settings, changes);
    let metrics_address = settings.metrics_address;
    let drain_wait = settings.drain_wait.0;
    tracing::info!(node = %node_name, "agent started");
    let reconciler = Reconciler::new(settings, inputs, watches, speaker.clone(), claims, outputs)?;
    let (applied, ending) = tokio::select! {
        // With the loop others end that it feeds: it is asked first.
        biased;
        applied = reconciler.run(stop) => applied?,
        served = server => {
            served.with_context(|| format!("serving metrics on {metrics_address}: is another agent running here?"))?;
            anyhow::bail!("the metrics server has ended");
        }
        error = neighbourhood.failed() => return Err(error),
        ended = &mut observer => {
            ended.context("observing this node's interfaces")?.context("observing this node's interfaces")?;
            anyhow::bail!("nobody observes this node's interfaces any more");
        }
    };
    let left = async {
        // With its addresses the node stays a member: the agent that follows renews the Lease.
        if ending == Ending::Return {
            return neighbourhood.keep();
        }
        // Who has no Lease is no member, and messages of none are not listened to.
        neighbourhood.leave().await;
        leave.cancel();
        if tokio::time::timeout(LAST_WORDS, lease).await.is_err() {
            tracing::warn!("the API server does not answer: the node's Lease stays until it expires");
        }
    };
    tokio::join!(left, shut_down(ending, drain_wait, &node_name, &speaker, applied));
    // With the speaker its status ends, and how it ended is the last that is to be read of it.
    if tokio::time::timeout(LAST_WORDS, told).await.is_err() {
        tracing::warn!(
            "the API server does not answer: this node's BGPNodeStatus says what was before the end"
        );
    }
    Ok(())
}

/// Node and pod: a restarted container is the same holder, another pod of the same node is not.
fn lease_holder(settings: &Settings) -> String {
    let pod = &settings.pod_uid;
    let process = || format!("{:016x}", rand::random::<u64>());
    format!("{}_{}", settings.node_name, if pod.is_empty() { process() } else { pod.clone() })
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopped.cancel();
    });
    Ok(stop)
}

fn start_watches(client: &Client, settings: &Settings, changes: &mpsc::Sender<Stamped<Input>>) {
    let namespace = settings.namespace.as_str();
    let announcer = settings.default_announcer.clone();
    tokio::spawn(watch_kind(
        Api::<Service>::all(client.clone()),
        Config::default(),
        move |service| inputs::service::parse(service, &announcer),
        Input::Service,
        changes.clone(),
    ));
    tokio::spawn(watch_kind(
        Api::<ServiceGroup>::namespaced(client.clone(), namespace),
        Config::default(),
        |group| Some(group.spec.clone()),
        Input::ServiceGroup,
        changes.clone(),
    ));
    tokio::spawn(watch_kind(
        Api::<LBNodeAgent>::namespaced(client.clone(), namespace),
        Config::default(),
        |agent| Some(agent.spec.clone()),
        Input::LBNodeAgent,
        changes.clone(),
    ));
    tokio::spawn(watch_kind(
        Api::<BGPPeer>::namespaced(client.clone(), namespace),
        Config::default(),
        |peer| Some(peer.spec.clone()),
        Input::BGPPeer,
        changes.clone(),
    ));
    tokio::spawn(watch_kind(
        Api::<Node>::all(client.clone()),
        Config::default().fields(&format!("metadata.name={}", settings.node_name)),
        |node| Some(inputs::node::parse(node)),
        Input::Node,
        changes.clone(),
    ));
    if !settings.daemon_set.is_empty() {
        tokio::spawn(watch_kind(
            Api::<DaemonSet>::namespaced(client.clone(), namespace),
            Config::default().fields(&format!("metadata.name={}", settings.daemon_set)),
            |daemon_set| Some(inputs::daemon_set::parse(daemon_set)),
            Input::DaemonSet,
            changes.clone(),
        ));
    }
}

fn on_demand(client: Client, settings: &Settings, changes: mpsc::Sender<Stamped<Input>>) -> Watches {
    let secret = {
        let (client, changes) = (client.clone(), changes.clone());
        let namespace = settings.namespace.clone();
        Box::new(move |name: &str| {
            let name = name.to_owned();
            tokio::spawn(watch_kind(
                Api::<Secret>::namespaced(client.clone(), &namespace),
                Config::default().fields(&format!("metadata.name={name}")),
                |secret| Some(inputs::secret::parse(secret)),
                move |change| Input::Secret(name.clone(), change),
                changes.clone(),
            ))
        })
    };
    let router = {
        let changes = changes.clone();
        Box::new(move |interface: &str| tokio::spawn(routers::watch(interface.to_owned(), changes.clone())))
    };
    let link = {
        let changes = changes.clone();
        Box::new(move |interface: &str| tokio::spawn(links::watch(interface.to_owned(), changes.clone())))
    };
    let node_name = settings.node_name.clone();
    let slices =
        Box::new(move || tokio::spawn(watch_slices(client.clone(), node_name.clone(), changes.clone())));
    Watches { slices, secret, router, link }
}

async fn watch_slices(client: Client, node_name: String, changes: mpsc::Sender<Stamped<Input>>) {
    let project = |slice: &EndpointSlice| inputs::endpoints::parse(slice, &node_name);
    watch_kind(Api::all(client), Config::default(), project, Input::EndpointSlice, changes).await;
}
