//! The same checks against the in-memory server and, when `KUBEBUILDER_ASSETS` names a folder with
//! `kube-apiserver` and `etcd`, against the real one: what holds here must hold there.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod cluster;
mod custom;
mod kinds;
mod lists;
mod ownership;
mod patches;
mod services;
mod services_refused;
mod watches;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use cluster::Cluster;
use futures::FutureExt;

type Check = fn(Cluster) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A table of checks from function names.
macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        pub(crate) const CHECKS: &[(&str, crate::Check)] = &[$((stringify!($name), |c| Box::pin($name(c)))),*];
    };
}
pub(crate) use checks;

fn all() -> impl Iterator<Item = (&'static str, Check)> {
    let tables = [
        services::CHECKS,
        services_refused::CHECKS,
        patches::CHECKS,
        ownership::CHECKS,
        lists::CHECKS,
        watches::CHECKS,
        kinds::CHECKS,
        custom::CHECKS,
    ];
    tables.into_iter().flatten().copied()
}

/// How long a check may take before it counts as failed.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs every check in a namespace of its own and reports all that fail, by name.
async fn run(cluster: &Cluster) {
    let mut failed = Vec::new();
    for (name, check) in all() {
        let own = cluster.in_namespace(&name.replace('_', "-")).await;
        let checked = AssertUnwindSafe(tokio::time::timeout(PATIENCE, check(own))).catch_unwind().await;
        if !matches!(checked, Ok(Ok(()))) {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{} of {} checks failed: {failed:#?}", failed.len(), all().count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_in_memory_server_passes_every_check() {
    let (cluster, server) = cluster::in_memory().await;
    run(&cluster).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_server_passes_every_check() {
    let Some((cluster, _processes)) = cluster::real().await else {
        println!("skipped: KUBEBUILDER_ASSETS is not set");
        return;
    };
    run(&cluster).await;
}
