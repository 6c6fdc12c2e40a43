//! A small world around the desk: a server with versions that refuses what comes too late, a watch that lags, an
//! API that answers, loses answers and delays requests, and an allocator that is killed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    invariants::History,
    provider::Provider,
    spec::{NAMES, Spec, groups_variant, live_variant, namespace, ports},
};
use crate::{
    apply::{policy_patch, status_patch},
    desk::{Desk, Effect, Order, Written},
    inputs::{Service, ServiceKey},
    testing::{self, merge, read},
};

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The owner creates the Service or edits it into this.
    Apply(usize, Spec),
    /// The owner of the Service, if there is one, changes nothing but its sharing key and its ports.
    Share(usize, Option<&'static str>, u8),
    Delete(usize),
    /// Somebody else changes the Service where it means nothing to us.
    Touch(usize),
    /// The watch delivers its next changes.
    Watch(usize),
    /// The watch breaks off; everything is listed again.
    List,
    Decide,
    /// For a while all goes well: what is there to be seen, decided, answered is.
    Calm,
    /// The request of this Service reaches the API server, or what else becomes of it.
    Send(usize, Fate),
    /// The answer reaches us.
    Answer(usize),
    /// A delayed request comes in after all.
    Late,
    /// A pause is over, a look is answered.
    Pauses,
    /// The allocator is killed, or another replica takes over.
    Restart,
    Groups(usize),
    /// Nodes come and go.
    Live(usize),
    /// The next thing between this Service and the IPAM provider; `false`: the answer, if it is one, is lost.
    Provide(usize, bool),
    /// So many seconds later.
    Later(i64),
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    /// It is applied, the answer is lost.
    AnswerLost,
    /// It never arrives.
    Lost,
    /// It arrives, long after we have given up waiting.
    Delayed,
    /// 409, for no reason that we could see.
    Conflict,
    /// 422.
    Refused,
    /// 500.
    Broken,
}

/// A request on its way: a patch, and whether it is on the status.
type Request = (usize, Value);

#[derive(Default)]
pub(super) struct World {
    pub(super) server: BTreeMap<usize, Value>,
    /// The same as the allocator would read it.
    pub(super) read: BTreeMap<usize, Service>,
    pub(super) desk: Desk,
    pub(super) groups: usize,
    pub(super) live: usize,
    pub(super) provider: Provider,
    pub(super) history: History,
    /// Seconds.
    now: i64,
    version: u64,
    watch: VecDeque<(usize, Option<Value>)>,
    /// Under way, and what the API server has said.
    orders: BTreeMap<usize, (Box<Order>, Option<Written>)>,
    delayed: VecDeque<Request>,
    retries: VecDeque<(ServiceKey, Duration)>,
    looks: VecDeque<ServiceKey>,
    /// What owners are told, but for what is told with a write that is confirmed.
    pub(super) told: Vec<(ServiceKey, String)>,
}

pub(super) fn key(name: usize) -> ServiceKey {
    ServiceKey::new(namespace(name), &format!("s{name}"))
}

pub(super) fn name(key: &ServiceKey) -> usize {
    key.name()[1..].parse().unwrap()
}

impl World {
    pub(super) fn new() -> World {
        let mut world = World::default();
        world.restart();
        world
    }

    pub(super) fn run(&mut self, step: &Step) {
        match step {
            Step::Apply(name, spec) => self.apply(*name, spec),
            Step::Share(name, key, ports) => self.share(*name, *key, *ports),
            Step::Delete(name) => self.delete(*name),
            Step::Touch(name) => self.touch(*name),
            Step::Watch(count) => self.watch(*count),
            Step::List => self.list(),
            Step::Decide => drop(self.desk.decide_next()),
            Step::Calm => self.calm(),
            Step::Send(name, fate) => self.exchange(*name, *fate),
            Step::Answer(name) => self.answer(*name),
            Step::Late => self.late(),
            Step::Pauses => self.pauses(),
            Step::Restart => self.restart(),
            Step::Provide(name, is_answered) => {
                self.provider.step(&key(*name), &mut self.desk, *is_answered);
            }
            Step::Later(secs) => self.later(*secs),
            Step::Groups(variant) => {
                self.groups = *variant;
                self.desk.set_groups(groups_variant(*variant), Instant::now());
            }
            Step::Live(variant) => {
                self.live = *variant;
                self.desk.set_live(live_variant(*variant), Instant::now());
            }
        }
        self.carry_out();
    }

    fn store(&mut self, name: usize, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let new = read(&object);
        let old = match &new {
            Some(new) => self.read.insert(name, new.clone()),
            None => self.read.remove(&name),
        };
        self.history.on_stored(name, old.as_ref(), new.as_ref(), self.desk.engine.reservations());
        self.watch.push_back((name, Some(object.clone())));
        self.server.insert(name, object);
    }

