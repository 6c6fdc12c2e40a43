//! BFD at 50 ms × 3: the link is cut → the session is down; and no false alarm while every core has more to do than
//! it can.
//!
//! Two speakers of ours, each in a namespace. What the cut costs until it has its effect counts, too: a ruleset is
//! handed to an `nft` that waits for it, and the time is taken before.

use std::{
    env,
    io::Write,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bgp::{
    bfd,
    config::{PeerAsn, PeerConfig, SpeakerConfig},
    driver::{self, Handle},
    status::{PeerStatus, State},
    types::{Asn, RouterId},
};
use lab::{Namespace, command};
use tokio::runtime::{Builder, Runtime};

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    figure::Sample,
    wire::{End, Family, Pair},
};

pub(super) const ENTRY: Entry = Entry {
    name: "bfd_detect",
    also: &["bfd_false_alarms"],
    about: "a cut link to the end of the session by BFD at 50 ms x 3, and false alarms with all cores loaded",
    prepare,
};

const INTERVAL: Duration = Duration::from_millis(50);
const LIMIT_MILLISECONDS: f64 = 160.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// For how long the cores are loaded, in seconds, once for all runs.
const LOAD_SECS: &str = "BENCH_BFD_LOAD_SECS";
const DEFAULT_LOAD_SECS: u64 = 600;

struct BfdDetect {
    pair: Pair,
    near: Speaker,
    /// The other end: it is there for as long as this.
    far: Speaker,
    load: Option<Duration>,
}

fn prepare(_: &Context) -> Result<Box<dyn Benchmark>> {
    let secs = env::var(LOAD_SECS).ok().map(|text| text.parse()).transpose();
    let secs = secs.with_context(|| format!("{LOAD_SECS} is not a number of seconds"))?;
    let pair = Pair::build()?;
    let far = Speaker::start(&pair.sink, End::Sink, End::Speaker)?;
    let near = Speaker::start(&pair.speaker, End::Speaker, End::Sink)?;
    let load = Some(Duration::from_secs(secs.unwrap_or(DEFAULT_LOAD_SECS)));
    Ok(Box::new(BfdDetect { pair, near, far, load }))
}

impl Benchmark for BfdDetect {
    fn run(&mut self) -> Result<Vec<Sample>> {
        self.wait_up()?;
        let mut samples = vec![Sample::bar("bfd_detect", self.cut()?, "ms", LIMIT_MILLISECONDS)];
        if let Some(load) = self.load.take() {
            self.wait_up()?;
            samples.push(Sample::bar("bfd_false_alarms", self.alarms(load)?, "alarms", 0.0));
            samples.push(Sample::note("bfd_false_alarms_time", load.as_secs_f64(), "s"));
        }
        Ok(samples)
    }
}

impl BfdDetect {
    fn wait_up(&self) -> Result<()> {
        let is_up = |peer: &PeerStatus| peer.state == State::Established && peer.bfd == Some(bfd::State::Up);
        self.near.wait(is_up).context("the near end")?;
        self.far.wait(is_up).context("the far end")?;
        // Slow packets of the beginning have been followed by fast ones, in both directions.
        thread::sleep(INTERVAL * 30);
        Ok(())
    }

    /// Milliseconds from the cut to the end of the session.
    fn cut(&self) -> Result<f64> {
        let mut nft = self.pair.speaker.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        let mut input = nft.stdin.take().context("nft has an input")?;
        let chain = |hook| format!("chain {hook} {{ type filter hook {hook} priority 0; policy drop; }}\n");
        write!(input, "table inet cut {{\n{}{}}}\n", chain("input"), chain("output"))?;
        let start = Instant::now();
        drop(input);
        let down = self.near.wait(|peer| peer.state != State::Established)?;
        let elapsed = start.elapsed();
        ensure!(nft.wait()?.success(), "nft did not cut the link");
        let error = down.last_error.unwrap_or_default();
        ensure!(error.contains("BFD down"), "the session ended for another reason: {error}");
        self.far.wait(|peer| peer.state != State::Established)?;
        command::run(self.pair.speaker.command("nft").args(["delete", "table", "inet", "cut"]))?;
        Ok(elapsed.as_secs_f64() * 1e3)
    }

    /// Sessions lost while every core has two threads that do nothing but compute.
    fn alarms(&self, time: Duration) -> Result<f64> {
        let before = self.near.flaps()? + self.far.flaps()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = thread::available_parallelism()?.get() * 2;
        let busy: Vec<_> = (0..threads)
            .map(|_| {
                let is_over = Arc::clone(&is_over);
                thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
        for thread in busy {
            ensure!(thread.join().is_ok(), "a thread of the load failed");
        }
        let alarms = self.near.flaps()? + self.far.flaps()? - before;
        // Exact below 2^53.
        Ok(alarms as f64)
    }
}

/// A speaker in a namespace.
struct Speaker {
    handle: Handle,
    runtime: Runtime,
}

impl Speaker {
    fn start(namespace: &Namespace, own: End, other: End) -> Result<Speaker> {
        let joined = namespace.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || joined.join().expect("the namespace lives as long as its run"))
            .enable_all()
            .build()?;
        let peer = peer(own, other)?;
        let listen = match own {
            End::Speaker => Vec::new(),
            _ => vec![(own.address(Family::Ipv4), 179).into()],
        };
        let config = SpeakerConfig { listen, seed: own as u64 + 1, ..SpeakerConfig::default() };
        let handle = runtime.block_on(runtime.spawn(async { driver::spawn(config) }))??;
        runtime.block_on(handle.set_peers(vec![peer]))?;
        Ok(Speaker { handle, runtime })
    }

    fn wait(&self, mut is_so: impl FnMut(&PeerStatus) -> bool) -> Result<PeerStatus> {
        let mut status = self.handle.watch_status();
        let wait = status.wait_for(|status| status.peers.first().is_some_and(&mut is_so));
        let found = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, wait).await });
        match found {
            Ok(status) => status?.peers.first().cloned().context("the speaker has its peer"),
            Err(_) => anyhow::bail!("not in time: {:?}", self.handle.watch_status().borrow().peers),
        }
    }

    fn flaps(&self) -> Result<u64> {
        let status = self.handle.watch_status();
        let peer = status.borrow().peers.first().cloned();
        Ok(peer.context("the speaker has its peer")?.flaps)
    }
}

fn peer(own: End, other: End) -> Result<PeerConfig> {
    let asn = |end: End| Asn::new(end.asn()).context("an AS number");
    let router_id = RouterId::new(own.router_id()).context("a router ID")?;
    let bfd =
        bfd::Config { transmit_interval: INTERVAL, receive_interval: INTERVAL, ..bfd::Config::default() };
    Ok(PeerConfig {
        bfd: Some(bfd),
        passive: own == End::Sink,
        connect_retry_time: Duration::from_secs(1),
        ..PeerConfig::new(
            "peer",
            other.address(Family::Ipv4),
            router_id,
            asn(own)?,
            PeerAsn::Exactly(asn(other)?),
        )
    })
}
