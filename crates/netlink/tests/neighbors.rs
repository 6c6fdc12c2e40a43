//! Neighbors against kernels: two network namespaces with one wire between them, made and removed by each test.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "tests, and what they skip is said"
)]

use std::{
    future::Future,
    io::Read,
    net::IpAddr,
    process::Command,
    time::{Duration, Instant},
};

use netlink::{Heard, Kind, Mac, Neighbors, Sound, frame};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
    unistd::geteuid,
};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

const OURS: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 0x0b]);

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names of two hosts.
struct Hosts {
    a: String,
    b: String,
}

impl Hosts {
    fn new() -> Hosts {
        let name = |host| format!("nbr{host}-{}-{}", std::process::id(), nix::unistd::gettid());
        let hosts = Hosts { a: name('a'), b: name('b') };
        let Hosts { a, b } = &hosts;
        run(&format!("ip netns add {a}"));
        run(&format!("ip netns add {b}"));
        run(&format!("ip -n {a} link add v0 type veth peer name v1 netns {b}"));
        run(&format!("ip -n {a} link set v0 address {OURS} up"));
        run(&format!("ip -n {b} link set v1 address {THEIRS} up"));
        hosts
    }

    fn on_a(&self, command: &str) -> String {
        run(&format!("ip -n {} {command}", self.a))
    }

    fn on_b(&self, command: &str) -> String {
        run(&format!("ip -n {} {command}", self.b))
    }

    /// A socket on b's end of the wire.
    fn wire(&self) -> Wire {
        let path = format!("/run/netns/{}", self.b);
        std::thread::spawn(move || {
            setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            Wire::open("v1")
        })
        .join()
        .unwrap()
    }
}

/// Runs a test as host a, with host b at the other end of v0.
fn between_hosts<F: Future<Output = ()>>(test: impl FnOnce(&'static Hosts) -> F + Send + 'static) {
    if !geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let hosts: &'static Hosts = Box::leak(Box::new(Hosts::new()));
    let thread = std::thread::spawn(move || {
        let path = format!("/run/netns/{}", hosts.a);
        setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test(hosts)).await.unwrap() });
    });
    let outcome = thread.join();
    run(&format!("ip netns del {}", hosts.a));
    run(&format!("ip netns del {}", hosts.b));
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// What passes an interface, unfiltered, and a way to say anything on it.
struct Wire(Socket);

