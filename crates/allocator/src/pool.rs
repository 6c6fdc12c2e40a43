//! Which addresses are taken, as runs of consecutive ones; the lowest free one of a range in O(log n).
//!
//! Nothing here knows pools or groups: any range can be asked about, so editing a ServiceGroup costs nothing, and
//! a /8 or a /64 costs no more memory than the runs that are taken from it.

use std::{collections::BTreeMap, net::IpAddr};

use api::{
    AddressRange, IpFamily,
    address::{from_bits, to_bits},
};

/// Taken addresses of one family: first → last of each run. Runs neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Runs(BTreeMap<u128, u128>);

impl Runs {
    /// The run that has the address.
    fn around(&self, bits: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=bits).next_back()?;
        (bits <= *last).then_some((*first, *last))
    }

    fn take(&mut self, bits: u128) {
        // The run that has it, or the nearest before it.
        let before =
            self.0.range_mut(..=bits).next_back().filter(|(_, last)| **last >= bits.saturating_sub(1));
        if before.as_ref().is_some_and(|(_, last)| **last >= bits) {
            return;
        }
        match before {
            Some((_, last)) => *last = bits,
            None => drop(self.0.insert(bits, bits)),
        }
        // The run behind it is joined to it.
        if let Some(next) = bits.checked_add(1)
            && let Some(end) = self.0.remove(&next)
            && let Some((_, last)) = self.0.range_mut(..=bits).next_back()
        {
            *last = end;
        }
    }

    fn free(&mut self, bits: u128) {
        let Some((first, last)) = self.around(bits) else { return };
        self.0.remove(&first);
        if first < bits {
            self.0.insert(first, bits - 1);
        }
        if bits < last {
            self.0.insert(bits + 1, last);
        }
    }

    fn lowest_free(&self, first: u128, last: u128) -> Option<u128> {
        let lowest = match self.around(first) {
            Some((_, taken)) => taken.checked_add(1)?,
            None => first,
        };
        (lowest <= last).then_some(lowest)
    }

    fn count(&self, first: u128, last: u128) -> u128 {
        let within = |(from, to): (u128, u128)| (to.min(last) - from.max(first)).saturating_add(1);
        let cut = self.around(first).filter(|(from, _)| *from < first).map_or(0, within);
        self.0.range(first..=last).map(|(from, to)| within((*from, *to))).fold(cut, u128::saturating_add)
    }
}

/// Taken addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    v4: Runs,
    v6: Runs,
}

impl Taken {
    fn runs(&self, family: IpFamily) -> &Runs {
        match family {
            IpFamily::IPv4 => &self.v4,
            IpFamily::IPv6 => &self.v6,
        }
    }

    fn runs_mut(&mut self, family: IpFamily) -> &mut Runs {
        match family {
            IpFamily::IPv4 => &mut self.v4,
            IpFamily::IPv6 => &mut self.v6,
        }
    }

    /// Marks an address as taken; again is no matter.
    pub fn take(&mut self, address: IpAddr) {
        self.runs_mut(IpFamily::of(address)).take(to_bits(address));
    }

    /// Marks an address as free; again is no matter.
    pub fn free(&mut self, address: IpAddr) {
        self.runs_mut(IpFamily::of(address)).free(to_bits(address));
    }

    /// Whether an address is taken.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.runs(IpFamily::of(address)).around(to_bits(address)).is_some()
    }

    /// The lowest address of the range that is not taken.
    pub fn lowest_free(&self, range: &AddressRange) -> Option<IpAddr> {
        let (first, last) = range.bits();
        let bits = self.runs(range.family()).lowest_free(first, last)?;
        Some(from_bits(range.family(), bits))
    }

    /// How many addresses of the range are taken.
    pub fn count(&self, range: &AddressRange) -> u128 {
        let (first, last) = range.bits();
        self.runs(range.family()).count(first, last)
    }

    /// How many runs: what the memory is proportional to.
    pub fn runs_len(&self) -> usize {
        self.v4.0.len() + self.v6.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_address_fills_holes_first() {
        let range: AddressRange = "192.0.2.0/29".parse().unwrap();
        let mut taken = Taken::default();
        for last in 0..8 {
            let lowest = taken.lowest_free(&range).unwrap();
            assert_eq!(lowest, ip(&format!("192.0.2.{last}")));
            taken.take(lowest);
        }
        assert_eq!(taken.lowest_free(&range), None);
        taken.free(ip("192.0.2.3"));
        assert_eq!(taken.lowest_free(&range), Some(ip("192.0.2.3")));
        assert_eq!(taken.count(&range), 7);
    }

    #[test]
    fn the_ends_of_the_number_line_are_no_special_case() {
        let mut taken = Taken::default();
        for text in ["255.255.255.255/32", "::/128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"] {
            let range: AddressRange = text.parse().unwrap();
            taken.take(range.first());
            assert_eq!(taken.lowest_free(&range), None, "{text}");
            assert_eq!(taken.count(&range), 1, "{text}");
        }
        assert_eq!(taken.lowest_free(&"::/0".parse().unwrap()), Some(ip("::1")));
    }

    #[test]
    fn consecutive_addresses_of_a_64_cost_one_run() {
        let range: AddressRange = "fd00::/64".parse().unwrap();
        let mut taken = Taken::default();
        for _ in 0..10_000 {
            let lowest = taken.lowest_free(&range).unwrap();
            taken.take(lowest);
        }
        assert_eq!((taken.runs_len(), taken.count(&range)), (1, 10_000));
    }

    proptest! {
        #[test]
        fn runs_are_a_set_of_addresses(steps in prop::collection::vec((any::<bool>(), 0_u8..40), 0..200)) {
            let mut taken = Taken::default();
            let mut model = BTreeSet::new();
            for (take, last) in steps {
                let address = from_bits(IpFamily::IPv4, 0xC000_0200 + u128::from(last));
                if take { taken.take(address); model.insert(last); } else { taken.free(address); model.remove(&last); }
                let range = AddressRange::new(ip("192.0.2.10"), ip("192.0.2.30")).unwrap();
                let free = (10..=30).find(|last| !model.contains(last));
                prop_assert_eq!(taken.lowest_free(&range), free.map(|last| ip(&format!("192.0.2.{last}"))));
                prop_assert_eq!(taken.count(&range), model.range(10..=30).count() as u128);
                let firsts: Vec<_> = taken.v4.0.iter().map(|(a, b)| (*a, *b)).collect();
                prop_assert!(firsts.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "runs touch: {firsts:?}");
            }
        }
    }
}
