//! Everything that the agent knows of the cluster: the stores of all kinds, and what a change makes dirty.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::Ipv6Addr,
    sync::Arc,
};

use api::{BGPPeerSpec, LBNodeAgentSpec, PoolType, Refusal, ServiceGroupSpec};

use crate::{
    election::NodeId,
    facts::subnets::NodeFacts,
    inputs::{
        daemon_set::{DaemonSetInput, Home},
        endpoints::{EndpointIndex, Endpoints, SliceInput},
        group::{self, Group},
        node::NodeInput,
        node_agent::{self, AgentConfig},
        secret::{Known, Password},
        service::{ServiceInput, TrafficPolicy},
    },
    key::ObjectKey,
    local_pools::{LocalPools, Others},
    metrics::local::SelectorState,
    stores::{Change, Listing, Store},
};

/// A change of any kind.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the kinds' own names")]
pub enum Input {
    Service(Change<ServiceInput>),
    EndpointSlice(Change<SliceInput>),
    ServiceGroup(Change<ServiceGroupSpec>),
    LBNodeAgent(Change<LBNodeAgentSpec>),
    BGPPeer(Change<BGPPeerSpec>),
    Node(Change<NodeInput>),
    DaemonSet(Change<DaemonSetInput>),
    /// Of the watch of one Secret, by its name.
    Secret(String, Change<Password>),
    /// The router that is heard on an interface.
    Router(String, Ipv6Addr),
    /// The index of an interface that peers name, where there is one of this name.
    Link(String, Option<u32>),
    /// This node's interfaces and subnets.
    Facts(NodeFacts),
    /// The other nodes that can serve local pools.
    Others(Others),
}

/// What has to be looked at again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services to plan.
    pub services: Vec<ObjectKey>,
    /// Every Service.
    pub all_services: bool,
    /// The set of peers.
    pub peers: bool,
    /// The interfaces and how addresses are put on them.
    pub dummy: bool,
    /// Which interfaces local addresses go on.
    pub claims: bool,
}

/// What the agent knows.
#[derive(Debug, Default)]
pub struct World {
    services: Store<ServiceInput>,
    by_group: HashMap<Arc<str>, HashSet<ObjectKey>>,
    /// Services with policy Local.
    local: HashSet<ObjectKey>,
    slices: EndpointIndex,
    slice_listing: Listing,
    group_specs: Store<ServiceGroupSpec>,
    groups: HashMap<Arc<str>, Group>,
    agents: Store<LBNodeAgentSpec>,
    /// What the last LBNodeAgent said that was not refused.
    accepted: Option<AgentConfig>,
    peers: Store<BGPPeerSpec>,
    /// One a Secret that is watched, by its name.
    secrets: HashMap<String, Store<Password>>,
    /// By interface.
    routers: HashMap<String, Ipv6Addr>,
    /// By interface.
    links: HashMap<String, Option<u32>>,
    /// This one, or none.
    nodes: Store<NodeInput>,
    /// As it was seen last.
    node: Option<NodeInput>,
    /// That of this agent, or none.
    daemon_sets: Store<DaemonSetInput>,
    local_pools: LocalPools,
    /// Whether the other nodes have been told of.
    are_others_known: bool,
}

impl World {
    /// Takes a change in.
    pub fn on(&mut self, input: Input) -> Dirty {
        match input {
            Input::Service(change) => self.on_service(change),
            Input::EndpointSlice(change) => self.on_slice(change),
            Input::ServiceGroup(change) => self.on_group(change),
            Input::LBNodeAgent(change) => {
                let was_listed = self.agents.is_listed();
                let is_changed = !self.agents.on(change).is_empty();
                // The first list also says that there is none.
                Dirty { dummy: is_changed || was_listed != self.agents.is_listed(), ..Dirty::default() }
            }
            Input::BGPPeer(change) => Dirty { peers: !self.peers.on(change).is_empty(), ..Dirty::default() },
            Input::Node(change) => self.on_node(change),
            Input::DaemonSet(change) => {
                self.daemon_sets.on(change);
                Dirty::default()
            }
            Input::Secret(name, change) => self.on_secret(name, change),
            Input::Router(interface, router) => {
                let before = self.routers.insert(interface, router);
                Dirty { peers: before != Some(router), ..Dirty::default() }
            }
            // Another index is another interface, whatever its name: sessions are bound to it.
            Input::Link(interface, index) => {
                let before = self.links.insert(interface, index);
                Dirty { peers: before != Some(index), ..Dirty::default() }
            }
            Input::Facts(facts) => {
                Dirty { services: self.local_pools.set_facts(facts), claims: true, ..Dirty::default() }
            }
            Input::Others(others) => {
                self.are_others_known = true;
                let claims = self.local_pools.is_asked_otherwise(&others);
                Dirty { services: self.local_pools.set_others(others), claims, ..Dirty::default() }
            }
        }
    }

