//! What liveness means for an election, and nodes that hear each other over addresses of the loopback interface.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
};

use super::*;
use crate::{facts::subnets::LocalInterface, members::Member};

/// For what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

fn subnet() -> IpNet {
    "127.0.0.0/8".parse().unwrap()
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(127, 7, 3, host).into(), port)
}

fn name(host: u8) -> Arc<str> {
    format!("n{host}").into()
}

fn config(interval: Duration) -> heartbeat::Config {
    let keys = heartbeat::Keys::parse(b"a key for the tests").unwrap();
    heartbeat::Config::new(interval, 5, keys).unwrap()
}

fn facts(host: u8, port: u16) -> NodeFacts {
    let own: IpAddr = address(host, port).ip();
    let interface = LocalInterface {
        name: "lo".into(),
        index: 1,
        mac: Some(Mac([2, 0, 0, 0, 0, host])),
        subnets: [(subnet(), own)].into(),
        addresses: [own].into(),
    };
    NodeFacts {
        node_uid: String::new(),
        subnets: [subnet()].into(),
        heartbeats: [address(host, port)].into(),
        interfaces: vec![interface],
        agent: None,
        macs: BTreeSet::new(),
        conflicts: BTreeSet::new(),
    }
}

fn member(host: u8, port: u16) -> (Arc<str>, Member) {
    let heartbeats = [address(host, port)].into();
    (
        name(host),
        Member { subnets: [subnet()].into(), heartbeats, macs: BTreeSet::new(), agent: None, is_live: true },
    )
}

fn lease(is_live: bool) -> Member {
    Member { is_live, ..member(9, 1).1 }
}

/// A node, and everything that its thread is told.
struct Node {
    facts: watch::Sender<Option<NodeFacts>>,
    applied_at: watch::Sender<Option<Instant>>,
    roster: watch::Sender<Option<Arc<Roster>>>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    heartbeats: Heartbeats,
    liveness: watch::Receiver<Arc<Liveness>>,
}

fn node(host: u8, port: u16, roster: &Arc<Roster>) -> Node {
    node_with(config(Duration::from_millis(100)), host, port, roster)
}

fn node_with(config: heartbeat::Config, host: u8, port: u16, roster: &Arc<Roster>) -> Node {
    let (facts, known_facts) = watch::channel(Some(facts(host, port)));
    let (roster, known_roster) = watch::channel(Some(Arc::clone(roster)));
    let (applied_at, is_applied) = watch::channel(None);
    let (outgoing, to_send) = mpsc::unbounded_channel();
    let (received, incoming) = mpsc::unbounded_channel();
    let channels = Channels {
        facts: known_facts,
        roster: known_roster,
        applied_at: is_applied,
        outgoing: to_send,
        incoming: received,
        metrics: Default::default(),
    };
    let heartbeats = Heartbeats::start(name(host), config, channels).unwrap();
    let liveness = heartbeats.liveness();
    Node { facts, applied_at, roster, outgoing, incoming, heartbeats, liveness }
}

impl Node {
    async fn until(&mut self, what: &str, is_so: impl FnMut(&Arc<Liveness>) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, self.liveness.wait_for(is_so)).await;
        let is_in_time = waited.is_ok();
        assert!(is_in_time, "not in time: {what}: {:?}", self.heartbeats.liveness().borrow());
    }
}

