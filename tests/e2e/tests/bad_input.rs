//! What cannot work is refused with words that say why, and what was fine before goes on.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use e2e::{INSTALL_NAMESPACE, peer, service, service_group, with_allocator_only};
use lab::{DataCentre, Error, PATIENCE, Run, require};
use serde_json::{Value, json};

/// What `kubectl apply` says when it refuses; panics when it does not.
fn refusal(lab: &DataCentre<'_>, manifest: &Value) -> String {
    let outcome = lab.cluster.kubectl().outcome(&["apply", "-f", "-"], &manifest.to_string()).unwrap();
    assert!(!outcome.success, "accepted: {manifest}");
    outcome.stderr
}

/// Waits until a ServiceGroup is refused, and returns the message of its condition.
fn wait_refused(lab: &DataCentre<'_>, group: &str) -> String {
    let words = ["servicegroup", group, "-n", INSTALL_NAMESPACE];
    let refused = lab.cluster.kubectl().wait(&format!("{group} to be refused"), &words, PATIENCE, |object| {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let accepted = conditions.into_iter().flatten().find(|condition| condition["type"] == "Accepted");
        let accepted = accepted.ok_or_else(|| Error::unmet(format!("status {}", object["status"])))?;
        require!(accepted["status"] == "False", "condition {accepted}");
        Ok(accepted["message"].as_str().unwrap_or_default().to_owned())
    });
    refused.unwrap()
}

#[test]
fn resources_that_contradict_themselves_are_refused_at_apply() {
    let run = Run::start().unwrap();
    let lab = with_allocator_only(&run).unwrap();
    let mut both = peer("both", 65001, "192.0.2.1".parse().unwrap());
    both["spec"]["dynamicASN"] = json!("external");
    let said = refusal(&lab, &both);
    assert!(said.contains("exactly one of peerASN and dynamicASN must be set"), "{said}");

    let mut hasty = peer("hasty", 65001, "192.0.2.1".parse().unwrap());
    hasty["spec"]["holdTime"] = json!("2s");
    let said = refusal(&lab, &hasty);
    assert!(said.contains("holdTime is 0s, or 3s to 65535s"), "{said}");

    let said = refusal(&lab, &peer("trans", 23456, "192.0.2.1".parse().unwrap()));
    assert!(said.contains("AS 23456 stands for numbers of four octets"), "{said}");

    let said = refusal(&lab, &service_group("unparsable", "203.0.113.0/24", "203.0.113.0-"));
    assert!(said.contains("spec.remote.v4pool.pool"), "{said}");

    let mut two = service_group("two", "203.0.113.0/24", "203.0.113.0/24");
    two["spec"]["local"] = two["spec"]["remote"].clone();
    let said = refusal(&lab, &two);
    assert!(said.contains("exactly one of local, remote and external must be set"), "{said}");
}

#[test]
fn a_pool_outside_its_subnet_and_an_overlapping_group_are_refused_by_condition_and_the_older_group_serves() {
    let run = Run::start().unwrap();
    let lab = with_allocator_only(&run).unwrap();
    let kubectl = lab.cluster.kubectl();
    kubectl.apply(&service_group("outside", "203.0.113.0/24", "192.0.2.0/28").to_string()).unwrap();
    let message = wait_refused(&lab, "outside");
    assert!(message.contains("192.0.2.0") && message.contains("203.0.113.0/24"), "{message}");

    // The pool of the group default, of the manifests, is 192.168.1.10-192.168.1.250.
    kubectl.apply(&service_group("overlapping", "192.168.1.0/24", "192.168.1.200/30").to_string()).unwrap();
    let message = wait_refused(&lab, "overlapping");
    assert!(message.contains("default"), "{message}");

    kubectl.apply(&service("fine", &json!({})).to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "fine").unwrap();
    assert!(addresses[0].to_string().starts_with("192.168.1."), "{addresses:?}");
    let asking = json!({ "purelb.io/service-group": "overlapping" });
    kubectl.apply(&service("asking", &asking).to_string()).unwrap();
    let message = lab.wait_event("default", "asking", "AllocationFailed").unwrap();
    assert!(message.contains("overlapping"), "{message}");
    assert_eq!(lab.addresses("default", "asking").unwrap(), Vec::<std::net::IpAddr>::new());
}

#[test]
fn an_address_outside_every_pool_gets_an_event_and_the_owner_can_mend_it() {
    let run = Run::start().unwrap();
    let lab = with_allocator_only(&run).unwrap();
    let kubectl = lab.cluster.kubectl();
    let wish = |address: &str| service("wishful", &json!({ "purelb.io/addresses": address })).to_string();
    kubectl.apply(&wish("203.0.113.99")).unwrap();
    let message = lab.wait_event("default", "wishful", "AllocationFailed").unwrap();
    assert!(message.contains("203.0.113.99"), "{message}");
    kubectl.apply(&wish("192.168.1.100")).unwrap();
    assert_eq!(
        lab.wait_addresses("default", "wishful").unwrap(),
        ["192.168.1.100".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[test]
fn a_service_of_another_class_is_left_alone() {
    let run = Run::start().unwrap();
    let lab = with_allocator_only(&run).unwrap();
    let kubectl = lab.cluster.kubectl();
    let mut other = service("other", &json!({}));
    other["spec"]["loadBalancerClass"] = json!("example.com/another");
    kubectl.apply(&other.to_string()).unwrap();
    let applied = kubectl.get(&["service", "other"]).unwrap();
    // One that is ours and came later is served, so the other one has been looked at.
    let mut own = service("own", &json!({}));
    own["spec"]["loadBalancerClass"] = json!("purelb.io/purelb");
    kubectl.apply(&own.to_string()).unwrap();
    lab.wait_addresses("default", "own").unwrap();
    let now = kubectl.get(&["service", "other"]).unwrap();
    assert_eq!(
        now["metadata"]["resourceVersion"], applied["metadata"]["resourceVersion"],
        "nobody wrote to it: {now}"
    );
    let events = kubectl.get(&["events", "--field-selector", "involvedObject.name=other"]).unwrap();
    assert_eq!(events["items"], json!([]));
}
