//! The body of an OPEN. What is read is written and read again, and negotiated.
#![no_main]

use bgp::{
    capabilities::{Capabilities, negotiate},
    config::PeerAsn,
    message::Open,
    types::{Family, HoldTime, RouterId},
    wire::{self, DecodeContext, Received},
};
use bytes::BytesMut;
use fuzz::framed;
use libfuzzer_sys::fuzz_target;

fn ours() -> Open {
    Open {
        asn: 64512,
        hold_time: HoldTime::DEFAULT,
        router_id: RouterId::new([10, 0, 0, 1].into()).expect("not 0.0.0.0"),
        capabilities: Capabilities {
            multiprotocol: Family::ALL.to_vec(),
            four_octet_asn: Some(64512),
            route_refresh: true,
            extended_next_hop: vec![Family::Ipv4Unicast],
            ..Capabilities::default()
        },
    }
}

fuzz_target!(|body: &[u8]| {
    let Some(message) = framed(1, body) else { return };
    let Ok(Received::Open(mut open)) = wire::decode(&message, &DecodeContext::default()) else { return };
    if let Ok(negotiated) = negotiate(&ours(), &open, PeerAsn::External) {
        assert!(!negotiated.families.is_empty());
    }
    // These two are received only.
    open.capabilities.hostname = None;
    open.capabilities.other_families = false;
    let mut out = BytesMut::new();
    wire::encode_open(&open, &mut out);
    assert_eq!(wire::decode(&out, &DecodeContext::default()), Ok(Received::Open(open)));
});
