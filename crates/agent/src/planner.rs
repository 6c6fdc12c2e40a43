//! Plans Services one by one and keeps what a plan needs beside the Service: addresses that linger, and whether
//! kube-proxy forwards. Takes `now`, does no I/O: what has to happen (a probe, a timer) is in the answer.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use api::PoolType;

use crate::{
    advertising::Advertising,
    inputs::{
        endpoints::{Counts, Endpoints},
        node::NodeInput,
        service::{ServiceInput, TrafficPolicy},
    },
    key::ObjectKey,
    plan::{
        ServicePlan,
        node::NodePlan,
        service::{Context, plan_service},
        traits::Weight,
    },
    succession::Succession,
    world::World,
};

/// What planning a Service came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The plan before; `None` where there was none.
    pub old: Option<ServicePlan>,
    /// Plan this Service again then.
    pub again_at: Option<Instant>,
    /// Ask kube-proxy on this port, and say so with [`Planner::on_forwards`].
    pub probe: Option<u16>,
}

/// Whether kube-proxy forwards for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Waiting,
    Open,
}

/// The plans of all Services, and how they came about.
#[derive(Debug)]
pub struct Planner {
    plan: NodePlan,
    /// Until when addresses of a Service linger.
    lingering: HashMap<ObjectKey, Instant>,
    gates: HashMap<ObjectKey, Gate>,
    /// Of Services with policy Local, while some peer weighs endpoints.
    weighings: HashMap<ObjectKey, Weighing>,
    succession: Succession,
    /// What the peers choose routes by.
    advertising: Arc<Advertising>,
    /// The node leaves, and routers have had time to take other ways.
    is_withdrawn: bool,
    timing: Timing,
}

/// How long things are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long an address stays when nothing serves it any more.
    pub linger: Duration,
    /// How long a change of endpoints is waited out before the routes' weight follows, so that a rolling update is
    /// one change and not many.
    pub weight_damping: Duration,
    /// Whether routes of Services with policy Local wait for kube-proxy.
    pub asks_kube_proxy: bool,
    /// How long another node takes to announce a Service once its endpoint there is ready.
    pub takeover: Duration,
}

/// The weight of a Service on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weighing {
    /// What its routes have.
    applied: Weight,
    /// Since when it should be another.
    differs_since: Option<Instant>,
}

impl Planner {
    /// No plans, and peers that get everything.
    pub fn new(timing: Timing) -> Planner {
        Planner {
            plan: NodePlan::default(),
            lingering: HashMap::new(),
            gates: HashMap::new(),
            weighings: HashMap::new(),
            succession: Succession::new(timing.takeover),
            advertising: Arc::default(),
            is_withdrawn: false,
            timing,
        }
    }

    /// What the peers choose routes by.
    pub fn advertising(&self) -> &Advertising {
        &self.advertising
    }

    /// Whether the peers choose by something else than before: then every Service has to be planned again.
    pub fn set_advertising(&mut self, advertising: Advertising) -> bool {
        let is_other = *self.advertising != advertising;
        self.advertising = Arc::new(advertising);
        is_other
    }

    /// Whether a node that leaves has no routes any more. Then, and when that ends, every Service has to be planned
    /// again.
    pub const fn set_withdrawn(&mut self, is_withdrawn: bool) {
        self.is_withdrawn = is_withdrawn;
    }

    /// The merged plan.
    pub const fn plan(&self) -> &NodePlan {
        &self.plan
    }

    /// kube-proxy forwards for this Service, or has had its time. Plan it again.
    pub fn on_forwards(&mut self, key: &ObjectKey) {
        if let Some(gate) = self.gates.get_mut(key) {
            *gate = Gate::Open;
        }
    }

