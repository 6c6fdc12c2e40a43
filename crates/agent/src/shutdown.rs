//! The end: sessions first, so that no router sends here any more, then the addresses.

use bgp::{config::ShutdownMode, driver::Handle};

use crate::{interface::Interface, settings::OnShutdown};

/// Ends the agent's work on this node.
pub async fn shut_down(mode: OnShutdown, node_name: &str, speaker: &Handle, mut interface: Interface) {
    match mode {
        OnShutdown::Keep => {
            tracing::info!(addresses = interface.addresses.len(), "leaving, addresses stay");
            speaker.shutdown(ShutdownMode::Restart).await;
        }
        OnShutdown::Withdraw => {
            let text = format!("PureLB's agent on {node_name} is shut down");
            speaker.shutdown(ShutdownMode::Administrative(text)).await;
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
