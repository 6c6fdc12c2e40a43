//! Faults on request: refusals, slowness, closed watches, 410, stale lists, partitions. A fault applies to
//! the requests its [`Matcher`] selects, a number of times or until it is cleared.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use crate::http::path::Objects;
use crate::refusal::Refusal;
use crate::store::Revisions;
use crate::verbs::Target;

/// A request, as far as faults and counters look at it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// Plural name, with `/status` for the subresource.
    pub resource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// The User-Agent.
    pub client: String,
}

impl Call {
    /// The call of a request.
    pub fn new(verb: &str, target: &Target, objects: &Objects<'_>, agent: &str) -> Self {
        let plural = &target.resource.id.plural;
        Self {
            verb: verb.to_owned(),
            group: target.resource.id.group.clone(),
            resource: if target.status { format!("{plural}/status") } else { plural.clone() },
            namespace: objects.namespace.to_owned(),
            name: objects.name.to_owned(),
            client: agent.to_owned(),
        }
    }
}

/// Selects requests; what is not given is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    /// The verb; `write` stands for create, update, patch, delete and deletecollection.
    pub verb: Option<String>,
    /// The plural name (`services`) or the subresource (`services/status`).
    pub resource: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// A part of the User-Agent.
    pub client: Option<String>,
}

impl Matcher {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Requests of a verb.
    pub fn verb(verb: &str) -> Self {
        Self { verb: Some(verb.to_owned()), ..Self::default() }
    }

    /// The same, on one resource.
    pub fn on(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// The same, on objects of one name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The same, from clients whose User-Agent contains `client`.
    pub fn from_client(mut self, client: &str) -> Self {
        self.client = Some(client.to_owned());
        self
    }

    /// Whether it selects a call.
    pub fn matches(&self, call: &Call) -> bool {
        let is = |wanted: &Option<String>, there: &str| wanted.as_ref().is_none_or(|w| w == there);
        let verb = self.verb.as_ref().is_none_or(|wanted| match wanted.as_str() {
            "write" => !matches!(call.verb.as_str(), "get" | "list" | "watch"),
            wanted => wanted == call.verb,
        });
        verb && is(&self.resource, &call.resource)
            && is(&self.namespace, &call.namespace)
            && is(&self.name, &call.name)
            && self.client.as_ref().is_none_or(|part| call.client.contains(part.as_str()))
    }
}

/// What happens to a selected request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// It is refused with this status: 403, 409, 410, 429, 500, 503 and others.
    Refuse {
        /// HTTP status.
        code: u16,
        /// `Retry-After`, in seconds.
        #[serde(default, rename = "retryAfterSeconds")]
        retry_after_secs: Option<u32>,
    },
    /// It is answered this much later.
    Delay {
        /// Milliseconds.
        millis: u64,
    },
    /// It is never answered, and not served.
    Hang,
    /// It is served, and never answered.
    Mute,
    /// It is not served; its connection is closed.
    Drop,
    /// It is served; its connection is closed before the answer.
    LoseAnswer,
    /// A list shows the state of a past revision; 0 is the revision at which the fault was set.
    Stale {
        /// The revision.
        #[serde(default)]
        revision: u64,
    },
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests.
    #[serde(default, rename = "match")]
    pub matcher: Matcher,
    /// What happens to them.
    pub action: Action,
    /// How often; absent: until cleared.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many selected requests pass before.
    #[serde(default)]
    pub skip: u32,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Serve it.
    Go,
    /// Refuse it.
    Refuse(Refusal),
    /// Serve a list as of a revision.
    Stale(u64),
    /// Close the connection.
    Drop,
    /// Serve it, and keep the answer.
    Mute,
    /// Serve it, and close the connection.
    LoseAnswer,
}

/// The end of running watches.
#[derive(Debug)]
pub(crate) struct Interruption {
    matcher: Matcher,
    gone: bool,
}

impl Interruption {
    /// Whether it ends this watch.
    pub(crate) fn matches(&self, call: &Call) -> bool {
        self.matcher.matches(call)
    }

    /// The error event it ends with, if it does not just close.
    pub(crate) fn status(&self) -> Option<Refusal> {
        self.gone.then(|| Refusal::expired("too old resource version: injected fault"))
    }
}

/// How the server is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cut {
    /// Not at all.
    #[default]
    None,
    /// Connections are closed, new ones too.
    Refuse,
    /// Nothing is read or written any more; connections stay open.
    Hang,
}

/// A partition: how, and from whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Partition {
    /// How.
    pub cut: Cut,
    /// From these addresses; empty: from everyone.
    pub peers: Vec<IpAddr>,
}

impl Partition {
    /// How the partition treats a peer.
    pub(crate) fn cut_for(&self, peer: IpAddr) -> Cut {
        if self.peers.is_empty() || self.peers.contains(&peer.to_canonical()) { self.cut } else { Cut::None }
    }
}

