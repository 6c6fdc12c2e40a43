//! Make before break under policy Local: whether another node has had time to announce a Service by itself, so that this
//! one, whose last endpoints terminate, may withdraw its route at once.
//!
//! Another node announces a moment after its endpoint is ready: its kube-proxy has to know it, and its agent asks for
//! that. Where the only endpoint of a Service moves, nobody would announce it meanwhile, though the old endpoint still
//! serves.
//!
//! Pure: `now` is an argument.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crate::{election::NodeId, key::ObjectKey};

/// Since when other nodes have ready endpoints, of each Service that has endpoints here.
#[derive(Debug)]
pub struct Succession {
    takeover: Duration,
    others: HashMap<ObjectKey, Vec<Other>>,
}

#[derive(Clone, Copy, Debug)]
struct Other {
    node: NodeId,
    /// Absent: for as long as this node has had endpoints itself.
    since: Option<Instant>,
}

impl Succession {
    /// Another node has its routes out after this time.
    pub fn new(takeover: Duration) -> Succession {
        Succession { takeover, others: HashMap::new() }
    }

    /// Takes in which other nodes have ready endpoints. `None`: one of them has had time, or there is none to wait for;
    /// else when the first one will have had.
    pub fn look(&mut self, service: &ObjectKey, nodes: &BTreeSet<NodeId>, now: Instant) -> Option<Instant> {
        let since = self.others.contains_key(service).then_some(now);
        let others = self.others.entry(service.clone()).or_default();
        others.retain(|other| nodes.contains(&other.node));
        for node in nodes {
            if !others.iter().any(|other| other.node == *node) {
                others.push(Other { node: *node, since });
            }
        }
        // The smallest is of one that has always been there, where there is such a one.
        let first = others.iter().map(|other| other.since).min()??;
        Some(first + self.takeover).filter(|at| *at > now)
    }

    /// The Service has no endpoints here.
    pub fn forget(&mut self, service: &ObjectKey) {
        self.others.remove(service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEOVER: Duration = Duration::from_secs(3);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn another_node_is_waited_for_only_while_it_is_new_and_none_is_older() {
        let (mut succession, start) = (Succession::new(TAKEOVER), Instant::now());
        let (key, [a, b, c]) = (ObjectKey::new("x", "web"), ["a", "b", "c"].map(NodeId::of));
        let mut look = |nodes: &[NodeId], secs| {
            succession.look(&key, &nodes.iter().copied().collect(), start + SECOND * secs)
        };
        assert_eq!(look(&[], 0), None, "nobody to wait for");
        assert_eq!(look(&[a], 1), Some(start + SECOND + TAKEOVER));
        assert_eq!(look(&[a, b], 2), Some(start + SECOND + TAKEOVER), "the first that came");
        assert_eq!(look(&[b], 3), Some(start + SECOND * 2 + TAKEOVER), "it has gone again");
        assert_eq!(look(&[b], 5), None);
        assert_eq!(look(&[b, c], 6), None, "one is old enough");
        assert_eq!(look(&[c], 7), Some(start + SECOND * 6 + TAKEOVER), "and now none");
    }

    #[test]
    fn who_was_there_before_this_node_is_not_waited_for() {
        let (mut succession, now) = (Succession::new(TAKEOVER), Instant::now());
        let (key, nodes) = (ObjectKey::new("x", "web"), ["a", "b"].map(|name| [NodeId::of(name)].into()));
        assert_eq!(succession.look(&key, &nodes[0], now), None);
        assert_eq!(succession.look(&key, &nodes[1], now), Some(now + TAKEOVER));
        succession.forget(&key);
        assert_eq!(succession.look(&key, &nodes[1], now), None);
    }
}
