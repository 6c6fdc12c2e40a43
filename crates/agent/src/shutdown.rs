//! The end: sessions first, so that no router sends here any more, then the addresses.

use bgp::{config::ShutdownMode, driver::Handle};

use crate::{reconcile::Applied, settings::OnShutdown};

/// Ends the agent's work on this node.
pub async fn shut_down(mode: OnShutdown, node_name: &str, speaker: &Handle, mut applied: Applied) {
    match mode {
        OnShutdown::Keep => {
            tracing::info!(addresses = applied.interface.addresses.len(), "leaving, addresses stay");
            speaker.shutdown(ShutdownMode::Restart).await;
        }
        OnShutdown::Withdraw => {
            let text = format!("PureLB's agent on {node_name} is shut down");
            speaker.shutdown(ShutdownMode::Administrative(text)).await;
            let addresses: Vec<_> = applied.interface.addresses.held().copied().collect();
            applied.interface.remove(&addresses, std::time::Instant::now()).await;
            let blackholes: Vec<_> = applied.routes.blackholes().copied().collect();
            applied.interface.remove_blackholes(&blackholes).await;
            tracing::info!(
                addresses = addresses.len(),
                left = applied.interface.addresses.len(),
                "withdrawn, addresses removed"
            );
        }
    }
}
