//! What must never be seen on the wire, looked at whenever a kernel's addresses or the wire have changed.
//!
//! - Two nodes that reach each other never answer for the same address, however each of them came by it. Excused is a
//!   pair within [`SETTLED`] of the last moment at which frames between the two were lost, and a node that was cut off
//!   while no agent ran on it (or had not come to terms with others when its agent ended), until [`SETTLED`] after one does: nobody could take anything off it.
//! - No address is without a holder for longer than [`LONGEST_GAP`] after the last fault, as long as an agent runs that
//!   could hold it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Agent, Network, SETTLED, weight};
use crate::claim::{Report, claims::STRANGER_INTERVAL};

/// A fault is noticed after 600 ms at most, elected within 20 ms more, asked for twice for 50 ms; an agent that has just
/// started says nothing for 600 ms. What was answered for last by someone who is gone is asked for again after a second.
const LONGEST_GAP: Duration = Duration::from_millis(1_700);

#[derive(Debug)]
pub(super) struct Checker {
    /// When two nodes last did not reach each other both ways.
    apart_at: BTreeMap<(usize, usize), Instant>,
    /// When something was last done to the network.
    disturbed_at: Instant,
    /// Since when each address is served by nobody.
    unserved: BTreeMap<IpAddr, Instant>,
    /// Since when each address has two holders that reach each other.
    doubled: BTreeMap<IpAddr, Instant>,
    /// How long that may be.
    longest_double: Duration,
    /// A kernel's addresses or the wire have changed since it was looked.
    is_due: bool,
    /// How long addresses were served by nobody, at most.
    pub(super) longest_outage: Duration,
    pub(super) outages: usize,
}

impl Checker {
    pub(super) const fn new(now: Instant) -> Checker {
        Checker {
            apart_at: BTreeMap::new(),
            disturbed_at: now,
            unserved: BTreeMap::new(),
            doubled: BTreeMap::new(),
            longest_double: Duration::ZERO,
            is_due: true,
            longest_outage: Duration::ZERO,
            outages: 0,
        }
    }

    /// It has to be looked before anything else happens.
    pub(super) const fn wake(&mut self) {
        self.is_due = true;
    }

    pub(super) fn forget(&mut self, ip: IpAddr) {
        self.unserved.remove(&ip);
        self.doubled.remove(&ip);
    }
}

impl Network {
    /// Something is about to be done to the network: what follows from it takes its time from here.
    pub(super) fn disturb(&mut self) {
        self.checker.disturbed_at = self.now;
        self.checker.wake();
        self.note_partings();
    }

