//! Bidirectional Forwarding Detection in asynchronous mode, sans-IO (RFC 5880; RFC 5881 for one hop, RFC 5883 for
//! several): all sessions of a speaker, and which packet is for which.
//!
//! Not here: sockets and the thread that serves them (`driver`), and what BGP makes of it (`peer`, RFC 5882).

pub mod packet;
pub mod session;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    num::{NonZeroU8, NonZeroU32},
    time::Duration,
};

pub use packet::{Diagnostic, Packet, PacketError, State};
pub use session::Session;

use crate::{config::PeerName, fsm::timers::Jitter, types::Time};

/// UDP port of single-hop sessions (RFC 5881 §4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of multihop sessions (RFC 5883 §5).
pub const MULTIHOP_PORT: u16 = 4784;
/// The lowest port to send from (RFC 5881 §4).
pub const FIRST_SOURCE_PORT: u16 = 49_152;
/// TTL or hop limit of what is sent, and of what a single hop accepts (RFC 5881 §5).
pub const TTL: u8 = 255;

/// Shorter intervals count as this one.
pub const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// How a session is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Desired Min TX Interval while the session is Up.
    pub transmit_interval: Duration,
    /// Required Min RX Interval.
    pub receive_interval: Duration,
    /// Detect Mult.
    pub detect_mult: NonZeroU8,
    /// The Passive role: says nothing until the other side does.
    pub passive: bool,
    /// How far away the other side is.
    pub path: Path,
}

impl Default for Config {
    /// 300 ms in both directions, three packets, active, one hop.
    fn default() -> Config {
        let interval = Duration::from_millis(300);
        let detect_mult = NonZeroU8::MIN.saturating_add(2);
        Config {
            transmit_interval: interval,
            receive_interval: interval,
            detect_mult,
            passive: false,
            path: Path::SingleHop,
        }
    }
}

/// What lies between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// One link: packets come with TTL 255 (RFC 5881).
    SingleHop,
    /// Routers (RFC 5883).
    Multihop {
        /// The lowest TTL that is accepted.
        min_ttl: u8,
    },
}

impl Path {
    /// The port that packets are sent to.
    pub const fn port(self) -> u16 {
        match self {
            Path::SingleHop => SINGLE_HOP_PORT,
            Path::Multihop { .. } => MULTIHOP_PORT,
        }
    }

    const fn min_ttl(self) -> u8 {
        match self {
            Path::SingleHop => TTL,
            Path::Multihop { min_ttl } => min_ttl,
        }
    }
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its state.
    pub state: State,
    /// What its client may conclude.
    pub verdict: Verdict,
    /// Why packets of the other side were dropped that would have been this session's; `None` once one was taken.
    pub obstacle: Option<Dropped>,
}

/// What a client may conclude from a session (RFC 5882 §3.2, §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the other side was never heard, and may not speak BFD.
    Unknown,
    /// Packets go both ways.
    Works,
    /// They did, and do not any more.
    Failed(Diagnostic),
    /// One of the sides holds the session down on purpose: no failure.
    Disabled,
}

/// A peer to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: PeerName,
    /// Its address.
    pub address: IpAddr,
    /// Interface index of a link-local address, else 0.
    pub scope: u32,
    /// Address to send from; `None` leaves it to the kernel.
    pub source_address: Option<IpAddr>,
    /// How.
    pub config: Config,
}

impl Target {
    /// Whether the session of the other cannot go on as this one.
    fn is_elsewhere(&self, other: &Target) -> bool {
        (self.address, self.scope, self.source_address, self.config.path.port())
            != (other.address, other.scope, other.source_address, other.config.path.port())
    }
}

/// A datagram that has arrived on one of the two ports.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Where from.
    pub from: IpAddr,
    /// Index of the interface that it came in on.
    pub interface: u32,
    /// Its TTL or hop limit, where the kernel has said it.
    pub ttl: Option<u8>,
    /// The port that it came to.
    pub port: u16,
    /// What is in it.
    pub payload: &'a [u8],
}

