//! Groups on an in-memory network with virtual time, for tests: everything that happens follows from a seed.
//!
//! ```text
//! net.kill(2);
//! net.run_for(millis(700));
//! assert!(net.is_dead_to(0, 2));
//! ```
//!
//! The network is as good as UDP on an Ethernet segment and no better: datagrams are lost, late and out of order. It
//! counts their octets as the wire would.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    chance::Chance,
    config::{Config, Local, Name},
    group::{Event, Group},
    key::Keys,
    member::{Standing, State},
    time::Time,
    wire::Binding,
};

/// Ethernet with its checksum, IPv4 and UDP.
const HEADERS: usize = 18 + 20 + 8;

/// What a stopped process's socket keeps for it.
const BACKLOG: usize = 256;

/// What all groups are called.
pub const SUBNET: &str = "192.0.2.0/24";

/// So many milliseconds.
pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The defaults, with a key of the tests.
pub fn config() -> Config {
    let keys = Keys::parse(b"a key for the tests").expect("it is long enough");
    Config::new(millis(100), 5, keys).expect("the defaults can work")
}

/// Puts a tag behind octets that a member may not have written.
pub fn sign(mut said: Vec<u8>, keys: &Keys, binding: Binding<'_>) -> Vec<u8> {
    let tag = keys.sign(&[&said, &binding.octets()]);
    said.extend(tag);
    said
}

/// Some members and the segment between them.
#[derive(Debug)]
pub struct Network {
    now: Time,
    chance: Chance,
    config: Config,
    nodes: Vec<Node>,
    agenda: BinaryHeap<Reverse<(Time, u64, Happening)>>,
    happenings: u64,
    loss: u64,
    delay: (u64, u64),
    /// Directions that carry nothing.
    cuts: BTreeSet<(usize, usize)>,
    /// The latest datagrams that were sent: from, to, octets.
    pub recorded: Vec<(usize, usize, Arc<[u8]>)>,
    /// How many are recorded.
    pub recorder: usize,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    name: Name,
    address: SocketAddr,
    group: Option<Group>,
    boot: u64,
    is_paused: bool,
    backlog: Vec<(SocketAddr, Arc<[u8]>)>,
    /// When its timeout is in the agenda.
    woken_at: Option<Time>,
    /// What it was told.
    pub events: Vec<(Time, Event)>,
    /// Datagrams that it has sent.
    pub sent: u64,
    /// Octets that it has sent, as Ethernet counts them.
    pub sent_octets: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Timeout(usize),
    Arrives { from: usize, to: usize, octets: Arc<[u8]> },
}

impl Network {
    /// So many nodes that know each other and have just started.
    pub fn new(seed: u64, count: usize) -> Network {
        Network::with_config(seed, count, config())
    }

    /// The same with another configuration.
    pub fn with_config(seed: u64, count: usize, config: Config) -> Network {
        let mut net = Network {
            now: Time::ZERO + Duration::from_secs(1000),
            chance: Chance::new(seed),
            config,
            nodes: Vec::new(),
            agenda: BinaryHeap::new(),
            happenings: 0,
            loss: 0,
            delay: (50, 500),
            cuts: BTreeSet::new(),
            recorded: Vec::new(),
            recorder: 0,
        };
        net.nodes = (0..count).map(node).collect();
        (0..count).for_each(|node| net.start(node));
        net
    }

    /// Of 1000 datagrams, so many are lost.
    pub fn set_loss(&mut self, permille: u64) {
        self.loss = permille;
    }

    /// Each datagram takes a random time in this range, in microseconds.
    pub fn set_delay(&mut self, least: u64, most: u64) {
        self.delay = (least, most);
    }

