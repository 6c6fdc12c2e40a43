//! The benchmarks, one file each. To add one: a file here and a line in [`ALL`].

use anyhow::Result;

use crate::{context::Context, figure::Sample};

mod agent_upgrade;
mod allocate_vs_patch;
mod allocator_restart;
mod announce_10k;
mod assign_rate;
mod bfd_detect;
mod bulk;
mod exhausted_wakeup;
mod heartbeat_cost;
mod ledger_rss;
mod local_api_outage;
mod local_failover;
mod local_handover;
mod local_rebalance;
mod requests;
mod restart_10k;
mod route_latency_10k;
mod service_to_router;

/// A benchmark whose surroundings stand.
pub(crate) trait Benchmark {
    /// Measures once. The samples of all runs are merged by name.
    fn run(&mut self) -> Result<Vec<Sample>>;

    /// How often it is run at most, for one that takes its time.
    fn most_runs(&self) -> u8 {
        u8::MAX
    }
}

/// An entry of the registry.
pub(crate) struct Entry {
    /// What `--only` selects, and the name of the JSON file.
    pub(crate) name: &'static str,
    /// The other names that select it: bars that are measured along with it.
    pub(crate) also: &'static [&'static str],
    /// What is measured, in a sentence.
    pub(crate) about: &'static str,
    /// Builds what the benchmark needs, once for all runs; fails at once when something is missing.
    pub(crate) prepare: fn(&Context) -> Result<Box<dyn Benchmark>>,
}

impl Entry {
    /// Everything that selects it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.also.iter().copied())
    }
}

/// Every benchmark, in the order in which they run.
pub(crate) const ALL: &[Entry] = &[
    announce_10k::ENTRY,
    announce_10k::DUAL_STACK,
    service_to_router::ENTRY,
    bulk::ENTRY,
    route_latency_10k::ENTRY,
    restart_10k::ENTRY,
    bfd_detect::ENTRY,
    heartbeat_cost::ENTRY,
    local_failover::ENTRY,
    local_handover::ENTRY,
    local_api_outage::ENTRY,
    local_rebalance::ENTRY,
    agent_upgrade::ENTRY,
    requests::DRAIN,
    requests::POD_ROLL_LOCAL,
    assign_rate::ENTRY,
    ledger_rss::ENTRY,
    allocate_vs_patch::ENTRY,
    allocator_restart::ENTRY,
    exhausted_wakeup::ENTRY,
];
