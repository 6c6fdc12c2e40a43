//! The one timer of a driver. Every UPDATE puts off the next KEEPALIVE, so the time to wake up at changes with nearly
//! every event, and mostly to a later one: the timer that runs is left alone then and rings early, because telling the
//! runtime of every change would cost more than the UPDATE itself.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings at the time that it was set to, or before.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// `None` once it has rung.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// It is to ring at this time, if at any.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        let Some(at) = at else { return };
        match &mut self.sleep {
            Some(sleep) if sleep.deadline() <= at => {}
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(sleep_until(at))),
        }
    }

    /// Ready once when it rings; then it has to be set again.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        ready!(sleep.as_mut().poll(context));
        self.sleep = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test]
    async fn an_alarm_never_rings_later_than_the_earliest_time_that_it_was_set_to_and_once() {
        let soon = Instant::now() + Duration::from_millis(1);
        let late = Some(soon + Duration::from_secs(3600));
        for times in [[late, Some(soon), None], [Some(soon), late, None], [late, None, Some(soon)]] {
            let mut alarm = Alarm::default();
            times.into_iter().for_each(|at| alarm.set(at));
            poll_fn(|context| alarm.poll(context)).await;
            assert!(Instant::now() >= soon);
            let rings_again = poll_fn(|context| Poll::Ready(alarm.poll(context).is_ready())).await;
            assert!(!rings_again);
        }
    }
}
