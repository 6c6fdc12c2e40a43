//! The DaemonSet that this agent is of: whether another agent of this node follows when this one is asked to end.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;

/// What the agent has to know of its DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonSetInput {
    /// It is being deleted.
    pub is_deleted: bool,
    /// Nodes without these labels are to have no agent.
    pub node_selector: BTreeMap<String, String>,
}

/// Reads a DaemonSet. Of what chooses nodes the selector alone counts: the chart sets no more.
pub fn parse(daemon_set: &DaemonSet) -> DaemonSetInput {
    let pod = daemon_set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    DaemonSetInput {
        is_deleted: daemon_set.metadata.deletion_timestamp.is_some(),
        node_selector: pod.and_then(|pod| pod.node_selector.clone()).unwrap_or_default(),
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
    /// What it means for a node with these labels.
    pub fn home(&self, labels: &BTreeMap<String, String>) -> Home {
        let is_here = self.node_selector.iter().all(|(name, value)| labels.get(name) == Some(value));
        match (self.is_deleted, is_here) {
            (true, _) => Home::Deleted,
            (false, true) => Home::Here,
            (false, false) => Home::Elsewhere,
        }
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
            parse(&serde_json::from_value(daemon_set).unwrap()).home(&labels.into())
        };
        assert_eq!(home(json!(null), json!(null)), Home::Here);
        assert_eq!(home(json!(null), json!({"rack": "a"})), Home::Here);
        assert_eq!(home(json!(null), json!({"rack": "a", "zone": "2"})), Home::Elsewhere);
        assert_eq!(home(json!("2026-01-01T00:00:00Z"), json!({"rack": "a"})), Home::Deleted);
    }
}