/// A packet to send.
#[derive(Clone, Debug)]
pub struct Transmit<'a> {
    /// Which session's: each has a socket of its own.
    pub session: NonZeroU32,
    /// Whom to.
    pub target: &'a Target,
    /// What.
    pub packet: Packet,
}

/// Why a datagram is for none of the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Dropped {
    #[error("not a BFD packet for us: {0}")]
    Packet(#[from] PacketError),
    #[error("no session has discriminator {0}")]
    Discriminator(NonZeroU32),
    #[error("{0} is no peer's address")]
    Source(IpAddr),
    #[error("TTL {ttl}: expected at least {least}")]
    Ttl { ttl: u8, least: u8 },
    #[error("the kernel did not say its TTL")]
    TtlUnknown,
    #[error("it came in on interface {0}, where the peer is not")]
    Interface(u32),
    #[error("it came to port {0}, which is not the session's")]
    Port(u16),
}

#[derive(Debug)]
struct Entry {
    target: Target,
    session: Session,
    obstacle: Option<Dropped>,
    told: Report,
}

impl Entry {
    fn report(&self) -> Report {
        Report { obstacle: self.obstacle, ..self.session.report() }
    }

    /// Whether a datagram comes the way that this session's packets come: RFC 5881 §5, RFC 5883 §5.
    fn check(&self, datagram: &Datagram<'_>) -> Result<(), Dropped> {
        let path = self.target.config.path;
        if datagram.port != path.port() {
            return Err(Dropped::Port(datagram.port));
        }
        match (datagram.ttl, path.min_ttl()) {
            (None, _) => return Err(Dropped::TtlUnknown),
            (Some(ttl), least) if ttl < least => return Err(Dropped::Ttl { ttl, least }),
            _ => {}
        }
        if self.target.scope != 0 && self.target.scope != datagram.interface {
            return Err(Dropped::Interface(datagram.interface));
        }
        Ok(())
    }
}

/// All sessions.
///
/// - **In**: [`handle_datagram`](Sessions::handle_datagram), [`handle_timeout`](Sessions::handle_timeout).
/// - **Commands**: [`set_targets`](Sessions::set_targets).
/// - **Out**, drained after every call: [`poll_report`](Sessions::poll_report),
///   [`poll_transmit`](Sessions::poll_transmit), then [`poll_timeout`](Sessions::poll_timeout).
#[derive(Debug)]
pub struct Sessions {
    entries: BTreeMap<PeerName, Entry>,
    /// Disabled, and told to the other side until its Detection Time is over.
    closing: Vec<(Entry, Time)>,
    chance: Jitter,
    reports: VecDeque<(PeerName, Report)>,
}

impl Sessions {
    /// None; discriminators and jitter follow from the seed.
    pub fn new(seed: u64) -> Sessions {
        Sessions {
            entries: BTreeMap::new(),
            closing: Vec::new(),
            chance: Jitter::new(seed),
            reports: VecDeque::new(),
        }
    }

    /// Makes these the only peers that are watched. A session goes on where only its intervals change; one that
    /// goes tells the other side that this is no failure.
    pub fn set_targets(&mut self, targets: Vec<Target>, now: Time) {
        let mut before = std::mem::take(&mut self.entries);
        for target in targets {
            let known = before.remove(&target.name);
            let entry = match known {
                Some(mut entry) if !entry.target.is_elsewhere(&target) => {
                    if entry.target.config != target.config {
                        entry.session.configure(target.config.clone());
                    }
                    Entry { target, ..entry }
                }
                known => {
                    if let Some(entry) = known {
                        self.close(entry, now);
                    }
                    // A session that is being closed must not contradict the new one.
                    self.closing.retain(|(entry, _)| entry.target.is_elsewhere(&target));
                    self.open(target, now)
                }
            };
            self.entries.insert(PeerName::clone(&entry.target.name), entry);
        }
        for entry in before.into_values() {
            self.close(entry, now);
        }
    }

