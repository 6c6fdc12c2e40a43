//! 100,000 host routes over one session, in a row: loaded before the session comes up (`bulk_100k`), all withdrawn
//! (`bulk_withdraw_100k`), all announced again on the session that is up (`live_100k`); what it took on the wire
//! (`wire_bytes`) and in memory (`rss_100k`). IPv4 over an IPv4 session, then IPv6 over an IPv6 session; the raw
//! sender, our speaker, and every daemon that is installed, at the same receiver.
//!
//! The daemons are fed by a second session, so that their figures for withdrawing and announcing on a session that
//! is up contain what they take to learn of it. Our speaker is told by 100,000 calls of one route each, from one
//! task, in the order of their addresses, as everyone else is; what one call with all of them takes, and calls in no
//! order, are notes.
//!
//! The raw sender is the strictest floor there is: it writes octets that lie in its memory, so that what is left is
//! one copy into the kernel and one out of it. A second figure, `…_raw_sender_fed`, is that of a raw sender that is
//! brought the same octets through a pipe when the clock starts, as a program that has no speaker inside would be:
//! the difference is what bringing them takes, at 64 KiB a piece: twice as long or more. Whoever compares
//! figures of raw senders from elsewhere has to ask which of the two they are of. The bars hold us against the first.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    daemons::{self, Daemon, Software},
    figure::Sample,
    process::{Memory, megabytes},
    subject::{Subject, Verb, Who},
    wire::{End, Family, Feeder, Messages, Pair, Receipt, Sink},
};

pub(super) const ENTRY: Entry = Entry {
    name: "bulk_100k",
    also: &["bulk_withdraw_100k", "live_100k", "wire_bytes", "rss_100k"],
    about: "100,000 routes over one session: loaded, withdrawn, announced live; octets and memory",
    prepare,
};

const ROUTES: u32 = 100_000;
const ALL: Range<u32> = 0..ROUTES;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Ours per the raw sender's.
const LIMIT_PER_RAW: f64 = 10.0;
/// Ours per the fastest daemon's, for announcements; a withdrawal has to be faster than any.
const LIMIT_PER_DAEMON: f64 = 0.2;
const LIMIT_PER_DAEMON_WITHDRAWN: f64 = 1.0;
/// What is sent per the optimum.
const LIMIT_WIRE: f64 = 1.01;
const LIMIT_MEGABYTES: f64 = 30.0;

struct Bulk {
    pair: Pair,
    daemons: Vec<(&'static dyn Software, String)>,
}

fn prepare(_: &Context) -> Result<Box<dyn Benchmark>> {
    let with_version = |software: &'static dyn Software| Ok((software, software.version()?));
    let daemons = daemons::installed().into_iter().map(with_version).collect::<Result<_>>()?;
    Ok(Box::new(Bulk { pair: Pair::build()?, daemons }))
}

/// Someone with 100,000 routes and a session to the receiver: all of them are announced or withdrawn at once.
trait Party {
    /// Everything that can be done before the clock starts.
    fn prepare(&mut self, verb: Verb) -> Result<()>;
    /// Does what was prepared.
    fn go(&mut self) -> Result<()>;
}

impl Party for Subject {
    fn prepare(&mut self, verb: Verb) -> Result<()> {
        Subject::prepare(self, verb, ALL)
    }

    fn go(&mut self) -> Result<()> {
        Subject::go(self)
    }
}

/// The raw sender, told what to write when the clock starts.
struct Relayed<'a>(&'a mut Subject, Family);

impl Party for Relayed<'_> {
    fn prepare(&mut self, verb: Verb) -> Result<()> {
        let Self(subject, family) = self;
        subject.prepare_relay(match verb {
            Verb::Announce | Verb::AnnounceAtOnce | Verb::AnnounceInAnyOrder => {
                End::Speaker.messages().announcement(*family, End::Speaker.address(*family), ALL)
            }
            Verb::Withdraw => Messages::withdrawal(*family, ALL),
        })
    }

    fn go(&mut self) -> Result<()> {
        self.0.go()
    }
}

/// A daemon hears from its feeder what to do.
struct Fed {
    feeder: Feeder,
    family: Family,
    octets: Vec<u8>,
}

impl Party for Fed {
    fn prepare(&mut self, verb: Verb) -> Result<()> {
        self.octets = match verb {
            Verb::Announce | Verb::AnnounceAtOnce | Verb::AnnounceInAnyOrder => {
                announcement_of_the_feeder(self.family)
            }
            Verb::Withdraw => Messages::withdrawal(self.family, ALL),
        };
        Ok(())
    }

