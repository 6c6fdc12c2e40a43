//! Which group has an address.

use std::{net::IpAddr, sync::Arc};

use api::{
    AddressRange, IpFamily,
    address::{from_bits, to_bits},
};

use super::Group;

/// The ranges of accepted groups, which do not overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    v4: Vec<Range>,
    v6: Vec<Range>,
}

/// Lowest and highest address as numbers, and whose they are.
#[derive(Clone, Debug)]
struct Range {
    first: u128,
    last: u128,
    group: Arc<Group>,
}

impl Ranges {
    /// Adds a range of a group.
    pub(super) fn add(&mut self, range: &AddressRange, group: Arc<Group>) {
        let (first, last) = range.bits();
        let ranges = match range.family() {
            IpFamily::IPv4 => &mut self.v4,
            IpFamily::IPv6 => &mut self.v6,
        };
        ranges.insert(ranges.partition_point(|known| known.first < first), Range { first, last, group });
    }

    /// The last range that does not begin behind the address.
    fn up_to(&self, family: IpFamily, bits: u128) -> Option<&Range> {
        let ranges = match family {
            IpFamily::IPv4 => &self.v4,
            IpFamily::IPv6 => &self.v6,
        };
        ranges.get(ranges.partition_point(|known| known.first <= bits).checked_sub(1)?)
    }
    /// The group that has the address.
    pub(super) fn group_of(&self, address: IpAddr) -> Option<&Arc<Group>> {
        let bits = to_bits(address);
        let range = self.up_to(IpFamily::of(address), bits)?;
        (bits <= range.last).then_some(&range.group)
    }

    /// A range that has an address of this one, and whose it is.
    pub(super) fn overlapping(&self, range: &AddressRange) -> Option<(&Group, AddressRange)> {
        let family = range.family();
        let Range { first, last, group } = self.up_to(family, to_bits(range.last()))?;
        let known = AddressRange::new(from_bits(family, *first), from_bits(family, *last))?;
        known.overlaps(range).then_some((group, known))
    }
}