    /// Plans a Service anew. `None`: its endpoints are not known yet, its plan stays as it is.
    pub fn replan(&mut self, key: &ObjectKey, world: &World, now: Instant) -> Option<Outcome> {
        let Some(service) = world.service(key) else {
            self.lingering.remove(key);
            self.gates.remove(key);
            self.weighings.remove(key);
            self.succession.forget(key);
            return Some(Outcome { old: self.plan.set(key, None), ..Outcome::default() });
        };
        let mut outcome = Outcome::default();
        let endpoints = match (service.policy, service.pool_type) {
            (TrafficPolicy::Local, PoolType::Remote) => world.endpoints(key)?,
            _ => Endpoints::default(),
        };
        let forwards = self.gate(key, service, endpoints, &mut outcome);
        let successor_at = self.successor_at(key, endpoints, world, now);
        let (weight, reweigh_at) = self.weigh(key, service, endpoints, now);
        let advertising = self.advertising.clone();
        let before = self.plan.service(key).map(|plan| plan.local.clone()).unwrap_or_default();
        let base = Context {
            groups: world.groups(),
            local: world.local_pools(),
            leaving: world.node().and_then(NodeInput::leaving),
            is_withdrawn: self.is_withdrawn,
            endpoints,
            awaits_successor: successor_at.is_some(),
            forwards,
            lingering: &[],
            before: &before,
            advertising: &advertising,
            weight,
        };
        let plan = self.plan_or_linger(key, service, base, now);
        let lingers_until = self.lingering.get(key).copied();
        outcome.again_at = [lingers_until, reweigh_at, successor_at].into_iter().flatten().min();
        outcome.old = self.plan.set(key, Some(plan));
        Some(outcome)
    }

    /// When another node will have had time to announce the Service, where the last endpoints here terminate and none
    /// has had it yet.
    fn successor_at(
        &mut self,
        key: &ObjectKey,
        endpoints: Endpoints,
        world: &World,
        now: Instant,
    ) -> Option<Instant> {
        if !endpoints.ipv4.serves_here() && !endpoints.ipv6.serves_here() {
            self.succession.forget(key);
            return None;
        }
        let at = self.succession.look(key, &world.ready_elsewhere(key), now)?;
        let is_announced = self.plan.service(key).is_some_and(|plan| !plan.routes.is_empty());
        // Slices of the families come one after the other.
        let ends = |counts: Counts| counts.serves_here() && !counts.wants_traffic();
        (is_announced && (ends(endpoints.ipv4) || ends(endpoints.ipv6))).then_some(at)
    }

    /// The plan, and beside it the addresses that linger. Those begin to that the last plan has and this one drops,
    /// where the rules allow it.
    fn plan_or_linger(
        &mut self,
        key: &ObjectKey,
        service: &ServiceInput,
        context: Context<'_>,
        now: Instant,
    ) -> ServicePlan {
        let plan = plan_service(service, &context);
        let held = self.plan.service(key).map(|old| old.addresses.clone()).unwrap_or_default();
        if held.iter().all(|address| plan.addresses.contains(address)) {
            self.lingering.remove(key);
            return plan;
        }
        let until = self.lingering.get(key).copied().unwrap_or(now + self.timing.linger);
        let lingering = plan_service(service, &Context { lingering: &held, ..context });
        if until <= now || lingering.addresses == plan.addresses {
            self.lingering.remove(key);
            return plan;
        }
        self.lingering.insert(key.clone(), until);
        lingering
    }

    /// The weight of the Service's routes, and when to look again because it should be another one. Routes that are
    /// not announced yet have the right one at once.
    fn weigh(
        &mut self,
        key: &ObjectKey,
        service: &ServiceInput,
        endpoints: Endpoints,
        now: Instant,
    ) -> (Weight, Option<Instant>) {
        if service.policy == TrafficPolicy::Cluster || !self.advertising.weighs_endpoints() {
            self.weighings.remove(key);
            return (Weight::ONE, None);
        }
        let target = Weight { ipv4: endpoints.ipv4.weight(), ipv6: endpoints.ipv6.weight() };
        let is_announced = self.plan.service(key).is_some_and(|plan| !plan.routes.is_empty());
        let known = self.weighings.get(key).copied().filter(|_| is_announced);
        let mut weighing = known.unwrap_or(Weighing { applied: target, differs_since: None });
        let mut again_at = None;
        if weighing.applied == target {
            weighing.differs_since = None;
        } else {
            let due = *weighing.differs_since.get_or_insert(now) + self.timing.weight_damping;
            if due <= now {
                weighing = Weighing { applied: target, differs_since: None };
            } else {
                again_at = Some(due);
            }
        }
        self.weighings.insert(key.clone(), weighing);
        (weighing.applied, again_at)
    }