    /// Processes that start from now on are run so.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// A random number below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.chance.next() % limit.max(1)
    }

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> Name {
        Name::clone(&self.nodes[node].name)
    }

    /// Where a node sends from.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].address
    }

    /// A node.
    pub fn node(&mut self, node: usize) -> &mut Node {
        &mut self.nodes[node]
    }

    /// The group of a node that runs.
    pub fn group(&self, node: usize) -> &Group {
        self.nodes[node].group.as_ref().expect("the node runs")
    }

    /// Starts a process on a node; where there was one, this is the next.
    pub fn start(&mut self, node: usize) {
        let seed = self.chance.next();
        let members = self.members();
        let (now, config) = (self.now, self.config.clone());
        let it = &mut self.nodes[node];
        it.boot = now.as_micros().max(it.boot + 1);
        let mac = [2, 0, 0, 0, 0, u8::try_from(node).unwrap_or(255)];
        let (name, address) = (Name::clone(&it.name), it.address);
        let local = Local { group: SUBNET.to_owned(), name, address, mac, boot: it.boot };
        it.group = Some(Group::new(config, local, now, seed));
        (it.is_paused, it.woken_at) = (false, None);
        it.backlog.clear();
        self.with(node, |group, now| group.set_members(&members, now));
    }

    /// All nodes, as the registry has them.
    pub fn members(&self) -> BTreeMap<Name, SocketAddr> {
        self.nodes.iter().map(|node| (Name::clone(&node.name), node.address)).collect()
    }

    /// Does something with a node's group.
    pub fn with<T>(&mut self, node: usize, act: impl FnOnce(&mut Group, Time) -> T) -> T {
        let now = self.now;
        let result = act(self.nodes[node].group.as_mut().expect("the node runs"), now);
        self.drain(node);
        result
    }

    /// Ends a node's process at once.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].group = None;
    }

    /// Stops a node's process; its socket goes on to receive.
    pub fn pause(&mut self, node: usize) {
        self.nodes[node].is_paused = true;
    }

    /// Lets a stopped process go on: as the driver does, what has arrived comes before the timers.
    pub fn resume(&mut self, node: usize) {
        self.nodes[node].is_paused = false;
        for (from, octets) in std::mem::take(&mut self.nodes[node].backlog) {
            let _ = self.with(node, |group, now| group.handle_datagram(from, &octets, now));
        }
        self.with(node, Group::handle_timeout);
    }

    /// Nothing goes from one to another any more.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Nothing goes between two sides any more.
    pub fn part(&mut self, one: &[usize], other: &[usize]) {
        for (left, right) in one.iter().flat_map(|left| other.iter().map(move |right| (*left, *right))) {
            self.cut(left, right);
            self.cut(right, left);
        }
    }

    /// Everything goes everywhere again.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// How a node sees another.
    pub fn state(&self, of: usize, other: usize) -> State {
        self.group(of).state(&self.nodes[other].name).expect("all are members")
    }

    /// Whether a node holds another dead.
    pub fn is_dead_to(&self, of: usize, other: usize) -> bool {
        self.state(of, other).standing == Standing::Dead
    }

    /// Nodes whose process runs.
    pub fn running(&self) -> Vec<usize> {
        (0..self.count()).filter(|node| self.nodes[*node].group.is_some()).collect()
    }

    /// Whether all of these hear of each other.
    pub fn are_alive(&self, nodes: &[usize]) -> bool {
        let pairs = nodes.iter().flat_map(|of| nodes.iter().map(move |other| (*of, *other)));
        pairs.filter(|(of, other)| of != other).all(|(of, other)| self.state(of, other).is_alive())
    }

    /// When nodes were told of deaths: time, who, of whom.
    pub fn deaths(&self) -> Vec<(Time, usize, Name)> {
        let told = self.nodes.iter().enumerate().flat_map(|(who, node)| {
            node.events.iter().filter_map(move |(at, event)| match event {
                Event::Dead { name } => Some((*at, who, Name::clone(name))),
                _ => None,
            })
        });
        told.collect()
    }

    /// Forgets what the nodes were told and have sent until now.
    pub fn forget_past(&mut self) {
        for node in &mut self.nodes {
            node.events.clear();
            (node.sent, node.sent_octets) = (0, 0);
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, ..))) = self.agenda.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, happening))) = self.agenda.pop() else { break };
            self.now = self.now.max(at);
            match happening {
                Happening::Timeout(node) => self.time_out(node, at),
                Happening::Arrives { from, to, octets } => self.arrive(from, to, octets),
            }
        }
        self.now = end;
    }

    /// Lets time pass until something is so, at most for a time; how long it has taken.
    pub fn run_until(&mut self, most: Duration, is_so: impl Fn(&Network) -> bool) -> Option<Duration> {
        let start = self.now;
        while self.now.since(start) < most {
            if is_so(self) {
                return Some(self.now.since(start));
            }
            self.run_for(millis(1));
        }
        None
    }

    fn time_out(&mut self, node: usize, at: Time) {
        let it = &mut self.nodes[node];
        // One that has been put off since is in the agenda again.
        if it.woken_at != Some(at) {
            return;
        }
        it.woken_at = None;
        if it.group.is_some() && !it.is_paused {
            self.with(node, Group::handle_timeout);
        }
    }

    fn arrive(&mut self, from: usize, to: usize, octets: Arc<[u8]>) {
        let address = self.nodes[from].address;
        let node = &mut self.nodes[to];
        match &node.group {
            None => {}
            Some(_) if node.is_paused && node.backlog.len() >= BACKLOG => {}
            Some(_) if node.is_paused => node.backlog.push((address, octets)),
            Some(_) => {
                let _ = self.with(to, |group, now| group.handle_datagram(address, &octets, now));
            }
        }
    }

    fn drain(&mut self, node: usize) {
        let mut out = Vec::new();
        let it = &mut self.nodes[node];
        let Some(group) = &mut it.group else { return };
        it.events.extend(std::iter::from_fn(|| group.poll_event()).map(|event| (self.now, event)));
        out.extend(std::iter::from_fn(|| group.poll_transmit()));
        let timeout = group.poll_timeout();
        for (address, octets) in out {
            self.send(node, address, octets.into());
        }
        if let Some(timeout) = timeout
            && self.nodes[node].woken_at != Some(timeout)
        {
            self.nodes[node].woken_at = Some(timeout);
            self.happen(timeout, Happening::Timeout(node));
        }
    }

    fn send(&mut self, from: usize, address: SocketAddr, octets: Arc<[u8]>) {
        let sender = &mut self.nodes[from];
        sender.sent += 1;
        sender.sent_octets += (octets.len() + HEADERS) as u64;
        let Some(to) = self.nodes.iter().position(|node| node.address == address) else { return };
        if self.recorded.len() < self.recorder {
            self.recorded.push((from, to, Arc::clone(&octets)));
        }
        if self.cuts.contains(&(from, to)) || self.below(1000) < self.loss {
            return;
        }
        let (least, most) = self.delay;
        let delay = Duration::from_micros(least + self.below(most.saturating_sub(least)));
        self.happen(self.now + delay, Happening::Arrives { from, to, octets });
    }

    fn happen(&mut self, at: Time, happening: Happening) {
        self.happenings += 1;
        self.agenda.push(Reverse((at, self.happenings, happening)));
    }
}

fn node(number: usize) -> Node {
    let host = u32::try_from(number).expect("a few nodes") + 1;
    let address = IpAddr::from(Ipv4Addr::from_bits(0xc000_0200 + host));
    Node {
        name: format!("node-{number}").into(),
        address: SocketAddr::new(address, 7934),
        group: None,
        boot: 0,
        is_paused: false,
        backlog: Vec::new(),
        woken_at: None,
        events: Vec::new(),
        sent: 0,
        sent_octets: 0,
    }
}
