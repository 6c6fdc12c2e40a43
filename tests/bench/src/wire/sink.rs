//! The receiver that all speakers are measured at: it dials the speaker, holds the session and notes when which
//! host route came or went.
//!
//! Times are taken when `read` returns, before what was read is looked at.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use socket2::SockRef;

use super::{
    BGP_PORT, End, Family, Messages, connect,
    messages::{HEADER_OCTETS, KEEPALIVE, MP_REACH_NLRI, MP_UNREACH_NLRI, NOTIFICATION, OPEN, UPDATE},
};

const BUFFER_OCTETS: usize = 1 << 18;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What came since the receiver was asked last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    /// When the last octet of it came.
    pub(crate) at: Instant,
    /// UPDATE messages, End-of-RIB markers aside.
    pub(crate) updates: usize,
    /// Octets of these messages.
    pub(crate) octets: usize,
    /// Routes announced that had been announced before.
    pub(crate) repeated: usize,
}

/// A session in which the other side announces host routes of one family.
#[derive(Debug)]
pub(crate) struct Sink {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    table: Table,
    last_read: Instant,
    keepalive_due: Instant,
}

impl Sink {
    /// Dials the speaker and exchanges OPENs; returns when the speaker's KEEPALIVE is here, so that ours makes the
    /// session Established. Call it inside the receiver's namespace.
    pub(crate) fn dial(family: Family, to: End) -> Result<Self> {
        Self::greet(family, connect(End::Sink.address(family), to.address(family))?)
    }

    /// Where the speaker may dial. Call it inside the receiver's namespace.
    pub(crate) fn listen(family: Family) -> Result<TcpListener> {
        let address = SocketAddr::new(End::Sink.address(family), BGP_PORT);
        let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        Ok(listener)
    }

    /// Waits for the speaker to dial, then the same as [`Sink::dial`].
    pub(crate) fn accept(family: Family, listener: &TcpListener, timeout: Duration) -> Result<Self> {
        // Linux applies it to accept, too.
        SockRef::from(listener).set_read_timeout(Some(timeout))?;
        let (stream, _) = listener.accept().context("waiting for the speaker to dial")?;
        stream.set_nodelay(true)?;
        Self::greet(family, stream)
    }

    fn greet(family: Family, stream: TcpStream) -> Result<Self> {
        let mut sink = Self {
            stream,
            buffer: vec![0; BUFFER_OCTETS],
            filled: 0,
            table: Table::new(family),
            last_read: Instant::now(),
            keepalive_due: Instant::now() + Duration::from_secs(60),
        };
        sink.stream.write_all(&End::Sink.messages().open())?;
        for expected in [OPEN, KEEPALIVE] {
            let kind = sink.next_message(Instant::now() + HANDSHAKE_TIMEOUT)?;
            if kind != expected {
                bail!("the speaker sent message type {kind} where type {expected} was expected");
            }
        }
        Ok(sink)
    }

    /// Sends the KEEPALIVE that makes the session Established, and says when.
    pub(crate) fn establish(&mut self) -> Result<Instant> {
        let at = Instant::now();
        self.stream.write_all(&Messages::keepalive())?;
        Ok(at)
    }

    /// Reads until so many routes are announced.
    pub(crate) fn wait_present(&mut self, count: usize, timeout: Duration) -> Result<Receipt> {
        let deadline = Instant::now() + timeout;
        loop {
            self.take_messages()?;
            if self.table.present == count {
                let Table { updates, octets, repeated, .. } = self.table;
                self.table.forget_counts();
                return Ok(Receipt { at: self.last_read, updates, octets, repeated });
            }
            if !self.read(deadline)? {
                bail!("{} of {count} routes are announced after {timeout:.1?}", self.table.present);
            }
        }
    }

    /// Reads until nothing came for so long, and forgets what it counted.
    pub(crate) fn wait_quiet(&mut self, pause: Duration) -> Result<()> {
        while self.read(Instant::now() + pause)? {
            self.take_messages()?;
        }
        self.table.forget_counts();
        Ok(())
    }

    /// Handles every complete message in the buffer.
    fn take_messages(&mut self) -> Result<()> {
        let mut rest = self.buffer.get(..self.filled).unwrap_or_default();
        while let Some((kind, body, after)) = split(rest) {
            rest = after;
            match kind {
                UPDATE => self.table.update(body).context("malformed UPDATE")?,
                NOTIFICATION => bail!("the speaker sent NOTIFICATION {body:?}"),
                _ => {}
            }
        }
        let left = rest.len();
        self.buffer.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        Ok(())
    }

    /// Takes one message of the handshake.
    fn next_message(&mut self, deadline: Instant) -> Result<u8> {
        loop {
            let filled = self.buffer.get(..self.filled).unwrap_or_default();
            if let Some((kind, body, after)) = split(filled) {
                if kind == NOTIFICATION {
                    bail!("the speaker refused the session with NOTIFICATION {body:?}");
                }
                let left = after.len();
                self.buffer.copy_within(self.filled - left..self.filled, 0);
                self.filled = left;
                return Ok(kind);
            }
            if !self.read(deadline)? {
                bail!("the speaker is silent during the handshake");
            }
        }
    }

