//! BGP daemons of other projects, from their Debian packages, as peers of a figure. Each accepts two sessions:
//! one with a feeder that fills its table, one with the receiver, which it tells everything.
//!
//! The routes come from outside because that way every daemon is loaded alike, however it prefers to be
//! configured; what is measured begins when its table is full.

mod bird;
mod frr;
mod gobgp;
mod openbgpd;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use lab::{Process, command, until};

use crate::wire::{End, Family, Pair};

/// A kind of daemon.
pub(crate) trait Software {
    /// Its name in figures.
    fn name(&self) -> &'static str;
    /// The Debian package that brings it.
    fn package(&self) -> &'static str;
    /// A file of that package without which nothing works.
    fn program(&self) -> &'static str;
    /// The version as it says itself, without its name.
    fn version(&self) -> Result<String>;
    /// Starts it; returns when it can be asked.
    fn start(&self, pair: &Pair, folder: &Path, family: Family) -> Result<Vec<Process>>;
    /// How many prefixes its table holds.
    fn prefixes(&self, pair: &Pair, folder: &Path, family: Family) -> Result<usize>;
}

/// All kinds.
pub(crate) const ALL: &[&dyn Software] = &[&bird::Bird, &frr::Frr, &gobgp::GoBgp, &openbgpd::OpenBgpd];

/// Those whose package is installed; says on standard error what is not.
pub(crate) fn installed() -> Vec<&'static dyn Software> {
    let is_installed = |software: &&'static dyn Software| {
        let found = Path::new(software.program()).exists();
        if !found {
            eprintln!("bench: without {}: apt install {}", software.name(), software.package());
        }
        found
    };
    ALL.iter().copied().filter(is_installed).collect()
}

/// A running daemon.
pub(crate) struct Daemon<'a> {
    software: &'static dyn Software,
    pair: &'a Pair,
    folder: PathBuf,
    family: Family,
    processes: Vec<Process>,
}

impl<'a> Daemon<'a> {
    /// Starts a daemon in the speaker's namespace.
    pub(crate) fn start(software: &'static dyn Software, pair: &'a Pair, family: Family) -> Result<Self> {
        let folder = pair.run.folder().join(software.name());
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let processes = software
            .start(pair, &folder, family)
            .with_context(|| format!("{}; its logs: {}", software.name(), pair.run.log_tails(5)))?;
        Ok(Self { software, pair, folder, family, processes })
    }

    /// Waits until its table holds so many prefixes.
    pub(crate) fn wait_loaded(&mut self, count: usize) -> Result<()> {
        let what = format!("{count} prefixes in the table of {}", self.software.name());
        until(what, Duration::from_secs(60), || {
            for process in &mut self.processes {
                process.check_running()?;
            }
            match self.software.prefixes(self.pair, &self.folder, self.family)? {
                found if found == count => Ok(()),
                found => bail!("{found}"),
            }
        })
        .map_err(Into::into)
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.processes.iter_mut().rev().try_for_each(|process| process.kill().map_err(Into::into))
    }
}

/// What a daemon is told about itself and its two neighbours.
struct Values {
    folder: String,
    version: &'static str,
    unspecified: &'static str,
    family: Family,
}

impl Values {
    fn new(folder: &Path, family: Family) -> Self {
        let (version, unspecified) = match family {
            Family::Ipv4 => ("ipv4", "0.0.0.0/0"),
            Family::Ipv6 => ("ipv6", "::/0"),
        };
        Self { folder: folder.display().to_string(), version, unspecified, family }
    }

    /// Fills in a template: `{speaker}`, `{sink}`, `{feeder}` are addresses, `{speaker_as}` … AS numbers.
    fn fill(&self, template: &str) -> String {
        let mut text = template
            .replace("{folder}", &self.folder)
            .replace("{ipv}", self.version)
            .replace("{any}", self.unspecified)
            .replace("{router_id}", &End::Speaker.router_id().to_string());
        for (name, end) in [("speaker", End::Speaker), ("sink", End::Sink), ("feeder", End::Feeder)] {
            text = text
                .replace(&format!("{{{name}}}"), &end.address(self.family).to_string())
                .replace(&format!("{{{name}_as}}"), &end.asn().to_string());
        }
        text
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Waits until a command that asks the daemon succeeds.
fn wait_answer(process: &mut Process, mut ask: impl FnMut() -> Command) -> Result<()> {
    until(format!("{} to answer", process.name()), Duration::from_secs(20), || {
        process.check_running()?;
        command::run(&mut ask())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Feeder, Sink};

    #[test]
    fn every_installed_daemon_tells_the_receiver_what_it_was_fed() {
        let pair = Pair::build().unwrap();
        for (software, family) in
            installed().into_iter().flat_map(|software| Family::ALL.map(|family| (software, family)))
        {
            assert!(
                software.version().unwrap().starts_with(|c: char| c.is_ascii_digit()),
                "{}",
                software.name()
            );
            let mut daemon = Daemon::start(software, &pair, family).unwrap();
            let to = End::Speaker.address(family);
            let source = End::Feeder.address(family);
            let octets = End::Feeder.messages().announcement(family, source, 0..10);
            let feeder = pair.sink.enter(|| Feeder::dial(source, to, End::Feeder.messages(), octets));
            let feeder = feeder.unwrap().unwrap();
            daemon.wait_loaded(10).unwrap();
            let sink = pair.sink.enter(|| Sink::dial(family, End::Speaker));
            let mut sink = sink.unwrap().unwrap();
            sink.establish().unwrap();
            sink.wait_present(10, Duration::from_secs(10)).unwrap();
            drop(feeder);
            daemon.stop().unwrap();
        }
    }
}
