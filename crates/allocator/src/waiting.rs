//! Who waits for what. What could cure a reason wakes exactly those that wait on it, oldest first.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use api::IpFamily;
use foldhash::fast::RandomState;

use crate::{
    inputs::{Service, ServiceKey, Word, group::GroupChanges},
    select::Problem,
};

/// What a Service that cannot be served waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The group appears, is accepted, or changes.
    Group(Word),
    /// In this namespace groups say something else, or the group changes.
    Boundary(Word, Word),
    /// Any group appears or changes.
    AnyGroup,
    /// An address of the family in the group is freed, or the group changes.
    Room(Word, IpFamily),
    /// With `multiPool`: an address of the family in the group is freed, one of its subnets comes to have a live
    /// node, or the group changes.
    Ranges(Word, IpFamily),
    /// The address is freed by somebody or left by a stranger, or a holder of it changes.
    Address(IpAddr),
    /// The IPAM provider of this group answers again.
    Provider(Word),
    /// In this namespace somebody who has this sharing key changes, comes to an address or leaves one.
    Key(Box<str>, Word),
    /// Any of these, none of which is such a list itself: where one family of two would be enough, say.
    Either(Box<[Wait]>),
}

/// Words for what is waited for, in the order of [`Wait::number`]; the last one is for those whom only their owner can
/// help.
const REASONS: [&str; 9] =
    ["group", "namespace", "any_group", "room", "ranges", "address", "provider", "sharing_key", "owner"];

impl Wait {
    /// What cures one of the two.
    pub fn either(one: Option<Wait>, other: Option<Wait>) -> Option<Wait> {
        let (Some(one), Some(other)) = (&one, &other) else { return one.or(other) };
        let mut parts = one.parts().to_vec();
        parts.extend(other.parts().iter().filter(|part| !one.parts().contains(part)).cloned());
        if parts.len() == 1 { parts.pop() } else { Some(Wait::Either(parts.into())) }
    }

    /// What is waited for, one by one.
    pub fn parts(&self) -> &[Wait] {
        match self {
            Wait::Either(parts) => parts,
            one => std::slice::from_ref(one),
        }
    }

    /// Its place in [`REASONS`]; of several the first counts.
    fn number(wait: Option<&Wait>) -> usize {
        match wait.and_then(|wait| wait.parts().first()) {
            Some(Wait::Group(_)) => 0,
            Some(Wait::Boundary(..)) => 1,
            Some(Wait::AnyGroup) => 2,
            Some(Wait::Room(..)) => 3,
            Some(Wait::Ranges(..)) => 4,
            Some(Wait::Address(_)) => 5,
            Some(Wait::Provider(_)) => 6,
            Some(Wait::Key(..)) => 7,
            Some(Wait::Either(_)) | None => 8,
        }
    }
}

/// Creation time and key: the order in which Services are served.
type Turn = (i64, ServiceKey);

/// One that waits.
#[derive(Clone, Debug)]
pub struct Waiter {
    turn: Turn,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// Beside that, somebody whom it could share with would cure it.
    partner: Option<Wait>,
    /// Its group was chosen by its namespace: what groups say about that may cure it, too.
    by_namespace: bool,
    /// What its owner has been told.
    pub message: String,
}

impl Waiter {
    fn is_on_key(&self) -> bool {
        self.partner.is_some() || self.parts().any(|wait| matches!(wait, Wait::Key(..)))
    }

    /// What it waits for, one by one.
    pub fn parts(&self) -> impl Iterator<Item = &Wait> {
        self.wait.iter().flat_map(Wait::parts)
    }
}

/// Everybody who waits.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    waiters: HashMap<ServiceKey, Waiter, RandomState>,
    by_wait: HashMap<Wait, BTreeSet<Turn>, RandomState>,
    /// Those who wait for something else and have a sharing key, by that.
    by_partner: HashMap<Wait, BTreeSet<Turn>, RandomState>,
    /// How many wait for somebody with their sharing key, for that alone or beside something else.
    on_keys: usize,
    /// How many wait for what, see [`REASONS`].
    counts: [usize; REASONS.len()],
}

