//! A member is silent: it is asked, then those who watch it, too.

use std::time::Duration;

use super::{Event, Group};
use crate::{
    config::{Id, Name},
    member::{Member, Standing, Suspicion},
    ring,
    time::Time,
    wire::Answer,
};

/// What is to be thought of a suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Dead,
}

impl Group {
    /// Looks after every member that is silent for almost too long.
    pub(super) fn attend(&mut self, now: Time) {
        let interval = self.config.interval();
        let is_silent =
            |it: &Member| it.deadline().is_some_and(|deadline| deadline <= now + it.slack(interval));
        let silent = self.members.iter().filter(|(_, member)| is_silent(member));
        let silent: Vec<Name> = silent.map(|(name, _)| Name::clone(name)).collect();
        silent.iter().for_each(|name| self.attend_to(name, now));
    }

    fn attend_to(&mut self, name: &Name, now: Time) {
        let pace = self.repeat_after(name, now);
        let Some(member) = self.members.get_mut(name) else { return };
        let mut is_time = member.probe_at.is_none_or(|at| at <= now);
        if is_time {
            member.owed.wants_answer = true;
            member.probe_at = Some(now + pace);
        }
        let is_over = member.deadline().is_some_and(|deadline| deadline <= now);
        if is_over && member.suspicion.is_none() {
            let asked = ring::successors(&self.ring, &member.id).map(|name| (Name::clone(name), None));
            member.suspicion = Some(Suspicion { since: now, asked: asked.collect() });
            if member.is(Standing::Alive) {
                member.state.standing = Standing::Suspected;
                self.events.push_back(Event::Suspected { name: Name::clone(name) });
            }
            is_time = true;
        }
        self.leave_out_the_dead(name);
        if is_time {
            self.ask_watchers(name);
        }
        if self.verdict(name, now) == Verdict::Dead {
            // Of one that was never heard, and of all at once, others know more.
            let is_known = self.members.get(name).is_some_and(|member| !member.is(Standing::Unknown));
            self.conclude(name, is_known && !self.is_alone, now);
        }
    }

    /// At first quickly; where nobody answers, once an interval.
    fn repeat_after(&self, name: &str, now: Time) -> Duration {
        let suspicion = self.members.get(name).and_then(|member| member.suspicion.as_ref());
        let is_long = suspicion.is_some_and(|it| now.since(it.since) >= self.config.confirmation_time());
        if is_long { self.config.interval() } else { self.config.pace() }
    }

    /// Nobody waits for an answer of the dead.
    fn leave_out_the_dead(&mut self, name: &str) {
        let Some(mut suspicion) = self.members.get_mut(name).and_then(|member| member.suspicion.take())
        else {
            return;
        };
        suspicion.asked.retain(|name, _| self.members.get(name).is_some_and(|it| it.state.is_alive()));
        if let Some(member) = self.members.get_mut(name) {
            member.suspicion = Some(suspicion);
        }
    }

    fn ask_watchers(&mut self, name: &str) {
        let Some(member) = self.members.get(name) else { return };
        let Some(suspicion) = &member.suspicion else { return };
        let id = member.id;
        let silent: Vec<Name> = suspicion
            .asked
            .iter()
            .filter(|(_, said)| said.is_none())
            .map(|(it, _)| Name::clone(it))
            .collect();
        for watcher in silent {
            if let Some(watcher) = self.members.get_mut(&watcher) {
                watcher.owed.questions.push(id);
            }
        }
    }

    fn verdict(&self, name: &str, now: Time) -> Verdict {
        let Some(member) = self.members.get(name) else { return Verdict::Wait };
        let Some(suspicion) = &member.suspicion else { return Verdict::Wait };
        let elapsed = now.since(suspicion.since);
        let is_dead = match suspicion.asked.len() {
            0 => elapsed >= self.least_silence(),
            asked => {
                let denials = suspicion.asked.values().flatten().count();
                let is_over = elapsed >= self.config.confirmation_time();
                // Where nobody at all is heard it may be this member that is cut off: the silence has to last as long
                // again.
                let is_certain = denials > 0 || self.hears_others(now) || elapsed >= member.patience;
                denials == asked || (is_over && is_certain)
            }
        };
        if is_dead { Verdict::Dead } else { Verdict::Wait }
    }

