//! The loop: one task owns what is known and what is applied. It takes in what is observed, plans what that
//! touches, and has the appliers do the difference, in rounds small enough that news is never kept waiting.
//!
//! Until every kind has been listed completely once nothing is planned; then the whole plan is put on the
//! interface, handed to the speaker as one table, and only then are there peers to tell it to. Nothing that an
//! earlier run left is removed before that.

mod claims;
mod drain;
mod latency;
mod rounds;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::AddressConflict;
use bgp::driver::Handle;
use futures::FutureExt;
use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use latency::Cause;

use crate::{
    apply::{
        announcing::Announcement,
        events::{Events, PlanChange},
        reach,
        routes::Routes,
    },
    claim,
    draining::Draining,
    facts::{
        kube_proxy::{Answer, KubeProxy},
        subnets::Membership,
    },
    holdings::Holdings,
    inputs::{bgp_peer, node_agent::DummyConfig},
    interface::Interface,
    key::ObjectKey,
    metrics::Metrics,
    peers::PeerSet,
    plan::{Decision, LocalAddress, Reason, ServicePlan},
    planner::{Planner, Timing},
    settings::Settings,
    shutdown::{Ending, decide},
    stores::Stamped,
    takeovers::Takeovers,
    world::{Dirty, Input, World},
};

/// Observations taken in between two rounds.
const INTAKE: usize = 4096;

/// Changes of plans that may wait for their addresses before they are told.
const UNREPORTED: usize = 1024;

/// Beyond the wait for kube-proxy: from an endpoint that is ready to the route of its node at the routers.
const TAKEOVER: Duration = Duration::from_secs(1);

/// How far the agent has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Some kind has not been listed yet.
    Listing,
    /// The first plan is being put on the interface.
    FirstPlan,
    /// The plan is applied and follows what happens.
    Running,
}

/// What the loop gives to others.
#[derive(Debug)]
pub struct Outputs {
    /// This node and its peers.
    pub peers: watch::Sender<Arc<PeerSet>>,
    /// This node and its interfaces, for its Lease.
    pub membership: watch::Sender<Option<Membership>>,
    /// Strangers that answer for addresses of ours, for its Lease.
    pub conflicts: watch::Sender<BTreeSet<AddressConflict>>,
    /// What this node says of Services whose local addresses it announces.
    pub announcements: mpsc::UnboundedSender<Announcement>,
    /// When the plan was applied for the first time.
    pub applied_at: watch::Sender<Option<Instant>>,
    /// Events on Services.
    pub events: Events,
    /// Counters.
    pub metrics: Metrics,
}

/// Starts the watch of what has this name.
pub type StartNamed = Box<dyn Fn(&str) -> JoinHandle<()> + Send>;

/// Starts watches that are wanted only at times.
pub struct Watches {
    /// Of EndpointSlices.
    pub slices: Box<dyn Fn() -> JoinHandle<()> + Send>,
    /// Of one Secret.
    pub secret: StartNamed,
    /// Of the router on one interface.
    pub router: StartNamed,
    /// Of the index of one interface.
    pub link: StartNamed,
}

/// The claims to local addresses: what they are told, and what they say.
#[derive(Debug)]
pub struct Claims {
    /// What should be held, and who else is there.
    pub inputs: mpsc::UnboundedSender<claim::Input>,
    /// What is held.
    pub reports: mpsc::UnboundedReceiver<claim::Report>,
    /// Where heartbeats are heard; `None` where there are none.
    pub heartbeat_port: Option<u16>,
}

/// The state of the loop.
pub struct Reconciler {
    settings: Settings,
    inputs: mpsc::Receiver<Stamped<Input>>,
    watches: Watches,
    slices: Option<JoinHandle<()>>,
    /// By name.
    secrets: HashMap<String, JoinHandle<()>>,
    /// By interface.
    routers: HashMap<String, JoinHandle<()>>,
    /// By interface.
    links: HashMap<String, JoinHandle<()>>,
    world: World,
    /// This node's peers, as they were last read.
    peers: Arc<PeerSet>,
    planner: Planner,
    interface: Interface,
    routes: Routes,
    claims: Claims,
    holdings: Holdings,
    takeovers: Takeovers,
    /// When the last change came that was seen.
    arrived_at: Instant,
    speaker: Handle,
    kube_proxy: KubeProxy,
    forwards: (mpsc::UnboundedSender<ObjectKey>, mpsc::UnboundedReceiver<ObjectKey>),
    /// Questions to kube-proxy without an answer yet.
    asking: usize,
    /// Services to plan again, by time.
    wakeups: BTreeSet<(Instant, ObjectKey)>,
    phase: Phase,
    draining: Draining,
    /// Routes are to be marked, or no longer.
    marks_dirty: bool,
    peers_dirty: bool,
    dummy_dirty: bool,
    /// Arrivals of what changed routes that are not in the speaker yet.
    arrivals: Vec<(Cause, Instant)>,
    /// Those that are.
    latency: mpsc::UnboundedSender<(Cause, Instant)>,
    /// Changes of plans that no event tells yet.
    unreported: Vec<PlanChange>,
    /// One of them has come since it was last looked what can be told.
    is_untold: bool,
    outputs: Outputs,
}

