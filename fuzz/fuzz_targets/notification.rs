//! The body of a NOTIFICATION. What is read can be shown, and is written as it was.
#![no_main]

use bgp::wire::{self, DecodeContext, Received};
use bytes::BytesMut;
use fuzz::framed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some(message) = framed(3, body) else { return };
    let Ok(Received::Notification(notification)) = wire::decode(&message, &DecodeContext::default()) else {
        return;
    };
    assert!(!notification.to_string().contains(char::is_control), "a control character would end in logs");
    let mut out = BytesMut::new();
    wire::encode_notification(&notification, &mut out);
    if message.len() <= 4096 {
        assert_eq!(out, message);
    }
});