    /// Whether anybody was heard since a member that is suspected now should have been, and those who were asked.
    fn hears_others(&self, now: Time) -> bool {
        now.since(self.heard_anybody) < self.config.interval() + self.config.confirmation_time()
    }

    /// Somebody is heard. After a time without anybody all questions are asked again: they can be answered now.
    pub(super) fn hear(&mut self, now: Time) {
        if !self.hears_others(now) {
            let suspected = self.members.values_mut().filter(|member| member.suspicion.is_some());
            for member in suspected {
                (member.suspicion, member.probe_at) = (None, None);
            }
        }
        self.heard_anybody = now;
    }

    /// Where there is nobody to ask but the member itself.
    fn least_silence(&self) -> Duration {
        self.config.pace() * 2
    }

    /// When something about a silent member is due.
    pub(super) fn attention_at(&self, member: &Member, now: Time) -> Option<Time> {
        let deadline = member.deadline()?;
        let ahead = deadline - member.slack(self.config.interval());
        if now < ahead {
            return Some(ahead);
        }
        let Some(probe_at) = member.probe_at else { return Some(now) };
        let Some(suspicion) = &member.suspicion else { return Some(probe_at.min(deadline)) };
        let waits = match suspicion.asked.len() {
            0 => [self.least_silence(); 2],
            _ => [self.config.confirmation_time(), member.patience],
        };
        let verdicts = waits.map(|wait| suspicion.since + wait).into_iter().filter(|at| *at > now);
        verdicts.chain([probe_at]).min()
    }

    /// Somebody wants to know what is heard of a member.
    pub(super) fn on_question(&mut self, from: &Name, about: Id, now: Time) {
        let member = self.names.get(&about).and_then(|name| self.members.get(name));
        let answer = match member {
            Some(member) => Answer {
                member: about,
                age: member.heard.filter(|_| !member.is_dead()).map(|heard| now.since(heard)),
                boot: member.hearing.boot().unwrap_or(0),
                incarnation: member.incarnation,
                is_ready: member.state.is_ready,
                is_leaving: member.state.is_leaving,
                mac: member.state.mac,
            },
            None => Answer {
                member: about,
                age: None,
                boot: 0,
                incarnation: 0,
                is_ready: false,
                is_leaving: false,
                mac: [0; 6],
            },
        };
        if let Some(asker) = self.members.get_mut(from) {
            asker.owed.answers.retain(|known| known.member != about);
            asker.owed.answers.push(answer);
        }
    }

    /// A watcher says what it has heard.
    pub(super) fn on_answer(&mut self, from: &Name, answer: Answer, now: Time) {
        let interval = self.config.interval();
        let Some(name) = self.names.get(&answer.member).cloned() else { return };
        let Some(member) = self.members.get_mut(&name) else { return };
        if member.is_dead() {
            return;
        }
        let Some(age) = answer.age.filter(|age| *age + member.slack(interval) < member.patience) else {
            let asked = member.suspicion.as_mut().and_then(|it| it.asked.get_mut(from));
            if let Some(said) = asked {
                *said = Some(true);
            }
            return;
        };
        let before = member.state.standing;
        member.word = member.word.max(Some(now - age));
        (member.suspicion, member.probe_at, member.duty.asked_since) = (None, None, None);
        member.state.standing = Standing::Alive;
        if before == Standing::Unknown {
            member.state.is_ready = answer.is_ready;
            member.state.is_leaving = answer.is_leaving;
            member.state.mac = answer.mac;
            member.incarnation = answer.incarnation;
            self.is_ring_stale = true;
        }
        if before != Standing::Alive {
            self.tell_alive(&name);
        }
    }
}