impl Reconciler {
    /// Puts everything together; [`Reconciler::run`] starts it.
    pub fn new(
        settings: Settings,
        inputs: mpsc::Receiver<Stamped<Input>>,
        watches: Watches,
        speaker: Handle,
        claims: Claims,
        outputs: Outputs,
    ) -> anyhow::Result<Reconciler> {
        let interface =
            Interface::open(DummyConfig::new(&settings.dummy_interface), outputs.metrics.clone())?;
        let wait = settings.kube_proxy_wait.0;
        let latency = latency::start(speaker.clone(), outputs.metrics.clone());
        Ok(Reconciler {
            inputs,
            watches,
            slices: None,
            secrets: HashMap::new(),
            routers: HashMap::new(),
            links: HashMap::new(),
            world: World::default(),
            peers: Arc::default(),
            planner: Planner::new(Timing {
                linger: settings.linger.0,
                weight_damping: settings.weight_damping.0,
                asks_kube_proxy: !wait.is_zero(),
                takeover: wait + TAKEOVER,
            }),
            interface,
            routes: Routes::default(),
            claims,
            holdings: Holdings::default(),
            takeovers: Takeovers::default(),
            arrived_at: Instant::now(),
            speaker,
            kube_proxy: KubeProxy::new(wait),
            forwards: mpsc::unbounded_channel(),
            asking: 0,
            wakeups: BTreeSet::new(),
            phase: Phase::Listing,
            draining: Draining::new(settings.drain_wait.0),
            marks_dirty: false,
            peers_dirty: false,
            dummy_dirty: false,
            arrivals: Vec::new(),
            latency,
            unreported: Vec::new(),
            is_untold: false,
            settings,
            outputs,
        })
    }

