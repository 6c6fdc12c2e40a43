//! A group: all members of a subnet as one of them sees them.

mod deaths;
mod flush;
mod receive;
mod suspicion;
mod timers;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use crate::{
    chance::Chance,
    config::{Config, Id, Local, Mac, Name, group_id},
    hearing::Hearing,
    member::{Member, Standing, State},
    ring,
    stream::{MAX_PAYLOAD, MAX_WAITING, MessageId},
    time::Time,
    wire::{Death, Message},
};

/// Members that have gone and whose datagrams are still told from recordings.
const FORMER: usize = 1024;

/// What the program is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member lives. Told when it is heard for the first time, when it is no longer suspected or dead, when it has
    /// been started anew, and when it is ready or not ready any more.
    Alive {
        /// Who.
        name: Name,
        /// Link-layer address of its interface.
        mac: Mac,
        /// It can take addresses.
        is_ready: bool,
    },
    /// A member is silent; it counts as alive until the others were asked.
    Suspected {
        /// Who.
        name: Name,
    },
    /// A member is dead, or was never heard.
    Dead {
        /// Who.
        name: Name,
    },
    /// A member is about to end.
    Leaving {
        /// Who.
        name: Name,
    },
    /// A payload that a member has sent; each comes once, those of one member in order.
    Payload {
        /// Who has sent it.
        from: Name,
        /// What.
        octets: Vec<u8>,
    },
    /// The receiver has not acknowledged a payload and is dead, started anew or gone: it may have arrived or not.
    Undelivered {
        /// Who should have got it.
        to: Name,
        /// What [`Group::send`] has called it.
        id: MessageId,
    },
    /// Others have held this member dead, and are told that it is not.
    CalledDead,
}

/// Why a payload is not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No such member.
    #[error("{0} is no member of the group")]
    Unknown(String),
    /// It is dead.
    #[error("{0} is dead")]
    Dead(String),
    /// Too many octets.
    #[error("a payload of {0} octets: expected at most {MAX_PAYLOAD}")]
    Long(usize),
    /// Too many wait already.
    #[error("{MAX_WAITING} messages wait for {0} already")]
    Full(String),
}

/// A member's view of its group.
///
/// - **In**: [`handle_datagram`](Group::handle_datagram), [`handle_timeout`](Group::handle_timeout).
/// - **Commands**: [`set_members`](Group::set_members), [`set_ready`](Group::set_ready), [`send`](Group::send),
///   [`leave`](Group::leave).
/// - **Out**, drained after every call: [`poll_transmit`](Group::poll_transmit), [`poll_event`](Group::poll_event),
///   then [`poll_timeout`](Group::poll_timeout).
///
/// Guarantees: a member is told dead only when it was not heard, by this one or by any watcher that answers, for its
/// interval times its multiplier. A payload arrives once, or is reported as undelivered. What is sent in a second does
/// not grow with the group, apart from news. Datagrams that are not fresh and of a member with the key change nothing.
///
/// Assumptions: those who have the key are honest; `now` does not go back; the boot numbers of a node's processes
/// differ.
#[derive(Debug)]
pub struct Group {
    config: Config,
    local: Local,
    id: Id,
    group: [u8; 4],
    is_ready: bool,
    is_leaving: bool,
    incarnation: u32,
    sequence: u64,
    chance: Chance,
    members: BTreeMap<Name, Member>,
    names: BTreeMap<Id, Name>,
    former: BTreeMap<Name, Hearing>,
    /// Those that live, without this one, by their place.
    ring: Vec<(Id, Name)>,
    is_ring_stale: bool,
    recent: VecDeque<(Time, Death)>,
    greetings: VecDeque<Name>,
    greet_at: Time,
    beat_at: Time,
    beats: u64,
    /// Where the rounds among the silent and among the living have got to.
    rounds: [Option<Name>; 2],
    heard_anybody: Time,
    last_death: Option<Time>,
    is_alone: bool,
    messages: u32,
    last_message: u64,
    timeout: Option<Time>,
    transmits: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<Event>,
}

