//! Metrics, and the small server of `/metrics`, `/healthz` and `/readyz`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Labels of a pool's figures.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PoolLabels {
    /// The ServiceGroup.
    pub pool: String,
}

/// Labels of rejections.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RejectionLabels {
    /// The ServiceGroup that was asked for; empty where none could be found.
    pub pool: String,
    /// A word for why.
    pub reason: String,
}

/// What this program counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Addresses of a pool.
    pub pool_size: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    /// Addresses of a pool that are held.
    pub addresses_in_use: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    /// Services that could not be served, counted once a reason.
    pub allocation_rejected: Family<RejectionLabels, Counter>,
    /// From the sight of a Service to the answer that its addresses are published.
    pub allocation_seconds: Histogram,
    /// Writes on Services that the API server has confirmed.
    pub writes: Counter,
    /// Writes on Services that came too late for the version they were made for.
    pub conflicts: Counter,
    /// Services that wait for something.
    pub waiting: Gauge,
    /// 1 while this replica holds the Lease.
    pub leader: Gauge,
    ready: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let mut metrics = Metrics {
            registry: Registry::with_prefix("purelb"),
            pool_size: Family::default(),
            addresses_in_use: Family::default(),
            allocation_rejected: Family::default(),
            allocation_seconds: Histogram::new(buckets),
            writes: Counter::default(),
            conflicts: Counter::default(),
            waiting: Gauge::default(),
            leader: Gauge::default(),
            ready: AtomicBool::new(false),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("address_pool_size", "Addresses of a pool", self.pool_size.clone());
        registry.register(
            "address_pool_addresses_in_use",
            "Addresses of a pool that are held",
            self.addresses_in_use.clone(),
        );
        registry.register(
            "address_pool_allocation_rejected",
            "Services that could not be served",
            self.allocation_rejected.clone(),
        );
        registry.register(
            "allocation_seconds",
            "From the sight of a Service to the answer that its addresses are published",
            self.allocation_seconds.clone(),
        );
        registry.register("allocator_writes", "Confirmed writes on Services", self.writes.clone());
        registry.register("allocator_write_conflicts", "Writes that came too late", self.conflicts.clone());
        registry.register("allocator_waiting_services", "Services that wait", self.waiting.clone());
        registry.register("allocator_leader", "1 on the replica that decides", self.leader.clone());
    }

    /// Whether everything has been listed.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "metrics served");
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(metrics);
    axum::serve(listener, router).await
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    let kind = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, metrics.text())
}

async fn readiness(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.ready.load(Ordering::Relaxed) {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "ServiceGroups and Services are not listed yet\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_dashboards_rely_on_are_kept() {
        let metrics = Metrics::default();
        metrics.pool_size.get_or_create(&PoolLabels { pool: "default".into() }).set(16.0);
        metrics.addresses_in_use.get_or_create(&PoolLabels { pool: "default".into() }).set(3.0);
        let rejected = RejectionLabels { pool: "default".into(), reason: "exhausted".into() };
        metrics.allocation_rejected.get_or_create(&rejected).inc();
        let text = metrics.text();
        for line in [
            "purelb_address_pool_size{pool=\"default\"} 16.0",
            "purelb_address_pool_addresses_in_use{pool=\"default\"} 3.0",
            "purelb_address_pool_allocation_rejected_total{pool=\"default\",reason=\"exhausted\"} 1",
            "purelb_allocation_seconds_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
