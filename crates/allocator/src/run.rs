//! The allocator as a whole: the Lease, and one term after the other.

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    sync::watch,
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

/// How long events that are queued may take when the process is to end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs until `stop`: first the writes end, then the Lease is given back, so that nobody else starts before.
/// Dropped, it ends at once, as if killed.
///
/// # Panics
///
/// With a bug in the loop: a process that has lost track must not go on; the next one begins from what is
/// published.
pub async fn run(client: Client, settings: Arc<Settings>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let (busy, is_busy) = watch::channel(false);
    let (events, publisher) = Events::new(client.clone(), &settings.pod_name, metrics.clone(), is_busy);
    // Unique to the process: a restarted container must not take the Lease of its predecessor for its own.
    let identity = format!("{}_{:016x}", settings.pod_name, rand::random::<u64>());
    let (candidate, tenure) = Candidate::new(client.clone(), &settings, identity);
    let release = CancellationToken::new();
    let (mut publishers, mut candidates, mut terms) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    publishers.spawn(publisher);
    candidates.spawn(candidate.run(release.clone()));
    terms.spawn(all_terms(Surroundings { client, settings, metrics, events, busy }, tenure, stop));
    passed_on(terms.join_next().await);
    release.cancel();
    passed_on(candidates.join_next().await);
    // With the terms the last sender is gone; what is queued is still told, for a moment.
    let _ = tokio::time::timeout(LAST_WORDS, publishers.join_next()).await;
}

fn passed_on(ended: Option<Result<(), JoinError>>) {
    if let Some(Err(error)) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// One term after the other, until `stop`.
async fn all_terms(surroundings: Surroundings, mut tenure: Tenure, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = term(surroundings.clone(), None, stop.clone()) => {}
            () = tenure.begun() => {}
        }
        if !tenure.is_valid() {
            continue;
        }
        tokio::select! {
            biased;
            () = tenure.clone().ended() => {}
            () = term(surroundings.clone(), Some(tenure.clone()), stop.clone()) => {}
        }
    }
}
