//! A router that asks for everything again (RFC 2918, RFC 7313).

use super::*;

fn routes(med: u32) -> Vec<Route> {
    (0..3000_u32).map(|host| with_med(&format!("10.0.{}.{}/32", host >> 8, host & 255), med)).collect()
}

#[test]
fn a_refresh_stands_between_its_marks_and_takes_no_route_along_rfc_7313_section_4() {
    let mut net = session();
    announce(&mut net, "a", &routes(1));
    announce(&mut net, "a", &[route("2001:db8:1::/64", 0)]);
    settle(&mut net);
    let before = net.table("b", "a").unwrap().announced;
    net.ask_refresh("b", "a", Family::Ipv4Unicast);
    settle(&mut net);
    let helper = net.helper("b", "a").unwrap();
    assert_eq!((helper.refreshes, helper.routes(net.now()).len()), (1, 3001));
    assert_eq!(net.table("b", "a").unwrap().announced - before, 3000, "the other family stays as it is");
}

#[test]
fn what_changes_during_a_refresh_and_a_second_request_cost_no_route() {
    let mut net = session();
    announce(&mut net, "a", &routes(1));
    settle(&mut net);
    net.ask_refresh("b", "a", Family::Ipv4Unicast);
    for med in 2..6 {
        let soon = net.now() + Duration::from_micros(150);
        net.run_to(soon);
        announce(&mut net, "a", &routes(med)[..2000]);
        net.with("a", |speaker, _| speaker.withdraw(&["10.0.11.1/32".parse().unwrap()]));
        net.ask_refresh("b", "a", Family::Ipv4Unicast);
    }
    settle(&mut net);
    let helper = net.helper("b", "a").unwrap();
    assert!(helper.refreshes >= 1);
    assert_eq!(helper.routes(net.now()).len(), 2999);
    assert_eq!(net.speaker("a").undrained().count(), 0);
}

#[test]
fn a_refresh_begins_behind_end_of_rib_rfc_7313_section_4() {
    let mut net = network(1, &["b"]);
    net.add(
        "a",
        address("a"),
        &SpeakerConfig { await_routes: Some(Duration::from_secs(60)), ..SpeakerConfig::default() },
    );
    set_peers(&mut net, "b", &[passive("b", "a")]);
    set_peers(&mut net, "a", &[config("a", "b")]);
    announce(&mut net, "a", &[route("198.51.100.1/32", 0)]);
    assert!(net.run_until(at(1), |net| net.is_up("a", "b")));
    settle(&mut net);
    net.ask_refresh("b", "a", Family::Ipv4Unicast);
    settle(&mut net);
    assert_eq!((net.helper("b", "a").unwrap().refreshes, net.speaker("a").undrained().count()), (0, 0));
    net.with("a", |speaker, _| speaker.replace_all(&[route("198.51.100.1/32", 0)]));
    settle(&mut net);
    assert_eq!(net.helper("b", "a").unwrap().refreshes, 1);
    assert_eq!(net.table("b", "a").unwrap().announced, 2);
}

#[test]
fn messages_of_up_to_65535_octets_are_sent_to_a_peer_that_takes_them_rfc_8654() {
    let mut net = session();
    announce(&mut net, "a", &routes(1));
    settle(&mut net);
    let table = net.table("b", "a").unwrap();
    assert_eq!((table.routes.len(), table.updates), (3000, 1 + 2), "and two End-of-RIB");
}
