//! The clock of a driver: the core's time line is the time since the driver started.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::types::Time;

/// Monotonic time since the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    pub(super) fn now(self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    pub(super) fn instant(self, time: Time) -> tokio::time::Instant {
        self.origin + Duration::from_micros(time.as_micros())
    }

    pub(super) fn system_time(self, time: Time) -> SystemTime {
        let now = self.now();
        SystemTime::now() - now.since(time) + time.since(now)
    }
}
