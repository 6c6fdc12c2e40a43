//! Our speaker as a process of its own, the way the daemons are: `bench speaker`, started by the benchmarks in
//! the speaker's namespace and told what to do on standard input.
//!
//! Commands, one a line, about the host routes of [`Family::prefix`]: `announce FROM TO` and `withdraw FROM TO`
//! prepare the values of a call and are answered with `prepared`; `go` makes the call and is not answered, because
//! what counts is seen at the receiver. `ready` says that the session can be dialled.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use bgp::{
    config::{PeerAsn, PeerConfig, SpeakerConfig},
    driver::Handle,
    route::{Route, RouteAttributes, RouteClass},
    types::{Asn, RouterId},
};
use clap::Args;
use ipnet::IpNet;

use crate::wire::{End, Family, Pair};

/// What `bench speaker` is told at the start.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The family of its session and of its routes.
    #[arg(long, value_enum)]
    family: Family,
    /// How many routes it has before the session comes up.
    #[arg(long, default_value_t = 0)]
    routes: u32,
}

/// Runs the speaker until standard input ends.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(arguments))
}

async fn serve(&Arguments { family, routes }: &Arguments) -> Result<()> {
    let listen = SocketAddr::new(End::Speaker.address(family), 179);
    let handle = bgp::driver::spawn(SpeakerConfig { listen: vec![listen], ..SpeakerConfig::default() })
        .with_context(|| format!("listening on {listen}"))?;
    let attributes = Arc::new(RouteAttributes::default());
    handle.announce(numbered(family, 0..routes, &attributes)).await?;
    handle.set_peers(vec![peer(family)?]).await?;
    let (commands, mut received) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        // The receiver is gone when the speaker has failed.
        let _ = lines.into_iter().try_for_each(|line| commands.send(line));
    });
    answer("ready")?;
    let mut call = Call::Withdraw(Vec::new());
    while let Some(line) = received.recv().await {
        if line == "go" {
            std::mem::replace(&mut call, Call::Withdraw(Vec::new())).make(&handle).await?;
        } else {
            call = Call::parse(family, &line, &attributes)?;
            answer("prepared")?;
        }
    }
    Ok(())
}

fn peer(family: Family) -> Result<PeerConfig> {
    let asn = |end: End| Asn::new(end.asn()).context("AS number");
    let router_id = RouterId::new(End::Speaker.router_id()).context("router ID")?;
    let peer_asn = PeerAsn::Exactly(asn(End::Sink)?);
    let address = End::Sink.address(family);
    let mut peer = PeerConfig::new("sink", address, router_id, asn(End::Speaker)?, peer_asn);
    peer.passive = true;
    Ok(peer)
}

/// A call of the library with its values.
enum Call {
    Announce(Vec<Route>),
    Withdraw(Vec<IpNet>),
}

impl Call {
    fn parse(family: Family, line: &str, attributes: &Arc<RouteAttributes>) -> Result<Self> {
        let words = line.split_whitespace().collect::<Vec<_>>();
        let [verb, from, to] = words.as_slice() else { bail!("{line:?} is no command") };
        let numbers = from.parse()?..to.parse()?;
        match *verb {
            "announce" => Ok(Self::Announce(numbered(family, numbers, attributes))),
            "withdraw" => Ok(Self::Withdraw(prefixes(family, numbers))),
            _ => bail!("{line:?} is no command"),
        }
    }

    async fn make(self, handle: &Handle) -> Result<()> {
        match self {
            Self::Announce(routes) => handle.announce(routes).await?,
            Self::Withdraw(prefixes) => handle.withdraw(prefixes).await?,
        }
        Ok(())
    }
}

fn prefixes(family: Family, numbers: std::ops::Range<u32>) -> Vec<IpNet> {
    numbers.map(|number| family.prefix(number)).collect()
}

fn numbered(family: Family, numbers: std::ops::Range<u32>, attributes: &Arc<RouteAttributes>) -> Vec<Route> {
    let prefixes = prefixes(family, numbers).into_iter();
    let route = |prefix| Route { prefix, class: RouteClass::default(), attributes: Arc::clone(attributes) };
    prefixes.map(route).collect()
}

fn answer(word: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

/// The process, from the outside.
#[derive(Debug)]
pub(crate) struct Speaker {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Speaker {
    /// Starts it in the speaker's namespace, with so many routes, and waits until it listens.
    pub(crate) fn start(pair: &Pair, family: Family, routes: u32) -> Result<Self> {
        let mut command = pair.speaker.command(std::env::current_exe()?);
        command.args(["speaker", "--family", family.short(), "--routes", &routes.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = child.stdin.take().context("standard input of the speaker")?;
        let answers = BufReader::new(child.stdout.take().context("standard output of the speaker")?);
        let mut speaker = Self { child, commands, answers };
        speaker.expect("ready")?;
        Ok(speaker)
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.trim_end() != word {
            bail!("our speaker said {line:?} where {word:?} was expected; it ended or misbehaves");
        }
        Ok(())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Prepares a call, `announce` or `withdraw`.
    pub(crate) fn prepare(&mut self, verb: &str, numbers: std::ops::Range<u32>) -> Result<()> {
        writeln!(self.commands, "{verb} {} {}", numbers.start, numbers.end).context("telling our speaker")?;
        self.expect("prepared")
    }

    /// Makes the prepared call.
    pub(crate) fn go(&mut self) -> Result<()> {
        writeln!(self.commands, "go").context("telling our speaker")
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { mut child, commands, .. } = self;
        // The end of its input is what it ends with.
        drop(commands);
        child.wait().map(drop).context("waiting for our speaker")
    }
}
