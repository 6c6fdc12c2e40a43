//! The state machine of all claims of a node. Pure: no I/O, no clock; `now` is an argument, chance a seed.
//!
//! Drain [`Claims::poll_action`] after every call, execute what comes in its order, and call
//! [`Claims::handle_timeout`] when [`Claims::poll_timeout`] says. What has been heard and what the kernel has told is
//! to be handed in before a timeout is: a decision that is late is made anew from what came meanwhile.
//!
//! Guarantees
//! - An address is added only after a probe without answer, or after its holder said that it has released it, or if
//!   it carries our mark from before.
//! - Of two members that probe for it at the same time one goes on: the one whose link-layer address comes first.
//! - An address that is wanted is removed only for a member that asks for it or is known to hold it, for a stranger
//!   that insists (RFC 5227 §2.4 (b)), or because nobody can hear us any more.
//! - Nothing is removed that has not our mark.
//!
//! Assumptions: a live member's kernel answers probes within 30 ms. RFC 5227 waits for seconds, for hosts that may be
//! anywhere; the members of a subnet are near, and who is missed then is found by what is announced and said.

mod held;
mod pacer;
mod state;
mod steps;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netlink::{Address, Heard, Mac};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Action, Elected, Input, Member, Message, Report, Wanted, action::AddFailure, message::NO_REQUEST,
};
use pacer::Pacer;
use state::{Blocker, Claim, Observed, State};

/// How often the wire is asked before it is decided, at which interval, and how long the last answer is waited for.
const PROBES: u8 = 2;
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
const PROBE_WAIT: Duration = Duration::from_millis(30);
/// An address that has come here is asked for once more after that: RFC 4861 §10 RETRANS_TIMER, which RFC 4862 §5.4 waits
/// before an address may be used. Here it is used meanwhile. How long an answer is taken for one to this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_WAIT: Duration = Duration::from_millis(200);
/// So many probes of unknown hosts make us begin anew: more than a claim has.
const CONTESTS: u8 = PROBES + 1;
/// A decision that is later than that is none: the wire is asked again.
const LATE: Duration = Duration::from_millis(100);
/// How long a decision to add holds.
const ADD_WITHIN: Duration = Duration::from_millis(200);
/// How long a member may take to release what it was asked for. Less than it takes to be called dead, so that one who
/// stood still does not act on what others have given up waiting for.
const RELEASE_WAIT: Duration = Duration::from_millis(300);
/// Between two attempts: doubled up to the second one.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often it is looked whether a stranger still has an address, once it has been reported.
const STRANGER_INTERVAL: Duration = Duration::from_secs(5);
/// An unknown who answers for so long is a stranger: members become known before.
const STRANGER_AFTER: Duration = Duration::from_secs(3);
/// How often a member that holds an address of ours is told that we do.
const RIVAL_INTERVAL: Duration = Duration::from_millis(200);
/// What a member that holds an address of ours has said of it is forgotten after that.
const RIVAL_FORGOTTEN: Duration = Duration::from_secs(3);
/// An address without a lifetime that is to have one gets it within this time.
const ADOPTED_FOR: Duration = Duration::from_secs(60);
/// An announcement that could not be sent is tried again after that.
const ANNOUNCE_AGAIN: Duration = Duration::from_millis(50);
/// RFC 5227 §1.1 DEFEND_INTERVAL.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Who announces an address that is held here insists if he does so later than that after it was defended.
const DEFEND_GRACE: Duration = Duration::from_secs(1);
/// Without carrier an address is given up after that, and a node is on a subnet no more: before the others take it over,
/// and longer than a flap.
pub const CARRIER_WAIT: Duration = Duration::from_millis(400);
/// A node that leaves waits so long for others to ask for what it holds.
const LEAVE_WAIT: Duration = Duration::from_secs(2);
/// An address that is taken off again within this time is put back with a pause.
const FIGHT: Duration = Duration::from_secs(2);
/// How long the request of a member is remembered that it was not given way to.
const ASKED: Duration = Duration::from_secs(2);

