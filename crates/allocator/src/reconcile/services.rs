//! Carries out what the desk wants done about Services: requests, pauses, events, metrics, logs.

use std::{collections::HashSet, time::Duration};

use api::names::event;
use kube::{
    Api,
    api::{ListParams, ObjectList},
};

use super::{Done, Term};
use crate::{
    apply::group_of,
    assign::Note,
    desk::{Effect, Order},
    events::EventType,
    inputs::{Groups, Service, ServiceKey, group::Picking, object::ServiceObject},
    metrics::{PoolLabels, RejectionLabels},
    select::Problem,
};

/// So many names of groups that there are not become labels.
const UNKNOWN_NAMES: usize = 32;
/// How long the API server may take to show one Service.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

impl Term {
    /// Does what the desk wants done.
    pub(super) fn carry_out(&mut self) {
        while let Some(effect) = self.desk.poll_effect() {
            match effect {
                Effect::Send(order, pause) => self.send(order, pause),
                Effect::Retry(service, pause) => {
                    self.tasks.spawn(async move {
                        tokio::time::sleep(with_jitter(pause)).await;
                        Done::Retry(service)
                    });
                }
                Effect::Look(service) => self.look(service),
                Effect::Rejected(service, problem) => self.tell_problem(&service, &problem),
                // Of two replicas that watch only the one that decides speaks.
                Effect::Advised(service, note) if self.writer.is_some() => {
                    self.surroundings.events.note(&service, &note);
                }
                Effect::Advised(..) => {}
                Effect::Overridden(service, why) => self.tell_policy(&service, why),
                Effect::Confirmed(order) => {
                    self.report(&order);
                    if let Some(service) = self.desk.service(&order.service.key).cloned() {
                        self.warn_of_strangers(&service);
                    }
                }
                Effect::Conflict => drop(self.surroundings.metrics.conflicts.inc()),
                Effect::Touched(addresses) => self.touch_groups(&addresses),
                Effect::Ask(service, ask) => self.ask(&service, ask),
                Effect::Decided(service) => self.decided_without_asking(&service),
            }
        }
    }

    fn send(&mut self, mut order: Box<Order>, pause: Duration) {
        let Some(writer) = self.writer.clone() else { return };
        self.tasks.spawn(async move {
            if !pause.is_zero() {
                tokio::time::sleep(with_jitter(pause)).await;
            }
            let written = writer.send(&mut order).await;
            Done::Service(order, written)
        });
    }

    /// Asks for one Service: as a list of one, because that is what the allocator may do, and because it is as
    /// fresh as a complete list.
    pub(super) fn look(&mut self, service: ServiceKey) {
        let services: Api<ServiceObject> =
            Api::namespaced(self.surroundings.client.clone(), service.namespace());
        let default_class = self.surroundings.settings.is_default_class();
        self.tasks.spawn(async move {
            let params = ListParams::default().fields(&format!("metadata.name={}", service.name()));
            let answer = tokio::time::timeout(LOOK_TIMEOUT, services.list(&params)).await;
            let answer: Result<ObjectList<_>, String> = match answer {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {LOOK_TIMEOUT:?}")),
            };
            match answer {
                Ok(list) => {
                    let object = list.items.first();
                    let found = object.and_then(|object| Service::from_object(object, default_class));
                    Done::Looked(service, found.map(Box::new))
                }
                Err(error) => {
                    tracing::warn!(%service, error, "cannot be looked at");
                    tokio::time::sleep(with_jitter(LOOK_TIMEOUT)).await;
                    Done::Unseen(service)
                }
            }
        });
    }

    fn tell_problem(&mut self, service: &Service, problem: &Problem) {
        tracing::warn!(service = %service.key, reason = problem.reason, why = problem.message, "not served");
        let message = problem.message.clone();
        self.surroundings.events.service(service, EventType::Warning, event::ALLOCATION_FAILED, message);
        let pool = group_of_problem(service, problem, self.desk.groups(), &mut self.unknown_names);
        let labels = RejectionLabels { pool: pool.to_owned(), reason: counted_as(problem.reason).to_owned() };
        self.surroundings.metrics.allocation_rejected.get_or_create(&labels).inc();
    }

    fn tell_policy(&self, service: &Service, why: &str) {
        let note = format!("externalTrafficPolicy is reset to Cluster: {why}");
        self.surroundings.events.service(service, EventType::Normal, event::LOCAL_OVERRIDDEN, note);
    }

