//! When something happened, in half the room of an [`Instant`]: every Service has two of them.

use std::{
    num::NonZero,
    sync::LazyLock,
    time::{Duration, Instant},
};

/// What moments are counted from: the first time that one is asked for.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds before or after the origin; never 0, so that none at all takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(NonZero<i64>);

impl From<Instant> for Moment {
    fn from(instant: Instant) -> Moment {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let nanos = match instant.checked_duration_since(*ORIGIN) {
            Some(after) => nanos(after),
            None => -nanos(ORIGIN.saturating_duration_since(instant)),
        };
        Moment(NonZero::new(nanos).unwrap_or(const { NonZero::new(1).expect("one is not zero") }))
    }
}

impl From<Moment> for Instant {
    fn from(moment: Moment) -> Instant {
        let distance = Duration::from_nanos(moment.0.unsigned_abs().get());
        let instant =
            if moment.0.is_positive() { ORIGIN.checked_add(distance) } else { ORIGIN.checked_sub(distance) };
        instant.unwrap_or(*ORIGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_comes_back_as_it_was_before_and_after_the_origin() {
        let origin = *ORIGIN;
        for nanos in [1, 999, 1_000_000_007, 86_400_000_000_000] {
            let distance = Duration::from_nanos(nanos);
            for instant in [Some(origin + distance), origin.checked_sub(distance)].into_iter().flatten() {
                assert_eq!(Instant::from(Moment::from(instant)), instant);
            }
        }
        assert!(Moment::from(origin) > Moment::from(origin - Duration::from_nanos(1)));
        assert_eq!(size_of::<Option<Moment>>(), 8);
    }
}
