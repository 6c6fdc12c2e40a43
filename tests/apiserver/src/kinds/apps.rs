//! Deployments, DaemonSets and ReplicaSets: objects only, no controller acts on them.

use serde_json::{Value, json};

use super::{Generation, Kind, pod};
use crate::object::{self, default_to};
use crate::refusal::Cause;

/// A workload with a selector and a pod template.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Whether `replicas` defaults to one.
    pub has_replicas: bool,
    /// Counters that a new object's status has from the beginning.
    pub counters: &'static [&'static str],
    /// The defaults beyond those of the template.
    pub defaults: fn(&mut Value),
}

/// Defaults of a Deployment's spec.
pub(crate) fn deployment(spec: &mut Value) {
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "progressDeadlineSeconds", 600);
    default_to(spec, "strategy", json!({}));
    rolling_update(&mut spec["strategy"], json!({"maxUnavailable": "25%", "maxSurge": "25%"}));
}

/// Defaults of a DaemonSet's spec.
pub(crate) fn daemon_set(spec: &mut Value) {
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "updateStrategy", json!({}));
    rolling_update(&mut spec["updateStrategy"], json!({"maxSurge": 0, "maxUnavailable": 1}));
}

/// ReplicaSets have no defaults of their own.
pub(crate) fn replica_set(_spec: &mut Value) {}

fn rolling_update(strategy: &mut Value, parameters: Value) {
    default_to(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        default_to(strategy, "rollingUpdate", json!({}));
        for (name, value) in parameters.as_object().into_iter().flatten() {
            default_to(&mut strategy["rollingUpdate"], name, value.clone());
        }
    }
}

impl Kind for Workload {
    fn default(&self, object: &mut Value) {
        let spec = object::child_mut(object, "spec");
        if self.has_replicas {
            default_to(spec, "replicas", 1);
        }
        (self.defaults)(spec);
        pod::default_template(object::child_mut(spec, "template"));
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = self.counters.iter().map(|name| ((*name).to_owned(), json!(0))).collect();
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let selector = &new["spec"]["selector"];
        let labels = &new["spec"]["template"]["metadata"]["labels"];
        if selector.is_null() {
            causes.push(Cause::required("spec.selector", ""));
        } else if let Some(old) = old.filter(|old| old["spec"]["selector"] != *selector) {
            let _ = old;
            causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
        } else if !selected(selector, labels) {
            let text = "`selector` does not match template `labels`";
            causes.push(Cause::invalid("spec.template.metadata.labels", labels, text));
        }
        causes.extend(pod::validate_spec(&new["spec"]["template"]["spec"], "spec.template.spec"));
        causes
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}

fn selected(selector: &Value, labels: &Value) -> bool {
    crate::selectors::label::from_object(selector).is_ok_and(|s| s.matches(labels))
}
