//! The timers of RFC 4271 §10 as a table, and the jitter that §10 asks for.

use std::time::Duration;

use crate::types::Time;

/// Every timer there is. DelayOpenTimer is not among them: the optional DelayOpen is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Peer: until the next attempt to dial.
    ConnectRetry,
    /// Peer: until a peer that was lost is started again (§8.1.1, DampPeerOscillations).
    IdleHold,
    /// Connection: how long the peer may stay silent.
    Hold,
    /// Connection: until the next KEEPALIVE.
    Keepalive,
    /// Connection: how long the peer's TCP may take nothing (RFC 9687).
    SendHold,
}

impl Timer {
    /// How many there are.
    pub(crate) const COUNT: usize = 5;

    /// In the order in which they are looked at when several have expired: a silent peer is lost before it is
    /// sent another KEEPALIVE.
    pub(crate) const ALL: [Timer; Timer::COUNT] =
        [Timer::ConnectRetry, Timer::IdleHold, Timer::Hold, Timer::SendHold, Timer::Keepalive];
}

/// When each timer expires; `None` where it does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timers([Option<Time>; Timer::COUNT]);

impl Timers {
    pub(crate) fn start(&mut self, timer: Timer, at: Time) {
        self.0[timer as usize] = Some(at);
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(crate) fn is_running(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// When the next one expires.
    pub(crate) fn next(&self) -> Option<Time> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one timer that has expired by `now`.
    pub(crate) fn take_expired(&mut self, now: Time) -> Option<Timer> {
        let expired = |timer: &Timer| self.0[*timer as usize].is_some_and(|at| at <= now);
        let timer = Timer::ALL.into_iter().find(expired)?;
        self.stop(timer);
        Some(timer)
    }
}

/// A seeded source of jitter (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// RFC 4271 §10: the time times a random factor from 0.75 to 1.0.
    pub(crate) fn apply(&mut self, time: Duration) -> Duration {
        let sixteenth_bits = u32::try_from(self.next() >> 48).unwrap_or(0);
        time * 3 / 4 + time / 4 * sixteenth_bits / 0xffff
    }

    /// A seed for another source.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_three_quarters_and_the_whole() {
        let mut jitter = Jitter::new(7);
        let drawn: Vec<_> = (0..1000).map(|_| jitter.apply(Duration::from_secs(100))).collect();
        assert!(drawn.iter().all(|time| (75..=100).contains(&time.as_secs())), "{drawn:?}");
        assert!(drawn.iter().min().unwrap().as_secs() < 77 && drawn.iter().max().unwrap().as_secs() > 97);
    }

    #[test]
    fn expired_timers_are_taken_once_hold_before_keepalive() {
        let at = Time::from_micros(5);
        let mut timers = Timers::default();
        timers.start(Timer::Keepalive, at);
        timers.start(Timer::Hold, at);
        timers.start(Timer::ConnectRetry, Time::from_micros(9));
        assert_eq!(timers.next(), Some(at));
        assert_eq!(timers.take_expired(Time::from_micros(4)), None);
        assert_eq!(timers.take_expired(at), Some(Timer::Hold));
        assert_eq!(timers.take_expired(at), Some(Timer::Keepalive));
        assert_eq!(timers.take_expired(at), None);
        assert!(timers.is_running(Timer::ConnectRetry));
    }
}
