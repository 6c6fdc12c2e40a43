//! A byte stream cut into messages, as a session cuts it: every message is decoded, every error ends the stream.
#![no_main]

use bgp::wire::{self, DecodeContext, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| {
    let Some((choice, mut rest)) = stream.split_first() else { return };
    let max_length = if choice & 1 == 0 { frame::MAX_LENGTH } else { frame::MAX_EXTENDED_LENGTH };
    let context = DecodeContext { four_octet_asn: choice & 2 != 0, ..DecodeContext::default() };
    while let Ok(Some(length)) = frame::next(rest, max_length) {
        assert!((frame::HEADER_LENGTH..=max_length).contains(&length), "a message of {length} octets");
        let (message, behind) = rest.split_at(length);
        if wire::decode(message, &context).is_err() {
            return;
        }
        rest = behind;
    }
});
