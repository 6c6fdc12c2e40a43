//! One route among 10,000, on a session that is up: from the call, which a pipe brings to the subject, to the bytes
//! at the receiver; for our speaker and for the raw sender, in turns. And for our speaker while another router sends
//! it a table of 1,000,000 routes over and over, as fast as it takes them: on a machine with two cores these are busy
//! then, so that figure contains what the scheduler makes of three processes that all have work.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    figure::Sample,
    statistics::percentile,
    subject::{Subject, Verb, Who},
    wire::{End, Family, Flood, Pair, Sink},
};

pub(super) const ENTRY: Entry = Entry {
    name: "route_latency_10k",
    also: &[],
    about: "one route among 10,000 announced and withdrawn: call to bytes at the receiver",
    prepare,
};

const ROUTES: u32 = 10_000;
const CHANGES: usize = 1_000;
const FULL_TABLE: u32 = 1_000_000;
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
        let raw = self.measure(Who::Raw, false).context("raw sender")?;
        let ours = self.measure(Who::Ours, false).context("our speaker")?;
        let flooded = self.measure(Who::Ours, true).context("our speaker beside a full table")?;
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
        for percent in [50, 99] {
            let name = format!("route_latency_10k_add_p{percent}_beside_full_table");
            samples.push(Sample::note(name, percentile(&flooded.0, percent), "ms"));
        }
        Ok(samples)
    }
}

impl RouteLatency {
    /// Milliseconds of each addition and of each withdrawal.
    fn measure(&self, who: Who, is_flooded: bool) -> Result<(Vec<f64>, Vec<f64>)> {
        let family = Family::Ipv4;
        let mut subject = Subject::listen(&self.pair, who, family, ROUTES)?;
        let mut sink = self.pair.sink.enter(|| Sink::dial(family, End::Speaker))??;
        sink.establish()?;
        let all = ROUTES as usize;
        sink.wait_present(all, TIMEOUT)?;
        let _flood = is_flooded.then(|| self.flood(family)).transpose()?;
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

    fn flood(&self, family: Family) -> Result<Flood> {
        let (source, to) = (End::Feeder.address(family), End::Speaker.address(family));
        let messages = End::Feeder.messages();
        let table = messages.announcement(family, source, 0..FULL_TABLE);
        self.pair.sink.enter(|| Flood::dial(source, to, &messages, table))?
    }
}
