//! The allocator as a whole: the Lease, and one term after the other.

use std::{sync::Arc, time::Duration};

use kube::{Client, Config};
use tokio::{
    sync::{oneshot, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    events::Events,
    leader::{Candidate, Tenure},
    metrics::Metrics,
    reconcile::{Surroundings, term},
    settings::Settings,
};

/// How long the first attempt at the Lease may take before this replica begins to stand by.
const FIRST_ATTEMPT: Duration = Duration::from_millis(500);
/// How long events that are queued may take when the process is to end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs until `stop`: first the writes end, then the Lease is given back, so that nobody else starts before.
/// Dropped, it ends at once, as if killed.
///
/// # Errors
///
/// When no client can be made of the configuration.
///
/// # Panics
///
/// With a bug in the loop, in a watch, or in what keeps the Lease or publishes events: a process that has lost track
/// must not go on; the next one begins from what is published.
pub async fn run(
    config: Config,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), kube::Error> {
    let client = Client::try_from(config.clone())?;
    let (busy, is_busy) = watch::channel(false);
    let (events, publisher) = Events::new(client.clone(), &settings.pod_name, metrics.clone(), is_busy);
    // Unique to the process: a restarted container must not take the Lease of its predecessor for its own.
    let identity = format!("{}_{:016x}", settings.pod_name, rand::random::<u64>());
    let (candidate, tenure) = Candidate::new(client.clone(), &settings, identity);
    let (end, ended) = oneshot::channel();
    let (mut publishers, mut candidates, mut terms) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    publishers.spawn(publisher);
    candidates.spawn(candidate.run(ended));
    let surroundings = Surroundings { config: Arc::new(config), client, settings, metrics, events, busy };
    terms.spawn(all_terms(surroundings, tenure, stop));
    // The others end before the terms only with a bug.
    let is_orderly = tokio::select! {
        ended = terms.join_next() => passed_on(ended).unwrap_or(false),
        ended = candidates.join_next() => passed_on(ended).is_some_and(|()| false),
        ended = publishers.join_next() => passed_on(ended).is_some_and(|()| false),
    };
    // The candidate runs as long as we hold the other end.
    let _ = end.send(is_orderly);
    passed_on(candidates.join_next().await);
    // With the terms the last sender is gone; what is queued is still told, for a moment.
    let _ = tokio::time::timeout(LAST_WORDS, publishers.join_next()).await;
    Ok(())
}

/// What a task has made; its panic becomes ours.
pub(crate) fn passed_on<T>(ended: Option<Result<T, JoinError>>) -> Option<T> {
    match ended? {
        Ok(value) => Some(value),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// One term after the other, until `stop`. Whether every write has been answered.
async fn all_terms(surroundings: Surroundings, mut tenure: Tenure, stop: CancellationToken) -> bool {
    let mut is_orderly = true;
    // Whoever gets the Lease at once need not list everything twice.
    tokio::select! {
        () = stop.cancelled() => return is_orderly,
        () = tenure.begun() => {}
        () = tokio::time::sleep(FIRST_ATTEMPT) => {}
    }
    while !stop.is_cancelled() {
        tokio::select! {
            _ = term(surroundings.clone(), None, stop.clone()) => {}
            () = tenure.begun() => {}
        }
        if !tenure.is_valid() {
            continue;
        }
        is_orderly = tokio::select! {
            biased;
            () = tenure.clone().ended() => false,
            is_orderly = term(surroundings.clone(), Some(tenure.clone()), stop.clone()) => is_orderly,
        };
    }
    is_orderly
}
