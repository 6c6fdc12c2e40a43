//! The binary: settings, logs, signals. What it runs is [`allocator::run`].

use std::sync::Arc;

use allocator::{
    memory,
    metrics::{Health, Metrics},
    settings::{Arguments, Settings},
};
use anyhow::Context;
use clap::Parser;
use http::{HeaderValue, header::USER_AGENT};
use prometheus_client::registry::Registry;
use telemetry::LogFilter;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> anyhow::Result<()> {
    memory::use_one_heap();
    let settings = Settings::load(&Arguments::parse()).context("settings")?;
    let log = telemetry::log::start(&settings.log_filter, settings.log_format)?;
    // One loop decides; more threads would only keep more memory each.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(Arc::new(settings), log))
}

async fn run(settings: Arc<Settings>, log: LogFilter) -> anyhow::Result<()> {
    let mut config =
        kube::Config::infer().await.context("no cluster: neither a kubeconfig nor a service account")?;
    // For the API server's own metrics and audit log.
    config.headers.push((
        USER_AGENT,
        HeaderValue::from_static(concat!("purelb-allocator/", env!("CARGO_PKG_VERSION"))),
    ));
    let metrics = Arc::new(Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    telemetry::process::register(&mut registry, "allocator", env!("CARGO_PKG_VERSION"));
    let probes = Health(metrics.clone());
    let mut server = tokio::spawn(telemetry::serve(settings.metrics_address, registry, probes, Some(log)));
    let stop = CancellationToken::new();
    let allocator = tokio::spawn(allocator::run(config, settings, metrics, stop.clone()));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        served = &mut server => Some(served),
    };
    tracing::info!("shutting down");
    stop.cancel();
    allocator.await.context("the allocator")?.context("the API server's client")?;
    match failure {
        None => Ok(()),
        Some(served) => served?.context("the metrics server"),
    }
}
