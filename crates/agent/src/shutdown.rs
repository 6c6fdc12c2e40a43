//! The end: sessions first, so that no router sends here any more, then the addresses.

use std::time::Duration;

use bgp::{config::ShutdownMode, driver::Handle};

use crate::{interface::Interface, settings::OnShutdown};

/// Ends the agent's work on this node. One that ends for good gives routers so long to take other ways (RFC 8326),
/// while its addresses still answer.
pub async fn shut_down(
    mode: OnShutdown,
    drain_wait: Duration,
    node_name: &str,
    speaker: &Handle,
    mut interface: Interface,
) {
    match mode {
        OnShutdown::Keep => {
            tracing::info!(addresses = interface.addresses.len(), "leaving, addresses stay");
            speaker.shutdown(ShutdownMode::Restart).await;
        }
        OnShutdown::Withdraw => {
            speaker.shutdown(farewell(drain_wait, node_name, speaker)).await;
            let now = std::time::Instant::now();
            if let Err(error) = interface.look(now).await {
                tracing::warn!(%error, "addresses of an earlier run may stay");
            }
            let addresses: Vec<_> = interface.addresses.held().copied().collect();
            interface.remove(&addresses, now).await;
            // All that carry our mark, an earlier run's too.
            let blackholes = interface.blackholes().await;
            interface.remove_blackholes(&blackholes).await;
            tracing::info!(
                addresses = addresses.len(),
                left = interface.addresses.len(),
                "withdrawn, addresses removed"
            );
        }
    }
}

/// How the sessions end: at once where no router has a route of ours that it could take elsewhere.
fn farewell(drain_wait: Duration, node_name: &str, speaker: &Handle) -> ShutdownMode {
    let text = format!("PureLB's agent on {node_name} is shut down");
    let status = speaker.watch_status();
    let has_routes = status.borrow().peers.iter().any(|peer| peer.advertised.iter().any(|count| *count > 0));
    if drain_wait.is_zero() || !has_routes {
        return ShutdownMode::Administrative(text);
    }
    tracing::info!(wait = ?drain_wait, "routes are marked as about to leave (RFC 8326)");
    ShutdownMode::Drain { text, wait: drain_wait }
}
