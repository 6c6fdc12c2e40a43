//! What the figures were measured on: printed and written with them, because absolute figures mean nothing
//! without it.

use std::{fmt, fs, process::Command};

use serde::Serialize;

/// The facts of a machine and of what was built.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Model name of the processor.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// What others load the machine with: runnable tasks over the last minute, at the start.
    pub(crate) load: String,
    /// The commit measured, with `-dirty` when the tree differs from it.
    pub(crate) commit: String,
    /// The compiler.
    pub(crate) rustc: String,
    /// `release` or `debug`.
    pub(crate) profile: &'static str,
}

impl Machine {
    /// Looks; what cannot be found out is `unknown`.
    pub(crate) fn look() -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        Self {
            cpu: line_of("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: line_of("/proc/meminfo", "MemTotal")
                .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            load: read("/proc/loadavg")
                .and_then(|text| text.split_whitespace().next().map(str::to_owned))
                .unwrap_or_else(unknown),
            commit: output("git", &["-C", root, "describe", "--always", "--dirty", "--exclude=*"]),
            rustc: output("rustc", &["--version"]),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_mib, kernel, load, commit, rustc, profile } = self;
        writeln!(f, "machine {cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}, load {load}")?;
        write!(f, "build {commit}, {profile}, {rustc}")
    }
}

fn unknown() -> String {
    "unknown".into()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn line_of(path: &str, key: &str) -> Option<String> {
    let text = read(path)?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    output.map_or_else(unknown, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_and_a_kernel() {
        let machine = Machine::look();
        assert!(machine.cores > 0 && machine.memory_mib > 0);
        assert_ne!(machine.kernel, "unknown");
        assert!(machine.to_string().contains(&machine.kernel));
    }
}
