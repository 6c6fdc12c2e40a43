//! The DaemonSet that this agent is of: whether another agent of this node follows when this one is asked to end.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Toleration};

use super::node::NodeInput;

/// Taints that every pod of a DaemonSet tolerates, whatever its template says.
const ALWAYS_TOLERATED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// What the agent has to know of its DaemonSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DaemonSetInput {
    /// It is being deleted.
    pub is_deleted: bool,
    /// Nodes without these labels are to have no agent.
    pub node_selector: BTreeMap<String, String>,
    /// Nodes with other taints that evict lose their agent.
    pub tolerations: Vec<Toleration>,
}

/// Reads a DaemonSet. Of what chooses nodes the selector and the tolerations count: the chart sets no more.
pub fn parse(daemon_set: &DaemonSet) -> DaemonSetInput {
    let pod = daemon_set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    DaemonSetInput {
        is_deleted: daemon_set.metadata.deletion_timestamp.is_some(),
        node_selector: pod.and_then(|pod| pod.node_selector.clone()).unwrap_or_default(),
        tolerations: pod.and_then(|pod| pod.tolerations.clone()).unwrap_or_default(),
    }
}

/// What the DaemonSet means for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// There is none, or it has not been seen.
    Unknown,
    /// It is there, and this node is to have an agent.
    Here,
    /// It is deleted or being deleted.
    Deleted,
    /// It is there, and this node is to have no agent any more.
    Elsewhere,
}

impl DaemonSetInput {
    /// What it means for this node; where that is not known yet, for one without labels and taints.
    pub fn home(&self, node: Option<&NodeInput>) -> Home {
        let label = |name: &str| node.and_then(|node| node.labels.get(name));
        let is_selected = self.node_selector.iter().all(|(name, value)| label(name) == Some(value));
        let mut taints = node.into_iter().flat_map(|node| &node.evicting_taints);
        let is_here = is_selected && taints.all(|(key, value)| self.tolerates(key, value));
        match (self.is_deleted, is_here) {
            (true, _) => Home::Deleted,
            (false, true) => Home::Here,
            (false, false) => Home::Elsewhere,
        }
    }

    /// Whether its pods stay on a node with a taint of the effect NoExecute.
    fn tolerates(&self, key: &str, value: &str) -> bool {
        let matches = |toleration: &Toleration| {
            let is_effect =
                toleration.effect.as_deref().is_none_or(|effect| matches!(effect, "" | "NoExecute"));
            let named = toleration.key.as_deref().unwrap_or_default();
            is_effect
                && match toleration.operator.as_deref() {
                    Some("Exists") => named.is_empty() || named == key,
                    None | Some("" | "Equal") => {
                        named == key && toleration.value.as_deref().unwrap_or_default() == value
                    }
                    Some(_) => false,
                }
        };
        ALWAYS_TOLERATED.contains(&key) || self.tolerations.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_daemon_set_is_for_the_nodes_that_its_selector_matches_until_it_is_deleted() {
        let home = |deleted: Value, selector: Value| {
            let daemon_set = json!({
                "metadata": {"name": "lbnodeagent", "deletionTimestamp": deleted},
                "spec": {"selector": {}, "template": {"spec": {"containers": [], "nodeSelector": selector}}},
            });
            let labels = [("rack", "a"), ("zone", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
            let node = NodeInput { labels: labels.into(), ..NodeInput::default() };
            parse(&serde_json::from_value(daemon_set).unwrap()).home(Some(&node))
        };
        assert_eq!(home(json!(null), json!(null)), Home::Here);
        assert_eq!(home(json!(null), json!({"rack": "a"})), Home::Here);
        assert_eq!(home(json!(null), json!({"rack": "a", "zone": "2"})), Home::Elsewhere);
        assert_eq!(home(json!("2026-01-01T00:00:00Z"), json!({"rack": "a"})), Home::Deleted);
    }

    #[test]
    fn a_node_that_evicts_its_agent_is_no_home_of_it_unless_its_pods_tolerate_the_taint() {
        let home = |tolerations: Value, key: &str, value: &str| {
            let spec = json!({"containers": [], "tolerations": tolerations});
            let daemon_set = json!({"spec": {"selector": {}, "template": {"spec": spec}}});
            let evicting_taints = vec![(key.to_owned(), value.to_owned())];
            let node = NodeInput { evicting_taints, ..NodeInput::default() };
            parse(&serde_json::from_value(daemon_set).unwrap()).home(Some(&node))
        };
        for (tolerations, key, value, expected) in [
            (json!([]), "maintenance", "", Home::Elsewhere),
            (json!([]), "node.kubernetes.io/unreachable", "", Home::Here),
            (json!([{"operator": "Exists"}]), "maintenance", "now", Home::Here),
            (json!([{"operator": "Exists", "effect": "NoSchedule"}]), "maintenance", "", Home::Elsewhere),
            (json!([{"operator": "Exists", "key": "maintenance"}]), "maintenance", "now", Home::Here),
            (json!([{"operator": "Exists", "key": "other"}]), "maintenance", "now", Home::Elsewhere),
            (json!([{"key": "maintenance", "value": "now"}]), "maintenance", "now", Home::Here),
            (json!([{"key": "maintenance", "value": "later"}]), "maintenance", "now", Home::Elsewhere),
        ] {
            assert_eq!(home(tolerations.clone(), key, value), expected, "{tolerations} {key}={value}");
        }
    }
}
