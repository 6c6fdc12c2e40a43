//! Claims against kernels: two nodes in network namespaces on one bridge, each with the driver of its claims, and a
//! client that asks for the addresses every millisecond. Who lives and who is elected is said by the test.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and what they measure and skip is said")]

use std::{
    net::IpAddr,
    process::Command,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use agent::claim::{Announcing, Driver, Elected, Input, Member, Outgoing, Outputs, Report, Wanted};
use ipnet::IpNet;
use netlink::{Addressing, Heard, Kind, Lifetime, Mac, Neighbors, Netlink};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
    unistd::{geteuid, gettid},
};
use tokio::sync::{mpsc, oneshot, watch};

const BOTH: [&str; 2] = ["192.0.2.100/24", "2001:db8::100/64"];
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 0xcc]);

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn mac(node: usize) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(node).unwrap() + 1])
}

fn name(node: usize) -> Arc<str> {
    format!("node{node}").into()
}

fn ip(prefix: &str) -> IpAddr {
    prefix.parse::<IpNet>().unwrap().addr()
}

/// A thread in a network namespace with a runtime of its own.
fn in_namespace<F: Future<Output = ()>>(
    namespace: &str,
    task: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<()> {
    let path = format!("/run/netns/{namespace}");
    std::thread::spawn(move || {
        setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(task());
    })
}

/// A node with its claims.
struct Node {
    inputs: mpsc::UnboundedSender<Input>,
    reports: mpsc::UnboundedReceiver<Report>,
    /// Ends the agent as SIGKILL does.
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    interface: u32,
}

/// What the client has heard: when, from whom, of what.
type Log = Arc<Mutex<Vec<(Instant, Heard)>>>;

struct Subnet {
    prefix: String,
    nodes: Vec<Node>,
    heard: Log,
    stop: Option<oneshot::Sender<()>>,
}

impl Drop for Subnet {
    fn drop(&mut self) {
        self.stop.take();
        for node in &mut self.nodes {
            node.kill.take();
            _ = node.thread.take().map(JoinHandle::join);
        }
        for host in ["n0", "n1", "c", "s"] {
            _ = Command::new("ip").args(["netns", "del", &self.host(host)]).status();
        }
    }
}

/// Two nodes that know each other and want nothing yet; `None` where that cannot be.
fn subnet() -> Option<Subnet> {
    if !geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return None;
    }
    let prefix = format!("clm{}-{}-", std::process::id(), gettid());
    let mut subnet = Subnet { prefix, nodes: Vec::new(), heard: Log::default(), stop: None };
    run(&format!("ip netns add {}", subnet.host("s")));
    subnet.ip("s", "link add br0 type bridge");
    subnet.ip("s", "link set br0 up");
    for (host, mac) in [("n0", mac(0)), ("n1", mac(1)), ("c", CLIENT)] {
        let name = subnet.host(host);
        run(&format!("ip netns add {name}"));
        subnet.ip("s", &format!("link add {host} type veth peer name eth0 netns {name}"));
        subnet.ip("s", &format!("link set {host} master br0 up"));
        subnet.ip(host, &format!("link set eth0 address {mac} up"));
    }
    subnet.stop = Some(subnet.ask());
    let (first, second) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let senders = [first.0, second.0];
    for (number, inputs) in [first.1, second.1].into_iter().enumerate() {
        let node = subnet.start(number, inputs, senders.clone());
        subnet.nodes.push(node);
    }
    Some(subnet)
}

