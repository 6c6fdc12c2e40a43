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
use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use crate::key::ObjectKey;

/// How long the API server may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait between attempts on a Service: doubled up to the second one.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Requests under way at a time, so that one without an answer holds up no other.
const WRITES: usize = 4;
/// The failure in a row that the log is told of: not the first, which a restart of the API server causes, too.
const WORTH_SAYING: u32 = 3;
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

/// Writes what it is told, of each Service the latest, until nobody tells any more. A Service that cannot be written
/// waits by itself: the others have their turn.
pub async fn run(client: Client, node: Arc<str>, mut announcements: mpsc::UnboundedReceiver<Announcement>) {
    let mut queue = Queue::default();
    let mut writes = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !queue.is_empty() || !writes.is_empty() {
        while writes.len() < WRITES
            && let Some(announcement) = queue.take(Instant::now())
        {
            let (client, node) = (&client, &node);
            writes.push(async move {
                let written = write(client, node, &announcement).await;
                (announcement, written)
            });
        }
        let due = queue.next_due().filter(|_| writes.len() < WRITES);
        tokio::select! {
            news = announcements.recv(), if is_open => match news {
                Some(news) => queue.insert(news, Instant::now()),
                None => is_open = false,
            },
            Some((announcement, written)) = writes.next() => match written {
                Ok(()) => queue.on_written(&announcement.service),
                Err(error) => {
                    let jitter = rand::random_range(0.5..1.0);
                    let service = announcement.service.clone();
                    let failures = queue.on_failure(announcement, Instant::now(), jitter);
                    if failures == WORTH_SAYING {
                        tracing::warn!(
                            %service,
                            %error,
                            "its announcing annotations cannot be written, though its addresses are announced: \
                             trying again"
                        );
                    } else {
                        tracing::debug!(%service, %error, failures, "announcing annotations not written");
                    }
                }
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

/// What is to be written: each Service on its own, the longest due first.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<ObjectKey, (Instant, Announcement)>,
    /// Those of which a write is under way. What is told of them meanwhile waits for its end.
    under_way: BTreeSet<ObjectKey>,
    /// Attempts in a row that have failed.
    failures: BTreeMap<ObjectKey, u32>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What is new of a Service. One that was refused is no better for that: it keeps its turn.
    fn insert(&mut self, news: Announcement, now: Instant) {
        let due = self.waiting.get(&news.service).map_or(now, |(due, _)| *due);
        self.waiting.insert(news.service.clone(), (due, news));
    }

    fn free(&self) -> impl Iterator<Item = (Instant, &ObjectKey)> {
        let free = self.waiting.iter().filter(|(key, _)| !self.under_way.contains(*key));
        free.map(|(key, (due, _))| (*due, key))
    }

    fn next_due(&self) -> Option<Instant> {
        self.free().map(|(due, _)| due).min()
    }

    /// The next one to write.
    fn take(&mut self, now: Instant) -> Option<Announcement> {
        let (_, key) = self.free().filter(|(due, _)| *due <= now).min()?;
        let key = key.clone();
        let (_, announcement) = self.waiting.remove(&key)?;
        self.under_way.insert(key);
        Some(announcement)
    }

    fn on_written(&mut self, service: &ObjectKey) {
        self.under_way.remove(service);
        self.failures.remove(service);
    }

    /// It has to be written again, after a wait that is a part of the longest possible one, unless there is something
    /// newer to say. How often it has failed now.
    fn on_failure(&mut self, announcement: Announcement, now: Instant, jitter: f64) -> u32 {
        let service = announcement.service.clone();
        self.under_way.remove(&service);
        let failures = self.failures.entry(service.clone()).or_default();
        let wait = RETRY.0.saturating_mul(1 << (*failures).min(16)).min(RETRY.1).mul_f64(jitter);
        *failures = failures.saturating_add(1);
        let (due, _) = self.waiting.entry(service).or_insert((now, announcement));
        *due = now + wait;
        *failures
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
    // What cannot be read is nobody's entry, and no reason to drop those beside it.
    let now: Vec<&str> = now.map(|text| text.split_whitespace().collect()).unwrap_or_default();
    let now = now.into_iter().filter_map(|entry| announcing::parse(entry).ok()).flatten();
    let only = if let [only] = addresses { Some(*only) } else { None };
    let stays = |entry: &Announcer| {
        let of_another = entry.node != node && announcement.live.contains(entry.node.as_str());
        // The short form of a time when there was one address only: that node will say it anew.
        let address = entry.address.or(only);
        of_another && address.is_none_or(|a| addresses.contains(&a) && !announcement.held.contains_key(&a))
    };
    let mut entries: Vec<_> = now.filter(stays).collect();
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
    fn an_entry_that_cannot_be_read_goes_by_itself() {
        let service = service(&["192.0.2.1", "192.0.3.1"], &[(V4, "n2,eth1,192.0.3.1 n2,eth1,banana")]);
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

    fn of(service: &str) -> Announcement {
        Announcement { service: ObjectKey::new("default", service), ..n1_holds(&[]) }
    }

    fn name(announcement: Option<Announcement>) -> Option<String> {
        announcement.map(|it| it.service.name().to_owned())
    }

    #[test]
    fn a_service_that_is_refused_every_time_keeps_no_other_from_its_turn() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        for service in ["a", "b", "c"] {
            queue.insert(of(service), start);
        }
        let mut written = Vec::new();
        let mut attempts = 0;
        for millis in 0..60_000 {
            let now = start + Duration::from_millis(millis);
            match queue.take(now) {
                Some(refused) if refused.service.name() == "a" => {
                    attempts += 1;
                    assert_eq!(queue.on_failure(refused, now, 1.0), attempts);
                }
                Some(other) => {
                    queue.on_written(&other.service);
                    written.push((millis, name(Some(other)).unwrap()));
                }
                None => {}
            }
        }
        assert_eq!(written, [(1, "b".to_owned()), (2, "c".to_owned())]);
        assert_eq!(attempts, 10, "each time later, up to half a minute");
        assert_eq!(queue.next_due(), Some(start + Duration::from_millis(81_100)));
    }

    #[test]
    fn what_is_told_during_a_write_is_written_after_it_and_takes_the_place_of_what_failed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.insert(of("a"), now);
        let first = queue.take(now).unwrap();
        let newer = Announcement { held: n1_holds(&["192.0.2.1"]).held, ..of("a") };
        queue.insert(newer.clone(), now);
        assert_eq!((queue.take(now), queue.next_due()), (None, None), "one at a time");
        queue.on_failure(first, now, 0.5);
        assert_eq!(queue.take(now), None, "the failure counts");
        let second = queue.take(now + RETRY.0).unwrap();
        assert_eq!(second, newer);
        queue.on_written(&second.service);
        queue.insert(of("a"), now);
        assert_eq!(queue.take(now).map(|it| it.held.len()), Some(0));
    }
}
