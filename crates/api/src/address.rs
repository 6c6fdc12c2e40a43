//! Addresses as pools describe them: families, ranges, aggregation, and the parsed form of one pool.
//!
//! Not the allocator's books: nothing here knows what is in use.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{refusal::Refusal, service_group::AddressPool};

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
    family: IpFamily,
    first: u128,
    last: u128,
}

/// Why a text is not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither form.
    #[error(
        "{0:?} is not an address range: expected a CIDR as 192.0.2.0/28, or first-last as 192.0.2.10-192.0.2.20"
    )]
    Syntax(String),
    /// A CIDR whose address is not the network's.
    #[error("{0} has bits set behind the prefix: expected {1}")]
    HostBits(IpNet, IpNet),
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
        Ok(parse_network(text).map_err(|error| error.unwrap_or_else(syntax))?.into())
    }
}

/// A CIDR without host bits. `None` as error: not a CIDR at all.
fn parse_network(text: &str) -> Result<IpNet, Option<RangeError>> {
    let network: IpNet = text.trim().parse().map_err(|_| None)?;
    if network != network.trunc() {
        return Err(Some(RangeError::HostBits(network, network.trunc())));
    }
    Ok(network)
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first(), self.last())
    }
}

/// The prefix length with which an address is put on an interface and announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// That of the subnet.
    Default,
    /// This one.
    Length(u8),
}

/// Why a text is not an aggregation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an aggregation: expected default, or a slash and a prefix length from /8 to /{1}")]
pub struct AggregationError(String, u8);

impl Aggregation {
    /// Reads `default` or `/N` strictly: no sign, no blank, no leading zero, `N` fitting the family.
    pub fn parse(text: &str, family: IpFamily) -> Result<Aggregation, AggregationError> {
        if text == "default" {
            return Ok(Aggregation::Default);
        }
        let digits = text.strip_prefix('/').filter(|digits| {
            !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
        });
        digits
            .and_then(|digits| digits.parse().ok())
            .filter(|length| (8..=family.bits()).contains(length))
            .map(Aggregation::Length)
            .ok_or_else(|| AggregationError(text.to_owned(), family.bits()))
    }
}

/// One pool of a group, understood: all of it makes sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// The addresses that may be handed out: the configured range less those that no host can have.
    pub range: AddressRange,
    /// The subnet around it.
    pub subnet: IpNet,
    /// Prefix length for the interface and the announcement.
    pub prefix_len: u8,
}

impl Pool {
    /// Understands a pool or says what is wrong with it; `path` is the pool's own, as `spec.local.v4pool`.
    pub fn parse(
        spec: &AddressPool,
        family: IpFamily,
        pool_type: PoolType,
        path: &str,
    ) -> Result<Pool, Refusal> {
        let invalid = |field: &str, message: String| Refusal::invalid(format!("{path}.{field}"), message);
        let range: AddressRange =
            spec.pool.parse().map_err(|e: RangeError| invalid("pool", e.to_string()))?;
        let subnet = parse_network(&spec.subnet).map_err(|error| {
            let text = &spec.subnet;
            let unparsable = || format!("{text:?} is not a subnet: expected a CIDR as 192.0.2.0/24");
            invalid("subnet", error.map_or_else(unparsable, |error| error.to_string()))
        })?;
        for (field, text, found) in
            [("pool", &spec.pool, range.family()), ("subnet", &spec.subnet, IpFamily::of(subnet.addr()))]
        {
            if found != family {
                return Err(invalid(field, format!("{text:?} is {found}: an {family} pool needs {family}")));
            }
        }
        if !range.is_within(&subnet) {
            return Err(invalid(
                "pool",
                format!("{range} is not inside the subnet {subnet}: widen the subnet or move the pool"),
            ));
        }
        let prefix_len = match Aggregation::parse(&spec.aggregation, family) {
            Ok(Aggregation::Default) => subnet.prefix_len(),
            Ok(Aggregation::Length(length)) => length,
            Err(error) => return Err(invalid("aggregation", error.to_string())),
        };
        let host_routes = pool_type == PoolType::Remote && prefix_len == family.bits();
        let range = if host_routes { Some(range) } else { without_reserved(range, &subnet) };
        let range = range.ok_or_else(|| {
            invalid("pool", format!("it has only the network or broadcast address of {subnet}, which no host can have: widen the pool"))
        })?;
        Ok(Pool { range, subnet, prefix_len })
    }

    /// What goes on an interface and, truncated, into an announcement.
    pub fn network(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.prefix_len).expect("prefix_len was checked against the family when parsed")
    }
}

