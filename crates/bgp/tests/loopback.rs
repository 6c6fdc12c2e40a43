//! Two speakers on real sockets, in one process, over the loopback interface.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bgp::{
    config::{Hops, OwnNextHops, PeerAsn, PeerConfig, ShutdownMode, SpeakerConfig},
    driver::{self, Handle},
    md5::Md5Key,
    route::{ExportPolicy, Route, RouteAttributes, RouteClass},
    status::{PeerStatus, State},
    types::{Asn, RouterId},
};
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};

const LOOPBACK: &str = "127.0.0.1";

fn asn(value: u32) -> Asn {
    Asn::new(value).unwrap()
}

fn peer(name: &str, id: u8, local: u32, remote: u32) -> PeerConfig {
    let router_id = RouterId::new([10, 0, 0, id].into()).unwrap();
    let address: IpAddr = LOOPBACK.parse().unwrap();
    PeerConfig {
        connect_retry_time: Duration::from_millis(200),
        next_hops: OwnNextHops { ipv4: None, ipv6: Some("2001:db8::1".parse().unwrap()) },
        ..PeerConfig::new(name, address, router_id, asn(local), PeerAsn::Exactly(asn(remote)))
    }
}

/// A speaker that waits to be connected to, and the port it does so on.
fn listening() -> (Handle, u16) {
    let config = SpeakerConfig {
        listen: vec![(LOOPBACK.parse::<IpAddr>().unwrap(), 0).into()],
        ..SpeakerConfig::default()
    };
    let handle = driver::spawn(config).unwrap();
    let port = handle.listening()[0].port();
    (handle, port)
}

async fn until(handle: &Handle, what: &str, mut is_so: impl FnMut(&PeerStatus) -> bool) -> PeerStatus {
    let mut status = handle.watch_status();
    let found = tokio::time::timeout(
        Duration::from_secs(20),
        status.wait_for(|status| status.peers.first().is_some_and(&mut is_so)),
    );
    match found.await {
        Ok(status) => status.unwrap().peers[0].clone(),
        Err(_) => panic!("not {what} in time: {:?}", handle.watch_status().borrow()),
    }
}

async fn until_established(handle: &Handle) -> PeerStatus {
    until(handle, "Established", |peer| peer.state == State::Established).await
}

/// Both ends of a session: the second one listens.
async fn session() -> (Handle, Handle) {
    let (a, b, _) = session_on_port().await;
    (a, b)
}

async fn session_on_port() -> (Handle, Handle, u16) {
    let (b, port) = listening();
    b.set_peers(vec![PeerConfig { passive: true, ..peer("a", 2, 64513, 64512) }]).await.unwrap();
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    a.set_peers(vec![PeerConfig { port, ..peer("b", 1, 64512, 64513) }]).await.unwrap();
    until_established(&a).await;
    until_established(&b).await;
    (a, b, port)
}

fn route(prefix: &str) -> Route {
    let prefix = prefix.parse::<IpNet>().unwrap();
    Route { prefix, class: RouteClass(0), attributes: Arc::new(RouteAttributes::default()) }
}

fn hosts(count: u32) -> Vec<Route> {
    let host = |index| IpNet::new(std::net::Ipv4Addr::from_bits(0x0a64_0000 + index).into(), 32).unwrap();
    let attributes = Arc::new(RouteAttributes::default());
    (0..count)
        .map(|index| Route { prefix: host(index), class: RouteClass(0), attributes: Arc::clone(&attributes) })
        .collect()
}

#[tokio::test]
async fn routes_of_both_families_reach_the_peer_and_the_barrier_waits_for_them() {
    let (a, b) = session().await;
    a.announce(vec![route("192.0.2.1/32"), route("2001:db8:1::/64")]).await.unwrap();
    a.barrier().await.unwrap();
    let status = until(&b, "told of both", |peer| peer.received == [1, 1]).await;
    assert_eq!(status.peer_router_id, RouterId::new([10, 0, 0, 1].into()));
    a.withdraw(vec!["192.0.2.1/32".parse().unwrap()]).await.unwrap();
    a.barrier().await.unwrap();
    let status = until_established(&a).await;
    assert_eq!((status.advertised, status.end_of_rib_sent), ([0, 1], true));
}