/// A link of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its address.
    pub mac: Mac,
    /// It is up and has a carrier.
    pub is_usable: bool,
}

/// The claims of this node.
#[derive(Debug)]
pub struct Claims {
    claims: HashMap<IpAddr, Claim>,
    timers: BTreeSet<(Instant, IpAddr)>,
    context: Context,
}

/// What all claims share.
#[derive(Debug)]
struct Context {
    name: Arc<str>,
    members: HashMap<Arc<str>, Member>,
    by_mac: HashMap<Mac, Arc<str>>,
    links: HashMap<u32, LinkState>,
    interfaces: BTreeSet<u32>,
    /// Where no other member is heard.
    alone: BTreeSet<u32>,
    /// Those of them where nothing at all has been heard since.
    silent: BTreeSet<u32>,
    /// All that is wanted has been said once: what is not wanted is to go.
    is_complete: bool,
    leave_at: Option<Instant>,
    /// That moment has passed.
    has_to_go: bool,
    actions: VecDeque<Action>,
    messages: BTreeMap<(Arc<str>, u32, Kind), BTreeSet<IpAddr>>,
    /// Of the next request. Begins anywhere: an answer to what an earlier agent of this node has asked is none to us.
    request: u32,
    pacer: Pacer,
    random: StdRng,
}

/// Of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Request(u32),
    Released(u32),
    Holding,
}

impl Claims {
    /// No claims yet, of the node of this name.
    pub fn new(name: &str, seed: u64) -> Claims {
        let mut random = StdRng::seed_from_u64(seed);
        Claims {
            claims: HashMap::new(),
            timers: BTreeSet::new(),
            context: Context {
                name: name.into(),
                members: HashMap::new(),
                by_mac: HashMap::new(),
                links: HashMap::new(),
                interfaces: BTreeSet::new(),
                alone: BTreeSet::new(),
                silent: BTreeSet::new(),
                is_complete: false,
                leave_at: None,
                has_to_go: false,
                actions: VecDeque::new(),
                messages: BTreeMap::new(),
                request: random.random::<u32>().max(NO_REQUEST + 1),
                pacer: Pacer::default(),
                random,
            },
        }
    }

