//! Bidirectional Forwarding Detection in asynchronous mode, sans-IO (RFC 5880; RFC 5881 for one hop, RFC 5883 for
//! several): what a session is asked to do and what it says. One is in `session`, all of a speaker are in `sessions`.
//!
//! Not here: sockets and the thread that serves them (`driver`), and what BGP makes of it (`peer`, RFC 5882).

pub mod packet;
pub mod session;
mod sessions;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    num::{NonZeroU8, NonZeroU32},
    time::Duration,
};

pub use packet::{Diagnostic, Packet, PacketError, State};
pub use session::Session;
pub use sessions::Sessions;

use crate::config::PeerName;

/// UDP port of single-hop sessions (RFC 5881 §4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of multihop sessions (RFC 5883 §5).
pub const MULTIHOP_PORT: u16 = 4784;
/// The lowest port to send from (RFC 5881 §4).
pub const FIRST_SOURCE_PORT: u16 = 49_152;
/// TTL or hop limit of what is sent, and of what a single hop accepts (RFC 5881 §5).
pub const TTL: u8 = 255;

/// Shorter intervals count as this one.
pub const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// How a session is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Desired Min TX Interval while the session is Up.
    pub transmit_interval: Duration,
    /// Required Min RX Interval.
    pub receive_interval: Duration,
    /// Detect Mult.
    pub detect_mult: NonZeroU8,
    /// The Passive role: says nothing until the other side does.
    pub passive: bool,
    /// How far away the other side is.
    pub path: Path,
}

impl Default for Config {
    /// 300 ms in both directions, three packets, active, one hop.
    fn default() -> Config {
        let interval = Duration::from_millis(300);
        let detect_mult = NonZeroU8::MIN.saturating_add(2);
        Config {
            transmit_interval: interval,
            receive_interval: interval,
            detect_mult,
            passive: false,
            path: Path::SingleHop,
        }
    }
}

/// What lies between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// One link: packets come with TTL 255 (RFC 5881).
    SingleHop,
    /// Routers (RFC 5883).
    Multihop {
        /// The lowest TTL that is accepted.
        min_ttl: u8,
    },
}

impl Path {
    /// The port that packets are sent to.
    pub const fn port(self) -> u16 {
        match self {
            Path::SingleHop => SINGLE_HOP_PORT,
            Path::Multihop { .. } => MULTIHOP_PORT,
        }
    }

    const fn min_ttl(self) -> u8 {
        match self {
            Path::SingleHop => TTL,
            Path::Multihop { min_ttl } => min_ttl,
        }
    }
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its state.
    pub state: State,
    /// What its client may conclude.
    pub verdict: Verdict,
    /// Why packets of the other side were dropped that would have been this session's; `None` once one was taken.
    pub obstacle: Option<Dropped>,
}

/// What a client may conclude from a session (RFC 5882 §3.2, §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the other side was never heard, and may not speak BFD.
    Unknown,
    /// Packets go both ways.
    Works,
    /// They did, and do not any more.
    Failed(Diagnostic),
    /// One of the sides holds the session down on purpose: no failure.
    Disabled,
}

/// A peer to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: PeerName,
    /// Its address.
    pub address: IpAddr,
    /// Interface index of a link-local address, else 0.
    pub scope: u32,
    /// Address to send from; `None` leaves it to the kernel.
    pub source_address: Option<IpAddr>,
    /// How.
    pub config: Config,
}

impl Target {
    /// Whether the session of the other cannot go on as this one.
    fn is_elsewhere(&self, other: &Target) -> bool {
        (self.address, self.scope, self.source_address, self.config.path.port())
            != (other.address, other.scope, other.source_address, other.config.path.port())
    }
}

/// A datagram that has arrived on one of the two ports.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Where from.
    pub from: IpAddr,
    /// Index of the interface that it came in on.
    pub interface: u32,
    /// Its TTL or hop limit, where the kernel has said it.
    pub ttl: Option<u8>,
    /// The port that it came to.
    pub port: u16,
    /// What is in it.
    pub payload: &'a [u8],
}

/// A packet to send.
#[derive(Clone, Debug)]
pub struct Transmit<'a> {
    /// Which session's: each has a socket of its own.
    pub session: NonZeroU32,
    /// Whom to.
    pub target: &'a Target,
    /// What.
    pub packet: Packet,
}

/// Why a datagram is for none of the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Dropped {
    #[error("not a BFD packet for us: {0}")]
    Packet(#[from] PacketError),
    #[error("no session has discriminator {0}")]
    Discriminator(NonZeroU32),
    #[error("{0} is no peer's address")]
    Source(IpAddr),
    #[error("TTL {ttl}: expected at least {least}")]
    Ttl { ttl: u8, least: u8 },
    #[error("the kernel did not say its TTL")]
    TtlUnknown,
    #[error("it came in on interface {0}, where the peer is not")]
    Interface(u32),
    #[error("it came to port {0}, which is not the session's")]
    Port(u16),
}
