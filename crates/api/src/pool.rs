//! One pool of a ServiceGroup, understood: its range, its subnet, its aggregation.
//!
//! Not the allocator's books: nothing here knows what is in use.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    address::{AddressRange, IpFamily, PoolType, RangeError, parse_network},
    refusal::Refusal,
    service_group::AddressPool,
};

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
        let subnet = parse_network(&spec.subnet).ok_or_else(|| {
            let text = &spec.subnet;
            invalid("subnet", format!("{text:?} is not a subnet: expected a CIDR as 192.0.2.0/24"))
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

    /// Whether the address is in the subnet but one that no host can have and that the pool therefore leaves out:
    /// the network or broadcast address, or IPv6's Subnet-Router anycast address.
    pub fn leaves_out(&self, address: IpAddr) -> bool {
        let whole = AddressRange::from(self.subnet);
        whole.contains(address)
            && !self.range.contains(address)
            && without_reserved(whole, &self.subnet).is_none_or(|usable| !usable.contains(address))
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
        for (address, expected) in
            [("192.0.2.0", true), ("192.0.2.15", true), ("192.0.2.1", false), ("192.0.2.16", false)]
        {
            assert_eq!(whole.leaves_out(address.parse().unwrap()), expected, "{address}");
        }
        assert!(v6.leaves_out("fd00::".parse().unwrap()));
        let two = pool("192.0.2.0/31", "192.0.2.0/31", "default", PoolType::Local).unwrap();
        assert_eq!(two.range, range("192.0.2.0/31"));
    }

    #[test]
    fn bits_behind_the_prefix_are_dropped() {
        let dropped = pool("192.0.2.21/28", "192.0.2.1/24", "default", PoolType::Local).unwrap();
        assert_eq!(dropped, pool("192.0.2.16/28", "192.0.2.0/24", "default", PoolType::Local).unwrap());
    }

    #[test]
    fn a_pool_that_makes_no_sense_is_refused_with_its_field() {
        for (text, subnet, aggregation, path, part) in [
            ("banana", "192.0.2.0/24", "default", "spec.local.v4pool.pool", "not an address range"),
            ("192.0.2.0/28", "banana", "default", "spec.local.v4pool.subnet", "not a subnet"),
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
