//! Deaths: concluded here, told by others, or of this member itself, which then says that it lives.

use std::time::Duration;

use super::{Event, Group};
use crate::{
    config::Name,
    member::{Duty, Member, Owed, Standing},
    time::Time,
    wire::{Death, Message},
};

/// How many of the latest deaths go along with every datagram.
const RECENT: usize = 4;

impl Group {
    /// This member has found another dead. `is_told`: the others have to know.
    pub(super) fn conclude(&mut self, name: &Name, is_told: bool, now: Time) {
        let Some(member) = self.members.get(name) else { return };
        let boot = member.hearing.boot();
        let death = Death { member: member.id, boot: boot.unwrap_or(0), incarnation: member.incarnation };
        self.bury(name, death, now);
        // Where it lives after all, it has to hear this.
        if let Some(member) = self.members.get_mut(name) {
            member.owed.anything = true;
            member.owed.death = boot.map(|_| death);
        }
        if !is_told {
            return;
        }
        self.remember(death, now);
        let living = self.members.values_mut().filter(|member| member.state.is_alive());
        for member in living.filter(|member| !member.outgoing.is_full()) {
            self.messages = self.messages.saturating_add(1);
            member.outgoing.push(None, Message::Death(death));
        }
    }

    /// Another has found a member dead, perhaps this one.
    pub(super) fn on_death(&mut self, death: Death, now: Time) {
        if death.member == self.id {
            if death.boot == self.local.boot && death.incarnation >= self.incarnation {
                self.incarnation = death.incarnation.saturating_add(1);
                self.events.push_back(Event::CalledDead);
                self.nudge_all();
                self.check_everybody();
            }
            return;
        }
        let interval = self.config.interval();
        let Some(name) = self.names.get(&death.member).cloned() else { return };
        let Some(member) = self.members.get_mut(&name) else { return };
        if member.is_dead() {
            member.is_dead_longer(death);
        } else if member.may_be_dead(death, now, interval) {
            self.bury(&name, death, now);
            self.remember(death, now);
        }
    }

    fn bury(&mut self, name: &Name, death: Death, now: Time) {
        let Some(member) = self.members.get_mut(name) else { return };
        member.state.standing = Standing::Dead;
        (member.state.is_ready, member.state.is_leaving) = (false, false);
        member.death = Some(death);
        (member.suspicion, member.probe_at, member.duty) = (None, None, Duty::default());
        member.owed = Owed::default();
        let failed = member.outgoing.fail();
        self.is_ring_stale = true;
        self.look_for_more(now);
        tracing::debug!(member = %name, ?now, "dead");
        self.undelivered(name, failed);
        self.events.push_back(Event::Dead { name: Name::clone(name) });
    }

    /// Where two die within a short time, more may have, their watchers among them.
    fn look_for_more(&mut self, now: Time) {
        let before = self.last_death.replace(now);
        let is_second = before.is_some_and(|before| now.since(before) <= self.config.detection_time());
        if is_second {
            self.check_everybody();
        }
    }

    fn remember(&mut self, death: Death, now: Time) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((now, death));
    }
}

impl Member {
    /// Whether it may be as another says: not where we have heard it since, or know a later life of it.
    fn may_be_dead(&self, death: Death, now: Time, interval: Duration) -> bool {
        let is_current = match self.hearing.boot() {
            None => true,
            Some(boot) if boot == death.boot => death.incarnation >= self.incarnation,
            Some(boot) => boot < death.boot && !self.hearing.is_over(death.boot),
        };
        is_current && !self.is_heard(now, interval)
    }

    /// It is dead already: perhaps in a later incarnation, too.
    fn is_dead_longer(&mut self, death: Death) {
        if let Some(known) = &mut self.death
            && known.boot == death.boot
        {
            known.incarnation = known.incarnation.max(death.incarnation);
        }
    }
}