impl Subnet {
    fn host(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    fn ip(&self, host: &str, command: &str) -> String {
        run(&format!("ip -n {} {command}", self.host(host)))
    }

    /// The client asks for the addresses from now on.
    fn ask(&self) -> oneshot::Sender<()> {
        let (stop, mut stopped) = oneshot::channel();
        let log = self.heard.clone();
        in_namespace(&self.host("c"), async move || {
            let mut neighbors = Neighbors::open(if_nametoindex("eth0").unwrap()).unwrap();
            let mut tick = tokio::time::interval(Duration::from_millis(1));
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    _ = tick.tick() => BOTH.iter().for_each(|prefix| _ = neighbors.probe(ip(prefix))),
                    heard = neighbors.next() => if let Ok(heard) = heard {
                        log.lock().unwrap().push((Instant::now(), heard));
                    },
                }
            }
        });
        stop
    }

    fn start(
        &self,
        number: usize,
        inputs: mpsc::UnboundedReceiver<Input>,
        lines: [mpsc::UnboundedSender<Input>; 2],
    ) -> Node {
        let host = format!("n{number}");
        let interface = self.ip(&host, "-o link show eth0").split(':').next().unwrap().parse().unwrap();
        let (messages, mut outgoing) = mpsc::unbounded_channel::<Outgoing>();
        let (reports, of_owner) = mpsc::unbounded_channel();
        let (kill, mut killed) = oneshot::channel();
        let thread = in_namespace(&self.host(&host), async move || {
            let driver = Driver::open(
                &name(number),
                7,
                Outputs { messages, reports, added: watch::Sender::default(), metrics: Default::default() },
            )
            .unwrap();
            tokio::select! {
                ended = driver.run(inputs) => ended.unwrap(),
                _ = &mut killed => {}
            }
        });
        // Messages go from one to the other, as heartbeats carry them.
        let [first, second] = lines;
        let (inputs, other) = if number == 0 { (first, second) } else { (second, first) };
        tokio::spawn(async move {
            while let Some(Outgoing { octets, .. }) = outgoing.recv().await {
                _ = other.send(Input::Payload { from: name(number), octets });
            }
        });
        inputs.send(Input::Interfaces(vec![interface])).unwrap();
        Node { inputs, reports: of_owner, kill: Some(kill), thread: Some(thread), interface }
    }

    async fn say(&self, node: usize, input: Input) {
        self.nodes[node].inputs.send(input).unwrap();
    }

    /// The other one lives, or not, in the eyes of this node.
    async fn sees(&self, node: usize, is_alive: bool) {
        let other = 1 - node;
        let member = Member { name: name(other), macs: vec![mac(other)], is_alive, takes_messages: is_alive };
        self.say(node, Input::Members(vec![member])).await;
    }

    /// This node is told that `winner` is to hold both addresses.
    async fn elects(&self, node: usize, winner: usize) {
        let elected = if winner == node { Elected::Us } else { Elected::Other(name(winner)) };
        let wanted = |prefix: &&str| Wanted {
            interface: self.nodes[node].interface,
            prefix: prefix.parse().unwrap(),
            addressing: Addressing {
                no_prefix_route: true,
                no_dad: true,
                lifetime: Lifetime::Limited { valid_secs: 300, preferred_secs: 300 },
            },
            announcing: Announcing::default(),
            elected: elected.clone(),
        };
        self.say(node, Input::WantedAll(BOTH.iter().map(wanted).collect())).await;
    }

    /// Both live, and one holds.
    async fn held_by(&mut self, holder: usize) {
        for node in 0..2 {
            self.sees(node, true).await;
            self.elects(node, holder).await;
        }
        self.reported(holder, Report::Held).await;
    }

    /// Waits until the node has reported this of both addresses.
    async fn reported(&mut self, node: usize, report: impl Fn(IpAddr) -> Report) {
        let mut missing: Vec<_> = BOTH.iter().map(|prefix| report(ip(prefix))).collect();
        while !missing.is_empty() {
            let next = tokio::time::timeout(Duration::from_secs(20), self.nodes[node].reports.recv());
            let next =
                next.await.unwrap_or_else(|_| panic!("node {node} did not report {missing:?}")).unwrap();
            missing.retain(|report| *report != next);
        }
    }

    fn has(&self, host: &str) -> usize {
        self.ip(host, "addr show eth0").matches("100/").count()
    }

    /// What the client has heard since, of one kind or another.
    fn heard(&self, since: Instant, is_so: impl Fn(&Heard) -> bool) -> Vec<(Instant, Heard)> {
        let all = self.heard.lock().unwrap();
        all.iter().filter(|(at, heard)| *at >= since && is_so(heard)).copied().collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Subnet) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "not so: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the client is served by the second node, and makes sure that the first one, which served it
    /// before, has not answered since. Prints how long nobody answered.
    async fn moved(&self, what: &str, since: Instant, from: usize, to: usize) {
        for prefix in BOTH {
            let by = |node: usize, heard: &Heard| {
                heard.address == ip(prefix) && heard.kind != Kind::Probe && heard.mac == mac(node)
            };
            self.until("the client is served by the other", |subnet| {
                !subnet.heard(since, |heard| by(to, heard)).is_empty()
            })
            .await;
            let first = self.heard(since, |heard| by(to, heard))[0].0;
            let before = self.heard(since - Duration::from_secs(60), |heard| by(from, heard));
            // It may have had the address for so short a time that the client never heard it.
            let Some((last, _)) = before.last() else { continue };
            assert!(*last <= first, "{prefix}: two answer at once");
            println!("{what}, {prefix}: nobody answered for {:?}", first - *last);
        }
    }
}

