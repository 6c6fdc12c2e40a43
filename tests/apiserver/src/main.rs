//! The binary: an in-memory Kubernetes API server on an address of choice.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use apiserver::{Options, Server};
use clap::Parser;
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

/// An in-memory Kubernetes API server for tests. Faults can be injected under /-/ (see the crate's
/// `control` module).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Write a kubeconfig here.
    #[arg(long)]
    write_kubeconfig: Option<PathBuf>,
    /// Cluster IPs: one prefix, or one of each family; the first is the default family.
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.0/16,fd00:10:96::/112")]
    service_cidr: Vec<IpNet>,
    /// How many events each resource remembers for watches to resume from.
    #[arg(long, default_value_t = 20_000)]
    history: usize,
    /// Seconds between the bookmarks of a watch.
    #[arg(long, default_value_t = 60)]
    bookmark_seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let options = Options {
        listen: arguments.listen,
        service_cidrs: arguments.service_cidr,
        history: arguments.history,
        bookmark_every: Duration::from_secs(arguments.bookmark_seconds),
    };
    let server = Server::start(options).await?;
    if let Some(path) = &arguments.write_kubeconfig {
        server
            .write_kubeconfig(path)
            .with_context(|| format!("cannot write the kubeconfig to {}", path.display()))?;
    }
    tracing::info!(url = server.url(), "serving");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    server.stop().await;
    Ok(())
}
