//! A hundred nodes in one subnet: what their heartbeats cost each of them, processor and wire, and how long a death takes
//! to be known to all.
//!
//! Every node is a thread with a runtime and a socket of its own, as in the agent, on an address of the loopback interface
//! of a namespace, whose counters are the wire. All of the kernel's work for a datagram, at both ends, is done by this
//! process, so that its processor time by their number is a node's.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use heartbeat::{
    Config, Event, Keys, Local, Name, State,
    driver::{Endpoint, boot},
};
use lab::{Namespace, Run};
use tokio::sync::watch;

use super::{Benchmark, Entry};
use crate::{context::Context, figure::Sample, process::CpuTime};

pub(super) const ENTRY: Entry = Entry {
    name: "heartbeat_cost",
    also: &["heartbeat_traffic", "heartbeat_detect"],
    about: "heartbeats of 100 nodes in one subnet: processor and octets a node, and a death until all know it",
    prepare,
};

const NODES: u8 = 100;
const PORT: u16 = 7473;
const LIMIT_PERCENT: f64 = 1.0;
const LIMIT_KBITS: f64 = 100.0;
const MEASURED: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// Loopback counts the header of a frame, but not its checksum.
const CHECKSUM_OCTETS: u64 = 4;

fn prepare(_: &Context) -> Result<Box<dyn Benchmark>> {
    let run = Run::start()?;
    let namespace = run.namespace("subnet")?;
    Ok(Box::new(HeartbeatCost { namespace, _run: run }))
}

struct HeartbeatCost {
    namespace: Namespace,
    /// Owns the namespace.
    _run: Run,
}

impl Benchmark for HeartbeatCost {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let mut subnet = Subnet::start(&self.namespace)?;
        subnet.wait_until_all_are_alive()?;
        // What the beginning has left.
        thread::sleep(Duration::from_secs(2));
        let (wire, cpu, start) = (self.wire()?, own_cpu()?, Instant::now());
        thread::sleep(MEASURED);
        let (wire_after, cpu_after, elapsed) = (self.wire()?, own_cpu()?, start.elapsed().as_secs_f64());
        let a_node = elapsed * f64::from(NODES);
        let packets = wire_after.packets - wire.packets;
        let octets = wire_after.octets - wire.octets + packets * CHECKSUM_OCTETS;
        // What one sends another receives. Exact below 2^53.
        let kbits = octets as f64 * 8.0 * 2.0 / 1e3 / a_node;
        let percent = (cpu_after - cpu).as_secs_f64() * 100.0 / a_node;
        let detected = subnet.kill_one()?;
        Ok(vec![
            Sample::bar("heartbeat_cost", percent, "% of a core a node", LIMIT_PERCENT),
            Sample::bar("heartbeat_traffic", kbits, "kbit/s a node, both directions", LIMIT_KBITS),
            Sample::note("heartbeat_datagrams", packets as f64 / a_node, "sent a second by a node"),
            Sample::note(
                "heartbeat_detect",
                detected.as_secs_f64() * 1e3,
                "ms until all others know a death",
            ),
        ])
    }
}

/// What a loopback interface has carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wire {
    packets: u64,
    octets: u64,
}

impl HeartbeatCost {
    fn wire(&self) -> Result<Wire> {
        // Of the thread: that of the process is another namespace's.
        let text = self.namespace.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        loopback(&text).context("the namespace has a loopback interface")
    }
}

/// The transmit columns of `lo`.
fn loopback(text: &str) -> Option<Wire> {
    let columns = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    let mut columns = columns.split_whitespace().skip(8).map_while(|column| column.parse().ok());
    Some(Wire { octets: columns.next()?, packets: columns.next()? })
}

fn own_cpu() -> Result<Duration> {
    let cpu = CpuTime::of(std::process::id())?;
    Ok(cpu.user + cpu.system)
}

fn address(node: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(127, 0, 1, node).into(), PORT)
}

fn name(node: u8) -> Name {
    format!("node-{node}.example").into()
}

/// What a thread tells.
#[derive(Clone, Debug)]
enum News {
    AllAlive(u8),
    Dead(Name, Instant),
    Failed(String),
}

