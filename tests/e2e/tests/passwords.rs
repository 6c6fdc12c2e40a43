//! TCP MD5 passwords from Secrets, against a router that demands one.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use e2e::{INSTALL_NAMESPACE, with_one_router};
use lab::{DataCentre, PATIENCE, Run, command, process, require};
use serde_json::{Value, json};

const SECRET: &str = "router1-password";

fn secret(type_: &str, password: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": type_,
        "metadata": { "name": SECRET, "namespace": INSTALL_NAMESPACE },
        "stringData": { "password": password },
    })
    .to_string()
}

fn wait_accepted(lab: &DataCentre<'_>, status: &str, part: &str) {
    let words = ["bgppeer", "router1", "-n", INSTALL_NAMESPACE];
    let probe = |peer: &Value| {
        let conditions = peer["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let accepted = conditions.iter().find(|it| it["type"] == "Accepted").cloned().unwrap_or_default();
        let message = accepted["message"].as_str().unwrap_or_default();
        require!(accepted["status"] == status && message.contains(part), "it is {accepted}");
        Ok(())
    };
    let what = format!("BGPPeer router1 to have Accepted {status} with {part:?}");
    lab.cluster.kubectl().wait(&what, &words, PATIENCE, probe).unwrap();
}

/// Waits for the session in the node's status.
fn wait_session(lab: &DataCentre<'_>, what: &str, is_so: impl Fn(&Value) -> bool) {
    let words = ["bgpnodestatus", "node1", "-n", INSTALL_NAMESPACE];
    let probe = |node: &Value| {
        let session = &node["status"]["peers"][0];
        require!(is_so(session), "it is {session}");
        Ok(())
    };
    lab.cluster.kubectl().wait(&format!("a session that {what}"), &words, PATIENCE, probe).unwrap();
}

fn wait_established(lab: &DataCentre<'_>) {
    wait_session(lab, "is established", |session| session["state"] == "Established");
}

fn demand(lab: &DataCentre<'_>, password: &str) {
    let words = format!("configure terminal\nrouter bgp 65001\nneighbor nodes password {password}");
    command::run(&mut lab.routers[0].cli(&words)).unwrap();
}

#[test]
fn a_session_is_signed_with_the_password_of_its_secret_and_there_is_none_without() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 1).unwrap();
    let kubectl = lab.cluster.kubectl();
    wait_established(&lab);

    let patch = json!({ "spec": { "passwordSecret": { "name": SECRET } } }).to_string();
    let words = ["patch", "bgppeer", "router1", "-n", INSTALL_NAMESPACE, "--type=merge", "-p", &patch];
    kubectl.run(&words).unwrap();
    wait_accepted(&lab, "False", "there is no Secret router1-password");
    wait_session(&lab, "says that the Secret is missing", |session| {
        session["state"] == "Idle" && session["lastError"].to_string().contains("there is no Secret")
    });

    kubectl.apply(&secret("Opaque", "first-s3cret")).unwrap();
    wait_accepted(&lab, "False", "has type Opaque: expected kubernetes.io/basic-auth");
    kubectl.run(&["delete", "secret", SECRET, "-n", INSTALL_NAMESPACE]).unwrap();

    demand(&lab, "first-s3cret");
    kubectl.apply(&secret("kubernetes.io/basic-auth", "first-s3cret")).unwrap();
    wait_accepted(&lab, "True", "");
    wait_established(&lab);

    kubectl.apply(&secret("kubernetes.io/basic-auth", "second-s3cret")).unwrap();
    wait_session(&lab, "says what a wrong password looks like", |session| {
        session["state"] != "Established" && session["lastError"].to_string().contains("MD5 password")
    });
    demand(&lab, "second-s3cret");
    wait_established(&lab);

    let log = process::tail(&run.log("node1-agent"), usize::MAX);
    assert!(!log.is_empty() && !log.contains("s3cret"), "no password in the log");
}