    fn on_service(&mut self, change: Change<ServiceInput>) -> Dirty {
        let old_group = match &change {
            Change::Applied(key, _) => self.services.get(key).map(|service| service.group.clone()),
            _ => None,
        };
        let services = self.services.on(change);
        for key in &services {
            if let Some(group) = &old_group {
                self.forget_group(group, key);
            }
            let local = self.services.get(key).filter(|service| service.pool_type == PoolType::Local);
            self.local_pools.set_service(key, local.map_or(&[], |service| &service.addresses));
            match self.services.get(key) {
                Some(service) => {
                    self.by_group.entry(service.group.clone()).or_default().insert(key.clone());
                    if service.policy == TrafficPolicy::Local {
                        self.local.insert(key.clone());
                    } else {
                        self.local.remove(key);
                    }
                }
                None => {
                    self.local.remove(key);
                    self.by_group.retain(|_, keys| {
                        keys.remove(key);
                        !keys.is_empty()
                    });
                }
            }
            self.prefer(key);
        }
        Dirty { services, ..Dirty::default() }
    }

    /// An address of a local pool with policy Local is best on a node with endpoints: elsewhere it leads nowhere.
    fn prefer(&mut self, key: &ObjectKey) {
        let is_known = self.local.contains(key) && self.slice_listing.is_complete();
        let slices = &self.slices;
        self.local_pools
            .prefer(key, |family| if is_known { slices.nodes(key, family) } else { BTreeSet::new() });
    }

