//! Statuses say what is, also when the one who wrote them ends, dies or is deprived of them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use e2e::{INSTALL_NAMESPACE, with_one_router};
use lab::{DataCentre, PATIENCE, Run, require};
use serde_json::Value;

/// Waits until the node says this of its session.
fn wait_session(lab: &DataCentre<'_>, node: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let words = ["bgpnodestatus", node, "-n", INSTALL_NAMESPACE];
    let probe = |status: &Value| {
        let session = &status["status"]["peers"][0];
        require!(is_so(session), "it is {session}");
        Ok(status.clone())
    };
    lab.cluster.kubectl().wait(&format!("a session that {what}"), &words, PATIENCE, probe).unwrap()
}

fn is_established(session: &Value) -> bool {
    session["state"] == "Established"
}

/// Waits until the status of the BGPPeer has Ready with this message.
fn wait_ready(lab: &DataCentre<'_>, status: &str, message: &str) -> Value {
    let words = ["bgppeer", "router1", "-n", INSTALL_NAMESPACE];
    let probe = |peer: &Value| {
        let conditions = peer["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|it| it["type"] == "Ready").cloned().unwrap_or_default();
        require!(ready["status"] == status && ready["message"] == message, "it is {ready}");
        Ok(peer["status"].clone())
    };
    let what = format!("BGPPeer router1 to have Ready {status}: {message}");
    lab.cluster.kubectl().wait(&what, &words, PATIENCE, probe).unwrap()
}

#[test]
fn the_last_status_of_an_agent_that_ends_says_that_its_session_is_over() {
    let run = Run::start().unwrap();
    let mut lab = with_one_router(&run, 1).unwrap();
    wait_session(&lab, "node1", "is established", is_established);
    let status = lab.cluster.agent("node1").unwrap().terminate(PATIENCE).unwrap();
    assert!(status.success(), "{status}");
    // The agent has ended: whatever is to be said has been said.
    let words = ["bgpnodestatus", "node1", "-n", INSTALL_NAMESPACE];
    let last = lab.cluster.kubectl().get(&words).unwrap();
    let session = &last["status"]["peers"][0];
    assert_eq!(session["state"], "Idle", "{session}");
    assert!(session["lastError"].to_string().contains("administrative shutdown"), "{session}");
    assert_eq!(last["status"]["establishedPeers"], 0);
}

#[test]
fn a_status_that_is_deleted_is_there_again_at_once() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 1).unwrap();
    let before = wait_session(&lab, "node1", "is established", is_established);
    lab.cluster.kubectl().run(&["delete", "bgpnodestatus", "node1", "-n", INSTALL_NAMESPACE]).unwrap();
    let after = wait_session(&lab, "node1", "is established", is_established);
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["ownerReferences"], before["metadata"]["ownerReferences"]);
}

#[test]
fn a_node_that_is_gone_has_no_established_session_whatever_it_said_last() {
    let run = Run::start().unwrap();
    let mut lab = with_one_router(&run, 2).unwrap();
    wait_ready(&lab, "True", "established on 2 of 2 nodes");
    let words = ["lease", "purelb-bgppeer-status", "-n", INSTALL_NAMESPACE];
    let lease = lab.cluster.kubectl().get(&words).unwrap();
    let victim = if lease["spec"]["holderIdentity"] == "node1" { "node2" } else { "node1" };
    lab.cluster.agent(victim).unwrap().kill().unwrap();
    // What its expiry does, only sooner.
    let lease = format!("purelb-{victim}");
    lab.cluster.kubectl().run(&["delete", "lease", &lease, "-n", INSTALL_NAMESPACE]).unwrap();
    let message = format!("established on 1 of 2 nodes; no agent with a good Lease on {victim}");
    let status = wait_ready(&lab, "False", &message);
    assert_eq!((&status["matchedNodes"], &status["establishedNodes"]), (&2.into(), &1.into()), "{status}");
    wait_session(&lab, victim, "it said last was established", is_established);
    lab.start_agent(victim).unwrap();
    wait_ready(&lab, "True", "established on 2 of 2 nodes");
}
