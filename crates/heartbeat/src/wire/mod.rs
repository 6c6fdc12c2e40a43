//! Datagrams: octets ↔ values. Bounds-checked; what is not understood is refused as a whole.
//!
//! ```text
//! version 1 │ flags 1 │ group 4 │ sender 8 │ boot 8 │ echo 8 │ sequence 8 │ incarnation 4 │ MAC 6 │
//! interval in ms 2 │ multiplier 1 │ parts: type 1, length 2, value … │ tag 16
//! ```
//!
//! Numbers are big-endian. The tag is HMAC-SHA256 over everything before it and over what both ends know anyhow: the
//! group and the names of sender and receiver. So a datagram is good for one receiver in one group. Parts of unknown
//! type are passed over, which is how later versions may say more.

mod part;
mod reader;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use part::{Answer, Death, Message, Messages, Parts};

use self::reader::Reader;
use crate::{
    config::{Id, Mac},
    key::{Keys, TAG_OCTETS},
};

/// The only version there is.
pub const VERSION: u8 = 1;
/// The most octets of a datagram: with IPv6 and UDP around them they fit into an Ethernet frame.
pub const MAX_OCTETS: usize = 1452;
/// Octets before the parts.
pub const HEADER_OCTETS: usize = 51;

/// What a member says of itself in each datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// It can take addresses.
    pub is_ready: bool,
    /// It is about to end.
    pub is_leaving: bool,
    /// It wants a datagram back.
    pub wants_answer: bool,
    /// Which group.
    pub group: [u8; 4],
    /// Who.
    pub sender: Id,
    /// Which of its processes.
    pub boot: u64,
    /// Which process of the receiver it speaks to; 0: it does not know. A datagram that names the receiver's is no
    /// recording of something that was said to an earlier one.
    pub echo: u64,
    /// Grows with each datagram of a process.
    pub sequence: u64,
    /// Grows when the sender hears itself called dead.
    pub incarnation: u32,
    /// Link-layer address of its interface.
    pub mac: Mac,
    /// Milliseconds between its heartbeats.
    pub interval_millis: u16,
    /// Missed heartbeats that are a suspicion.
    pub multiplier: u8,
}

/// A whole datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who says it.
    pub header: Header,
    /// What.
    pub parts: Parts,
}

/// What both ends of a datagram know and the tag covers.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The group's name.
    pub group: &'a str,
    /// The sender's.
    pub sender: &'a str,
    /// The receiver's.
    pub receiver: &'a str,
}

impl Binding<'_> {
    /// Names hold no zero octet.
    pub(crate) fn octets(&self) -> Vec<u8> {
        [self.group, self.sender, self.receiver].join("\0").into_bytes()
    }
}

/// Why a datagram is not taken. For logs: it is not an error of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Dropped {
    #[error("{0} octets are no heartbeat: too short")]
    Short(usize),
    #[error("version {0}: expected {VERSION}")]
    Version(u8),
    #[error("it is of another group")]
    Group,
    #[error("member {0} is not known here")]
    Stranger(Id),
    #[error("it comes from {0}, which is not the member's address")]
    Source(IpAddr),
    #[error("its tag is wrong: another key, or forged")]
    Tag,
    #[error("its parts make no sense")]
    Parts,
    #[error("it was said to an earlier process of this node, or before the sender knew of this one")]
    Echo,
    #[error("it is of an earlier process of the sender")]
    Boot,
    #[error("it was heard before")]
    Replayed,
}

const READY: u8 = 1;
const LEAVING: u8 = 2;
const WANTS_ANSWER: u8 = 4;

impl Header {
    fn encode(&self, out: &mut Vec<u8>) {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = flag(self.is_ready, READY)
            | flag(self.is_leaving, LEAVING)
            | flag(self.wants_answer, WANTS_ANSWER);
        out.extend([VERSION, flags]);
        out.extend(self.group);
        out.extend(self.sender.0);
        out.extend(self.boot.to_be_bytes());
        out.extend(self.echo.to_be_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.incarnation.to_be_bytes());
        out.extend(self.mac);
        out.extend(self.interval_millis.to_be_bytes());
        out.push(self.multiplier);
    }

    /// What a datagram says at its beginning, without any proof that it is true.
    ///
    /// # Errors
    ///
    /// When it is too short, or of another version.
    pub fn peek(octets: &[u8]) -> Result<Header, Dropped> {
        if octets.len() < HEADER_OCTETS + TAG_OCTETS {
            return Err(Dropped::Short(octets.len()));
        }
        let mut reader = Reader::new(octets);
        let version = reader.u8().ok_or(Dropped::Short(0))?;
        if version != VERSION {
            return Err(Dropped::Version(version));
        }
        Header::decode(&mut reader).ok_or(Dropped::Short(octets.len()))
    }

    /// Behind the version.
    fn decode(reader: &mut Reader<'_>) -> Option<Header> {
        let flags = reader.u8()?;
        Some(Header {
            is_ready: flags & READY != 0,
            is_leaving: flags & LEAVING != 0,
            wants_answer: flags & WANTS_ANSWER != 0,
            group: reader.array()?,
            sender: Id(reader.array()?),
            boot: reader.u64()?,
            echo: reader.u64()?,
            sequence: reader.u64()?,
            incarnation: reader.u32()?,
            mac: reader.array()?,
            interval_millis: reader.u16()?,
            multiplier: reader.u8()?,
        })
    }
}

impl Datagram {
    /// Writes and signs it.
    pub fn encode(&self, keys: &Keys, binding: Binding<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_OCTETS + TAG_OCTETS + self.parts.octets());
        self.header.encode(&mut out);
        self.parts.encode(&mut out);
        let tag = keys.sign(&[&out, &binding.octets()]);
        out.extend(tag);
        out
    }

    /// Verifies and reads it.
    ///
    /// # Errors
    ///
    /// When it is not signed by one who has a key, for this binding, or not to be understood.
    pub fn decode(octets: &[u8], keys: &Keys, binding: Binding<'_>) -> Result<Datagram, Dropped> {
        let header = Header::peek(octets)?;
        let (said, tag) = octets.split_last_chunk::<TAG_OCTETS>().ok_or(Dropped::Short(octets.len()))?;
        if !keys.verify(&[said, &binding.octets()], tag) {
            return Err(Dropped::Tag);
        }
        let parts = said.get(HEADER_OCTETS..).ok_or(Dropped::Short(octets.len()))?;
        Ok(Datagram { header, parts: Parts::decode(parts).ok_or(Dropped::Parts)? })
    }
}
