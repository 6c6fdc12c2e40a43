//! Events on Services: what this node announces and no longer announces, and what an owner should know. Written
//! in the background, few at a time; when there are too many some are left out, and counted.

use std::{net::IpAddr, sync::Arc, time::Duration};

use api::names::event::{ANNOUNCING, CONFIGURATION_WARNING, WITHDRAWN};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use netlink::Mac;
use tokio::sync::mpsc;

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

/// One event to write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    service: ObjectKey,
    uid: Arc<str>,
    reason: &'static str,
    text: String,
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
        let reporter =
            Reporter { controller: "purelb.io/lbnodeagent".into(), instance: Some(node_name.to_owned()) };
        tokio::spawn(write(Recorder::new(client, reporter), queue));
        Events { notes, node_name: node_name.into(), interface: interface.into(), metrics }
    }

    /// Tells what changed, once it is so.
    pub fn tell(&self, change: &PlanChange) {
        let (old, new) = (change.old.as_ref(), change.new.as_ref());
        self.write(change, announcements(&self.node_name, &self.interface, old, new));
        self.warn(change);
    }

    /// Tells only what the owner should know.
    pub fn warn(&self, change: &PlanChange) {
        self.write(change, warnings(change.old.as_ref(), change.new.as_ref()));
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

    fn write(&self, change: &PlanChange, notes: Vec<(&'static str, String)>) {
        self.notes(&change.key, change.uid.as_ref(), notes);
    }

    fn notes(&self, service: &ObjectKey, uid: Option<&Arc<str>>, notes: Vec<(&'static str, String)>) {
        // A Service that is gone has no events.
        let Some(uid) = uid else { return };
        for (reason, text) in notes {
            let note = Note { service: service.clone(), uid: uid.clone(), reason, text };
            if self.notes.try_send(note).is_err() {
                self.metrics.events_dropped.inc();
            }
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
) -> Vec<(&'static str, String)> {
    let (before, after) = (routes(old), routes(new));
    let list = |addresses: &[IpAddr], others: &[IpAddr]| {
        let changed = addresses.iter().filter(|address| !others.contains(address));
        changed.map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
    };
    // All addresses in one event: of several with the same reason `kubectl describe` shows only the first.
    let (come, gone) = (list(&after, &before), list(&before, &after));
    let mut notes = Vec::new();
    if !come.is_empty() {
        notes.push((ANNOUNCING, format!("{node} announces {come}, held on {interface}, by BGP")));
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

fn warnings(old: Option<&ServicePlan>, new: Option<&ServicePlan>) -> Vec<(&'static str, String)> {
    let known: &[Warning] = old.map(|plan| plan.warnings.as_slice()).unwrap_or_default();
    let warnings = new.into_iter().flat_map(|plan| &plan.warnings);
    warnings
        .filter(|warning| !known.contains(warning))
        .map(|warning| (CONFIGURATION_WARNING, warning.to_string()))
        .collect()
}

async fn write(recorder: Recorder, mut queue: mpsc::Receiver<Note>) {
    while let Some(note) = queue.recv().await {
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(note.service.namespace().to_owned()),
            name: Some(note.service.name().to_owned()),
            uid: Some(note.uid.to_string()),
            ..ObjectReference::default()
        };
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
        let texts = announcements("n1", "kube-lb0", Some(&old), Some(&new));
        assert_eq!(texts, [(ANNOUNCING, "n1 announces 2001:db8::1, held on kube-lb0, by BGP".to_owned())]);
        let texts = announcements("n1", "kube-lb0", Some(&old), Some(&plan(&[], vec![])));
        assert_eq!(texts[0].0, WITHDRAWN);
        assert!(texts[0].1.contains("no endpoint is ready on this node"), "{texts:?}");
    }

    #[test]
    fn the_addresses_of_one_change_are_told_in_one_event() {
        let new = plan(&["192.0.2.1/32", "2001:db8::1/128"], vec![]);
        let texts = announcements("n1", "kube-lb0", None, Some(&new));
        assert_eq!(
            texts,
            [(ANNOUNCING, "n1 announces 192.0.2.1, 2001:db8::1, held on kube-lb0, by BGP".to_owned())]
        );
    }

    #[test]
    fn a_warning_is_told_once() {
        let warning = Warning::LocalAggregate("192.0.2.1/24".parse().unwrap());
        let new = plan(&[], vec![warning]);
        assert_eq!(warnings(None, Some(&new)).len(), 1);
        assert!(warnings(Some(&new), Some(&new)).is_empty());
    }
}
