//! Addresses as pools describe them: families and ranges.
//!
//! Not the allocator's books: nothing here knows what is in use.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An IP family, spelled as `spec.ipFamilies` of a Service spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum IpFamily {
    /// Version 4.
    IPv4,
    /// Version 6.
    IPv6,
}

impl IpFamily {
    /// Both, IPv4 first.
    pub const ALL: [IpFamily; 2] = [IpFamily::IPv4, IpFamily::IPv6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> IpFamily {
        match address {
            IpAddr::V4(_) => IpFamily::IPv4,
            IpAddr::V6(_) => IpFamily::IPv6,
        }
    }

    /// Length of an address in bits.
    pub const fn bits(self) -> u8 {
        match self {
            IpFamily::IPv4 => 32,
            IpFamily::IPv6 => 128,
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for IpFamily {
    type Err = FamilyError;

    fn from_str(text: &str) -> Result<IpFamily, FamilyError> {
        match text {
            "IPv4" => Ok(IpFamily::IPv4),
            "IPv6" => Ok(IpFamily::IPv6),
            _ => Err(FamilyError(text.to_owned())),
        }
    }
}

/// Why a text is not a family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IP family: expected IPv4 or IPv6")]
pub struct FamilyError(String);

/// Where the addresses of a group are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolType {
    /// On the interface of one node of the subnet, by ARP and neighbour discovery.
    Local,
    /// On the dummy interface of the nodes, by BGP.
    Remote,
}

impl PoolType {
    /// As annotations and status spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            PoolType::Local => "local",
            PoolType::Remote => "remote",
        }
    }
}

impl fmt::Display for PoolType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PoolType {
    type Err = PoolTypeError;

    fn from_str(text: &str) -> Result<PoolType, PoolTypeError> {
        match text {
            "local" => Ok(PoolType::Local),
            "remote" => Ok(PoolType::Remote),
            _ => Err(PoolTypeError(text.to_owned())),
        }
    }
}

/// Why a text is not a pool type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pool type: expected local or remote")]
pub struct PoolTypeError(String);

/// Consecutive addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    pub(crate) family: IpFamily,
    pub(crate) first: u128,
    pub(crate) last: u128,
}

/// Why a text is not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither form.
    #[error(
        "{0:?} is not an address range: expected a CIDR as 192.0.2.0/28, or first-last as 192.0.2.10-192.0.2.20"
    )]
    Syntax(String),
    /// The two ends belong to different families.
    #[error("{0:?} mixes IPv4 and IPv6: both ends must be of one family")]
    MixedFamilies(String),
    /// The last address comes before the first.
    #[error("{0:?} ends before it begins: expected the lower address first")]
    Reversed(String),
}

/// An address as a number; numbers of the two families overlap.
pub fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number.
///
/// For IPv4 only the low 32 bits count.
pub fn from_bits(family: IpFamily, bits: u128) -> IpAddr {
    match family {
        #[expect(clippy::cast_possible_truncation, reason = "documented: the low 32 bits are the address")]
        IpFamily::IPv4 => IpAddr::V4((bits as u32).into()),
        IpFamily::IPv6 => IpAddr::V6(bits.into()),
    }
}

impl AddressRange {
    /// `None` where the ends are of different families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<AddressRange> {
        let family = IpFamily::of(first);
        let range = AddressRange { family, first: to_bits(first), last: to_bits(last) };
        (family == IpFamily::of(last) && range.first <= range.last).then_some(range)
    }

    /// Family of all addresses in it.
    pub const fn family(&self) -> IpFamily {
        self.family
    }

    /// Lowest address.
    pub fn first(&self) -> IpAddr {
        from_bits(self.family, self.first)
    }

    /// Highest address.
    pub fn last(&self) -> IpAddr {
        from_bits(self.family, self.last)
    }

    /// Lowest and highest address as numbers.
    pub const fn bits(&self) -> (u128, u128) {
        (self.first, self.last)
    }

    /// How many addresses; all of IPv6 counts one less than it has, which is what fits.
    pub const fn len(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Never: a range has at least one address.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        IpFamily::of(address) == self.family && (self.first..=self.last).contains(&to_bits(address))
    }

    /// Whether any address is in both.
    pub fn overlaps(&self, other: &AddressRange) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// Whether every address is in the network.
    pub fn is_within(&self, network: &IpNet) -> bool {
        network.contains(&self.first()) && network.contains(&self.last())
    }
}