    fn go(&mut self) -> Result<()> {
        self.feeder.write(std::mem::take(&mut self.octets))
    }
}

fn announcement_of_the_feeder(family: Family) -> Vec<u8> {
    End::Feeder.messages().announcement(family, End::Feeder.address(family), ALL)
}

/// What was measured of one subject; times in milliseconds.
struct Measured {
    bulk: (f64, Receipt),
    withdrawn: f64,
    live: (f64, Receipt),
    /// Announced again in other ways, by name.
    live_otherwise: Vec<(&'static str, f64)>,
}

impl Benchmark for Bulk {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for family in Family::ALL {
            samples.extend(self.family(family)?);
        }
        Ok(samples)
    }
}

impl Bulk {
    fn family(&self, family: Family) -> Result<Vec<Sample>> {
        let (raw, _) = self.subject(Who::Raw, family).context("raw sender")?;
        let (ours, memory) = self.subject(Who::Ours, family).context("our speaker")?;
        let mut daemons = Vec::new();
        for (software, version) in &self.daemons {
            let measured = self.daemon(*software, family).with_context(|| software.name())?;
            daemons.push(((software.name(), version.as_str()), measured));
        }
        let time = |what: &str, of: fn(&Measured) -> f64, limit: f64| {
            let name = format!("{what}_{}", family.short());
            compare(&name, of(&ours), of(&raw), limit, daemons.iter().map(|(peer, m)| (*peer, of(m))))
        };
        let mut samples = time("bulk_100k", |m| m.bulk.0, LIMIT_PER_DAEMON);
        samples.extend(time("bulk_withdraw_100k", |m| m.withdrawn, LIMIT_PER_DAEMON_WITHDRAWN));
        samples.extend(time("live_100k", |m| m.live.0, LIMIT_PER_DAEMON));
        let live = format!("live_100k_{}", family.short());
        for (how, took) in raw.live_otherwise.iter().chain(&ours.live_otherwise) {
            samples.push(Sample::note(format!("{live}_{how}"), *took, "ms"));
        }
        samples.extend(wire(family, "bulk", &ours.bulk.1, &raw.bulk.1));
        samples.extend(wire(family, "live", &ours.live.1, &raw.live.1));
        let name = format!("rss_100k_{}", family.short());
        samples.push(Sample::bar(&name, megabytes(memory.resident), "MB", LIMIT_MEGABYTES));
        samples.push(Sample::note(format!("{name}_peak"), megabytes(memory.peak), "MB"));
        Ok(samples)
    }

    fn subject(&self, who: Who, family: Family) -> Result<(Measured, Memory)> {
        let mut subject = Subject::listen(&self.pair, who, family, ROUTES)?;
        let mut course = Course::start(&self.pair, family)?;
        let mut measured = course.run(&mut subject)?;
        let memory = Memory::of(subject.pid())?;
        let otherwise = match who {
            Who::Ours => {
                &[("in_one_call", Verb::AnnounceAtOnce), ("in_any_order", Verb::AnnounceInAnyOrder)][..]
            }
            Who::Raw => &[("raw_sender_fed", Verb::Announce)],
        };
        for (how, verb) in otherwise {
            course.withdraw(&mut subject)?;
            let (took, _) = match who {
                Who::Ours => course.announce(&mut subject, *verb)?,
                Who::Raw => course.announce(&mut Relayed(&mut subject, family), *verb)?,
            };
            measured.live_otherwise.push((how, took));
        }
        subject.stop()?;
        Ok((measured, memory))
    }

    fn daemon(&self, software: &'static dyn Software, family: Family) -> Result<Measured> {
        let mut daemon = Daemon::start(software, &self.pair, family)?;
        let (source, to) = (End::Feeder.address(family), End::Speaker.address(family));
        let (messages, first) = (End::Feeder.messages(), announcement_of_the_feeder(family));
        let feeder = self.pair.sink.enter(|| Feeder::dial(source, to, messages, first))??;
        daemon.wait_loaded(ROUTES as usize)?;
        let mut fed = Fed { feeder, family, octets: Vec::new() };
        let measured = Course::start(&self.pair, family)?.run(&mut fed)?;
        daemon.stop()?;
        Ok(measured)
    }
}

