//! All BFD sessions of a speaker, and which packet is for which (RFC 5880 §6.3, §6.8.6; RFC 5881 §4, §5; RFC 5883 §5).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    num::NonZeroU32,
};

use super::{Datagram, Dropped, Packet, Report, Session, State, Target, Transmit};
use crate::{config::PeerName, fsm::timers::Jitter, types::Time};

#[derive(Debug)]
struct Entry {
    target: Target,
    session: Session,
    /// Index of the interface that a single-hop session runs over, where it is known from something else than the
    /// scope of the address; else 0.
    link: u32,
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
        let interface = if self.target.scope == 0 { self.link } else { self.target.scope };
        if interface != 0 && interface != datagram.interface {
            return Err(Dropped::Interface(datagram.interface));
        }
        Ok(())
    }
}

/// All sessions.
///
/// - **In**: [`handle_datagram`](Sessions::handle_datagram), [`handle_timeout`](Sessions::handle_timeout).
/// - **Commands**: [`set_targets`](Sessions::set_targets), [`replace_targets`](Sessions::replace_targets),
///   [`set_link`](Sessions::set_link).
/// - **Out**, drained after every call: [`poll_report`](Sessions::poll_report),
///   [`poll_transmit`](Sessions::poll_transmit), then [`poll_timeout`](Sessions::poll_timeout).
#[derive(Debug)]
pub struct Sessions {
    entries: BTreeMap<PeerName, Entry>,
    /// Nobody asks about these any more, but the other side still does: they go on until it lets go of them.
    released: Vec<Entry>,
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
            released: Vec::new(),
            closing: Vec::new(),
            chance: Jitter::new(seed),
            reports: VecDeque::new(),
        }
    }

    /// Makes these the only peers that are watched. A session goes on where only its intervals change; one that
    /// goes tells the other side that this is no failure.
    pub fn set_targets(&mut self, targets: Vec<Target>, now: Time) {
        self.replace_targets(targets, &BTreeMap::new(), now);
    }

    /// The same, where these peers (by name: address and scope) are there, but not to be watched or not any more.
    ///
    /// Deviation: RFC 5882 §4.2 has AdminDown for that, and a router must not take it for a failure. BIRD and FRR do,
    /// and end a BGP session that works. So nothing is said: the session goes on, and tells nobody, until the router
    /// lets go of it, too, in whichever way.
    pub fn replace_targets(
        &mut self,
        targets: Vec<Target>,
        unwatched: &BTreeMap<PeerName, (IpAddr, u32)>,
        now: Time,
    ) {
        let mut before = std::mem::take(&mut self.entries);
        let unwatched_before: BTreeSet<PeerName> =
            self.released.iter().map(|entry| PeerName::clone(&entry.target.name)).collect();
        for entry in std::mem::take(&mut self.released) {
            before.insert(PeerName::clone(&entry.target.name), entry);
        }
        for target in targets {
            let known = before.remove(&target.name);
            let entry = match known {
                Some(mut entry) if !entry.target.is_elsewhere(&target) => {
                    if entry.target.config != target.config {
                        entry.session.configure(target.config.clone());
                    }
                    if unwatched_before.contains(&target.name) {
                        entry.told = entry.report();
                        self.reports.push_back((PeerName::clone(&target.name), entry.told));
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
        for (name, entry) in before {
            let is_there = unwatched.get(&name) == Some(&(entry.target.address, entry.target.scope));
            if is_there && entry.session.report().state == State::Up {
                self.released.push(entry);
            } else {
                self.close(entry, now);
            }
        }
        self.settle();
    }

    /// A single-hop session runs over the interface of this index (RFC 5881 §3): what comes in elsewhere is not taken.
    /// 0: nobody knows.
    pub fn set_link(&mut self, session: NonZeroU32, interface: u32) {
        for entry in self.all_mut().filter(|entry| entry.session.discriminator() == session) {
            entry.link = interface;
        }
    }

    /// Where packets are expected: whether over IPv6, and the port.
    pub fn ports(&self) -> BTreeSet<(bool, u16)> {
        let targets = self.all().map(|entry| &entry.target);
        targets.map(|it| (it.address.to_canonical().is_ipv6(), it.config.path.port())).collect()
    }

    fn open(&mut self, target: Target, now: Time) -> Entry {
        let discriminator = self.draw_discriminator();
        let session = Session::new(target.config.clone(), discriminator, self.chance.next(), now);
        let told = session.report();
        self.reports.push_back((PeerName::clone(&target.name), told));
        Entry { target, session, link: 0, obstacle: None, told }
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
        let closing = self.closing.iter().map(|(entry, _)| entry);
        self.entries.values().chain(&self.released).chain(closing)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let closing = self.closing.iter_mut().map(|(entry, _)| entry);
        self.entries.values_mut().chain(&mut self.released).chain(closing)
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
        self.entries.is_empty() && self.released.is_empty() && self.closing.is_empty()
    }

    fn settle(&mut self) {
        self.released.retain(|entry| entry.session.report().state == State::Up);
        for (name, entry) in &mut self.entries {
            let report = entry.report();
            if report != entry.told {
                entry.told = report;
                self.reports.push_back((PeerName::clone(name), report));
            }
        }
    }
}