/// The range less the addresses of the subnet that no host can have: IPv4's network and broadcast address, and
/// IPv6's Subnet-Router anycast address (RFC 4291 §2.6.1). Subnets of one or two addresses have none (RFC 3021,
/// RFC 6164).
fn without_reserved(range: AddressRange, subnet: &IpNet) -> Option<AddressRange> {
    let whole = AddressRange::from(*subnet);
    if whole.len() <= 2 {
        return Some(range);
    }
    let first = range.first.max(whole.first + 1);
    let last = match range.family {
        IpFamily::IPv4 => range.last.min(whole.last - 1),
        IpFamily::IPv6 => range.last,
    };
    (first <= last).then_some(AddressRange { first, last, ..range })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    fn pool(pool: &str, subnet: &str, aggregation: &str, pool_type: PoolType) -> Result<Pool, Refusal> {
        let family = if subnet.contains(':') { IpFamily::IPv6 } else { IpFamily::IPv4 };
        let spec = AddressPool { pool: pool.into(), subnet: subnet.into(), aggregation: aggregation.into() };
        Pool::parse(&spec, family, pool_type, "spec.local.v4pool")
    }

    #[test]
    fn ranges_are_read_in_both_forms() {
        for (text, first, last, len) in [
            ("192.0.2.0/28", "192.0.2.0", "192.0.2.15", 16),
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
            ("192.0.2.5/28", "expected 192.0.2.0/28"),
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

    #[test]
    fn aggregation_is_read_strictly() {
        use IpFamily::{IPv4, IPv6};
        assert_eq!(Aggregation::parse("default", IPv4), Ok(Aggregation::Default));
        assert_eq!(Aggregation::parse("/32", IPv4), Ok(Aggregation::Length(32)));
        assert_eq!(Aggregation::parse("/128", IPv6), Ok(Aggregation::Length(128)));
        for text in ["", "32", "/", "/33", "/032", "/+32", "/ 32", "/32 ", "Default", "/7", "/0"] {
            assert!(Aggregation::parse(text, IPv4).is_err(), "{text:?}");
        }
        assert!(Aggregation::parse("/129", IPv6).is_err());
    }

    #[test]
    fn host_routes_of_a_remote_pool_use_every_address() {
        let pool = pool("192.0.2.0/28", "192.0.2.0/28", "/32", PoolType::Remote).unwrap();
        assert_eq!(pool.range, range("192.0.2.0/28"));
        assert_eq!(pool.prefix_len, 32);
    }

    #[test]
    fn a_local_pool_never_has_network_and_broadcast_address_of_its_subnet() {
        let whole = pool("192.0.2.0/28", "192.0.2.0/28", "default", PoolType::Local).unwrap();
        assert_eq!(whole.range, range("192.0.2.1-192.0.2.14"));
        assert_eq!(whole.prefix_len, 28);
        let host = pool("192.0.2.0/28", "192.0.2.0/28", "/32", PoolType::Local).unwrap();
        assert_eq!(host.range, range("192.0.2.1-192.0.2.14"));
        let inside = pool("192.0.2.16/28", "192.0.2.0/24", "default", PoolType::Local).unwrap();
        assert_eq!(inside.range, range("192.0.2.16/28"));
        let v6 = pool("fd00::/64", "fd00::/64", "default", PoolType::Local).unwrap();
        assert_eq!(v6.range, range("fd00::1-fd00::ffff:ffff:ffff:ffff"));
        let two = pool("192.0.2.0/31", "192.0.2.0/31", "default", PoolType::Local).unwrap();
        assert_eq!(two.range, range("192.0.2.0/31"));
    }

    #[test]
    fn a_pool_that_makes_no_sense_is_refused_with_its_field() {
        for (text, subnet, aggregation, path, part) in [
            ("banana", "192.0.2.0/24", "default", "spec.local.v4pool.pool", "not an address range"),
            ("192.0.2.0/28", "banana", "default", "spec.local.v4pool.subnet", "not a subnet"),
            ("192.0.2.0/28", "192.0.2.1/24", "default", "spec.local.v4pool.subnet", "expected 192.0.2.0/24"),
            ("192.0.3.0/28", "192.0.2.0/24", "default", "spec.local.v4pool.pool", "not inside the subnet"),
            ("fd00::/120", "192.0.2.0/24", "default", "spec.local.v4pool.pool", "IPv4 pool needs IPv4"),
            ("192.0.2.0/28", "192.0.2.0/24", "32", "spec.local.v4pool.aggregation", "not an aggregation"),
            ("192.0.2.0/32", "192.0.2.0/24", "default", "spec.local.v4pool.pool", "widen the pool"),
        ] {
            let refusal = pool(text, subnet, aggregation, PoolType::Local).unwrap_err();
            assert_eq!(refusal.path, path);
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }
}
