//! Captures: what a machine's interface really carried, written by `tcpdump` and read by `tshark`.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sys::signal::Signal;

use crate::{Host, PATIENCE, Process, Result, Run, command, require, until};

/// How many this process has started.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts to capture what a `tcpdump` filter selects on an interface, and returns once it does.
    ///
    /// # Errors
    /// When `tcpdump` does not start, over a wrong filter for example.
    pub fn start(run: &Run, host: &Host, interface: &str, filter: &str) -> Result<Self> {
        // Each with a log of its own, whose first words say that it listens.
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{interface}-tcpdump-{number}", host.name);
        let file = run.folder().join(format!("{}-{interface}-{number}.pcap", host.name));
        let mut tcpdump = host.namespace.command("tcpdump");
        // Handed over and written packet by packet, and as root: the run's folder is not for tcpdump's own user.
        tcpdump.args(["-i", interface, "--immediate-mode", "-U", "-Z", "root", "-w"]).arg(&file).arg(filter);
        let mut process = Process::spawn(&name, tcpdump, run.log(&name))?;
        until(format!("{name} to listen"), PATIENCE, || {
            process.check_running()?;
            require!(process.tail(5).contains("listening on"), "its log: {}", process.tail(5));
            Ok::<_, crate::Error>(())
        })?;
        Ok(Self { process, file })
    }

    /// The capture file, in a form that any tool reads.
    pub fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// What it has by now; a packet that is half written is left out.
    pub fn captured_so_far(&self) -> Captured {
        Captured { file: self.file.clone() }
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// When `tcpdump` does not end.
    pub fn finish(mut self) -> Result<Captured> {
        self.process.signal(Signal::SIGINT)?;
        until("tcpdump to end", PATIENCE, || {
            let ended = self.process.exit_status()?;
            ended.ok_or_else(|| crate::Error::unmet("still running"))
        })?;
        Ok(Captured { file: self.file })
    }
}

/// A capture that has ended.
#[derive(Debug)]
pub struct Captured {
    file: PathBuf,
}

impl Captured {
    /// One line of the given fields (as `tshark -e` names them) for each packet that a display filter selects.
    ///
    /// # Errors
    /// When `tshark` does not know the filter or a field.
    pub fn packets(&self, display_filter: &str, fields: &[&str]) -> Result<Vec<String>> {
        let mut tshark = Command::new("tshark");
        // Under load segments are sent again and captured out of order; the streams in them are whole.
        tshark.arg("-r").arg(&self.file).args(["-o", "tcp.reassemble_out_of_order:TRUE"]);
        tshark.args(["-Y", display_filter, "-T", "fields"]);
        fields.iter().for_each(|field| {
            tshark.args(["-e", field]);
        });
        Ok(command::run(&mut tshark)?.lines().map(str::to_owned).collect())
    }
}
