//! An idealised subnet in memory: nodes with a kernel, an agent's claims and a heartbeat oracle, on a switch that can
//! be cut. Virtual time; everything random comes from one seed. A kernel does what it is told in the order in which it
//! is told, as that of the driver does. What was on its way to an agent or from it dies with the agent.
//!
//! `TRACE=192.0.2.1` shows all that happens to an address.

mod checker;
mod faults;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netlink::{Address, AddressFlags, Addressing, Heard, Kind, Lifetime, Mac, PROTOCOL};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::super::Claims;
use crate::claim::{Action, Announcing, Elected, Input, Member, Report, Wanted, action::AddFailure};
use checker::Checker;

pub(super) const INTERFACE: u32 = 2;
/// After that the claims of a network that nobody disturbs have to be in order: a failed node is noticed after some
/// 550 ms and its addresses are somewhere else soon after.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agent {
    Running,
    /// SIGSTOP: what comes waits for it.
    Stopped,
    Gone,
}

#[derive(Debug)]
struct Node {
    name: Arc<str>,
    mac: Mac,
    claims: Claims,
    agent: Agent,
    /// The machine is on: its kernel answers.
    is_on: bool,
    has_carrier: bool,
    is_leaving: bool,
    /// Until when the kernel has an address.
    kernel: BTreeMap<IpAddr, Instant>,
    /// When it is to be woken.
    wake_at: Option<Instant>,
    /// What waits for a stopped agent.
    inbox: Vec<What>,
    /// Which others this node takes for alive.
    alive: BTreeSet<usize>,
    known: BTreeSet<usize>,
    /// Which others it hears, or has begun not to hear, and how often that has changed.
    heard: BTreeMap<usize, (bool, u64)>,
    /// How many agents have run here and have ended.
    life: u64,
    /// It was told that it hears no other.
    is_alone: bool,
    /// Until when the kernel is busy with what it was told.
    kernel_free_at: Instant,
    /// It was cut off while no agent ran: what it has could not be taken off.
    is_blameless: bool,
}

#[derive(Clone, Debug)]
enum What {
    Frame(Heard),
    Payload(Arc<str>, Vec<u8>),
    Wake,
    Add(IpNet, Addressing, Instant),
    Remove(IpNet),
    Expire(IpAddr),
    AddressGone(IpAddr),
    /// The oracle's word on another, if nothing has changed since this look at it.
    Verdict(usize, u64),
    /// What the election makes of it a little later.
    Elect,
    /// A host that is no member asks for everything without wanting it.
    Noise(Mac),
    /// Whether frames of clients reach a node that hears no member.
    Sound,
}

pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) start: Instant,
    nodes: Vec<Node>,
    addresses: Vec<IpAddr>,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    /// What happens, and for which life of the agent that it happens to.
    events: BTreeMap<u64, (What, u64)>,
    sequence: u64,
    random: StdRng,
    /// Pairs whose frames are lost, in one direction.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Frames lost, per mille.
    loss: u32,
    checker: Checker,
    pub(super) reports: Vec<(usize, Report)>,
    pub(super) announcements: Vec<(Instant, usize, IpAddr)>,
    pub(super) seed: u64,
    /// The address whose life is printed.
    traced: Option<String>,
    /// Kernel answers of hosts that are no members.
    pub(super) strangers: BTreeMap<IpAddr, Mac>,
}

fn mac(node: usize) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(node).unwrap()])
}

fn prefix(address: IpAddr) -> IpNet {
    IpNet::new(address, if address.is_ipv4() { 24 } else { 64 }).unwrap()
}

/// Lifetimes are short, so that what expires does so within a run.
const ADDRESSING: Addressing = Addressing {
    no_prefix_route: true,
    no_dad: false,
    lifetime: Lifetime::Limited { valid_secs: 20, preferred_secs: 20 },
};

fn address(ip: IpAddr) -> Address {
    Address {
        index: INTERFACE,
        prefix: prefix(ip),
        protocol: Some(PROTOCOL),
        flags: AddressFlags::default(),
        is_link_local: false,
        lifetime: ADDRESSING.lifetime,
    }
}

/// Rendezvous, as far as it matters here.
fn weight(name: &str, address: IpAddr) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for octet in name.bytes().chain(address.to_string().into_bytes()) {
        hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^ (hash >> 29)
}