impl Group {
    /// A group without other members. Chance follows from the seed.
    pub fn new(config: Config, local: Local, now: Time, seed: u64) -> Group {
        let mut group = Group {
            id: Id::of(&local.name),
            group: group_id(&local.group),
            is_ready: false,
            is_leaving: false,
            incarnation: 0,
            sequence: 0,
            chance: Chance::new(seed),
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            former: BTreeMap::new(),
            ring: Vec::new(),
            is_ring_stale: false,
            recent: VecDeque::new(),
            greetings: VecDeque::new(),
            greet_at: now,
            beat_at: now,
            beats: 0,
            rounds: [None, None],
            heard_anybody: now,
            last_death: None,
            is_alone: false,
            messages: 0,
            last_message: 0,
            timeout: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            config,
            local,
        };
        group.settle(now);
        group
    }

    /// Makes these the only members, this one aside. Those that are new are unknown until they are heard.
    pub fn set_members(&mut self, members: &BTreeMap<Name, SocketAddr>, now: Time) {
        self.wake(now);
        let gone: Vec<Name> =
            self.members.keys().filter(|name| !members.contains_key(*name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
        if self.members.is_empty() {
            self.heard_anybody = now;
        }
        for (name, address) in members.iter().filter(|(name, _)| **name != self.local.name) {
            if let Some(member) = self.members.get_mut(name) {
                member.address = *address;
                continue;
            }
            let id = Id::of(name);
            let hearing = self.former.remove(name).unwrap_or_default();
            let member = Member::new(id, *address, hearing, self.messages, self.config.detection_time());
            self.names.insert(id, Name::clone(name));
            self.members.insert(Name::clone(name), member);
            self.greetings.push_back(Name::clone(name));
        }
        self.step(now);
        self.settle(now);
    }

    fn forget(&mut self, name: &Name) {
        let Some(mut member) = self.members.remove(name) else { return };
        self.names.remove(&member.id);
        self.greetings.retain(|greeted| greeted != name);
        self.undelivered(name, member.outgoing.fail());
        if self.former.len() >= FORMER {
            self.former.pop_first();
        }
        self.former.insert(Name::clone(name), member.hearing);
        self.is_ring_stale = true;
    }

    /// Says whether this member can take addresses; at first it cannot.
    pub fn set_ready(&mut self, is_ready: bool, now: Time) {
        self.wake(now);
        if self.is_ready != is_ready {
            self.is_ready = is_ready;
            self.nudge_all();
        }
        self.settle(now);
    }

    /// Says that this member is about to end. It goes on until it is dropped: see [`Group::is_everything_told`].
    pub fn leave(&mut self, now: Time) {
        self.wake(now);
        if !self.is_leaving {
            self.is_leaving = true;
            self.nudge_all();
        }
        self.settle(now);
    }

    /// Whether all living members have acknowledged everything that they were told.
    pub fn is_everything_told(&self) -> bool {
        self.members.values().all(|member| !member.state.is_alive() || member.outgoing.is_empty())
    }

    /// Sends a payload, which is repeated until it is acknowledged or the member is dead, started anew or gone.
    ///
    /// # Errors
    ///
    /// When it cannot be sent; nothing happens then.
    pub fn send(&mut self, to: &str, payload: &[u8], now: Time) -> Result<MessageId, SendError> {
        let Some(member) = self.members.get_mut(to) else { return Err(SendError::Unknown(to.to_owned())) };
        if payload.len() > MAX_PAYLOAD {
            return Err(SendError::Long(payload.len()));
        }
        if member.is_dead() {
            return Err(SendError::Dead(to.to_owned()));
        }
        if member.outgoing.is_full() {
            return Err(SendError::Full(to.to_owned()));
        }
        self.last_message += 1;
        let id = MessageId(self.last_message);
        self.messages = self.messages.saturating_add(1);
        member.outgoing.push(Some(id), Message::Payload(payload.into()));
        self.wake(now);
        self.settle(now);
        Ok(id)
    }

    /// The next datagram to send, and where to.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Group::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timeout
    }

    /// How a member stands; `None`: it is none.
    pub fn state(&self, name: &str) -> Option<State> {
        self.members.get(name).map(|member| member.state)
    }

    /// All members but this one.
    pub fn members(&self) -> impl Iterator<Item = (&Name, State)> {
        self.members.iter().map(|(name, member)| (name, member.state))
    }

    /// Whether no member was heard for a detection time, though there are some. It may be that they are all dead, or
    /// that this one hears nothing; until it hears somebody, the others are told that it is not ready.
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// When a member was heard last, or, where none was yet, since when there are some.
    pub fn heard_anybody(&self) -> Time {
        self.heard_anybody
    }

    /// Who runs this group.
    pub fn local(&self) -> &Local {
        &self.local
    }

    fn is_ready_now(&self) -> bool {
        self.is_ready && !self.is_alone
    }

    fn nudge_all(&mut self) {
        let living = self.members.values_mut().filter(|member| member.state.is_alive());
        for member in living.filter(|member| !member.outgoing.is_full()) {
            self.messages = self.messages.saturating_add(1);
            member.outgoing.nudge();
        }
    }

    fn undelivered(&mut self, to: &Name, messages: Vec<MessageId>) {
        let events = messages.into_iter().map(|id| Event::Undelivered { to: Name::clone(to), id });
        self.events.extend(events);
    }

    fn tell_alive(&mut self, name: &Name) {
        let Some(member) = self.members.get(name) else { return };
        let State { is_ready, mac, .. } = member.state;
        self.events.push_back(Event::Alive { name: Name::clone(name), mac, is_ready });
    }

    /// Whatever has happened: who watches whom, what is owed, and when there is something to do again.
    fn settle(&mut self, now: Time) {
        if self.is_ring_stale {
            self.arrange(now);
        }
        self.look_whether_alone(now);
        self.flush(now);
        // Never in the past: being called late would look as if this process had stood still.
        self.timeout = Some(self.next_timeout(now).max(now));
    }

    /// Who lives has changed: who watches whom has, too.
    fn arrange(&mut self, now: Time) {
        self.is_ring_stale = false;
        let living = self.members.iter().filter(|(_, member)| member.state.is_alive());
        self.ring = living.map(|(name, member)| (member.id, Name::clone(name))).collect();
        self.ring.sort_unstable();
        let recipients: Vec<&Name> = ring::successors(&self.ring, &self.id).collect();
        let watched: Vec<&Name> = ring::predecessors(&self.ring, &self.id).collect();
        for (name, member) in &mut self.members {
            let duty = &mut member.duty;
            let is_recipient = recipients.contains(&name);
            // It waits for our heartbeats from now on.
            member.owed.anything |= is_recipient && !duty.is_recipient;
            duty.is_recipient = is_recipient;
            duty.watched_since = match (watched.contains(&name), duty.watched_since) {
                (false, _) => None,
                (true, Some(since)) => Some(since),
                // Those who had to watch it may have died with it: half of the time must do.
                (true, None) => Some(now - member.patience / 2),
            };
        }
    }

    fn look_whether_alone(&mut self, now: Time) {
        let is_alone = self.alone_at().is_some_and(|at| at <= now);
        if is_alone != self.is_alone {
            self.is_alone = is_alone;
            self.nudge_all();
            self.check_everybody();
        }
    }

    /// When nobody has been heard for too long.
    fn alone_at(&self) -> Option<Time> {
        (!self.members.is_empty()).then(|| self.heard_anybody + self.config.detection_time())
    }
}

impl Member {
    fn is(&self, standing: Standing) -> bool {
        self.state.standing == standing
    }

    /// It lives as far as is known, but nobody has asked this member to see to that.
    fn is_unwatched(&self) -> bool {
        self.state.is_alive() && self.duty.watched_since.is_none()
    }
}