    /// One read; false when the time is over.
    fn read(&mut self, deadline: Instant) -> Result<bool> {
        loop {
            let now = Instant::now();
            if now >= self.keepalive_due {
                self.stream.write_all(&Messages::keepalive())?;
                self.keepalive_due = now + Duration::from_secs(60);
            }
            let Some(left) = deadline.checked_duration_since(now).filter(|left| !left.is_zero()) else {
                return Ok(false);
            };
            self.stream.set_read_timeout(Some(left.min(Duration::from_secs(10))))?;
            match self.stream.read(self.buffer.get_mut(self.filled..).unwrap_or_default()) {
                Ok(0) => bail!("the speaker closed the connection"),
                Ok(octets) => {
                    self.last_read = Instant::now();
                    self.filled += octets;
                    return Ok(true);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("reading from the speaker"),
            }
        }
    }
}

/// Type, body and what follows of the first message, when it is complete.
fn split(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let length = usize::from(u16::from_be_bytes([*octets.get(16)?, *octets.get(17)?]));
    let body = octets.get(HEADER_OCTETS..length)?;
    Some((*octets.get(18)?, body, octets.get(length..)?))
}

/// Which host routes are announced, and what it took to say so.
#[derive(Debug)]
struct Table {
    family: Family,
    announced: Vec<bool>,
    present: usize,
    updates: usize,
    octets: usize,
    repeated: usize,
}

impl Table {
    fn new(family: Family) -> Self {
        Self { family, announced: Vec::new(), present: 0, updates: 0, octets: 0, repeated: 0 }
    }

    fn forget_counts(&mut self) {
        (self.updates, self.octets, self.repeated) = (0, 0, 0);
    }

    fn update(&mut self, body: &[u8]) -> Result<()> {
        if is_end_of_rib(body) {
            return Ok(());
        }
        self.updates += 1;
        self.octets += HEADER_OCTETS + body.len();
        let (withdrawn, rest) = counted(body)?;
        let (mut attributes, nlri) = counted(rest)?;
        if self.family == Family::Ipv4 {
            self.mark(withdrawn, false);
            self.mark(nlri, true);
        }
        while let Some((kind, value, after)) = split_attribute(attributes) {
            attributes = after;
            match (kind, value) {
                (MP_REACH_NLRI, [_, afi, _, next_hop_octets, rest @ ..]) if self.is_afi(*afi) => {
                    let nlri = rest.get(usize::from(*next_hop_octets) + 1..).context("MP_REACH_NLRI")?;
                    self.mark(nlri, true);
                }
                (MP_UNREACH_NLRI, [_, afi, _, nlri @ ..]) if self.is_afi(*afi) => self.mark(nlri, false),
                _ => {}
            }
        }
        Ok(())
    }

    fn is_afi(&self, afi: u8) -> bool {
        afi == if self.family == Family::Ipv4 { 1 } else { 2 }
    }

    fn mark(&mut self, nlri: &[u8], announced: bool) {
        for one in nlri.chunks(self.family.nlri_octets()) {
            let Some(number) = self.family.number(one) else { continue };
            if number >= self.announced.len() {
                self.announced.resize((number + 1).next_power_of_two(), false);
            }
            let Some(before) = self.announced.get_mut(number) else { continue };
            match (*before, announced) {
                (false, true) => self.present += 1,
                (true, false) => self.present -= 1,
                (true, true) => self.repeated += 1,
                (false, false) => {}
            }
            *before = announced;
        }
    }
}

/// RFC 4724 §2: nothing at all, or an MP_UNREACH_NLRI of three octets and nothing else.
fn is_end_of_rib(body: &[u8]) -> bool {
    matches!(
        body,
        [0, 0, 0, 0]
            | [0, 0, 0, 6, _, MP_UNREACH_NLRI, 3, _, _, _]
            | [0, 0, 0, 7, _, MP_UNREACH_NLRI, 0, 3, _, _, _]
    )
}

/// Splits off a field that begins with its length in two octets.
fn counted(octets: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<2>().context("length of a field")?;
    let length = usize::from(u16::from_be_bytes(*length));
    rest.split_at_checked(length).context("a field ends early")
}

/// Type, value and what follows of the first path attribute.
fn split_attribute(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (flags, kind) = (octets.first()?, octets.get(1)?);
    let rest = octets.get(2..)?;
    let (length, rest) = if flags & 0x10 == 0 {
        (usize::from(*rest.first()?), rest.get(1..)?)
    } else {
        (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?)
    };
    let (value, after) = rest.split_at_checked(length)?;
    Some((*kind, value, after))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SPEAKER: Messages = Messages { local_as: 64512, router_id: Ipv4Addr::new(10, 9, 0, 1) };

    fn feed(table: &mut Table, octets: &[u8]) {
        let mut rest = octets;
        while let Some((kind, body, after)) = split(rest) {
            assert_eq!(kind, UPDATE);
            table.update(body).unwrap();
            rest = after;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_the_raw_sender_announces_and_withdraws_is_counted_once_each() {
        for (family, next_hop) in [(Family::Ipv4, "10.9.0.1"), (Family::Ipv6, "fd00:9::1")] {
            let mut table = Table::new(family);
            let next_hop = next_hop.parse().unwrap();
            feed(&mut table, &SPEAKER.announcement(family, next_hop, 0..3000));
            assert_eq!((table.present, table.repeated), (3000, 0), "{family:?}");
            feed(&mut table, &SPEAKER.announcement(family, next_hop, 2999..3001));
            assert_eq!((table.present, table.repeated), (3001, 1));
            feed(&mut table, &Messages::withdrawal(family, 1..4000));
            assert_eq!(table.present, 1);
        }
    }

    #[test]
    fn end_of_rib_is_no_message_of_the_announcement() {
        let mut table = Table::new(Family::Ipv4);
        for body in [&[0, 0, 0, 0][..], &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]] {
            table.update(body).unwrap();
        }
        assert_eq!((table.updates, table.octets), (0, 0));
    }

    #[test]
    fn an_incomplete_message_waits_for_its_rest() {
        let open = SPEAKER.open();
        assert!(split(&open[..open.len() - 1]).is_none());
        assert!(split(&open[..5]).is_none());
        assert_eq!(split(&open).map(|(kind, _, after)| (kind, after.len())), Some((OPEN, 0)));
    }
}
