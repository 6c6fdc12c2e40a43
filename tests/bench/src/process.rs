//! What a process costs, from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// USER_HZ, which Linux fixes for user space.
const TICKS_PER_SEC: u32 = 100;

/// Resident memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Octets now.
    pub(crate) resident: u64,
    /// The most there ever were.
    pub(crate) peak: u64,
}

impl Memory {
    /// Of a running process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let octets = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("{path} has no {key}"))
        };
        Ok(Self { resident: octets("VmRSS:")?, peak: octets("VmHWM:")? })
    }
}

/// Megabytes of so many octets.
pub(crate) fn megabytes(octets: u64) -> f64 {
    octets as f64 / 1e6
}

/// Processor time that a process has used, its threads included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime {
    /// In the program itself.
    pub(crate) user: Duration,
    /// In the kernel on its behalf.
    pub(crate) system: Duration,
}

impl CpuTime {
    /// Of a running process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
        // The command name may contain spaces and brackets; fields are counted after it.
        let fields = stat.rsplit_once(')').map(|(_, after_name)| after_name.split_whitespace().skip(11));
        let mut ticks = fields.into_iter().flatten().map_while(|field| field.parse::<u32>().ok());
        let mut next = || {
            let ticks = ticks.next().with_context(|| format!("{path} has no processor times"))?;
            anyhow::Ok(Duration::from_secs(1) * ticks / TICKS_PER_SEC)
        };
        Ok(Self { user: next()?, system: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_its_peak_is_not_below_it() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        CpuTime::of(std::process::id()).unwrap();
    }
}
