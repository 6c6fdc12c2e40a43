//! The end: whether another agent of this node follows, and then sessions first, so that no router sends here any more,
//! and the addresses after them.

use std::{fmt, time::Duration};

use bgp::{config::ShutdownMode, driver::Handle};

use crate::{
    inputs::{
        daemon_set::Home,
        node::{Leaving, NodeInput},
    },
    interface::Interface,
    settings::OnShutdown,
};

/// How the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Another one follows on this node: addresses stay, and routers keep their routes (RFC 4724).
    Return,
    /// For good: routes and addresses go.
    Leave(Cause),
}

/// Why the agent leaves for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The settings say so.
    Asked,
    /// The node leaves.
    Node(Leaving),
    /// The node is cordoned: who ends the agent of such a node is about to end the node.
    Cordoned,
    /// The DaemonSet is deleted.
    Uninstalled,
    /// The DaemonSet is for other nodes.
    Elsewhere,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Asked => f.write_str("it was asked to end for good"),
            Cause::Node(leaving) => write!(f, "{leaving}"),
            Cause::Cordoned => f.write_str("the node is cordoned"),
            Cause::Uninstalled => f.write_str("its DaemonSet is deleted"),
            Cause::Elsewhere => {
                f.write_str("its DaemonSet is for other nodes, or the node evicts it by a taint")
            }
        }
    }
}

/// Decides by what was seen last, so that it needs nobody: an API server that is gone at that moment changes nothing.
/// Where nothing speaks for leaving, the agent comes back: an update, a new configuration, a container that is restarted.
pub fn decide(mode: OnShutdown, node: Option<&NodeInput>, home: Home) -> Ending {
    match mode {
        OnShutdown::Keep => return Ending::Return,
        OnShutdown::Withdraw => return Ending::Leave(Cause::Asked),
        OnShutdown::Auto => {}
    }
    let by_node = |node: &NodeInput| {
        let cordoned = node.is_unschedulable.then_some(Cause::Cordoned);
        node.leaving().map(Cause::Node).or(cordoned)
    };
    let cause = match home {
        Home::Deleted => Some(Cause::Uninstalled),
        Home::Elsewhere => Some(Cause::Elsewhere),
        Home::Here | Home::Unknown => node.and_then(by_node),
    };
    cause.map_or(Ending::Return, Ending::Leave)
}

/// Ends the agent's work on this node. One that ends for good gives routers so long to take other ways (RFC 8326),
/// while its addresses still answer.
pub async fn shut_down(
    ending: Ending,
    drain_wait: Duration,
    node_name: &str,
    speaker: &Handle,
    mut interface: Interface,
) {
    match ending {
        Ending::Return => {
            tracing::info!(addresses = interface.addresses.len(), "another agent follows: addresses stay");
            speaker.shutdown(ShutdownMode::Restart).await;
        }
        Ending::Leave(cause) => {
            tracing::info!(%cause, "leaving for good");
            speaker.shutdown(farewell(cause, drain_wait, node_name, speaker)).await;
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
fn farewell(cause: Cause, drain_wait: Duration, node_name: &str, speaker: &Handle) -> ShutdownMode {
    let text = format!("PureLB's agent on {node_name} is shut down: {cause}");
    let status = speaker.watch_status();
    let has_routes = status.borrow().peers.iter().any(|peer| peer.advertised.iter().any(|count| *count > 0));
    if drain_wait.is_zero() || !has_routes {
        return ShutdownMode::Administrative(text);
    }
    tracing::info!(wait = ?drain_wait, "routes are marked as about to leave (RFC 8326)");
    ShutdownMode::Drain { text, wait: drain_wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_comes_back_unless_its_node_or_its_daemon_set_goes() {
        let node = NodeInput { name: "n1".to_owned(), ..NodeInput::default() };
        let cordoned = NodeInput { is_unschedulable: true, ..node.clone() };
        let going = NodeInput { is_shutting_down: true, ..cordoned.clone() };
        let deleted = NodeInput { is_deleted: true, ..node.clone() };
        let leave = |cause| Ending::Leave(cause);
        for (node, home, ending) in [
            (Some(&node), Home::Here, Ending::Return),
            (Some(&node), Home::Unknown, Ending::Return),
            // Nothing was ever seen: what is on the node is an earlier agent's, and the next one's.
            (None, Home::Unknown, Ending::Return),
            (Some(&node), Home::Deleted, leave(Cause::Uninstalled)),
            (None, Home::Deleted, leave(Cause::Uninstalled)),
            (Some(&node), Home::Elsewhere, leave(Cause::Elsewhere)),
            (Some(&cordoned), Home::Here, leave(Cause::Cordoned)),
            (Some(&going), Home::Here, leave(Cause::Node(Leaving::ShuttingDown))),
            (Some(&deleted), Home::Unknown, leave(Cause::Node(Leaving::Deleted))),
        ] {
            assert_eq!(decide(OnShutdown::Auto, node, home), ending, "{node:?} {home:?}");
            assert_eq!(decide(OnShutdown::Keep, node, home), Ending::Return);
            assert_eq!(decide(OnShutdown::Withdraw, node, home), leave(Cause::Asked));
        }
    }
}
