//! An agent that ends and comes back while a client sends: what the routers keep meanwhile (RFC 4724) loses no packet.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::IpAddr;

use e2e::{service, with_one_router};
use lab::{
    DataCentre, Error, PATIENCE, Run, require,
    traffic::{Sink, Stream},
    until,
};
use nix::sys::signal::Signal;
use serde_json::json;

/// A Service of both families whose addresses the router has from the node.
fn announced(lab: &DataCentre<'_>, name: &str) -> Vec<IpAddr> {
    let mut service = service(name, &json!({}));
    service["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    lab.cluster.kubectl().apply(&service.to_string()).unwrap();
    let addresses = lab.wait_addresses("default", name).unwrap();
    lab.wait_routes(&addresses, &["node1"]).unwrap();
    addresses
}

/// Waits until the router has sessions that are up, or none.
fn wait_session(lab: &DataCentre<'_>, is_up: bool) {
    until(format!("the router's session to be up: {is_up}"), PATIENCE, || {
        let sessions = lab.routers[0].sessions()?;
        require!(sessions.iter().any(lab::router::Session::is_established) == is_up, "{sessions:?}");
        Ok::<_, Error>(())
    })
    .unwrap();
}

/// Ends the agent with a signal under traffic and starts another one: not one packet of a thousand a second is lost.
fn restart_costs_no_packet(signal: Signal) {
    let run = Run::start().unwrap();
    let mut lab = with_one_router(&run, 1).unwrap();
    // On SIGTERM, too, routers are to keep what they have: another agent follows.
    lab.cluster.agent_environment.insert("PURELB_ON_SHUTDOWN".into(), "keep".into());
    lab.cluster.agent("node1").unwrap().terminate(PATIENCE).unwrap();
    lab.start_agent("node1").unwrap();
    let addresses = announced(&lab, "my-app");
    let (node, client) =
        (&lab.node("node1").unwrap().namespace.clone(), lab.topology.client.namespace.clone());
    let sink = Sink::start(node).unwrap();
    sink.wait_reachable(&client, &addresses).unwrap();
    let stream = Stream::start(&client, &addresses, &sink).unwrap();
    let agent = lab.cluster.agent("node1").unwrap();
    agent.signal(signal).unwrap();
    until("the agent to end", PATIENCE, || {
        require!(agent.exit_status()?.is_some(), "it runs");
        Ok::<_, Error>(())
    })
    .unwrap();
    wait_session(&lab, false);
    lab.start_agent("node1").unwrap();
    wait_session(&lab, true);
    // What the new agent announces by itself comes behind what it found: the router has had End-of-RIB, or soon will.
    announced(&lab, "later");
    sink.wait_reachable(&client, &addresses).unwrap();
    // However fast all that was: a second of traffic at least.
    stream.wait_arrived(&sink, 1000).unwrap();
    let (sent, lost) = stream.finish(&sink).unwrap();
    assert_eq!(lost, 0, "of {sent} packets");
}

#[test]
fn an_agent_that_is_asked_to_end_and_comes_back_costs_no_packet() {
    restart_costs_no_packet(Signal::SIGTERM);
}

#[test]
fn an_agent_that_is_killed_and_comes_back_costs_no_packet() {
    restart_costs_no_packet(Signal::SIGKILL);
}