    /// What the owner says.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::WantedAll(all) => self.set_wanted(all, now),
            Input::Wanted(address, wanted) => self.want(address, wanted, now),
            Input::Interfaces(indexes) => self.context.interfaces = indexes.into_iter().collect(),
            Input::Members(members) => self.set_members(members, now),
            Input::Alone(interfaces) => self.set_alone(interfaces.into_iter().collect(), now),
            Input::Payload { from, octets } => match Message::decode(&octets) {
                Ok(message) => {
                    tracing::debug!(%from, ?message, "is told");
                    self.on_message(&from, &message, now);
                }
                Err(error) => tracing::debug!(%from, %error, "a payload is left out of account"),
            },
            Input::Leave => {
                self.context.leave_at.get_or_insert(now + LEAVE_WAIT);
                self.evaluate_all(now);
            }
        }
    }

    fn set_wanted(&mut self, all: Vec<Wanted>, now: Instant) {
        self.context.is_complete = true;
        let mut gone: BTreeSet<IpAddr> = self.claims.keys().copied().collect();
        for wanted in all {
            let address = wanted.prefix.addr();
            gone.remove(&address);
            self.want(address, Some(wanted), now);
        }
        for address in gone {
            self.want(address, None, now);
        }
    }

    fn want(&mut self, address: IpAddr, wanted: Option<Wanted>, now: Instant) {
        self.step(address, now, |context, claim| context.on_wanted(claim, wanted, now));
    }

    fn set_alone(&mut self, alone: BTreeSet<u32>, now: Instant) {
        let begun = alone.difference(&self.context.alone).copied();
        let silent: BTreeSet<u32> = begun.chain(self.context.silent.intersection(&alone).copied()).collect();
        let ended: Vec<u32> = self.context.silent.difference(&silent).copied().collect();
        (self.context.alone, self.context.silent) = (alone, silent);
        ended.into_iter().for_each(|index| self.end_silence(index, now));
    }

    /// Something has come in on a link, whatever it is.
    pub fn on_sound(&mut self, index: u32, now: Instant) {
        if self.context.silent.remove(&index) {
            self.end_silence(index, now);
        }
    }

    /// What could not be claimed for silence is asked for anew.
    fn end_silence(&mut self, index: u32, now: Instant) {
        for address in self.addresses() {
            self.step(address, now, |context, claim| context.on_silence_over(claim, index, now));
        }
    }

    fn set_members(&mut self, members: Vec<Member>, now: Instant) {
        let before = std::mem::take(&mut self.context.members);
        self.context.by_mac.clear();
        for member in members {
            let macs = member.macs.iter().map(|mac| (*mac, member.name.clone()));
            self.context.by_mac.extend(macs);
            self.context.members.insert(member.name.clone(), member);
        }
        let context = &self.context;
        let is_back = |member: &&Member| {
            let was_alive = before.get(&member.name).is_some_and(|before| before.is_alive);
            member.is_alive && !was_alive
        };
        let back: Vec<Member> = context.members.values().filter(is_back).cloned().collect();
        // One that was dead may have been cut off, with clients that have heard nothing from us since.
        let is_heal = back.iter().any(|member| before.contains_key(&member.name));
        let changed: BTreeSet<Arc<str>> = context
            .members
            .values()
            .filter(|member| before.get(&member.name) != Some(*member))
            .map(|member| member.name.clone())
            .chain(before.keys().filter(|name| !context.members.contains_key(*name)).cloned())
            .collect();
        let is_concerned = |claim: &&Claim| !back.is_empty() || self.context.is_concerned(claim, &changed);
        let concerned: BTreeSet<IpAddr> =
            self.claims.values().filter(is_concerned).map(|claim| claim.address).collect();
        for address in concerned {
            self.step(address, now, |context, claim| {
                context.on_members(claim, &changed, now);
                context.greet(claim, &back, is_heal, now);
            });
        }
    }

    /// The link with this index is so now, or gone.
    pub fn on_link(&mut self, index: u32, link: Option<LinkState>, now: Instant) {
        let before = match link {
            Some(link) => self.context.links.insert(index, link),
            None => self.context.links.remove(&index),
        };
        if before == link {
            return;
        }
        for address in self.addresses() {
            self.step(address, now, |context, claim| {
                if link.is_none() && claim.observed.iter().any(|it| it.interface == index) {
                    claim.observed.retain(|it| it.interface != index);
                    context.on_lost(claim, now);
                }
                if claim.interface() == Some(index) {
                    context.on_carrier(claim, link.is_some_and(|link| link.is_usable), now);
                }
            });
        }
    }

    /// All addresses of a link, as the kernel lists them.
    pub fn on_addresses(&mut self, index: u32, all: &[Address], now: Instant) {
        let listed: HashMap<_, _> = all.iter().map(|address| (address.prefix, address)).collect();
        let lost: Vec<_> = self
            .claims
            .values()
            .flat_map(|claim| &claim.observed)
            .filter(|it| it.interface == index && !listed.contains_key(&it.prefix))
            .map(|it| it.prefix)
            .collect();
        for prefix in lost {
            self.on_address_gone(index, prefix, now);
        }
        for address in all {
            self.on_address(address, now);
        }
    }

    /// The kernel has an address, or has changed its mind about it.
    pub fn on_address(&mut self, address: &Address, now: Instant) {
        let ip = address.prefix.addr();
        let is_leftover = address.is_marked() && self.context.interfaces.contains(&address.index);
        if !self.claims.contains_key(&ip) && !is_leftover {
            return;
        }
        self.step(ip, now, |context, claim| context.on_observed(claim, address, now));
    }

    /// The kernel has an address no more, whoever took it.
    pub fn on_address_removed(&mut self, address: &Address, now: Instant) {
        self.on_address_gone(address.index, address.prefix, now);
    }

    fn on_address_gone(&mut self, interface: u32, prefix: IpNet, now: Instant) {
        if !self.claims.contains_key(&prefix.addr()) {
            return;
        }
        self.step(prefix.addr(), now, |context, claim| {
            let before = claim.observed.len();
            claim.observed.retain(|it| (it.interface, it.prefix) != (interface, prefix));
            if claim.observed.len() < before {
                context.on_lost(claim, now);
            }
        });
    }

    /// Something was heard on a link.
    pub fn on_heard(&mut self, index: u32, heard: &Heard, now: Instant) {
        if self.claims.get(&heard.address).is_none_or(|claim| claim.interface() != Some(index)) {
            return;
        }
        self.step(heard.address, now, |context, claim| context.on_heard(claim, heard, now));
    }

    /// An announcement could not be sent: it stays due.
    pub fn on_not_announced(&mut self, address: IpAddr, now: Instant) {
        if self.claims.contains_key(&address) {
            self.step(address, now, |_, claim| Context::on_not_announced(claim, now + ANNOUNCE_AGAIN));
        }
    }

    /// A probe could not be sent: silence says nothing.
    pub fn on_not_sent(&mut self, address: IpAddr, now: Instant) {
        if self.claims.contains_key(&address) {
            self.step(address, now, |context, claim| context.on_not_sent(claim, now));
        }
    }

    /// A member said something.
    pub fn on_message(&mut self, from: &Arc<str>, message: &Message, now: Instant) {
        for address in message.addresses() {
            if !self.claims.contains_key(address) {
                continue;
            }
            self.step(*address, now, |context, claim| match message {
                Message::Request(number, _) => context.on_request(claim, from, *number, now),
                Message::Released(NO_REQUEST, _) => context.on_denied(claim, from, now),
                Message::Released(number, _) => context.on_released(claim, from, *number, now),
                Message::Holding(_) => context.on_holding(claim, from, now),
            });
        }
    }

    /// What came of an [`Action::Add`].
    pub fn on_added(&mut self, interface: u32, prefix: IpNet, result: Result<(), AddFailure>, now: Instant) {
        self.step(prefix.addr(), now, |context, claim| {
            context.on_added(claim, (interface, prefix), result, now);
        });
    }

    /// What came of an [`Action::Remove`]; what is gone already, or whose link is, has been removed.
    pub fn on_removed(&mut self, interface: u32, prefix: IpNet, is_done: bool, now: Instant) {
        self.step(prefix.addr(), now, |context, claim| {
            context.on_removed(claim, interface, prefix, is_done, now);
        });
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(action) = self.context.actions.pop_front() {
            return Some(action);
        }
        let ((to, interface, kind), addresses) = self.context.messages.pop_first()?;
        let addresses = addresses.into_iter().collect();
        let message = match kind {
            Kind::Request(number) => {
                // What is asked for together has one number, what is asked for later another.
                if number == self.context.request {
                    self.context.request = number.wrapping_add(1).max(NO_REQUEST + 1);
                }
                Message::Request(number, addresses)
            }
            Kind::Released(number) => Message::Released(number, addresses),
            Kind::Holding => Message::Holding(addresses),
        };
        Some(Action::Send { to, interface, message })
    }

    /// When [`Claims::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let leave = self.context.leave_at.filter(|_| !self.context.has_to_go);
        [timer, leave].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.context.has_to_go && self.context.leave_at.is_some_and(|at| at <= now) {
            self.context.has_to_go = true;
            self.evaluate_all(now);
        }
        while let Some((at, address)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, address));
            self.step(address, now, |context, claim| {
                claim.due = None;
                context.on_due(claim, at, now);
            });
        }
    }

    /// Whether this node was to leave and holds nothing any more.
    pub fn has_left(&self) -> bool {
        let is_here = |claim: &Claim| claim.is_committed() || matches!(claim.state, State::Removing { .. });
        self.context.leave_at.is_some() && !self.claims.values().any(is_here)
    }

    /// The addresses that this node holds.
    pub fn held(&self) -> impl Iterator<Item = IpAddr> {
        self.claims.values().filter(|claim| claim.is_told).map(|claim| claim.address)
    }

    /// Whether an address is on the interface: adding it only begins its lifetime anew.
    pub fn is_held(&self, address: IpAddr) -> bool {
        self.claims.get(&address).is_some_and(|claim| matches!(claim.state, State::Held(_)))
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<_> = self.claims.keys().copied().collect();
        addresses.sort_unstable();
        addresses
    }

    fn evaluate_all(&mut self, now: Instant) {
        for address in self.addresses() {
            self.step(address, now, |context, claim| context.evaluate(claim, now));
        }
    }

    /// The one door: whatever happens to a claim happens here, so that its timer and what its owner knows follow.
    fn step(&mut self, address: IpAddr, now: Instant, act: impl FnOnce(&mut Context, &mut Claim)) {
        let claim = self.claims.entry(address).or_insert_with(|| Claim::new(address));
        let before = claim.due;
        act(&mut self.context, claim);
        if let State::Held(held) = &claim.state {
            claim.due = held.due();
        }
        self.context.tell(claim);
        // What is overdue is due now: a timer is found again under the moment that it stands at.
        claim.due = claim.due.map(|at| at.max(now));
        let (due, is_empty) = (claim.due, claim.is_empty());
        if due != before {
            before.map(|at| self.timers.remove(&(at, address)));
        }
        match due {
            Some(at) => _ = self.timers.insert((at, address)),
            None if is_empty => _ = self.claims.remove(&address),
            None => {}
        }
    }
}