/// All nodes; they end when this is dropped.
struct Subnet {
    nodes: BTreeMap<u8, Node>,
    news: mpsc::Receiver<News>,
}

struct Node {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Subnet {
    fn start(namespace: &Namespace) -> Result<Subnet> {
        let (tell, news) = mpsc::channel();
        let config = Config::new(Duration::from_millis(100), 5, Keys::parse(b"the key of the benchmark")?)?;
        let members: Arc<BTreeMap<Name, SocketAddr>> =
            Arc::new((0..NODES).map(|node| (name(node), address(node))).collect());
        let mut nodes = BTreeMap::new();
        for node in 0..NODES {
            let (stop, stopped) = watch::channel(false);
            let (namespace, config, members) = (namespace.clone(), config.clone(), Arc::clone(&members));
            let tell = tell.clone();
            let thread = thread::spawn(move || {
                if let Err(error) = live(node, &namespace, config, &members, stopped, &tell) {
                    let _ = tell.send(News::Failed(format!("{} does not run: {error:#}", name(node))));
                }
            });
            nodes.insert(node, Node { stop, thread });
        }
        Ok(Subnet { nodes, news })
    }

    fn wait_until_all_are_alive(&self) -> Result<()> {
        let mut missing: Vec<u8> = (0..NODES).collect();
        while !missing.is_empty() {
            match self.news.recv_timeout(PATIENCE) {
                Ok(News::AllAlive(node)) => missing.retain(|it| *it != node),
                Ok(News::Dead(name, _)) => anyhow::bail!("{name} is called dead before anything happened"),
                Ok(News::Failed(error)) => anyhow::bail!("{error}"),
                Err(_) => anyhow::bail!("not in time: {missing:?} do not hear all others"),
            }
        }
        Ok(())
    }

    /// From the end of a node until all others know it.
    fn kill_one(&mut self) -> Result<Duration> {
        let early = self.news.try_iter().find(|news| matches!(news, News::Dead(..)));
        ensure!(early.is_none(), "a false alarm: {early:?}");
        let (victim, node) = self.nodes.pop_last().context("there are nodes")?;
        let killed = Instant::now();
        node.stop()?;
        let victim = name(victim);
        let mut last = killed;
        for _ in 1..NODES {
            match self.news.recv_timeout(PATIENCE) {
                Ok(News::Dead(name, at)) if name == victim => last = last.max(at),
                other => anyhow::bail!("expected that {victim} is dead, was told {other:?}"),
            }
        }
        Ok(last.duration_since(killed))
    }
}

impl Drop for Subnet {
    fn drop(&mut self) {
        for node in std::mem::take(&mut self.nodes).into_values() {
            let _ = node.stop();
        }
    }
}

impl Node {
    fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| anyhow::anyhow!("a node's thread has panicked"))
    }
}

/// A node, until it is stopped.
fn live(
    node: u8,
    namespace: &Namespace,
    config: Config,
    members: &BTreeMap<Name, SocketAddr>,
    mut stopped: watch::Receiver<bool>,
    tell: &mpsc::Sender<News>,
) -> Result<()> {
    namespace.join()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let local = Local {
            group: "127.0.0.0/8".to_owned(),
            name: name(node),
            address: address(node),
            mac: [2, 0, 0, 0, 0, node],
            boot: boot(),
        };
        let mut endpoint = Endpoint::open(config, local, u64::from(node))?;
        endpoint.command(|group, now| group.set_members(members, now));
        let mut is_whole = false;
        loop {
            let event = tokio::select! {
                event = endpoint.next() => event,
                _ = stopped.changed() => return Ok(()),
            };
            if let Event::Dead { name } = event {
                // Nobody listens any more at the end.
                let _ = tell.send(News::Dead(name, Instant::now()));
            } else if !is_whole && endpoint.group().members().all(|(_, state)| State::is_alive(&state)) {
                is_whole = true;
                let _ = tell.send(News::AllAlive(node));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_loopback_are_found_among_others() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n    \
                    lo:  120 3 0 0 0 0 0 0 4500 60 0 0 0 0 0 0\n";
        assert_eq!(loopback(text), Some(Wire { packets: 60, octets: 4500 }));
        assert_eq!(loopback("  eth0: 1 1\n"), None);
    }
}