    fn forget_group(&mut self, group: &Arc<str>, key: &ObjectKey) {
        if let Some(keys) = self.by_group.get_mut(group) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_group.remove(group);
            }
        }
    }

    fn on_slice(&mut self, change: Change<SliceInput>) -> Dirty {
        let services = match change {
            Change::Applied(key, slice) => {
                self.slice_listing.note(&key);
                self.slices.apply(key, slice)
            }
            Change::Deleted(key) => self.slices.remove(&key),
            Change::Listing => {
                self.slice_listing.begin();
                Vec::new()
            }
            Change::Listed => {
                let first = !self.slice_listing.is_complete();
                let gone = self.slice_listing.finish(self.slices.keys());
                let mut services: Vec<_> = gone.iter().flat_map(|key| self.slices.remove(key)).collect();
                if first {
                    services.extend(self.local.iter().cloned());
                }
                services
            }
        };
        let services: Vec<_> = services.into_iter().filter(|key| self.local.contains(key)).collect();
        services.iter().for_each(|key| self.prefer(key));
        Dirty { services, ..Dirty::default() }
    }

    fn on_group(&mut self, change: Change<ServiceGroupSpec>) -> Dirty {
        let mut dirty = Dirty::default();
        for key in self.group_specs.on(change) {
            let name: Arc<str> = key.name().into();
            let parsed = self.group_specs.get(&key).map(group::parse);
            let before = match parsed {
                Some(Ok(group)) => self.groups.insert(name.clone(), group),
                Some(Err(refusal)) => {
                    tracing::warn!(group = %key, %refusal, "ServiceGroup refused");
                    self.groups.remove(&name)
                }
                None => self.groups.remove(&name),
            };
            if before.as_ref() != self.groups.get(&name) {
                dirty.services.extend(self.by_group.get(&name).into_iter().flatten().cloned());
            }
        }
        dirty
    }

    fn on_node(&mut self, change: Change<NodeInput>) -> Dirty {
        let changed = self.nodes.on(change);
        let seen = changed.first().map(|key| self.nodes.get(key).cloned());
        let node = match (seen, &self.node) {
            (Some(Some(node)), _) => node,
            // A deleted Node is still the node that we run on.
            (Some(None), Some(last)) => NodeInput { is_deleted: true, ..last.clone() },
            _ => return Dirty::default(),
        };
        let was_leaving = self.node.as_ref().and_then(NodeInput::leaving);
        let all_services = was_leaving != node.leaving();
        let services = self.local_pools.set_node(&node.name);
        self.node = Some(node);
        Dirty { services, all_services, peers: true, dummy: true, ..Dirty::default() }
    }

    fn on_secret(&mut self, name: String, change: Change<Password>) -> Dirty {
        let store = self.secrets.entry(name).or_default();
        let was_listed = store.is_listed();
        let is_changed = !store.on(change).is_empty();
        // The first list also says that there is none.
        Dirty { peers: is_changed || was_listed != store.is_listed(), ..Dirty::default() }
    }

    /// What BGPPeers for this node name in a field.
    pub fn named_by_peers<'a>(
        &'a self,
        field: impl Fn(&'a BGPPeerSpec) -> Option<&'a str>,
    ) -> BTreeSet<String> {
        self.peers().into_iter().filter_map(|(_, spec)| field(spec)).map(str::to_owned).collect()
    }

    /// Link-local address of the router that is heard on an interface.
    pub fn router(&self, interface: &str) -> Option<Ipv6Addr> {
        self.routers.get(interface).copied()
    }

    /// Stops knowing the router on an interface: nobody listens there any more.
    pub fn forget_router(&mut self, interface: &str) {
        self.routers.remove(interface);
    }

    /// Stops knowing the index of an interface: nobody looks any more.
    pub fn forget_link(&mut self, interface: &str) {
        self.links.remove(interface);
    }

    /// What is known of a Secret.
    pub fn secret(&self, name: &str) -> Known<'_> {
        let Some(store) = self.secrets.get(name) else { return Known::NotYet };
        match store.iter().next() {
            Some((_, password)) => Known::There(password),
            None if store.is_listed() => Known::Missing,
            None => Known::NotYet,
        }
    }

    /// Stops knowing a Secret: nobody watches it any more.
    pub fn forget_secret(&mut self, name: &str) {
        self.secrets.remove(name);
    }

    /// Stops knowing EndpointSlices: nobody watches them any more.
    pub fn forget_slices(&mut self) {
        self.slices = EndpointIndex::default();
        self.slice_listing = Listing::default();
    }

    /// Whether EndpointSlices matter: some Service has policy Local.
    pub fn needs_slices(&self) -> bool {
        !self.local.is_empty()
    }

    /// Whether every kind that matters has been listed completely once.
    pub fn is_complete(&self) -> bool {
        self.services.is_listed()
            && self.group_specs.is_listed()
            && self.agents.is_listed()
            && self.peers.is_listed()
            && self.node().is_some()
            && self.are_others_known
            && (!self.needs_slices() || self.slice_listing.is_complete())
    }

    /// What is still waited for, in words.
    pub fn missing(&self) -> Vec<&'static str> {
        [
            (self.services.is_listed(), "Services"),
            (self.group_specs.is_listed(), "ServiceGroups"),
            (self.agents.is_listed(), "LBNodeAgents"),
            (self.peers.is_listed(), "BGPPeers"),
            (self.node().is_some(), "this Node"),
            (self.are_others_known, "Leases"),
            (!self.needs_slices() || self.slice_listing.is_complete(), "EndpointSlices"),
        ]
        .into_iter()
        .filter_map(|(is_there, what)| (!is_there).then_some(what))
        .collect()
    }

    /// A Service.
    pub fn service(&self, key: &ObjectKey) -> Option<&ServiceInput> {
        self.services.get(key)
    }

    /// Every Service's key.
    pub fn service_keys(&self) -> Vec<ObjectKey> {
        self.services.iter().map(|(key, _)| key.clone()).collect()
    }

    /// ServiceGroups that can be used, by name.
    pub const fn groups(&self) -> &HashMap<Arc<str>, Group> {
        &self.groups
    }

    /// What addresses of local pools are planned by.
    pub const fn local_pools(&self) -> &LocalPools {
        &self.local_pools
    }

    /// Endpoints of a Service; `None` while they are not known.
    pub fn endpoints(&self, key: &ObjectKey) -> Option<Endpoints> {
        self.slice_listing.is_complete().then(|| self.slices.endpoints(key))
    }

    /// The other nodes that have ready endpoints of a Service.
    pub fn ready_elsewhere(&self, key: &ObjectKey) -> BTreeSet<NodeId> {
        let mut nodes = self.slices.ready_nodes(key);
        if let Some(node) = self.node() {
            nodes.remove(&NodeId::of(&node.name));
        }
        nodes
    }

    /// This node, once it has been seen.
    pub const fn node(&self) -> Option<&NodeInput> {
        self.node.as_ref()
    }

    /// What this agent's DaemonSet means for the node. What is not listed yet is unknown, what is not in the list is
    /// deleted.
    pub fn home(&self) -> Home {
        match self.daemon_sets.iter().next() {
            Some((_, daemon_set)) => daemon_set.home(self.node()),
            None if self.daemon_sets.is_listed() => Home::Deleted,
            None => Home::Unknown,
        }
    }

    /// BGPPeers for this node, by name.
    pub fn peers(&self) -> Vec<(&str, &BGPPeerSpec)> {
        let Some(node) = self.node() else { return Vec::new() };
        let mut peers: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, spec)| spec.matches_node(&node.labels))
            .map(|(key, spec)| (key.name(), spec))
            .collect();
        peers.sort_by_key(|(name, _)| *name);
        peers
    }

    /// All BGPPeers, those for other nodes, too.
    pub fn all_peers(&self) -> impl Iterator<Item = (&str, &BGPPeerSpec)> {
        self.peers.iter().map(|(key, spec)| (key.name(), spec))
    }

    /// Whether it is known which LBNodeAgent this node has, if any.
    pub fn is_agent_config_known(&self) -> bool {
        self.agents.is_listed() && self.node.is_some()
    }

    /// Which interfaces there are for addresses and how these are put there, and the refusal of the LBNodeAgent that
    /// says otherwise: then the last one that was good holds. A node that none selects, where there are any, has no part
    /// in local pools.
    pub fn agent_config(&mut self, default_interface: &str) -> (AgentConfig, Option<Refusal>) {
        let config = match self.node_agent().map(|(_, spec)| node_agent::parse(spec, default_interface)) {
            Some(Ok(config)) => config,
            Some(Err(refusal)) => {
                let without = || AgentConfig::without_local(default_interface);
                return (self.accepted.clone().unwrap_or_else(without), Some(refusal));
            }
            None if self.agents.iter().next().is_some() => AgentConfig::without_local(default_interface),
            None => AgentConfig::new(default_interface),
        };
        if self.is_agent_config_known() {
            self.accepted = Some(config.clone());
        }
        (config, None)
    }

    /// Where the configuration of this node's interfaces is from, by the words of PureLB's metric.
    pub fn selector_state(&self, is_refused: bool) -> SelectorState {
        match self.node_agent() {
            Some(_) if is_refused => SelectorState::Invalid,
            Some((_, spec)) if spec.local.is_some() => SelectorState::Configured,
            None if self.agents.iter().next().is_some() => SelectorState::Deselected,
            _ => SelectorState::Default,
        }
    }

    /// The LBNodeAgent for this node.
    pub fn node_agent(&self) -> Option<(&ObjectKey, &LBNodeAgentSpec)> {
        let none = BTreeMap::new();
        let labels = self.node().map_or(&none, |node| &node.labels);
        node_agent::select(self.agents.iter(), labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::{endpoints::Counts, node::Leaving, node_agent::LocalInterface};

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    fn service(group: &str, policy: TrafficPolicy) -> ServiceInput {
        ServiceInput {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pool_type: PoolType::Remote,
            group: group.into(),
            policy,
            health_check_node_port: None,
            labels: Default::default(),
            overrides: Default::default(),
            unreadable: vec![],
            uid: "".into(),
        }
    }

    fn group(name: &str, pool: &str) -> Input {
        let yaml = format!("remote: {{v4pool: {{pool: {pool}, subnet: {pool}, aggregation: /32}}}}");
        Input::ServiceGroup(Change::Applied(
            ObjectKey::new("purelb-system", name),
            serde_norway::from_str(&yaml).unwrap(),
        ))
    }

    fn apply(world: &mut World, name: &str, value: ServiceInput) -> Dirty {
        world.on(Input::Service(Change::Applied(key(name), value)))
    }

    #[test]
    fn a_group_dirties_the_services_that_it_gave_addresses_and_no_other() {
        let mut world = World::default();
        apply(&mut world, "a", service("one", TrafficPolicy::Cluster));
        apply(&mut world, "b", service("two", TrafficPolicy::Cluster));
        assert_eq!(world.on(group("one", "192.0.2.0/24")).services, [key("a")]);
        assert!(world.on(group("one", "192.0.2.0/24")).services.is_empty(), "nothing changed");
        apply(&mut world, "a", service("two", TrafficPolicy::Cluster));
        assert!(world.on(group("one", "198.51.100.0/24")).services.is_empty(), "a has moved");
        world.on(Input::Service(Change::Deleted(key("b"))));
        assert_eq!(world.on(group("two", "192.0.2.0/24")).services, [key("a")]);
    }

    #[test]
    fn a_refused_node_agent_leaves_what_the_last_good_one_said_and_without_one_no_local_address_anywhere() {
        let key = || ObjectKey::new("purelb-system", "default");
        let applied = |interface: &str| {
            let yaml = format!("local: {{localInterface: '{interface}'}}");
            Input::LBNodeAgent(Change::Applied(key(), serde_norway::from_str(&yaml).unwrap()))
        };
        let local = |world: &mut World| {
            let (config, refusal) = world.agent_config("kube-lb0");
            (config.selection.local, refusal.is_some())
        };
        let matching = |pattern: &str| LocalInterface::Matching(pattern.to_owned());
        let mut world = World::default();
        let node = NodeInput { name: "n1".to_owned(), ..NodeInput::default() };
        world.on(Input::Node(Change::Applied(ObjectKey::new("", "n1"), node)));
        assert_eq!(local(&mut world), (LocalInterface::Default, false));
        assert!(!world.is_agent_config_known(), "what is not listed yet is no configuration to keep");
        world.on(Input::LBNodeAgent(Change::Listing));
        world.on(applied("eth["));
        assert!(world.on(Input::LBNodeAgent(Change::Listed)).dummy && world.is_agent_config_known());
        assert_eq!(local(&mut world), (LocalInterface::Unknown, true));
        world.on(applied("eth1"));
        assert_eq!(local(&mut world), (matching("eth1"), false));
        world.on(applied("eth["));
        assert_eq!(local(&mut world), (matching("eth1"), true));
        world.on(Input::LBNodeAgent(Change::Deleted(key())));
        assert_eq!(local(&mut world), (LocalInterface::Default, false));
        world.on(applied("eth["));
        assert_eq!(local(&mut world), (LocalInterface::Default, true));
    }

    #[test]
    fn slices_matter_only_to_services_with_policy_local() {
        let mut world = World::default();
        apply(&mut world, "a", service("one", TrafficPolicy::Cluster));
        assert!(!world.needs_slices());
        apply(&mut world, "b", service("one", TrafficPolicy::Local));
        assert!(world.needs_slices() && world.endpoints(&key("b")).is_none());
        let slice = |name: &str| {
            let counts = Counts { ready_here: 1, terminating_here: 0, ready_anywhere: 1 };
            let value = SliceInput {
                service: key(name),
                family: api::IpFamily::IPv4,
                counts,
                nodes: Default::default(),
            };
            Input::EndpointSlice(Change::Applied(key(&format!("{name}-1")), value))
        };
        world.on(Input::EndpointSlice(Change::Listing));
        assert!(world.on(slice("a")).services.is_empty());
        assert_eq!(world.on(slice("b")).services, [key("b")]);
        assert_eq!(world.on(Input::EndpointSlice(Change::Listed)).services, [key("b")]);
        assert_eq!(world.endpoints(&key("b")).unwrap().ipv4.ready_here, 1);
        world.on(Input::EndpointSlice(Change::Listing));
        assert_eq!(world.on(Input::EndpointSlice(Change::Listed)).services, [key("b")], "slices went");
    }

    #[test]
    fn an_address_of_a_local_pool_with_policy_local_is_elected_where_endpoints_are_once_all_are_known() {
        let mut world = World::default();
        let node = NodeInput { name: "n1".to_owned(), ..NodeInput::default() };
        world.on(Input::Node(Change::Applied(ObjectKey::new("", "n1"), node)));
        let subnets = || ["192.0.2.0/24".parse().unwrap()].into();
        let electorate = ["n1", "n2", "n3"].map(|node| (node.into(), subnets())).into();
        world.on(Input::Others(Others { electorate, ..Others::default() }));
        let of = |policy| ServiceInput { pool_type: PoolType::Local, ..service("one", policy) };
        apply(&mut world, "a", of(TrafficPolicy::Local));
        let winner =
            |world: &World| world.local_pools().winner("192.0.2.1".parse().unwrap()).unwrap().to_string();
        let plain = winner(&world);
        let other = if plain == "n2" { "n3" } else { "n2" };
        assert!(world.needs_slices());
        let slice = |node: &str| {
            let slice = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "a-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "a"}},
                "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": node}],
            }));
            let slice = crate::inputs::endpoints::parse(&slice.unwrap(), "n1").unwrap();
            Input::EndpointSlice(Change::Applied(key("a-1"), slice))
        };
        world.on(Input::EndpointSlice(Change::Listing));
        world.on(slice(other));
        assert_eq!(winner(&world), plain, "half a list");
        assert_eq!(world.on(Input::EndpointSlice(Change::Listed)).services, [key("a")]);
        assert_eq!(winner(&world), other);
        assert_eq!(world.on(slice(&plain)).services, [key("a")]);
        assert_eq!(winner(&world), plain);
        world.on(slice(other));
        apply(&mut world, "a", of(TrafficPolicy::Cluster));
        assert_eq!((winner(&world), world.needs_slices()), (plain, false));
    }

    #[test]
    fn nothing_is_complete_before_every_kind_has_been_listed() {
        let mut world = World::default();
        world.on(Input::Service(Change::Listed));
        world.on(Input::ServiceGroup(Change::Listed));
        world.on(Input::LBNodeAgent(Change::Listed));
        assert_eq!(world.missing(), ["BGPPeers", "this Node", "Leases"]);
        world.on(Input::BGPPeer(Change::Listed));
        let node = NodeInput { name: "n1".to_owned(), ..NodeInput::default() };
        world.on(Input::Node(Change::Applied(ObjectKey::new("", "n1"), node)));
        assert!(!world.is_complete());
        world.on(Input::Others(Others::default()));
        assert!(world.is_complete());
        apply(&mut world, "b", service("one", TrafficPolicy::Local));
        assert!(!world.is_complete(), "now EndpointSlices matter");
        world.on(Input::EndpointSlice(Change::Listed));
        assert!(world.is_complete());
    }

    #[test]
    fn an_interface_that_comes_goes_or_is_made_anew_dirties_the_peers_once_each_time() {
        let mut world = World::default();
        for (index, expected) in
            [(None, true), (None, false), (Some(3), true), (Some(3), false), (Some(4), true), (None, true)]
        {
            assert_eq!(world.on(Input::Link("eth1".to_owned(), index)).peers, expected, "{index:?}");
        }
    }

    #[test]
    fn a_daemon_set_is_unknown_until_it_is_listed_and_deleted_when_it_is_gone() {
        let mut world = World::default();
        let key = || ObjectKey::new("purelb-system", "lbnodeagent");
        let mut on = |change| {
            assert_eq!(world.on(Input::DaemonSet(change)), Dirty::default());
            world.home()
        };
        let applied =
            |is_deleted| Change::Applied(key(), DaemonSetInput { is_deleted, ..Default::default() });
        assert_eq!(on(Change::Listing), Home::Unknown);
        assert_eq!(on(applied(false)), Home::Here);
        assert_eq!(on(Change::Listed), Home::Here);
        assert_eq!(on(applied(true)), Home::Deleted);
        assert_eq!(on(applied(false)), Home::Here, "made anew");
        assert_eq!(on(Change::Deleted(key())), Home::Deleted);
        assert_eq!(on(applied(false)), Home::Here);
        assert_eq!(on(Change::Listing), Home::Here, "a list in progress says nothing");
        assert_eq!(on(Change::Listed), Home::Deleted);
    }

    #[test]
    fn a_secret_is_unknown_then_missing_then_there_and_each_change_dirties_the_peers_once() {
        let mut world = World::default();
        let key = |octets: &[u8]| Password::Key(bgp::md5::Md5Key::new(octets).unwrap());
        let mut on = |change| {
            let dirty = world.on(Input::Secret("s".to_owned(), change)).peers;
            (dirty, world.secret("s").key("s").map_err(|refusal| refusal.message))
        };
        let (dirty, known) = on(Change::Listing);
        assert!(!dirty && known.unwrap_err().contains("not been read"));
        let (dirty, known) = on(Change::Listed);
        assert!(dirty && known.unwrap_err().contains("there is no Secret s"));
        let applied = |octets: &[u8]| Change::Applied(ObjectKey::new("purelb-system", "s"), key(octets));
        assert!(matches!(on(applied(b"a")), (true, Ok(_))));
        assert!(matches!(on(applied(b"a")), (false, Ok(_))));
        assert!(matches!(on(applied(b"b")), (true, Ok(_))), "rotated");
        let (dirty, known) = on(Change::Deleted(ObjectKey::new("purelb-system", "s")));
        assert!(dirty && known.unwrap_err().contains("there is no Secret s"));
    }

    #[test]
    fn only_what_makes_the_node_leave_or_come_back_dirties_every_service() {
        let mut world = World::default();
        let mut node = NodeInput { name: "n1".to_owned(), ..NodeInput::default() };
        let apply = |world: &mut World, node: &NodeInput| {
            world.on(Input::Node(Change::Applied(ObjectKey::new("", "n1"), node.clone())))
        };
        apply(&mut world, &node);
        node.labels.insert("rack".to_owned(), "a".to_owned());
        let dirty = apply(&mut world, &node);
        assert!(dirty.peers && dirty.dummy && !dirty.all_services);
        node.labels.insert(api::names::label::EXCLUDE_FROM_LOAD_BALANCERS.to_owned(), String::new());
        assert!(apply(&mut world, &node).all_services);
        assert_eq!(apply(&mut world, &node), Dirty::default());
        node.labels.clear();
        assert!(apply(&mut world, &node).all_services);
        let leaving = |world: &World| world.node().unwrap().leaving();
        // Deleted, and missing in a new list, are the same; the node that we run on exists all the same.
        for gone in [vec![Change::Deleted(ObjectKey::new("", "n1"))], vec![Change::Listing, Change::Listed]] {
            let mut dirty = Dirty::default();
            for change in gone {
                dirty = world.on(Input::Node(change));
            }
            assert!(dirty.all_services);
            assert_eq!(leaving(&world), Some(Leaving::Deleted));
            assert!(apply(&mut world, &node).all_services);
            assert_eq!(leaving(&world), None);
        }
        world.on(Input::Node(Change::Listing));
        assert_eq!(leaving(&world), None, "a list in progress says nothing");
    }

    #[test]
    fn a_node_that_no_lbnodeagent_selects_has_no_part_in_local_pools_and_says_so() {
        let agent = |yaml: &str| {
            Input::LBNodeAgent(Change::Applied(key("agents"), serde_norway::from_str(yaml).unwrap()))
        };
        for (yaml, local, state) in [
            (
                "local: {localInterface: 'eth[0-9]'}",
                LocalInterface::Matching("eth[0-9]".into()),
                SelectorState::Configured,
            ),
            ("{}", LocalInterface::Default, SelectorState::Default),
            (
                "{nodeSelector: {matchLabels: {a: b}}, local: {}}",
                LocalInterface::Unknown,
                SelectorState::Deselected,
            ),
        ] {
            let mut world = World::default();
            world.on(agent(yaml));
            let (config, refusal) = world.agent_config("kube-lb0");
            assert_eq!(
                (config.selection.local, world.selector_state(refusal.is_some())),
                (local, state),
                "{yaml}"
            );
        }
        let mut world = World::default();
        assert_eq!(world.agent_config("kube-lb0").0.selection.local, LocalInterface::Default);
        assert_eq!(world.selector_state(false), SelectorState::Default);
        assert_eq!(world.selector_state(true), SelectorState::Default);
        world.on(agent("local: {}"));
        assert_eq!(world.selector_state(true), SelectorState::Invalid);
    }
}