#[allow(unsafe_code, reason = "socket addresses of this family have no safe constructor")]
impl Wire {
    fn open(interface: &str) -> Wire {
        let index = i32::try_from(if_nametoindex(interface).unwrap()).unwrap();
        let all = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(all)))).unwrap();
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: the storage is large and aligned enough for any socket address.
        let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        address.sll_protocol = all;
        address.sll_ifindex = index;
        // SAFETY: family and length are those of the address.
        let address =
            unsafe { SockAddr::new(storage, u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap()) };
        socket.bind(&address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Wire(socket)
    }

    /// The next frame from host a that says something about this address.
    fn next_about(&self, address: IpAddr) -> Vec<u8> {
        let mut buffer = [0; 2048];
        loop {
            let octets = (&self.0).read(&mut buffer).expect("a frame within five seconds");
            let frame = &buffer[..octets];
            let is_about = frame::read(frame).is_some_and(|heard| heard.address == address);
            if is_about && frame[6..12] == OURS.0 {
                return frame.to_vec();
            }
        }
    }

    fn say(&self, frame: &[u8]) {
        self.0.send(frame).unwrap();
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn open(interface: &str) -> Neighbors {
    Neighbors::open(if_nametoindex(interface).unwrap()).unwrap()
}

/// Waits for what the kernel makes of a command.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(10), "not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What says whether an address is there; asks again while nobody answers, as the other end may just be starting.
async fn is_answered(neighbors: &mut Neighbors, address: IpAddr, by: Mac) {
    loop {
        neighbors.probe(address).unwrap();
        let answer = async {
            loop {
                let heard = neighbors.next().await.unwrap();
                if heard.address == address && heard.kind != Kind::Probe {
                    break heard;
                }
            }
        };
        if let Ok(heard) = tokio::time::timeout(Duration::from_millis(200), answer).await {
            assert_eq!(heard.mac, by);
            return;
        }
    }
}

#[test]
fn announcements_are_on_the_wire_as_they_were_written_and_tshark_agrees() {
    between_hosts(async |hosts| {
        let wire = hosts.wire();
        let mut neighbors = open("v0");
        assert_eq!(neighbors.mac(), OURS);
        let mut captured = Vec::new();
        for address in [ip("192.0.2.1"), ip("2001:db8::1")] {
            neighbors.announce(address).unwrap();
            for frame in frame::announcements(OURS, address, false) {
                assert_eq!(wire.next_about(address), frame);
                captured.push(frame);
            }
            neighbors.probe(address).unwrap();
            assert_eq!(wire.next_about(address), frame::probe(OURS, address));
            captured.push(frame::probe(OURS, address));
        }
        // RFC 4861 §4.4: the Router flag says what the node is.
        run("sysctl -qw net.ipv6.conf.v0.forwarding=1");
        let mut neighbors = open("v0");
        neighbors.announce(ip("2001:db8::1")).unwrap();
        let of_router = frame::announcements(OURS, ip("2001:db8::1"), true).remove(0);
        assert_eq!(wire.next_about(ip("2001:db8::1")), of_router);
        dissected(&captured);
    });
}

/// What Wireshark makes of the frames, in which each is one line.
fn dissected(frames: &[Vec<u8>]) {
    if Command::new("tshark").arg("--version").output().is_err() {
        println!("not dissected: there is no tshark");
        return;
    }
    // The header of a capture file in the host's order: microseconds, Ethernet.
    let mut pcap = Vec::new();
    pcap.extend(0xa1b2_c3d4_u32.to_ne_bytes());
    pcap.extend([2u16, 4].into_iter().flat_map(u16::to_ne_bytes));
    pcap.extend([0u32, 0, 65_535, 1].into_iter().flat_map(u32::to_ne_bytes));
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        pcap.extend([0, 0, length, length].into_iter().flat_map(u32::to_ne_bytes));
        pcap.extend(frame);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pcap).unwrap();
    let mut tshark = Command::new("tshark");
    tshark.args(["-T", "fields", "-E", "separator=,"]);
    for field in [
        "arp.opcode",
        "arp.isgratuitous",
        "arp.isprobe",
        "arp.src.proto_ipv4",
        "arp.dst.proto_ipv4",
        "arp.dst.hw_mac",
        "ipv6.hlim",
        "ipv6.src",
        "ipv6.dst",
        "icmpv6.type",
        "icmpv6.checksum.status",
        "icmpv6.nd.na.flag.s",
        "icmpv6.nd.na.flag.o",
        "icmpv6.opt.linkaddr",
        "_ws.malformed",
    ] {
        tshark.args(["-e", field]);
    }
    let output = tshark.arg("-r").arg(file.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).replace("True", "1").replace("False", "0");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "1,1,,192.0.2.1,192.0.2.1,00:00:00:00:00:00,,,,,,,,,",
            "2,1,,192.0.2.1,192.0.2.1,02:00:00:00:00:0a,,,,,,,,,",
            "1,,1,0.0.0.0,192.0.2.1,00:00:00:00:00:00,,,,,,,,,",
            ",,,,,,255,2001:db8::1,ff02::1,136,1,0,1,02:00:00:00:00:0a,",
            ",,,,,,255,::,ff02::1:ff00:1,135,1,,,,",
        ],
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_kernel_that_has_the_address_answers_and_one_that_has_not_is_silent() {
    between_hosts(async |hosts| {
        hosts.on_b("addr add 192.0.2.1/24 dev v1");
        hosts.on_b("addr add 2001:db8::1/64 dev v1 nodad");
        let mut neighbors = open("v0");
        is_answered(&mut neighbors, ip("192.0.2.1"), THEIRS).await;
        is_answered(&mut neighbors, ip("2001:db8::1"), THEIRS).await;
        for (absent, present) in
            [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1"), ("192.0.2.3", "2001:db8::1")]
        {
            while neighbors.try_next().unwrap().is_some() {}
            neighbors.probe(ip(absent)).unwrap();
            neighbors.probe(ip(present)).unwrap();
            // Answers come in the order of the questions.
            loop {
                let heard = neighbors.next().await.unwrap();
                assert_ne!(heard.address, ip(absent), "{heard:?}");
                if heard.address == ip(present) {
                    break;
                }
            }
        }
    });
}

#[test]
fn a_bridge_and_a_macvlan_are_asked_on_and_spoken_for_like_hardware() {
    between_hosts(async |hosts| {
        hosts.on_b("addr add 192.0.2.1/24 dev v1");
        hosts.on_b("addr add 2001:db8::1/64 dev v1 nodad");
        hosts.on_a("link add mv0 link v0 address 02:00:00:00:00:1a type macvlan mode bridge");
        hosts.on_a("link set mv0 up");
        let mut neighbors = open("mv0");
        assert_eq!(neighbors.mac(), Mac([2, 0, 0, 0, 0, 0x1a]));
        is_answered(&mut neighbors, ip("192.0.2.1"), THEIRS).await;
        is_answered(&mut neighbors, ip("2001:db8::1"), THEIRS).await;
        drop(neighbors);
        hosts.on_a("link del mv0");
        hosts.on_a("link add br0 address 02:00:00:00:00:2a type bridge");
        hosts.on_a("link set v0 master br0");
        hosts.on_a("link set br0 up");
        let mut neighbors = open("br0");
        is_answered(&mut neighbors, ip("192.0.2.1"), THEIRS).await;
        is_answered(&mut neighbors, ip("2001:db8::1"), THEIRS).await;
    });
}

#[test]
fn a_vlan_is_another_wire_than_the_link_under_it() {
    between_hosts(async |hosts| {
        let wire = hosts.wire();
        let mut neighbors = open("v0");
        for address in [ip("192.0.2.1"), ip("2001:db8::1")] {
            let untagged = frame::announcements(THEIRS, address, false).remove(0);
            let mut tagged = untagged.clone();
            tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
            tagged[11] = 0x0c;
            wire.say(&tagged);
            wire.say(&untagged);
            loop {
                let heard = neighbors.next().await.unwrap();
                if heard.address == address {
                    assert_eq!(heard, Heard { address, mac: THEIRS, kind: Kind::Announcement });
                    break;
                }
            }
            assert_eq!(neighbors.try_next().unwrap().filter(|heard| heard.address == address), None);
        }
        // Where the kernel has VLANs, both ends of one hear each other.
        let add = |host: &str, link: &str| {
            let name = format!("{link}.5");
            Command::new("ip")
                .args(["-n", host, "link", "add", "link", link, "name", &name, "type", "vlan", "id", "5"])
                .status()
        };
        if !add(&hosts.a, "v0").unwrap().success() || !add(&hosts.b, "v1").unwrap().success() {
            println!("skipped in part: this kernel has no VLANs");
            return;
        }
        hosts.on_a("link set v0.5 up");
        hosts.on_b("link set v1.5 up");
        hosts.on_b("addr add 192.0.2.9/24 dev v1.5");
        is_answered(&mut open("v0.5"), ip("192.0.2.9"), THEIRS).await;
    });
}

#[test]
fn an_announcement_moves_the_address_in_the_caches_of_its_users() {
    between_hosts(async |hosts| {
        let mut neighbors = open("v0");
        hosts.on_b("addr add 192.0.2.7/24 dev v1");
        hosts.on_b("addr add 2001:db8::7/64 dev v1 nodad");
        for address in ["192.0.2.1", "2001:db8::1"] {
            hosts.on_b(&format!("neigh add {address} lladdr 02:00:00:00:00:99 dev v1 nud stale"));
            let is_moved = || hosts.on_b(&format!("neigh show {address}")).contains(&OURS.to_string());
            assert!(!is_moved());
            // Linux takes no second news of a neighbour within a second (`locktime`).
            let start = Instant::now();
            while !is_moved() {
                assert!(start.elapsed() < Duration::from_secs(10), "{}", hosts.on_b("neigh show"));
                neighbors.announce(ip(address)).unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
}

#[test]
fn neither_what_is_sent_nor_what_the_own_kernel_answers_is_heard() {
    between_hosts(async |hosts| {
        let wire = hosts.wire();
        hosts.on_a("addr add 192.0.2.1/24 dev v0");
        let mut neighbors = open("v0");
        neighbors.announce(ip("192.0.2.1")).unwrap();
        neighbors.probe(ip("192.0.2.5")).unwrap();
        neighbors.answer(ip("192.0.2.6"), THEIRS).unwrap();
        assert_eq!(wire.next_about(ip("192.0.2.6")), frame::answer(OURS, ip("192.0.2.6"), THEIRS, false));
        // The kernel of a answers this one.
        wire.say(&frame::probe(THEIRS, ip("192.0.2.1")));
        let probe = Heard { address: ip("192.0.2.1"), mac: THEIRS, kind: Kind::Probe };
        loop {
            let heard = neighbors.next().await.unwrap();
            assert_ne!(heard.mac, OURS, "{heard:?}");
            if heard == probe {
                break;
            }
        }
        // What a loop in the network brings back is not another's either.
        wire.say(&frame::probe(OURS, ip("192.0.2.8")));
        wire.say(&frame::probe(THEIRS, ip("192.0.2.9")));
        let answered = Heard { address: ip("192.0.2.9"), mac: THEIRS, kind: Kind::Probe };
        assert_eq!(neighbors.next().await.unwrap(), answered);
    });
}

#[test]
fn other_traffic_does_not_reach_the_sockets() {
    between_hosts(async |hosts| {
        let wire = hosts.wire();
        let mut neighbors = open("v0");
        // UDP over IPv6, an echo request, and a tagged probe: none may be queued.
        let mut packet = frame::probe(THEIRS, ip("2001:db8::1"));
        packet[20] = 17;
        wire.say(&packet);
        packet[20] = 58;
        packet[54] = 128;
        wire.say(&packet);
        wire.say(&frame::probe(THEIRS, ip("2001:db8::2")));
        loop {
            if neighbors.next().await.unwrap().address == ip("2001:db8::2") {
                break;
            }
        }
        let sockets = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        assert_eq!(sockets.lines().count(), 3, "a heading, ARP and IPv6: {sockets}");
        drop(neighbors);
        let sockets = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        assert_eq!(sockets.lines().count(), 1, "closed: {sockets}");
    });
}

#[test]
fn a_link_that_goes_down_is_an_error_and_one_that_is_up_again_is_heard_again() {
    between_hosts(async |hosts| {
        let wire = hosts.wire();
        let mut neighbors = open("v0");
        hosts.on_a("link set v0 down");
        let error = loop {
            if let Err(error) = neighbors.next().await {
                break error;
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
        assert!(neighbors.probe(ip("192.0.2.1")).is_err());
        hosts.on_a("link set v0 up");
        until("the carrier is back", || hosts.on_a("link show v0").contains("LOWER_UP")).await;
        wire.say(&frame::probe(THEIRS, ip("192.0.2.1")));
        loop {
            // Each socket tells once that the link was down.
            if neighbors.next().await.is_ok_and(|heard| heard.address == ip("192.0.2.1")) {
                break;
            }
        }
        hosts.on_a("link del v0");
        let gone = Neighbors::open(neighbors.index()).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENODEV));
    });
}

#[test]
fn whatever_others_send_to_whomever_is_a_sound_and_what_this_host_sends_is_none() {
    between_hosts(async |hosts| {
        for host in [&hosts.a, &hosts.b] {
            // The kernels would speak by themselves.
            run(&format!("ip netns exec {host} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
        }
        let wire = hosts.wire();
        let sound = Sound::open(if_nametoindex("v0").unwrap()).unwrap();
        open("v0").probe(ip("192.0.2.1")).unwrap();
        assert!(wire.next_about(ip("192.0.2.1")).len() > 14 && !sound.try_hear().unwrap());
        // For a third host, and of an EtherType that nobody knows.
        let mut frame = vec![2, 0, 0, 0, 0, 0x0c];
        frame.extend(THEIRS.0);
        frame.extend([0x88, 0xb5]);
        frame.extend([0; 46]);
        wire.say(&frame);
        sound.hear().await.unwrap();
        assert!(!sound.try_hear().unwrap(), "told once");
    });
}

#[test]
fn what_is_no_ethernet_is_refused() {
    between_hosts(async |hosts| {
        hosts.on_a("link set lo up");
        let error = Neighbors::open(if_nametoindex("lo").unwrap()).unwrap_err();
        assert!(error.to_string().contains("no Ethernet"), "{error}");
    });
}
