//! The books: who holds which address of which pool. Pure; what is told to the outside is written down first by
//! [`crate::server`].
//!
//! Guarantees: an address is one Service's, or that of Services of one namespace with one sharing key; a Service
//! that asks again gets what it has; a call gives everything that it asks for, or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::range::Range;

/// One Service on an address.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Holder {
    /// As namespace/name.
    pub(crate) service: String,
    /// Empty: the address is its alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) sharing_key: String,
}

/// Pool → address → who is on it.
pub(crate) type Holdings = BTreeMap<String, BTreeMap<IpAddr, Vec<Holder>>>;

/// Why a call gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No such pool.
    #[error("there is no pool {0}: expected one of {1}")]
    NoPool(String, String),
    /// The pool has no range of the family.
    #[error("pool {0} has no {1} range")]
    NoFamily(String, &'static str),
    /// Everything is taken.
    #[error("pool {0} has no free {1} address")]
    Exhausted(String, &'static str),
    /// An address of nobody's.
    #[error("{0} is in no range of pool {1}: expected one of {2}")]
    Outside(IpAddr, String, String),
    /// Another has it.
    #[error("{0} is held by {1}")]
    Held(IpAddr, String),
    /// A request that makes no sense.
    #[error("{0}")]
    Malformed(String),
}

/// What a pool has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Taken IPv4 and IPv6 addresses.
    pub(crate) in_use: [u64; 2],
    /// All IPv4 and IPv6 addresses.
    pub(crate) size: [u64; 2],
    /// The ranges.
    pub(crate) ranges: Vec<String>,
}

/// Pools and who holds what.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    pools: BTreeMap<String, Vec<Range>>,
    holdings: Holdings,
}

impl Books {
    /// Holdings of pools that are not configured any more stay until they are released.
    pub(crate) fn new(pools: BTreeMap<String, Vec<Range>>, holdings: Holdings) -> Books {
        Books { pools, holdings }
    }

    /// What is to be written down.
    pub(crate) fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Takes back holdings that could not be written down.
    pub(crate) fn restore(&mut self, holdings: Holdings) {
        self.holdings = holdings;
    }

    /// One address of each family that is wanted.
    pub(crate) fn allocate(
        &mut self,
        pool: &str,
        holder: &Holder,
        v4: bool,
        v6: bool,
    ) -> Result<Vec<IpAddr>, Refusal> {
        if !v4 && !v6 {
            return Err(Refusal::Malformed("no address family is asked for".to_owned()));
        }
        let mut picked = Vec::with_capacity(2);
        for (is_ipv4, _) in [(true, v4), (false, v6)].into_iter().filter(|(_, wanted)| *wanted) {
            picked.push(self.pick(pool, holder, is_ipv4)?);
        }
        self.hold(pool, holder, &picked);
        Ok(picked)
    }

    /// These very addresses.
    pub(crate) fn allocate_explicit(
        &mut self,
        pool: &str,
        holder: &Holder,
        addresses: &[IpAddr],
    ) -> Result<(), Refusal> {
        let ranges = self.ranges(pool)?;
        if addresses.is_empty() {
            return Err(Refusal::Malformed("no address is asked for".to_owned()));
        }
        for address in addresses {
            if !ranges.iter().any(|range| range.contains(*address)) {
                return Err(Refusal::Outside(*address, pool.to_owned(), listed(ranges)));
            }
            if let Some(other) = self.in_the_way(pool, holder, *address) {
                return Err(Refusal::Held(*address, other.service.clone()));
            }
        }
        self.hold(pool, holder, addresses);
        Ok(())
    }

    /// Takes a Service off one address, or off all of the pool. Whether that changed anything.
    pub(crate) fn release(
        &mut self,
        pool: &str,
        service: &str,
        address: Option<IpAddr>,
    ) -> Result<bool, Refusal> {
        let Some(held) = self.holdings.get_mut(pool) else {
            return self.ranges(pool).map(|_| false);
        };
        let mut is_changed = false;
        held.retain(|known, holders| {
            if address.is_none_or(|address| address == *known) {
                let before = holders.len();
                holders.retain(|holder| holder.service != service);
                is_changed |= holders.len() != before;
            }
            !holders.is_empty()
        });
        if held.is_empty() {
            self.holdings.remove(pool);
        }
        Ok(is_changed)
    }

    /// How full a pool is.
    pub(crate) fn figures(&self, pool: &str) -> Result<Figures, Refusal> {
        let ranges = self.ranges(pool)?;
        let held = |is_ipv4| self.held(pool).filter(|(a, _)| a.is_ipv4() == is_ipv4).count() as u64;
        let size = |is_ipv4| {
            ranges.iter().filter(|r| r.is_ipv4() == is_ipv4).fold(0_u64, |sum, r| sum.saturating_add(r.len()))
        };
        Ok(Figures {
            in_use: [held(true), held(false)],
            size: [size(true), size(false)],
            ranges: ranges.iter().map(ToString::to_string).collect(),
        })
    }

    fn ranges(&self, pool: &str) -> Result<&[Range], Refusal> {
        let names = || self.pools.keys().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        let ranges = self.pools.get(pool).map(Vec::as_slice);
        ranges.ok_or_else(|| Refusal::NoPool(pool.to_owned(), names().join(", ")))
    }

    fn held(&self, pool: &str) -> impl Iterator<Item = (&IpAddr, &Vec<Holder>)> {
        self.holdings.get(pool).into_iter().flatten()
    }

    fn holders(&self, pool: &str, address: IpAddr) -> &[Holder] {
        self.holdings.get(pool).and_then(|held| held.get(&address)).map_or(&[], Vec::as_slice)
    }

