//! The body of an UPDATE, behind one octet that says what was negotiated. What is read without a fault is written and
//! read again.
#![no_main]

use bgp::{
    message::Update,
    types::Family,
    wire::{self, DecodeContext, EncodeContext, Received, frame, update},
};
use bytes::BytesMut;
use fuzz::framed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else { return };
    let bit = |bit: u8| choice & (1 << bit) != 0;
    let families = Family::ALL.into_iter().zip([bit(3), bit(4)]).filter(|(_, closed)| !closed);
    let context = DecodeContext {
        four_octet_asn: bit(0),
        extended_next_hop: bit(1),
        is_ebgp: bit(2),
        families: families.map(|(family, _)| family).collect(),
    };
    let Some(message) = framed(2, body) else { return };
    if let Ok(Received::Update(read)) = wire::decode(&message, &context) {
        let counted = read.reach.iter().chain(&read.unreach).sum::<usize>();
        assert!(counted <= body.len(), "{counted} prefixes in {} octets", body.len());
        assert!(read.faults.len() <= 8);
    }
    for update in update::inspect::update(&message, &context).unwrap_or_default() {
        write_and_read(update, &context);
    }
});

fn write_and_read(update: Update, context: &DecodeContext) {
    let encode =
        EncodeContext { four_octet_asn: context.four_octet_asn, max_length: frame::MAX_EXTENDED_LENGTH };
    let mut out = BytesMut::new();
    match update.clone() {
        Update::Reach { nlri, .. } | Update::Unreach { nlri, .. } if nlri.is_empty() => return,
        // MP_REACH_NLRI may have an IPv4 next hop for IPv4 prefixes; it is written as NEXT_HOP, which says the same.
        Update::Reach { family, next_hop, attributes, nlri } => {
            let limit = usize::MAX;
            if update::encode_reach(family, &next_hop, &attributes, nlri, &encode, limit, &mut out).is_err() {
                return;
            }
        }
        Update::Unreach { family, nlri } => {
            update::encode_unreach(family, nlri, &encode, usize::MAX, &mut out);
        }
        Update::EndOfRib(family) => update::encode_end_of_rib(family, &mut out),
    }
    let length =
        frame::next(&out, frame::MAX_EXTENDED_LENGTH).expect("a good header").expect("a whole message");
    if length == out.len() {
        let reader = DecodeContext { is_ebgp: false, ..context.clone() };
        let read = update::inspect::update(&out, &reader).expect("what was written reads");
        assert_eq!(read, [without_host_bits(update)]);
    }
}

/// Received prefixes may have host bits set (RFC 4271 §4.3: irrelevant); none go out.
fn without_host_bits(mut update: Update) -> Update {
    if let Update::Reach { nlri, .. } | Update::Unreach { nlri, .. } = &mut update {
        for prefix in nlri {
            *prefix = prefix.trunc();
        }
    }
    update
}