impl Waiting {
    /// Puts a Service on the list, or moves it there. Whether the message is news to its owner.
    pub fn add(&mut self, service: &Service, problem: &Problem) -> bool {
        let old = self.remove(&service.key);
        let turn = (service.created, service.key.clone());
        let Problem { wait, message, .. } = problem.clone();
        let parts = || wait.iter().flat_map(Wait::parts);
        for wait in parts() {
            self.by_wait.entry(wait.clone()).or_default().insert(turn.clone());
        }
        let requests = &service.facts.requests;
        let is_for_room = parts().any(|wait| matches!(wait, Wait::Room(..) | Wait::Ranges(..)));
        let key = requests.sharing_key.clone().filter(|_| is_for_room);
        let partner = key.map(|key| Wait::Key(service.key.namespace().into(), key));
        if let Some(partner) = &partner {
            self.by_partner.entry(partner.clone()).or_default().insert(turn.clone());
        }
        let is_news = old.is_none_or(|old| old.message != message);
        let by_namespace = requests.owners_group().is_none() && requests.asks_for_no_addresses();
        let waiter = Waiter { turn, wait, partner, by_namespace, message };
        self.on_keys += usize::from(waiter.is_on_key());
        self.counts[Wait::number(waiter.wait.as_ref())] += 1;
        self.waiters.insert(service.key.clone(), waiter);
        is_news
    }

    /// Takes a Service off the list.
    pub fn remove(&mut self, service: &ServiceKey) -> Option<Waiter> {
        if self.waiters.is_empty() {
            return None;
        }
        let waiter = self.waiters.remove(service)?;
        waiter.parts().for_each(|wait| take_out(&mut self.by_wait, wait, &waiter.turn));
        waiter.partner.iter().for_each(|wait| take_out(&mut self.by_partner, wait, &waiter.turn));
        self.on_keys -= usize::from(waiter.is_on_key());
        self.counts[Wait::number(waiter.wait.as_ref())] -= 1;
        Some(waiter)
    }

    /// What a Service waits for.
    pub fn wait_of(&self, service: &ServiceKey) -> Option<&Wait> {
        self.waiters.get(service)?.wait.as_ref()
    }