    /// Whether kube-proxy forwards, asking for a probe when the first ready endpoint comes up.
    fn gate(
        &mut self,
        key: &ObjectKey,
        service: &ServiceInput,
        endpoints: Endpoints,
        outcome: &mut Outcome,
    ) -> bool {
        let is_ready_here = endpoints.ipv4.ready_here + endpoints.ipv6.ready_here > 0;
        let (Some(port), true, true) =
            (service.health_check_node_port, self.timing.asks_kube_proxy, is_ready_here)
        else {
            self.gates.remove(key);
            return true;
        };
        let is_announced = self.plan.service(key).is_some_and(|plan| !plan.routes.is_empty());
        let gate = *self.gates.entry(key.clone()).or_insert_with(|| {
            if is_announced {
                return Gate::Open;
            }
            outcome.probe = Some(port);
            Gate::Waiting
        });
        gate == Gate::Open
    }
}

#[cfg(test)]
mod tests {
    use api::IpFamily;

    use super::*;
    use crate::{
        election::NodeId,
        inputs::endpoints::{ServingNodes, SliceInput},
        plan::{Decision, Reason},
        stores::Change,
        world::Input,
    };

    const LINGER: Duration = Duration::from_secs(2);
    const DAMPING: Duration = Duration::from_secs(10);
    const TAKEOVER: Duration = Duration::from_secs(3);
    const READY: Counts = Counts { ready_here: 1, terminating_here: 0, ready_anywhere: 1 };
    const LEAVING: Counts = Counts { ready_here: 0, terminating_here: 1, ready_anywhere: 1 };
    const GONE: Counts = Counts { ready_here: 0, terminating_here: 0, ready_anywhere: 1 };

    fn timing(linger: Duration, asks_kube_proxy: bool) -> Timing {
        Timing { linger, weight_damping: DAMPING, asks_kube_proxy, takeover: TAKEOVER }
    }

    fn key() -> ObjectKey {
        ObjectKey::new("default", "web")
    }

    fn world(port: Option<u16>) -> World {
        let mut world = World::default();
        let service = ServiceInput {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pool_type: PoolType::Remote,
            group: "routed".into(),
            policy: TrafficPolicy::Local,
            health_check_node_port: port,
            labels: Default::default(),
            overrides: Default::default(),
            unreadable: vec![],
            uid: "".into(),
        };
        world.on(Input::Service(Change::Applied(key(), service)));
        world
    }

    fn with(world: &mut World, counts: Counts) {
        with_others(world, counts, &[]);
    }

    fn with_others(world: &mut World, counts: Counts, nodes: &[&str]) {
        let ready = nodes.iter().map(|name| NodeId::of(name)).collect();
        let nodes = ServingNodes::new(ready, Default::default());
        let slice = SliceInput { service: key(), family: IpFamily::IPv4, counts, nodes };
        world.on(Input::EndpointSlice(Change::Applied(ObjectKey::new("default", "web-1"), slice)));
        world.on(Input::EndpointSlice(Change::Listed));
    }

    fn decision(planner: &Planner) -> Decision {
        planner.plan().service(&key()).unwrap().decision.clone()
    }

    #[test]
    fn a_service_whose_endpoints_are_not_known_keeps_its_plan() {
        let mut planner = Planner::new(timing(LINGER, false));
        assert!(planner.replan(&key(), &world(None), Instant::now()).is_none());
        assert!(planner.plan().service(&key()).is_none());
    }

    #[test]
    fn route_and_address_part_ways_on_the_way_down() {
        let (mut world, mut planner) = (world(None), Planner::new(timing(LINGER, false)));
        let start = Instant::now();
        with(&mut world, READY);
        planner.replan(&key(), &world, start).unwrap();
        assert_eq!(decision(&planner), Decision::Announce);
        with(&mut world, LEAVING);
        planner.replan(&key(), &world, start).unwrap();
        assert_eq!(decision(&planner), Decision::Hold(Reason::EndpointsTerminating));
        with(&mut world, GONE);
        let outcome = planner.replan(&key(), &world, start).unwrap();
        assert_eq!(decision(&planner), Decision::Hold(Reason::NoLocalEndpoint));
        assert_eq!(outcome.again_at, Some(start + LINGER));
        planner.replan(&key(), &world, start + LINGER / 2).unwrap();
        assert_eq!(decision(&planner), Decision::Hold(Reason::NoLocalEndpoint), "still lingers");
        planner.replan(&key(), &world, start + LINGER).unwrap();
        assert_eq!(decision(&planner), Decision::Skip(Reason::NoLocalEndpoint));
    }

