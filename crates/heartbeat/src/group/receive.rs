//! A datagram arrives: whether it may be believed, and what follows from it.

use std::net::SocketAddr;

use super::{Event, Group};
use crate::{
    config::Name,
    hearing::Place,
    member::{Member, Standing},
    stream::Incoming,
    time::Time,
    wire::{Binding, Datagram, Death, Dropped, Header, Message, Parts},
};

impl Group {
    /// A datagram has arrived. Dropping it says why, for logs: it is not an error of ours.
    ///
    /// # Errors
    ///
    /// Why it was not taken. Nothing has changed then; one that does not name this process, but is otherwise good, has
    /// its sender told who is here.
    pub fn handle_datagram(&mut self, from: SocketAddr, octets: &[u8], now: Time) -> Result<(), Dropped> {
        let header = Header::peek(octets)?;
        if header.group != self.group {
            return Err(Dropped::Group);
        }
        let name = self.names.get(&header.sender).cloned().ok_or(Dropped::Stranger(header.sender))?;
        let member = self.members.get(&name).ok_or(Dropped::Stranger(header.sender))?;
        if from.ip().to_canonical() != member.address.ip().to_canonical() {
            return Err(Dropped::Source(from.ip()));
        }
        let binding = Binding { group: &self.local.group, sender: &name, receiver: &self.local.name };
        let datagram = Datagram::decode(octets, &self.config.keys, binding)?;
        if header.echo != self.local.boot {
            if !member.hearing.is_over(header.boot) {
                self.wake(now);
                self.introduce(&name, header.boot, now);
                self.settle(now);
            }
            return Err(Dropped::Echo);
        }
        member.hearing.check(header.boot, header.sequence, member.is_dead())?;
        self.wake(now);
        self.take(&name, datagram, now);
        self.settle(now);
        Ok(())
    }

    /// The sender does not know this process: it is told, and asked to say the same again. Not too often, for what was
    /// heard may be a recording.
    fn introduce(&mut self, name: &Name, boot: u64, now: Time) {
        let pace = self.config.pace();
        let Some(member) = self.members.get_mut(name) else { return };
        if member.may_correct(now, pace) {
            member.owed.echo = Some(boot);
            member.owed.anything = true;
            member.owed.wants_answer |= member.hearing.boot() != Some(boot);
        }
    }

    /// It is fresh.
    fn take(&mut self, name: &Name, datagram: Datagram, now: Time) {
        let pace = self.config.pace();
        let Datagram { header, parts } = datagram;
        self.hear(now);
        let Some(member) = self.members.get_mut(name) else { return };
        let place = member.hearing.take(header.boot, header.sequence);
        let is_silenced =
            |death: &Death| death.boot == header.boot && header.incarnation <= death.incarnation;
        if let Some(death) = member.death.filter(is_silenced) {
            // It lives, but the others have been told otherwise: it has to say so to them, too.
            if member.may_correct(now, pace) {
                member.owed.death = Some(death);
                member.owed.anything = true;
            }
            self.hear_of_own_death(name, &parts, now);
            return;
        }
        self.on_life(name, &header, place, now);
        if header.wants_answer
            && let Some(member) = self.members.get_mut(name)
        {
            member.owed.anything = true;
        }
        self.take_parts(name, parts, now);
    }

    /// Nothing that the dead say counts, except that they hold this member dead: after a partition both do.
    fn hear_of_own_death(&mut self, name: &Name, parts: &Parts, now: Time) {
        let (own, before) = (self.id, self.incarnation);
        parts.deaths.iter().filter(|it| it.member == own).for_each(|death| self.on_death(*death, now));
        if self.incarnation != before
            && let Some(member) = self.members.get_mut(name)
        {
            member.owed.anything = true;
        }
    }

    /// A member was heard that is not dead, or not any more.
    fn on_life(&mut self, name: &Name, header: &Header, place: Place, now: Time) {
        let Some(member) = self.members.get_mut(name) else { return };
        let before = member.state;
        let mut failed = Vec::new();
        if place.is_restart {
            failed = member.outgoing.fail();
            member.incoming = Incoming::default();
            member.incarnation = 0;
        }
        let has_changed = place.is_newest && member.learn(header);
        member.on_sign(now);
        member.state.standing = Standing::Alive;
        member.death = None;
        let after = member.state;
        self.undelivered(name, failed);
        if !before.is_alive() {
            self.is_ring_stale = true;
        }
        if before.standing == Standing::Dead {
            self.check_everybody();
        }
        let is_leaving = after.is_leaving && (!before.is_leaving || place.is_restart);
        let is_back = before.standing != Standing::Alive || place.is_restart;
        if is_back || (has_changed && !is_leaving) {
            self.tell_alive(name);
        }
        if is_leaving || (is_back && after.is_leaving) {
            self.events.push_back(Event::Leaving { name: Name::clone(name) });
        }
    }

    fn take_parts(&mut self, name: &Name, parts: Parts, now: Time) {
        let Some(member) = self.members.get_mut(name) else { return };
        if let Some(ack) = parts.ack {
            member.outgoing.acknowledge(ack);
        }
        let messages = match parts.messages {
            Some(messages) => {
                member.owed.ack = true;
                member.incoming.take(messages)
            }
            None => Vec::new(),
        };
        for message in messages {
            match message {
                Message::Payload(octets) => {
                    self.events
                        .push_back(Event::Payload { from: Name::clone(name), octets: octets.to_vec() });
                }
                Message::Death(death) => self.on_death(death, now),
                Message::Nudge | Message::Unknown(..) => {}
            }
        }
        parts.deaths.into_iter().for_each(|death| self.on_death(death, now));
        parts.questions.into_iter().for_each(|id| self.on_question(name, id, now));
        parts.answers.into_iter().for_each(|answer| self.on_answer(name, answer, now));
    }
}

impl Member {
    /// Whether what it does not know is to be said to it: not at each of its datagrams.
    fn may_correct(&mut self, now: Time, pace: std::time::Duration) -> bool {
        let may = self.corrected.is_none_or(|at| now.since(at) >= pace);
        if may {
            self.corrected = Some(now);
        }
        may
    }
}