    fn open(&mut self, target: Target, now: Time) -> Entry {
        let discriminator = self.draw_discriminator();
        let session = Session::new(target.config.clone(), discriminator, self.chance.next(), now);
        let told = session.report();
        self.reports.push_back((PeerName::clone(&target.name), told));
        Entry { target, session, obstacle: None, told }
    }

    fn close(&mut self, mut entry: Entry, now: Time) {
        if !entry.session.is_remote_down() {
            let until = now + entry.session.remote_detection_time();
            entry.session.disable();
            self.closing.push((entry, until));
        }
    }

    /// Random, so that nobody who does not see our packets can name a session; unique among those that there are.
    fn draw_discriminator(&mut self) -> NonZeroU32 {
        loop {
            let drawn = u32::try_from(self.chance.next() >> 32).ok().and_then(NonZeroU32::new);
            match drawn {
                Some(drawn) if self.all().all(|entry| entry.session.discriminator() != drawn) => {
                    return drawn;
                }
                _ => {}
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().chain(self.closing.iter().map(|(entry, _)| entry))
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut().chain(self.closing.iter_mut().map(|(entry, _)| entry))
    }

    /// A datagram has arrived. Dropping it says why, for logs: it is not an error of ours.
    pub fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Time) -> Result<(), Dropped> {
        let packet = Packet::decode(datagram.payload)?;
        let entry = self.find(&packet, datagram)?;
        let checked = entry.check(datagram);
        if let Err(reason) = checked {
            // The first one is kept: who can send to us must not have us say something new each time.
            entry.obstacle.get_or_insert(reason);
            self.settle();
            return Err(reason);
        }
        entry.obstacle = None;
        entry.session.handle_received(&packet, now);
        let heard = entry.session.discriminator();
        self.closing
            .retain(|(entry, _)| entry.session.discriminator() != heard || !entry.session.is_remote_down());
        self.settle();
        Ok(())
    }

    /// RFC 5880 §6.3 and the steps of §6.8.6 about Your Discriminator: by it alone where it is not 0, else by
    /// where the packet comes from.
    fn find(&mut self, packet: &Packet, datagram: &Datagram<'_>) -> Result<&mut Entry, Dropped> {
        if let Some(ours) = packet.your_discriminator {
            let found = self.all_mut().find(|entry| entry.session.discriminator() == ours);
            return found.ok_or(Dropped::Discriminator(ours));
        }
        let from = datagram.from.to_canonical();
        let is_there = |target: &Target| {
            target.address.to_canonical() == from
                && (target.scope == 0 || target.scope == datagram.interface)
                && target.config.path.port() == datagram.port
        };
        let found = self.entries.values_mut().find(|entry| is_there(&entry.target));
        found.ok_or(Dropped::Source(from))
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.closing.retain(|(_, until)| *until > now);
        for entry in self.all_mut() {
            entry.session.handle_timeout(now);
        }
        self.settle();
    }

    /// When to call `handle_timeout` next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let ends = self.closing.iter().map(|(_, until)| *until);
        self.all().filter_map(|entry| entry.session.poll_timeout()).chain(ends).min()
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit<'_>> {
        self.all_mut().find_map(|entry| {
            let packet = entry.session.poll_transmit(now)?;
            Some(Transmit { session: entry.session.discriminator(), target: &entry.target, packet })
        })
    }

    /// The next session that stands otherwise than it was told last.
    pub fn poll_report(&mut self) -> Option<(PeerName, Report)> {
        self.reports.pop_front()
    }

    /// Whether a session is there, or still being closed.
    pub fn has(&self, session: NonZeroU32) -> bool {
        self.all().any(|entry| entry.session.discriminator() == session)
    }

    /// Whether there is nothing to do any more, nor to wait for.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.closing.is_empty()
    }

    fn settle(&mut self) {
        for (name, entry) in &mut self.entries {
            let report = entry.report();
            if report != entry.told {
                entry.told = report;
                self.reports.push_back((PeerName::clone(name), report));
            }
        }
    }
}