#[tokio::test]
async fn an_elected_node_takes_the_addresses_and_makes_them_known() {
    let Some(mut subnet) = subnet() else { return };
    subnet.held_by(0).await;
    let text = subnet.ip("n0", "addr show eth0");
    for expected in ["192.0.2.100/24", "2001:db8::100/64", "noprefixroute", "valid_lft"] {
        assert!(text.contains(expected), "{text}");
    }
    for line in text.lines().filter(|line| line.contains("100/")) {
        assert!(!line.contains("tentative") && !line.contains("forever"), "{line}");
    }
    assert_eq!(subnet.has("n1"), 0);
    // One at once and three of the burst; each is two frames with IPv4. Answers to IPv6 probes look alike.
    let announced = |heard: &Heard| heard.kind == Kind::Announcement && heard.address.is_ipv4();
    let start = Instant::now() - Duration::from_secs(20);
    subnet.until("four announcements", |subnet| subnet.heard(start, announced).len() == 8).await;
}

#[tokio::test]
async fn a_holder_hands_over_to_the_winner_and_never_do_both_answer() {
    let Some(mut subnet) = subnet() else { return };
    subnet.held_by(0).await;
    for (from, to) in [(0, 1), (1, 0)] {
        let is_answered = |subnet: &Subnet| {
            let by = |heard: &Heard| heard.mac == mac(from) && heard.kind != Kind::Probe;
            subnet.heard(Instant::now() - Duration::from_secs(1), by).len() > 50
        };
        subnet.until("the client is served", is_answered).await;
        let start = Instant::now();
        // The winner knows first, then the holder: it is asked twice.
        subnet.elects(to, to).await;
        subnet.elects(from, to).await;
        subnet.reported(from, Report::Released).await;
        subnet.reported(to, Report::Held).await;
        assert_eq!((subnet.has(&format!("n{from}")), subnet.has(&format!("n{to}"))), (0, 2));
        subnet.moved("handed over", start, from, to).await;
    }
}

#[tokio::test]
async fn a_node_that_leaves_hands_over_and_ends() {
    let Some(mut subnet) = subnet() else { return };
    subnet.held_by(0).await;
    let start = Instant::now();
    subnet.say(0, Input::Leave).await;
    subnet.elects(1, 1).await;
    subnet.reported(1, Report::Held).await;
    subnet
        .until("the driver has ended", |subnet| {
            subnet.nodes[0].thread.as_ref().is_some_and(JoinHandle::is_finished)
        })
        .await;
    assert_eq!((subnet.has("n0"), subnet.has("n1")), (0, 2));
    subnet.moved("left", start, 0, 1).await;
}

#[tokio::test]
async fn a_node_without_cable_is_replaced_and_has_nothing_when_it_is_plugged_in_again() {
    let Some(mut subnet) = subnet() else { return };
    subnet.held_by(0).await;
    subnet.ip("s", "link set n0 down");
    subnet.sees(1, false).await;
    subnet.elects(1, 1).await;
    subnet.reported(1, Report::Held).await;
    subnet.reported(0, Report::Released).await;
    assert_eq!(subnet.has("n0"), 0, "given up while nobody heard it");
    subnet.ip("s", "link set n0 up");
    let start = Instant::now();
    subnet.sees(1, true).await;
    // Still of the opinion that it is to hold them, until it hears of the election.
    subnet
        .until("it has asked for them", |subnet| {
            subnet.heard(start, |heard| heard.kind == Kind::Probe && heard.mac == mac(0)).len() > 4
        })
        .await;
    assert_eq!((subnet.has("n0"), subnet.has("n1")), (0, 2));
}

