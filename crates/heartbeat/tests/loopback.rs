//! Groups on real sockets, on addresses of the loopback interface.
#![cfg(feature = "driver")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use heartbeat::{
    Config, Event, Keys, Local, MAX_PAYLOAD, Name,
    driver::{Endpoint, boot},
};

/// For what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> Config {
    let keys = Keys::parse(b"a key for the tests").unwrap();
    Config::new(Duration::from_millis(100), 5, keys).unwrap()
}

fn open(number: u8, address: IpAddr) -> Endpoint {
    let local = Local {
        group: "a subnet".to_owned(),
        name: format!("node-{number}").into(),
        address: SocketAddr::new(address, 0),
        mac: [2, 0, 0, 0, 0, number],
        boot: boot(),
    };
    Endpoint::open(config(), local, u64::from(number)).unwrap()
}

/// So many members that have been told of each other.
fn group(address: IpAddr) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = (0..3).map(|number| open(number, address)).collect();
    let members: BTreeMap<Name, SocketAddr> =
        all.iter().map(|it| (Name::clone(&it.group().local().name), it.address())).collect();
    for endpoint in &mut all {
        endpoint.command(|group, now| group.set_members(&members, now));
    }
    all
}

/// Runs all of them until the first one is told what is waited for; everything that it is told.
async fn until(all: &mut [Endpoint], mut is_it: impl FnMut(&Event) -> bool) -> Vec<Event> {
    let (first, others) = all.split_first_mut().unwrap();
    let mut told = Vec::new();
    let rest = others.iter_mut().map(|endpoint| {
        Box::pin(async move {
            loop {
                endpoint.next().await;
            }
        })
    });
    let wait = async {
        loop {
            let event = first.next().await;
            let is_last = is_it(&event);
            told.push(event);
            if is_last {
                break;
            }
        }
    };
    let mut rest: Vec<_> = rest.collect();
    let run_rest = std::future::poll_fn(|context| {
        let ready = rest.iter_mut().any(|it| it.as_mut().poll(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    tokio::select! {
        () = wait => {}
        () = run_rest => unreachable!("they run for ever"),
        () = tokio::time::sleep(PATIENCE) => panic!("not in time; so far {:?}", first.group()),
    }
    told
}

fn count_alive() -> impl FnMut(&Event) -> bool {
    let mut alive = 0;
    move |event| {
        alive += u8::from(matches!(event, Event::Alive { .. }));
        alive == 2
    }
}

async fn live_and_die(address: IpAddr) {
    let mut all = group(address);
    until(&mut all, count_alive()).await;
    let large = vec![9; MAX_PAYLOAD];
    // To a member that has not heard of the sender yet, perhaps: it is repeated.
    all[1].command(|group, now| group.send("node-0", &large, now)).unwrap();
    let told = until(&mut all, |event| matches!(event, Event::Payload { .. })).await;
    assert_eq!(told.last(), Some(&Event::Payload { from: "node-1".into(), octets: large }));
    all[1].command(|group, now| group.leave(now));
    until(&mut all, |event| *event == Event::Leaving { name: "node-1".into() }).await;
    all.truncate(1);
    let mut dead = 0;
    let told = until(&mut all, |event| {
        dead += u8::from(matches!(event, Event::Dead { .. }));
        dead == 2
    })
    .await;
    assert!(told.contains(&Event::Dead { name: "node-2".into() }), "{told:?}");
    assert!(all[0].group().is_alone());
}

#[tokio::test]
async fn members_find_each_other_talk_leave_and_die_on_ipv4() {
    live_and_die(Ipv4Addr::LOCALHOST.into()).await;
}

#[tokio::test]
async fn members_find_each_other_talk_leave_and_die_on_ipv6() {
    live_and_die(Ipv6Addr::LOCALHOST.into()).await;
}

#[tokio::test]
async fn hostile_datagrams_are_passed_over() {
    let mut all = group(Ipv4Addr::LOCALHOST.into());
    let attacker = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [0, 1, 66, 67, 500, 1452, 1453, 9000] {
        attacker.send_to(&vec![1; length], all[0].address()).unwrap();
    }
    until(&mut all, count_alive()).await;
}

#[tokio::test]
async fn an_address_that_is_not_this_nodes_is_refused_by_name() {
    let local = Local {
        group: "a subnet".to_owned(),
        name: "node".into(),
        address: "192.0.2.1:7934".parse().unwrap(),
        mac: [2; 6],
        boot: boot(),
    };
    let error = Endpoint::open(config(), local, 1).unwrap_err().to_string();
    assert!(error.starts_with("cannot send and receive heartbeats on 192.0.2.1:7934: "), "{error}");
}