/// The faults in force.
#[derive(Debug)]
pub struct Faults {
    list: Mutex<Vec<Fault>>,
    revisions: Revisions,
    interruptions: broadcast::Sender<Arc<Interruption>>,
    partition: watch::Sender<Partition>,
}

impl Faults {
    /// No faults yet, on a store with this revision counter.
    pub fn new(revisions: Revisions) -> Self {
        Self {
            list: Mutex::default(),
            revisions,
            interruptions: broadcast::Sender::new(64),
            partition: watch::Sender::new(Partition::default()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.list.lock().expect("no code panics while it holds the faults")
    }

    /// Adds a fault.
    pub fn add(&self, mut fault: Fault) {
        if let Action::Stale { revision: revision @ 0 } = &mut fault.action {
            *revision = self.revisions.current();
        }
        self.lock().push(fault);
    }

    /// Refuses the next `times` selected requests with a status.
    pub fn refuse(&self, matcher: Matcher, code: u16, times: u32) {
        let action = Action::Refuse { code, retry_after_secs: (code == 429).then_some(1) };
        self.add(Fault { matcher, action, times: Some(times), skip: 0 });
    }

    /// Slows selected requests down until cleared.
    pub fn delay(&self, matcher: Matcher, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.add(Fault { matcher, action: Action::Delay { millis }, times: None, skip: 0 });
    }

    /// The faults in force.
    pub fn in_force(&self) -> Vec<Fault> {
        self.lock().clone()
    }

    /// Removes all faults and heals the partition. Closed watches stay closed.
    pub fn clear(&self) {
        self.lock().clear();
        self.heal();
    }

    /// Closes the selected running watches.
    pub fn close_watches(&self, matcher: Matcher) {
        self.interrupt(matcher, false);
    }

    /// Ends the selected running watches with a 410 event.
    pub fn expire_watches(&self, matcher: Matcher) {
        self.interrupt(matcher, true);
    }

    fn interrupt(&self, matcher: Matcher, gone: bool) {
        // Nobody listens when no watch runs.
        let _ = self.interruptions.send(Arc::new(Interruption { matcher, gone }));
    }

    /// Cuts the server off from `peers`, or from everyone.
    pub fn partition(&self, cut: Cut, peers: Vec<IpAddr>) {
        self.partition.send_replace(Partition { cut, peers });
    }

    /// Ends the partition.
    pub fn heal(&self) {
        self.partition.send_replace(Partition::default());
    }

    /// The partition, for connections to follow.
    pub(crate) fn follow_partition(&self) -> watch::Receiver<Partition> {
        self.partition.subscribe()
    }

    /// The interruptions, for watches to follow.
    pub(crate) fn interruptions(&self) -> broadcast::Receiver<Arc<Interruption>> {
        self.interruptions.subscribe()
    }

    /// Decides about a request, after any delay. The first fault that selects it counts.
    pub(crate) async fn judge(&self, call: &Call) -> Verdict {
        match self.take(call) {
            None => Verdict::Go,
            Some(Action::Refuse { code, retry_after_secs }) => {
                Verdict::Refuse(injected(code, retry_after_secs))
            }
            Some(Action::Delay { millis }) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Verdict::Go
            }
            Some(Action::Hang) => std::future::pending().await,
            Some(Action::Mute) => Verdict::Mute,
            Some(Action::Drop) => Verdict::Drop,
            Some(Action::LoseAnswer) => Verdict::LoseAnswer,
            Some(Action::Stale { revision }) if call.verb == "list" => Verdict::Stale(revision),
            Some(Action::Stale { .. }) => Verdict::Go,
        }
    }

    fn take(&self, call: &Call) -> Option<Action> {
        let mut list = self.lock();
        let at = list.iter().position(|f| f.matcher.matches(call))?;
        if let Some(left) = list[at].skip.checked_sub(1) {
            list[at].skip = left;
            return None;
        }
        let action = list[at].action.clone();
        if let Some(times) = &mut list[at].times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                list.remove(at);
            }
        }
        Some(action)
    }
}

fn injected(code: u16, retry_after: Option<u32>) -> Refusal {
    let (reason, message) = match code {
        401 => ("Unauthorized", "Unauthorized"),
        403 => ("Forbidden", "forbidden by an injected fault"),
        404 => ("NotFound", "the server could not find the requested resource"),
        409 => (
            "Conflict",
            "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version and try again",
        ),
        410 => ("Expired", "too old resource version: injected fault"),
        429 => ("TooManyRequests", "Too many requests, please try again later."),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => ("Timeout", "the server was unable to return a response in the time allotted"),
        _ => ("InternalError", "Internal error occurred: injected fault"),
    };
    let mut refusal = Refusal::new(code, reason, message);
    refusal.retry_after = retry_after;
    refusal
}
