//! What this program counts, and what its probes answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use telemetry::Probes;

/// Labels of a pool's figures.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PoolLabels {
    /// The ServiceGroup.
    pub pool: String,
}

/// Labels of rejections.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RejectionLabels {
    /// The ServiceGroup that it is about; `<none>` where none is named. Of names that no group has the first few count,
    /// the others are `<unknown>`.
    pub pool: String,
    /// A word for why.
    pub reason: String,
}

/// Label of writes of ServiceGroups' statuses.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// What became of it: success, conflict, forbidden or other.
    pub outcome: &'static str,
}

/// Label of those who wait.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WaitLabels {
    /// A word for what is waited for.
    pub reason: &'static str,
}

/// Label of write errors.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ErrorLabels {
    /// A word for what went wrong.
    pub reason: &'static str,
}

/// Labels of calls to IPAM providers.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CallLabels {
    /// Path of the provider's socket.
    pub socket: String,
    /// Allocate, Release or Stats.
    pub method: &'static str,
    /// The gRPC status code.
    pub code: String,
}

/// Labels of how long such calls take.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct MethodLabels {
    /// Path of the provider's socket.
    pub socket: String,
    /// Allocate, Release or Stats.
    pub method: &'static str,
}

/// What this program counts.
#[derive(Debug)]
pub struct Metrics {
    /// Addresses of a pool.
    pub pool_size: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    /// Addresses of a pool that are held.
    pub addresses_in_use: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    /// Services that could not be served, counted once a reason.
    pub allocation_rejected: Family<RejectionLabels, Counter>,
    /// Services that got addresses of the least used ranges of a pool.
    pub balanced: Family<PoolLabels, Counter>,
    /// Services that got an address of each range of a pool.
    pub multi_pool: Family<PoolLabels, Counter>,
    /// Writes of ServiceGroups' statuses.
    pub group_writes: Family<OutcomeLabels, Counter>,
    /// From the sight of a Service to the answer that its addresses are published.
    pub allocation_seconds: Histogram,
    /// Writes on Services that the API server has confirmed.
    pub writes: Counter,
    /// Writes on Services that came too late for the version they were made for.
    pub conflicts: Counter,
    /// Attempts to write a Service that the API server did not take, or did not answer.
    pub write_errors: Family<ErrorLabels, Counter>,
    /// Writes on Services that are decided and not yet answered.
    pub writes_in_flight: Gauge,
    /// Services that are to be decided about.
    pub queue_length: Gauge,
    /// Decisions, whatever they were.
    pub decisions: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Services of load balancers, our own and others'.
    pub services: Gauge,
    /// Services that wait, by what they wait for.
    pub waiting: Family<WaitLabels, Gauge>,
    /// Events that are not yet published.
    pub events_queued: Gauge,
    /// Events that never were, for too many were waiting.
    pub events_dropped: Counter,
    /// 1 while this replica holds the Lease.
    pub leader: Gauge,
    /// Calls to IPAM providers.
    pub provider_calls: Family<CallLabels, Counter>,
    /// How long they take.
    pub provider_call_seconds: Family<MethodLabels, Histogram>,
    /// 1 while the IPAM provider of an external group answers.
    pub provider_ready: Family<PoolLabels, Gauge>,
    /// Services whose call to an IPAM provider has not begun yet.
    pub provider_queue: Gauge,
    ready: AtomicBool,
    started: Instant,
    /// When the loop last turned, in milliseconds after the start.
    turned_millis: AtomicU64,
}

