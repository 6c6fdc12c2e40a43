//! EndpointSlices, reduced to what decides whether this node announces: counts by family; and to what decides which node
//! should have an address of a local pool: the nodes with endpoints, as hashes of their names.
//!
//! The rule is kube-proxy's (pkg/proxy/topology.go): the ready endpoints on the node; where there are none,
//! those that serve while they terminate.

use std::{
    collections::{BTreeSet, HashMap},
    ops::AddAssign,
};

use api::IpFamily;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::{election::NodeId, key::ObjectKey, plan::traits::Weight};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Endpoints of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready, on this node.
    pub ready_here: u32,
    /// Serving while they terminate, on this node.
    pub terminating_here: u32,
    /// Ready, on any node.
    pub ready_anywhere: u32,
}

impl Counts {
    /// How much of the traffic this node should get, see [`Weight::step`]: its ready endpoints; where no node has
    /// one any more, those that still serve.
    pub const fn weight(&self) -> u32 {
        Weight::step(if self.ready_anywhere == 0 { self.terminating_here } else { self.ready_here })
    }

    /// Whether anything on this node takes packets.
    pub const fn serves_here(&self) -> bool {
        self.ready_here + self.terminating_here > 0
    }

    /// Whether routers should send packets here: to ready endpoints, or, where no node has one any more, to
    /// those that still serve.
    pub const fn wants_traffic(&self) -> bool {
        self.ready_here > 0 || (self.ready_anywhere == 0 && self.terminating_here > 0)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.ready_here += other.ready_here;
        self.terminating_here += other.terminating_here;
        self.ready_anywhere += other.ready_anywhere;
    }
}

/// Endpoints of a Service, of both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Of EndpointSlices with IPv4 addresses.
    pub ipv4: Counts,
    /// Of EndpointSlices with IPv6 addresses.
    pub ipv6: Counts,
}

impl Endpoints {
    /// Those of one family.
    pub const fn of(&self, family: IpFamily) -> Counts {
        match family {
            IpFamily::IPv4 => self.ipv4,
            IpFamily::IPv6 => self.ipv6,
        }
    }

    /// Whether routers should send packets of any family here.
    pub const fn wants_traffic(&self) -> bool {
        self.ipv4.wants_traffic() || self.ipv6.wants_traffic()
    }
}

/// One EndpointSlice: whose it is, and its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceInput {
    /// The Service.
    pub service: ObjectKey,
    /// Family of its addresses.
    pub family: IpFamily,
    /// Its endpoints.
    pub counts: Counts,
    /// The nodes that they are on.
    pub nodes: ServingNodes,
}

/// Nodes with endpoints that take packets, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingNodes {
    ready: Box<[NodeId]>,
    terminating: Box<[NodeId]>,
}

impl ServingNodes {
    fn of(slice: &EndpointSlice) -> ServingNodes {
        let (mut ready, mut terminating) = (BTreeSet::new(), BTreeSet::new());
        for endpoint in &slice.endpoints {
            let Some(node) = endpoint.node_name.as_deref() else { continue };
            let counts = count(endpoint, node);
            if counts.ready_here > 0 {
                ready.insert(NodeId::of(node));
            } else if counts.terminating_here > 0 {
                terminating.insert(NodeId::of(node));
            }
        }
        ServingNodes::new(ready, terminating)
    }

    /// These nodes.
    pub fn new(ready: BTreeSet<NodeId>, terminating: BTreeSet<NodeId>) -> ServingNodes {
        ServingNodes { ready: ready.into_iter().collect(), terminating: terminating.into_iter().collect() }
    }
}

/// What the agent of this node has to know of a slice; `None` where it belongs to no Service or has host names.
pub fn parse(slice: &EndpointSlice, node_name: &str) -> Option<SliceInput> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    let family = slice.address_type.parse().ok()?;
    let mut counts = Counts::default();
    for endpoint in &slice.endpoints {
        counts += count(endpoint, node_name);
    }
    let service = ObjectKey::new(slice.metadata.namespace.as_deref()?, service);
    Some(SliceInput { service, family, counts, nodes: ServingNodes::of(slice) })
}

