//! The binary: settings, logs, signals. What it runs is [`allocator::run`].

use std::sync::Arc;

use allocator::{
    metrics::{self, Metrics},
    settings::{Arguments, LogFormat, Settings},
};
use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
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
    let stop = CancellationToken::new();
    let allocator = tokio::spawn(allocator::run(client, settings, metrics, stop.clone()));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        served = &mut server => Some(served),
    };
    tracing::info!("shutting down");
    stop.cancel();
    allocator.await.context("the allocator")?;
    match failure {
        None => Ok(()),
        Some(served) => served?.context("the metrics server"),
    }
}
