//! How long changes take to the wire: from the arrival of what caused them until the sockets of the routers have taken
//! them. Not of routers that take nothing for long: that is their time, and not ours.

use std::time::{Duration, Instant};

use bgp::driver::Handle;
use tokio::{sync::mpsc, time::timeout};

use crate::metrics::Metrics;

/// The last of the histograms' buckets: what takes longer waits for a router.
const LONGEST: Duration = Duration::from_secs(4);

/// Arrivals that share a wait.
const TOGETHER: usize = 1024;

/// What a change of routes is measured from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Service,
    Endpoints,
}

/// Starts the task that measures, one wait at a time.
pub(super) fn start(speaker: Handle, metrics: Metrics) -> mpsc::UnboundedSender<(Cause, Instant)> {
    let (arrivals, arrived) = mpsc::unbounded_channel();
    let observe = move |(cause, at): (Cause, Instant)| {
        let histogram = match cause {
            Cause::Service => &metrics.service_to_wire,
            Cause::Endpoints => &metrics.endpoint_to_wire,
        };
        histogram.observe(at.elapsed().as_secs_f64());
    };
    tokio::spawn(async move { measure(arrived, LONGEST, || speaker.barrier(), observe).await });
    arrivals
}

/// Ends with the sender of the arrivals, or the speaker.
async fn measure<T, E, F: Future<Output = Result<(), E>>>(
    mut arrived: mpsc::UnboundedReceiver<T>,
    longest: Duration,
    barrier: impl Fn() -> F,
    mut observe: impl FnMut(T),
) {
    let mut batch = Vec::new();
    while arrived.recv_many(&mut batch, TOGETHER).await > 0 {
        match timeout(longest, barrier()).await {
            Ok(Ok(())) => batch.drain(..).for_each(&mut observe),
            Ok(Err(_)) => return,
            Err(_) => {
                // Those that came meanwhile have waited for the same router.
                while arrived.try_recv().is_ok() {}
                batch.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test]
    async fn arrivals_that_wait_for_a_router_that_takes_nothing_are_not_measured_nor_kept() {
        let (arrivals, arrived) = mpsc::unbounded_channel();
        let (waits, measured) = (Cell::new(0), RefCell::new(Vec::new()));
        [1, 2].into_iter().for_each(|number| arrivals.send(number).unwrap());
        let barrier = || {
            waits.set(waits.get() + 1);
            let is_stalled = waits.get() == 1;
            // One comes while the router is waited for, and one after.
            if is_stalled {
                arrivals.send(3).unwrap();
            }
            async move {
                if is_stalled {
                    std::future::pending::<()>().await;
                }
                Ok::<(), ()>(())
            }
        };
        let measuring = measure(arrived, Duration::from_millis(1), barrier, |number| {
            measured.borrow_mut().push(number);
        });
        tokio::select! {
            () = measuring => {}
            () = async {
                while waits.get() == 0 {
                    tokio::task::yield_now().await;
                }
                while arrivals.send(4).is_ok() && measured.borrow().is_empty() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            } => {}
        }
        let measured = measured.borrow();
        assert!(!measured.is_empty() && measured.iter().all(|number| *number == 4), "{measured:?}");
    }
}
