//! Events on Services: what this node announces and no longer announces, and what an owner should know. Written
//! in the background, few at a time; when there are too many some are left out, and counted.
//!
//! What every node would say alike is told once for the cluster: the event is named after what it says of whom, so
//! that the API server has it already when the second node comes, or the same one after a restart.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use api::names::event::{ANNOUNCING, CONFIGURATION_WARNING, WITHDRAWN};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use netlink::Mac;
use tokio::sync::mpsc;

use super::reach::Reach;
use crate::{
    holdings::News,
    key::ObjectKey,
    metrics::Metrics,
    plan::{Decision, ServicePlan, Warning},
};

/// Events that may wait.
const QUEUE: usize = 256;
/// Pause between two.
const PACE: Duration = Duration::from_millis(50);
/// Who tells, as the API server is told.
pub(crate) const CONTROLLER: &str = "purelb.io/lbnodeagent";
/// Longest note that the API server takes, in octets.
const NOTE_LIMIT: usize = 1024;

/// One event to write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    service: ObjectKey,
    uid: Arc<str>,
    reason: &'static str,
    text: String,
    /// Every node says it.
    is_of_cluster: bool,
}

impl Note {
    fn service(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(self.service.namespace().to_owned()),
            name: Some(self.service.name().to_owned()),
            uid: Some(self.uid.to_string()),
            ..ObjectReference::default()
        }
    }

    /// The event of the whole cluster: by whatever node, it has the same name.
    fn of_cluster(&self, node_name: &str) -> v1::Event {
        let mut hasher = DefaultHasher::new();
        (&*self.uid, self.reason, &self.text).hash(&mut hasher);
        let service: String = self.service.name().chars().take(200).collect();
        let mut text = self.text.clone();
        while text.len() > NOTE_LIMIT {
            text.pop();
        }
        v1::Event {
            metadata: ObjectMeta {
                namespace: Some(self.service.namespace().to_owned()),
                name: Some(format!("{service}.{:016x}", hasher.finish())),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            action: Some("Announce".to_owned()),
            reason: Some(self.reason.to_owned()),
            note: Some(text),
            regarding: Some(self.service()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(node_name.chars().take(63).collect()),
            type_: Some("Warning".to_owned()),
            ..v1::Event::default()
        }
    }
}

/// Where plans are turned into events.
#[derive(Clone, Debug)]
pub struct Events {
    notes: mpsc::Sender<Note>,
    node_name: Arc<str>,
    interface: Arc<str>,
    metrics: Metrics,
}

impl Events {
    /// Starts the writer.
    pub fn start(client: Client, node_name: &str, interface: &str, metrics: Metrics) -> Events {
        let (notes, queue) = mpsc::channel(QUEUE);
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(node_name.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter);
        tokio::spawn(write(client, node_name.into(), recorder, queue));
        Events { notes, node_name: node_name.into(), interface: interface.into(), metrics }
    }

    /// Tells what changed, once it is so; `reach` says how far the route to an address gets.
    pub fn tell(&self, change: &PlanChange, reach: impl Fn(IpAddr) -> Reach) {
        let (old, new) = (change.old.as_ref(), change.new.as_ref());
        let notes = announcements(&self.node_name, &self.interface, old, new, reach);
        self.notes(&change.key, change.uid.as_ref(), notes);
        self.warn(change);
    }

    /// Tells only what the owner should know.
    pub fn warn(&self, change: &PlanChange) {
        for warning in warnings(change.old.as_ref(), change.new.as_ref()) {
            self.note(
                &change.key,
                change.uid.as_ref(),
                CONFIGURATION_WARNING,
                warning.to_string(),
                warning.is_of_cluster(),
            );
        }
    }

    /// Tells which addresses of local pools this node announces from now on, and which no more.
    pub fn local(&self, news: &News, uid: Option<Arc<str>>, decision: Option<&Decision>) {
        self.notes(&news.service, uid.as_ref(), local(&self.node_name, news, decision));
    }

    /// Tells that someone else answers for an address.
    pub fn stranger(&self, service: &ObjectKey, uid: Option<Arc<str>>, address: IpAddr, mac: Mac) {
        let text = format!(
            "{} does not announce {address}: {mac}, which is none of our nodes, answers for it on its subnet. Take the \
             address from that device, or out of the pool",
            self.node_name
        );
        self.notes(service, uid.as_ref(), vec![(CONFIGURATION_WARNING, text)]);
    }

    /// Tells that a node answers for an address that its agent does not hold.
    pub fn unheld(&self, service: &ObjectKey, uid: Option<Arc<str>>, address: IpAddr, member: &str) {
        let text = format!(
            "{} does not announce {address}: the node {member} answers for it on the subnet, though its agent has not \
             put it there. Where kube-proxy runs in mode IPVS it needs strictARP; else take the address from that node",
            self.node_name
        );
        self.notes(service, uid.as_ref(), vec![(CONFIGURATION_WARNING, text)]);
    }

    fn notes(&self, service: &ObjectKey, uid: Option<&Arc<str>>, notes: Vec<(&'static str, String)>) {
        for (reason, text) in notes {
            self.note(service, uid, reason, text, false);
        }
    }

    fn note(
        &self,
        service: &ObjectKey,
        uid: Option<&Arc<str>>,
        reason: &'static str,
        text: String,
        is_of_cluster: bool,
    ) {
        // A Service that is gone has no events.
        let Some(uid) = uid else { return };
        let note = Note { service: service.clone(), uid: uid.clone(), reason, text, is_of_cluster };
        if self.notes.try_send(note).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

/// The plan of a Service, before and after.
#[derive(Clone, Debug)]
pub struct PlanChange {
    /// The Service.
    pub key: ObjectKey,
    /// Its UID; `None` where it is gone.
    pub uid: Option<Arc<str>>,
    /// Before.
    pub old: Option<ServicePlan>,
    /// After.
    pub new: Option<ServicePlan>,
}

fn routes(plan: Option<&ServicePlan>) -> Vec<IpAddr> {
    plan.map(|plan| plan.routes.iter().map(|network| network.addr()).collect()).unwrap_or_default()
}

fn announcements(
    node: &str,
    interface: &str,
    old: Option<&ServicePlan>,
    new: Option<&ServicePlan>,
    reach: impl Fn(IpAddr) -> Reach,
) -> Vec<(&'static str, String)> {
    let (before, after) = (routes(old), routes(new));
    let list = |addresses: &[IpAddr], others: &[IpAddr]| {
        let changed = addresses.iter().filter(|address| !others.contains(address));
        changed.map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
    };
    // All addresses in one event: of several with the same reason `kubectl describe` shows only the first.
    let come = [Reach::Told, Reach::NoSession, Reach::NoPeer].into_iter().filter_map(|so_far| {
        let after: Vec<_> = after.iter().copied().filter(|address| reach(*address) == so_far).collect();
        let come = Some(list(&after, &before)).filter(|come| !come.is_empty())?;
        Some(match so_far {
            Reach::Told => format!("{node} announces {come}, held on {interface}, by BGP"),
            _ => format!("{node} holds {come} on {interface}, ready for BGP: {so_far}"),
        })
    });
    let come = come.collect::<Vec<_>>().join("; ");
    let gone = list(&before, &after);
    let mut notes = Vec::new();
    if !come.is_empty() {
        notes.push((ANNOUNCING, come));
    }
    if !gone.is_empty() {
        let why = why(new.map(|plan| &plan.decision));
        notes.push((WITHDRAWN, format!("{node} has withdrawn {gone}{why}")));
    }
    notes
}

fn why(decision: Option<&Decision>) -> String {
    match decision {
        Some(Decision::Hold(reason) | Decision::Skip(reason)) => format!(": {reason}"),
        _ => String::new(),
    }
}

fn local(node: &str, news: &News, decision: Option<&Decision>) -> Vec<(&'static str, String)> {
    let mut notes = Vec::new();
    if !news.gained.is_empty() {
        let list = news.gained.iter().map(|(address, interface)| format!("{address} on {interface}"));
        let list = list.collect::<Vec<_>>().join(", ");
        notes.push((ANNOUNCING, format!("{node} announces {list}, by ARP and neighbour discovery")));
    }
    if !news.lost.is_empty() {
        let list = news.lost.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        notes.push((WITHDRAWN, format!("{node} has withdrawn {list}{}", why(decision))));
    }
    notes
}

fn warnings<'a>(old: Option<&ServicePlan>, new: Option<&'a ServicePlan>) -> Vec<&'a Warning> {
    let known: &[Warning] = old.map(|plan| plan.warnings.as_slice()).unwrap_or_default();
    let warnings = new.into_iter().flat_map(|plan| &plan.warnings);
    warnings.filter(|warning| !known.contains(warning)).collect()
}

async fn write(client: Client, node_name: Arc<str>, recorder: Recorder, mut queue: mpsc::Receiver<Note>) {
    while let Some(note) = queue.recv().await {
        if note.is_of_cluster {
            let api = Api::<v1::Event>::namespaced(client.clone(), note.service.namespace());
            match api.create(&PostParams::default(), &note.of_cluster(&node_name)).await {
                // Another node has said it.
                Err(kube::Error::Api(error)) if error.code == 409 => {}
                Err(error) => tracing::debug!(service = %note.service, %error, "event not written"),
                Ok(_) => {}
            }
            tokio::time::sleep(PACE).await;
            continue;
        }
        let regarding = note.service();
        let is_warning = note.reason == CONFIGURATION_WARNING;
        let event = Event {
            type_: if is_warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            note: Some(note.text),
            action: "Announce".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &regarding).await {
            tracing::debug!(service = %note.service, %error, "event not written");
        }
        tokio::time::sleep(PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Reason;

    fn plan(routes: &[&str], warnings: Vec<Warning>) -> ServicePlan {
        let routes: Vec<_> = routes.iter().map(|text| text.parse().unwrap()).collect();
        ServicePlan {
            addresses: routes.clone(),
            decision: if routes.is_empty() {
                Decision::Skip(Reason::NoLocalEndpoint)
            } else {
                Decision::Announce
            },
            routes,
            local: Vec::new(),
            traits: Default::default(),
            warnings,
        }
    }

    #[test]
    fn only_what_changed_is_told_and_a_withdrawal_says_why() {
        let old = plan(&["192.0.2.1/32"], vec![]);
        let new = plan(&["192.0.2.1/32", "2001:db8::1/128"], vec![]);
        let texts = announcements("n1", "kube-lb0", Some(&old), Some(&new), |_| Reach::Told);
        assert_eq!(texts, [(ANNOUNCING, "n1 announces 2001:db8::1, held on kube-lb0, by BGP".to_owned())]);
        let texts = announcements("n1", "kube-lb0", Some(&old), Some(&plan(&[], vec![])), |_| Reach::Told);
        assert_eq!(texts[0].0, WITHDRAWN);
        assert!(texts[0].1.contains("no endpoint is ready on this node"), "{texts:?}");
    }

    #[test]
    fn the_addresses_of_one_change_are_told_in_one_event() {
        let new = plan(&["192.0.2.1/32", "2001:db8::1/128"], vec![]);
        let texts = announcements("n1", "kube-lb0", None, Some(&new), |_| Reach::Told);
        assert_eq!(
            texts,
            [(ANNOUNCING, "n1 announces 192.0.2.1, 2001:db8::1, held on kube-lb0, by BGP".to_owned())]
        );
    }

    #[test]
    fn nobody_is_said_to_be_told_of_a_route_that_no_router_gets() {
        let new = plan(&["192.0.2.1/32", "2001:db8::1/128"], vec![]);
        let texts = announcements("n1", "kube-lb0", None, Some(&new), |_| Reach::NoPeer);
        let expected =
            "n1 holds 192.0.2.1, 2001:db8::1 on kube-lb0, ready for BGP: no BGPPeer for this node takes it";
        assert_eq!(texts, [(ANNOUNCING, expected.to_owned())]);
        let mixed = |address: IpAddr| if address.is_ipv4() { Reach::Told } else { Reach::NoSession };
        let texts = announcements("n1", "kube-lb0", None, Some(&new), mixed);
        assert_eq!(
            texts[0].1,
            "n1 announces 192.0.2.1, held on kube-lb0, by BGP; n1 holds 2001:db8::1 on kube-lb0, ready for BGP: no \
             router that is to be told has a session yet"
        );
    }

    #[test]
    fn a_warning_about_the_cluster_is_one_event_whichever_node_says_it() {
        let note = |service: &str, text: &str| Note {
            service: ObjectKey::new("default", service),
            uid: format!("uid of {service}").into(),
            reason: CONFIGURATION_WARNING,
            text: text.to_owned(),
            is_of_cluster: true,
        };
        let name = |note: &Note, node: &str| note.of_cluster(node).metadata.name.unwrap();
        let web = note("web", "no BGPPeer lists it");
        assert_eq!(name(&web, "n1"), name(&web, "n2"));
        assert_ne!(name(&web, "n1"), name(&note("db", "no BGPPeer lists it"), "n1"));
        assert_ne!(name(&web, "n1"), name(&note("web", "there is no BGPPeer tor9"), "n1"));
        let long = note("web", &"ä".repeat(NOTE_LIMIT)).of_cluster("n1").note.unwrap();
        assert_eq!(long.len(), NOTE_LIMIT);
    }

    #[test]
    fn a_warning_is_told_once() {
        let warning = Warning::LocalAggregate("192.0.2.1/24".parse().unwrap());
        let new = plan(&[], vec![warning]);
        assert_eq!(warnings(None, Some(&new)).len(), 1);
        assert!(warnings(Some(&new), Some(&new)).is_empty());
    }
}
