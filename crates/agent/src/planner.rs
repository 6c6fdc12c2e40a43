//! Plans Services one by one and keeps what a plan needs beside the Service: addresses that linger, and whether
//! kube-proxy forwards. Takes `now`, does no I/O: what has to happen (a probe, a timer) is in the answer.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    inputs::{
        endpoints::Endpoints,
        node::NodeInput,
        service::{ServiceInput, TrafficPolicy},
    },
    key::ObjectKey,
    plan::{
        ServicePlan,
        node::NodePlan,
        service::{Context, plan_service},
    },
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
    linger: Duration,
    asks_kube_proxy: bool,
}

impl Planner {
    /// `linger`: how long an address stays when nothing serves it any more. `asks_kube_proxy`: whether routes of
    /// Services with policy Local wait for kube-proxy.
    pub fn new(linger: Duration, asks_kube_proxy: bool) -> Planner {
        Planner {
            plan: NodePlan::default(),
            lingering: HashMap::new(),
            gates: HashMap::new(),
            linger,
            asks_kube_proxy,
        }
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
            return Some(Outcome { old: self.plan.set(key, None), ..Outcome::default() });
        };
        let mut outcome = Outcome::default();
        let endpoints = match service.policy {
            TrafficPolicy::Cluster => Endpoints::default(),
            TrafficPolicy::Local => world.endpoints(key)?,
        };
        let forwards = self.gate(key, service, endpoints, &mut outcome);
        let base = Context {
            groups: world.groups(),
            is_excluded: world.node().is_some_and(NodeInput::is_excluded),
            endpoints,
            forwards,
            lingering: &[],
        };
        let plan = self.plan_or_linger(key, service, base, now);
        outcome.again_at = self.lingering.get(key).copied();
        outcome.old = self.plan.set(key, Some(plan));
        Some(outcome)
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
        let until = self.lingering.get(key).copied().unwrap_or(now + self.linger);
        let lingering = plan_service(service, &Context { lingering: &held, ..context });
        if until <= now || lingering.addresses == plan.addresses {
            self.lingering.remove(key);
            return plan;
        }
        self.lingering.insert(key.clone(), until);
        lingering
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
        let (Some(port), true, true) = (service.health_check_node_port, self.asks_kube_proxy, is_ready_here)
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
    use api::{IpFamily, PoolType};

    use super::*;
    use crate::{
        inputs::endpoints::{Counts, SliceInput},
        plan::{Decision, Reason},
        stores::Change,
        world::Input,
    };

    const LINGER: Duration = Duration::from_secs(2);
    const READY: Counts = Counts { ready_here: 1, terminating_here: 0, ready_anywhere: 1 };
    const LEAVING: Counts = Counts { ready_here: 0, terminating_here: 1, ready_anywhere: 1 };
    const GONE: Counts = Counts { ready_here: 0, terminating_here: 0, ready_anywhere: 1 };

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
            uid: "".into(),
        };
        world.on(Input::Service(Change::Applied(key(), service)));
        world
    }

    fn with(world: &mut World, counts: Counts) {
        let slice = SliceInput { service: key(), family: IpFamily::IPv4, counts };
        world.on(Input::EndpointSlice(Change::Applied(ObjectKey::new("default", "web-1"), slice)));
        world.on(Input::EndpointSlice(Change::Listed));
    }

    fn decision(planner: &Planner) -> Decision {
        planner.plan().service(&key()).unwrap().decision
    }

    #[test]
    fn a_service_whose_endpoints_are_not_known_keeps_its_plan() {
        let mut planner = Planner::new(LINGER, false);
        assert!(planner.replan(&key(), &world(None), Instant::now()).is_none());
        assert!(planner.plan().service(&key()).is_none());
    }

    #[test]
    fn route_and_address_part_ways_on_the_way_down() {
        let (mut world, mut planner) = (world(None), Planner::new(LINGER, false));
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
    fn an_endpoint_that_comes_back_ends_the_lingering() {
        let (mut world, mut planner) = (world(None), Planner::new(LINGER, false));
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
        let (mut world, mut planner) = (world(None), Planner::new(LINGER, false));
        with(&mut world, READY);
        planner.replan(&key(), &world, Instant::now()).unwrap();
        world.on(Input::Service(Change::Deleted(key())));
        let outcome = planner.replan(&key(), &world, Instant::now()).unwrap();
        assert!(outcome.old.is_some() && outcome.again_at.is_none());
        assert_eq!(*planner.plan(), NodePlan::default());
    }

    #[test]
    fn the_route_waits_for_kube_proxy_once_for_every_time_endpoints_come_up() {
        let (mut world, mut planner) = (world(Some(30_001)), Planner::new(Duration::ZERO, true));
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
        let (mut world, mut planner) = (world(Some(30_001)), Planner::new(LINGER, false));
        with(&mut world, READY);
        assert_eq!(planner.replan(&key(), &world, Instant::now()).unwrap().probe, None);
        assert_eq!(decision(&planner), Decision::Announce);
    }
}
