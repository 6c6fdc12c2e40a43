//! A router that sends a full table of 1,000,000 routes: it costs no memory, and the other peers go on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{net::IpAddr, sync::Arc, time::Duration};

use bgp::{
    attributes::{Attributes, NextHop},
    capabilities::Capabilities,
    config::{PeerAsn, PeerConfig, SpeakerConfig},
    driver::{self, Handle},
    message::Open,
    route::{Route, RouteAttributes, RouteClass},
    status::{PeerStatus, State},
    types::{Asn, Family, HoldTime, RouterId},
    wire,
};
use bytes::BytesMut;
use ipnet::{IpNet, Ipv4Net};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const ROUTES: u32 = 1_000_000;
/// Less than the bare prefixes of a quarter of them.
const MAX_GROWTH_OCTETS: u64 = 1_000_000;

fn asn(value: u32) -> Asn {
    Asn::new(value).unwrap()
}

fn peer(name: &str, address: &str, port: u16, id: u8, local: u32, remote: u32) -> PeerConfig {
    let router_id = RouterId::new([10, 0, 0, id].into()).unwrap();
    let peer_asn = PeerAsn::Exactly(asn(remote));
    let config = PeerConfig::new(name, address.parse().unwrap(), router_id, asn(local), peer_asn);
    PeerConfig { port, connect_retry_time: Duration::from_millis(200), ..config }
}

async fn until(handle: &Handle, name: &str, mut is_so: impl FnMut(&PeerStatus) -> bool) {
    let mut status = handle.watch_status();
    let found = status.wait_for(|status| status.peers.iter().any(|peer| *peer.name == *name && is_so(peer)));
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("in time").unwrap();
}

/// A router's end of a session that is up.
async fn greet(router: &TcpListener) -> TcpStream {
    let (mut stream, _) = router.accept().await.unwrap();
    let capabilities = Capabilities {
        multiprotocol: vec![Family::Ipv4Unicast],
        four_octet_asn: Some(64999),
        ..Capabilities::default()
    };
    let router_id = RouterId::new([10, 0, 0, 9].into()).unwrap();
    let open = Open { asn: 64999, hold_time: HoldTime::DEFAULT, router_id, capabilities };
    let mut octets = BytesMut::new();
    wire::encode_open(&open, &mut octets);
    wire::encode_keepalive(&mut octets);
    stream.write_all(&octets).await.unwrap();
    stream
}

/// So many routes, from 1.0.0.0/24 on, written as fast as the speaker takes them.
async fn flood(stream: &mut TcpStream, numbers: std::ops::Range<u32>) {
    let attributes = Attributes { as_path: vec![64999, 3356, 1299], ..Attributes::default() };
    let next_hop = NextHop::V4("127.0.0.2".parse().unwrap());
    let context = wire::EncodeContext { four_octet_asn: true, max_length: 4096 };
    let prefix = |number: u32| IpNet::V4(Ipv4Net::new((0x0100_0000 + (number << 8)).into(), 24).unwrap());
    let mut octets = BytesMut::new();
    for first in numbers.clone().step_by(5_000) {
        let some = (first..numbers.end.min(first + 5_000)).map(prefix);
        octets.clear();
        let family = Family::Ipv4Unicast;
        let limit = usize::MAX;
        wire::update::encode_reach(family, &next_hop, &attributes, some, &context, limit, &mut octets)
            .unwrap();
        stream.write_all(&octets).await.unwrap();
    }
}

/// What this process has in memory.
fn resident_octets() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_full_table_from_one_router_costs_no_memory_and_the_other_peers_go_on() {
    let any = |address: &str| vec![(address.parse::<IpAddr>().unwrap(), 0).into()];
    let b = driver::spawn(SpeakerConfig { listen: any("127.0.0.1"), ..SpeakerConfig::default() }).unwrap();
    let b_port = b.listening()[0].port();
    let of_a = PeerConfig { passive: true, ..peer("a", "127.0.0.1", 179, 2, 64513, 64512) };
    b.set_peers(vec![of_a]).await.unwrap();
    let router = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let router_port = router.local_addr().unwrap().port();
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    let flooding = peer("flooding", "127.0.0.2", router_port, 1, 64512, 64999);
    a.set_peers(vec![flooding, peer("b", "127.0.0.1", b_port, 1, 64512, 64513)]).await.unwrap();
    let mut stream = greet(&router).await;
    let (mut reader, writer) = (BytesMut::new(), &mut stream);
    until(&a, "b", |peer| peer.state == State::Established).await;
    until(&a, "flooding", |peer| peer.end_of_rib_sent).await;

    // Buffers have their size after a first part.
    flood(writer, 0..50_000).await;
    until(&a, "flooding", |peer| peer.received == [50_000, 0]).await;
    let before = resident_octets();
    flood(writer, 50_000..ROUTES / 2).await;
    let prefix: IpNet = "192.0.2.1/32".parse().unwrap();
    let attributes = Arc::new(RouteAttributes::default());
    a.announce([Route { prefix, class: RouteClass(0), attributes }]).await.unwrap();
    let told = until(&b, "a", |peer| peer.received == [1, 0]);
    tokio::join!(told, flood(writer, ROUTES / 2..ROUTES));
    until(&a, "flooding", |peer| peer.received == [ROUTES as usize, 0]).await;
    let after = resident_octets();
    assert!(after < before + MAX_GROWTH_OCTETS, "{} octets more", after - before);

    // The session is as good as before: it is told of routes, and loses nobody by closing.
    assert!(writer.read_buf(&mut reader).await.unwrap() > 0);
    drop(stream);
    until(&a, "flooding", |peer| peer.flaps == 1).await;
    until(&a, "b", |peer| peer.flaps == 0 && peer.advertised == [1, 0]).await;
}
