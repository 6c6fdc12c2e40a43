//! Failovers under way: addresses that this node has been elected for because the node that had them is gone or leaves,
//! and since when that was known. No I/O.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Since when each is to be taken over.
#[derive(Debug, Default)]
pub struct Takeovers(HashMap<IpAddr, Instant>);

impl Takeovers {
    /// This node is elected for an address, after the end of the one before, since then.
    pub fn begin(&mut self, address: IpAddr, at: Instant) {
        self.0.entry(address).or_insert(at);
    }

    /// This node is not to hold it any more, or nobody is.
    pub fn forget(&mut self, address: IpAddr) {
        self.0.remove(&address);
    }

    /// This node answers for it: how long that took, where it was a failover.
    pub fn end(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        self.0.remove(&address).map(|at| now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_is_measured_once_from_its_beginning_and_not_where_it_came_to_nothing() {
        let (mut takeovers, start) = (Takeovers::default(), Instant::now());
        let [taken, lost]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let later = |millis| start + Duration::from_millis(millis);
        takeovers.begin(taken, start);
        takeovers.begin(taken, later(30));
        takeovers.begin(lost, start);
        takeovers.forget(lost);
        assert_eq!(takeovers.end(taken, later(80)), Some(Duration::from_millis(80)));
        assert_eq!((takeovers.end(taken, later(90)), takeovers.end(lost, later(90))), (None, None));
    }
}