impl Network {
    /// So many nodes, all started, and so many addresses, every second of them IPv6.
    pub(super) fn new(nodes: usize, addresses: usize, seed: u64) -> Network {
        let start = Instant::now();
        let mut random = StdRng::seed_from_u64(seed);
        let node = |number: usize, random: &mut StdRng| {
            let name: Arc<str> = format!("node{number}").into();
            Node {
                claims: Claims::new(&name, random.random()),
                name,
                mac: mac(number),
                agent: Agent::Gone,
                is_on: true,
                has_carrier: true,
                is_leaving: false,
                kernel: BTreeMap::new(),
                wake_at: None,
                inbox: Vec::new(),
                alive: BTreeSet::new(),
                known: BTreeSet::new(),
                heard: BTreeMap::new(),
                life: 0,
                is_alone: false,
                kernel_free_at: start,
                is_blameless: false,
            }
        };
        let all = (0..nodes).map(|number| node(number, &mut random)).collect();
        let ip = |number: usize| -> IpAddr {
            let text = if number.is_multiple_of(2) {
                format!("192.0.2.{}", number + 1)
            } else {
                format!("2001:db8::{number:x}")
            };
            text.parse().unwrap()
        };
        let mut network = Network {
            now: start,
            start,
            nodes: all,
            addresses: (0..addresses).map(ip).collect(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            random,
            cut: BTreeSet::new(),
            loss: 0,
            checker: Checker::new(start),
            reports: Vec::new(),
            announcements: Vec::new(),
            seed,
            traced: std::env::var("TRACE").ok(),
            strangers: BTreeMap::new(),
        };
        for node in 0..nodes {
            network.start_agent(node);
        }
        network
    }

    pub(super) fn chance<T, R: rand::distr::uniform::SampleRange<T>>(&mut self, range: R) -> T
    where
        T: rand::distr::uniform::SampleUniform,
    {
        self.random.random_range(range)
    }

    fn push(&mut self, at: Instant, node: usize, what: What) {
        self.sequence += 1;
        self.events.insert(self.sequence, (what, self.nodes[node].life));
        self.queue.push(Reverse((at, self.sequence, node)));
    }

    fn soon(&mut self, from: u64, to: u64) -> Instant {
        self.now + Duration::from_micros(self.random.random_range(from..=to))
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, sequence, node))) =
            self.queue.peek().copied().filter(|next| next.0.0 <= end)
        {
            self.queue.pop();
            self.now = self.now.max(at);
            let (what, life) = self.events.remove(&sequence).unwrap();
            // A wire and a kernel outlive agents.
            if life == self.nodes[node].life
                || matches!(what, What::Frame(_) | What::Expire(_) | What::Noise(_))
            {
                self.happen(node, what);
            }
            self.check();
        }
        self.now = end;
        self.checker.wake();
        self.check();
    }

    /// Shows what concerns the address that is asked for, and what is done to agents.
    fn trace(&self, number: usize, what: impl std::fmt::Debug) {
        if let Some(traced) = &self.traced {
            let text = format!("{what:?}");
            if text.starts_with('"') || text.contains(traced) || text.starts_with("Verdict") {
                let agent = self.nodes[number].agent;
                eprintln!("{:?} node{number} ({agent:?}) {text}", self.now - self.start);
            }
        }
    }

    fn happen(&mut self, number: usize, what: What) {
        self.trace(number, &what);
        match what {
            What::Noise(mac) => return self.make_noise(number, mac),
            What::Expire(ip) => {
                if self.nodes[number].kernel.get(&ip).is_some_and(|until| *until <= self.now) {
                    self.nodes[number].kernel.remove(&ip);
                    self.checker.wake();
                    self.happen(number, What::AddressGone(ip));
                }
                return;
            }
            What::Frame(heard) if heard.kind == Kind::Probe => self.kernel_answers(number, &heard),
            _ => {}
        }
        match self.nodes[number].agent {
            Agent::Running => self.agent_takes(number, what),
            Agent::Stopped if !matches!(what, What::Wake) => self.nodes[number].inbox.push(what),
            _ if matches!(what, What::Wake) => self.nodes[number].wake_at = None,
            _ => {}
        }
    }

    fn kernel_answers(&mut self, number: usize, probe: &Heard) {
        let node = &self.nodes[number];
        if node.is_on && node.kernel.contains_key(&probe.address) {
            let to = probe.address.is_ipv4().then_some(probe.mac);
            let kind = if to.is_some() { Kind::Answer } else { Kind::Announcement };
            let answer = Heard { address: probe.address, mac: node.mac, kind };
            self.send(number, answer, to);
        }
    }

    /// A frame to one or to all.
    fn send(&mut self, from: usize, heard: Heard, to: Option<Mac>) {
        for other in 0..self.nodes.len() {
            let is_for = to.is_none_or(|mac| self.nodes[other].mac == mac);
            if other != from && is_for && self.reaches(from, other) && !self.is_lost() {
                let at = self.soon(30, 300);
                self.push(at, other, What::Frame(heard));
            }
        }
        if let (Kind::Probe, Some(mac)) = (heard.kind, self.strangers.get(&heard.address).copied()) {
            let at = self.soon(30, 300);
            self.push(at, from, What::Frame(Heard { mac, kind: Kind::Answer, ..heard }));
        }
    }

    fn probe_from_elsewhere(&mut self, to: usize, address: IpAddr, mac: Mac) {
        let at = self.soon(30, 300);
        self.push(at, to, What::Frame(Heard { address, mac, kind: Kind::Probe }));
    }

    fn is_lost(&mut self) -> bool {
        self.loss > 0 && self.random.random_range(0..1_000) < self.loss
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        let is_there = |node: usize| self.nodes[node].is_on && self.nodes[node].has_carrier;
        is_there(from) && is_there(to) && !self.cut.contains(&(from, to))
    }

    /// The oracle: who has fallen silent is dead 500 to 600 ms later, and who is heard lives after 100 to 200 ms.
    fn look(&mut self, node: usize, other: usize) {
        let is_heard = self.reaches(node, other)
            && self.reaches(other, node)
            && self.nodes[other].agent == Agent::Running;
        let (was_heard, look) = self.nodes[node].heard.get(&other).copied().unwrap_or((false, 0));
        if is_heard != was_heard {
            let at = if is_heard { self.soon(100_000, 200_000) } else { self.soon(500_000, 600_000) };
            self.nodes[node].heard.insert(other, (is_heard, look + 1));
            self.push(at, node, What::Verdict(other, look + 1));
        }
    }

    fn look_around(&mut self) {
        for node in 0..self.nodes.len() {
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                self.look(node, other);
            }
        }
    }

    fn agent_takes(&mut self, number: usize, what: What) {
        let now = self.now;
        let node = &mut self.nodes[number];
        match what {
            What::Frame(heard) => node.claims.on_heard(INTERFACE, &heard, now),
            What::Payload(from, octets) => node.claims.handle(Input::Payload { from, octets }, now),
            What::Wake => {
                node.wake_at = None;
                node.claims.handle_timeout(now);
            }
            What::AddressGone(ip) => node.claims.on_address_removed(&address(ip), now),
            What::Add(prefix, addressing, not_after) => {
                let result = if now > not_after { Err(AddFailure::Stale) } else { Ok(()) };
                if result.is_ok() {
                    let Lifetime::Limited { valid_secs, .. } = addressing.lifetime else { unreachable!() };
                    let until = now + Duration::from_secs(valid_secs.into());
                    node.kernel.insert(prefix.addr(), until);
                    self.checker.wake();
                    self.push(until, number, What::Expire(prefix.addr()));
                }
                // The kernel's answer and its news are two sockets.
                let is_news_first = self.chance(0..2) == 0;
                let claims = &mut self.nodes[number].claims;
                if is_news_first && result.is_ok() {
                    claims.on_address(&address(prefix.addr()), now);
                }
                claims.on_added(INTERFACE, prefix, result, now);
                if !is_news_first && result.is_ok() {
                    claims.on_address(&address(prefix.addr()), now);
                }
            }
            What::Remove(prefix) => {
                node.kernel.remove(&prefix.addr());
                self.checker.wake();
                node.claims.on_removed(INTERFACE, prefix, true, now);
                node.claims.on_address_removed(&address(prefix.addr()), now);
            }
            What::Verdict(other, look) => {
                // It has changed again since: another verdict is on its way.
                let Some((is_alive, _)) = node.heard.get(&other).copied().filter(|(_, last)| *last == look)
                else {
                    return;
                };
                let node = &mut self.nodes[number];
                match is_alive {
                    true => _ = node.alive.insert(other),
                    false => _ = node.alive.remove(&other),
                }
                node.known.insert(other);
                self.tell_members(number);
                let at = self.soon(0, 20_000);
                self.push(at, number, What::Elect);
            }
            What::Elect => {
                let wanted = self.elect(number);
                for it in &wanted {
                    self.trace(number, (it.prefix, &it.elected));
                }
                self.nodes[number].claims.handle(Input::WantedAll(wanted), now);
            }
            What::Sound => self.hear_clients(number),
            What::Expire(_) | What::Noise(_) => unreachable!("not the agent's"),
        }
        self.drain(number);
    }

    fn tell_members(&mut self, number: usize) {
        let member = |other: &usize| Member {
            name: self.nodes[*other].name.clone(),
            macs: vec![mac(*other)],
            is_alive: self.nodes[number].alive.contains(other),
            takes_messages: self.nodes[number].alive.contains(other),
        };
        let members = self.nodes[number].known.iter().map(member).collect();
        // Nobody was heard for a while: it is known with the first verdict.
        let is_heard = |other: usize| {
            other != number && self.reaches(other, number) && self.nodes[other].agent == Agent::Running
        };
        let is_alone = !self.nodes[number].known.is_empty() && !(0..self.nodes.len()).any(is_heard);
        self.nodes[number].is_alone = is_alone;
        let alone = if is_alone { vec![INTERFACE] } else { Vec::new() };
        self.nodes[number].claims.handle(Input::Alone(alone), self.now);
        self.nodes[number].claims.handle(Input::Members(members), self.now);
        if is_alone {
            self.hear_clients(number);
        }
    }

    /// There are clients beside every node, which send all the time.
    fn hear_clients(&mut self, number: usize) {
        let node = &self.nodes[number];
        if !node.is_alone {
            return;
        }
        let hears = |other: usize| other != number && !self.cut.contains(&(other, number));
        if node.has_carrier && (0..self.nodes.len()).any(hears) {
            self.nodes[number].claims.on_sound(INTERFACE, self.now);
        }
        let at = self.soon(1_000, 5_000);
        self.push(at, number, What::Sound);
    }

    fn elect(&self, number: usize) -> Vec<Wanted> {
        let node = &self.nodes[number];
        let is_candidate = |other: &usize| {
            let it = &self.nodes[*other];
            (*other == number && it.has_carrier || node.alive.contains(other)) && !it.is_leaving
        };
        let candidates: Vec<usize> = (0..self.nodes.len()).filter(is_candidate).collect();
        let winner = |ip: IpAddr| candidates.iter().min_by_key(|other| weight(&self.nodes[**other].name, ip));
        let wanted = |ip: &IpAddr| {
            let winner = *winner(*ip)?;
            Some(Wanted {
                interface: INTERFACE,
                prefix: prefix(*ip),
                addressing: ADDRESSING,
                announcing: Announcing::default(),
                elected: match winner == number {
                    true => Elected::Us,
                    false => Elected::Other(self.nodes[winner].name.clone()),
                },
            })
        };
        self.addresses.iter().filter_map(wanted).collect()
    }

    fn drain(&mut self, number: usize) {
        while let Some(action) = self.nodes[number].claims.poll_action() {
            self.execute(number, action);
        }
        let Some(at) = self.nodes[number].claims.poll_timeout() else { return };
        let at = at.max(self.now);
        if self.nodes[number].wake_at.is_none_or(|earlier| at < earlier) {
            self.nodes[number].wake_at = Some(at);
            self.push(at, number, What::Wake);
        }
    }

    fn execute(&mut self, number: usize, action: Action) {
        self.trace(number, &action);
        let mac = self.nodes[number].mac;
        match action {
            Action::Probe { address, .. } => {
                self.send(number, Heard { address, mac, kind: Kind::Probe }, None);
            }
            Action::Answer { address, to, .. } => {
                self.send(number, Heard { address, mac, kind: Kind::Answer }, Some(to));
            }
            Action::Announce { address, .. } => {
                assert!(self.nodes[number].kernel.contains_key(&address), "announced, and not there");
                self.announcements.push((self.now, number, address));
                self.send(number, Heard { address, mac, kind: Kind::Announcement }, None);
            }
            Action::Add { prefix, addressing, not_after, .. } => {
                let at = self.kernel_turn(number);
                self.push(at, number, What::Add(prefix, addressing, not_after));
            }
            Action::Remove { prefix, .. } => {
                let at = self.kernel_turn(number);
                self.push(at, number, What::Remove(prefix));
            }
            Action::Send { to, message, .. } => {
                let other = self.nodes.iter().position(|node| node.name == to).unwrap();
                for octets in message.encode() {
                    // Repeated until it arrives; what can't be delivered now is not delivered here at all.
                    if self.reaches(number, other) && self.reaches(other, number) {
                        let at = self.soon(50, 500);
                        let from = self.nodes[number].name.clone();
                        self.push(at, other, What::Payload(from, octets));
                    }
                }
            }
            Action::Report(report) => {
                self.check_report(number, &report);
                self.reports.push((number, report));
            }
        }
    }

    /// When the kernel has done what it is told now: after everything that it was told before.
    fn kernel_turn(&mut self, number: usize) -> Instant {
        let at = self.soon(100, 2_000).max(self.nodes[number].kernel_free_at);
        self.nodes[number].kernel_free_at = at;
        at
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.clone()
    }

    pub(super) fn agent(&self, number: usize) -> Agent {
        self.nodes[number].agent
    }

    pub(super) fn has_carrier(&self, number: usize) -> bool {
        self.nodes[number].has_carrier
    }

    pub(super) fn is_leaving(&self, number: usize) -> bool {
        self.nodes[number].is_leaving
    }

    pub(super) fn has_left(&self, number: usize) -> bool {
        self.nodes[number].claims.has_left()
    }

    pub(super) fn held_by(&self, number: usize) -> Vec<IpAddr> {
        self.nodes[number].kernel.keys().copied().collect()
    }
}