    /// Runs until `stop`; returns the interface, for the shutdown, and how to end.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<(Interface, Ending)> {
        while !stop.is_cancelled() {
            if self.has_work() {
                self.take_in_what_is_there()?;
                self.work().await?;
                continue;
            }
            let due = self.next_due();
            tokio::select! {
                () = stop.cancelled() => break,
                input = self.inputs.recv() => match input {
                    Some(input) => self.on_input(input),
                    None => anyhow::bail!("all watches have ended"),
                },
                Some(key) = self.forwards.1.recv() => self.on_forwards(&key),
                Some(report) = self.claims.reports.recv() => self.on_report(report),
                event = self.interface.next_event() => event?,
                () = sleep_until(due.into()) => self.on_time().await,
            }
        }
        // Why it is to end may have come just before.
        self.take_in_what_is_there()?;
        let ending = decide(self.settings.on_shutdown, self.world.node(), self.world.home());
        let named =
            self.secrets.into_values().chain(self.routers.into_values()).chain(self.links.into_values());
        self.slices.into_iter().chain(named).for_each(|watch| watch.abort());
        Ok((self.interface, ending))
    }

    fn has_work(&self) -> bool {
        match self.phase {
            Phase::Listing => false,
            Phase::FirstPlan => true,
            Phase::Running => {
                self.peers_dirty
                    || self.marks_dirty
                    || self.dummy_dirty
                    || !self.interface.addresses.is_idle()
                    || !self.routes.is_idle()
                    || !self.holdings.is_idle(self.world.local_pools())
                    || !self.arrivals.is_empty()
                    || self.is_untold
            }
        }
    }

    fn next_due(&self) -> Instant {
        let wakeup = self.wakeups.first().map(|(at, _)| *at);
        let far = Instant::now() + Duration::from_secs(3600);
        // Which interface it is, an LBNodeAgent may still have to say.
        let interface = self.interface.next_due().filter(|_| self.phase != Phase::Listing);
        [wakeup, interface, self.draining.due()].into_iter().flatten().min().unwrap_or(far)
    }

    /// Everything that has arrived already, without waiting.
    fn take_in_what_is_there(&mut self) -> anyhow::Result<()> {
        for _ in 0..INTAKE {
            match self.inputs.try_recv() {
                Ok(input) => self.on_input(input),
                Err(_) => break,
            }
        }
        while let Ok(key) = self.forwards.1.try_recv() {
            self.on_forwards(&key);
        }
        while let Ok(report) = self.claims.reports.try_recv() {
            self.on_report(report);
        }
        while let Some(event) = self.interface.next_event().now_or_never() {
            event?;
        }
        Ok(())
    }

    async fn on_time(&mut self) {
        let now = Instant::now();
        while self.wakeups.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.wakeups.pop_first() {
                self.replan(&key, None);
            }
        }
        self.drain(now);
        if self.phase != Phase::Listing {
            self.interface.on_time(now).await;
        }
    }

    fn on_forwards(&mut self, key: &ObjectKey) {
        self.asking = self.asking.saturating_sub(1);
        self.planner.on_forwards(key);
        self.replan(key, None);
    }

    fn on_input(&mut self, input: Stamped<Input>) {
        let cause = match &input.value {
            Input::Service(_) => Some((Cause::Service, input.at)),
            Input::EndpointSlice(_) => Some((Cause::Endpoints, input.at)),
            _ => None,
        };
        let is_of_nodes = matches!(&input.value, Input::Facts(_) | Input::Others(_));
        self.arrived_at = input.at;
        let home = self.world.home();
        let dirty = self.world.on(input.value);
        if self.world.home() != home {
            tracing::info!(home = ?self.world.home(), "this agent's DaemonSet, as it is seen for this node");
        }
        if is_of_nodes {
            let electorate = self.world.local_pools().electorate();
            self.outputs.metrics.local.set_electorate(&self.settings.node_name, electorate);
        }
        self.watch_slices_if_needed();
        self.drain(Instant::now());
        if dirty.peers {
            self.watch_what_peers_name();
        }
        match self.phase {
            Phase::Listing if self.world.is_complete() => self.plan_everything(),
            Phase::Listing => {}
            _ => self.on_dirty(dirty, cause),
        }
    }

    fn watch_slices_if_needed(&mut self) {
        match (self.world.needs_slices(), self.slices.take()) {
            (true, None) => self.slices = Some((self.watches.slices)()),
            (false, Some(watch)) => {
                watch.abort();
                self.world.forget_slices();
            }
            (_, watch) => self.slices = watch,
        }
    }

    /// The Secrets and interfaces that BGPPeers for this node name, and no others.
    fn watch_what_peers_name(&mut self) {
        let secrets = self.world.named_by_peers(|spec| Some(&*spec.password_secret.as_ref()?.name));
        for name in keep_watching(&mut self.secrets, &secrets, &self.watches.secret) {
            self.world.forget_secret(&name);
        }
        let interfaces = self.world.named_by_peers(|spec| spec.interface.as_deref());
        for interface in keep_watching(&mut self.routers, &interfaces, &self.watches.router) {
            self.world.forget_router(&interface);
        }
        let links = self.world.named_by_peers(bgp_peer::interface);
        for link in keep_watching(&mut self.links, &links, &self.watches.link) {
            self.world.forget_link(&link);
        }
    }

    fn plan_everything(&mut self) {
        self.phase = Phase::FirstPlan;
        self.resolve_peers();
        let keys = self.world.service_keys();
        tracing::info!(services = keys.len(), "everything is listed: planning");
        for key in keys {
            self.replan(&key, None);
        }
        self.dummy_dirty = true;
    }

    fn on_dirty(&mut self, dirty: Dirty, cause: Option<(Cause, Instant)>) {
        self.peers_dirty |= dirty.peers;
        self.dummy_dirty |= dirty.dummy;
        if dirty.claims {
            self.holdings.on_interfaces();
        }
        let keys = if dirty.all_services { self.world.service_keys() } else { dirty.services };
        for key in keys {
            self.replan(&key, cause);
        }
    }

    /// Plans one Service anew and touches what differs.
    fn replan(&mut self, key: &ObjectKey, cause: Option<(Cause, Instant)>) {
        let Some(outcome) = self.planner.replan(key, &self.world, Instant::now()) else { return };
        if let Some(at) = outcome.again_at {
            self.wakeups.insert((at, key.clone()));
        }
        if let Some(port) = outcome.probe {
            self.ask_kube_proxy(key.clone(), port);
        }
        let new = self.planner.plan().service(key);
        let old = outcome.old.as_ref();
        let addresses =
            |plan: Option<&'_ ServicePlan>| plan.map_or(Vec::new(), |plan| plan.addresses.clone());
        let routes = |plan: Option<&'_ ServicePlan>| plan.map_or(Vec::new(), |plan| plan.routes.clone());
        for address in difference(&addresses(old), &addresses(new)) {
            self.interface.addresses.touch(address);
        }
        let traits = |plan: Option<&ServicePlan>| plan.map(|plan| plan.traits.clone());
        let changed_routes = match (traits(old), traits(new)) {
            (Some(old_traits), Some(new_traits)) if old_traits != new_traits => {
                routes(old).into_iter().chain(routes(new)).collect()
            }
            _ => difference(&routes(old), &routes(new)),
        };
        if let (Phase::Running, false, Some(cause)) = (self.phase, changed_routes.is_empty(), cause) {
            self.arrivals.push(cause);
        }
        for address in changed_routes {
            self.routes.touch(address);
        }
        let locals = |plan: Option<&ServicePlan>| plan.map_or(Vec::new(), |plan| plan.local.clone());
        let (old_locals, new_locals) = (locals(old), locals(new));
        if old_locals != new_locals {
            self.count_elections(key, &old_locals);
            let both = old_locals.iter().chain(&new_locals).map(LocalAddress::addr);
            self.holdings.touch(key, both);
        }
        self.report(key, outcome.old);
    }

    fn report(&mut self, key: &ObjectKey, old: Option<ServicePlan>) {
        let new = self.planner.plan().service(key).cloned();
        if old == new {
            return;
        }
        let decision = new.as_ref().map_or("gone".to_owned(), |plan| plan.decision.to_string());
        let addresses = new.as_ref().map(|plan| plan.addresses.as_slice()).unwrap_or_default();
        let uid = self.world.service(key).map(|service| service.uid.clone());
        if self.phase == Phase::Running {
            let event = word_of(new.as_ref());
            tracing::info!(service = %key, event, decision, ?addresses, "planned");
            self.is_untold = true;
            self.unreported.push(PlanChange { key: key.clone(), uid, old, new });
        } else {
            tracing::debug!(service = %key, decision, ?addresses, "planned");
            self.outputs.events.warn(&PlanChange { key: key.clone(), uid, old, new });
        }
    }

    /// Tells what is done by now: an address is announced only once it is on the interface.
    fn tell(&mut self) {
        self.is_untold = false;
        if self.unreported.is_empty() {
            return;
        }
        let (interface, events, advertising) =
            (&self.interface, &self.outputs.events, self.planner.advertising());
        let status = self.speaker.watch_status().borrow().clone();
        let can_be_told = |peer: &str, family| reach::can_be_told(&status, peer, family);
        self.unreported.retain(|change| {
            let is_done =
                change.new.iter().flat_map(|plan| &plan.addresses).all(|a| interface.addresses.has(a));
            if is_done {
                let traits = change.new.as_ref().map(|plan| plan.traits.clone()).unwrap_or_default();
                events.tell(change, |address| reach::reach(advertising, &traits, address, can_be_told));
            }
            !is_done
        });
        // What can't be put on the interface is in the log; only so much of it is kept for events.
        let excess = self.unreported.len().saturating_sub(UNREPORTED);
        self.unreported.drain(..excess);
    }

    fn ask_kube_proxy(&mut self, key: ObjectKey, port: u16) {
        let kube_proxy = self.kube_proxy.clone();
        let node =
            self.world.node().and_then(|node| node.ipv4.map(IpAddr::from).or(node.ipv6.map(IpAddr::from)));
        let forwards = self.forwards.0.clone();
        tokio::spawn(async move {
            match kube_proxy.wait(node, port).await {
                Answer::TimedOut => tracing::warn!(
                    service = %key, port, "kube-proxy does not report endpoints on this node: announcing all the same"
                ),
                answer => tracing::debug!(service = %key, port, ?answer, "kube-proxy asked"),
            }
            let _ = forwards.send(key);
        });
    }
}

