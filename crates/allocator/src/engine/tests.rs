//! Random histories against what must never happen: one address with two owners, an address that is published
//! and free in the books, an address that nobody has and that is not free.
//!
//! The world is small: a server with versions, a cache that lags, writes whose answers get lost, restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    apply::status_patch,
    assign::Write,
    inputs::compact::ShortText,
    testing::{self, groups, merge, object, read},
};

const NAMES: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    /// The owner creates the Service or edits it into this variant.
    Apply(usize, usize),
    Delete(usize),
    /// The watch delivers what the server has.
    Deliver(usize),
    /// The loop comes to the Service.
    Decide(usize),
    /// The API server answers the write.
    Answer(usize),
    /// The write is applied, but the answer is lost; it will be sent again.
    LoseAnswer(usize),
    /// A write that came too late is tried again, from what is known.
    Retry(usize),
    /// The allocator is killed and starts again.
    Restart,
    /// The groups become these.
    Groups(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES;
    prop_oneof![
        3 => (name.clone(), 0_usize..9).prop_map(|(name, variant)| Step::Apply(name, variant)),
        1 => name.clone().prop_map(Step::Delete),
        6 => name.clone().prop_map(Step::Deliver),
        6 => name.clone().prop_map(Step::Decide),
        5 => name.clone().prop_map(Step::Answer),
        1 => name.clone().prop_map(Step::LoseAnswer),
        1 => name.prop_map(Step::Retry),
        1 => Just(Step::Restart),
        1 => (0_usize..3).prop_map(Step::Groups),
    ]
}

