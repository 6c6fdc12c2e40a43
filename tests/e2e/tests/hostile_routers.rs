//! A router that breaks the protocol gets the NOTIFICATION that RFC 4271 asks for, its BGPNodeStatus says why, and
//! the session with the good router beside it, and its routes, do not notice.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::IpAddr;

use e2e::{
    hostile::{self, HostileRouter, Script, message},
    peer, service, with_one_router,
};
use lab::{DataCentre, Error, PATIENCE, Run, require, until};
use serde_json::{Value, json};

/// A node with a good router and an address announced to it, and then a peer that follows the script.
fn beside_a_good_router(script: Script, check: impl FnOnce(&DataCentre<'_>, &HostileRouter)) {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 1).unwrap();
    let kubectl = lab.cluster.kubectl();
    kubectl.apply(&service("my-app", &json!({})).to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    lab.wait_routes(&addresses, &["node1"]).unwrap();
    let before = peer_status(&lab, "router1").unwrap();

    let control = &lab.topology.control;
    let router = HostileRouter::start(control, script).unwrap();
    let address = IpAddr::V4(control.addresses.v4);
    kubectl.apply(&peer("hostile", hostile::ASN.into(), address).to_string()).unwrap();
    check(&lab, &router);

    let after = peer_status(&lab, "router1").unwrap();
    assert_eq!((&after["state"], &after["flaps"]), (&json!("Established"), &json!(0)), "{after}");
    assert_eq!(after["since"], before["since"], "the good session is the same as before");
    lab.wait_routes(&addresses, &["node1"]).unwrap();
}

/// What node1 says of one of its peers.
fn peer_status(lab: &DataCentre<'_>, name: &str) -> lab::Result<Value> {
    let status = lab.cluster.kubectl().get(&["bgpnodestatus", "node1", "-n", e2e::INSTALL_NAMESPACE])?;
    let peers = status.pointer("/status/peers").and_then(Value::as_array).into_iter().flatten();
    let found = peers.into_iter().find(|peer| peer["name"] == name).cloned();
    found.ok_or_else(|| Error::unmet(format!("no peer {name} in {}", status["status"])))
}

/// Waits until the router has heard this NOTIFICATION and the status says so in these words.
fn expect_notification(lab: &DataCentre<'_>, router: &HostileRouter, expected: (u8, u8), words: &str) {
    until(format!("NOTIFICATION {expected:?}"), PATIENCE, || {
        let heard = router.notifications();
        require!(heard.contains(&expected), "notifications {heard:?}");
        Ok::<_, Error>(())
    })
    .unwrap();
    until(format!("a lastError with {words:?}"), PATIENCE, || {
        let status = peer_status(lab, "hostile")?;
        let error = status["lastError"].as_str().unwrap_or_default();
        require!(error.to_lowercase().contains(words), "{status}");
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_ne!(peer_status(lab, "hostile").unwrap()["state"], "Established");
}

#[test]
fn an_open_with_the_wrong_as_gets_bad_peer_as() {
    beside_a_good_router(Script::InsteadOfOpen(hostile::open(65099)), |lab, router| {
        expect_notification(lab, router, (2, 2), "peer as");
    });
}

#[test]
fn an_open_of_another_version_gets_unsupported_version_number() {
    let open = hostile::encode(message::OPEN, &hostile::open_body(3, hostile::ASN));
    beside_a_good_router(Script::InsteadOfOpen(open), |lab, router| {
        expect_notification(lab, router, (2, 1), "version");
    });
}

#[test]
fn an_open_that_is_too_short_gets_bad_message_length() {
    let open = hostile::encode(message::OPEN, &[4, 0, 1]);
    beside_a_good_router(Script::InsteadOfOpen(open), |lab, router| {
        expect_notification(lab, router, (1, 2), "length");
    });
}

#[test]
fn an_update_whose_withdrawn_routes_run_past_its_end_gets_malformed_attribute_list() {
    let update = hostile::encode(message::UPDATE, &[0xff, 0xff, 0, 0]);
    beside_a_good_router(Script::AfterEstablished(update), |lab, router| {
        expect_notification(lab, router, (3, 1), "malformed attribute list");
    });
}

#[test]
fn an_update_with_a_bad_origin_is_treated_as_withdraw_and_the_session_stays() {
    // ORIGIN 9, an empty AS_PATH, NEXT_HOP, and the prefix 203.0.113.0/24 (RFC 7606 §7.1).
    let attributes = [0x40, 1, 1, 9, 0x40, 2, 0, 0x40, 3, 4, 172, 30, 1, 250];
    let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
    let body = [&[0, 0][..], &length, &attributes, &[24, 203, 0, 113]].concat();
    let update = hostile::encode(message::UPDATE, &body);
    beside_a_good_router(Script::AfterEstablished(update), |lab, router| {
        // The UPDATE is sent after the first KEEPALIVE; two more show that the session outlived it.
        until("KEEPALIVEs on the first connection", PATIENCE, || {
            let heard = router.heard();
            let first = heard.iter().filter(|heard| heard.connection == 1);
            let count = first.filter(|heard| heard.kind == message::KEEPALIVE).count();
            require!(count >= 4, "{count} KEEPALIVEs, notifications {:?}", router.notifications());
            Ok::<_, Error>(())
        })
        .unwrap();
        assert_eq!(router.notifications(), []);
        assert_eq!(peer_status(lab, "hostile").unwrap()["state"], "Established");
    });
}

#[test]
fn a_notification_that_is_too_short_ends_its_session_alone() {
    let notification = hostile::encode(message::NOTIFICATION, &[6]);
    beside_a_good_router(Script::AfterEstablished(notification), |lab, router| {
        until("a new connection after the first ended", PATIENCE, || {
            let connections = router.heard().iter().map(|heard| heard.connection).max();
            require!(connections >= Some(2), "{connections:?} connections");
            let status = peer_status(lab, "hostile")?;
            require!(status["lastError"].is_string(), "{status}");
            Ok::<_, Error>(())
        })
        .unwrap();
    });
}

#[test]
fn a_router_that_never_answers_stays_out_of_established() {
    beside_a_good_router(Script::Silent, |lab, router| {
        until("an OPEN at the silent router", PATIENCE, || {
            let heard = router.heard();
            require!(heard.iter().any(|heard| heard.kind == message::OPEN), "{heard:?}");
            Ok::<_, Error>(())
        })
        .unwrap();
        until("the state OpenSent", PATIENCE, || {
            let status = peer_status(lab, "hostile")?;
            require!(status["state"] == "OpenSent", "{status}");
            Ok::<_, Error>(())
        })
        .unwrap();
    });
}
