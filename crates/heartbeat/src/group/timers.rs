//! Time passes: heartbeats, greetings of those who are not heard, rounds among all others, and pauses of our own.

use super::Group;
use crate::{
    config::Name,
    member::{Member, Standing},
    time::Time,
};

/// Every so many heartbeats one living member is asked for an answer that nothing is heard of otherwise.
const ROUND_EVERY: u64 = 4;

/// Deaths are repeated for so many intervals.
const REPEATED: u32 = 10;

/// Late by more intervals than this, it was this process that stood still.
const PAUSE: u32 = 2;

impl Group {
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.wake(now);
        self.step(now);
        self.settle(now);
    }

    pub(super) fn step(&mut self, now: Time) {
        if self.beat_at <= now {
            self.beat(now);
        }
        if self.greet_at <= now {
            self.greet_next(now);
        }
        self.attend(now);
    }

    /// Where this process stood still, the silence of the others is no news.
    pub(super) fn wake(&mut self, now: Time) {
        let Some(timeout) = self.timeout else { return };
        if now.since(timeout) <= self.config.interval() * PAUSE {
            return;
        }
        self.timeout = Some(now);
        self.heard_anybody = now;
        let mut trusted = Vec::new();
        for (name, member) in self.members.iter_mut().filter(|(_, member)| !member.is_dead()) {
            let duty = &mut member.duty;
            duty.watched_since = duty.watched_since.map(|_| now);
            duty.asked_since = duty.asked_since.map(|_| now);
            (member.suspicion, member.probe_at) = (None, None);
            if member.is(Standing::Suspected) {
                member.state.standing = Standing::Alive;
                trusted.push(Name::clone(name));
            }
        }
        trusted.iter().for_each(|name| self.tell_alive(name));
        self.check_everybody();
    }

    fn beat(&mut self, now: Time) {
        let interval = self.config.interval();
        self.beat_at = now + self.chance.jitter(interval);
        self.beats = self.beats.wrapping_add(1);
        self.recent.retain(|(at, _)| now.since(*at) < interval * REPEATED);
        for member in self.members.values_mut().filter(|member| member.duty.is_recipient) {
            member.owed.anything = true;
        }
        self.go_round(0, now, |member| !member.state.is_alive());
        if self.beats.is_multiple_of(ROUND_EVERY) {
            self.go_round(1, now, Member::is_unwatched);
        }
    }

    /// Greets the next one of a kind: everybody has its turn.
    fn go_round(&mut self, round: usize, now: Time, is_meant: impl Fn(&Member) -> bool) {
        let Some(last) = self.rounds.get_mut(round) else { return };
        let is_later = |name: &Name| last.as_ref().is_none_or(|last| name > last);
        let mut meant = self.members.iter().filter(|(_, member)| is_meant(member)).map(|(name, _)| name);
        let first = meant.next().cloned();
        let next = match first {
            Some(first) if !is_later(&first) => meant.find(|name| is_later(name)).cloned().or(Some(first)),
            first => first,
        };
        last.clone_from(&next);
        if let Some(name) = next {
            self.greet(&name, now);
        }
    }

    /// Greets the first one of those who are to be greeted soon: a few in an interval, whatever their number.
    fn greet_next(&mut self, now: Time) {
        let is_late = |heard: Option<Time>| heard.is_none_or(|at| now.since(at) >= self.config.interval());
        while let Some(name) = self.greetings.pop_front() {
            let member = self.members.get(&name);
            if member.is_some_and(|it| !it.state.is_alive() || (it.is_unwatched() && is_late(it.heard))) {
                self.greet(&name, now);
                self.greet_at = now + self.config.pace();
                return;
            }
        }
    }

    /// All that are not heard get a greeting soon: where one is back, others are likely to be; where two have died,
    /// others may have; and who was cut off itself has missed what the others were told.
    pub(super) fn check_everybody(&mut self) {
        if self.greetings.is_empty() {
            let unheard = self.members.iter().filter(|(_, it)| !it.state.is_alive() || it.is_unwatched());
            self.greetings = unheard.map(|(name, _)| Name::clone(name)).collect();
        }
    }

    fn greet(&mut self, name: &Name, now: Time) {
        let Some(member) = self.members.get_mut(name) else { return };
        member.owed.wants_answer = true;
        if member.is_dead() {
            member.owed.death = member.death.filter(|_| member.hearing.boot().is_some());
        } else if member.duty.watched_since.is_none() {
            member.duty.asked_since.get_or_insert(now);
        }
    }

    pub(super) fn next_timeout(&self, now: Time) -> Time {
        let greeting = (!self.greetings.is_empty()).then_some(self.greet_at);
        let alone = self.alone_at().filter(|_| !self.is_alone);
        let members = self.members.values().flat_map(|member| {
            let attention = self.attention_at(member, now);
            attention.into_iter().chain(member.message_due())
        });
        members.chain(greeting).chain(alone).fold(self.beat_at, Time::min)
    }
}
