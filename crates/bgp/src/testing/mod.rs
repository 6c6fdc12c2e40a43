//! Speakers on an in-memory wire with virtual time, for tests: everything that happens follows from a seed.
//!
//! ```text
//! net.cut("a", "b");
//! net.run_to(at(90));
//! assert!(net.peer("a", "b").last_error.unwrap().contains("hold timer"));
//! ```
//!
//! The wire is as good as TCP and no better: octets arrive in order, in pieces of any size, after any delay; a
//! cut holds them up; a connection can be lost at any octet.

mod happen;
mod helper;
mod table;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

pub use helper::Helper;
pub use table::Table;
use wire::{Segment, Wire, WireId};

use bytes::BytesMut;

use crate::{
    config::{PeerConfig, SpeakerConfig},
    fsm::timers::Jitter,
    message::{RefreshSubtype, RouteRefresh},
    speaker::{ConnectionId, Event, Speaker},
    status::{PeerStatus, State},
    types::{Family, Time},
};

/// How long a dial waits for an answer, as the driver does.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// So many seconds after the start.
pub fn at(secs: u64) -> Time {
    Time::ZERO + Duration::from_secs(secs)
}

/// Some speakers and the network between them.
#[derive(Debug)]
pub struct Network {
    now: Time,
    chance: Jitter,
    delay: (Duration, Duration),
    nodes: BTreeMap<String, Node>,
    wires: BTreeMap<WireId, Wire>,
    last_wire: WireId,
    /// What each node keeps, as a router does, of what another has told it.
    helpers: BTreeMap<(String, String), Helper>,
    agenda: BTreeMap<(Time, u64), Happening>,
    happenings: u64,
    cuts: BTreeSet<(String, String)>,
    /// The next connections are lost after so many octets.
    losses: Vec<usize>,
}

#[derive(Debug)]
struct Node {
    address: IpAddr,
    speaker: Speaker,
    is_listening: bool,
    /// Its ends of wires.
    ends: BTreeMap<ConnectionId, (WireId, usize)>,
    dials: BTreeSet<ConnectionId>,
}

/// What is going to happen.
#[derive(Debug)]
enum Happening {
    Arrives { from: String, id: ConnectionId, config: Arc<PeerConfig> },
    Answers { from: String, id: ConnectionId, result: Result<Option<WireId>, String> },
    Delivers { wire: WireId, to: usize },
}

impl Network {
    /// A network without speakers; everything random in it follows from the seed.
    pub fn new(seed: u64) -> Network {
        Network {
            now: Time::ZERO,
            chance: Jitter::new(seed),
            delay: (Duration::from_micros(100), Duration::from_micros(100)),
            nodes: BTreeMap::new(),
            wires: BTreeMap::new(),
            last_wire: 0,
            helpers: BTreeMap::new(),
            agenda: BTreeMap::new(),
            happenings: 0,
            cuts: BTreeSet::new(),
            losses: Vec::new(),
        }
    }

    /// Every segment takes a random time in this range.
    pub fn set_delay(&mut self, min: Duration, max: Duration) {
        self.delay = (min, max);
    }

    /// Adds a speaker, which listens, at an address.
    pub fn add(&mut self, name: &str, address: IpAddr, config: &SpeakerConfig) {
        let config = SpeakerConfig { seed: self.chance.next(), ..config.clone() };
        let speaker = Speaker::new(&config);
        let (ends, dials) = (BTreeMap::new(), BTreeSet::new());
        self.nodes.insert(name.to_owned(), Node { address, speaker, is_listening: true, ends, dials });
    }

    /// A speaker's process dies and another one starts in its place, which knows nothing. Its kernel closes its
    /// connections behind what was sent.
    pub fn restart(&mut self, name: &str, config: &SpeakerConfig) {
        self.agenda.retain(|_, happening| match happening {
            Happening::Arrives { from, .. } | Happening::Answers { from, .. } => from != name,
            Happening::Delivers { .. } => true,
        });
        let ids: Vec<WireId> = self.wires.keys().copied().collect();
        for id in ids {
            let Some(wire) = self.wires.get_mut(&id) else { continue };
            for end in 0..2 {
                if wire.ends[end].node == name && !wire.ends[end].is_closed {
                    wire.ends[end].connection = None;
                    wire.ends[end].is_closed = true;
                    self.send(id, 1 - end, Segment::Fin);
                    break;
                }
            }
        }
        self.helpers.retain(|(to, _), _| to != name);
        let address = self.node(name).address;
        self.add(name, address, config);
    }

