//! The other nodes, from who is registered (Leases) and who lives (heartbeats), for those that decide by it: the loop,
//! which elects, and the claims, which ask. Messages of other nodes go to the claims, too.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use tokio::sync::{mpsc, watch};

use super::subnets::{LocalInterface, NodeFacts};
use crate::{
    claim::{self, Member},
    liveness::{Incoming, Liveness},
    local_pools::Others,
    members::{self, Roster},
    stores::Stamped,
    world::Input,
};

/// Where it is known from.
#[derive(Debug)]
pub struct Sources {
    /// This node's own interfaces and subnets.
    pub facts: watch::Receiver<Option<NodeFacts>>,
    /// Who is registered.
    pub roster: watch::Receiver<Option<Arc<Roster>>>,
    /// Who lives; for ever empty where there are no heartbeats.
    pub liveness: watch::Receiver<Arc<Liveness>>,
    /// What other nodes say.
    pub incoming: mpsc::UnboundedReceiver<Incoming>,
}

/// Who is told.
#[derive(Debug)]
pub struct Listeners {
    /// The loop.
    pub changes: mpsc::Sender<Stamped<Input>>,
    /// The claims.
    pub claims: mpsc::UnboundedSender<claim::Input>,
}

/// Tells of each change until the claims do not listen any more: they do longer than the loop and whoever observes this
/// node, whose end comes before it leaves. Nothing is said of other nodes before all Leases have been listed once.
pub async fn tell(node: Arc<str>, mut sources: Sources, listeners: Listeners) {
    let mut told = None;
    loop {
        let news = tokio::select! {
            Ok(()) = sources.facts.changed() => sources.facts.borrow_and_update().clone().map(Input::Facts),
            Ok(()) = sources.roster.changed() => None,
            Ok(()) = sources.liveness.changed() => None,
            Some(Incoming { from, octets }) = sources.incoming.recv() => {
                if listeners.claims.send(claim::Input::Payload { from, octets }).is_err() {
                    return;
                }
                continue;
            }
            () = listeners.claims.closed() => return,
        };
        if let Some(value) = news {
            // The loop may have ended.
            let _ = listeners.changes.send(Stamped { at: Instant::now(), value }).await;
        }
        let Some(roster) = sources.roster.borrow_and_update().clone() else { continue };
        let liveness = sources.liveness.borrow_and_update().clone();
        let facts = sources.facts.borrow().clone();
        let alone = facts.map(|facts| alone(&facts, &liveness)).unwrap_or_default();
        let now = (others(&node, &roster, &liveness), members(&node, &roster, &liveness), alone);
        if told.as_ref() == Some(&now) {
            continue;
        }
        let (others, members, alone) = now.clone();
        told = Some(now);
        // First: what follows from the others' deaths is not to be claimed before it is known whether anything is heard.
        let _ = listeners.claims.send(claim::Input::Alone(alone));
        if listeners.claims.send(claim::Input::Members(members)).is_err() {
            return;
        }
        let value = Input::Others(others);
        let _ = listeners.changes.send(Stamped { at: Instant::now(), value }).await;
    }
}

/// Who else stands for election, subnet by subnet, and who can ask for an address.
fn others(own: &str, roster: &Roster, liveness: &Liveness) -> Others {
    let mut others = Others::default();
    for (node, member) in roster.iter().filter(|(node, _)| &***node != own) {
        let serves = member.subnets.iter().filter(|subnet| liveness.can_serve(subnet, node, member));
        let subnets: BTreeSet<_> = serves.copied().collect();
        if !subnets.is_empty() {
            others.electorate.insert(node.clone(), subnets);
        }
        if liveness.can_ask(node) {
            others.reachable.insert(node.clone());
        }
    }
    others
}

/// The interfaces on one of whose subnets no other node is heard, though there are some. Where one of another subnet of the
/// interface is, the wire is soon heard, too.
fn alone(facts: &NodeFacts, liveness: &Liveness) -> Vec<u32> {
    let is_alone =
        |interface: &&LocalInterface| interface.subnets.keys().any(|subnet| liveness.is_alone(subnet));
    facts.interfaces.iter().filter(is_alone).map(|interface| interface.index).collect()
}

/// The other nodes as the claims have to know them, in the order of their names. Whose Ethernet address it is that
/// answers, Leases say, so that it is known without heartbeats, too, of a node that is dead when this agent starts, and of
/// one with another key.
fn members(own: &str, roster: &Roster, liveness: &Liveness) -> Vec<Member> {
    let member = |(node, registered): (&Arc<str>, &members::Member)| {
        let heard = liveness.is_alive(node);
        let macs: BTreeSet<_> = registered.macs.iter().copied().chain(liveness.macs(node)).collect();
        Member {
            name: node.clone(),
            macs: macs.into_iter().collect(),
            is_alive: heard.unwrap_or(registered.is_live),
            takes_messages: heard == Some(true),
        }
    };
    roster.iter().filter(|(node, _)| &***node != own).map(member).collect()
}

#[cfg(test)]
mod tests {
    use netlink::Mac;

    use super::*;

    #[test]
    fn a_node_that_is_not_heard_is_known_by_the_addresses_on_its_lease() {
        let macs = [Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 9])];
        let registered = |is_live| members::Member {
            subnets: ["192.0.2.0/24".parse().unwrap()].into(),
            heartbeats: BTreeSet::new(),
            macs: macs.into(),
            agent: None,
            is_live,
        };
        let roster = [("n1".into(), registered(true)), ("n2".into(), registered(false))].into();
        let members = members("n1", &roster, &Liveness::default());
        let expected =
            Member { name: "n2".into(), macs: macs.to_vec(), is_alive: false, takes_messages: false };
        assert_eq!(members, [expected]);
    }
}