#[tokio::test]
async fn a_large_table_arrives_whole_and_in_few_messages() {
    let (a, b) = session().await;
    a.replace_all(hosts(50_000)).await.unwrap();
    a.barrier().await.unwrap();
    until(&b, "told of all", |peer| peer.received == [50_000, 0]).await;
    let status = until_established(&a).await;
    // 13,098 prefixes a message (RFC 8654), and two End-of-RIB.
    assert_eq!((status.advertised, status.updates_sent), ([50_000, 0], 4 + 2));
    a.replace_all(hosts(50_000)).await.unwrap();
    a.barrier().await.unwrap();
    assert_eq!(until_established(&a).await.updates_sent, 6, "nothing has changed");
}

#[tokio::test]
async fn calls_that_nobody_awaits_count_in_their_order_and_share_messages() {
    let (a, b) = session().await;
    for route in hosts(10_000) {
        a.announce([route]);
    }
    // The last word on these is that they go, and on the first of them that it stays.
    for route in &hosts(100)[..50] {
        a.withdraw([route.prefix]);
    }
    a.announce(hosts(1)).await.unwrap();
    a.barrier().await.unwrap();
    until(&b, "told", |peer| peer.received == [10_000 - 49, 0]).await;
    // In one message (RFC 8654), and two End-of-RIB.
    assert_eq!(until_established(&a).await.updates_sent, 1 + 2);
    for route in hosts(10_000) {
        a.withdraw([route.prefix]);
    }
    a.barrier().await.unwrap();
    let status = until_established(&a).await;
    assert_eq!((status.advertised, status.updates_sent), ([0, 0], 1 + 2 + 1));
}

#[tokio::test]
async fn a_wrong_as_is_told_in_words_on_both_sides() {
    let (b, port) = listening();
    b.set_peers(vec![PeerConfig { passive: true, ..peer("a", 2, 64513, 64999) }]).await.unwrap();
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    a.set_peers(vec![PeerConfig { port, ..peer("b", 1, 64512, 64513) }]).await.unwrap();
    let status = until(&b, "refused", |peer| peer.last_error.is_some()).await;
    let error = status.last_error.unwrap();
    assert!(error.contains("AS 64512") && error.contains("AS 64999"), "{error}");
    // OPEN Message Error, by code; there may have been more attempts.
    assert!(status.notifications.sent.keys().eq(&[2]) && status.notifications.received.is_empty());
    let status = until(&a, "told", |peer| {
        peer.last_error.as_ref().is_some_and(|error| error.contains("received NOTIFICATION"))
    });
    let status = status.await;
    assert!(status.notifications.received.keys().eq(&[2]) && status.notifications.sent.is_empty());
    assert!(status.last_error.unwrap().contains("peer AS differs"));
}

#[tokio::test]
async fn a_dial_that_is_refused_is_reported_and_tried_again() {
    let (b, port) = listening();
    b.shutdown(ShutdownMode::Restart).await;
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    a.set_peers(vec![PeerConfig { port, ..peer("b", 1, 64512, 64513) }]).await.unwrap();
    let status = until(&a, "refused", |peer| peer.last_error.is_some()).await;
    assert!(status.last_error.unwrap().contains("cannot connect to 127.0.0.1"));
    let listen = vec![(LOOPBACK.parse::<IpAddr>().unwrap(), port).into()];
    let b = driver::spawn(SpeakerConfig { listen, ..SpeakerConfig::default() }).unwrap();
    b.set_peers(vec![PeerConfig { passive: true, ..peer("a", 2, 64513, 64512) }]).await.unwrap();
    until_established(&a).await;
}