fn count(endpoint: &Endpoint, node_name: &str) -> Counts {
    // kube-proxy has no use for one without an address.
    if endpoint.addresses.is_empty() {
        return Counts::default();
    }
    // As kube-proxy (pkg/proxy/endpointslicecache.go): absent `ready` and absent `serving` mean true. A Service with
    // publishNotReadyAddresses has ready endpoints that terminate, so ready comes first.
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(true);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    let is_here = endpoint.node_name.as_deref() == Some(node_name);
    Counts {
        ready_here: u32::from(ready && is_here),
        terminating_here: u32::from(!ready && serving && terminating && is_here),
        ready_anywhere: u32::from(ready),
    }
}

/// The slices of every Service.
#[derive(Debug, Default)]
pub struct EndpointIndex {
    slices: HashMap<ObjectKey, SliceInput>,
    by_service: HashMap<ObjectKey, Vec<ObjectKey>>,
}

impl EndpointIndex {
    /// Puts a slice in place; returns the Services that it changes.
    pub fn apply(&mut self, key: ObjectKey, slice: SliceInput) -> Vec<ObjectKey> {
        if self.slices.get(&key) == Some(&slice) {
            return Vec::new();
        }
        let mut changed = self.remove(&key);
        if !changed.contains(&slice.service) {
            changed.push(slice.service.clone());
        }
        self.by_service.entry(slice.service.clone()).or_default().push(key.clone());
        self.slices.insert(key, slice);
        changed
    }

