//! The allocator starts where 10,000 Services hold addresses: how long until it is ready and decides, and what it
//! writes. Nothing has changed, so it must write nothing.
//!
//! Time is from the start of the process: its Lease, and both lists by both roles are part of it.

use anyhow::Result;
use lab::control_plane::Choice;

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    control::{Control, Writes},
    figure::Sample,
};

pub(super) const ENTRY: Entry = Entry {
    name: "allocator_restart",
    also: &["allocator", "allocator_restart_writes"],
    about: "start of the allocator with 10,000 Services held until it is ready and decides; what it writes",
    prepare,
};

const SERVICES: usize = 10_000;
const LIMIT_SECS: f64 = 2.0;

struct Restart {
    control: Control,
    runs: usize,
}

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    context.program("allocator", "allocator")?;
    let mut control = Control::build(Choice::InMemory)?;
    control.allocate_fleet(SERVICES)?;
    Ok(Box::new(Restart { control, runs: 0 }))
}

impl Benchmark for Restart {
    fn run(&mut self) -> Result<Vec<Sample>> {
        self.runs += 1;
        let before = self.control.writes()?;
        let start = self.control.start_allocator()?;
        let ready = self.control.wait_ready()?.duration_since(start);
        self.control.wait_until_quiet(&format!("barrier-{}", self.runs))?;
        let writes = self.control.wait_for_events(before.events + 1)?;
        self.control.stop_allocator()?;
        Ok(vec![
            Sample::bar("allocator_restart", ready.as_secs_f64(), "s", LIMIT_SECS),
            Sample::bar("allocator_restart_writes", count(before, writes), "writes", 0.0),
        ])
    }
}

/// All writes in between but the event that tells of the barrier.
fn count(before: Writes, after: Writes) -> f64 {
    let total = |writes: Writes| writes.services + writes.events + writes.others;
    (total(after) - total(before) - 1) as f64
}