fn free_port() -> u16 {
    UdpSocket::bind(address(1, 0)).unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn nodes_hear_each_other_talk_leave_and_die() {
    let port = free_port();
    let roster: Arc<Roster> = Arc::new([1, 2].map(|host| member(host, port)).into());
    let (mut one, mut two) = (node(1, port, &roster), node(2, port, &roster));
    let can_serve = |host: u8| move |it: &Arc<Liveness>| it.can_serve(&subnet(), &name(host), &lease(false));
    one.until("they hear each other", |it| it.is_alive("n2") == Some(true)).await;
    two.until("they hear each other", |it| it.is_alive("n1") == Some(true)).await;
    assert!(!can_serve(2)(&one.liveness.borrow().clone()), "it has no plan yet");
    two.applied_at.send_replace(Some(Instant::now()));
    one.until("the other is ready", can_serve(2)).await;
    assert_eq!(one.liveness.borrow().macs("n2"), [Mac([2, 0, 0, 0, 0, 2])]);

    let message = |interface, text: &[u8]| Outgoing { to: name(2), interface, octets: text.to_vec() };
    one.outgoing.send(message(7, b"lost")).unwrap();
    one.outgoing.send(message(1, b"hello")).unwrap();
    let arrived = tokio::time::timeout(PATIENCE, two.incoming.recv()).await.unwrap().unwrap();
    assert_eq!(arrived, Incoming { from: name(1), octets: b"hello".to_vec() }, "not where it does not live");

    two.heartbeats.leave().await;
    one.until("the other leaves", |it| !can_serve(2)(it)).await;
    assert_eq!(one.liveness.borrow().is_alive("n2"), Some(true), "it goes on until it is gone");
    drop(two);
    one.until("the other is dead", |it| it.is_alive("n2") == Some(false)).await;
    assert_eq!(one.liveness.borrow().macs("n2").len(), 1, "it may still answer for addresses");
}

#[tokio::test]
async fn without_carrier_or_lease_there_is_nothing_to_be_heard_and_with_them_there_is_again() {
    let port = free_port();
    let roster: Arc<Roster> = Arc::new([3, 4].map(|host| member(host, port)).into());
    let (mut one, mut two) = (node(3, port, &roster), node(4, port, &roster));
    one.until("they hear each other", |it| it.is_alive("n4") == Some(true)).await;
    two.facts.send_replace(Some(NodeFacts { heartbeats: BTreeSet::new(), ..facts(4, port) }));
    one.until("the other is dead", |it| it.is_alive("n4") == Some(false)).await;
    two.until("it has no group", |it| it.subnets().next().is_none()).await;
    two.facts.send_replace(Some(facts(4, port)));
    one.until("the other is back", |it| it.is_alive("n4") == Some(true)).await;
    one.roster.send_replace(Some(Arc::new([member(3, port)].into())));
    one.until("the other is no member", |it| it.is_alive("n4").is_none()).await;
}

#[tokio::test]
async fn who_was_there_before_this_node_counts_by_its_lease_for_a_while_and_who_joins_has_to_be_heard() {
    let port = free_port();
    // Nobody dies of silence in this test.
    let patient = config(Duration::from_secs(10));
    let mut one = node_with(patient, 6, port, &Arc::new([6, 7].map(|host| member(host, port)).into()));
    let can_serve = |it: &Arc<Liveness>, host: u8| it.can_serve(&subnet(), &name(host), &lease(true));
    let is_known = |it: &Arc<Liveness>, host: u8| it.state(&subnet(), &name(host)).is_some();
    one.until("it knows who was there before", |it| is_known(it, 7)).await;
    assert!(can_serve(&one.liveness.borrow(), 7));
    one.roster.send_replace(Some(Arc::new([6, 7, 8].map(|host| member(host, port)).into())));
    one.until("it knows who joins", |it| is_known(it, 8)).await;
    let now = one.liveness.borrow().clone();
    assert!(can_serve(&now, 7) && !can_serve(&now, 8) && now.can_ask("n8"));
    one.roster.send_replace(Some(Arc::new([6].map(|host| member(host, port)).into())));
    one.until("they go", |it| !is_known(it, 7)).await;
    one.roster.send_replace(Some(Arc::new([6, 7].map(|host| member(host, port)).into())));
    one.until("one comes again", |it| is_known(it, 7)).await;
    assert!(!can_serve(&one.liveness.borrow(), 7), "as new as others");
}

#[tokio::test]
async fn a_node_that_is_to_announce_nothing_is_heard_takes_messages_and_is_no_candidate() {
    let port = free_port();
    let excluded = |host: u8| {
        let (name, there) = member(host, port);
        (name, Member { subnets: BTreeSet::new(), ..there })
    };
    let roster: Arc<Roster> = Arc::new([member(9, port), excluded(10)].into());
    let (mut one, mut two) = (node(9, port, &roster), node(10, port, &roster));
    two.applied_at.send_replace(Some(Instant::now()));
    two.facts.send_replace(Some(NodeFacts { subnets: BTreeSet::new(), ..facts(10, port) }));
    one.until("they hear each other", |it| it.is_alive("n10") == Some(true)).await;
    two.until("they hear each other", |it| it.is_alive("n9") == Some(true)).await;
    assert!(one.liveness.borrow().can_ask("n10") && two.liveness.borrow().can_ask("n9"));
    one.outgoing.send(Outgoing { to: name(10), interface: 1, octets: b"mine".to_vec() }).unwrap();
    let arrived = tokio::time::timeout(PATIENCE, two.incoming.recv()).await.unwrap().unwrap();
    assert_eq!(arrived, Incoming { from: name(9), octets: b"mine".to_vec() });
}

#[tokio::test]
async fn an_address_that_comes_later_is_tried_again() {
    let port = free_port();
    let taken = UdpSocket::bind(address(5, port)).unwrap();
    let mut one = node(5, port, &Arc::new([member(5, port)].into()));
    one.applied_at.send_replace(Some(Instant::now()));
    drop(taken);
    one.until("it has a group", |it| it.subnets().count() == 1).await;
}

#[tokio::test]
async fn a_node_that_leaves_says_its_last_word_when_nobody_tells_it_anything_any_more() {
    let port = free_port();
    let roster: Arc<Roster> = Arc::new([11, 12].map(|host| member(host, port)).into());
    let (mut one, mut two) = (node(11, port, &roster), node(12, port, &roster));
    one.until("they hear each other", |it| it.is_alive("n12") == Some(true)).await;
    two.until("they hear each other", |it| it.is_alive("n11") == Some(true)).await;
    // As the agent's end goes: who observes and who plans is gone by then.
    drop((one.facts, one.roster, one.applied_at));
    one.heartbeats.leave().await;
    two.until("the other leaves", |it| it.state(&subnet(), "n11").is_some_and(|state| state.is_leaving))
        .await;
    for count in 0..3u8 {
        one.outgoing.send(Outgoing { to: name(12), interface: 1, octets: vec![count] }).unwrap();
    }
    one.heartbeats.leave().await;
    drop(one.heartbeats);
    for count in 0..3u8 {
        let arrived = tokio::time::timeout(PATIENCE, two.incoming.recv()).await.unwrap().unwrap();
        assert_eq!(arrived, Incoming { from: name(11), octets: vec![count] });
    }
}

#[tokio::test]
async fn the_end_of_the_thread_is_told() {
    let mut one = node(6, free_port(), &Arc::default());
    {
        let mut ended = std::pin::pin!(one.heartbeats.ended());
        assert!(futures::poll!(&mut ended).is_pending());
    }
    drop(one.heartbeats);
    let ended = async { while one.liveness.changed().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert!(one.liveness.borrow().subnets().next().is_none());
}

#[test]
fn what_is_heard_decides_and_where_nothing_is_the_lease_does() {
    let state = |standing, is_ready, is_leaving| State { standing, is_ready, is_leaving, mac: [2; 6] };
    let cases = [
        (Standing::Unknown, false, false, None),
        (Standing::Alive, true, false, Some(true)),
        (Standing::Suspected, true, false, Some(true)),
        (Standing::Alive, false, false, Some(false)),
        (Standing::Alive, true, true, Some(false)),
        (Standing::Dead, false, false, Some(false)),
    ];
    for (standing, is_ready, is_leaving, expected) in cases {
        let there: BTreeMap<_, _> = [("n".into(), state(standing, is_ready, is_leaving))].into();
        let mut liveness = Liveness { members: [(subnet(), there)].into(), ..Liveness::default() };
        assert_eq!(liveness.can_ask("n"), standing != Standing::Dead);
        if standing == Standing::Unknown {
            assert!(!liveness.can_serve(&subnet(), "n", &lease(true)), "it joins, and was never heard");
            liveness.awaited.insert((subnet(), "n".into()));
        }
        for is_registered in [false, true] {
            let can_serve = liveness.can_serve(&subnet(), "n", &lease(is_registered));
            assert_eq!(can_serve, expected.unwrap_or(is_registered), "{standing:?} {is_ready} {is_leaving}");
        }
        assert_eq!(
            liveness.is_alive("n"),
            match standing {
                Standing::Unknown => None,
                standing => Some(standing != Standing::Dead),
            }
        );
    }
    let mut liveness = Liveness::default();
    assert!(!liveness.can_ask("n"), "there is no way for its messages");
    assert!(
        liveness.can_serve(&subnet(), "n", &lease(true))
            && !liveness.can_serve(&subnet(), "n", &lease(false))
    );
    // Its Lease has come, and nobody listens for it yet.
    liveness.settled.insert(subnet());
    assert!(!liveness.can_serve(&subnet(), "n", &lease(true)));
    let deaf = Member { heartbeats: BTreeSet::new(), ..lease(true) };
    assert!(liveness.can_serve(&subnet(), "n", &deaf), "it will never be heard");
}
