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
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

fn main() -> anyhow::Result<()> {
    memory::use_one_heap();
    let settings = Settings::load(&Arguments::parse()).context("settings")?;
    let log = telemetry::log::start(&settings.log_filter, settings.log_format)?;
    // One loop decides; a second thread would wait for it, and be woken for every request and every answer.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
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
    let server = tokio::spawn(telemetry::serve(settings.metrics_address, registry, probes, Some(log)));
    let stop = CancellationToken::new();
    let allocator = tokio::spawn(allocator::run(config, settings, metrics, stop.clone()));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let signals = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    end(allocator, server, signals, stop).await
}

/// Waits for a signal, or for one of the two to end by itself, and then for the allocator to end. What ends by
/// itself is an error, and the process with it: nobody could tell from outside that a loop is gone.
async fn end(
    mut allocator: JoinHandle<Result<(), kube::Error>>,
    mut server: JoinHandle<std::io::Result<()>>,
    signals: impl Future<Output = ()>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let failure = tokio::select! {
        () = signals => Ok(()),
        ended = &mut allocator => {
            ended.context("the allocator")?.context("the API server's client")?;
            anyhow::bail!("the allocator ended without being asked to")
        }
        served = &mut server => served
            .context("the metrics server")
            .and_then(|served| served.context("the metrics server"))
            .and_then(|()| Err(anyhow::anyhow!("the metrics server ended without being asked to"))),
    };
    tracing::info!("shutting down");
    stop.cancel();
    allocator.await.context("the allocator")?.context("the API server's client")?;
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the process says when it ends with this allocator and this metrics server, and no signal comes.
    async fn said(
        allocator: impl Future<Output = Result<(), kube::Error>> + Send + 'static,
        server: impl Future<Output = std::io::Result<()>> + Send + 'static,
        stop: CancellationToken,
    ) -> String {
        let (allocator, server) = (tokio::spawn(allocator), tokio::spawn(server));
        let ended = end(allocator, server, std::future::pending(), stop).await;
        format!("{:#}", ended.unwrap_err())
    }

    #[tokio::test]
    async fn a_loop_that_panics_or_ends_early_ends_the_process_and_it_says_why() {
        let server = std::future::pending;
        let text = said(async { panic!("lost track") }, server(), CancellationToken::new()).await;
        assert!(text.contains("the allocator") && text.contains("lost track"), "{text}");
        let refused = async { Err(kube::Error::LinesCodecMaxLineLengthExceeded) };
        let text = said(refused, server(), CancellationToken::new()).await;
        assert!(text.contains("the API server's client"), "{text}");
        let text = said(async { Ok(()) }, server(), CancellationToken::new()).await;
        assert!(text.contains("without being asked to"), "{text}");
    }

    #[tokio::test]
    async fn a_metrics_server_that_ends_stops_the_allocator_first() {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let allocator = async move {
            stopped.cancelled().await;
            Ok(())
        };
        let text = said(allocator, async { Err(std::io::Error::other("in use")) }, stop).await;
        assert!(text.contains("in use"), "{text}");
    }

    #[tokio::test]
    async fn a_signal_ends_it_in_order() {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let allocator = tokio::spawn(async move {
            stopped.cancelled().await;
            Ok(())
        });
        let server = tokio::spawn(std::future::pending());
        end(allocator, server, std::future::ready(()), stop).await.unwrap();
    }
}
