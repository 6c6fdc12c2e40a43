//! The body of a ROUTE-REFRESH. What is read is written as it was.
#![no_main]

use bgp::wire::{self, DecodeContext, Received};
use bytes::BytesMut;
use fuzz::framed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some(message) = framed(5, body) else { return };
    if let Ok(Received::RouteRefresh(refresh)) = wire::decode(&message, &DecodeContext::default()) {
        let mut out = BytesMut::new();
        wire::encode_route_refresh(&refresh, &mut out);
        assert_eq!(out, message);
    }
});
