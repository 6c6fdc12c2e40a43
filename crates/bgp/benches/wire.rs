//! How long the codec takes for what has to be fast: 100,000 routes out, and a full UPDATE in.
#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(missing_docs, reason = "what criterion generates")]

use std::{
    hint::black_box,
    net::{Ipv4Addr, Ipv6Addr},
};

use bgp::{
    attributes::{Attributes, NextHop},
    types::Family,
    wire::{self, DecodeContext, EncodeContext, frame, update},
};
use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const ROUTES: u32 = 100_000;
const CONTEXT: EncodeContext = EncodeContext { four_octet_asn: true, max_length: frame::MAX_LENGTH };

fn attributes() -> Attributes {
    Attributes { as_path: vec![64512], ..Attributes::default() }
}

fn routes(family: Family) -> (NextHop, Vec<IpNet>) {
    match family {
        Family::Ipv4Unicast => {
            let host = |n| Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0a00_0000 + n), 32).into();
            (NextHop::V4(Ipv4Addr::LOCALHOST), (0..ROUTES).map(host).collect())
        }
        Family::Ipv6Unicast => {
            let base = 0x2001_0db8_u128 << 96;
            let host = |n| Ipv6Net::new_assert(Ipv6Addr::from_bits(base + u128::from(n)), 128).into();
            let next_hop = NextHop::V6 { global: Ipv6Addr::from_bits(base), link_local: None };
            (next_hop, (0..ROUTES).map(host).collect())
        }
    }
}

fn encode(criterion: &mut Criterion) {
    let attributes = attributes();
    for family in Family::ALL {
        let (next_hop, nlri) = routes(family);
        let mut out = BytesMut::with_capacity(2_000_000);
        criterion.bench_function(&format!("encode_reach/{family}/100000"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let nlri = nlri.iter().copied();
                update::encode_reach(family, &next_hop, &attributes, nlri, &CONTEXT, usize::MAX, &mut out)
                    .unwrap()
            });
        });
        criterion.bench_function(&format!("encode_unreach/{family}/100000"), |bencher| {
            bencher.iter(|| {
                out.clear();
                update::encode_unreach(family, nlri.iter().copied(), &CONTEXT, usize::MAX, &mut out)
            });
        });
        criterion.bench_function(&format!("encode_reach/{family}/1"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let one = nlri.iter().copied().take(1);
                update::encode_reach(family, &next_hop, &attributes, one, &CONTEXT, usize::MAX, &mut out)
                    .unwrap()
            });
        });
    }
}

fn decode(criterion: &mut Criterion) {
    let context = DecodeContext {
        four_octet_asn: true,
        extended_next_hop: false,
        families: Family::ALL.to_vec(),
        is_ebgp: true,
    };
    for family in Family::ALL {
        let (next_hop, nlri) = routes(family);
        let mut out = BytesMut::new();
        update::encode_reach(family, &next_hop, &attributes(), nlri, &CONTEXT, usize::MAX, &mut out).unwrap();
        criterion.bench_function(&format!("decode/{family}/100000"), |bencher| {
            bencher.iter(|| {
                let mut rest = &out[..];
                while let Some(length) = frame::next(rest, frame::MAX_LENGTH).unwrap() {
                    let (message, behind) = rest.split_at(length);
                    black_box(wire::decode(message, &context).unwrap());
                    rest = behind;
                }
            });
        });
    }
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
