//! What an LBNodeAgent says of itself: what it is refused for, and what the nodes cannot use.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use e2e::{INSTALL_NAMESPACE, on_link::nodes};
use lab::{DataCentre, PATIENCE, Run, require};
use serde_json::{Value, json};

fn apply(lab: &DataCentre<'_>, local: &Value) {
    let object = json!({
        "apiVersion": "purelb.io/v2",
        "kind": "LBNodeAgent",
        "metadata": { "name": "default", "namespace": INSTALL_NAMESPACE },
        "spec": { "local": local },
    });
    lab.cluster.kubectl().apply(&object.to_string()).unwrap();
}

/// Waits until a condition of the object is so, with a message that has these words.
fn wait_condition(lab: &DataCentre<'_>, type_: &str, status: &str, words: &[&str]) {
    let object = ["lbnodeagent", "default", "-n", INSTALL_NAMESPACE];
    let what = format!("{type_} to be {status}: {words:?}");
    lab.cluster
        .kubectl()
        .wait(&what, &object, PATIENCE, |agent| {
            let conditions = agent["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let condition = conditions.iter().find(|it| it["type"] == type_).cloned().unwrap_or_default();
            let message = condition["message"].as_str().unwrap_or_default();
            let is_said = words.iter().all(|word| message.contains(word));
            require!(condition["status"] == status && is_said, "it is {condition}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn an_lbnodeagent_says_what_it_is_refused_for_and_which_interfaces_nodes_cannot_use() {
    let run = Run::start().unwrap();
    let lab = nodes(&run, 2);
    apply(&lab, &json!({ "localInterface": "eth0", "interfaces": ["eth7", "lo"] }));
    wait_condition(&lab, "Accepted", "True", &[]);
    let words = ["on 2 nodes", "node1: eth7 does not exist, lo is the loopback interface", "; node2: "];
    wait_condition(&lab, "Ready", "False", &words);
    let told = lab.wait_event(INSTALL_NAMESPACE, "default", "ConfigurationWarning").unwrap();
    assert!(told.contains("eth7 does not exist"), "{told}");
    apply(&lab, &json!({ "localInterface": "eth[" }));
    wait_condition(&lab, "Accepted", "False", &["spec.local.localInterface", "eth[", "expected"]);
    let told = lab.wait_event(INSTALL_NAMESPACE, "default", "ConfigError").unwrap();
    assert!(told.contains("spec.local.localInterface"), "{told}");
    apply(&lab, &json!({ "localInterface": "eth0" }));
    wait_condition(&lab, "Accepted", "True", &[]);
    wait_condition(&lab, "Ready", "True", &["used by 2 nodes"]);
}
