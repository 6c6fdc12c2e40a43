//! Hands out the moments at which announcements may be sent, so that a thousand addresses are no burst of frames.

use std::time::{Duration, Instant};

/// Between two announcements, each of which is up to two frames: a thousand frames a second.
const GAP: Duration = Duration::from_millis(2);

/// One sequence of moments.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    next: Option<Instant>,
}

impl Pacer {
    /// The next moment that nobody has taken.
    pub(super) fn reserve(&mut self, now: Instant) -> Instant {
        let at = self.next.map_or(now, |next| next.max(now));
        self.next = Some(at + GAP);
        at
    }
}
