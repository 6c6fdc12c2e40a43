//! What is to become of routes, written down until the Loc-RIB takes it: a few octets a prefix, and none for one that
//! follows the one before, because neighbours usually share what is to become of them.

use std::sync::Arc;

use ipnet::IpNet;

use super::{
    block::{Number, number_v4, number_v6},
    loc_rib::Kind,
};
use crate::route::Route;

/// Announcements and withdrawals in the order in which they were asked for, so that the last word on a prefix
/// counts.
#[derive(Debug, Default)]
pub struct Changes {
    // Prefixes of different families are never the same, so the order between families means nothing.
    pub(super) ipv4: Runs<u32>,
    pub(super) ipv6: Runs<u128>,
}

/// What is to become of a run of prefixes: a route like this, or none.
pub(super) type Fate = Option<Kind>;

/// Changes of one family.
#[derive(Debug)]
pub(super) struct Runs<N> {
    /// Each with how many ranges it is about.
    fates: Vec<(Fate, usize)>,
    ranges: Vec<Range<N>>,
}

/// Prefixes of one length in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range<N> {
    pub(super) first: N,
    pub(super) count: u16,
    pub(super) length: u8,
}

impl Changes {
    /// This route is announced, in place of any other with its prefix.
    #[inline]
    pub fn announce(&mut self, route: &Route) {
        match route.prefix {
            IpNet::V4(net) => self.ipv4.announce(number_v4(net), net.prefix_len(), route),
            IpNet::V6(net) => self.ipv6.announce(number_v6(net), net.prefix_len(), route),
        }
    }

    /// The route with this prefix is withdrawn, if there is one.
    #[inline]
    pub fn withdraw(&mut self, prefix: &IpNet) {
        match *prefix {
            IpNet::V4(net) => self.ipv4.withdraw(number_v4(net), net.prefix_len()),
            IpNet::V6(net) => self.ipv6.withdraw(number_v6(net), net.prefix_len()),
        }
    }
}

impl<N> Default for Runs<N> {
    fn default() -> Runs<N> {
        Runs { fates: Vec::new(), ranges: Vec::new() }
    }
}

impl<N: Number> Runs<N> {
    /// The runs in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Fate, &[Range<N>])> {
        let mut rest = self.ranges.as_slice();
        self.fates.iter().map(move |(fate, count)| {
            let (run, behind) = rest.split_at(*count);
            rest = behind;
            (fate, run)
        })
    }

    #[inline]
    fn announce(&mut self, number: N, length: u8, route: &Route) {
        if let Some((Some(kind), count)) = self.fates.last_mut()
            && kind.class == route.class
            && Arc::ptr_eq(&kind.attributes, &route.attributes)
        {
            *count += extend(&mut self.ranges, number, length);
        } else {
            let kind = Kind { class: route.class, attributes: Arc::clone(&route.attributes) };
            self.begin(Some(kind), number, length);
        }
    }

    #[inline]
    fn withdraw(&mut self, number: N, length: u8) {
        if let Some((None, count)) = self.fates.last_mut() {
            *count += extend(&mut self.ranges, number, length);
        } else {
            self.begin(None, number, length);
        }
    }

    fn begin(&mut self, fate: Fate, number: N, length: u8) {
        self.fates.push((fate, 1));
        self.ranges.push(Range { first: number, count: 1, length });
    }
}

/// Adds a prefix to the last range, or begins another; how many that is more.
#[inline]
fn extend<N: Number>(ranges: &mut Vec<Range<N>>, number: N, length: u8) -> usize {
    if let Some(last) = ranges.last_mut()
        && last.length == length
        && last.count < u16::MAX
        && last.first.plus(last.count) == Some(number)
    {
        last.count += 1;
        return 0;
    }
    ranges.push(Range { first: number, count: 1, length });
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{RouteAttributes, RouteClass};

    #[test]
    fn neighbours_in_order_take_no_more_room_than_one_prefix() {
        let attributes = Arc::new(RouteAttributes::default());
        let mut changes = Changes::default();
        for family in ["10.0.0.0", "fd00::"] {
            let first: std::net::IpAddr = family.parse().unwrap();
            for number in 0..70_000_u32 {
                let address: std::net::IpAddr = match first {
                    std::net::IpAddr::V4(v4) => std::net::Ipv4Addr::from_bits(v4.to_bits() + number).into(),
                    std::net::IpAddr::V6(v6) => {
                        std::net::Ipv6Addr::from_bits(v6.to_bits() + u128::from(number)).into()
                    }
                };
                let prefix = IpNet::from(address);
                changes.announce(&Route {
                    prefix,
                    class: RouteClass(1),
                    attributes: Arc::clone(&attributes),
                });
            }
        }
        assert_eq!((changes.ipv4.ranges.len(), changes.ipv6.ranges.len()), (2, 2), "65,535 and the rest");
        changes.withdraw(&"10.0.0.1/32".parse().unwrap());
        let fates: Vec<_> =
            changes.ipv4.iter().map(|(fate, ranges)| (fate.is_some(), ranges.len())).collect();
        assert_eq!(fates, [(true, 2), (false, 1)]);
    }
}
