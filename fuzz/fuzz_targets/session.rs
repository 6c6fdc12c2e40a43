//! A whole session fed with anything: what is not a message, what is one at the wrong time, connections that come, go and
//! collide, time that passes, a router that reads nothing. The speaker never panics, always says whole messages, has one
//! session at most, always knows what to wait for, and keeps only so much for whoever does not read it.
//!
//! The input is a script: an octet that says what happens, with what it takes behind it.
#![no_main]

use std::{collections::HashMap, sync::Arc, time::Duration};

use bgp::{
    capabilities::{Capabilities, GracefulRestart},
    config::{GracefulRestartConfig, PeerAsn, PeerConfig, ShutdownMode, SpeakerConfig},
    message::{Open, RefreshSubtype, RouteRefresh},
    route::{Route, RouteAttributes, RouteClass},
    speaker::{Accepted, ConnectionId, Event, Speaker},
    status::State,
    types::{Asn, Family, HoldTime, RouterId, Time},
    wire::{self, frame},
};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

const ROUTER: [u8; 4] = [192, 0, 2, 2];
const LOCAL: [u8; 4] = [192, 0, 2, 1];

/// The router, as far as there is one.
struct Table {
    speaker: Speaker,
    now: Time,
    dials: Vec<ConnectionId>,
    connections: Vec<ConnectionId>,
    /// What was said on each connection and not taken by its socket.
    queued: HashMap<ConnectionId, usize>,
}

/// More than the limit of the speaker and the message that reaches it.
const MAX_QUEUED: usize = 300 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, mut script)) = input.split_first() else { return };
    let mut table = Table::new(choice);
    while let Some((&what, rest)) = script.split_first() {
        script = table.step(what, rest);
        table.drain();
    }
    // Whatever was left behind, time leads out of it.
    for _ in 0..64 {
        let Some(at) = table.speaker.poll_timeout() else { break };
        table.now = table.now.max(at);
        table.speaker.handle_timeout(table.now);
        assert!(table.speaker.poll_timeout().is_none_or(|next| next > table.now), "woken for nothing");
        table.drain();
    }
});

impl Table {
    fn new(choice: u8) -> Table {
        let bit = |bit: u8| choice & (1 << bit) != 0;
        let await_routes = bit(0).then_some(Duration::from_secs(60));
        let mut speaker = Speaker::new(&SpeakerConfig { await_routes, ..SpeakerConfig::default() });
        speaker.announce(&[route("198.51.100.1/32"), route("2001:db8::/64")]);
        if bit(1) {
            speaker.restarted(&Family::ALL, Time::ZERO);
        }
        let router_id = RouterId::new(LOCAL.into()).expect("not zero");
        let local = Asn::new(64512).expect("not zero");
        let peer_asn = if bit(2) { PeerAsn::Internal } else { PeerAsn::External };
        let peer = PeerConfig {
            graceful_restart: bit(3).then(GracefulRestartConfig::default),
            passive: bit(4),
            ..PeerConfig::new("router", ROUTER.into(), router_id, local, peer_asn)
        };
        speaker.set_peers(vec![peer], Time::ZERO).expect("one peer");
        let mut table = Table { speaker, now: Time::ZERO, dials: Vec::new(), connections: Vec::new(), queued: HashMap::new() };
        table.drain();
        table
    }

