//! A seeded source of chance (SplitMix64), for jitter: equal seeds, equal histories.

use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The time times a factor from 0.8 to 1.0: never late, and no two members stay in step.
    pub(crate) fn jitter(&mut self, time: Duration) -> Duration {
        let share = u32::try_from(self.next() >> 48).unwrap_or(0);
        time * 4 / 5 + time / 5 * share / 0xffff
    }
}
