//! The binary: settings, logs, the Lease, and one term after the other.

use std::sync::Arc;

use allocator::{
    events::Events,
    leader::{Candidate, Tenure},
    metrics::{self, Metrics},
    reconcile::{Surroundings, term},
    settings::{Arguments, LogFormat, Settings},
};
use anyhow::Context;
use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let settings = Settings::load(&Arguments::parse()).context("settings")?;
    start_log(&settings)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(Arc::new(settings)))
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log_filter).with_context(|| {
        format!("log_filter {:?} is not a filter as info,allocator=debug", settings.log_filter)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

async fn run(settings: Arc<Settings>) -> anyhow::Result<()> {
    let config =
        kube::Config::infer().await.context("no cluster: neither a kubeconfig nor a service account")?;
    let client = kube::Client::try_from(config).context("the API server's client")?;
    let metrics = Arc::new(Metrics::default());
    let mut server = tokio::spawn(metrics::serve(settings.metrics_address, metrics.clone()));
    let (busy, is_busy) = watch::channel(false);
    let (events, publisher) = Events::new(client.clone(), &settings.pod_name, is_busy);
    let publisher = tokio::spawn(publisher);
    // Unique to the process: a restarted container must not take the Lease of its predecessor for its own.
    let identity = format!("{}_{:016x}", settings.pod_name, rand::random::<u64>());
    let (candidate, tenure) = Candidate::new(client.clone(), &settings, identity);
    let (stop, release) = (CancellationToken::new(), CancellationToken::new());
    let candidate = tokio::spawn(candidate.run(release.clone()));
    let surroundings = Surroundings { client, settings, metrics, events, busy };
    let terms = tokio::spawn(terms(surroundings, tenure, stop.clone()));

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        served = &mut server => Some(served),
    };
    tracing::info!("shutting down");
    stop.cancel();
    // First the writes end, then the Lease is given back: nobody else starts before.
    let ended = terms.await;
    release.cancel();
    candidate.await.context("the Lease's task")?;
    // With the terms the last sender is gone; what is queued is still told, for a moment.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), publisher).await;
    ended.context("the loop")?;
    tracing::info!("ended");
    match failure {
        None => Ok(()),
        Some(served) => served?.context("the metrics server"),
    }
}

/// One term after the other, until `stop`.
async fn terms(surroundings: Surroundings, mut tenure: Tenure, stop: CancellationToken) {
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