/// Starts the watches that are missing and ends those that are not wanted, whose names it returns.
fn keep_watching(
    running: &mut HashMap<String, JoinHandle<()>>,
    wanted: &BTreeSet<String>,
    start: impl Fn(&str) -> JoinHandle<()>,
) -> Vec<String> {
    let ended: Vec<_> = running.extract_if(|name, _| !wanted.contains(name)).collect();
    for name in wanted {
        running.entry(name.clone()).or_insert_with(|| start(name));
    }
    ended.into_iter().inspect(|(_, watch)| watch.abort()).map(|(name, _)| name).collect()
}

/// What is in one of the two only.
fn difference(old: &[IpNet], new: &[IpNet]) -> Vec<IpNet> {
    let gone = old.iter().filter(|address| !new.contains(address));
    let come = new.iter().filter(|address| !old.contains(address));
    gone.chain(come).copied().collect()
}

/// The word by which searches in PureLB's logs know what a plan is about.
fn word_of(plan: Option<&ServicePlan>) -> Option<&'static str> {
    match plan {
        Some(plan) if !plan.routes.is_empty() => Some("announcingNonLocal"),
        Some(ServicePlan { decision: Decision::Skip(Reason::NoSubnet), .. }) => Some("noLocalInterface"),
        _ => None,
    }
}