impl From<IpNet> for AddressRange {
    fn from(network: IpNet) -> AddressRange {
        let first = network.network();
        AddressRange {
            family: IpFamily::of(first),
            first: to_bits(first),
            last: to_bits(network.broadcast()),
        }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<AddressRange, RangeError> {
        let syntax = || RangeError::Syntax(text.to_owned());
        if let Some((first, last)) = text.split_once('-') {
            let first: IpAddr = first.trim().parse().map_err(|_| syntax())?;
            let last: IpAddr = last.trim().parse().map_err(|_| syntax())?;
            if IpFamily::of(first) != IpFamily::of(last) {
                return Err(RangeError::MixedFamilies(text.to_owned()));
            }
            return AddressRange::new(first, last).ok_or_else(|| RangeError::Reversed(text.to_owned()));
        }
        parse_network(text).map(AddressRange::from).ok_or_else(syntax)
    }
}

/// The network of a CIDR. Bits behind the prefix are dropped, as PureLB has always read it; [`as_network`] says
/// where that was so.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    text.trim().parse().ok().map(|network: IpNet| network.trunc())
}

/// What a CIDR is read as where it has bits set behind the prefix.
pub fn as_network(text: &str) -> Option<IpNet> {
    let network: IpNet = text.trim().parse().ok()?;
    (network != network.trunc()).then(|| network.trunc())
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first(), self.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_read_in_both_forms() {
        for (text, first, last, len) in [
            ("192.0.2.0/28", "192.0.2.0", "192.0.2.15", 16),
            ("192.0.2.5/28", "192.0.2.0", "192.0.2.15", 16),
            ("fd00::1/64", "fd00::", "fd00::ffff:ffff:ffff:ffff", 1 << 64),
            ("192.0.2.10-192.0.2.20", "192.0.2.10", "192.0.2.20", 11),
            ("192.0.2.10 - 192.0.2.10", "192.0.2.10", "192.0.2.10", 1),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255", 1 << 32),
            ("fd00::/64", "fd00::", "fd00::ffff:ffff:ffff:ffff", 1 << 64),
            ("fd00::1-fd00::ff", "fd00::1", "fd00::ff", 255),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", u128::MAX),
        ] {
            let range = range(text);
            assert_eq!(range.first(), first.parse::<IpAddr>().unwrap(), "{text}");
            assert_eq!(range.last(), last.parse::<IpAddr>().unwrap(), "{text}");
            assert_eq!(range.len(), len, "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_would_do() {
        for (text, part) in [
            ("banana", "expected a CIDR"),
            ("192.0.2.1", "expected a CIDR"),
            ("192.0.2.0/33", "expected a CIDR"),
            ("192.0.2.20-192.0.2.10", "lower address first"),
            ("192.0.2.1-fd00::1", "one family"),
            ("", "expected a CIDR"),
        ] {
            let error = text.parse::<AddressRange>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_range_knows_what_is_in_it_and_what_it_overlaps() {
        let v4 = range("192.0.2.10-192.0.2.20");
        assert!(v4.contains("192.0.2.10".parse().unwrap()) && v4.contains("192.0.2.20".parse().unwrap()));
        assert!(!v4.contains("192.0.2.21".parse().unwrap()) && !v4.contains("::c000:20a".parse().unwrap()));
        assert!(
            v4.overlaps(&range("192.0.2.20-192.0.2.30")) && !v4.overlaps(&range("192.0.2.21-192.0.2.30"))
        );
        assert!(!v4.overlaps(&range("::/0")));
    }
}