    /// Everybody who waits on this, oldest first.
    pub fn on(&self, wait: &Wait) -> Vec<ServiceKey> {
        let turns = [self.by_wait.get(wait), self.by_partner.get(wait)];
        let mut turns: Vec<&Turn> = turns.into_iter().flatten().flatten().collect();
        turns.sort_unstable();
        turns.dedup();
        turns.into_iter().map(|(_, service)| service.clone()).collect()
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

    /// Everybody whom a change of groups may cure, oldest first.
    pub fn on_groups(&self, changes: &GroupChanges) -> Vec<ServiceKey> {
        if changes.is_empty() {
            return Vec::new();
        }
        let mut turns = BTreeSet::new();
        for (wait, waiting) in &self.by_wait {
            let concerned = match wait {
                Wait::AnyGroup | Wait::Key(..) => true,
                Wait::Group(name) | Wait::Provider(name) | Wait::Room(name, _) | Wait::Ranges(name, _) => {
                    changes.has_group(name)
                }
                Wait::Boundary(namespace, group) => {
                    changes.has_group(group) || changes.has_namespace(namespace)
                }
                Wait::Address(address) => changes.has_address(*address),
                // Its parts are in the list.
                Wait::Either(_) => false,
            };
            if concerned {
                turns.extend(waiting.iter().cloned());
            }
        }
        let chosen = self.waiters.values().filter(|waiter| waiter.by_namespace && waiter.wait.is_some());
        let concerned = chosen.filter(|waiter| changes.has_namespace(waiter.turn.1.namespace()));
        turns.extend(concerned.map(|waiter| waiter.turn.clone()));
        turns.into_iter().map(|(_, service)| service).collect()
    }

    /// What is waited on with `multiPool`.
    pub fn on_ranges(&self) -> Vec<Wait> {
        self.by_wait.keys().filter(|wait| matches!(wait, Wait::Ranges(..))).cloned().collect()
    }

    /// Whether anybody waits for somebody with a sharing key.
    pub fn is_any_on_key(&self) -> bool {
        self.on_keys > 0
    }

    /// How many wait for what: a word for every kind of thing that can be waited for, those for which nobody waits
    /// included.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, usize)> {
        REASONS.into_iter().zip(self.counts)
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

fn take_out(waiting: &mut HashMap<Wait, BTreeSet<Turn>, RandomState>, wait: &Wait, turn: &Turn) {
    if let Some(turns) = waiting.get_mut(wait) {
        turns.remove(turn);
        if turns.is_empty() {
            waiting.remove(wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inputs::Groups,
        testing::{groups, service},
    };

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("ns", name)
    }

    /// A Service that was created in that second.
    fn aged(name: &str, created: i64, changes: &str) -> Service {
        Service { created, ..service(name, changes) }
    }

    fn problem(wait: Option<Wait>, message: &str) -> Problem {
        Problem { reason: "test", message: message.to_owned(), wait }
    }

    #[test]
    fn the_oldest_comes_first_and_only_those_that_wait_on_it() {
        let mut waiting = Waiting::default();
        let room = Wait::Room("default".into(), IpFamily::IPv4);
        let group = Wait::Group("routed".into());
        waiting.add(&aged("young", 3, ""), &problem(Some(room.clone()), "full"));
        waiting.add(&aged("old", 1, ""), &problem(Some(room.clone()), "full"));
        waiting.add(&aged("other", 2, ""), &problem(Some(group), "missing"));
        waiting.add(&aged("owner", 0, ""), &problem(None, "banana"));
        assert_eq!(waiting.on(&room), [key("old"), key("young")]);
        assert_eq!(waiting.next_on(&room, None), Some(key("old")));
        assert_eq!(waiting.next_on(&room, Some((1, &key("old")))), Some(key("young")));
        assert_eq!(waiting.next_on(&room, Some((3, &key("young")))), None);
    }

    #[test]
    fn who_waits_is_counted_by_what_it_waits_for() {
        let mut waiting = Waiting::default();
        let waits = [
            ("group", Some(Wait::Group("g".into()))),
            ("namespace", Some(Wait::Boundary("ns".into(), "g".into()))),
            ("any_group", Some(Wait::AnyGroup)),
            ("room", Some(Wait::Room("g".into(), IpFamily::IPv4))),
            ("ranges", Some(Wait::Ranges("g".into(), IpFamily::IPv6))),
            ("address", Some(Wait::Address("192.0.2.1".parse().unwrap()))),
            ("provider", Some(Wait::Provider("g".into()))),
            ("sharing_key", Some(Wait::Key("ns".into(), "k".into()))),
            ("owner", None),
        ];
        for (reason, wait) in waits {
            // The second time it moves.
            waiting.add(&service("a", ""), &problem(wait.clone(), "x"));
            waiting.add(&service(reason, ""), &problem(wait, "x"));
            let counts: Vec<_> = waiting.by_reason().filter(|(_, count)| *count > 0).collect();
            assert!(counts.contains(&(reason, 2)), "{reason}: {counts:?}");
            assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), waiting.len());
        }
        assert!(waiting.is_any_on_key());
        for name in ["a", "sharing_key"] {
            assert!(waiting.remove(&key(name)).is_some());
        }
        assert!(!waiting.is_any_on_key());
        assert_eq!(waiting.by_reason().map(|(_, count)| count).sum::<usize>(), REASONS.len() - 1);
    }

    #[test]
    fn who_waits_for_either_of_two_things_is_woken_by_each_and_counted_once() {
        let mut waiting = Waiting::default();
        let room = |family| Wait::Room("default".into(), family);
        let (four, six) = (room(IpFamily::IPv4), room(IpFamily::IPv6));
        let key_k = Wait::Key("ns".into(), "k".into());
        let either = Wait::either(Some(key_k.clone()), Wait::either(Some(four.clone()), Some(six.clone())));
        assert_eq!(either.as_ref().unwrap().parts(), [key_k.clone(), four.clone(), six.clone()]);
        waiting.add(
            &service("a", "metadata: {annotations: {purelb.io/allow-shared-ip: k}}"),
            &problem(either, "x"),
        );
        for wait in [&key_k, &four, &six] {
            assert_eq!(waiting.on(wait), [key("a")]);
        }
        assert_eq!(waiting.next_on(&six, None), Some(key("a")));
        assert_eq!(waiting.by_reason().map(|(_, count)| count).sum::<usize>(), 1);
        assert!(waiting.is_any_on_key());
        waiting.remove(&key("a"));
        assert!([&key_k, &four, &six].into_iter().all(|wait| waiting.on(wait).is_empty()));
        assert!(!waiting.is_any_on_key());
        assert_eq!(Wait::either(Some(six.clone()), Some(six.clone())), Some(six.clone()));
        assert_eq!(Wait::either(None, Some(six.clone())), Some(six));
    }

    #[test]
    fn an_edit_of_groups_wakes_those_whom_it_can_cure() {
        let pool =
            |last: u8| format!("remote: {{v4pool: {{pool: 192.0.2.{last}/30, subnet: 192.0.2.0/24}}}}");
        let (a, b) = (pool(0), pool(16));
        let listing = format!("{{{b}, namespaces: [ns]}}");
        let enforced = format!("{{{b}, namespaces: [other], enforceNamespaces: true}}");
        let before = groups(&[("a", &a), ("b", &b)]);
        let named = "metadata: {annotations: {purelb.io/service-group: a}}";
        let mut waiting = Waiting::default();
        for (name, changes, wait) in [
            ("room-a", "", Wait::Room("a".into(), IpFamily::IPv4)),
            ("room-a-by-name", named, Wait::Room("a".into(), IpFamily::IPv4)),
            ("group-b", named, Wait::Group("b".into())),
            ("address-a", named, Wait::Address("192.0.2.1".parse().unwrap())),
            ("address-b", named, Wait::Address("192.0.2.17".parse().unwrap())),
            ("any", named, Wait::AnyGroup),
            ("boundary", named, Wait::Boundary("ns".into(), "a".into())),
        ] {
            waiting.add(&service(name, changes), &problem(Some(wait), ""));
        }
        waiting.add(&service("owner", ""), &problem(None, ""));
        let woken = |after: Groups| -> BTreeSet<String> {
            let services = waiting.on_groups(&after.changes_since(&before));
            services.iter().map(|service| service.name().to_owned()).collect()
        };
        let set = |names: &str| -> BTreeSet<String> { names.split(' ').map(str::to_owned).collect() };
        assert_eq!(woken(before.clone()), BTreeSet::new());
        assert_eq!(woken(groups(&[("b", &b)])), set("room-a room-a-by-name address-a any boundary"));
        assert_eq!(woken(groups(&[("a", &a), ("b", &enforced)])), set("group-b address-b any"));
        assert_eq!(
            woken(groups(&[("a", &a), ("b", &listing)])),
            set("room-a group-b address-b any boundary"),
            "what a group says about a namespace concerns whoever follows its namespace"
        );
    }

    #[test]
    fn whoever_waits_for_a_group_is_told_when_it_comes_and_is_refused_and_when_the_reason_is_another() {
        let of = |pool: &str| {
            groups(&[("a", &format!("remote: {{v4pool: {{pool: {pool}, subnet: 192.0.2.0/24}}}}"))])
        };
        let mut waiting = Waiting::default();
        waiting.add(&service("s", ""), &problem(Some(Wait::Group("a".into())), "there is no group a"));
        for (before, after, is_woken) in [
            (Groups::default(), of("banana"), true),
            (of("banana"), of("apple"), true),
            (of("banana"), of("banana"), false),
            (of("banana"), Groups::default(), true),
        ] {
            assert_eq!(!waiting.on_groups(&after.changes_since(&before)).is_empty(), is_woken);
        }
    }

    #[test]
    fn a_message_is_news_once() {
        let mut waiting = Waiting::default();
        let a = service("a", "");
        assert!(waiting.add(&a, &problem(None, "x")));
        assert!(!waiting.add(&a, &problem(None, "x")));
        assert!(waiting.add(&a, &problem(Some(Wait::AnyGroup), "y")));
        assert_eq!(waiting.remove(&key("a")).unwrap().message, "y");
        assert!(waiting.is_empty() && waiting.on(&Wait::AnyGroup).is_empty());
    }
}
