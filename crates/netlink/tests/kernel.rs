//! The kernel's side: every test runs in a network namespace of its own, which lives as long as its thread.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and what they skip is said")]

use std::{future::Future, time::Duration};

use ipnet::IpNet;
use netlink::{Addressing, DummyKind, Event, Lifetime, Link, Monitor, Netlink, Outcome};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

const HOW: Addressing = Addressing { no_prefix_route: true, no_dad: true, lifetime: Lifetime::Permanent };

/// Runs a test in a thread with a network namespace of its own.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test()).await.unwrap() });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(prefix: &str) -> IpNet {
    prefix.parse().unwrap()
}

async fn dummy(netlink: &Netlink) -> Link {
    netlink.ensure_dummy("kube-lb0").await.unwrap().0
}

async fn held(netlink: &Netlink, link: &Link) -> Vec<IpNet> {
    let addresses = netlink.addresses(Some(link.index)).await.unwrap();
    let mut held: Vec<_> = addresses
        .into_iter()
        .filter(|address| !address.is_link_local)
        .map(|address| address.prefix)
        .collect();
    held.sort();
    held
}

#[test]
fn the_dummy_interface_is_made_once_is_up_and_is_found_again() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let (link, kind) = netlink.ensure_dummy("kube-lb0").await.unwrap();
        assert_ne!(kind, DummyKind::Existing);
        assert!(link.is_up);
        let (again, kind) = netlink.ensure_dummy("kube-lb0").await.unwrap();
        assert_eq!((again.index, kind), (link.index, DummyKind::Existing));
        assert!(again.is_up);
        assert!(again.kind.is_some() && again.is_noarp, "{again:?}");
        assert_eq!(netlink.link_by_index(link.index).await.unwrap().unwrap().name, "kube-lb0");
        netlink.delete_link(&link).await.unwrap();
        netlink.delete_link(&link).await.unwrap();
        assert_eq!(netlink.link_by_name("kube-lb0").await.unwrap(), None);
    });
}

#[test]
fn the_dummy_interface_answers_arp_for_its_own_addresses_only() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        dummy(&netlink).await;
        for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2"), ("promote_secondaries", "1")] {
            // Shows the namespace of the thread that reads it.
            let path = format!("/proc/sys/net/ipv4/conf/kube-lb0/{name}");
            assert_eq!(std::fs::read_to_string(path).unwrap().trim(), value, "{name}");
        }
    });
}

#[test]
fn addresses_of_both_families_come_and_go_exactly() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let link = dummy(&netlink).await;
        let all = [ip("192.0.2.1/32"), ip("192.0.2.9/24"), ip("2001:db8::1/128"), ip("2001:db8::9/64")];
        for result in netlink.add_addresses(link.index, &all, HOW).await {
            assert_eq!(result.unwrap(), Outcome::Changed);
        }
        assert_eq!(netlink.add_address(link.index, all[0], HOW).await.unwrap(), Outcome::Unchanged);
        for address in netlink.addresses(Some(link.index)).await.unwrap() {
            assert!(address.is_link_local || address.is_marked(), "{address:?}");
            assert!(address.is_link_local || !address.flags.is_tentative, "{address:?}");
            assert!(address.is_link_local || address.flags.is_permanent, "{address:?}");
        }
        // Merely similar: same address, other prefix length.
        let similar = netlink.delete_address(link.index, ip("192.0.2.9/32")).await.unwrap();
        assert_eq!(similar, Outcome::Unchanged);
        assert_eq!(netlink.delete_address(link.index, all[1]).await.unwrap(), Outcome::Changed);
        assert_eq!(netlink.delete_address(link.index, all[1]).await.unwrap(), Outcome::Unchanged);
        assert_eq!(held(&netlink, &link).await, [all[0], all[2], all[3]]);
    });
}

#[test]
fn deleting_the_first_address_of_a_subnet_keeps_the_others() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let link = dummy(&netlink).await;
        let all = [ip("192.0.2.1/24"), ip("192.0.2.2/24"), ip("192.0.2.3/24")];
        netlink.add_addresses(link.index, &all, HOW).await;
        netlink.delete_address(link.index, all[0]).await.unwrap();
        assert_eq!(held(&netlink, &link).await, all[1..]);
    });
}

#[test]
fn one_bad_address_does_not_stop_the_rest_and_its_error_names_it() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let link = dummy(&netlink).await;
        let all = [ip("192.0.2.1/32"), ip("ff02::1/128"), ip("192.0.2.2/32")];
        let results = netlink.add_addresses(link.index, &all, HOW).await;
        assert!(results[0].is_ok() && results[2].is_ok());
        let error = results[1].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("adding address ff02::1/128 on link"), "{error}");
        assert_eq!(held(&netlink, &link).await, [all[0], all[2]]);
    });
}

