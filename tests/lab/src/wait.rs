//! Waits for conditions. Nothing in the lab sleeps and hopes: whoever waits says what for, how long, and
//! what was seen last when the time is over.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Result};

/// How long anyone waits for what should come about by itself. Long, because that costs nothing where it does, and a
/// machine that does many other things at once must not look like a fault; shorter than what a test may take in all.
pub const PATIENCE: Duration = secs(90);

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Calls `probe` until it returns `Ok`, at most for `timeout`; at least once.
///
/// `what` is a noun phrase ("three sessions on router1"). The error of a probe is the observation that fell
/// short; the last one is part of the message.
///
/// # Errors
/// [`Error::TimedOut`] with the last observation.
pub fn until<T, E: Display>(
    what: impl Into<String>,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let last = match probe() {
            Ok(value) => return Ok(value),
            Err(observation) => observation.to_string(),
        };
        let elapsed = start.elapsed();
        if elapsed >= timeout {
            return Err(Error::TimedOut { what: what.into(), after: elapsed, last });
        }
        thread::sleep(pause.min(timeout - elapsed));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whole seconds, short to write where conditions are waited for.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait_with_its_value() {
        let mut calls = 0;
        let value = until("three calls", secs(5), || {
            calls += 1;
            if calls == 3 { Ok(calls) } else { Err(format!("{calls} calls")) }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_timeout_reports_the_last_observation() {
        let error = until("rain", Duration::ZERO, || Err::<(), _>("sunshine")).unwrap_err();
        assert!(error.to_string().ends_with("for rain; last seen: sunshine"), "{error}");
    }
}