#[tokio::test]
async fn the_first_dial_that_is_answered_counts_whatever_became_of_those_before() {
    use tokio::io::AsyncReadExt;
    // A queue of one: while a connection waits in it the router does not answer.
    let router = tokio::net::TcpSocket::new_v4().unwrap();
    router.bind((LOOPBACK.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
    let router = router.listen(0).unwrap();
    let address = router.local_addr().unwrap();
    let waiting = tokio::net::TcpStream::connect(address).await.unwrap();
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    let connect_retry_time = Duration::from_secs(2);
    let config = PeerConfig { port: address.port(), connect_retry_time, ..peer("b", 1, 64512, 64513) };
    a.set_peers(vec![config]).await.unwrap();
    until(&a, "without an answer", |peer| peer.last_error.is_some()).await;
    let (first, from) = router.accept().await.unwrap();
    assert_eq!(from, waiting.local_addr().unwrap());
    drop(first);
    let (mut stream, _) = router.accept().await.unwrap();
    let mut open = [0; 29];
    stream.read_exact(&mut open).await.expect("an OPEN comes over the first connection");
}

#[tokio::test]
async fn shutdown_tells_the_peer_why() {
    let (a, b) = session().await;
    a.shutdown(ShutdownMode::Administrative("node is drained".to_owned())).await;
    let status = until(&b, "down", |peer| peer.state != State::Established).await;
    let error = status.last_error.unwrap();
    assert!(error.contains("administrative shutdown") && error.contains("node is drained"), "{error}");
    assert!(matches!(a.announce([]).await, Err(driver::Error::Stopped)));
}

#[tokio::test]
async fn the_speaker_ends_with_its_last_handle() {
    let (a, b) = session().await;
    let other = a.clone();
    drop(a);
    other.announce([route("192.0.2.1/32")]).await.unwrap();
    until(&b, "told", |peer| peer.received == [1, 0]).await;
    drop(other);
    until(&b, "down", |peer| peer.state != State::Established).await;
}

#[tokio::test]
async fn equal_peers_a_refused_set_and_another_export_do_not_touch_the_session() {
    let (a, b, port) = session_on_port().await;
    a.announce(vec![route("192.0.2.1/32")]).await.unwrap();
    until(&b, "told", |peer| peer.received == [1, 0]).await;
    let before = until(&a, "counted", |peer| peer.advertised == [1, 0]).await;
    let config = PeerConfig { port, ..peer("b", 1, 64512, 64513) };
    a.set_peers(vec![config.clone()]).await.unwrap();
    assert!(a.set_peers(vec![config.clone(), config.clone()]).await.is_err(), "names are unique");
    a.barrier().await.unwrap();
    assert_eq!(until_established(&a).await, before);
    let export = ExportPolicy::Classes(BTreeMap::new());
    a.set_peers(vec![PeerConfig { export, ..config }]).await.unwrap();
    let after = until(&a, "filtered", |peer| peer.advertised == [0, 0]).await;
    assert_eq!((after.since, after.flaps), (before.since, 0));
}

#[tokio::test]
async fn what_a_router_said_before_it_reset_the_connection_is_told() {
    use bgp::{notification::*, wire};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let router = tokio::net::TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = router.local_addr().unwrap().port();
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    a.set_peers(vec![PeerConfig { port, ..peer("b", 1, 64512, 64513) }]).await.unwrap();
    let (mut stream, _) = router.accept().await.unwrap();
    stream.read_exact(&mut [0; 29]).await.unwrap();
    let mut farewell = bytes::BytesMut::new();
    let text = Notification::with_text(CEASE_ADMINISTRATIVE_SHUTDOWN, "maintenance");
    wire::encode_notification(&text, &mut farewell);
    stream.write_all(&farewell).await.unwrap();
    // What is left of the OPEN is unread, so that this resets the connection.
    drop(stream);
    let status = until(&a, "told", |peer| peer.last_error.is_some()).await;
    let error = status.last_error.unwrap();
    assert!(error.contains("administrative shutdown") && error.contains("maintenance"), "{error}");
}

/// Where a router listens that reads nothing any more once a session is up.
fn forgetful_router() -> tokio::net::TcpListener {
    let router = tokio::net::TcpSocket::new_v4().unwrap();
    router.set_recv_buffer_size(4096).unwrap();
    router.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    router.listen(1).unwrap()
}

/// Does a router's part of the handshake, with this hold time.
async fn accept_session(router: &tokio::net::TcpListener, hold_time: u16) -> tokio::net::TcpStream {
    use bgp::{types::HoldTime, wire};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut stream, _) = router.accept().await.unwrap();
    let mut open = vec![0; 19];
    stream.read_exact(&mut open).await.unwrap();
    open.resize(usize::from(u16::from_be_bytes([open[16], open[17]])), 0);
    stream.read_exact(&mut open[19..]).await.unwrap();
    let wire::Received::Open(mut answer) = wire::decode(&open, &wire::DecodeContext::default()).unwrap()
    else {
        panic!("an OPEN comes first")
    };
    answer.asn = 64513;
    answer.capabilities.four_octet_asn = Some(64513);
    answer.router_id = RouterId::new([10, 0, 0, 9].into()).unwrap();
    answer.hold_time = HoldTime::new(hold_time).unwrap();
    let mut octets = bytes::BytesMut::new();
    wire::encode_open(&answer, &mut octets);
    wire::encode_keepalive(&mut octets);
    stream.write_all(&octets).await.unwrap();
    stream
}

/// More routes than the buffers of a connection hold.
fn more_than_sockets_take() -> Vec<Route> {
    let attributes = Arc::new(RouteAttributes::default());
    let prefix = |host: u128| IpNet::new(IpAddr::V6((0x2001_0db8 << 96 | host).into()), 128).unwrap();
    let route =
        |host| Route { prefix: prefix(host), class: RouteClass(0), attributes: Arc::clone(&attributes) };
    (0..400_000).map(route).collect()
}

#[tokio::test]
async fn a_peer_that_stops_reading_loses_its_session_after_the_send_hold_time() {
    let router = forgetful_router();
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    let port = router.local_addr().unwrap().port();
    let address = "127.0.0.2".parse().unwrap();
    a.set_peers(vec![PeerConfig { address, port, ..peer("asleep", 1, 64512, 64513) }]).await.unwrap();
    // Without a hold time nothing else would end it.
    let _asleep = accept_session(&router, 0).await;
    until_established(&a).await;
    a.announce(more_than_sockets_take()).await.unwrap();
    // From here on time is virtual: it goes to the next timer whenever nothing else is to be done.
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let mut status = a.watch_status();
    let down = status.wait_for(|status| status.peers[0].state != State::Established).await.unwrap().clone();
    assert_eq!(start.elapsed().as_secs().div_ceil(10), 48, "eight minutes (RFC 9687 §4)");
    let error = down.peers[0].last_error.clone().unwrap();
    assert!(error.contains("send hold timer expired (8/0)"), "{error}");
    assert_eq!(down.peers[0].notifications.sent, [(8, 1)].into());
}

/// A speaker that dials from an address of its own, to a port of this machine.
async fn dialling_from(source: IpAddr, asn: u32, key: &Md5Key, port: u16) -> Handle {
    let speaker = driver::spawn(SpeakerConfig::default()).unwrap();
    let config = PeerConfig {
        source_address: Some(source),
        md5_key: Some(key.clone()),
        port,
        ..peer("b", u8::try_from(asn - 64500).unwrap(), asn, 64513)
    };
    speaker.set_peers(vec![config]).await.unwrap();
    speaker
}

#[tokio::test]
async fn a_listener_knows_the_keys_of_several_peers_apart_and_another_key_is_another_session_for_one_of_them()
{
    let key = |text: &str| Md5Key::new(text.as_bytes()).unwrap();
    let sources = ["127.0.0.17", "127.0.0.18"].map(|source| source.parse::<IpAddr>().unwrap());
    let (b, port) = listening();
    let expected = |keys: [&str; 2]| {
        let names = [("a", 64514, keys[0]), ("c", 64515, keys[1])];
        let peers = names.into_iter().zip(sources).map(|((name, asn, text), address)| PeerConfig {
            passive: true,
            address,
            md5_key: Some(key(text)),
            ..peer(name, 2, 64513, asn)
        });
        peers.collect::<Vec<_>>()
    };
    let states =
        |status: &bgp::status::SpeakerStatus| status.peers.iter().map(|it| it.state).collect::<Vec<_>>();
    let both_up = |status: &Arc<bgp::status::SpeakerStatus>| states(status) == [State::Established; 2];
    b.set_peers(expected(["one", "two"])).await.unwrap();
    let a = dialling_from(sources[0], 64514, &key("one"), port).await;
    let _c = dialling_from(sources[1], 64515, &key("two"), port).await;
    let mut status = b.watch_status();
    let before = tokio::time::timeout(Duration::from_secs(20), status.wait_for(both_up)).await.unwrap();
    let before = before.unwrap().clone();
    // The first one's key is rotated, on our side first.
    b.set_peers(expected(["other", "two"])).await.unwrap();
    let down = b.watch_status().borrow().clone();
    assert_ne!(down.peers[0].state, State::Established);
    a.shutdown(ShutdownMode::Restart).await;
    let _wrong = dialling_from(sources[0], 64514, &key("two"), port).await;
    until(&_wrong, "refused", |peer| peer.last_error.is_some()).await;
    assert_ne!(b.watch_status().borrow().peers[0].state, State::Established, "the key of the other one");
    _wrong.shutdown(ShutdownMode::Restart).await;
    let _right = dialling_from(sources[0], 64514, &key("other"), port).await;
    let after = tokio::time::timeout(Duration::from_secs(20), status.wait_for(both_up)).await.unwrap();
    let after = after.unwrap().clone();
    assert_eq!((after.peers[0].flaps, after.peers[1].flaps), (1, 0));
    assert_eq!(after.peers[1].since, before.peers[1].since, "the other session went on");
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_nobody() {
    let router = forgetful_router();
    let (b, port) = listening();
    b.set_peers(vec![PeerConfig { passive: true, ..peer("a", 2, 64513, 64512) }]).await.unwrap();
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    let slow = PeerConfig {
        address: "127.0.0.2".parse().unwrap(),
        port: router.local_addr().unwrap().port(),
        ..peer("asleep", 1, 64512, 64513)
    };
    a.set_peers(vec![slow, PeerConfig { port, ..peer("b", 1, 64512, 64513) }]).await.unwrap();
    let _asleep = accept_session(&router, 90).await;
    until_established(&b).await;
    until(&a, "asleep is Established", |peer| peer.state == State::Established).await;
    let routes = more_than_sockets_take();
    let count = routes.len();
    a.announce(routes).await.unwrap();
    until(&b, "told", |peer| peer.received[1] == count).await;
    let asleep = a.watch_status().borrow().peers[0].clone();
    assert!(asleep.advertised[1] < count, "nothing waits but its dirty set");
}

/// A router in a thread of its own, which completes the handshake and then says that it is alive until it is stopped.
fn lively_router(hold_time: u16) -> (u16, std::sync::mpsc::Sender<()>) {
    use bgp::{types::HoldTime, wire};
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind((LOOPBACK, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut open = vec![0; 19];
        stream.read_exact(&mut open).unwrap();
        open.resize(usize::from(u16::from_be_bytes([open[16], open[17]])), 0);
        stream.read_exact(&mut open[19..]).unwrap();
        let wire::Received::Open(mut answer) = wire::decode(&open, &wire::DecodeContext::default()).unwrap()
        else {
            panic!("an OPEN comes first")
        };
        answer.asn = 64513;
        answer.capabilities.four_octet_asn = Some(64513);
        answer.router_id = RouterId::new([10, 0, 0, 9].into()).unwrap();
        answer.hold_time = HoldTime::new(hold_time).unwrap();
        let mut octets = bytes::BytesMut::new();
        wire::encode_open(&answer, &mut octets);
        loop {
            wire::encode_keepalive(&mut octets);
            if stream.write_all(&octets.split()).is_err() {
                return;
            }
            let pause = stopped.recv_timeout(Duration::from_millis(100));
            if pause != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return;
            }
        }
    });
    (port, stop)
}

#[tokio::test]
async fn a_program_that_stands_still_for_longer_than_the_hold_time_finds_its_session_alive() {
    let (port, _router) = lively_router(3);
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    a.set_peers(vec![PeerConfig { port, ..peer("b", 1, 64512, 64513) }]).await.unwrap();
    until_established(&a).await;
    // The thread that runs the speaker, too. KEEPALIVEs wait in the socket then.
    std::thread::sleep(Duration::from_secs(4));
    // The speaker's timers that were due in between go before this one.
    tokio::time::sleep(Duration::from_millis(1)).await;
    a.announce([route("192.0.2.1/32")]).await.unwrap();
    a.barrier().await.unwrap();
    let status = a.watch_status().borrow().peers[0].clone();
    assert_eq!((status.state, status.flaps, status.last_error), (State::Established, 0, None));
}

#[tokio::test]
async fn strangers_are_refused_before_they_can_say_anything() {
    use tokio::io::AsyncReadExt;
    let (b, port) = listening();
    b.set_peers(Vec::new()).await.unwrap();
    let mut stranger = tokio::net::TcpStream::connect((LOOPBACK, port)).await.unwrap();
    let mut octets = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stranger.read_to_end(&mut octets)).await;
    assert!(matches!(end.unwrap(), Ok(0) | Err(_)) && octets.is_empty());
}

