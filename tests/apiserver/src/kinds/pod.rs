//! Pods and pod templates. No kubelet: a pod stays as its writer's status says.

use serde_json::{Value, json};

use super::{Generation, Kind, names};
use crate::object::{self, default_to};
use crate::refusal::Cause;

/// Pods.
#[derive(Debug)]
pub(crate) struct Pod;

impl Kind for Pod {
    fn default(&self, object: &mut Value) {
        let spec = object::child_mut(object, "spec");
        default_to(spec, "enableServiceLinks", true);
        default_spec(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        let qos = qos_class(&object["spec"]);
        object["status"] = json!({"phase": "Pending", "qosClass": qos});
        // What the admission plugin Priority sets where there are no priority classes.
        default_to(&mut object["spec"], "priority", 0);
        default_to(&mut object["spec"], "preemptionPolicy", "PreemptLowerPriority");
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object::carry(new, old, "spec");
        let kept = old["metadata"]["ownerReferences"].clone();
        object::put(object::child_mut(new, "metadata"), "ownerReferences", kept);
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = validate_spec(&new["spec"], "spec");
        if let Some(old) = old
            && frozen(&new["spec"]) != frozen(&old["spec"])
        {
            let text = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
            causes.push(Cause::forbidden("spec", text));
        }
        causes
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}

/// The part of a pod's spec that may not change.
fn frozen(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for name in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
        object::put(&mut spec, name, Value::Null);
    }
    for list in ["containers", "initContainers"] {
        for container in object::objects_mut(&mut spec, &[list]) {
            object::put(container, "image", Value::Null);
        }
    }
    spec
}

/// Defaults of a pod template.
pub(crate) fn default_template(template: &mut Value) {
    default_spec(object::child_mut(template, "spec"));
}

/// Defaults of a pod's spec.
pub(crate) fn default_spec(spec: &mut Value) {
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "schedulerName", "default-scheduler");
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers"] {
        for container in object::objects_mut(spec, &[list]) {
            default_container(container, host_network);
        }
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    let image = container["image"].as_str().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
    default_to(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    default_to(container, "terminationMessagePath", "/dev/termination-log");
    default_to(container, "terminationMessagePolicy", "File");
    default_to(container, "resources", json!({}));
    for port in object::objects_mut(container, &["ports"]) {
        default_to(port, "protocol", "TCP");
        if host_network && port["hostPort"].is_null() {
            let number = port["containerPort"].clone();
            object::put(port, "hostPort", number);
        }
    }
}

fn qos_class(spec: &Value) -> &'static str {
    let containers = object::list_at(spec, &["containers"]);
    let set = |c: &Value, what: &str| c["resources"][what].as_object().is_some_and(|m| !m.is_empty());
    if containers.iter().all(|c| !set(c, "limits") && !set(c, "requests")) {
        "BestEffort"
    } else if containers.iter().all(|c| {
        let limits = &c["resources"]["limits"];
        let requests = &c["resources"]["requests"];
        !limits["cpu"].is_null() && !limits["memory"].is_null() && (requests.is_null() || requests == limits)
    }) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Checks a pod's spec.
pub(crate) fn validate_spec(spec: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let containers = object::list_at(spec, &["containers"]);
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut seen = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        let at = format!("{path}.containers[{i}]");
        let name = object::str_at(container, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if let Some(fault) = names::dns_label(name) {
            causes.push(Cause::invalid(format!("{at}.name"), &json!(name), &fault));
        } else if seen.contains(&name) {
            causes.push(Cause::duplicate(format!("{at}.name"), &json!(name)));
        }
        seen.push(name);
        if object::str_at(container, &["image"]).is_empty() && !path.contains("template") {
            causes.push(Cause::required(format!("{at}.image"), ""));
        }
    }
    let policy = &spec["restartPolicy"];
    let policies = ["Always", "OnFailure", "Never"];
    if !policies.iter().any(|p| policy == p) {
        causes.push(Cause::not_supported(format!("{path}.restartPolicy"), policy, &policies));
    }
    causes
}