/// Sharing key and port belong to the name: 0 and 1 share, 2 has their key and the port of 1, the rest is alone.
fn spec(name: usize, variant: usize) -> Value {
    let port = [1, 2, 2, 1, 1, 1][name];
    let mut annotations = json!({});
    if name < 3 {
        annotations["purelb.io/allow-shared-ip"] = "k".into();
    }
    let dual = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"});
    let mut spec = json!({"ports": [{"port": port}]});
    match variant {
        0 | 1 => {}
        2 => annotations["purelb.io/addresses"] = "192.0.2.1".into(),
        3 => annotations["purelb.io/addresses"] = "192.0.2.2".into(),
        4 => annotations["purelb.io/service-group"] = "v4only".into(),
        5 => merge(&mut spec, dual),
        6 => merge(&mut spec, json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"})),
        7 => spec["type"] = "ClusterIP".into(),
        _ => annotations["purelb.io/re-evaluate"] = "true".into(),
    }
    json!({"metadata": {"annotations": annotations}, "spec": spec})
}

fn groups_variant(variant: usize) -> Groups {
    let default = "remote: {v4pool: {pool: 192.0.2.0/30, subnet: 192.0.2.0/24, aggregation: /32}, \
                   v6pool: {pool: 'fd00:1::/126', subnet: 'fd00:1::/64', aggregation: /128}}";
    let smaller = "remote: {v4pool: {pool: 192.0.2.2-192.0.2.3, subnet: 192.0.2.0/24, aggregation: /32}}";
    let v4only = "remote: {v4pool: {pool: 203.0.113.0/31, subnet: 203.0.113.0/24, aggregation: /32}}";
    match variant {
        0 => groups(&[("default", default), ("v4only", v4only)]),
        1 => groups(&[("default", smaller), ("v4only", v4only)]),
        _ => groups(&[("v4only", v4only), ("other", default)]),
    }
}

#[derive(Default)]
struct World {
    server: BTreeMap<usize, Value>,
    version: u64,
    engine: Engine,
    groups: usize,
    cache: BTreeMap<usize, Service>,
    /// Written from this version with this decision; `true`: applied, but nobody knows.
    in_flight: BTreeMap<usize, (Service, Write, bool)>,
    /// A write came too late: until the cache has a newer version nothing is decided.
    outdated: BTreeMap<usize, ShortText>,
}

impl World {
    fn store(&mut self, name: usize, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.server.insert(name, object);
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Apply(name, variant) => self.apply(name, variant),
            Step::Delete(name) => drop(self.server.remove(&name)),
            Step::Deliver(name) => self.deliver(name),
            Step::Decide(name) => drop(self.decide(name)),
            Step::Answer(name) => self.answer(name),
            Step::LoseAnswer(name) => self.lose_answer(name),
            Step::Retry(name) => drop(self.outdated.remove(&name)),
            Step::Restart => self.restart(),
            Step::Groups(variant) => {
                self.groups = variant;
                self.engine.set_groups(groups_variant(variant));
            }
        }
    }

    fn apply(&mut self, name: usize, variant: usize) {
        let fresh = |version| {
            let mut object = object(&format!("s{name}"), "");
            object["metadata"]["uid"] = format!("{name}-{version}").into();
            object
        };
        let version = self.version;
        let mut object = self.server.get(&name).cloned().unwrap_or_else(|| fresh(version));
        for annotation in ["addresses", "service-group", "re-evaluate"] {
            let annotations = object["metadata"]["annotations"].as_object_mut();
            annotations.map(|a| a.remove(&format!("purelb.io/{annotation}")));
        }
        object["spec"] = testing::object("x", "")["spec"].clone();
        merge(&mut object, spec(name, variant));
        self.store(name, object);
    }

    fn deliver(&mut self, name: usize) {
        let found = self.server.get(&name).and_then(read);
        match &found {
            Some(service) => drop(self.cache.insert(name, service.clone())),
            None => drop(self.cache.remove(&name)),
        }
        if self.in_flight.contains_key(&name) {
            return;
        }
        match &found {
            Some(service) if self.outdated.get(&name) == Some(&service.resource_version) => {}
            Some(service) => {
                self.outdated.remove(&name);
                self.engine.sync(service);
            }
            None => {
                self.outdated.remove(&name);
                self.engine.forget(&ServiceKey::new("ns", &format!("s{name}")));
            }
        }
    }

    /// Whether something was to be written.
    fn decide(&mut self, name: usize) -> bool {
        if self.in_flight.contains_key(&name) || self.outdated.contains_key(&name) {
            return false;
        }
        let Some(service) = self.cache.get(&name) else { return false };
        let Decision::Write(write) = self.engine.decide(service, Edge::default()).decision else {
            return false;
        };
        self.in_flight.insert(name, (service.clone(), write, false));
        true
    }

    /// Whether the write is applied: on condition of the version.
    fn write(&mut self, name: usize) -> bool {
        let (service, write, _) = &self.in_flight[&name];
        let Some(mut object) = self.server.get(&name).cloned() else { return false };
        if object["metadata"]["resourceVersion"] != *service.resource_version {
            return false;
        }
        merge(&mut object, status_patch(&service.resource_version, write));
        self.store(name, object);
        true
    }

    fn lose_answer(&mut self, name: usize) {
        if self.in_flight.contains_key(&name) && self.write(name) {
            self.in_flight.entry(name).and_modify(|(_, _, applied)| *applied = true);
        }
    }

    fn answer(&mut self, name: usize) {
        let Some((service, ..)) = self.in_flight.get(&name) else { return };
        let (key, version) = (service.key.clone(), service.resource_version.clone());
        let confirmed = self.write(name);
        self.in_flight.remove(&name);
        if !self.server.contains_key(&name) {
            self.engine.forget(&key);
            self.cache.remove(&name);
        } else if confirmed {
            self.deliver(name);
        } else {
            // A conflict. What is published is known only once a newer version has been seen.
            match self.cache.get(&name).cloned() {
                Some(cached) if cached.resource_version == version => {
                    drop(self.outdated.insert(name, version));
                }
                Some(cached) => drop(self.engine.sync(&cached)),
                None => drop(self.engine.forget(&key)),
            }
        }
    }

    fn restart(&mut self) {
        *self = World {
            server: std::mem::take(&mut self.server),
            version: self.version,
            groups: self.groups,
            ..World::default()
        };
        self.engine.set_groups(groups_variant(self.groups));
        for name in 0..NAMES {
            self.deliver(name);
        }
    }

    fn settle(&mut self) {
        for _ in 0..NAMES * 4 {
            for name in 0..NAMES {
                self.answer(name);
                self.deliver(name);
                self.decide(name);
            }
        }
    }

    fn published(&self) -> BTreeMap<IpAddr, Vec<usize>> {
        let mut published: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
        for (name, object) in &self.server {
            for address in read(object).iter().flat_map(|service| &service.facts.ingress) {
                published.entry(*address).or_default().push(*name);
            }
        }
        published
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (address, names) in self.published() {
            prop_assert!(
                matches!(names.as_slice(), [_] | [0, 1] | [0, 2]),
                "{address} is published for {names:?}"
            );
            for name in names {
                let held = self.engine.ledger().held_by(&ServiceKey::new("ns", &format!("s{name}")));
                prop_assert!(
                    held.contains(&address),
                    "{address} of s{name} is published and not in the books"
                );
            }
        }
        Ok(())
    }

    /// Once everything has come to rest, the books are what is published, and nothing is written any more.
    fn check_settled(&mut self) -> Result<(), TestCaseError> {
        let published = self.published();
        let in_books: BTreeSet<IpAddr> =
            self.engine.ledger().services().flat_map(|(_, addresses)| addresses.to_vec()).collect();
        prop_assert_eq!(&in_books, &published.keys().copied().collect::<BTreeSet<_>>());
        for name in 0..NAMES {
            prop_assert!(!self.decide(name), "s{name} is written again and again");
        }
        self.restart();
        for name in 0..NAMES {
            prop_assert!(!self.decide(name), "s{name} is written after a restart");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn one_address_has_one_owner_whatever_happens(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        world.restart();
        for step in &steps {
            world.run(step);
            world.check()?;
        }
        world.settle();
        world.check()?;
        world.check_settled()?;
    }
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("ns", name)
}

/// What a confirmed write leaves on the Service.
fn publish(engine: &mut Engine, name: &str, changes: &str) -> Vec<ServiceKey> {
    let mut object = object(name, changes);
    let service = read(&object).unwrap();
    let Decision::Write(write) = engine.decide(&service, Edge::default()).decision else {
        panic!("{name} is not served")
    };
    merge(&mut object, status_patch("2", &write));
    engine.sync(&read(&object).unwrap())
}

#[test]
fn a_freed_address_wakes_the_oldest_that_waits_for_room_and_no_other() {
    let mut engine = testing::engine();
    for name in ["a", "b", "c", "d"] {
        publish(&mut engine, name, "");
    }
    for (name, created) in [("young", "2026-01-02"), ("old", "2026-01-01")] {
        let changes = format!("metadata: {{creationTimestamp: '{created}T00:00:00Z'}}");
        let outcome = engine.decide(&testing::service(name, &changes), Edge::default());
        assert!(outcome.is_news && matches!(outcome.decision, Decision::Refuse(_)));
        let again = engine.decide(&testing::service(name, &changes), Edge::default());
        assert!(!again.is_news, "{name} is told twice");
    }
    assert_eq!(engine.forget(&key("b")), [key("old")]);
}

#[test]
fn who_leaves_room_gives_the_next_its_turn() {
    let mut engine = testing::engine();
    for name in ["a", "b", "c", "d"] {
        publish(&mut engine, name, "");
    }
    let old = testing::service("old", "");
    let young = testing::service("young", "metadata: {creationTimestamp: '2026-01-02T00:00:00Z'}");
    engine.decide(&old, Edge::default());
    engine.decide(&young, Edge::default());
    engine.forget(&key("a"));
    assert_eq!(engine.forget(&key("b")), [key("old")]);
    let outcome = engine.decide(&old, Edge::default());
    assert!(matches!(outcome.decision, Decision::Write(_)));
    assert_eq!(outcome.woken, [key("young")]);
}

#[test]
fn a_group_that_appears_wakes_those_that_wait_for_it() {
    let mut engine = Engine::default();
    engine.decide(&testing::service("a", ""), Edge::default());
    engine.decide(
        &testing::service("b", "metadata: {annotations: {purelb.io/service-group: x}}"),
        Edge::default(),
    );
    assert_eq!(engine.set_groups(groups_variant(0)), [key("a")]);
    assert!(engine.set_groups(groups_variant(0)).is_empty(), "nothing has changed");
}

#[test]
fn a_holder_that_changes_its_ports_wakes_who_shares_and_who_waits() {
    let shared = "{metadata: {annotations: {purelb.io/allow-shared-ip: k}}, spec: {ports: [{port: 1}]}}";
    let other = "{metadata: {annotations: {purelb.io/allow-shared-ip: k}}, spec: {ports: [{port: 2}]}}";
    let mut engine = testing::engine();
    publish(&mut engine, "a", shared);
    publish(&mut engine, "b", other);
    engine.decide(&testing::service("c", shared), Edge::default());
    let mut changed = object("a", shared);
    merge(&mut changed, json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.0"}]}}}));
    merge(&mut changed, json!({"spec": {"ports": [{"port": 3}]}}));
    let woken: BTreeSet<ServiceKey> = engine.sync(&read(&changed).unwrap()).into_iter().collect();
    assert_eq!(woken, BTreeSet::from([key("b"), key("c")]));
}
