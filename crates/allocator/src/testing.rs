//! Services and groups in a line, for tests.

use std::{net::IpAddr, time::Instant};

use serde_json::{Value, json};

use crate::{
    engine::Engine,
    inputs::{
        Groups, Live, Service,
        compact::Addresses,
        group::GroupObject,
        lease::{Members, NodeLease},
        object::ServiceObject,
    },
};

/// An address.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Addresses, separated by blanks.
pub(crate) fn ips(text: &str) -> Addresses {
    text.split_whitespace().map(ip).collect()
}

/// Puts `change` into `object`, as a merge patch does.
pub(crate) fn merge(object: &mut Value, change: Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (key, value) in change {
                if value.is_null() {
                    object.remove(&key);
                } else {
                    merge(object.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (object, change) => *object = change,
    }
}

/// A Service of type LoadBalancer, IPv4 and port TCP 80 unless `changes`, in YAML, says otherwise.
pub(crate) fn object(name: &str, changes: &str) -> Value {
    let mut object = json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]},
    });
    if !changes.is_empty() {
        merge(&mut object, serde_norway::from_str(changes).unwrap());
    }
    object
}

/// The same as the allocator sees it.
pub(crate) fn service(name: &str, changes: &str) -> Service {
    read(&object(name, changes)).expect("a Service that matters")
}

/// What the allocator sees of an object.
pub(crate) fn read(object: &Value) -> Option<Service> {
    let object: ServiceObject = serde_json::from_value(object.clone()).unwrap();
    Service::from_object(&object, true)
}

/// Groups by name and spec, in the order of their age.
pub(crate) fn groups(specs: &[(&str, &str)]) -> Groups {
    Groups::new(&group_objects(specs))
}

/// The same, not judged.
pub(crate) fn group_objects(specs: &[(&str, &str)]) -> Vec<GroupObject> {
    specs
        .iter()
        .zip(0..)
        .map(|((name, spec), created)| GroupObject {
            name: (*name).into(),
            created,
            spec: Ok(serde_norway::from_str(spec).unwrap()),
        })
        .collect()
}

/// What live nodes say: one on each of these subnets, separated by blanks, and strangers, as ADDRESS,LINK-LAYER-ADDRESS.
pub(crate) fn live(subnets: &str, strangers: &str) -> Live {
    let subnets = subnets.split_whitespace().zip(0..);
    let mut leases: Vec<NodeLease> =
        subnets.map(|(subnet, number)| node_lease(&format!("n{number}"), subnet, "")).collect();
    leases.push(node_lease("watcher", "", strangers));
    let (mut members, now) = (Members::default(), Instant::now());
    members.on_list(leases, now);
    members.live()
}

/// A node's Lease with these annotations.
fn node_lease(node: &str, subnets: &str, strangers: &str) -> NodeLease {
    let lease = json!({
        "metadata": {"name": format!("purelb-{node}"), "annotations": {
            "purelb.io/subnets": subnets, "purelb.io/address-conflicts": strangers}},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"},
    });
    NodeLease::from_object(&serde_json::from_value(lease).unwrap()).unwrap()
}

/// `default`: remote, both families, four IPv4 addresses; `v4only`: remote; `onlink`: local.
pub(crate) fn engine() -> Engine {
    let mut engine = Engine::default();
    engine.set_groups(groups(&[
        (
            "default",
            "remote: {v4pool: {pool: 192.0.2.0/30, subnet: 192.0.2.0/24, aggregation: /32}, \
             v6pool: {pool: 'fd00:1::/64', subnet: 'fd00:1::/64', aggregation: /128}}",
        ),
        ("v4only", "remote: {v4pool: {pool: 203.0.113.0/30, subnet: 203.0.113.0/24, aggregation: /32}}"),
        ("onlink", "local: {v4pool: {pool: 198.51.100.8/29, subnet: 198.51.100.0/24}}"),
    ]));
    engine
}
