//! One route among 10,000, on a session that is up: from the call, which a pipe brings to the subject, to the bytes
//! at the receiver; for our speaker and for the raw sender, in turns.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    figure::Sample,
    statistics::percentile,
    subject::{Subject, Verb, Who},
    wire::{End, Family, Pair, Sink},
};

pub(super) const ENTRY: Entry = Entry {
    name: "route_latency_10k",
    also: &[],
    about: "one route among 10,000 announced and withdrawn: call to bytes at the receiver",
    prepare,
};

const ROUTES: u32 = 10_000;
const CHANGES: usize = 1_000;
const TIMEOUT: Duration = Duration::from_secs(10);
/// p99 of ours per p99 of the raw sender.
const LIMIT_PER_RAW: f64 = 2.0;

struct RouteLatency {
    pair: Pair,
}

fn prepare(_: &Context) -> Result<Box<dyn Benchmark>> {
    Ok(Box::new(RouteLatency { pair: Pair::build()? }))
}

impl Benchmark for RouteLatency {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let raw = self.measure(Who::Raw).context("raw sender")?;
        let ours = self.measure(Who::Ours).context("our speaker")?;
        let mut samples = Vec::new();
        for (what, ours, raw) in [("add", &ours.0, &raw.0), ("withdraw", &ours.1, &raw.1)] {
            let name = format!("route_latency_10k_{what}");
            for percent in [50, 99] {
                let (ours, raw) = (percentile(ours, percent), percentile(raw, percent));
                samples.push(Sample::note(format!("{name}_p{percent}_raw_sender"), raw, "ms"));
                samples.push(Sample::note(format!("{name}_p{percent}"), ours, "ms"));
            }
            let ratio = percentile(ours, 99) / percentile(raw, 99);
            samples.push(Sample::bar(format!("{name}_p99_per_raw_sender"), ratio, "x", LIMIT_PER_RAW));
        }
        Ok(samples)
    }
}

impl RouteLatency {
    /// Milliseconds of each addition and of each withdrawal.
    fn measure(&self, who: Who) -> Result<(Vec<f64>, Vec<f64>)> {
        let family = Family::Ipv4;
        let mut subject = Subject::listen(&self.pair, who, family, ROUTES)?;
        let mut sink = self.pair.sink.enter(|| Sink::dial(family, End::Speaker))??;
        sink.establish()?;
        let all = ROUTES as usize;
        sink.wait_present(all, TIMEOUT)?;
        let mut took = (Vec::new(), Vec::new());
        for _ in 0..CHANGES {
            for (verb, present, took) in
                [(Verb::Announce, all + 1, &mut took.0), (Verb::Withdraw, all, &mut took.1)]
            {
                subject.prepare(verb, ROUTES..ROUTES + 1)?;
                let start = Instant::now();
                subject.go()?;
                let receipt = sink.wait_present(present, TIMEOUT)?;
                took.push((receipt.at - start).as_secs_f64() * 1e3);
            }
        }
        subject.stop()?;
        Ok(took)
    }
}
