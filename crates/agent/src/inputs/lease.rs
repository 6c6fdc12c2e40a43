//! Node agents' Leases: on which subnets a node is, where it hears heartbeats, and which Ethernet addresses it has.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use api::{
    NodeAgentUse,
    names::annotation,
    node_lease::{node_of, parse_heartbeats, parse_link_layer_addresses, parse_subnets},
};
use ipnet::IpNet;
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use netlink::Mac;

/// A node agent's Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberLease {
    /// The node.
    pub node: Arc<str>,
    /// Subnets that it is on.
    pub subnets: BTreeSet<IpNet>,
    /// Where it hears heartbeats, one address a subnet.
    pub heartbeats: BTreeSet<SocketAddr>,
    /// What it may answer with there; none where an older agent runs.
    pub macs: BTreeSet<Mac>,
    /// The LBNodeAgent for it, and what of that cannot be used there.
    pub agent: Option<NodeAgentUse>,
    /// `renewTime`, of a clock that is not ours.
    pub renewed: Option<MicroTime>,
    /// How long the Lease is good without renewal.
    pub duration: Duration,
}

/// What matters of a Lease; `None` for one that is no node's, or that nobody holds. An annotation that cannot be
/// read says nothing.
pub fn parse(lease: &Lease) -> Option<MemberLease> {
    let node = node_of(lease.metadata.name.as_deref()?)?;
    let annotations = lease.metadata.annotations.as_ref()?;
    let subnets = parse_subnets(annotations.get(annotation::SUBNETS)?);
    let heartbeats = annotations.get(annotation::HEARTBEAT).map(|text| parse_heartbeats(text));
    let heartbeats = heartbeats.unwrap_or_else(|| Ok(BTreeSet::new()));
    let macs = annotations.get(annotation::LINK_LAYER_ADDRESSES).map(|text| parse_link_layer_addresses(text));
    let macs = macs.unwrap_or_else(|| Ok(BTreeSet::new()));
    let spec = lease.spec.as_ref()?;
    spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
    let errors = [subnets.as_ref().err(), heartbeats.as_ref().err(), macs.as_ref().err()];
    for error in errors.into_iter().flatten() {
        tracing::warn!(node, %error, "a part of the node's Lease cannot be read");
    }
    Some(MemberLease {
        node: node.into(),
        subnets: subnets.unwrap_or_default(),
        heartbeats: heartbeats.unwrap_or_default(),
        macs: macs.unwrap_or_default().into_iter().map(|mac| Mac(mac.0)).collect(),
        agent: annotations.get(annotation::NODE_AGENT).and_then(|text| NodeAgentUse::parse(text)),
        renewed: spec.renew_time.clone(),
        duration: Duration::from_secs(spec.lease_duration_seconds?.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(change: impl FnOnce(&mut Value)) -> Option<MemberLease> {
        let mut lease = json!({
            "metadata": {"name": "purelb-n1", "annotations": {
                "purelb.io/subnets": "192.0.2.0/24", "purelb.io/heartbeat": "192.0.2.7:7473",
                "purelb.io/node-agent": "default eth7:absent",
                "purelb.io/link-layer-addresses": "02:00:00:00:00:07,02:00:00:00:00:08",
            }},
            "spec": {"holderIdentity": "n1_pod", "leaseDurationSeconds": 40},
        });
        change(&mut lease);
        parse(&serde_json::from_value(lease).unwrap())
    }

    #[test]
    fn a_nodes_lease_is_read() {
        let lease = object(|_| {}).unwrap();
        assert_eq!((&*lease.node, lease.duration), ("n1", Duration::from_secs(40)));
        assert_eq!(lease.subnets, ["192.0.2.0/24".parse().unwrap()].into());
        assert_eq!(lease.heartbeats, ["192.0.2.7:7473".parse().unwrap()].into());
        assert_eq!(lease.macs, [7, 8].map(|last| Mac([2, 0, 0, 0, 0, last])).into());
        assert_eq!(lease.agent.unwrap().to_string(), "default eth7:absent");
        let silent =
            object(|l| l["metadata"]["annotations"] = json!({"purelb.io/subnets": "192.0.2.0/24"})).unwrap();
        assert!(
            silent.heartbeats.is_empty() && silent.macs.is_empty(),
            "an agent without key has no heartbeats"
        );
    }

    #[test]
    fn what_is_no_nodes_lease_is_not_read_and_what_cannot_be_read_says_nothing() {
        type Change = fn(&mut Value);
        let changes: [Change; 3] = [
            |l| l["metadata"]["name"] = json!("other"),
            |l| l["metadata"]["annotations"] = json!({}),
            |l| l["spec"]["holderIdentity"] = json!(""),
        ];
        assert!(changes.into_iter().all(|change| object(change).is_none()));
        let lease = object(|l| l["metadata"]["annotations"]["purelb.io/subnets"] = json!("banana")).unwrap();
        assert!(lease.subnets.is_empty());
    }
}
