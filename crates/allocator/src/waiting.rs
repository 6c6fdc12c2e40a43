//! Who waits for what. What could cure a reason wakes exactly those that wait on it, oldest first.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use api::IpFamily;

use crate::inputs::ServiceKey;

/// What a Service that cannot be served waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The group appears, is accepted, or changes.
    Group(Arc<str>),
    /// Any group appears or changes.
    AnyGroup,
    /// An address of the family in the group is freed, or the group changes.
    Room(Arc<str>, IpFamily),
    /// The address is freed by somebody, or a holder of it changes.
    Address(IpAddr),
    /// In this namespace somebody who has this sharing key changes, comes to an address or leaves one.
    Key(Box<str>, Arc<str>),
}

/// Creation time and key: the order in which Services are served.
type Turn = (i64, ServiceKey);

/// One that waits.
#[derive(Clone, Debug)]
pub struct Waiter {
    turn: Turn,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// What its owner has been told.
    pub message: String,
}

/// Everybody who waits.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    waiters: HashMap<ServiceKey, Waiter>,
    by_wait: HashMap<Wait, BTreeSet<Turn>>,
}

impl Waiting {
    /// Puts a Service on the list, or moves it there. Whether the message is news to its owner.
    pub fn add(&mut self, service: &ServiceKey, created: i64, wait: Option<Wait>, message: &str) -> bool {
        let old = self.remove(service);
        let turn = (created, service.clone());
        if let Some(wait) = &wait {
            self.by_wait.entry(wait.clone()).or_default().insert(turn.clone());
        }
        self.waiters.insert(service.clone(), Waiter { turn, wait, message: message.to_owned() });
        old.is_none_or(|old| old.message != message)
    }

    /// Takes a Service off the list.
    pub fn remove(&mut self, service: &ServiceKey) -> Option<Waiter> {
        if self.waiters.is_empty() {
            return None;
        }
        let waiter = self.waiters.remove(service)?;
        if let Some(wait) = &waiter.wait
            && let Some(turns) = self.by_wait.get_mut(wait)
        {
            turns.remove(&waiter.turn);
            if turns.is_empty() {
                self.by_wait.remove(wait);
            }
        }
        Some(waiter)
    }

    /// What a Service waits for.
    pub fn wait_of(&self, service: &ServiceKey) -> Option<&Wait> {
        self.waiters.get(service)?.wait.as_ref()
    }

    /// Everybody who waits on this, oldest first.
    pub fn on(&self, wait: &Wait) -> Vec<ServiceKey> {
        self.by_wait.get(wait).into_iter().flatten().map(|(_, service)| service.clone()).collect()
    }

    /// The oldest that waits on this and comes after `turn`.
    pub fn next_on(&self, wait: &Wait, after: Option<(i64, &ServiceKey)>) -> Option<ServiceKey> {
        let turns = self.by_wait.get(wait)?;
        let next = match after {
            None => turns.iter().next(),
            Some((created, service)) => {
                use std::ops::Bound::{Excluded, Unbounded};
                turns.range((Excluded((created, service.clone())), Unbounded)).next()
            }
        };
        next.map(|(_, service)| service.clone())
    }

    /// Everybody whom a change of groups may cure: those that wait on one of these groups in any way, and those
    /// that wait on any group.
    pub fn on_groups(&self, names: &BTreeSet<Arc<str>>) -> Vec<ServiceKey> {
        let mut turns = BTreeSet::new();
        for (wait, waiting) in &self.by_wait {
            let concerned = match wait {
                Wait::AnyGroup | Wait::Address(_) | Wait::Key(..) => true,
                Wait::Group(name) | Wait::Room(name, _) => names.contains(name),
            };
            if concerned {
                turns.extend(waiting.iter().cloned());
            }
        }
        turns.into_iter().map(|(_, service)| service).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("ns", name)
    }

    #[test]
    fn the_oldest_comes_first_and_only_those_that_wait_on_it() {
        let mut waiting = Waiting::default();
        let room = Wait::Room("default".into(), IpFamily::IPv4);
        waiting.add(&key("young"), 3, Some(room.clone()), "full");
        waiting.add(&key("old"), 1, Some(room.clone()), "full");
        waiting.add(&key("other"), 2, Some(Wait::Group("routed".into())), "missing");
        waiting.add(&key("owner"), 0, None, "banana");
        assert_eq!(waiting.on(&room), [key("old"), key("young")]);
        assert_eq!(waiting.next_on(&room, None), Some(key("old")));
        assert_eq!(waiting.next_on(&room, Some((1, &key("old")))), Some(key("young")));
        assert_eq!(waiting.next_on(&room, Some((3, &key("young")))), None);
        assert_eq!(waiting.on_groups(&BTreeSet::from(["routed".into()])), [key("other")]);
        assert_eq!(waiting.on_groups(&BTreeSet::from(["default".into()])), [key("old"), key("young")]);
    }

    #[test]
    fn a_message_is_news_once() {
        let mut waiting = Waiting::default();
        assert!(waiting.add(&key("a"), 1, None, "x"));
        assert!(!waiting.add(&key("a"), 1, None, "x"));
        assert!(waiting.add(&key("a"), 1, Some(Wait::AnyGroup), "y"));
        assert_eq!(waiting.remove(&key("a")).unwrap().message, "y");
        assert!(waiting.is_empty() && waiting.on(&Wait::AnyGroup).is_empty());
    }
}