    /// What a router in the place of `to` would have of the routes of `by`, from before restarts, too.
    pub fn helper(&self, to: &str, by: &str) -> Option<&Helper> {
        self.helpers.get(&(to.to_owned(), by.to_owned()))
    }

    /// Whether a speaker takes connections; where not, dials to it are refused.
    pub fn listen(&mut self, name: &str, is_listening: bool) {
        self.node_mut(name).is_listening = is_listening;
    }

    /// Calls a speaker and then does what it wants.
    pub fn with<T>(&mut self, name: &str, call: impl FnOnce(&mut Speaker, Time) -> T) -> T {
        let now = self.now;
        let result = call(&mut self.node_mut(name).speaker, now);
        self.drain(name);
        result
    }

    /// Nothing gets through between two speakers, and nobody is told.
    pub fn cut(&mut self, a: &str, b: &str) {
        self.cuts.insert(pair(a, b));
    }

    /// What was held up by a cut goes on.
    pub fn heal(&mut self, a: &str, b: &str) {
        self.cuts.remove(&pair(a, b));
        let wires: Vec<WireId> = self.wires.keys().copied().collect();
        for wire in wires {
            (0..2).for_each(|to| self.schedule(wire, to));
        }
    }

    /// Has `to` ask `by` for all of a family again (RFC 2918), as our speaker never does.
    pub fn ask_refresh(&mut self, to: &str, by: &str, family: Family) {
        let mut octets = BytesMut::new();
        let subtype = RefreshSubtype::Request;
        let request = RouteRefresh { afi: family.afi(), safi: family.safi(), subtype };
        crate::wire::encode_route_refresh(&request, &mut octets);
        let newest = self.wires.iter().rev().find(|(_, wire)| wire.is_between(to, by) && wire.is_open());
        let found =
            newest.and_then(|(id, wire)| Some((*id, wire.ends.iter().position(|end| end.node == by)?)));
        if let Some((id, end)) = found {
            self.send(id, end, Segment::Octets(octets.freeze()));
        }
    }

    /// Nothing that is under way between two speakers arrives, as after a loss of power of one of them: what it has
    /// closed stays open for the other.
    pub fn forget_connections(&mut self, a: &str, b: &str) {
        let wires: Vec<WireId> =
            self.wires.iter().filter(|(_, wire)| wire.is_between(a, b)).map(|(id, _)| *id).collect();
        for wire in wires {
            self.wires.remove(&wire);
        }
    }

    /// Breaks every connection between two speakers; both are told.
    pub fn reset(&mut self, a: &str, b: &str) {
        let wires: Vec<WireId> =
            self.wires.iter().filter(|(_, wire)| wire.is_between(a, b)).map(|(id, _)| *id).collect();
        for wire in wires {
            self.lose(wire);
        }
    }

    /// The next connection is lost when so many octets have gone over it in one direction. Calls add up, one for
    /// each connection to come.
    pub fn lose_after(&mut self, octets: usize) {
        self.losses.push(octets);
    }

    /// No further connection is lost.
    pub fn lose_none(&mut self) {
        self.losses.clear();
        self.wires.values_mut().for_each(|wire| wire.lose_after = None);
    }

    /// Now.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Lets everything happen up to a time.
    pub fn run_to(&mut self, end: Time) {
        while self.step(end) {}
        self.now = end;
    }

    /// Lets things happen until something is so; `false` where it is not before `end`.
    pub fn run_until(&mut self, end: Time, mut is_so: impl FnMut(&Network) -> bool) -> bool {
        loop {
            if is_so(self) {
                return true;
            }
            if !self.step(end) {
                return false;
            }
        }
    }

    /// A speaker.
    pub fn speaker(&self, name: &str) -> &Speaker {
        &self.node(name).speaker
    }

    /// What a speaker says of one of its peers.
    pub fn peer(&self, name: &str, peer: &str) -> PeerStatus {
        let status = self.speaker(name).status();
        let found = status.peers.into_iter().find(|status| &*status.name == peer);
        found.unwrap_or_else(|| panic!("{name} has no peer {peer}"))
    }

    /// Both ends of a session say that it is up.
    pub fn is_up(&self, a: &str, b: &str) -> bool {
        [(a, b), (b, a)].iter().all(|(name, peer)| self.peer(name, peer).state == State::Established)
    }