#[test]
fn a_limited_lifetime_is_renewed_by_adding_again() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let link = dummy(&netlink).await;
        let how = Addressing { lifetime: Lifetime::Limited { valid_secs: 300, preferred_secs: 300 }, ..HOW };
        for _ in 0..2 {
            for address in [ip("192.0.2.1/32"), ip("2001:db8::1/128")] {
                netlink.add_address(link.index, address, how).await.unwrap();
            }
        }
        for address in netlink.addresses(Some(link.index)).await.unwrap() {
            assert!(address.is_link_local || !address.flags.is_permanent, "{address:?}");
        }
    });
}

#[test]
fn an_address_that_someone_else_deletes_is_reported() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let link = dummy(&netlink).await;
        let mut monitor = Monitor::open(["kube-lb0".to_owned()]).unwrap();
        monitor.watch(link.index);
        netlink.add_address(link.index, ip("192.0.2.1/32"), HOW).await.unwrap();
        let status = tokio::process::Command::new("ip")
            .args(["addr", "del", "192.0.2.1/32", "dev", "kube-lb0"])
            .status()
            .await
            .unwrap();
        assert!(status.success());
        loop {
            if let Event::AddressRemoved(address) = monitor.next().await.unwrap() {
                assert_eq!(address.prefix, ip("192.0.2.1/32"));
                break;
            }
        }
    });
}

#[test]
fn a_dummy_interface_that_is_deleted_and_made_anew_is_reported_with_its_new_index() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let mut monitor = Monitor::open(["kube-lb0".to_owned()]).unwrap();
        let first = dummy(&netlink).await;
        netlink.delete_link(&first).await.unwrap();
        let second = dummy(&netlink).await;
        let (mut removed, mut seen) = (false, false);
        while !(removed && seen) {
            match monitor.next().await.unwrap() {
                Event::LinkRemoved(link) => removed |= link.index == first.index,
                Event::LinkChanged(link) => seen |= link.index == second.index,
                _ => {}
            }
        }
    });
}

#[test]
fn addresses_that_an_earlier_run_left_are_found_by_their_mark() {
    in_namespace(async || {
        let link = {
            let netlink = Netlink::open().unwrap();
            let link = dummy(&netlink).await;
            netlink.add_address(link.index, ip("192.0.2.1/32"), HOW).await.unwrap();
            link
        };
        let status = tokio::process::Command::new("ip")
            .args(["addr", "add", "198.51.100.1/32", "dev", "kube-lb0"])
            .status()
            .await
            .unwrap();
        assert!(status.success());
        let netlink = Netlink::open().unwrap();
        let marked: Vec<_> = netlink
            .addresses(Some(link.index))
            .await
            .unwrap()
            .into_iter()
            .filter(|address| address.is_marked())
            .map(|address| address.prefix)
            .collect();
        assert_eq!(marked, [ip("192.0.2.1/32")]);
    });
}

#[test]
fn blackholes_come_and_go_and_only_ours_are_listed() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        dummy(&netlink).await;
        let foreign = tokio::process::Command::new("ip")
            .args(["route", "add", "blackhole", "203.0.113.0/24"])
            .status()
            .await
            .unwrap();
        assert!(foreign.success());
        let all = [ip("192.0.2.0/24"), ip("2001:db8::/64")];
        for _ in 0..2 {
            for result in netlink.add_blackholes(&all).await {
                result.unwrap();
            }
        }
        assert_eq!(netlink.blackholes().await.unwrap(), all);
        for expected in [Outcome::Changed, Outcome::Unchanged] {
            for result in netlink.delete_blackholes(&all).await {
                assert_eq!(result.unwrap(), expected);
            }
        }
        assert!(netlink.blackholes().await.unwrap().is_empty());
    });
}

#[test]
fn the_default_route_with_the_lowest_metric_comes_first() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let link = dummy(&netlink).await;
        netlink
            .add_address(link.index, ip("192.0.2.1/24"), Addressing { no_prefix_route: false, ..HOW })
            .await
            .unwrap();
        for (gateway, metric) in [("192.0.2.8", "200"), ("192.0.2.9", "100")] {
            let status = tokio::process::Command::new("ip")
                .args(["route", "add", "default", "via", gateway, "metric", metric])
                .status()
                .await
                .unwrap();
            assert!(status.success());
        }
        let routes = netlink.default_routes().await.unwrap();
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[0].gateway, Some("192.0.2.9".parse().unwrap()));
        assert_eq!((routes[0].index, routes[0].metric), (link.index, 100));
    });
}

