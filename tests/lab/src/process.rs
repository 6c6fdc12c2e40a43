//! A program that the lab started and keeps running: its log, its signals, its end.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::{Error, Result, command, until};

/// What a line of a log is cut to when it is shown.
const LONGEST_LINE: usize = 400;

/// A running program. Dropping the handle leaves it running; the [`Run`](crate::Run) ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program with its output in `log` (appended, so that restarts keep their history).
    ///
    /// It gets its own process group: a Ctrl-C in the terminal reaches the lab alone, which then ends
    /// everything in order.
    ///
    /// # Errors
    /// When the program cannot be started or the log cannot be written.
    pub fn spawn(name: impl Into<String>, mut command: Command, log: impl Into<PathBuf>) -> Result<Self> {
        let (name, log) = (name.into(), log.into());
        let file = File::options().create(true).append(true).open(&log).map_err(Error::path(&log))?;
        let copy = file.try_clone().map_err(Error::path(&log))?;
        let shown = command::line(&command);
        let _held = crate::run::making();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("starting `{shown}`")))?;
        Ok(Self { name, log, child })
    }

    /// What the lab calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal; one that has ended takes none.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.deliver(signal, kill)
    }

    /// Sends a signal to the program and to what it has started, as far as that stayed in its process group.
    fn signal_group(&mut self, signal: Signal) -> Result<()> {
        self.deliver(signal, killpg)
    }

    fn deliver(&mut self, signal: Signal, send: fn(Pid, Option<Signal>) -> nix::Result<()>) -> Result<()> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        let pid =
            i32::try_from(self.pid()).map_err(|error| Error::parse("the kernel's process id", error))?;
        send(Pid::from_raw(pid), Some(signal))
            .map_err(|errno| Error::Io { what: format!("{signal} to {}", self.name), source: errno.into() })
    }

    /// The exit status, once it has ended.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::io(format!("waiting for {}", self.name)))
    }

    /// Fails with the tail of the log when the program has ended; for loops that wait for it to get ready.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => {
                Err(Error::unmet(format!("{} ended ({status}); its log ends: {}", self.name, self.tail(5))))
            }
        }
    }

    /// SIGKILL, and waits for the end: what a crash looks like.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait().map(drop).map_err(Error::io(format!("waiting for {}", self.name)))
    }

    /// SIGKILL to it and to what it has started, and waits for its end.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill_group(&mut self) -> Result<()> {
        self.signal_group(Signal::SIGKILL)?;
        self.child.wait().map(drop).map_err(Error::io(format!("waiting for {}", self.name)))
    }

    /// SIGTERM, and waits for the end: what an orderly shutdown looks like.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        until(format!("{} to end after SIGTERM", self.name), timeout, || {
            self.exit_status()?.ok_or_else(|| Error::unmet("still running"))
        })
    }

    /// SIGSTOP: the program stands still with all processes that it has started, their sockets stay open.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn pause(&mut self) -> Result<()> {
        self.signal_group(Signal::SIGSTOP)
    }

    /// SIGCONT after [`Process::pause`].
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn resume(&mut self) -> Result<()> {
        self.signal_group(Signal::SIGCONT)
    }

    /// Resident memory in octets, from `/proc`.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn resident_octets(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).map_err(Error::path(&path))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|number| number.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| Error::parse(path, "no VmRSS line: the program has ended"))
    }

    /// The last lines of the log.
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

/// The last lines of a text file; empty when there is none.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|octets| String::from_utf8_lossy(&octets).into_owned()).unwrap_or_default();
    let all = text.lines().collect::<Vec<_>>();
    let last = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
    last.iter().map(|line| shortened(line)).collect::<Vec<_>>().join("\n")
}

fn shortened(line: &str) -> String {
    if line.chars().count() <= LONGEST_LINE {
        return line.to_owned();
    }
    line.chars().take(LONGEST_LINE).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secs;

    fn start(script: &str, folder: &Path) -> Process {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        Process::spawn("sh", sh, folder.join("sh.log")).unwrap()
    }

    #[test]
    fn an_ended_program_is_reported_with_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = start("echo cannot bind port 179; exit 1", folder.path());
        let error = until("the end", secs(5), || match process.check_running() {
            Ok(()) => Err("running"),
            Err(error) => Ok(error),
        });
        let text = error.unwrap().to_string();
        assert!(text.contains("exit status: 1") && text.ends_with("cannot bind port 179"), "{text}");
    }

    #[test]
    fn terminate_waits_for_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = start("trap 'exit 7' TERM; while :; do sleep 0.01; done", folder.path());
        // The trap must be set before the signal comes.
        until("a child of the shell", secs(5), || {
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.pid()));
            children.ok().filter(|pids| !pids.is_empty()).ok_or("none")
        })
        .unwrap();
        assert_eq!(process.terminate(secs(5)).unwrap().code(), Some(7));
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2), "two\nthree");
        assert_eq!(tail(&folder.path().join("none"), 2), "");
    }
}
