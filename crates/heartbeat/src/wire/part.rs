//! The parts of a datagram behind its header: acknowledgement, messages, questions, answers, deaths.

use std::{sync::Arc, time::Duration};

use super::Reader;
use crate::config::{Id, Mac};

const ACK: u8 = 1;
const MESSAGES: u8 = 2;
const QUESTIONS: u8 = 3;
const ANSWERS: u8 = 4;
const DEATHS: u8 = 5;

/// Octets of a part before its value.
const PART_HEADER: usize = 3;

const READY: u8 = 1;
const LEAVING: u8 = 2;

/// An age that means: never heard.
const NEVER: u32 = u32::MAX;

/// Everything behind the header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The next message that is expected from the receiver: all before it have arrived.
    pub ack: Option<u32>,
    /// Messages to be acknowledged.
    pub messages: Option<Messages>,
    /// "Do you hear these?"
    pub questions: Vec<Id>,
    /// What is heard of those who were asked for.
    pub answers: Vec<Answer>,
    /// Who died of late.
    pub deaths: Vec<Death>,
}

/// Messages with consecutive numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// Number of the first one. The sender has given up on what is before it and not acknowledged.
    pub base: u32,
    /// They.
    pub list: Vec<Message>,
}

/// What is sent until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The program's.
    Payload(Arc<[u8]>),
    /// Nothing but that the header is to be looked at: ready, leaving or incarnation have changed.
    Nudge,
    /// A member is dead.
    Death(Death),
    /// Of a later version: acknowledged and passed over.
    Unknown(u8, Arc<[u8]>),
}

const PAYLOAD: u8 = 1;
const NUDGE: u8 = 2;
const DEATH: u8 = 3;

/// A member is dead, as far as this incarnation of this process of it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Who.
    pub member: Id,
    /// Which process.
    pub boot: u64,
    /// The last incarnation that is dead.
    pub incarnation: u32,
}

/// What one member has heard, itself, of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of whom.
    pub member: Id,
    /// How long ago; `None`: never, or it is dead.
    pub age: Option<Duration>,
    /// Which process that was.
    pub boot: u64,
    /// Which incarnation.
    pub incarnation: u32,
    /// What it said of itself.
    pub is_ready: bool,
    /// What it said of itself.
    pub is_leaving: bool,
    /// What it said of itself.
    pub mac: Mac,
}

impl Parts {
    /// How many octets they take.
    pub(crate) fn octets(&self) -> usize {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if let Some(ack) = self.ack {
            part(out, ACK, |out| out.extend(ack.to_be_bytes()));
        }
        if let Some(messages) = &self.messages {
            part(out, MESSAGES, |out| {
                out.extend(messages.base.to_be_bytes());
                messages.list.iter().for_each(|message| message.encode(out));
            });
        }
        if !self.questions.is_empty() {
            part(out, QUESTIONS, |out| self.questions.iter().for_each(|id| out.extend(id.0)));
        }
        if !self.answers.is_empty() {
            part(out, ANSWERS, |out| self.answers.iter().for_each(|answer| answer.encode(out)));
        }
        if !self.deaths.is_empty() {
            part(out, DEATHS, |out| self.deaths.iter().for_each(|death| death.encode(out)));
        }
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Parts> {
        let mut reader = Reader::new(octets);
        let mut parts = Parts::default();
        while !reader.is_empty() {
            let kind = reader.u8()?;
            let length = reader.u16()?;
            let mut value = Reader::new(reader.take(usize::from(length))?);
            match kind {
                ACK => {
                    parts.ack = Some(value.u32()?);
                    if !value.is_empty() {
                        return None;
                    }
                }
                MESSAGES => {
                    let base = value.u32()?;
                    let list = all(value, Message::decode)?;
                    parts.messages = Some(Messages { base, list });
                }
                QUESTIONS => parts.questions = all(value, |value| value.array().map(Id))?,
                ANSWERS => parts.answers = all(value, Answer::decode)?,
                DEATHS => parts.deaths = all(value, Death::decode)?,
                _ => {}
            }
        }
        Some(parts)
    }
}

fn part(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([kind, 0, 0]);
    write(out);
    let length = out.len() - start - PART_HEADER;
    let length = u16::try_from(length).expect("a part fits into a datagram");
    if let Some(place) = out.get_mut(start + 1..start + PART_HEADER) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn all<T>(mut reader: Reader<'_>, read: impl Fn(&mut Reader<'_>) -> Option<T>) -> Option<Vec<T>> {
    let mut list = Vec::new();
    while !reader.is_empty() {
        list.push(read(&mut reader)?);
    }
    Some(list)
}

impl Message {
    /// How many octets it takes.
    pub(crate) fn octets(&self) -> usize {
        PART_HEADER
            + match self {
                Message::Payload(octets) | Message::Unknown(_, octets) => octets.len(),
                Message::Nudge => 0,
                Message::Death(_) => Death::OCTETS,
            }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Payload(octets) => part(out, PAYLOAD, |out| out.extend_from_slice(octets)),
            Message::Nudge => part(out, NUDGE, |_| {}),
            Message::Death(death) => part(out, DEATH, |out| death.encode(out)),
            Message::Unknown(kind, octets) => part(out, *kind, |out| out.extend_from_slice(octets)),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Message> {
        let kind = reader.u8()?;
        let length = reader.u16()?;
        let value = reader.take(usize::from(length))?;
        Some(match kind {
            PAYLOAD => Message::Payload(value.into()),
            NUDGE => Message::Nudge,
            DEATH => {
                let mut value = Reader::new(value);
                let death = Death::decode(&mut value)?;
                value.is_empty().then_some(Message::Death(death))?
            }
            kind => Message::Unknown(kind, value.into()),
        })
    }
}

impl Death {
    const OCTETS: usize = 20;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.member.0);
        out.extend(self.boot.to_be_bytes());
        out.extend(self.incarnation.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Death> {
        Some(Death { member: Id(reader.array()?), boot: reader.u64()?, incarnation: reader.u32()? })
    }
}

impl Answer {
    fn encode(&self, out: &mut Vec<u8>) {
        let millis = |age: Duration| u32::try_from(age.as_millis()).unwrap_or(NEVER - 1).min(NEVER - 1);
        let flags = (u8::from(self.is_ready) * READY) | (u8::from(self.is_leaving) * LEAVING);
        out.extend(self.member.0);
        out.extend(self.age.map_or(NEVER, millis).to_be_bytes());
        out.extend(self.boot.to_be_bytes());
        out.extend(self.incarnation.to_be_bytes());
        out.push(flags);
        out.extend(self.mac);
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Answer> {
        let member = Id(reader.array()?);
        let age = match reader.u32()? {
            NEVER => None,
            millis => Some(Duration::from_millis(u64::from(millis))),
        };
        let (boot, incarnation, flags) = (reader.u64()?, reader.u32()?, reader.u8()?);
        let (is_ready, is_leaving) = (flags & READY != 0, flags & LEAVING != 0);
        Some(Answer { member, age, boot, incarnation, is_ready, is_leaving, mac: reader.array()? })
    }
}
