//! What is owed becomes datagrams: one to a member for everything that has come together.

use super::Group;
use crate::{
    config::Name,
    key::TAG_OCTETS,
    member::{Member, Owed},
    time::Time,
    wire::{Binding, Datagram, HEADER_OCTETS, Header, MAX_OCTETS, Parts},
};

/// Octets of a question, and of an answer.
const QUESTION_OCTETS: usize = 8;
const ANSWER_OCTETS: usize = 31;
/// Octets before the value of a part.
const PART_HEADER: usize = 3;

impl Group {
    /// Sends everything that is owed and due.
    pub(super) fn flush(&mut self, now: Time) {
        let is_due = |member: &Member| !member.owed.is_empty() || member.is_message_due(now);
        let due: Vec<Name> =
            self.members.iter().filter(|(_, it)| is_due(it)).map(|(name, _)| Name::clone(name)).collect();
        for name in due {
            self.flush_to(&name, now);
        }
    }

    fn flush_to(&mut self, name: &Name, now: Time) {
        let pace = self.config.pace();
        let deaths: Vec<_> = self.recent.iter().map(|(_, death)| *death).collect();
        while let Some(member) = self.members.get_mut(name) {
            let is_due = member.is_message_due(now);
            if member.owed.is_empty() && !is_due {
                return;
            }
            let wants_answer = std::mem::take(&mut member.owed.wants_answer);
            member.owed.anything = false;
            let (echo, parts) = match member.owed.echo.take() {
                // To a process that is not known to run: nothing but who we are.
                Some(echo) => (echo, Parts::default()),
                None => {
                    let mut parts = Parts { deaths: deaths.clone(), ..Parts::default() };
                    if let Some(death) = member.owed.death.take().filter(|death| !deaths.contains(death)) {
                        parts.deaths.push(death);
                    }
                    if std::mem::take(&mut member.owed.ack) {
                        parts.ack = Some(member.incoming.expected());
                    }
                    if is_due {
                        parts.messages = member.outgoing.next(now, pace);
                    }
                    member.owed.fill(&mut parts);
                    (member.hearing.boot().unwrap_or(0), parts)
                }
            };
            let address = member.address;
            self.sequence += 1;
            let header = self.header(echo, wants_answer);
            let binding = Binding { group: &self.local.group, sender: &self.local.name, receiver: name };
            let octets = Datagram { header, parts }.encode(&self.config.keys, binding);
            debug_assert!(octets.len() <= MAX_OCTETS, "{} octets", octets.len());
            self.transmits.push_back((address, octets));
        }
    }

    fn header(&self, echo: u64, wants_answer: bool) -> Header {
        let interval = self.config.interval().as_millis();
        Header {
            is_ready: self.is_ready_now(),
            is_leaving: self.is_leaving,
            wants_answer,
            group: self.group,
            sender: self.id,
            boot: self.local.boot,
            echo,
            sequence: self.sequence,
            incarnation: self.incarnation,
            mac: self.local.mac,
            interval_millis: u16::try_from(interval).expect("an interval is at most 10 s"),
            multiplier: self.config.multiplier(),
        }
    }
}

impl Member {
    /// Messages go to a process that is known to run.
    pub(super) fn is_message_due(&self, now: Time) -> bool {
        self.message_due().is_some_and(|at| at <= now)
    }

    pub(super) fn message_due(&self) -> Option<Time> {
        let can_be_told = self.state.is_alive() && self.hearing.boot().is_some();
        self.outgoing.due().filter(|_| can_be_told)
    }
}

impl Owed {
    /// Moves as many questions and answers into a datagram as there is room for; the rest stays owed.
    fn fill(&mut self, parts: &mut Parts) {
        let mut room = MAX_OCTETS.saturating_sub(HEADER_OCTETS + TAG_OCTETS + parts.octets());
        let mut count = |wanted: usize, octets: usize| {
            let count = wanted.min(room.saturating_sub(PART_HEADER) / octets);
            room = room.saturating_sub(PART_HEADER + count * octets);
            count
        };
        self.questions.sort_unstable();
        self.questions.dedup();
        parts.answers = self.answers.drain(..count(self.answers.len(), ANSWER_OCTETS)).collect();
        parts.questions = self.questions.drain(..count(self.questions.len(), QUESTION_OCTETS)).collect();
    }
}