#[test]
fn a_monitor_that_is_not_read_is_told_to_resync_and_then_goes_on() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let link = dummy(&netlink).await;
        let mut monitor = Monitor::open(["kube-lb0".to_owned()]).unwrap();
        monitor.watch(link.index);
        let many: Vec<_> = (1..=1_000u32).map(|n| ip(&format!("2001:db8::{n:x}/128"))).collect();
        // A notification costs about a kilobyte of the receive buffer of 16 MiB: this many do not fit.
        for _ in 0..20 {
            netlink.add_addresses(link.index, &many, HOW).await;
            netlink.delete_addresses(link.index, &many).await;
        }
        while monitor.next().await.unwrap() != Event::Resync {}
        // From here on nothing may be lost.
        let last = ip("192.0.2.1/32");
        netlink.add_address(link.index, last, HOW).await.unwrap();
        while !matches!(monitor.next().await.unwrap(), Event::AddressAdded(added) if added.prefix == last) {}
    });
}

#[test]
fn thousands_of_addresses_go_in_many_datagrams_and_all_arrive() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let link = dummy(&netlink).await;
        let many: Vec<_> = (1..=3_001u32).map(|n| ip(&format!("2001:db8::{n:x}/128"))).collect();
        let results = netlink.add_addresses(link.index, &many, HOW).await;
        assert_eq!(results.len(), many.len());
        for result in results {
            assert_eq!(result.unwrap(), Outcome::Changed);
        }
        assert_eq!(held(&netlink, &link).await.len(), many.len());
    });
}

#[test]
fn routers_are_asked_for_their_advertisements() {
    in_namespace(async || {
        use socket2::{Domain, Protocol, Socket, Type};
        let commands = "ip link set lo up; ip link add node type veth peer name router
             for end in node router; do ip link set $end addrgenmode none; ip link set $end up; done
             ip addr add fe80::1/64 dev node nodad; ip addr add fe80::2/64 dev router nodad";
        let made = std::process::Command::new("sh").args(["-ec", commands]).status().unwrap();
        assert!(made.success());
        let router = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        router.bind_device(Some(b"router")).unwrap();
        let index = nix::net::if_::if_nametoindex("router").unwrap();
        router.join_multicast_v6(&"ff02::2".parse().unwrap(), index).unwrap();
        router.set_nonblocking(true).unwrap();
        let mut discovery = netlink::RouterDiscovery::open("node").unwrap();
        // Router Solicitation (RFC 4861 §4.1).
        let is_asked = async {
            let mut octets = [0; 64];
            loop {
                match std::io::Read::read(&mut &router, &mut octets) {
                    Ok(8) if octets[..2] == [133, 0] => return,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::select! {
            () = is_asked => {}
            heard = discovery.changed() => panic!("nobody advertises: {heard:?}"),
        }
    });
}

/// Lines of shell, in the namespace of the calling thread.
fn sh(commands: &str) {
    assert!(
        std::process::Command::new("sh").args(["-ec", commands]).status().unwrap().success(),
        "{commands}"
    );
}

#[test]
fn a_port_that_leaves_a_bridge_goes_on_being_watched() {
    in_namespace(async || {
        sh("ip link add eth0 type veth peer name far; ip link add br0 type bridge; ip link set br0 up");
        let mut monitor = Monitor::open(["eth0".to_owned()]).unwrap();
        monitor.watch(nix::net::if_::if_nametoindex("eth0").unwrap());
        sh("ip link set eth0 master br0; ip link set eth0 up; ip link set far up; ip link set eth0 nomaster
            ip addr add 192.0.2.1/32 dev eth0");
        loop {
            match monitor.next().await.unwrap() {
                Event::AddressAdded(address) if address.prefix == ip("192.0.2.1/32") => return,
                Event::LinkRemoved(link) => panic!("it is there: {link:?}"),
                _ => {}
            }
        }
    });
}

#[test]
fn default_routes_are_news_and_no_other_routes() {
    in_namespace(async || {
        let netlink = Netlink::open().unwrap();
        let link = dummy(&netlink).await;
        netlink
            .add_address(link.index, ip("192.0.2.1/24"), Addressing { no_prefix_route: false, ..HOW })
            .await
            .unwrap();
        let mut monitor = Monitor::open([]).unwrap();
        monitor.watch(link.index);
        let commands = [
            ("route add 198.51.100.0/24 via 192.0.2.9", false),
            ("-6 route add 2001:db8:1::/48 dev kube-lb0", false),
            ("route del 198.51.100.0/24", false),
            ("route add default via 192.0.2.9 metric 7", true),
            ("route del default", true),
            ("-6 route add default dev kube-lb0", true),
        ];
        for (end, (command, is_news)) in (10..).zip(commands) {
            // An address marks the end of what the command has brought.
            sh(&format!("ip {command}; ip addr add 192.0.2.{end}/32 dev kube-lb0"));
            let last = ip(&format!("192.0.2.{end}/32"));
            let mut routes = 0;
            loop {
                match monitor.next().await.unwrap() {
                    Event::DefaultRoutes => routes += 1,
                    Event::AddressAdded(address) if address.prefix == last => break,
                    _ => {}
                }
            }
            assert_eq!(routes > 0, is_news, "{command}");
        }
    });
}
