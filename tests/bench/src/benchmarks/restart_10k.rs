//! Process start → session up → 10,000 routes at a receiver that listens: what a restart of the speaker costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    figure::Sample,
    subject::{Subject, Who},
    wire::{Family, Pair, Sink},
};

pub(super) const ENTRY: Entry = Entry {
    name: "restart_10k",
    also: &[],
    about: "start of the speaker's process to 10,000 routes at a receiver that listens",
    prepare,
};

const ROUTES: u32 = 10_000;
const TIMEOUT: Duration = Duration::from_secs(30);
const LIMIT_MILLISECONDS: f64 = 100.0;

struct Restart {
    pair: Pair,
}

fn prepare(_: &Context) -> Result<Box<dyn Benchmark>> {
    Ok(Box::new(Restart { pair: Pair::build()? }))
}

impl Benchmark for Restart {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let (raw_established, raw) = self.measure(Who::Raw).context("raw sender")?;
        let (established, all) = self.measure(Who::Ours).context("our speaker")?;
        Ok(vec![
            Sample::note("restart_10k_raw_sender_established", raw_established, "ms"),
            Sample::note("restart_10k_raw_sender", raw, "ms"),
            Sample::note("restart_10k_established", established, "ms"),
            Sample::bar("restart_10k", all, "ms", LIMIT_MILLISECONDS),
        ])
    }
}

impl Restart {
    /// Milliseconds to Established and to the last route.
    fn measure(&self, who: Who) -> Result<(f64, f64)> {
        let family = Family::Ipv4;
        let listener = self.pair.sink.enter(|| Sink::listen(family))??;
        let start = Instant::now();
        let subject = Subject::dial(&self.pair, who, family, ROUTES)?;
        let mut sink = Sink::accept(family, &listener, TIMEOUT)?;
        let established = sink.establish()?;
        let receipt = sink.wait_present(ROUTES as usize, TIMEOUT)?;
        subject.stop()?;
        let milliseconds = |at: Instant| (at - start).as_secs_f64() * 1e3;
        Ok((milliseconds(established), milliseconds(receipt.at)))
    }
}