    #[test]
    fn the_only_endpoint_that_moves_takes_its_route_along_when_the_other_node_has_had_time() {
        let (mut world, mut planner) = (world(None), Planner::new(timing(LINGER, false)));
        let start = Instant::now();
        let alone = Counts { ready_here: 1, terminating_here: 0, ready_anywhere: 1 };
        with_others(&mut world, alone, &[]);
        planner.replan(&key(), &world, start).unwrap();
        // The new one is ready and the old one terminates: one event.
        with_others(&mut world, LEAVING, &["n2"]);
        let outcome = planner.replan(&key(), &world, start).unwrap();
        assert_eq!((decision(&planner), outcome.again_at), (Decision::Announce, Some(start + TAKEOVER)));
        // Slices of the other family say nothing of this one.
        let ready =
            SliceInput { service: key(), family: IpFamily::IPv6, counts: READY, nodes: Default::default() };
        world.on(Input::EndpointSlice(Change::Applied(ObjectKey::new("default", "web-6"), ready)));
        planner.replan(&key(), &world, start + TAKEOVER / 2).unwrap();
        assert_eq!(decision(&planner), Decision::Announce);
        planner.replan(&key(), &world, start + TAKEOVER).unwrap();
        assert_eq!(decision(&planner), Decision::Hold(Reason::EndpointsTerminating));
        // Withdrawn is withdrawn: another new one does not bring it back.
        with_others(&mut world, LEAVING, &["n3"]);
        planner.replan(&key(), &world, start + TAKEOVER).unwrap();
        assert_eq!(decision(&planner), Decision::Hold(Reason::EndpointsTerminating));
    }

    #[test]
    fn where_nothing_serves_any_more_nobody_is_waited_for() {
        let (mut world, mut planner) = (world(None), Planner::new(timing(LINGER, false)));
        let start = Instant::now();
        with_others(&mut world, READY, &[]);
        planner.replan(&key(), &world, start).unwrap();
        with_others(&mut world, GONE, &["n2"]);
        planner.replan(&key(), &world, start).unwrap();
        assert_eq!(decision(&planner), Decision::Hold(Reason::NoLocalEndpoint));
    }

    #[test]
    fn an_endpoint_that_comes_back_ends_the_lingering() {
        let (mut world, mut planner) = (world(None), Planner::new(timing(LINGER, false)));
        let start = Instant::now();
        for counts in [READY, GONE, READY] {
            with(&mut world, counts);
            planner.replan(&key(), &world, start).unwrap();
        }
        assert_eq!(decision(&planner), Decision::Announce);
        with(&mut world, GONE);
        let later = start + LINGER * 3;
        let outcome = planner.replan(&key(), &world, later).unwrap();
        assert_eq!(outcome.again_at, Some(later + LINGER), "a new lingering has its full time");
    }

    #[test]
    fn a_deleted_service_does_not_linger() {
        let (mut world, mut planner) = (world(None), Planner::new(timing(LINGER, false)));
        with(&mut world, READY);
        planner.replan(&key(), &world, Instant::now()).unwrap();
        world.on(Input::Service(Change::Deleted(key())));
        let outcome = planner.replan(&key(), &world, Instant::now()).unwrap();
        assert!(outcome.old.is_some() && outcome.again_at.is_none());
        assert_eq!(*planner.plan(), NodePlan::default());
    }

    #[test]
    fn the_route_waits_for_kube_proxy_once_for_every_time_endpoints_come_up() {
        let (mut world, mut planner) = (world(Some(30_001)), Planner::new(timing(Duration::ZERO, true)));
        let now = Instant::now();
        for _ in 0..2 {
            with(&mut world, READY);
            assert_eq!(planner.replan(&key(), &world, now).unwrap().probe, Some(30_001));
            assert_eq!(decision(&planner), Decision::Hold(Reason::WaitingForKubeProxy));
            assert_eq!(planner.replan(&key(), &world, now).unwrap().probe, None, "one probe is enough");
            planner.on_forwards(&key());
            planner.replan(&key(), &world, now).unwrap();
            assert_eq!(decision(&planner), Decision::Announce);
            with(&mut world, GONE);
            planner.replan(&key(), &world, now).unwrap();
            assert_eq!(decision(&planner), Decision::Skip(Reason::NoLocalEndpoint));
        }
    }