    /// What `by` has told `to` on the newest connection between them that is open, read as a router reads it.
    pub fn table(&self, to: &str, by: &str) -> Option<&Table> {
        let wire = self.wires.values().rev().find(|wire| wire.is_between(to, by) && wire.is_open())?;
        wire.ends.iter().find(|end| end.node == to).map(|end| &end.table)
    }

    /// What must hold at every moment, whatever happens: no peer has two sessions, and no timer is stuck in the past.
    pub fn check(&self) {
        for (name, node) in &self.nodes {
            let sessions = node.speaker.sessions();
            assert!(sessions.values().all(|count| *count <= 1), "{name} has two sessions: {sessions:?}");
            let timeout = node.speaker.poll_timeout();
            assert!(timeout.is_none_or(|at| at >= self.now), "{name} sleeps past {timeout:?}");
        }
    }

    /// Lets the next thing happen, unless it is behind `end`.
    fn step(&mut self, end: Time) -> bool {
        let timeouts =
            self.nodes.iter().filter_map(|(name, node)| Some((node.speaker.poll_timeout()?, name)));
        let timeout = timeouts.min().map(|(at, name)| (at, name.clone()));
        let happening = self.agenda.first_key_value().map(|((at, _), _)| *at);
        match (timeout, happening) {
            (Some((at, name)), happening) if at <= end && happening.is_none_or(|other| at <= other) => {
                self.now = self.now.max(at);
                let now = self.now;
                self.with(&name, |speaker, _| {
                    speaker.handle_timeout(now);
                    let next = speaker.poll_timeout();
                    assert!(next.is_none_or(|at| at > now), "{name} is woken for nothing at {now:?}");
                });
            }
            (_, Some(at)) if at <= end => {
                let Some(((at, _), happening)) = self.agenda.pop_first() else { return false };
                self.now = self.now.max(at);
                self.happen(happening);
            }
            _ => return false,
        }
        self.check();
        true
    }

    /// Does what a speaker wants.
    fn drain(&mut self, name: &str) {
        loop {
            while let Some(event) = self.node_mut(name).speaker.poll_event() {
                self.act(name, event);
            }
            let now = self.now;
            let Some(transmit) = self.node_mut(name).speaker.poll_transmit(now) else { break };
            if let Some(&(wire, end)) = self.node(name).ends.get(&transmit.connection) {
                self.send(wire, 1 - end, Segment::Octets(transmit.bytes));
            }
        }
    }

    fn act(&mut self, name: &str, event: Event) {
        match event {
            Event::Dial(id, config) => {
                self.node_mut(name).dials.insert(id);
                let delay = self.draw_delay();
                self.plan(delay, Happening::Arrives { from: name.to_owned(), id, config });
            }
            Event::Abort(id) => {
                self.node_mut(name).dials.remove(&id);
            }
            Event::Close(id, farewell) => {
                if let Some((wire, end)) = self.node_mut(name).ends.remove(&id) {
                    let now = self.now;
                    if let Some(helper) = self.helper_of(wire, end) {
                        helper.on_ended_here(wire, &farewell, now);
                    }
                    self.send(wire, 1 - end, Segment::Octets(farewell));
                    self.send(wire, 1 - end, Segment::Fin);
                    if let Some(wire) = self.wires.get_mut(&wire) {
                        wire.ends[end].connection = None;
                        wire.ends[end].is_closed = true;
                    }
                }
            }
            Event::Changed(..) | Event::RoutesOverdue => {}
        }
    }

    fn plan(&mut self, delay: Duration, happening: Happening) {
        self.happenings += 1;
        self.agenda.insert((self.now + delay, self.happenings), happening);
    }

    fn draw_delay(&mut self) -> Duration {
        let (min, max) = self.delay;
        let range = u64::try_from((max - min).as_micros()).unwrap_or(0) + 1;
        min + Duration::from_micros(self.chance.next() % range)
    }

    /// The table at one end of a wire.
    fn helper_of(&mut self, wire: WireId, end: usize) -> Option<&mut Helper> {
        let ends = &self.wires.get(&wire)?.ends;
        Some(self.helpers.entry((ends[end].node.clone(), ends[1 - end].node.clone())).or_default())
    }

    fn is_cut(&self, a: &str, b: &str) -> bool {
        self.cuts.contains(&pair(a, b))
    }

    fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).unwrap_or_else(|| panic!("there is no speaker {name}"))
    }

    fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap_or_else(|| panic!("there is no speaker {name}"))
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    let (first, second) = if a < b { (a, b) } else { (b, a) };
    (first.to_owned(), second.to_owned())
}
