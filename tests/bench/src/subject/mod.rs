//! Who is measured on the wire: our speaker or the raw sender, each a process of its own in the speaker's
//! namespace, told what to do on standard input, so that both are fed alike.
//!
//! Commands, one a line, about the host routes of [`Family::prefix`]: `announce FROM TO` and `withdraw FROM TO`
//! prepare everything that can be done before the clock starts and are answered with `prepared`; `go` does it and
//! is not answered, because what counts is seen at the receiver. `ready` says that the session can be dialled.
//!
//! Our speaker makes one call a route for both, and one for all routes for `announce-at-once FROM TO`;
//! `announce-in-any-order FROM TO` is one call a route, never that of a neighbour next. The raw sender has its octets
//! in memory when `go` comes: it stands for a program that needs no time at all to find out what to say. After
//! `relay OCTETS` it has not: so many octets follow `go` on standard input, and it passes them on.

mod ours;
mod raw;

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    ops::Range,
    os::fd::AsFd,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::wire::{Family, Pair};

/// What `bench subject` is told at the start.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Arguments {
    /// Who it is.
    #[arg(long, value_enum)]
    who: Who,
    /// The family of its session and of its routes.
    #[arg(long, value_enum)]
    family: Family,
    /// How many routes it has before the session comes up.
    #[arg(long, default_value_t = 0)]
    routes: u32,
    /// Dial the receiver instead of waiting for it.
    #[arg(long)]
    dial: bool,
}

/// Who can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Who {
    /// Our speaker.
    Ours,
    /// The floor of the machine: writes octets that were encoded before.
    Raw,
}

impl Who {
    const fn argument(self) -> &'static str {
        match self {
            Who::Ours => "ours",
            Who::Raw => "raw",
        }
    }
}

/// Is the subject, until standard input ends.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.who {
        Who::Ours => ours::run(arguments),
        Who::Raw => raw::run(arguments),
    }
}

/// What is said about routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Announce,
    AnnounceAtOnce,
    AnnounceInAnyOrder,
    Withdraw,
}

impl Verb {
    const ALL: [Verb; 4] = [Verb::Announce, Verb::AnnounceAtOnce, Verb::AnnounceInAnyOrder, Verb::Withdraw];

    const fn word(self) -> &'static str {
        match self {
            Verb::Announce => "announce",
            Verb::AnnounceAtOnce => "announce-at-once",
            Verb::AnnounceInAnyOrder => "announce-in-any-order",
            Verb::Withdraw => "withdraw",
        }
    }
}

/// A line of standard input.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Prepare(Verb, Range<u32>),
    Relay(usize),
    Go,
}

impl Line {
    fn parse(line: &str) -> Result<Self> {
        let words = line.split_whitespace().collect::<Vec<_>>();
        match words.as_slice() {
            ["go"] => Ok(Self::Go),
            ["relay", octets] => Ok(Self::Relay(octets.parse()?)),
            [word, from, to] => {
                let verb = Verb::ALL.into_iter().find(|verb| verb.word() == *word);
                let verb = verb.with_context(|| format!("{line:?} is no command"))?;
                Ok(Self::Prepare(verb, from.parse()?..to.parse()?))
            }
            _ => bail!("{line:?} is no command"),
        }
    }
}

fn answer(word: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

/// The process, from the outside.
#[derive(Debug)]
pub(crate) struct Subject {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What follows the next `go`.
    relayed: Vec<u8>,
}

impl Subject {
    /// Starts it with so many routes and waits until it listens.
    pub(crate) fn listen(pair: &Pair, who: Who, family: Family, routes: u32) -> Result<Self> {
        let mut subject = Self::spawn(pair, who, family, routes, &[])?;
        subject.expect("ready")?;
        Ok(subject)
    }

    /// Starts it with so many routes; it dials the receiver at once.
    pub(crate) fn dial(pair: &Pair, who: Who, family: Family, routes: u32) -> Result<Self> {
        Self::spawn(pair, who, family, routes, &["--dial"])
    }

    fn spawn(pair: &Pair, who: Who, family: Family, routes: u32, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["subject", "--who", who.argument(), "--family", family.short()]);
        command.args(["--routes", &routes.to_string()]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // From a thread inside the namespace: the child begins there, without another program in between.
        let mut child = pair.speaker.enter(|| command.spawn())?.context("starting the subject")?;
        let commands = child.stdin.take().context("standard input of the subject")?;
        let answers = BufReader::new(child.stdout.take().context("standard output of the subject")?);
        Ok(Self { child, commands, answers, relayed: Vec::new() })
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.trim_end() != word {
            bail!("the subject said {line:?} where {word:?} was expected: it has ended or misbehaves");
        }
        Ok(())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Prepares everything that can be done before the clock starts.
    pub(crate) fn prepare(&mut self, verb: Verb, numbers: Range<u32>) -> Result<()> {
        let line = format!("{} {} {}\n", verb.word(), numbers.start, numbers.end);
        self.commands.write_all(line.as_bytes()).context("telling the subject")?;
        self.expect("prepared")
    }

    /// Prepares the raw sender to pass on octets that it does not have yet.
    pub(crate) fn prepare_relay(&mut self, octets: Vec<u8>) -> Result<()> {
        writeln!(self.commands, "relay {}", octets.len()).context("telling the subject")?;
        self.relayed = octets;
        self.expect("prepared")
    }

    /// Has it done.
    pub(crate) fn go(&mut self) -> Result<()> {
        self.commands.write_all(b"go\n").context("telling the subject")?;
        if self.relayed.is_empty() {
            return Ok(());
        }
        // By a thread: it goes on only as fast as the receiver reads, and that is who calls this.
        let mut pipe = File::from(self.commands.as_fd().try_clone_to_owned()?);
        let octets = std::mem::take(&mut self.relayed);
        thread::spawn(move || pipe.write_all(&octets));
        Ok(())
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { mut child, commands, .. } = self;
        // The end of its input is what it ends with.
        drop(commands);
        child.wait().map(drop).context("waiting for the subject")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_are_written() {
        assert_eq!(Line::parse("go").unwrap(), Line::Go);
        assert_eq!(Line::parse("withdraw 3 5").unwrap(), Line::Prepare(Verb::Withdraw, 3..5));
        assert_eq!(Line::parse("announce-at-once 0 9").unwrap(), Line::Prepare(Verb::AnnounceAtOnce, 0..9));
        assert_eq!(Line::parse("relay 7").unwrap(), Line::Relay(7));
        assert!(Line::parse("withdraw 3").is_err());
    }
}
