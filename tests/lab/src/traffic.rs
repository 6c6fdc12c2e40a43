//! Packets through a router to addresses that it has learnt by BGP, a thousand a second and each one counted: by the
//! sender, and by the kernel at the other end, so that no program that reads slowly counts for a loss.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Error, Namespace, PATIENCE, Result, command, require, secs, until};

/// Between two packets.
const PACE: Duration = Duration::from_millis(1);
/// Where they go.
const PORT: u16 = 4789;
/// Where those go that only ask whether there is a way: they must not make up for one that is lost.
const PROBE_PORT: u16 = 4790;
/// Counts them.
const TABLE: &str = "table inet traffic";

/// Counts what arrives in namespaces.
#[derive(Debug)]
pub struct Sink {
    namespaces: Vec<Namespace>,
}

/// Packets under way, to one address after the other.
#[derive(Debug)]
pub struct Stream {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
    before: u64,
}

impl Sink {
    /// Counts what comes to a namespace, whatever address of it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        Self::start_on([namespace])
    }

    /// Counts what comes to any of these namespaces.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start_on<'a>(namespaces: impl IntoIterator<Item = &'a Namespace>) -> Result<Self> {
        let namespaces: Vec<_> = namespaces.into_iter().cloned().collect();
        let rules = [PORT, PROBE_PORT].map(|port| format!("udp dport {port} counter drop")).join("; ");
        let chain = format!("chain input {{ type filter hook input priority 0; {rules}; }}");
        let table = format!("{TABLE} {{\n{chain}\n}}\n");
        for namespace in &namespaces {
            command::run_with_input(namespace.command("nft").args(["-f", "-"]), &table)?;
        }
        Ok(Self { namespaces })
    }

    /// How many packets have come to a port.
    fn count(&self, port: u16) -> Result<u64> {
        self.namespaces.iter().map(|namespace| count(namespace, port)).sum()
    }

    /// Waits until the way from a namespace to every address is there.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_reachable(&self, from: &Namespace, addresses: &[IpAddr]) -> Result<()> {
        for address in addresses {
            let to = SocketAddr::new(*address, PROBE_PORT);
            until(format!("packets to {to} to arrive"), PATIENCE, || {
                let before = self.count(PROBE_PORT)?;
                from.enter(|| socket(to).and_then(|socket| socket.send_to(b"there?", to)))?
                    .map_err(Error::io("a first packet"))?;
                thread::sleep(Duration::from_millis(5));
                require!(self.count(PROBE_PORT)? > before, "none has");
                Ok::<_, Error>(())
            })?;
        }
        Ok(())
    }
}

impl Stream {
    /// Begins to send from a namespace.
    ///
    /// # Errors
    /// When the sink cannot be asked.
    pub fn start(from: &Namespace, addresses: &[IpAddr], sink: &Sink) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let before = sink.count(PORT)?;
        let (namespace, stop) = (from.clone(), Arc::clone(&is_over));
        let targets: Vec<SocketAddr> =
            addresses.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
        let thread = thread::spawn(move || namespace.enter(|| send(&targets, &stop))?);
        Ok(Self { is_over, thread, before })
    }

    /// Waits until so many packets of it have arrived.
    pub fn wait_arrived(&self, sink: &Sink, packets: u64) -> Result<()> {
        until(format!("{packets} packets to arrive"), PATIENCE, || {
            let arrived = sink.count(PORT)?.saturating_sub(self.before);
            require!(arrived >= packets, "{arrived} have");
            Ok(())
        })
    }

    /// Ends it, and returns how many packets were sent and how many of them have not arrived.
    ///
    /// # Errors
    /// When a packet could not be sent.
    pub fn finish(self, sink: &Sink) -> Result<(u64, u64)> {
        self.is_over.store(true, Ordering::Relaxed);
        let sent = self.thread.join().map_err(|_| Error::unmet("the sender has panicked"))??;
        // Those under way arrive within a moment, the others never: as soon as none is missing that is known.
        let end = Instant::now() + secs(1);
        loop {
            let lost = sent.saturating_sub(sink.count(PORT)? - self.before);
            if lost == 0 || Instant::now() > end {
                return Ok((sent, lost));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// How many packets have come to a port in a namespace.
fn count(namespace: &Namespace, port: u16) -> Result<u64> {
    let mut ask = namespace.command("nft");
    let shown = command::run(ask.args(["list", "table", "inet", "traffic"]))?;
    // "udp dport 4789 counter packets 12 bytes 480 drop"
    let label = format!("udp dport {port} counter packets ");
    let count = shown.split(&label).nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    count.ok_or_else(|| Error::parse("nft list table", shown))
}

fn socket(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    UdpSocket::bind((any, 0))
}

/// On time: where the machine was busy the missed packets follow at once.
fn send(targets: &[SocketAddr], is_over: &AtomicBool) -> Result<u64> {
    let sockets = targets.iter().map(|to| socket(*to)).collect::<std::io::Result<Vec<_>>>();
    let sockets = sockets.map_err(Error::io("a socket of the sender"))?;
    let start = Instant::now();
    let mut sent = 0_u32;
    for (to, socket) in targets.iter().zip(&sockets).cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        socket.send_to(&sent.to_be_bytes(), to).map_err(Error::io("a packet of the sender"))?;
        sent += 1;
        thread::sleep((PACE * sent).saturating_sub(start.elapsed()));
    }
    Ok(u64::from(sent))
}
