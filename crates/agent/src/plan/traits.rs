//! What of a Service decides with which attributes its routes are advertised.

use std::{collections::BTreeMap, sync::Arc};

use api::IpFamily;

use crate::inputs::overrides::Overrides;

/// Two Services with equal traits are advertised alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traits {
    /// ServiceGroup that gave the addresses.
    pub group: Arc<str>,
    /// `metadata.labels`.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What the Service asks for.
    pub overrides: Arc<Overrides>,
    /// How much of the traffic this node should get, in endpoints.
    pub weight: Weight,
}

/// Endpoints on this node by family, in steps; see [`Weight::step`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight {
    /// Of IPv4 endpoints.
    pub ipv4: u32,
    /// Of IPv6 endpoints.
    pub ipv6: u32,
}

impl Weight {
    /// Every node alike.
    pub const ONE: Weight = Weight { ipv4: 1, ipv6: 1 };

    /// The weight of a family.
    pub const fn of(self, family: IpFamily) -> u32 {
        match family {
            IpFamily::IPv4 => self.ipv4,
            IpFamily::IPv6 => self.ipv6,
        }
    }

    /// The largest step that is not above the count: 1 to 8, then four steps to each doubling (10, 12, 14, 16,
    /// 20, …). A route changes when the share of a node has changed by an eighth or more, not with every pod.
    pub const fn step(count: u32) -> u32 {
        if count <= 8 {
            return count;
        }
        let unit = 1 << (count.ilog2() - 2);
        count / unit * unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_exact_when_small_and_an_eighth_to_a_quarter_when_large() {
        for (count, step) in [
            (0, 0),
            (1, 1),
            (7, 7),
            (8, 8),
            (9, 8),
            (10, 10),
            (15, 14),
            (16, 16),
            (19, 16),
            (20, 20),
            (100, 96),
        ] {
            assert_eq!(Weight::step(count), step, "{count}");
        }
        assert_eq!(Weight::step(u32::MAX), 7 << 29);
    }
}
