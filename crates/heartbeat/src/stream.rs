//! Messages between two members: each arrives once and in order, or its sender is told that it may not have.
//!
//! Numbers count up per receiver and never start again. The sender repeats the oldest ones, as many as fit into a
//! datagram, until they are acknowledged; the receiver takes the one that it expects and acknowledges all before.
//! Where the sender has given up on some, its base says so.

use std::{collections::VecDeque, time::Duration};

use crate::{
    time::Time,
    wire::{Message, Messages},
};

/// The most octets of a payload.
pub const MAX_PAYLOAD: usize = 1200;

/// How many messages may wait for one member.
pub(crate) const MAX_WAITING: usize = 256;

/// Octets of messages in one datagram.
const BUDGET: usize = MAX_PAYLOAD + 30;

/// Repetitions double their distance, up to so many times the first.
const SLOWEST: u32 = 64;

/// What a program calls a payload that it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub(crate) u64);

/// The sender's side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing {
    base: u32,
    waiting: VecDeque<(Option<MessageId>, Message)>,
    repeat: Option<(Time, u32)>,
}

impl Outgoing {
    /// Numbers from `base` on.
    pub(crate) fn new(base: u32) -> Outgoing {
        Outgoing { base, ..Outgoing::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Adds a message, to be sent at once.
    pub(crate) fn push(&mut self, id: Option<MessageId>, message: Message) {
        self.waiting.push_back((id, message));
        self.repeat = None;
    }

    /// One nudge is as good as many, as long as it has not been sent.
    pub(crate) fn nudge(&mut self) {
        let is_last = matches!(self.waiting.back(), Some((_, Message::Nudge)));
        if !is_last || self.repeat.is_some() {
            self.push(None, Message::Nudge);
        }
    }

    /// When there is something to send.
    pub(crate) fn due(&self) -> Option<Time> {
        (!self.is_empty()).then(|| self.repeat.map_or(Time::ZERO, |(at, _)| at))
    }

    /// The oldest messages, which are sent now.
    pub(crate) fn next(&mut self, now: Time, pace: Duration) -> Option<Messages> {
        if self.is_empty() {
            return None;
        }
        let mut octets = 0;
        let fits = |message: &&Message| {
            octets += message.octets();
            octets <= BUDGET
        };
        let list = self.waiting.iter().map(|(_, message)| message).take_while(fits).cloned().collect();
        let factor = self.repeat.map_or(1, |(_, factor)| (factor * 2).min(SLOWEST));
        self.repeat = Some((now + pace * factor, factor));
        Some(Messages { base: self.base, list })
    }

    /// Everything before `next` has arrived; whether that was news.
    pub(crate) fn acknowledge(&mut self, next: u32) -> bool {
        let arrived = usize::try_from(next.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let arrived = arrived.min(self.waiting.len());
        self.waiting.drain(..arrived);
        self.advance(arrived);
        if arrived > 0 {
            self.repeat = None;
        }
        arrived > 0
    }

    /// Gives up on everything; the payloads among it.
    pub(crate) fn fail(&mut self) -> Vec<MessageId> {
        self.advance(self.waiting.len());
        self.repeat = None;
        self.waiting.drain(..).filter_map(|(id, _)| id).collect()
    }

    fn advance(&mut self, count: usize) {
        self.base = self.base.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

/// The receiver's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Incoming {
    expected: u32,
}

impl Incoming {
    /// The number of the next message that is taken.
    pub(crate) fn expected(self) -> u32 {
        self.expected
    }

    /// Takes what is new.
    pub(crate) fn take(&mut self, messages: Messages) -> Vec<Message> {
        self.expected = self.expected.max(messages.base);
        let mut new = Vec::new();
        for (number, message) in (messages.base..).zip(messages.list) {
            if number == self.expected {
                self.expected = self.expected.saturating_add(1);
                new.push(message);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Duration = Duration::from_millis(10);

    fn payload(octets: usize) -> Message {
        Message::Payload(vec![7; octets].into())
    }

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    #[test]
    fn messages_are_repeated_ever_more_slowly_until_they_are_acknowledged() {
        let mut outgoing = Outgoing::new(5);
        outgoing.push(None, payload(1));
        outgoing.push(None, payload(2));
        let mut now = Time::ZERO;
        for wait in [10, 20, 40, 80, 160, 320, 640, 640] {
            let messages = outgoing.next(now, PACE).unwrap();
            assert_eq!((messages.base, messages.list.len()), (5, 2));
            let next = outgoing.due().unwrap();
            assert_eq!(next.since(now), Duration::from_millis(wait));
            now = next;
        }
        assert!(outgoing.acknowledge(6));
        assert_eq!(outgoing.due(), Some(Time::ZERO), "the rest at once");
        assert_eq!(outgoing.next(now, PACE).unwrap(), Messages { base: 6, list: vec![payload(2)] });
        assert!(!outgoing.acknowledge(6) && !outgoing.acknowledge(1) && outgoing.acknowledge(u32::MAX));
        assert_eq!((outgoing.due(), outgoing.next(now, PACE)), (None, None));
    }

    #[test]
    fn a_datagram_holds_one_large_payload_or_many_small_ones() {
        let mut outgoing = Outgoing::new(0);
        outgoing.push(None, payload(MAX_PAYLOAD));
        (0..100).for_each(|_| outgoing.push(None, payload(10)));
        assert_eq!(outgoing.next(at(0), PACE).unwrap().list.len(), 3);
        outgoing.acknowledge(1);
        assert_eq!(outgoing.next(at(0), PACE).unwrap().list.len(), BUDGET / 13);
    }

    #[test]
    fn what_comes_twice_or_too_early_is_taken_once_and_in_its_turn() {
        let mut incoming = Incoming::default();
        let messages = |base, sizes: &[usize]| Messages {
            base,
            list: sizes.iter().map(|size| payload(*size)).collect(),
        };
        assert_eq!(incoming.take(messages(3, &[1, 2])), [payload(1), payload(2)], "the sender begins at 3");
        assert_eq!(incoming.take(messages(3, &[1, 2, 3])), [payload(3)]);
        assert_eq!(incoming.take(messages(3, &[1])), []);
        assert_eq!(incoming.expected(), 6);
        assert_eq!(incoming.take(messages(9, &[4])), [payload(4)], "the sender has given up on three");
    }

    #[test]
    fn a_nudge_that_waits_is_not_doubled_and_one_that_was_sent_does_not_count() {
        let mut outgoing = Outgoing::new(0);
        outgoing.nudge();
        outgoing.nudge();
        assert_eq!(outgoing.next(at(0), PACE).unwrap().list.len(), 1);
        outgoing.nudge();
        assert_eq!(outgoing.next(at(0), PACE).unwrap().list.len(), 2, "ready may have changed since");
    }

    #[test]
    fn what_was_given_up_is_named_and_its_numbers_are_not_used_again() {
        let mut outgoing = Outgoing::new(0);
        outgoing.push(Some(MessageId(1)), payload(1));
        outgoing.push(None, Message::Nudge);
        outgoing.push(Some(MessageId(2)), payload(1));
        assert_eq!(outgoing.fail(), [MessageId(1), MessageId(2)]);
        outgoing.push(None, Message::Nudge);
        assert_eq!(outgoing.next(at(0), PACE).unwrap().base, 3);
    }
}