#[tokio::test]
async fn an_address_that_a_silent_agent_left_is_served_by_its_kernel_until_it_is_gone() {
    let Some(mut subnet) = subnet() else { return };
    subnet.held_by(0).await;
    subnet.nodes[0].kill.take();
    let start = Instant::now();
    subnet.sees(1, false).await;
    subnet.elects(1, 1).await;
    subnet
        .until("node 1 has asked for the addresses again and again", |subnet| {
            subnet.heard(start, |heard| heard.kind == Kind::Probe && heard.mac == mac(1)).len() >= 4
        })
        .await;
    assert_eq!((subnet.has("n0"), subnet.has("n1")), (2, 0));
    subnet.ip("n0", "addr flush dev eth0");
    subnet.reported(1, Report::Held).await;
    subnet.moved("expired", start, 0, 1).await;
}

#[tokio::test]
async fn an_address_that_someone_takes_off_comes_back() {
    let Some(mut subnet) = subnet() else { return };
    subnet.held_by(0).await;
    for prefix in BOTH {
        let is_answer = |heard: &Heard| heard.address == ip(prefix) && heard.kind != Kind::Probe;
        let served = |since| move |subnet: &Subnet| !subnet.heard(since, is_answer).is_empty();
        subnet.until("the client is served", served(Instant::now())).await;
        subnet.ip("n0", &format!("addr del {prefix} dev eth0"));
        let gone = subnet.heard(Instant::now() - Duration::from_secs(60), is_answer).last().unwrap().0;
        // Answers may still be on their way.
        subnet.until("it is back", |subnet: &Subnet| subnet.has("n0") == 2).await;
        let later = gone + Duration::from_millis(10);
        subnet.until("the client is served again", served(later)).await;
        let back = subnet.heard(later, is_answer)[0].0;
        println!("{prefix}: nobody answered for {:?}", back - gone);
        assert_eq!(subnet.has("n0"), 2);
    }
}

#[tokio::test]
async fn an_address_in_use_by_a_stranger_is_reported_and_taken_when_it_is_free() {
    let Some(mut subnet) = subnet() else { return };
    subnet.ip("c", "addr add 192.0.2.100/24 dev eth0");
    subnet.ip("c", "addr add 2001:db8::100/64 dev eth0 nodad");
    subnet.sees(0, true).await;
    subnet.elects(0, 0).await;
    subnet.reported(0, |address| Report::Conflict(address, CLIENT)).await;
    assert_eq!(subnet.has("n0"), 0);
    subnet.ip("c", "addr flush dev eth0");
    // Ended, then held.
    subnet.reported(0, Report::Held).await;
    assert_eq!(subnet.has("n0"), 2);
}

#[tokio::test]
async fn leftovers_are_adopted_if_wanted_and_removed_if_not_and_others_addresses_stay() {
    let Some(mut subnet) = subnet() else { return };
    in_namespace(&subnet.host("n0"), async || {
        let index = if_nametoindex("eth0").unwrap();
        let netlink = Netlink::open().unwrap();
        let lifetime = Lifetime::Limited { valid_secs: 60, preferred_secs: 60 };
        let how = Addressing { no_prefix_route: true, no_dad: true, lifetime };
        for leftover in ["192.0.2.100/24", "192.0.2.101/24"] {
            netlink.add_address(index, leftover.parse().unwrap(), how).await.unwrap();
        }
    })
    .join()
    .unwrap();
    subnet.ip("n0", "addr add 192.0.2.102/24 dev eth0");
    let interface = subnet.nodes[0].interface;
    subnet.say(0, Input::Interfaces(vec![])).await;
    subnet.say(0, Input::Interfaces(vec![interface])).await;
    subnet.elects(0, 0).await;
    subnet.reported(0, Report::Held).await;
    subnet
        .until("what nobody wants is gone", |subnet| {
            !subnet.ip("n0", "addr show eth0").contains("192.0.2.101")
        })
        .await;
    subnet
        .until("the lifetime has begun anew", |subnet| {
            let text = subnet.ip("n0", "addr show eth0");
            text.contains("192.0.2.102")
                && text.matches("valid_lft 300sec").count() + text.matches("valid_lft 299sec").count() > 0
        })
        .await;
}
