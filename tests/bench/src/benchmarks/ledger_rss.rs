//! The memory of the allocator's process with 100,000 Services that hold addresses: after it has started, listed
//! them and taken over the Lease, and the most it ever had on the way there.

use anyhow::{Result, bail};
use lab::control_plane::Choice;

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    control::{Control, IN_USE},
    figure::Sample,
    process::{Memory, megabytes},
};

pub(super) const ENTRY: Entry = Entry {
    name: "ledger_rss",
    also: &["allocator"],
    about: "resident memory of the allocator's process with 100,000 Services held",
    prepare,
};

const SERVICES: usize = 100_000;
const LIMIT_MEGABYTES: f64 = 60.0;

struct LedgerRss {
    control: Control,
    /// Of the process that allocated all of them, one after the other.
    after_allocating: Memory,
    /// Addresses that are held.
    held: f64,
}

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    context.program("allocator", "allocator")?;
    let mut control = Control::build(Choice::InMemory)?;
    let (after_allocating, held) = control.allocate_fleet(SERVICES)?;
    Ok(Box::new(LedgerRss { control, after_allocating, held }))
}

impl Benchmark for LedgerRss {
    fn run(&mut self) -> Result<Vec<Sample>> {
        self.control.start_allocator()?;
        let held = self.held;
        self.control.wait("the books to be complete", move |figures| {
            figures.sum(IN_USE) >= held && figures.is_idle()
        })?;
        let memory = Memory::of(self.control.allocator_pid()?)?;
        let writes = self.control.figures()?.value("purelb_allocator_writes_total");
        if writes != 0.0 {
            bail!("{writes} Services were written although all of them held addresses");
        }
        self.control.stop_allocator()?;
        let note =
            |name: &str, octets: u64| Sample::note(format!("ledger_rss_{name}"), megabytes(octets), "MB");
        Ok(vec![
            Sample::bar("ledger_rss", megabytes(memory.resident), "MB", LIMIT_MEGABYTES),
            note("peak", memory.peak),
            note("after_allocating_all", self.after_allocating.resident),
            note("after_allocating_all_peak", self.after_allocating.peak),
        ])
    }
}