    #[test]
    fn switched_off_nobody_waits_for_kube_proxy() {
        let (mut world, mut planner) = (world(Some(30_001)), Planner::new(timing(LINGER, false)));
        with(&mut world, READY);
        assert_eq!(planner.replan(&key(), &world, Instant::now()).unwrap().probe, None);
        assert_eq!(decision(&planner), Decision::Announce);
    }

    #[test]
    fn a_rolling_update_is_one_change_of_weight_and_a_new_announcement_has_the_right_one_at_once() {
        let (mut world, mut planner) = (world(None), Planner::new(timing(Duration::ZERO, false)));
        planner.set_advertising(weighing());
        let start = Instant::now();
        let ready = |count| Counts { ready_here: count, terminating_here: 0, ready_anywhere: 9 };
        let weight = |planner: &Planner| planner.plan().service(&key()).unwrap().traits.weight.ipv4;
        let mut at = |planner: &mut Planner, secs, counts| {
            with(&mut world, counts);
            planner.replan(&key(), &world, start + Duration::from_secs(secs)).unwrap().again_at
        };
        assert_eq!(at(&mut planner, 0, ready(3)), None);
        assert_eq!(weight(&planner), 3, "at once");
        for (secs, count) in [(1, 4), (3, 2), (5, 5)] {
            assert_eq!(at(&mut planner, secs, ready(count)), Some(start + Duration::from_secs(1) + DAMPING));
            assert_eq!(weight(&planner), 3, "damped");
        }
        assert_eq!(at(&mut planner, 11, ready(5)), None);
        assert_eq!(weight(&planner), 5);
        at(&mut planner, 12, ready(4));
        assert_eq!(at(&mut planner, 13, ready(5)), None, "back to what it is");
        at(&mut planner, 20, GONE);
        at(&mut planner, 21, ready(1));
        assert_eq!(weight(&planner), 1, "announced anew");
    }

    #[test]
    fn with_policy_cluster_every_node_weighs_the_same() {
        let (mut world, mut planner) = (world(None), Planner::new(timing(LINGER, false)));
        planner.set_advertising(weighing());
        let mut service = world.service(&key()).unwrap().clone();
        service.policy = TrafficPolicy::Cluster;
        world.on(Input::Service(Change::Applied(key(), service)));
        planner.replan(&key(), &world, Instant::now()).unwrap();
        assert_eq!(planner.plan().service(&key()).unwrap().traits.weight, Weight::ONE);
    }

    #[test]
    fn what_an_owner_asks_for_in_vain_is_told_and_the_route_announced_all_the_same() {
        let (mut world, mut planner) = (world(None), Planner::new(timing(LINGER, false)));
        // A BGPPeer that lets Services set nothing.
        let peers = [("tor1".to_owned(), vec![])].into();
        planner.set_advertising(Advertising::default().among(Arc::new(peers)));
        let mut service = world.service(&key()).unwrap().clone();
        let annotations = [("purelb.io/bgp-med", "5"), ("purelb.io/bgp-prepend", "x")];
        let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (overrides, unreadable) = crate::inputs::overrides::Overrides::parse(&annotations.into());
        (service.overrides, service.unreadable) = (overrides.into(), unreadable);
        service.policy = TrafficPolicy::Cluster;
        world.on(Input::Service(Change::Applied(key(), service)));
        planner.replan(&key(), &world, Instant::now()).unwrap();
        let plan = planner.plan().service(&key()).unwrap();
        assert_eq!(plan.routes.len(), 1, "{plan:?}");
        let told: Vec<String> = plan.warnings.iter().map(ToString::to_string).collect();
        assert!(
            told.iter().any(|text| text.contains("bgp-prepend: \"x\" cannot be: expected 1 to 32")),
            "{told:?}"
        );
        assert!(told.iter().any(|text| text.contains("bgp-med is left out of account")), "{told:?}");
    }

    fn weighing() -> Advertising {
        let specs: Vec<api::bgp_peer::Advertisement> =
            serde_norway::from_str("[{linkBandwidth: endpoints}]").unwrap();
        let advertisements = crate::inputs::advertisement::parse(&specs).unwrap();
        let spec = serde_norway::from_str("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1}").unwrap();
        let config = crate::inputs::bgp_peer::parse(
            "tor1",
            &spec,
            &NodeInput::default(),
            crate::inputs::bgp_peer::Surroundings::ANYWHERE,
        )
        .unwrap();
        Advertising::new([(&config, advertisements.as_slice())])
    }
}