    fn apply(&mut self, name: usize, spec: &Spec) {
        let mut object = self.server.get(&name).cloned().unwrap_or_else(|| {
            let mut object = testing::object(&format!("s{name}"), "");
            object["metadata"]["namespace"] = namespace(name).into();
            object["metadata"]["uid"] = format!("{name}-{}", self.version).into();
            let created = format!("2026-01-01T00:00:{:02}Z", self.version / 4 % 60);
            object["metadata"]["creationTimestamp"] = created.into();
            object["metadata"]["annotations"] = json!({});
            object
        });
        if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
            for annotation in
                ["addresses", "service-group", "allow-shared-ip", "allow-local", "re-evaluate", "multi-pool"]
            {
                annotations.remove(&format!("purelb.io/{annotation}"));
            }
        }
        object["spec"] = spec.spec();
        merge(&mut object["metadata"]["annotations"], spec.annotations());
        if spec.cluster_ip {
            object.as_object_mut().map(|object| object.remove("status"));
        }
        self.store(name, object);
        self.history.on_edited(name);
    }

    fn share(&mut self, name: usize, key: Option<&str>, bits: u8) {
        let Some(mut object) = self.server.get(&name).cloned() else { return };
        object["spec"]["ports"] = ports(bits).into();
        merge(&mut object["metadata"]["annotations"], json!({"purelb.io/allow-shared-ip": key}));
        self.store(name, object);
        self.history.on_edited(name);
    }

    fn delete(&mut self, name: usize) {
        if self.server.remove(&name).is_some() {
            self.version += 1;
            self.read.remove(&name);
            self.history.on_deleted(name);
            self.watch.push_back((name, None));
        }
    }

    fn touch(&mut self, name: usize) {
        if let Some(mut object) = self.server.get(&name).cloned() {
            object["metadata"]["labels"] = json!({"touched": self.version.to_string()});
            self.store(name, object);
        }
    }

    fn watch(&mut self, count: usize) {
        for _ in 0..count {
            let Some((name, object)) = self.watch.pop_front() else { return };
            match object.as_ref().and_then(read) {
                Some(service) => self.desk.on_service(service.into(), Instant::now()),
                None => self.desk.on_service_gone(&key(name)),
            }
        }
    }

    fn list(&mut self) {
        let begun = Instant::now();
        self.watch.clear();
        self.history.on_listed();
        let services = self.services().into_iter().map(Arc::new).collect();
        self.desk.on_services(services, begun);
    }

    pub(super) fn services(&self) -> Vec<Service> {
        self.read.values().cloned().collect()
    }

    fn calm(&mut self) {
        self.watch(usize::MAX);
        while self.desk.decide_next() {
            self.carry_out();
        }
        self.answer_all();
        self.watch(usize::MAX);
    }

    fn answer_all(&mut self) {
        for name in 0..NAMES {
            self.exchange(name, Fate::Answered);
            self.answer(name);
            self.carry_out();
        }
    }

    fn exchange(&mut self, name: usize, fate: Fate) {
        if self.orders.get(&name).is_none_or(|(_, written)| written.is_some()) {
            return;
        }
        let Some((mut order, _)) = self.orders.remove(&name) else { return };
        let written = self.send(&mut order, fate);
        self.orders.insert(name, (order, Some(written)));
    }

    fn answer(&mut self, name: usize) {
        match self.orders.remove(&name) {
            Some((order, Some(written))) => self.desk.on_answer(order, written, Instant::now()),
            Some(unsent) => drop(self.orders.insert(name, unsent)),
            None => {}
        }
    }

    /// What [`crate::apply::Writer`] does.
    fn send(&mut self, order: &mut Order, fate: Fate) -> Written {
        let write = order.write.clone();
        if write.cluster_policy.is_some() && !order.policy_done {
            // The second of two requests is the more interesting one to fail, but not the only one.
            let fate = if order.unanswered == 0 && fate == Fate::AnswerLost { Fate::Answered } else { fate };
            match self.request(order, policy_patch(&order.version.clone()), fate) {
                Ok(object) if write.ingress.is_none() && write.annotations.is_empty() => {
                    return Written::Done(read(&object).map(Box::new));
                }
                Ok(object) => {
                    let version = object["metadata"]["resourceVersion"].as_str().unwrap();
                    order.policy_confirmed(version.into());
                }
                Err(written) => return written,
            }
        }
        match self.request(order, status_patch(&order.version, &write), fate) {
            Ok(object) => Written::Done(read(&object).map(Box::new)),
            Err(written) => written,
        }
    }

    fn request(&mut self, order: &mut Order, patch: Value, fate: Fate) -> Result<Value, Written> {
        let name = name(&order.service.key);
        match fate {
            Fate::Answered => self.patch(name, patch),
            Fate::AnswerLost => {
                drop(self.patch(name, patch));
                Err(Written::Unknown(None))
            }
            Fate::Lost => Err(Written::Unknown(None)),
            Fate::Delayed => {
                self.delayed.push_back((name, patch));
                Err(Written::Unknown(None))
            }
            Fate::Conflict => Err(Written::Conflict),
            Fate::Refused => Err(Written::Refused("no".to_owned())),
            Fate::Broken => {
                order.trouble = Some("500 no quorum".to_owned());
                Err(Written::Unknown(None))
            }
        }
    }

    fn patch(&mut self, name: usize, patch: Value) -> Result<Value, Written> {
        let Some(mut object) = self.server.get(&name).cloned() else { return Err(Written::Gone) };
        if object["metadata"]["resourceVersion"] != patch["metadata"]["resourceVersion"] {
            return Err(Written::Conflict);
        }
        merge(&mut object, patch);
        self.store(name, object);
        Ok(self.server[&name].clone())
    }

    fn late(&mut self) {
        if let Some((name, patch)) = self.delayed.pop_front() {
            drop(self.patch(name, patch));
        }
    }

    fn pauses(&mut self) {
        if let Some((key, pause)) = self.retries.pop_front() {
            // No request lives that long.
            while pause >= Duration::from_secs(60) && !self.delayed.is_empty() {
                self.late();
            }
            self.desk.on_retry(&key);
        }
        self.provider.wake(&mut self.desk);
        if let Some(key) = self.looks.pop_front() {
            let found = self.read.get(&name(&key)).cloned().map(Arc::new);
            self.history.on_looked(name(&key));
            self.desk.on_looked(&key, found, Instant::now());
        }
    }

    fn later(&mut self, secs: i64) {
        self.now += secs;
        self.desk.advance_to(self.now, Instant::now());
    }

    /// The requests of the old process are applied or lost: that is what the Lease is for. Its reservations are in
    /// the status of the groups.
    pub(super) fn restart(&mut self) {
        let reservations: Vec<_> = self.desk.engine.reservations().iter().cloned().collect();
        self.desk = Desk::default();
        self.orders.clear();
        self.delayed.clear();
        self.retries.clear();
        self.looks.clear();
        self.provider.on_restart();
        self.desk.set_groups(groups_variant(self.groups), Instant::now());
        self.desk.set_live(live_variant(self.live), Instant::now());
        self.list();
        self.later(0);
        self.desk.restore(reservations);
        self.carry_out();
    }

    pub(super) fn carry_out(&mut self) {
        while let Some(effect) = self.desk.poll_effect() {
            match effect {
                Effect::Send(order, _) => {
                    if !order.is_repeated {
                        let under_way = self.orders.values().map(|(order, _)| &**order);
                        self.history.on_decided(&order, &self.desk, under_way);
                    }
                    self.orders.insert(name(&order.service.key), (order, None));
                }
                Effect::Retry(key, pause) => self.retries.push_back((key, pause)),
                Effect::Look(key) => self.looks.push_back(key),
                Effect::Rejected(service, problem) => self.told.push((service.key.clone(), problem.message)),
                Effect::Advised(service, note) => self.told.push((service.key.clone(), format!("{note:?}"))),
                Effect::Overridden(service, why) => self.told.push((service.key.clone(), why.to_owned())),
                Effect::Confirmed(_) | Effect::Conflict | Effect::Touched(_) => {}
                Effect::Decided(key) => self.provider.on_decided(&key),
                Effect::Ask(service, ask) => self.provider.on_ask(&service.key, ask),
            }
        }
    }

    /// Everything is answered and delivered, until nothing is left to do and nothing is reserved any more. Whether
    /// that ends.
    pub(super) fn settle(&mut self) -> bool {
        for _ in 0..200 {
            while !self.delayed.is_empty() {
                self.late();
            }
            self.answer_all();
            self.watch(usize::MAX);
            self.pauses();
            while self.desk.decide_next() {
                self.carry_out();
            }
            self.carry_out();
            let mut is_asked = self.provider.wake(&mut self.desk);
            for name in 0..NAMES {
                is_asked |= self.provider.step(&key(name), &mut self.desk, true);
            }
            let is_quiet = !is_asked && self.orders.is_empty() && self.watch.is_empty();
            if is_quiet && self.retries.is_empty() && self.looks.is_empty() {
                if self.desk.next_deadline().is_none() {
                    return true;
                }
                self.later(60);
            }
        }
        false
    }
}