    /// Counts what a group gave, by the way it chooses among its pools.
    fn count_allocation(&self, note: &Note) {
        let Note::Assigned(_, group) = note else { return };
        let metrics = &self.surroundings.metrics;
        let counter = match self.desk.groups().get(group).map(|group| group.picking) {
            Some(Picking::LeastUsed) => &metrics.balanced,
            Some(Picking::EveryPool) => &metrics.multi_pool,
            Some(Picking::InOrder) | None => return,
        };
        counter.get_or_create(&PoolLabels { pool: group.to_string() }).inc();
    }

    /// Tells everybody about a write that is confirmed.
    fn report(&self, order: &Order) {
        let surroundings = &self.surroundings;
        let Order { service, write, .. } = order;
        surroundings.metrics.writes.inc();
        if write.ingress.is_some() {
            surroundings.metrics.allocation_seconds.observe(order.seen().elapsed().as_secs_f64());
        }
        tracing::info!(
            service = %service.key,
            addresses = ?write.ingress,
            group = group_of(write),
            micros = order.seen().elapsed().as_micros(),
            "written"
        );
        if let Some(why) = write.cluster_policy {
            self.tell_policy(service, why);
        }
        for note in &write.notes {
            self.count_allocation(note);
            surroundings.events.note(service, note);
        }
    }
}

/// The group that a problem is about. What owners write must not become any number of labels that nobody ever removes:
/// of names that no group has only the first few are, which `unknown` keeps.
fn group_of_problem<'a>(
    service: &'a Service,
    problem: &'a Problem,
    groups: &Groups,
    unknown: &mut HashSet<String>,
) -> &'a str {
    match problem.group().or(service.facts.requests.group.as_deref()) {
        None => "<none>",
        Some(name) if groups.get(name).is_some() || groups.refusal(name).is_some() => name,
        Some(name) if unknown.contains(name) => name,
        Some(name) if unknown.len() < UNKNOWN_NAMES => {
            unknown.insert(name.to_owned());
            name
        }
        Some(_) => "<unknown>",
    }
}

/// The word by which dashboards and alerts of PureLB users know the reason of a problem. Of those that wait each
/// reason has its own word (`purelb_allocator_waiting_services`).
fn counted_as(reason: &str) -> &str {
    match reason {
        "unknown_pool"
        | "namespace_denied"
        | "ambiguous_namespace_default"
        | "no_usable_pool"
        | "exhausted"
        | "port_conflict" => reason,
        _ => "other",
    }
}

/// A pause and up to half of it more, so that not everybody comes back at once; never less, for it may be what the
/// API server has asked for.
pub(super) fn with_jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(1.0..1.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{groups, service};

    #[test]
    fn of_the_names_of_groups_that_there_are_not_only_a_few_become_labels() {
        let pool = "remote: {v4pool: {pool: 192.0.2.0/30, subnet: 192.0.2.0/24}}";
        let groups = groups(&[("default", pool), ("refused", pool)]);
        let mut unknown = HashSet::new();
        let mut label = |name: &str| {
            let service =
                service("a", &format!("metadata: {{annotations: {{purelb.io/service-group: {name}}}}}"));
            let problem = crate::select::named(name, &groups).err();
            let problem = problem.unwrap_or_else(|| Problem::of_owner("bad", String::new()));
            group_of_problem(&service, &problem, &groups, &mut unknown).to_owned()
        };
        for number in 0..UNKNOWN_NAMES {
            assert_eq!(label(&format!("nope-{number}")), format!("nope-{number}"));
        }
        for (name, expected) in
            [("one-more", "<unknown>"), ("nope-0", "nope-0"), ("default", "default"), ("refused", "refused")]
        {
            assert_eq!(label(name), expected);
        }
        let (plain, problem) = (service("a", ""), Problem::of_owner("bad", String::new()));
        assert_eq!(group_of_problem(&plain, &problem, &groups, &mut unknown), "<none>");
    }

    #[test]
    fn rejections_are_counted_by_the_words_that_dashboards_of_purelb_know() {
        for reason in ["unknown_pool", "namespace_denied", "no_usable_pool", "exhausted", "port_conflict"] {
            assert_eq!(counted_as(reason), reason);
        }
        assert_eq!(counted_as("provider_unavailable"), "other");
        let missing = crate::select::named("nope", &groups(&[])).unwrap_err();
        assert_eq!(counted_as(missing.reason), "unknown_pool");
    }
}