    /// What the Service has already, what its sharing key has, the lowest that is free.
    fn pick(&self, pool: &str, holder: &Holder, is_ipv4: bool) -> Result<IpAddr, Refusal> {
        let ranges = self.ranges(pool)?;
        let of_family: Vec<&Range> = ranges.iter().filter(|range| range.is_ipv4() == is_ipv4).collect();
        let family = if is_ipv4 { "IPv4" } else { "IPv6" };
        if of_family.is_empty() {
            return Err(Refusal::NoFamily(pool.to_owned(), family));
        }
        let held = || self.held(pool).filter(|(address, _)| address.is_ipv4() == is_ipv4);
        let own = held().find(|(_, holders)| holders.iter().any(|known| known.service == holder.service));
        let shared = held().find(|(address, holders)| {
            !holders.is_empty()
                && !holder.sharing_key.is_empty()
                && self.in_the_way(pool, holder, **address).is_none()
        });
        if let Some((address, _)) = own.or(shared) {
            return Ok(*address);
        }
        let is_taken = |address| !self.holders(pool, address).is_empty();
        let free = of_family.iter().find_map(|range| range.lowest_free(is_taken));
        free.ok_or_else(|| Refusal::Exhausted(pool.to_owned(), family))
    }

    /// Who does not share the address with this one.
    fn in_the_way(&self, pool: &str, holder: &Holder, address: IpAddr) -> Option<&Holder> {
        self.holders(pool, address).iter().find(|known| {
            let shares = !holder.sharing_key.is_empty()
                && known.sharing_key == holder.sharing_key
                && namespace(&known.service) == namespace(&holder.service);
            known.service != holder.service && !shares
        })
    }

    fn hold(&mut self, pool: &str, holder: &Holder, addresses: &[IpAddr]) {
        for address in addresses {
            let holders = self.holdings.entry(pool.to_owned()).or_default().entry(*address).or_default();
            holders.retain(|known| known.service != holder.service);
            holders.push(holder.clone());
        }
    }
}

fn namespace(service: &str) -> &str {
    service.split_once('/').map_or("", |(namespace, _)| namespace)
}

fn listed(ranges: &[Range]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn books() -> Books {
        let texts = [("p", vec!["192.0.2.1-192.0.2.2", "2001:db8::1/128"]), ("q", vec!["198.51.100.0/30"])];
        let texts = texts.map(|(name, r)| (name.to_owned(), r.into_iter().map(str::to_owned).collect()));
        Books::new(crate::range::parse_pools(texts.into()).unwrap(), Holdings::new())
    }

    fn holder(service: &str, key: &str) -> Holder {
        Holder { service: service.into(), sharing_key: key.into() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_same_service_asking_again_gets_the_same() {
        let mut books = books();
        let first = books.allocate("p", &holder("ns/a", ""), true, true).unwrap();
        assert_eq!(first, [ip("192.0.2.1"), ip("2001:db8::1")]);
        assert_eq!(books.allocate("p", &holder("ns/b", ""), true, false).unwrap(), [ip("192.0.2.2")]);
        assert_eq!(books.allocate("p", &holder("ns/a", ""), true, true).unwrap(), first);
    }

    #[test]
    fn both_or_none() {
        let mut books = books();
        books.allocate("p", &holder("ns/a", ""), false, true).unwrap();
        let refusal = books.allocate("p", &holder("ns/b", ""), true, true).unwrap_err();
        assert_eq!(refusal, Refusal::Exhausted("p".into(), "IPv6"));
        assert_eq!(books.figures("p").unwrap().in_use, [0, 1]);
        let both = [ip("192.0.2.1"), ip("2001:db8::1")];
        let refusal = books.allocate_explicit("p", &holder("ns/b", ""), &both).unwrap_err();
        assert_eq!(refusal, Refusal::Held(both[1], "ns/a".into()));
        assert_eq!(books.figures("p").unwrap().in_use, [0, 1]);
    }

    #[test]
    fn a_sharing_key_is_of_one_namespace() {
        let mut books = books();
        let (first, second) = ([ip("192.0.2.1")], [ip("192.0.2.2")]);
        assert_eq!(books.allocate("p", &holder("ns/a", "k"), true, false).unwrap(), first);
        assert_eq!(books.allocate("p", &holder("ns/b", "k"), true, false).unwrap(), first);
        assert_eq!(books.allocate("p", &holder("other/c", "k"), true, false).unwrap(), second);
        assert_eq!(
            books.allocate_explicit("p", &holder("ns/d", ""), &first).unwrap_err().to_string(),
            "192.0.2.1 is held by ns/a"
        );
        books.release("p", "ns/a", None).unwrap();
        assert_eq!(books.figures("p").unwrap().in_use, [2, 0], "ns/b is still on it");
        books.release("p", "ns/b", Some(first[0])).unwrap();
        assert_eq!(books.figures("p").unwrap().in_use, [1, 0]);
    }

    #[test]
    fn releases_repeat_without_harm_and_outlive_the_pool() {
        let mut books = books();
        books.allocate("p", &holder("ns/a", ""), true, true).unwrap();
        assert_eq!(books.release("p", "ns/a", Some(ip("192.0.2.1"))), Ok(true));
        assert_eq!(books.release("p", "ns/a", Some(ip("192.0.2.1"))), Ok(false));
        books.pools.remove("p");
        assert_eq!(books.release("p", "ns/a", None), Ok(true));
        assert!(matches!(books.release("p", "ns/a", None), Err(Refusal::NoPool(..))));
    }

    #[test]
    fn an_address_outside_is_refused_with_what_would_be_right() {
        let refusal = books().allocate_explicit("q", &holder("ns/a", ""), &[ip("192.0.2.1")]).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "192.0.2.1 is in no range of pool q: expected one of 198.51.100.0-198.51.100.3"
        );
    }
}
