//! This node: labels, addresses, and whether it is to announce anything.
//!
//! Cordon is not drain: a node that takes no new pods goes on with those that it has.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use api::names::label::EXCLUDE_FROM_LOAD_BALANCERS;
use k8s_openapi::api::core::v1::Node;
use serde::Serialize;

/// Taints of nodes that are about to go, or that somebody has declared gone, whatever their value and effect.
const LEAVING_TAINTS: [&str; 6] = [
    // By an administrator or a fencing agent, after which volumes are attached elsewhere.
    "node.kubernetes.io/out-of-service",
    // By the cloud's controller: the machine is switched off.
    "node.cloudprovider.kubernetes.io/shutdown",
    // By the cluster autoscaler before it drains. DeletionCandidateOfClusterAutoscaler is a thought, not a decision.
    "ToBeDeletedByClusterAutoscaler",
    // By Karpenter, by that name since 1.0.
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    // By GKE, before a machine that was lent is taken back.
    "cloud.google.com/impending-node-termination",
];

/// How kubelet says in the condition Ready that systemd is shutting the machine down.
const SHUTTING_DOWN: &str = "node is shutting down";

/// What the agent has to know of its Node. Heartbeats don't change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInput {
    /// Name.
    pub name: String,
    /// UID, for owner references.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// First InternalIP of IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// First InternalIP of IPv6 that is global.
    pub ipv6: Option<Ipv6Addr>,
    /// The first taint that says that the node is about to go.
    pub leaving_taint: Option<&'static str>,
    /// Taints that evict pods which do not tolerate them: key and value.
    pub evicting_taints: Vec<(String, String)>,
    /// kubelet says that the machine is being shut down.
    pub is_shutting_down: bool,
    /// The object is deleted or being deleted.
    pub is_deleted: bool,
    /// Cordoned.
    pub is_unschedulable: bool,
}

/// Why a node is not to announce anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Leaving {
    /// It is labelled so.
    Label,
    /// It has this taint.
    Taint(&'static str),
    /// The machine is being shut down.
    ShuttingDown,
    /// It is no part of the cluster any more.
    Deleted,
}

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leaving::Label => write!(f, "the node is labelled {EXCLUDE_FROM_LOAD_BALANCERS}"),
            Leaving::Taint(taint) => write!(f, "the node is about to go: it has the taint {taint}"),
            Leaving::ShuttingDown => f.write_str("the node is shutting down"),
            Leaving::Deleted => f.write_str("the Node is deleted"),
        }
    }
}

impl NodeInput {
    /// Why it is not to announce anything; `None` where it is.
    pub fn leaving(&self) -> Option<Leaving> {
        if self.is_deleted {
            return Some(Leaving::Deleted);
        }
        if self.is_shutting_down {
            return Some(Leaving::ShuttingDown);
        }
        let is_excluded = self.labels.contains_key(EXCLUDE_FROM_LOAD_BALANCERS);
        self.leaving_taint.map(Leaving::Taint).or(is_excluded.then_some(Leaving::Label))
    }
}

/// Reads a Node.
pub fn parse(node: &Node) -> NodeInput {
    let mut input = NodeInput {
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        ipv4: None,
        ipv6: None,
        leaving_taint: leaving_taint(node),
        evicting_taints: evicting_taints(node),
        is_shutting_down: is_shutting_down(node),
        is_deleted: node.metadata.deletion_timestamp.is_some(),
        is_unschedulable: node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)),
    };
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    for address in addresses.into_iter().flatten().filter(|address| address.type_ == "InternalIP") {
        match address.address.parse() {
            Ok(IpAddr::V4(ip)) => input.ipv4 = input.ipv4.or(Some(ip)),
            Ok(IpAddr::V6(ip)) if !ip.is_unicast_link_local() => input.ipv6 = input.ipv6.or(Some(ip)),
            _ => {}
        }
    }
    input
}

fn leaving_taint(node: &Node) -> Option<&'static str> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    LEAVING_TAINTS.into_iter().find(|leaving| taints.iter().any(|taint| taint.key == *leaving))
}

fn evicting_taints(node: &Node) -> Vec<(String, String)> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let evicting = taints.filter(|taint| taint.effect == "NoExecute");
    evicting.map(|taint| (taint.key.clone(), taint.value.clone().unwrap_or_default())).collect()
}

fn is_shutting_down(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        let said = condition.message.as_deref().unwrap_or_default();
        condition.type_ == "Ready" && condition.status == "False" && said.contains(SHUTTING_DOWN)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_gives_its_first_internal_address_of_each_family() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n1", "uid": "u", "labels": {"rack": "a"}},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "203.0.113.1"},
                {"type": "InternalIP", "address": "fe80::1"},
                {"type": "InternalIP", "address": "2001:db8::1"},
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "192.0.2.2"},
            ]},
        }))
        .unwrap();
        let input = parse(&node);
        assert_eq!(input.ipv4, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(input.ipv6, Some("2001:db8::1".parse().unwrap()));
        assert_eq!((input.leaving(), input.is_unschedulable), (None, false));
    }

    fn leaving(node: Value) -> Option<Leaving> {
        parse(&serde_json::from_value(node).unwrap()).leaving()
    }

    #[test]
    fn a_node_leaves_by_label_taint_shutdown_or_deletion_and_for_nothing_else() {
        let metadata = || json!({"name": "n1"});
        let tainted = |key: &str| {
            let other = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
            let taints = json!([other, {"key": key, "effect": "NoExecute"}]);
            json!({"metadata": metadata(), "spec": {"taints": taints}})
        };
        let ready = |status: &str, message: &str| {
            let condition = json!({"type": "Ready", "status": status, "message": message});
            json!({"metadata": metadata(), "status": {"conditions": [condition]}})
        };
        let labelled =
            |value: &str| json!({"metadata": {"name": "n1", "labels": {EXCLUDE_FROM_LOAD_BALANCERS: value}}});
        for taint in LEAVING_TAINTS {
            assert_eq!(leaving(tainted(taint)), Some(Leaving::Taint(taint)));
        }
        for (node, expected) in [
            (labelled(""), Some(Leaving::Label)),
            (labelled("false"), Some(Leaving::Label)),
            (ready("False", "[PLEG is not healthy, node is shutting down]"), Some(Leaving::ShuttingDown)),
            (
                json!({"metadata": {"name": "n1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                Some(Leaving::Deleted),
            ),
            // Other than ready is not leaving: what it has may work, and whoever does not hear from it decides.
            (ready("False", "container runtime is down"), None),
            (ready("Unknown", "Kubelet stopped posting node status."), None),
            (ready("True", "kubelet is posting ready status"), None),
            (tainted("node.kubernetes.io/not-ready"), None),
            (tainted("DeletionCandidateOfClusterAutoscaler"), None),
        ] {
            assert_eq!(leaving(node.clone()), expected, "{node}");
        }
    }

    #[test]
    fn a_cordoned_node_does_not_leave() {
        let node = json!({"metadata": {"name": "n1"}, "spec": {
            "unschedulable": true,
            "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}],
        }});
        let input = parse(&serde_json::from_value(node).unwrap());
        assert_eq!((input.leaving(), input.is_unschedulable), (None, true));
    }
}
