//! Values that are valid by construction: AS numbers, router IDs, hold times, address families, time.

use std::{fmt, net::Ipv4Addr, num::NonZeroU32, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A 4-octet AS number (RFC 6793) other than 0, which no AS may use (RFC 7607).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asn(NonZeroU32);

impl Asn {
    /// AS_TRANS (RFC 6793 §9): stands for a 4-octet AS number in a 2-octet field.
    pub const TRANS: Asn = Asn(NonZeroU32::new(23_456).expect("23456 is not zero"));

    /// `None` for AS 0.
    pub const fn new(asn: u32) -> Option<Asn> {
        match NonZeroU32::new(asn) {
            Some(asn) => Some(Asn(asn)),
            None => None,
        }
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0.get()
    }

    /// The number as a 2-octet field carries it: itself where it fits, else AS_TRANS.
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.value()).unwrap_or(23_456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// Why a text is not an AS number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an AS number: expected 1 to 4294967295")]
pub struct AsnError(String);

impl FromStr for Asn {
    type Err = AsnError;

    fn from_str(text: &str) -> Result<Asn, AsnError> {
        text.parse().ok().and_then(Asn::new).ok_or_else(|| AsnError(text.to_owned()))
    }
}

/// A BGP Identifier: any non-zero 4-octet number (RFC 6286), written as an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "Ipv4Addr", try_from = "Ipv4Addr")]
pub struct RouterId(NonZeroU32);

impl RouterId {
    /// `None` for 0.0.0.0.
    pub fn new(address: Ipv4Addr) -> Option<RouterId> {
        NonZeroU32::new(address.to_bits()).map(RouterId)
    }

    /// The identifier as a number: the larger one wins a connection collision (RFC 4271 §6.8).
    pub fn value(self) -> u32 {
        self.0.get()
    }

    /// The identifier as an IPv4 address.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.value())
    }
}

impl From<RouterId> for Ipv4Addr {
    fn from(id: RouterId) -> Ipv4Addr {
        id.address()
    }
}

impl TryFrom<Ipv4Addr> for RouterId {
    type Error = &'static str;

    fn try_from(address: Ipv4Addr) -> Result<RouterId, &'static str> {
        RouterId::new(address).ok_or("0.0.0.0 is not a router ID: expected any other IPv4 address")
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

/// Hold Time in whole seconds: 0 (no keepalives) or at least 3 (RFC 4271 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct HoldTime(u16);

impl HoldTime {
    /// 90 seconds, the suggested value of RFC 4271 §10.
    pub const DEFAULT: HoldTime = HoldTime(90);
    /// No hold timer and no keepalives.
    pub const ZERO: HoldTime = HoldTime(0);

    /// `None` for 1 and 2.
    pub const fn new(secs: u16) -> Option<HoldTime> {
        match secs {
            1 | 2 => None,
            _ => Some(HoldTime(secs)),
        }
    }

    /// The whole seconds.
    pub const fn secs(self) -> u16 {
        self.0
    }

    /// The time as a duration; `None` for 0, which means that the timer does not run.
    pub fn duration(self) -> Option<Duration> {
        (self.0 != 0).then(|| Duration::from_secs(u64::from(self.0)))
    }
}

impl From<HoldTime> for u16 {
    fn from(time: HoldTime) -> u16 {
        time.0
    }
}

impl TryFrom<u16> for HoldTime {
    type Error = &'static str;

    fn try_from(secs: u16) -> Result<HoldTime, &'static str> {
        HoldTime::new(secs).ok_or("a hold time is 0 or at least 3 seconds")
    }
}

/// Restart Time in whole seconds, 1 to 4095: how long a peer keeps the routes of a speaker that is away (RFC 4724
/// §3: 12 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct RestartTime(u16);

impl RestartTime {
    /// Two minutes.
    pub const DEFAULT: RestartTime = RestartTime(120);

    /// `None` for 0, with which nothing would be kept, and beyond 4095.
    pub const fn new(secs: u16) -> Option<RestartTime> {
        match secs {
            1..=4095 => Some(RestartTime(secs)),
            _ => None,
        }
    }

    /// The whole seconds.
    pub const fn secs(self) -> u16 {
        self.0
    }

    /// The time as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl From<RestartTime> for u16 {
    fn from(time: RestartTime) -> u16 {
        time.0
    }
}

impl TryFrom<u16> for RestartTime {
    type Error = &'static str;

    fn try_from(secs: u16) -> Result<RestartTime, &'static str> {
        RestartTime::new(secs).ok_or("a restart time is 1 to 4095 seconds")
    }
}

/// Long-lived Stale Time in whole seconds, 1 to 16,777,215: how long a peer keeps routes beyond the restart time, as
/// a last resort (RFC 9494 §3.1: 24 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct LongLivedStaleTime(u32);

impl LongLivedStaleTime {
    /// `None` for 0 and beyond 24 bits.
    pub const fn new(secs: u32) -> Option<LongLivedStaleTime> {
        match secs {
            1..=0x00ff_ffff => Some(LongLivedStaleTime(secs)),
            _ => None,
        }
    }

    /// The whole seconds.
    pub const fn secs(self) -> u32 {
        self.0
    }
}

impl From<LongLivedStaleTime> for u32 {
    fn from(time: LongLivedStaleTime) -> u32 {
        time.0
    }
}

impl TryFrom<u32> for LongLivedStaleTime {
    type Error = &'static str;

    fn try_from(secs: u32) -> Result<LongLivedStaleTime, &'static str> {
        LongLivedStaleTime::new(secs).ok_or("a long-lived stale time is 1 to 16777215 seconds")
    }
}

/// An address family with its subsequent family (RFC 4760). Only unicast is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// AFI 1, SAFI 1.
    #[serde(rename = "ipv4-unicast")]
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    #[serde(rename = "ipv6-unicast")]
    Ipv6Unicast,
}

impl Family {
    /// Both, in the order in which they are offered and listed.
    pub const ALL: [Family; 2] = [Family::Ipv4Unicast, Family::Ipv6Unicast];

    /// Address Family Identifier.
    pub const fn afi(self) -> u16 {
        match self {
            Family::Ipv4Unicast => 1,
            Family::Ipv6Unicast => 2,
        }
    }

    /// Subsequent Address Family Identifier.
    pub const fn safi(self) -> u8 {
        1
    }

    /// `None` for a family that is not spoken here.
    pub const fn from_afi_safi(afi: u16, safi: u8) -> Option<Family> {
        match (afi, safi) {
            (1, 1) => Some(Family::Ipv4Unicast),
            (2, 1) => Some(Family::Ipv6Unicast),
            _ => None,
        }
    }

    /// The family of a prefix.
    pub const fn of(prefix: &ipnet::IpNet) -> Family {
        match prefix {
            ipnet::IpNet::V4(_) => Family::Ipv4Unicast,
            ipnet::IpNet::V6(_) => Family::Ipv6Unicast,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4Unicast => "ipv4-unicast",
            Family::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

/// A point on the monotonic time line that the driver keeps: microseconds since an origin of its choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Time = Time(0);

    /// A point so many microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Time {
        Time(micros)
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero where it is before it.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}
