//! One route among 10,000, on a session that is up: from the call, which a pipe brings to the subject, to the bytes
//! at the receiver; for our speaker and for the raw sender, in turns. And for our speaker while another router sends
//! it a table of 1,000,000 routes over and over, as fast as it takes them: on a machine with two cores these are busy
//! then, so that figure contains what the scheduler makes of three processes that all have work.
//!
//! Without that table subject and receiver share one processor, for both subjects alike: else what is measured is
//! whether the scheduler wakes the receiver on one that sleeps, which takes a virtual machine 50 us and more. So the
//! receiver waits for all that a subject still does after it has written.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

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
const FAMILY: Family = Family::Ipv4;
const CHANGES: usize = 2_000;
const FULL_TABLE: u32 = 1_000_000;
const THIS_THREAD: Pid = Pid::from_raw(0);
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
        let [raw, ours] = self.in_turns().context("raw sender and our speaker")?;
        let flooded = self.flooded().context("our speaker beside a full table")?;
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
    /// The raw sender and our speaker, change by change, so that what disturbs the machine disturbs both.
    fn in_turns(&self) -> Result<[Took; 2]> {
        // Who is started here inherits it.
        let _pinned = Pinned::to_one()?;
        // The raw sender listens for one connection only, and leaves the port to our speaker.
        let mut both = [self.start(Who::Raw)?, self.start(Who::Ours)?];
        for _ in 0..CHANGES {
            for subject in &mut both {
                subject.change()?;
            }
        }
        let [raw, ours] = both;
        Ok([raw.stop()?, ours.stop()?])
    }

    fn flooded(&self) -> Result<Took> {
        let mut ours = self.start(Who::Ours)?;
        let _flood = self.flood(FAMILY)?;
        for _ in 0..CHANGES {
            ours.change()?;
        }
        ours.stop()
    }

    fn start(&self, who: Who) -> Result<Running> {
        let subject = Subject::listen(&self.pair, who, FAMILY, ROUTES)?;
        let mut sink = self.pair.sink.enter(|| Sink::dial(FAMILY, End::Speaker))??;
        sink.establish()?;
        sink.wait_present(ROUTES as usize, TIMEOUT)?;
        Ok(Running { subject, sink, took: Took::default() })
    }

    fn flood(&self, family: Family) -> Result<Flood> {
        let (source, to) = (End::Feeder.address(family), End::Speaker.address(family));
        let messages = End::Feeder.messages();
        let table = messages.announcement(family, source, 0..FULL_TABLE);
        self.pair.sink.enter(|| Flood::dial(source, to, &messages, table))?
    }
}

/// Milliseconds of each addition and of each withdrawal.
type Took = (Vec<f64>, Vec<f64>);

/// A subject with its table at the receiver.
struct Running {
    subject: Subject,
    sink: Sink,
    took: Took,
}

impl Running {
    /// One route more, and then one less.
    fn change(&mut self) -> Result<()> {
        let all = ROUTES as usize;
        let Running { subject, sink, took } = self;
        for (verb, present, took) in
            [(Verb::Announce, all + 1, &mut took.0), (Verb::Withdraw, all, &mut took.1)]
        {
            subject.prepare(verb, ROUTES..ROUTES + 1)?;
            let start = Instant::now();
            subject.go()?;
            let receipt = sink.wait_present(present, TIMEOUT)?;
            took.push((receipt.at - start).as_secs_f64() * 1e3);
        }
        Ok(())
    }

    fn stop(self) -> Result<Took> {
        self.subject.stop()?;
        Ok(self.took)
    }
}

/// This thread may run on one processor only, until this is dropped.
struct Pinned {
    before: CpuSet,
}

impl Pinned {
    fn to_one() -> Result<Pinned> {
        let before = sched_getaffinity(THIS_THREAD).context("asking for the processors")?;
        let last = (0..CpuSet::count()).rev().find(|cpu| before.is_set(*cpu).unwrap_or(false));
        let mut one = CpuSet::new();
        one.set(last.context("no processor to run on")?)?;
        sched_setaffinity(THIS_THREAD, &one).context("keeping to one processor")?;
        Ok(Pinned { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(THIS_THREAD, &self.before);
    }
}
