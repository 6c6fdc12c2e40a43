//! The routers at the other ends of unnumbered sessions: one task an interface listens to its Router Advertisements,
//! advertises this node there, and reports the router's link-local address.

use std::{
    io,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use netlink::RouterDiscovery;
use tokio::sync::mpsc;

use crate::{stores::Stamped, world::Input};

/// Between two attempts on an interface that is not there, or down.
const RETRY: Duration = Duration::from_secs(2);

/// Watches an interface until the receiver is gone.
pub async fn watch(interface: String, changes: mpsc::Sender<Stamped<Input>>) {
    let mut trouble = None;
    loop {
        let Err(error) = discover(&interface, &changes).await else { return };
        let error = error.to_string();
        if trouble.as_ref() != Some(&error) {
            tracing::warn!(%interface, %error, "cannot listen to Router Advertisements, trying again");
            trouble = Some(error);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Ends with `Ok` where nobody wants to know any more.
async fn discover(interface: &str, changes: &mpsc::Sender<Stamped<Input>>) -> io::Result<()> {
    let mut discovery = RouterDiscovery::open(interface)?;
    loop {
        let router: Ipv6Addr = discovery.changed().await?;
        tracing::info!(%interface, %router, "router heard");
        let value = Input::Router(interface.to_owned(), router);
        if changes.send(Stamped { at: Instant::now(), value }).await.is_err() {
            return Ok(());
        }
    }
}
