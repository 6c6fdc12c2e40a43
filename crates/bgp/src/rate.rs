//! A limit to how often something may be done: so many at once, and one per interval after that. Two words of memory,
//! whatever comes.

use std::time::Duration;

use crate::types::Time;

/// The limit, and how much of it is used up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimit {
    burst: u32,
    interval: Duration,
    /// When all that was let through is made up for.
    settled: Time,
}

impl RateLimit {
    /// `burst` at once, one per `interval` after that.
    pub(crate) const fn new(burst: u32, interval: Duration) -> RateLimit {
        RateLimit { burst, interval, settled: Time::ZERO }
    }

    /// Whether another one may be done now; if so it counts.
    pub(crate) fn take(&mut self, now: Time) -> bool {
        let may = self.opens(now) <= now;
        if may {
            self.settled = self.settled.max(now) + self.interval;
        }
        may
    }

    /// Has nothing be done until then.
    #[cfg(feature = "driver")]
    pub(crate) fn close_until(&mut self, time: Time) {
        self.settled = self.settled.max(time + self.interval * self.burst.saturating_sub(1));
    }

    /// When the next one may be done: `now` or later.
    pub(crate) fn opens(&self, now: Time) -> Time {
        let ahead = self.interval * self.burst.saturating_sub(1);
        now + self.settled.since(now).saturating_sub(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_at_once_and_then_one_per_interval() {
        let second = Duration::from_secs(1);
        let mut limit = RateLimit::new(3, second);
        let start = Time::ZERO + second * 100;
        let taken = (0..1000).filter(|_| limit.take(start)).count();
        assert_eq!((taken, limit.opens(start)), (3, start + second));
        assert!(!limit.take(start + second / 2));
        let taken = (1..=50).filter(|step| limit.take(start + second * *step / 10)).count();
        assert_eq!(taken, 5, "five seconds in steps of a tenth");
        let later = start + second * 1000;
        assert_eq!((0..1000).filter(|_| limit.take(later)).count(), 3, "what was not used is not saved up");
    }
}