    /// One thing that happens; returns what is left of the script.
    fn step<'a>(&mut self, what: u8, rest: &'a [u8]) -> &'a [u8] {
        let argument = rest.first().copied().unwrap_or(0);
        let on = self.connections.get(usize::from(argument) % self.connections.len().max(1)).copied();
        match (what, on) {
            (0..=127, Some(on)) => {
                let (octets, rest) = rest.split_at(rest.len().min(usize::from(what)));
                self.speaker.handle_received(on, octets, self.now);
                return rest;
            }
            // A message whose frame is good, with anything in it.
            (128..=159, Some(on)) => {
                let (body, rest) = rest.split_at(rest.len().min(usize::from(what - 128) * 4));
                if let Some(message) = fuzz::framed(argument % 7, body) {
                    self.speaker.handle_received(on, &message, self.now);
                }
                return rest;
            }
            (160..=191, Some(on)) => self.speaker.handle_received(on, &handshake(argument), self.now),
            (192..=203, _) => {
                if let Some(dial) = self.dials.pop() {
                    let result = if argument < 200 { Ok(LOCAL.into()) } else { Err("refused".to_owned()) };
                    if result.is_ok() {
                        self.connections.push(dial);
                    }
                    self.speaker.handle_dialed(dial, result, self.now);
                }
            }
            (204..=215, _) => {
                let from = (ROUTER, 40_000).into();
                if let Accepted::Taken(id, _) = self.speaker.handle_accepted(from, LOCAL.into(), self.now) {
                    self.connections.push(id);
                }
            }
            (216..=227, _) => {
                self.now = self.now + Duration::from_secs(u64::from(argument));
                self.speaker.handle_timeout(self.now);
            }
            (228..=239, Some(on)) => {
                self.connections.retain(|id| *id != on);
                self.speaker.handle_closed(on, "reset", self.now);
            }
            (240..=247, Some(on)) => {
                let octets = usize::from(argument) * 16;
                let queued = self.queued.entry(on).or_default();
                *queued = queued.saturating_sub(octets);
                self.speaker.handle_transmitted(on, octets, self.now);
            }
            // A router that asks for everything again and again.
            (250..=251, Some(on)) => {
                for _ in 0..usize::from(argument) * 16 {
                    self.speaker.handle_received(on, &refresh(), self.now);
                    self.drain();
                }
            }
            (248, _) => self.speaker.replace_all(&[route("198.51.100.2/32")]),
            (249, _) => self.speaker.stop(&ShutdownMode::Restart, self.now),
            _ => {}
        }
        rest.get(1..).unwrap_or_default()
    }

    /// Does what the speaker wants.
    fn drain(&mut self) {
        loop {
            while let Some(event) = self.speaker.poll_event() {
                match event {
                    Event::Dial(id, _) => self.dials.push(id),
                    Event::Abort(id) => self.dials.retain(|dial| *dial != id),
                    Event::Close(id, last) => {
                        self.connections.retain(|connection| *connection != id);
                        check(&last);
                    }
                    Event::Changed(..) | Event::RoutesOverdue => {}
                }
            }
            let Some(transmit) = self.speaker.poll_transmit(self.now) else { break };
            check(&transmit.bytes);
            let queued = self.queued.entry(transmit.connection).or_default();
            *queued += transmit.bytes.len();
            assert!(*queued <= MAX_QUEUED, "{queued} octets wait for a router that does not read");
        }
        let status = self.speaker.status();
        let [peer] = status.peers.as_slice() else { panic!("one peer is configured: {status:?}") };
        assert!(peer.state == State::Established || peer.families.is_empty());
        assert!(self.connections.len() <= 2, "{:?}", self.connections);
    }
}

/// Whole messages, every one with a good frame.
fn check(mut octets: &[u8]) {
    while !octets.is_empty() {
        let length = frame::next(octets, frame::MAX_EXTENDED_LENGTH).expect("a good header");
        octets = octets.get(length.expect("a whole message")..).unwrap_or_default();
    }
}

/// ROUTE-REFRESH for IPv4 unicast.
fn refresh() -> BytesMut {
    let mut octets = BytesMut::new();
    let (family, subtype) = (Family::Ipv4Unicast, RefreshSubtype::Request);
    wire::encode_route_refresh(&RouteRefresh { afi: family.afi(), safi: family.safi(), subtype }, &mut octets);
    octets
}

/// An OPEN that is acceptable or nearly so, and a KEEPALIVE.
fn handshake(choice: u8) -> BytesMut {
    let bit = |bit: u8| choice & (1 << bit) != 0;
    let asn = if bit(0) { 64512 } else { 64513 };
    let graceful_restart = bit(1).then(|| GracefulRestart {
        restarting: bit(2),
        notification: bit(3),
        restart_time_secs: 60,
        families: if bit(4) { vec![(Family::Ipv4Unicast, true)] } else { Vec::new() },
    });
    let capabilities = Capabilities {
        multiprotocol: Family::ALL.to_vec(),
        four_octet_asn: bit(5).then_some(asn),
        route_refresh: true,
        enhanced_route_refresh: bit(6),
        extended_message: bit(7),
        graceful_restart,
        ..Capabilities::default()
    };
    let router_id = RouterId::new(ROUTER.into()).expect("not zero");
    let mut octets = BytesMut::new();
    wire::encode_open(&Open { asn, hold_time: HoldTime::DEFAULT, router_id, capabilities }, &mut octets);
    wire::encode_keepalive(&mut octets);
    octets
}

fn route(prefix: &str) -> Route {
    let attributes = Arc::new(RouteAttributes::default());
    Route { prefix: prefix.parse().expect("a prefix"), class: RouteClass(0), attributes }
}
