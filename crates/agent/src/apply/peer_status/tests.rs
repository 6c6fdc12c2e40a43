use api::{BGPNodeStatusStatus, bgp_node_status::BGPNodeStatusSpec};

use super::*;
use crate::members::Member;

fn peer(yaml: &str) -> BGPPeer {
    let mut peer = BGPPeer::new("tor1", serde_norway::from_str(yaml).unwrap());
    peer.metadata.generation = Some(3);
    peer
}

fn node(name: &str, state: SessionState) -> BGPNodeStatus {
    let mut node = BGPNodeStatus::new(name, BGPNodeStatusSpec::default());
    let session = NodePeerStatus { name: "tor1".to_owned(), state, ..NodePeerStatus::default() };
    node.status = Some(BGPNodeStatusStatus { peers: vec![session], ..BGPNodeStatusStatus::default() });
    node
}

fn status(peer: &BGPPeer, nodes: &[BGPNodeStatus]) -> BGPPeerStatus {
    status_at(9, peer, nodes, &["a", "b"])
}

/// With these nodes alive.
fn status_at(second: i64, peer: &BGPPeer, nodes: &[BGPNodeStatus], live: &[&str]) -> BGPPeerStatus {
    let mut roster = Roster::new();
    for (node, is_live) in live.iter().map(|node| (*node, true)).chain([("silent", false)]) {
        let (subnets, heartbeats, macs, agent) = Default::default();
        roster.insert(node.into(), Member { subnets, heartbeats, macs, agent, is_live });
    }
    let now = Timestamp::from_second(second).unwrap();
    peer_status(peer, nodes.iter(), &NodeInput::default(), &roster, now)
}

#[test]
fn a_peer_is_ready_when_every_matched_node_is_established() {
    let peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1}");
    for (nodes, established, ready, why) in [
        (vec![], 0, false, "NoNodes"),
        (
            vec![node("a", SessionState::Established), node("b", SessionState::Active)],
            1,
            false,
            "NotEstablished",
        ),
        (
            vec![node("a", SessionState::Established), node("b", SessionState::Established)],
            2,
            true,
            "Established",
        ),
    ] {
        let status = status(&peer, &nodes);
        assert_eq!(status.matched_nodes, i64::try_from(nodes.len()).unwrap());
        assert_eq!(status.established_nodes, established);
        assert!(condition::is_true(&status.conditions, condition::ACCEPTED));
        assert_eq!(condition::is_true(&status.conditions, condition::READY), ready);
        assert_eq!(status.conditions[1].reason, why);
    }
}

#[test]
fn a_refused_peer_says_which_field_and_writing_settles() {
    let mut peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, sourceAddress: '2001:db8::1'}");
    let first = status(&peer, &[]);
    let accepted = &first.conditions[0];
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "Invalid"));
    assert!(accepted.message.contains("spec.sourceAddress") && accepted.observed_generation == Some(3));
    peer.status = Some(first.clone());
    let later = status_at(99, &peer, &[], &[]);
    assert_eq!(later, first, "nothing changed, nothing to write");
}

#[test]
fn a_secret_that_a_node_cannot_use_is_in_the_condition() {
    let peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, passwordSecret: {name: s}}");
    let mut reporting = node("a", SessionState::Idle);
    let refusal = secret::Known::Missing.key("s").unwrap_err();
    reporting.status.as_mut().unwrap().peers[0].last_error = Some(format!("{REFUSED}{refusal}"));
    let accepted = &status(&peer, &[reporting]).conditions[0];
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "SecretNotUsable"));
    assert!(accepted.message.contains("there is no Secret s"), "{accepted:?}");
    let accepted = &status(&peer, &[node("a", SessionState::Active)]).conditions[0];
    assert_eq!(accepted.status, "True");
}

#[test]
fn what_every_node_refuses_is_not_accepted() {
    for (advertisement, field) in [
        ("communities: ['70000:1']", "spec.advertisements[0].communities[0]"),
        ("nextHop: 224.0.0.1", "spec.advertisements[0].nextHop"),
    ] {
        let peer = peer(&format!(
            "{{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, advertisements: [{{{advertisement}}}]}}"
        ));
        let accepted = &status(&peer, &[]).conditions[0];
        assert!(accepted.status == "False" && accepted.message.contains(field), "{accepted:?}");
    }
    let peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1}");
    let mut refusing = node("a", SessionState::Idle);
    let refusal = Refusal::invalid("spec.peerAddress", "BGPPeer tor0 has the same address on this node");
    refusing.status.as_mut().unwrap().peers[0].last_error = Some(format!("{REFUSED}{refusal}"));
    let accepted = &status(&peer, std::slice::from_ref(&refusing)).conditions[0];
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "Invalid"));
    assert!(accepted.message.contains("BGPPeer tor0"), "{accepted:?}");
    let accepted = &status(&peer, &[refusing, node("b", SessionState::Active)]).conditions[0];
    assert_eq!(accepted.status, "True", "b has a session");
}

#[test]
fn a_node_without_a_good_lease_has_no_session_whatever_it_said_last_and_is_named() {
    let peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1}");
    let established = |name: &str| node(name, SessionState::Established);
    let nodes =
        [established("a"), node("b", SessionState::Active), established("left"), established("silent")];
    let told = status_at(9, &peer, &nodes, &["a", "b"]);
    assert_eq!((told.matched_nodes, told.established_nodes), (4, 1));
    let ready = &told.conditions[1];
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "NotEstablished"));
    assert_eq!(
        ready.message,
        "established on 1 of 4 nodes; not on b; no agent with a good Lease on left, silent"
    );
    let told = status_at(9, &peer, &nodes[2..], &["a", "b"]);
    assert_eq!((told.matched_nodes, told.established_nodes), (2, 0), "nobody lives");
    assert!(!condition::is_true(&told.conditions, condition::READY));
    let told = status_at(9, &peer, &[established("a"), established("left")], &["a", "left"]);
    assert!(condition::is_true(&told.conditions, condition::READY), "{:?}", told.conditions);
}

#[test]
fn what_a_dead_node_refused_is_no_refusal_any_more() {
    let peer = peer("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, passwordSecret: {name: s}}");
    let mut dead = node("dead", SessionState::Idle);
    let refusal = secret::Known::Missing.key("s").unwrap_err();
    dead.status.as_mut().unwrap().peers[0].last_error = Some(format!("{REFUSED}{refusal}"));
    let told = status(&peer, &[dead, node("a", SessionState::Established)]);
    assert!(condition::is_true(&told.conditions, condition::ACCEPTED), "{:?}", told.conditions);
}

#[test]
fn of_many_missing_nodes_the_first_are_named() {
    let names: Vec<String> = (10..30).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(listed(&names[..2]), "n10, n11");
    assert_eq!(listed(&names), "n10, n11, n12, n13, n14, n15, n16, n17, n18, n19 and 10 more");
}