    /// Notes who is apart at this moment, and who cannot help it.
    pub(super) fn note_partings(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                if self.is_cut(a, b) {
                    self.checker.apart_at.insert((a, b), self.now);
                }
            }
        }
        for a in 0..self.nodes.len() {
            let is_apart = self.loss > 0 || (0..self.nodes.len()).any(|b| self.were_apart(a, b));
            let node = &mut self.nodes[a];
            node.is_blameless |= node.agent != Agent::Running && (is_apart || !node.has_carrier);
        }
    }

    /// Whether frames between the two are lost, or have been until just now.
    fn were_apart(&self, a: usize, b: usize) -> bool {
        let is_fresh = |at: &Instant| self.now <= *at + SETTLED;
        self.is_cut(a, b) || self.checker.apart_at.get(&(a.min(b), a.max(b))).is_some_and(is_fresh)
    }

    /// An agent runs on the node again. What it has in common with one on which none does is that one's fault now.
    pub(super) fn blame(&mut self, a: usize) {
        if std::mem::take(&mut self.nodes[a].is_blameless) {
            for b in 0..self.nodes.len() {
                self.checker.apart_at.insert((a.min(b), a.max(b)), self.now);
                let has_common = self.held_by(a).iter().any(|ip| self.nodes[b].kernel.contains_key(ip));
                self.nodes[b].is_blameless |= has_common && self.nodes[b].agent != Agent::Running;
            }
        }
    }

    /// Frames are lost at random: two may take the same address, and must find out within this time.
    pub(in super::super) fn allow_doubles_for(&mut self, time: Duration) {
        self.checker.longest_double = time;
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a, b)) || self.cut.contains(&(b, a))
    }

    pub(super) fn check(&mut self) {
        if !std::mem::take(&mut self.checker.is_due) {
            return;
        }
        for ip in self.addresses.clone() {
            let holders = self.holders(ip);
            self.check_doubles(ip, &holders);
            self.check_gap(ip, holders.is_empty());
        }
    }

    fn check_doubles(&mut self, ip: IpAddr, holders: &[usize]) {
        let pairs = holders.iter().flat_map(|a| holders.iter().map(move |b| (*a, *b))).filter(|(a, b)| a < b);
        let Some(pair) = pairs.into_iter().find(|(a, b)| !self.are_excused(*a, *b)) else {
            self.checker.doubled.remove(&ip);
            return;
        };
        let time = self.now - *self.checker.doubled.entry(ip).or_insert(self.now);
        let longest = self.checker.longest_double;
        let at = self.now - self.start;
        assert!(
            !longest.is_zero() && time <= longest,
            "seed {}: {ip} is held by {pair:?} for {time:?} at {at:?}",
            self.seed
        );
    }

    fn are_excused(&self, a: usize, b: usize) -> bool {
        self.were_apart(a, b) || self.nodes[a].is_blameless || self.nodes[b].is_blameless
    }

    fn check_gap(&mut self, ip: IpAddr, is_unserved: bool) {
        if is_unserved {
            let since = *self.checker.unserved.entry(ip).or_insert(self.now);
            if (0..self.nodes.len()).any(|node| self.can_serve(node)) {
                self.check_outage(ip, since);
            }
        } else if let Some(since) = self.checker.unserved.remove(&ip) {
            self.check_outage(ip, since);
            self.checker.outages += 1;
            self.checker.longest_outage = self.checker.longest_outage.max(self.now - since);
        }
    }

    fn check_outage(&self, ip: IpAddr, since: Instant) {
        let gap = self.now - since.max(self.checker.disturbed_at);
        let at = self.now - self.start;
        // Who was dead already when an agent started is a stranger to that: it looks each five seconds.
        let is_conflict = |it: &(usize, Report)| matches!(it.1, Report::Conflict(other, _) if other == ip);
        let pause = if self.reports.iter().any(is_conflict) { STRANGER_INTERVAL } else { Duration::ZERO };
        assert!(
            gap <= LONGEST_GAP + pause || self.strangers.contains_key(&ip),
            "seed {}: {ip} is held by nobody for {gap:?} at {at:?}",
            self.seed
        );
    }

    /// A member whose agent runs is known soon enough not to be taken for a stranger.
    pub(super) fn check_report(&self, node: usize, report: &Report) {
        let Report::Conflict(ip, mac) = *report else { return };
        let member = self.nodes.iter().position(|node| node.mac == mac);
        if let Some(member) = member.filter(|it| self.nodes[*it].agent == Agent::Running && self.loss == 0) {
            assert!(
                self.were_apart(node, member) || self.checker.disturbed_at + SETTLED > self.now,
                "seed {}: {member} is a stranger to {node}, for {ip} at {:?}",
                self.seed,
                self.now - self.start
            );
        }
    }

    fn can_serve(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.agent == Agent::Running && node.has_carrier && !node.is_leaving
    }

    pub(in super::super) fn holders(&self, ip: IpAddr) -> Vec<usize> {
        let holds = |number: &usize| {
            let node = &self.nodes[*number];
            node.is_on && node.has_carrier && node.kernel.contains_key(&ip)
        };
        (0..self.nodes.len()).filter(holds).collect()
    }

    /// Every address is held by exactly one; where all agents run, by the election's winner.
    pub(in super::super) fn assert_in_order(&self) {
        let are_all_running = self.nodes.iter().all(|node| node.agent == Agent::Running);
        for ip in &self.addresses {
            let holders = self.holders(*ip);
            let at = self.now - self.start;
            assert_eq!(holders.len(), 1, "seed {}: {ip} is held by {holders:?} at {at:?}", self.seed);
            let candidates = (0..self.nodes.len()).filter(|node| self.can_serve(*node));
            let winner = candidates.min_by_key(|node| weight(&self.nodes[*node].name, *ip));
            assert!(
                !are_all_running || winner == holders.first().copied(),
                "seed {}: {ip} is held by {holders:?} at {at:?}, and not by {winner:?}",
                self.seed
            );
        }
    }

    /// How long addresses were served by nobody, at most, since they have been counted.
    pub(in super::super) const fn longest_outage(&self) -> Duration {
        self.checker.longest_outage
    }

    /// How often an address was served by nobody.
    pub(in super::super) const fn outages(&self) -> usize {
        self.checker.outages
    }

    /// From here on outages are counted.
    pub(in super::super) const fn count_from_here(&mut self) {
        self.checker.longest_outage = Duration::ZERO;
        self.checker.outages = 0;
    }
}
