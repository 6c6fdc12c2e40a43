//! Tells the loop of this node's subnets and of the other nodes that can serve.

use std::{sync::Arc, time::Instant};

use tokio::sync::{mpsc, watch};

use super::subnets::NodeFacts;
use crate::{local_pools::Others, members::Roster, stores::Stamped, world::Input};

/// Tells of each change until nobody listens. Nothing is said of nodes before all Leases have been listed once.
pub async fn tell(
    mut facts: watch::Receiver<Option<NodeFacts>>,
    mut roster: watch::Receiver<Option<Arc<Roster>>>,
    changes: mpsc::Sender<Stamped<Input>>,
) {
    loop {
        let news = tokio::select! {
            Ok(()) = facts.changed() => facts.borrow_and_update().clone().map(Input::Facts),
            Ok(()) = roster.changed() => {
                roster.borrow_and_update().as_deref().map(|roster| Input::Others(others(roster)))
            }
            else => return,
        };
        if let Some(value) = news
            && changes.send(Stamped { at: Instant::now(), value }).await.is_err()
        {
            return;
        }
    }
}

/// While there are no heartbeats, who lives is what the Leases say, and nobody can be asked for anything.
fn others(roster: &Roster) -> Others {
    let live = roster.iter().filter(|(_, member)| member.is_live);
    let electorate = live.map(|(node, member)| (node.clone(), member.subnets.clone())).collect();
    Others { electorate, ..Others::default() }
}