    /// Removes a slice; returns the Service that it changes.
    pub fn remove(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        let Some(slice) = self.slices.remove(key) else { return Vec::new() };
        if let Some(keys) = self.by_service.get_mut(&slice.service) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_service.remove(&slice.service);
            }
        }
        vec![slice.service]
    }

    /// Every slice's key.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.slices.keys()
    }

    /// The nodes with endpoints of a Service and a family that packets should go to: ready ones, or, where there are none
    /// any more, those that still serve.
    pub fn nodes(&self, service: &ObjectKey, family: IpFamily) -> BTreeSet<NodeId> {
        let keys = self.by_service.get(service).into_iter().flatten();
        let slices = keys.filter_map(|key| self.slices.get(key)).filter(|slice| slice.family == family);
        let slices: Vec<_> = slices.collect();
        let ready: BTreeSet<_> = slices.iter().flat_map(|slice| slice.nodes.ready.iter().copied()).collect();
        // One without a node is on none of them, but ready.
        match slices.iter().any(|slice| slice.counts.ready_anywhere > 0) {
            true => ready,
            false => slices.iter().flat_map(|slice| slice.nodes.terminating.iter().copied()).collect(),
        }
    }

    /// The nodes with ready endpoints of a Service, of either family.
    pub fn ready_nodes(&self, service: &ObjectKey) -> BTreeSet<NodeId> {
        let keys = self.by_service.get(service).into_iter().flatten();
        let slices = keys.filter_map(|key| self.slices.get(key));
        slices.flat_map(|slice| slice.nodes.ready.iter().copied()).collect()
    }

    /// The endpoints of a Service: all its slices together.
    pub fn endpoints(&self, service: &ObjectKey) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for key in self.by_service.get(service).into_iter().flatten() {
            if let Some(slice) = self.slices.get(key) {
                match slice.family {
                    IpFamily::IPv4 => endpoints.ipv4 += slice.counts,
                    IpFamily::IPv6 => endpoints.ipv6 += slice.counts,
                }
            }
        }
        endpoints
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, family: &str, endpoints: Value) -> (ObjectKey, SliceInput) {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "labels": {SERVICE_NAME_LABEL: "web"}},
            "addressType": family,
            "endpoints": endpoints,
        }))
        .unwrap();
        (ObjectKey::of(&slice), parse(&slice, "here").unwrap())
    }

    fn endpoint(node: &str, conditions: Value) -> Value {
        json!({"addresses": ["10.0.0.1"], "nodeName": node, "conditions": conditions})
    }

    #[test]
    fn conditions_are_read_as_kube_proxy_reads_them() {
        // Conditions, ready here, terminating here.
        for (conditions, ready, terminating) in [
            (json!({}), 1, 0),
            (Value::Null, 1, 0),
            (json!({"ready": true}), 1, 0),
            (json!({"ready": false}), 0, 0),
            (json!({"ready": false, "serving": true, "terminating": true}), 0, 1),
            (json!({"ready": false, "serving": false, "terminating": true}), 0, 0),
            (json!({"ready": false, "terminating": true}), 0, 1),
            (json!({"serving": false, "terminating": true}), 1, 0),
            (json!({"ready": false, "serving": true}), 0, 0),
            // publishNotReadyAddresses
            (json!({"ready": true, "serving": false, "terminating": true}), 1, 0),
            // Serving, not ready, not terminating: no kube-proxy sends to it.
            (json!({"ready": false, "serving": true, "terminating": false}), 0, 0),
        ] {
            let counts = slice("a", "IPv4", json!([endpoint("here", conditions.clone())])).1.counts;
            assert_eq!((counts.ready_here, counts.terminating_here), (ready, terminating), "{conditions}");
        }
    }

    #[test]
    fn the_nodes_with_ready_endpoints_are_known_and_those_that_still_serve_where_none_is_ready() {
        let nodes = |names: &[&str]| names.iter().map(|name| NodeId::of(name)).collect::<BTreeSet<_>>();
        let serving = json!({"ready": false, "serving": true, "terminating": true});
        let mut index = EndpointIndex::default();
        let (key, first) = slice("a", "IPv4", json!([endpoint("n1", serving), endpoint("n2", json!({}))]));
        let service = first.service.clone();
        index.apply(key.clone(), first);
        let (other, more) = slice("b", "IPv4", json!([endpoint("n3", json!({}))]));
        index.apply(other.clone(), more);
        assert_eq!(index.nodes(&service, IpFamily::IPv4), nodes(&["n2", "n3"]));
        assert!(index.nodes(&service, IpFamily::IPv6).is_empty());
        index.remove(&other);
        let leaving = json!({"ready": false, "serving": true, "terminating": true});
        let (_, last) =
            slice("a", "IPv4", json!([endpoint("n1", leaving), endpoint("n2", json!({"ready": false}))]));
        assert!(!index.apply(key.clone(), last).is_empty());
        assert_eq!(index.nodes(&service, IpFamily::IPv4), nodes(&["n1"]));
        let (_, moved) = slice("a", "IPv4", json!([endpoint("n4", json!({}))]));
        assert!(!index.apply(key, moved).is_empty());
        assert_eq!(index.nodes(&service, IpFamily::IPv4), nodes(&["n4"]));
    }

    #[test]
    fn an_endpoint_without_a_node_is_on_no_node_but_ready() {
        let counts = slice("a", "IPv4", json!([{"addresses": ["10.0.0.1"]}])).1.counts;
        assert_eq!(counts, Counts { ready_here: 0, terminating_here: 0, ready_anywhere: 1 });
    }

    #[test]
    fn an_endpoint_without_an_address_is_none() {
        let counts = slice("a", "IPv4", json!([{"addresses": [], "nodeName": "here"}])).1.counts;
        assert_eq!(counts, Counts::default());
    }

    #[test]
    fn slices_of_no_service_or_with_host_names_say_nothing() {
        let labels = json!({SERVICE_NAME_LABEL: "web"});
        for (labels, family, is_read) in
            [(labels.clone(), "IPv4", true), (json!({}), "IPv4", false), (labels, "FQDN", false)]
        {
            let slice: EndpointSlice = serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": "default", "labels": labels},
                "addressType": family,
                "endpoints": [],
            }))
            .unwrap();
            assert_eq!(parse(&slice, "here").is_some(), is_read, "{family}");
        }
    }

    /// The address of a pod that ends is given to a new one before the slice of the old one is written again.
    #[test]
    fn an_address_that_a_new_pod_in_another_slice_has_counts_by_its_newest_state_and_on_its_own_node() {
        let gone = json!({"ready": false, "serving": false, "terminating": true});
        for (node, conditions, ready, serves) in [
            ("here", json!({"ready": true}), 1, true),
            ("there", json!({"ready": true}), 0, false),
            ("here", json!({"ready": false, "serving": true, "terminating": true}), 0, true),
        ] {
            let mut index = EndpointIndex::default();
            let (old_key, old) = slice("a", "IPv4", json!([endpoint("here", gone.clone())]));
            let (new_key, new) = slice("b", "IPv4", json!([endpoint(node, conditions.clone())]));
            let service = old.service.clone();
            index.apply(old_key.clone(), old);
            index.apply(new_key, new);
            for _ in 0..2 {
                let counts = index.endpoints(&service).ipv4;
                assert_eq!((counts.ready_here, counts.serves_here()), (ready, serves), "{node} {conditions}");
                // What is left when the old slice goes, too.
                index.remove(&old_key);
            }
        }
    }

    #[test]
    fn terminating_endpoints_attract_traffic_only_where_no_node_has_a_ready_one() {
        let here = endpoint("here", json!({"ready": false, "serving": true, "terminating": true}));
        let last = slice("a", "IPv4", json!([here])).1.counts;
        assert!(last.wants_traffic() && last.serves_here());
        let there = slice("a", "IPv4", json!([here, endpoint("there", json!({"ready": true}))])).1.counts;
        assert!(!there.wants_traffic() && there.serves_here());
    }

    #[test]
    fn several_slices_add_up_by_family_and_go_with_their_deletion() {
        let mut index = EndpointIndex::default();
        let ready = endpoint("here", json!({"ready": true}));
        let (a, slice_a) = slice("a", "IPv4", json!([ready]));
        let (b, slice_b) = slice("b", "IPv4", json!([ready, endpoint("there", json!({"ready": true}))]));
        let (c, slice_c) = slice("c", "IPv6", json!([ready]));
        let service = slice_a.service.clone();
        assert_eq!(index.apply(a.clone(), slice_a.clone()), std::slice::from_ref(&service));
        assert!(index.apply(a.clone(), slice_a).is_empty(), "nothing changed");
        index.apply(b, slice_b);
        index.apply(c, slice_c);
        let endpoints = index.endpoints(&service);
        assert_eq!((endpoints.ipv4.ready_here, endpoints.ipv4.ready_anywhere), (2, 3));
        assert_eq!(endpoints.ipv6.ready_here, 1);
        assert_eq!(index.remove(&a), std::slice::from_ref(&service));
        assert_eq!(index.endpoints(&service).ipv4.ready_here, 1);
    }

    #[test]
    fn nodes_with_ready_endpoints_are_those_of_all_slices_and_families() {
        let mut index = EndpointIndex::default();
        let terminating = json!({"ready": false, "serving": true, "terminating": true});
        let of = |nodes: &[&str]| {
            json!(nodes.iter().map(|node| endpoint(node, json!({"ready": true}))).collect::<Vec<_>>())
        };
        let mut first = of(&["there", "here", "there", "far"]);
        first.as_array_mut().unwrap().push(endpoint("gone", terminating));
        let (a, slice_a) = slice("a", "IPv4", first);
        let (b, slice_b) = slice("b", "IPv6", of(&["far", "beyond"]));
        let service = slice_a.service.clone();
        index.apply(a.clone(), slice_a);
        index.apply(b, slice_b);
        let expected = |names: &[&str]| names.iter().map(|name| NodeId::of(name)).collect::<BTreeSet<_>>();
        assert_eq!(index.ready_nodes(&service), expected(&["there", "here", "far", "beyond"]));
        index.remove(&a);
        assert_eq!(index.ready_nodes(&service), expected(&["far", "beyond"]));
    }

    #[test]
    fn a_slice_that_moves_to_another_service_changes_both() {
        let mut index = EndpointIndex::default();
        let (key, slice) = slice("a", "IPv4", json!([endpoint("here", json!({}))]));
        let first = slice.service.clone();
        index.apply(key.clone(), slice.clone());
        let second = ObjectKey::new("default", "other");
        let changed = index.apply(key, SliceInput { service: second.clone(), ..slice });
        assert_eq!(changed, [first.clone(), second.clone()]);
        assert!(!index.endpoints(&first).wants_traffic());
        assert!(index.endpoints(&second).wants_traffic());
    }
}
