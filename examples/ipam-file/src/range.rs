//! Ranges of addresses: `192.0.2.0/28` or `192.0.2.10-192.0.2.20`.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use anyhow::bail;
use ipnet::IpNet;

/// First and last address, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    /// Whether the address is one of it.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4() && self.first <= address && address <= self.last
    }

    /// The family.
    pub(crate) fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// How many addresses; more than fit are as many as fit.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(bits(self.last) - bits(self.first)).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The lowest address that is not taken. Costs as much as there are taken ones before it.
    pub(crate) fn lowest_free(&self, is_taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let mut address = self.first;
        while is_taken(address) {
            if address == self.last {
                return None;
            }
            address = next(address);
        }
        Some(address)
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.is_ipv4() == other.is_ipv4() && self.first <= other.last && other.first <= self.last
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn next(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(address.to_bits().saturating_add(1).into()),
        IpAddr::V6(address) => IpAddr::V6(address.to_bits().saturating_add(1).into()),
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Range, String> {
        let wrong = || format!("{text:?} is no range: expected 192.0.2.0/28 or 192.0.2.10-192.0.2.20");
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (
                first.trim().parse().map_err(|_| wrong())?,
                last.trim().parse::<IpAddr>().map_err(|_| wrong())?,
            ),
            None => {
                let net: IpNet = text.trim().parse().map_err(|_| wrong())?;
                (net.network(), net.broadcast())
            }
        };
        let range = Range { first, last };
        if first.is_ipv4() != last.is_ipv4() || first > last { Err(wrong()) } else { Ok(range) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The pools by name; an address belongs to one range of one pool.
pub(crate) fn parse_pools(
    texts: BTreeMap<String, Vec<String>>,
) -> anyhow::Result<BTreeMap<String, Vec<Range>>> {
    let mut pools: BTreeMap<String, Vec<Range>> = BTreeMap::new();
    for (name, texts) in texts {
        if texts.is_empty() {
            bail!("pool {name} has no range");
        }
        let mut ranges = Vec::with_capacity(texts.len());
        for text in texts {
            let range: Range = text.parse().map_err(|error| anyhow::anyhow!("pool {name}: {error}"))?;
            let known = pools.iter().flat_map(|(name, ranges)| ranges.iter().map(move |range| (name, range)));
            let known = known.chain(ranges.iter().map(|range| (&name, range)));
            if let Some((other, known)) = known.into_iter().find(|(_, known)| known.overlaps(&range)) {
                bail!("pool {name}: {range} overlaps with {known} of pool {other}");
            }
            ranges.push(range);
        }
        pools.insert(name, ranges);
    }
    Ok(pools)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_range_is_a_cidr_or_two_addresses_of_one_family() {
        for (text, shown, len) in [
            ("192.0.2.0/30", "192.0.2.0-192.0.2.3", 4),
            (" 192.0.2.10 - 192.0.2.10 ", "192.0.2.10-192.0.2.10", 1),
            ("2001:db8::/64", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff", u64::MAX),
        ] {
            let range: Range = text.parse().unwrap();
            assert_eq!((range.to_string().as_str(), range.len()), (shown, len));
        }
        for text in ["", "192.0.2.1", "192.0.2.9-192.0.2.1", "192.0.2.1-fd00::1", "a-b", "192.0.2.0/33"] {
            assert!(text.parse::<Range>().unwrap_err().contains("expected"), "{text}");
        }
    }

    #[test]
    fn pools_that_overlap_are_refused() {
        let pools = |a: &str, b: &str| {
            parse_pools([("a".into(), vec![a.into()]), ("b".into(), vec![b.into()])].into())
        };
        let error = pools("192.0.2.0/28", "192.0.2.8/32").unwrap_err().to_string();
        assert_eq!(error, "pool b: 192.0.2.8-192.0.2.8 overlaps with 192.0.2.0-192.0.2.15 of pool a");
        assert_eq!(pools("192.0.2.0/28", "192.0.2.16/28").unwrap().len(), 2);
    }

    #[test]
    fn the_last_address_of_all_ends_a_range() {
        let range: Range = "255.255.255.254-255.255.255.255".parse().unwrap();
        assert_eq!(range.lowest_free(|_| true), None);
        assert_eq!(
            range.lowest_free(|a| a.to_string().ends_with('4')).unwrap().to_string(),
            "255.255.255.255"
        );
    }
}