#[tokio::test]
async fn passive_peers_make_the_speaker_listen_and_a_taken_port_is_reported() {
    let taken = std::net::TcpListener::bind("[::]:0").unwrap();
    let listen_port = taken.local_addr().unwrap().port();
    let b = driver::spawn(SpeakerConfig { listen_port, ..SpeakerConfig::default() }).unwrap();
    b.set_peers(vec![PeerConfig { passive: true, ..peer("a", 2, 64513, 64512) }]).await.unwrap();
    let error = b.watch_status().borrow().listen_error.clone().unwrap();
    assert!(error.contains(&listen_port.to_string()), "{error}");
    b.set_peers(vec![peer("a", 2, 64513, 64512)]).await.unwrap();
    assert_eq!(b.watch_status().borrow().listen_error, None, "nobody needs it any more");
}

#[tokio::test]
async fn a_speaker_listens_without_a_passive_peer_where_it_is_told_to() {
    let free = std::net::TcpListener::bind("[::]:0").unwrap();
    let listen_port = free.local_addr().unwrap().port();
    drop(free);
    let b = driver::spawn(SpeakerConfig { listen_port, listen_always: true, ..SpeakerConfig::default() })
        .unwrap();
    // Where it would dial nobody answers.
    b.set_peers(vec![PeerConfig { port: 1, ..peer("a", 2, 64513, 64512) }]).await.unwrap();
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    a.set_peers(vec![PeerConfig { port: listen_port, ..peer("b", 1, 64512, 64513) }]).await.unwrap();
    until_established(&b).await;
}