/// What the receiver takes every party through.
struct Course(Sink);

impl Course {
    fn start(pair: &Pair, family: Family) -> Result<Self> {
        Ok(Self(pair.sink.enter(|| Sink::dial(family, End::Speaker))??))
    }

    fn run(&mut self, party: &mut dyn Party) -> Result<Measured> {
        let established = self.0.establish()?;
        let receipt = self.0.wait_present(ROUTES as usize, TIMEOUT).context("loaded before the session")?;
        let bulk = (milliseconds(established, &receipt), receipt);
        let withdrawn = self.withdraw(party)?;
        let live = self.announce(party, Verb::Announce)?;
        Ok(Measured { bulk, withdrawn, live, live_otherwise: Vec::new() })
    }

    fn withdraw(&mut self, party: &mut dyn Party) -> Result<f64> {
        let (took, _) = self.change(party, Verb::Withdraw, 0).context("withdrawal")?;
        Ok(took)
    }

    fn announce(&mut self, party: &mut dyn Party, verb: Verb) -> Result<(f64, Receipt)> {
        self.change(party, verb, ROUTES as usize).context("announcement on a session that is up")
    }

    /// From `go` to the last octet.
    fn change(&mut self, party: &mut dyn Party, verb: Verb, present: usize) -> Result<(f64, Receipt)> {
        // Whoever sends things twice shall be done with it.
        self.0.wait_quiet(Duration::from_millis(200))?;
        party.prepare(verb)?;
        let start = Instant::now();
        party.go()?;
        let receipt = self.0.wait_present(present, TIMEOUT)?;
        Ok((milliseconds(start, &receipt), receipt))
    }
}

fn milliseconds(start: Instant, receipt: &Receipt) -> f64 {
    (receipt.at - start).as_secs_f64() * 1e3
}

/// Our time beside the raw sender's and the daemons', and the two ratios that are the bars.
fn compare<'a>(
    name: &str,
    ours: f64,
    raw: f64,
    limit_per_daemon: f64,
    daemons: impl Iterator<Item = ((&'a str, &'a str), f64)>,
) -> Vec<Sample> {
    let mut samples = vec![
        Sample::note(format!("{name}_raw_sender"), raw, "ms"),
        Sample::note(name, ours, "ms"),
        Sample::bar(format!("{name}_per_raw_sender"), ours / raw, "x", LIMIT_PER_RAW),
    ];
    let mut fastest = f64::INFINITY;
    for (peer, took) in daemons {
        fastest = fastest.min(took);
        samples.push(Sample::peer(name, took, "ms", peer));
    }
    if fastest.is_finite() {
        let per_daemon = format!("{name}_per_fastest_daemon");
        samples.push(Sample::bar(per_daemon, ours / fastest, "x", limit_per_daemon));
    }
    samples
}

/// Messages and octets per the optimum, and that nothing was sent twice.
fn wire(family: Family, what: &str, ours: &Receipt, optimum: &Receipt) -> [Sample; 3] {
    let name = format!("wire_bytes_{what}_{}", family.short());
    let ratio = |ours: usize, optimum: usize| ours as f64 / optimum as f64;
    [
        Sample::bar(format!("{name}_messages"), ratio(ours.updates, optimum.updates), "x", LIMIT_WIRE),
        Sample::bar(format!("{name}_octets"), ratio(ours.octets, optimum.octets), "x", LIMIT_WIRE),
        Sample::bar(format!("{name}_repeated"), ours.repeated as f64, "routes", 0.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_held_against_the_raw_sender_and_the_fastest_daemon() {
        let daemons = [(("GoBGP", "3.10.0"), 475.0), (("OpenBGPD", "7.7"), 144.0)];
        let samples = compare("bulk_100k_v4", 28.8, 0.8, 0.2, daemons.into_iter());
        let bars = samples.iter().filter(|sample| sample.name.contains("_per_")).collect::<Vec<_>>();
        assert_eq!(bars[0].value.round().to_string(), "36");
        assert_eq!(format!("{:.2}", bars[1].value), "0.20");
        assert_eq!(samples.iter().filter(|sample| sample.name == "bulk_100k_v4").count(), 3);
    }

    #[test]
    fn without_any_daemon_there_is_no_ratio_to_one() {
        assert_eq!(compare("live_100k_v4", 1.0, 1.0, 0.2, std::iter::empty()).len(), 3);
    }
}
