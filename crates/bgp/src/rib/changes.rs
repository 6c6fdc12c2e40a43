//! What is to become of routes, written down until the Loc-RIB takes it: 5 or 17 octets a prefix, because
//! neighbours usually share what is to become of them.

use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::route::{Route, RouteAttributes, RouteClass};

/// Announcements and withdrawals in the order in which they were asked for, so that the last word on a prefix
/// counts.
#[derive(Debug, Default)]
pub struct Changes {
    // Prefixes of different families are never the same, so the order between families means nothing.
    pub(super) ipv4: Runs<Ipv4Net>,
    pub(super) ipv6: Runs<Ipv6Net>,
}

/// What is to become of a run of prefixes: a route like this, or none.
pub(super) type Fate = Option<(RouteClass, Arc<RouteAttributes>)>;

/// Changes of one family.
#[derive(Debug)]
pub(super) struct Runs<N> {
    /// Each with how many prefixes it is about.
    fates: Vec<(Fate, usize)>,
    prefixes: Vec<N>,
}

impl Changes {
    /// This route is announced, in place of any other with its prefix.
    #[inline]
    pub fn announce(&mut self, route: &Route) {
        match route.prefix {
            IpNet::V4(prefix) => self.ipv4.announce(prefix, route),
            IpNet::V6(prefix) => self.ipv6.announce(prefix, route),
        }
    }

    /// The route with this prefix is withdrawn, if there is one.
    #[inline]
    pub fn withdraw(&mut self, prefix: &IpNet) {
        match *prefix {
            IpNet::V4(prefix) => self.ipv4.withdraw(prefix),
            IpNet::V6(prefix) => self.ipv6.withdraw(prefix),
        }
    }
}

impl<N> Default for Runs<N> {
    fn default() -> Runs<N> {
        Runs { fates: Vec::new(), prefixes: Vec::new() }
    }
}

impl<N> Runs<N> {
    /// The runs in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Fate, &[N])> {
        let mut rest = self.prefixes.as_slice();
        self.fates.iter().map(move |(fate, count)| {
            let (run, behind) = rest.split_at(*count);
            rest = behind;
            (fate, run)
        })
    }

    #[inline]
    fn announce(&mut self, prefix: N, route: &Route) {
        self.prefixes.push(prefix);
        if let Some((Some((class, attributes)), count)) = self.fates.last_mut()
            && *class == route.class
            && Arc::ptr_eq(attributes, &route.attributes)
        {
            *count += 1;
        } else {
            self.fates.push((Some((route.class, Arc::clone(&route.attributes))), 1));
        }
    }

    #[inline]
    fn withdraw(&mut self, prefix: N) {
        self.prefixes.push(prefix);
        if let Some((None, count)) = self.fates.last_mut() {
            *count += 1;
        } else {
            self.fates.push((None, 1));
        }
    }
}