#[tokio::test]
async fn ttl_security_works_over_one_hop() {
    let hops = Hops::TtlSecurity(1);
    let (b, port) = listening();
    b.set_peers(vec![PeerConfig { passive: true, hops, ..peer("a", 2, 64513, 64512) }]).await.unwrap();
    let a = driver::spawn(SpeakerConfig::default()).unwrap();
    a.set_peers(vec![PeerConfig { port, hops, ..peer("b", 1, 64512, 64513) }]).await.unwrap();
    until_established(&a).await;
    until_established(&b).await;
}

#[tokio::test]
async fn one_link_local_address_on_two_interfaces_takes_one_md5_key() {
    let on = |name: &str, scope, key: Option<&str>| PeerConfig {
        address: "fe80::1".parse().unwrap(),
        scope,
        md5_key: key.map(|key| Md5Key::new(key.as_bytes()).unwrap()),
        ..peer(name, 1, 64512, 64513)
    };
    let speaker = driver::spawn(SpeakerConfig::default()).unwrap();
    for (first, second) in [(Some("a"), Some("b")), (Some("a"), None), (None, Some("b"))] {
        let refused = speaker.set_peers(vec![on("one", 1, first), on("two", 2, second)]).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("\"one\" and \"two\" have the same link-local address fe80::1"), "{error}");
    }
    for key in [Some("a"), None] {
        speaker.set_peers(vec![on("one", 1, key), on("two", 2, key)]).await.unwrap();
    }
}

