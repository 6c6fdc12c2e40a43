//! How long a speaker takes between a command and the octets: a first table, one route among many, a replacement
//! that changes nothing.
#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(missing_docs, reason = "what criterion generates")]

use std::{hint::black_box, net::IpAddr, sync::Arc, time::Duration};

use bgp::{
    capabilities::Capabilities,
    config::{PeerAsn, PeerConfig, SpeakerConfig},
    message::Open,
    route::{Route, RouteAttributes, RouteClass},
    speaker::{ConnectionId, Event, Speaker},
    types::{Asn, Family, HoldTime, RouterId, Time},
    wire,
};
use bytes::BytesMut;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ipnet::IpNet;

const LOCAL: &str = "192.0.2.1";

fn asn(value: u32) -> Asn {
    Asn::new(value).unwrap()
}

fn router_id(host: u8) -> RouterId {
    RouterId::new([192, 0, 2, host].into()).unwrap()
}

/// What a router answers to our OPEN.
fn handshake() -> BytesMut {
    let capabilities = Capabilities {
        multiprotocol: Family::ALL.to_vec(),
        four_octet_asn: Some(64513),
        route_refresh: true,
        ..Capabilities::default()
    };
    let open = Open { asn: 64513, hold_time: HoldTime::DEFAULT, router_id: router_id(2), capabilities };
    let mut bytes = BytesMut::new();
    wire::encode_open(&open, &mut bytes);
    wire::encode_keepalive(&mut bytes);
    bytes
}

/// A speaker with these routes whose peer has just connected.
fn connected(routes: &[Route]) -> (Speaker, ConnectionId) {
    let mut speaker = Speaker::new(&SpeakerConfig::default());
    speaker.announce(routes);
    let address = "192.0.2.2".parse().unwrap();
    let peer = PeerConfig::new("router", address, router_id(1), asn(64512), PeerAsn::Exactly(asn(64513)));
    speaker.set_peers(vec![peer], Time::ZERO).unwrap();
    let mut events = std::iter::from_fn(|| speaker.poll_event());
    let dial = events.find_map(|event| match event {
        Event::Dial(id, _) => Some(id),
        _ => None,
    });
    let id = dial.unwrap();
    speaker.handle_dialed(id, Ok(LOCAL.parse::<IpAddr>().unwrap()), Time::ZERO);
    (speaker, id)
}

fn established(routes: &[Route]) -> (Speaker, ConnectionId) {
    let (mut speaker, id) = connected(routes);
    speaker.handle_received(id, &handshake(), Time::ZERO);
    drain(&mut speaker);
    (speaker, id)
}

/// Octets that go out, to a socket that takes everything.
fn drain(speaker: &mut Speaker) -> usize {
    let mut octets = 0;
    while let Some(transmit) = speaker.poll_transmit(Time::ZERO) {
        octets += transmit.bytes.len();
        speaker.handle_transmitted(transmit.connection, transmit.bytes.len(), Time::ZERO);
    }
    octets
}

fn routes(count: u32) -> Vec<Route> {
    let attributes = Arc::new(RouteAttributes::default());
    let prefix = |index: u32| IpNet::new(IpAddr::V4((0x0a00_0000 + index).into()), 32).unwrap();
    (0..count)
        .map(|index| Route {
            prefix: prefix(index),
            class: RouteClass(0),
            attributes: Arc::clone(&attributes),
        })
        .collect()
}

fn bench(criterion: &mut Criterion) {
    let table = routes(100_000);
    criterion.bench_function("first_table_100k", |bencher| {
        let open = handshake();
        let start = || connected(&table);
        let run = |(mut speaker, id): (Speaker, ConnectionId)| {
            speaker.handle_received(id, &open, Time::ZERO);
            assert!(drain(&mut speaker) > 500_000);
            speaker
        };
        bencher.iter_batched(start, run, BatchSize::PerIteration);
    });
    criterion.bench_function("announce_100k", |bencher| {
        let run = |(mut speaker, _): (Speaker, ConnectionId)| {
            speaker.announce(&table);
            assert!(drain(&mut speaker) > 500_000);
            speaker
        };
        bencher.iter_batched(|| established(&[]), run, BatchSize::PerIteration);
    });
    criterion.bench_function("replace_all_100k_unchanged", |bencher| {
        let (mut speaker, _) = established(&table);
        bencher.iter(|| {
            speaker.replace_all(&table);
            assert_eq!(drain(&mut speaker), 0);
        });
    });
    criterion.bench_function("one_route_among_100k", |bencher| {
        let (mut speaker, _) = established(&table);
        let one = routes(1);
        bencher.iter(|| {
            speaker.withdraw(&[one[0].prefix]);
            black_box(drain(&mut speaker));
            speaker.announce(&one);
            black_box(drain(&mut speaker))
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = bench
}
criterion_main!(benches);
