//! The annotations `purelb.io/announcing-IPv4` and `purelb.io/announcing-IPv6` of Services with addresses of local
//! pools: who announces them, and where.
//!
//! Entries belong to nodes: this node writes those of addresses that it holds, takes its own away where it holds
//! nothing any more, and tidies up after nodes that are gone and addresses that the Service has lost. Other live nodes'
//! entries stay as they are. Each write is made on what was read, by resourceVersion, so that nodes that announce
//! addresses of one Service do not undo each other's words. Nothing is written that is there already.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use api::{
    address::IpFamily,
    announcing::{self, Announcer},
};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use crate::key::ObjectKey;

/// How long the API server may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait between attempts: doubled up to the second one.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Attempts on a Service that others change at the same time; then it is put off.
const ATTEMPTS: usize = 3;

/// What this node has to say of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The Service.
    pub service: ObjectKey,
    /// The addresses that this node announces, and on which interface.
    pub held: BTreeMap<IpAddr, Arc<str>>,
    /// Every node that can serve: what others have said is out of date.
    pub live: Arc<BTreeSet<Arc<str>>>,
}

/// Writes what it is told, of each Service the latest, until nobody tells any more.
pub async fn run(client: Client, node: Arc<str>, mut announcements: mpsc::UnboundedReceiver<Announcement>) {
    let mut waiting: BTreeMap<ObjectKey, Announcement> = BTreeMap::new();
    let mut wait = RETRY.0;
    loop {
        while let Ok(news) = announcements.try_recv() {
            waiting.insert(news.service.clone(), news);
        }
        let Some((key, announcement)) = waiting.pop_first() else {
            match announcements.recv().await {
                Some(news) => drop(waiting.insert(news.service.clone(), news)),
                None => return,
            }
            continue;
        };
        match write(&client, &node, &announcement).await {
            Ok(()) => wait = RETRY.0,
            Err(error) => {
                tracing::debug!(service = %key, %error, "announcing annotations not written, trying again");
                waiting.insert(key, announcement);
                tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
}

/// Why the annotations were not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Request(#[from] kube::Error),
}

async fn write(client: &Client, node: &str, announcement: &Announcement) -> Result<(), WriteError> {
    let key = &announcement.service;
    let services = Api::<Service>::namespaced(client.clone(), key.namespace());
    for attempt in 1.. {
        let read = timeout(REQUEST_TIMEOUT, services.get_opt(key.name())).await;
        let Some(service) = read.map_err(|_| WriteError::Timeout)?? else { return Ok(()) };
        let changes = changes(&service, node, announcement);
        if changes.is_empty() {
            return Ok(());
        }
        let metadata = json!({"resourceVersion": service.resource_version(), "annotations": changes});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let params = PatchParams::default();
        let written = services.patch_status(key.name(), &params, &patch);
        match timeout(REQUEST_TIMEOUT, written).await.map_err(|_| WriteError::Timeout)? {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The annotations that have to change: their new text, or nothing where they have to go.
fn changes(
    service: &Service,
    node: &str,
    announcement: &Announcement,
) -> BTreeMap<&'static str, Option<String>> {
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let addresses: BTreeSet<IpAddr> =
        ingress.into_iter().flatten().filter_map(|entry| entry.ip.as_ref()?.parse().ok()).collect();
    let mut changes = BTreeMap::new();
    for family in [IpFamily::IPv4, IpFamily::IPv6] {
        let name = announcing::annotation(family);
        let addresses: Vec<IpAddr> =
            addresses.iter().copied().filter(|address| IpFamily::of(*address) == family).collect();
        let now = service.annotations().get(name);
        let text = announcing::format(&entries(now, &addresses, node, announcement), addresses.len());
        if text.as_ref() != now {
            changes.insert(name, text);
        }
    }
    changes
}

/// Who announces what of a family, after what this node has to say.
fn entries(
    now: Option<&String>,
    addresses: &[IpAddr],
    node: &str,
    announcement: &Announcement,
) -> Vec<Announcer> {
    // What cannot be read is nobody's entry.
    let now = now.and_then(|text| announcing::parse(text).ok()).unwrap_or_default();
    let only = if let [only] = addresses { Some(*only) } else { None };
    let stays = |entry: &Announcer| {
        let of_another = entry.node != node && announcement.live.contains(entry.node.as_str());
        // The short form of a time when there was one address only: that node will say it anew.
        let address = entry.address.or(only);
        of_another && address.is_none_or(|a| addresses.contains(&a) && !announcement.held.contains_key(&a))
    };
    let mut entries: Vec<_> = now.into_iter().filter(stays).collect();
    let mine = addresses.iter().filter_map(|address| Some((*address, announcement.held.get(address)?)));
    entries.extend(mine.map(|(address, interface)| Announcer {
        node: node.to_owned(),
        interface: interface.to_string(),
        address: Some(address),
    }));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "purelb.io/announcing-IPv4";
    const V6: &str = "purelb.io/announcing-IPv6";

    fn service(addresses: &[&str], annotations: &[(&str, &str)]) -> Service {
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        serde_json::from_value(json!({
            "metadata": {"name": "web", "annotations": annotations},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap()
    }

    fn n1_holds(addresses: &[&str]) -> Announcement {
        Announcement {
            service: ObjectKey::new("default", "web"),
            held: addresses.iter().map(|address| (address.parse().unwrap(), "eth0".into())).collect(),
            live: Arc::new(["n1", "n2"].map(Into::into).into()),
        }
    }

    fn change(name: &'static str, text: Option<&str>) -> BTreeMap<&'static str, Option<String>> {
        [(name, text.map(str::to_owned))].into()
    }

    #[test]
    fn one_address_of_a_family_has_the_short_form_whoever_was_there_before() {
        for before in [&[][..], &[(V4, "n2,eth7")], &[(V4, "dead,eth0")], &[(V4, "not readable")]] {
            let service = service(&["192.0.2.1"], before);
            assert_eq!(changes(&service, "n1", &n1_holds(&["192.0.2.1"])), change(V4, Some("n1,eth0")));
        }
        let settled = service(&["192.0.2.1"], &[(V4, "n1,eth0")]);
        assert!(changes(&settled, "n1", &n1_holds(&["192.0.2.1"])).is_empty(), "nothing to write");
    }

    #[test]
    fn families_are_told_apart() {
        let service = service(&["192.0.2.1", "fd00::1"], &[]);
        let changes = changes(&service, "n1", &n1_holds(&["192.0.2.1", "fd00::1"]));
        let text = Some("n1,eth0".to_owned());
        assert_eq!(changes, [(V4, text.clone()), (V6, text)].into());
    }

    #[test]
    fn of_several_addresses_each_node_says_its_own() {
        let addresses = ["192.0.2.1", "192.0.3.1", "192.0.4.1"];
        let before = "n2,eth1,192.0.3.1 dead,eth0,192.0.4.1 n2,eth1,203.0.113.1 n1,eth0,192.0.3.1";
        let service = service(&addresses, &[(V4, before)]);
        let after = "n1,eth0,192.0.2.1 n2,eth1,192.0.3.1";
        assert_eq!(changes(&service, "n1", &n1_holds(&["192.0.2.1"])), change(V4, Some(after)));
    }

    #[test]
    fn the_short_form_of_another_stays_until_it_speaks_for_itself() {
        let service = service(&["192.0.2.1", "192.0.3.1"], &[(V4, "n2,eth1")]);
        let changes = changes(&service, "n1", &n1_holds(&["192.0.2.1"]));
        let text = changes[V4].clone().unwrap();
        assert!(text.contains("n1,eth0,192.0.2.1") && text.contains("n2,eth1"), "{text}");
        assert!(announcing::parse(&text).is_ok());
    }

    #[test]
    fn who_holds_nothing_any_more_takes_its_own_entry_away_and_no_other() {
        let nothing = n1_holds(&[]);
        let mine = service(&["192.0.2.1"], &[(V4, "n1,eth0")]);
        assert_eq!(changes(&mine, "n1", &nothing), change(V4, None));
        let others = service(&["192.0.2.1"], &[(V4, "n2,eth1")]);
        assert!(changes(&others, "n1", &nothing).is_empty());
    }
}