/// Connects from an address again and again, on a thread of its own that ends when this is dropped, and keeps the last
/// hundred of these connections open.
struct Flood {
    count: Arc<AtomicUsize>,
}

impl Flood {
    fn start(from: &'static str, port: u16) -> Flood {
        let connect = move || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            // No port of this machine stays taken by connections that have ended.
            socket.set_linger(Some(Duration::ZERO))?;
            socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into())?;
            socket.connect(&SocketAddr::new(LOOPBACK.parse().unwrap(), port).into())?;
            std::io::Result::Ok(socket)
        };
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            let mut kept = VecDeque::new();
            while Arc::strong_count(&counted) > 1 {
                if let Ok(socket) = connect() {
                    counted.fetch_add(1, Ordering::Relaxed);
                    kept.push_front(socket);
                    kept.truncate(100);
                }
            }
        });
        Flood { count }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_connections_costs_the_peers_nothing_be_it_from_a_stranger_or_from_a_peers_own_address() {
    // A stranger's address, and that of a peer which has a session.
    for source in ["127.0.0.9", LOOPBACK] {
        let (a, b, port) = session_on_port().await;
        let flood = Flood::start(source, port);
        let mut told = 0;
        for route in hosts(100_000) {
            a.announce(vec![route]).await.unwrap();
            a.barrier().await.unwrap();
            told += 1;
            until(&b, "told", |peer| peer.received[0] == told).await;
            if flood.count() > 1000 {
                break;
            }
        }
        // A peer that is new comes in through the same door.
        let late: IpAddr = "127.0.0.7".parse().unwrap();
        let accepting = PeerConfig { passive: true, ..peer("a", 2, 64513, 64512) };
        let newcomer = PeerConfig { passive: true, address: late, ..peer("late", 2, 64513, 64514) };
        b.set_peers(vec![accepting, newcomer]).await.unwrap();
        let c = driver::spawn(SpeakerConfig::default()).unwrap();
        let from_there = PeerConfig { source_address: Some(late), port, ..peer("b", 3, 64514, 64513) };
        c.set_peers(vec![from_there]).await.unwrap();
        until_established(&c).await;
        let (status, connections) = (until_established(&b).await, flood.count());
        assert!(connections > 1000, "only {connections} connections were opened");
        assert_eq!(
            (status.flaps, status.received),
            (0, [told, 0]),
            "{connections} connections from {source}"
        );
    }
}
