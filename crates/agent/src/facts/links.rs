//! The interfaces that peers name: one task an interface reports its index, each time that it is another one. Sessions
//! are bound to the index, so that an interface that comes late, or is made anew, needs them anew.

use std::time::{Duration, Instant};

use netlink::{Monitor, MonitorError};
use nix::net::if_::if_nametoindex;
use tokio::sync::mpsc;

use crate::{stores::Stamped, world::Input};

/// Wait after the kernel's notifications have failed.
const RETRY: Duration = Duration::from_secs(2);

/// Watches an interface until the receiver is gone.
pub async fn watch(interface: String, changes: mpsc::Sender<Stamped<Input>>) {
    let mut told = None;
    loop {
        let Err(error) = follow(&interface, &mut told, &changes).await else { return };
        tracing::warn!(%interface, %error, "the kernel's notifications end, opening them anew");
        tokio::time::sleep(RETRY).await;
    }
}

/// Ends with `Ok` where nobody wants to know any more.
async fn follow(
    interface: &str,
    told: &mut Option<Option<u32>>,
    changes: &mpsc::Sender<Stamped<Input>>,
) -> Result<(), MonitorError> {
    let mut monitor = Monitor::open([interface.to_owned()])?;
    loop {
        let index = if_nametoindex(interface).ok();
        if *told != Some(index) {
            *told = Some(index);
            let value = Input::Link(interface.to_owned(), index);
            if changes.send(Stamped { at: Instant::now(), value }).await.is_err() {
                return Ok(());
            }
        }
        monitor.next().await?;
    }
}
