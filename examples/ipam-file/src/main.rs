//! A sample IPAM sidecar: hands out addresses of ranges that it is told, over gRPC on a Unix socket, and keeps
//! its books in one file. What is answered is in the file before: neither a crash nor a restart forgets it.

mod books;
mod range;
mod server;
mod socket;
mod store;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Parser;
use ipam::ipam_server::IpamServer;
use range::Range;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tracing_subscriber::EnvFilter;

/// How long calls that are under way may take when the process is to end.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// The command line.
#[derive(Parser)]
#[command(name = "ipam-file", version, about = "Hands out addresses to PureLB and keeps its books in a file")]
struct Arguments {
    /// Unix socket to serve on.
    #[arg(long, env = "SIDECAR_SOCKET", default_value = ipam::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// File of the books; made when it is missing, written before every answer.
    #[arg(long, env = "IPAM_STORE")]
    store: PathBuf,
    /// A pool, named like its ServiceGroup, and its ranges: NAME=192.0.2.0/28,2001:db8::10-2001:db8::20
    #[arg(long = "pool", value_name = "NAME=RANGE,…")]
    pools: Vec<String>,
    /// YAML file of pools: `pools: {NAME: [RANGE, …]}`
    #[arg(long, env = "IPAM_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    pools: BTreeMap<String, Vec<String>>,
}

impl Arguments {
    fn pools(&self) -> anyhow::Result<BTreeMap<String, Vec<Range>>> {
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let file: File = serde_norway::from_str(&text).with_context(|| path.display().to_string())?;
            texts = file.pools;
        }
        for pool in &self.pools {
            let Some((name, ranges)) = pool.split_once('=') else {
                bail!("--pool {pool:?}: expected NAME=RANGE, as default=192.0.2.0/28");
            };
            texts.entry(name.trim().to_owned()).or_default().extend(ranges.split(',').map(str::to_owned));
        }
        if texts.is_empty() {
            bail!("no pool: name at least one with --pool NAME=RANGE or in the file of --config");
        }
        range::parse_pools(texts)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let pools = arguments.pools()?;
    let (store, holdings) = store::Store::open(&arguments.store)?;
    let service = server::Server::new(books::Books::new(pools, holdings), store);
    let listener = socket::bind(&arguments.socket)?;
    tracing::info!(socket = %arguments.socket.display(), store = %arguments.store.display(), "serving");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down: calls that are under way are answered");
        let _ = stopping.send(());
    };
    let serving = tonic::transport::Server::builder()
        .add_service(IpamServer::new(service))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop);
    let patience = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(LAST_CALLS).await,
            Err(_) => std::future::pending().await,
        }
    };
    let served = tokio::select! {
        served = serving => served,
        // A client that does not let go is left: what was answered is in the file.
        () = patience => Ok(()),
    };
    // The next instance removes it, too; whoever looks meanwhile is told at once that nobody serves.
    let _ = std::fs::remove_file(&arguments.socket);
    served.context("serving")
}