impl Context {
    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Has a member told, if anything reaches it.
    fn say(&mut self, to: &Arc<str>, interface: u32, kind: Kind, address: IpAddr) {
        if self.members.get(to).is_some_and(|member| member.takes_messages) {
            self.messages.entry((to.clone(), interface, kind)).or_default().insert(address);
        }
    }

    fn is_usable(&self, interface: u32) -> bool {
        self.links.get(&interface).is_some_and(|link| link.is_usable)
    }

    fn member_of(&self, mac: Mac) -> Option<&Member> {
        self.members.get(self.by_mac.get(&mac)?)
    }

    /// Whether this node is to hold it.
    fn is_elected(&self, claim: &Claim) -> bool {
        let is_ours = claim.wanted.as_ref().is_some_and(|wanted| wanted.elected == Elected::Us);
        is_ours && self.leave_at.is_none()
    }

    /// The pause after so many attempts in vain, with jitter, so that two do not meet again and again.
    fn back_off(&mut self, attempts: u32) -> Duration {
        let pause = BACK_OFF.0.saturating_mul(1 << attempts.min(8)).min(BACK_OFF.1);
        pause.mul_f64(self.random.random_range(0.8..1.0))
    }

    /// Tells the owner what it does not know yet.
    fn tell(&mut self, claim: &mut Claim) {
        let is_held = match &claim.state {
            State::Held(_) => claim.observed.iter().any(Observed::is_usable),
            State::Probing { .. } | State::Adding { .. } => claim.is_told && claim.is_returning,
            _ => false,
        };
        if is_held != claim.is_told {
            claim.is_told = is_held;
            let address = claim.address;
            self.act(Action::Report(if is_held { Report::Held(address) } else { Report::Released(address) }));
        }
    }

    fn block(&mut self, claim: &mut Claim, by: Blocker, pause: Duration, now: Instant) {
        claim.attempts = claim.attempts.saturating_add(1);
        claim.state = State::Blocked { by };
        claim.due = Some(now + pause);
    }

    /// As [`Context::block`], for ever longer.
    fn block_for_a_while(&mut self, claim: &mut Claim, by: Blocker, now: Instant) {
        let pause = self.back_off(claim.attempts);
        self.block(claim, by, pause, now);
    }
}