/// The loop turns at least so often, with nothing to do.
pub const TURN: Duration = Duration::from_secs(10);
/// Who has not turned for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Bounds of histograms of durations, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            pool_size: Family::default(),
            addresses_in_use: Family::default(),
            allocation_rejected: Family::default(),
            balanced: Family::default(),
            multi_pool: Family::default(),
            group_writes: Family::default(),
            allocation_seconds: Histogram::new(SECONDS),
            writes: Counter::default(),
            conflicts: Counter::default(),
            write_errors: Family::default(),
            writes_in_flight: Gauge::default(),
            queue_length: Gauge::default(),
            decisions: Counter::default(),
            turns: Counter::default(),
            services: Gauge::default(),
            waiting: Family::default(),
            events_queued: Gauge::default(),
            events_dropped: Counter::default(),
            leader: Gauge::default(),
            provider_calls: Family::default(),
            provider_call_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            provider_ready: Family::default(),
            provider_queue: Gauge::default(),
            ready: AtomicBool::new(false),
            started: Instant::now(),
            turned_millis: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Registers everything under the names that users' dashboards know.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("purelb");
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
            "address_pool_balance_pools_allocations",
            "Services that got addresses of the least used ranges of a pool",
            self.balanced.clone(),
        );
        registry.register(
            "address_pool_multipool_allocations",
            "Services that got an address of each range of a pool",
            self.multi_pool.clone(),
        );
        registry.register(
            "allocator_sg_status_writes",
            "Writes of ServiceGroups' statuses, by outcome: success, conflict, forbidden, other",
            self.group_writes.clone(),
        );
        registry.register(
            "allocation_seconds",
            "From the sight of a Service to the answer that its addresses are published",
            self.allocation_seconds.clone(),
        );
        registry.register("allocator_writes", "Confirmed writes on Services", self.writes.clone());
        registry.register("allocator_write_conflicts", "Writes that came too late", self.conflicts.clone());
        registry.register(
            "allocator_write_errors",
            "Attempts to write a Service that the API server did not take or did not answer",
            self.write_errors.clone(),
        );
        registry.register(
            "allocator_writes_in_flight",
            "Writes on Services that are decided and not yet answered",
            self.writes_in_flight.clone(),
        );
        registry.register(
            "allocator_queue_length",
            "Services that are to be decided about",
            self.queue_length.clone(),
        );
        registry.register("allocator_decisions", "Decisions about Services", self.decisions.clone());
        registry.register(
            "allocator_turns",
            "Turns of the loop: every 10 s with nothing to do, many only with much to do",
            self.turns.clone(),
        );
        registry.register("allocator_services", "Services that are watched", self.services.clone());
        registry.register(
            "allocator_waiting_services",
            "Services that wait, by what they wait for",
            self.waiting.clone(),
        );
        registry.register(
            "allocator_events_queued",
            "Events that are not yet published",
            self.events_queued.clone(),
        );
        registry.register(
            "allocator_events_dropped",
            "Events that were not published for there were too many",
            self.events_dropped.clone(),
        );
        registry.register(
            "allocator_sidecar_rpc",
            "Calls to IPAM providers, by gRPC status code",
            self.provider_calls.clone(),
        );
        registry.register(
            "allocator_sidecar_rpc_duration_seconds",
            "How long calls to IPAM providers take",
            self.provider_call_seconds.clone(),
        );
        registry.register(
            "allocator_provider_ready",
            "1 while the IPAM provider of an external group answers",
            self.provider_ready.clone(),
        );
        registry.register(
            "allocator_provider_queue",
            "Services whose call to an IPAM provider has not begun yet",
            self.provider_queue.clone(),
        );
        registry.register("allocator_leader", "1 on the replica that decides", self.leader.clone());
    }

    /// What only the replica tells that decides is not told any more, until it is known anew.
    pub fn begin_term(&self) {
        self.pool_size.clear();
        self.addresses_in_use.clear();
        self.provider_ready.clear();
        self.provider_queue.set(0);
    }

    /// Whether everything has been listed.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// The loop has turned.
    pub fn turn(&self) {
        self.turns.inc();
        let millis = self.started.elapsed().as_millis();
        self.turned_millis.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn since_turn(&self) -> Duration {
        let turned = Duration::from_millis(self.turned_millis.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(turned)
    }
}

/// Answers the probes. A replica that only stands by is ready, too, once it has listed everything: it can take over
/// at any moment. An API server that is away makes nobody dead, and nobody unready before the leader has lost its Lease:
/// then each has to list anew.
#[derive(Clone, Debug)]
pub struct Health(pub Arc<Metrics>);

impl Probes for Health {
    fn alive(&self) -> Result<(), String> {
        alive_after(self.0.since_turn())
    }

    fn ready(&self) -> Result<(), String> {
        let is_ready = self.0.ready.load(Ordering::Relaxed);
        is_ready.then_some(()).ok_or_else(|| "ServiceGroups and Services are not listed yet".to_owned())
    }
}

fn alive_after(silence: Duration) -> Result<(), String> {
    if silence < STUCK {
        return Ok(());
    }
    Err(format!("the loop has not turned for {} s, expected every {} s", silence.as_secs(), TURN.as_secs()))
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn the_names_that_dashboards_rely_on_are_kept() {
        let metrics = Metrics::default();
        metrics.pool_size.get_or_create(&PoolLabels { pool: "default".into() }).set(16.0);
        metrics.addresses_in_use.get_or_create(&PoolLabels { pool: "default".into() }).set(3.0);
        let rejected = RejectionLabels { pool: "default".into(), reason: "exhausted".into() };
        metrics.allocation_rejected.get_or_create(&rejected).inc();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "purelb_address_pool_size{pool=\"default\"} 16.0",
            "purelb_address_pool_addresses_in_use{pool=\"default\"} 3.0",
            "purelb_address_pool_allocation_rejected_total{pool=\"default\",reason=\"exhausted\"} 1",
            "purelb_allocation_seconds_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_loop_that_stands_still_is_not_alive() {
        let health = Health(Arc::new(Metrics::default()));
        health.0.turn();
        assert_eq!(health.alive(), Ok(()));
        assert_eq!(alive_after(TURN * 2), Ok(()));
        assert!(alive_after(STUCK).unwrap_err().contains("60 s"));
    }

    #[test]
    fn it_is_ready_when_everything_is_listed_until_the_next_term_begins() {
        let health = Health(Arc::new(Metrics::default()));
        assert!(health.ready().is_err());
        health.0.set_ready(true);
        assert_eq!(health.ready(), Ok(()));
        health.0.set_ready(false);
        assert!(health.ready().is_err());
    }
}
