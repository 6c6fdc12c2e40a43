//! A client that asks an address each millisecond whether it is there (ICMP echo, RFC 792 and RFC 4443) and remembers
//! which of its questions were answered. The kernel of whoever has the address answers: no program takes part, so what
//! is missing is missing on the wire.
//!
//! An answer that comes later than [`PATIENCE`] is none: packets that wait in a queue until somebody is found who has
//! the address do not make an outage shorter.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, Namespace, Result, require, secs, until};

/// Between two questions.
pub const PACE: Duration = Duration::from_millis(1);
/// What an answer may take; the tightest bar that is measured with it.
pub const PATIENCE: Duration = Duration::from_millis(50);
/// Without a failure for so long, an address counts as answering.
const CALM: Duration = Duration::from_millis(300);

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ping {
    sent: Instant,
    /// In time.
    is_answered: bool,
    /// But not in time.
    is_late: bool,
}

type Log = Arc<Mutex<Vec<Ping>>>;

/// Questions to one address, until they are finished or dropped.
#[derive(Debug)]
pub struct Pings {
    address: IpAddr,
    log: Log,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Pings {
    /// Begins to ask from a namespace, and returns once the address answers.
    ///
    /// # Errors
    /// When the kernel refuses the socket, or no answer comes.
    pub fn start(from: &Namespace, address: IpAddr) -> Result<Self> {
        let (log, is_over) = (Log::default(), Arc::new(AtomicBool::new(false)));
        let (namespace, written, stop) = (from.clone(), Arc::clone(&log), Arc::clone(&is_over));
        let thread = thread::spawn(move || namespace.enter(|| ask(address, &written, &stop))?);
        let pings = Self { address, log, is_over, thread: Some(thread) };
        pings.wait_calm(Instant::now())?;
        Ok(pings)
    }

    /// Waits until all questions of a while were answered, later than this.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn wait_calm(&self, since: Instant) -> Result<()> {
        until(format!("answers from {} without a gap", self.address), secs(30), || {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            require!(!ended, "nobody asks any more");
            let known = self.known();
            let last = known.iter().rev().find(|ping| !ping.is_answered).map_or(since, |ping| ping.sent);
            let calm = known
                .last()
                .map_or(Duration::ZERO, |ping| ping.sent.saturating_duration_since(last.max(since)));
            require!(calm >= CALM, "the last {calm:?} were answered");
            Ok::<_, Error>(())
        })
    }

    /// Whether a question of the last moments was answered.
    pub fn is_answered(&self) -> bool {
        let from = Instant::now().checked_sub(PATIENCE * 4);
        self.known().iter().rev().take_while(|ping| Some(ping.sent) > from).any(|ping| ping.is_answered)
    }

    /// The questions whose answers have come or are too late.
    fn known(&self) -> Vec<Ping> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let due = Instant::now().checked_sub(PATIENCE);
        let count = log.partition_point(|ping| Some(ping.sent) < due);
        log.get(..count).unwrap_or_default().to_vec()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When a question could not be asked for want of a way.
    pub fn finish(mut self) -> Result<Asked> {
        thread::sleep(PATIENCE * 2);
        self.is_over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| Error::unmet("it has ended before"))?;
        thread.join().map_err(|_| Error::unmet("whoever asked has panicked"))??;
        let mut log = std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner));
        // Those of the very end had no time.
        let end = log.last().and_then(|ping| ping.sent.checked_sub(PATIENCE));
        log.retain(|ping| Some(ping.sent) <= end);
        Ok(Asked(log))
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// What has become of the questions, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked(Vec<Ping>);

impl Asked {
    /// How many there were.
    pub fn sent(&self) -> usize {
        self.0.len()
    }

    /// How many were never answered.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|ping| !ping.is_answered && !ping.is_late).count()
    }

    /// How many were answered, but not in time.
    pub fn late(&self) -> usize {
        self.0.iter().filter(|ping| ping.is_late).count()
    }

    /// The longest time without an answer: from the first question that had none to the next one that had. Zero when
    /// all had one.
    pub fn outage(&self) -> Duration {
        let mut longest = Duration::ZERO;
        let mut since = None;
        for ping in &self.0 {
            // A question with an answer that follows one with an answer begins and ends nothing.
            let begun = *since.get_or_insert(ping.sent);
            let end = if ping.is_answered { ping.sent } else { ping.sent + PACE };
            longest = longest.max(end - begun);
            if ping.is_answered {
                since = None;
            }
        }
        longest
    }
}

fn socket(to: IpAddr) -> std::io::Result<Socket> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    Ok(socket)
}

/// An echo request with this number; the kernel fills in identifier and checksum.
fn question(to: IpAddr, number: u32) -> [u8; 12] {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let [a, b, c, d] = number.to_be_bytes();
    [kind, 0, 0, 0, 0, 0, c, d, a, b, c, d]
}

/// The number in an echo reply.
fn number(reply: &[u8]) -> Option<u32> {
    let is_reply = matches!(reply.first(), Some(0 | 129));
    let number = reply.get(8..12)?.try_into().ok()?;
    is_reply.then(|| u32::from_be_bytes(number))
}

fn ask(to: IpAddr, log: &Mutex<Vec<Ping>>, is_over: &AtomicBool) -> Result<()> {
    let socket = socket(to).map_err(Error::io(format!("a socket to ask {to}")))?;
    let start = Instant::now();
    let mut asked = 0_u32;
    let mut looked = start;
    while !is_over.load(Ordering::Relaxed) {
        // Written down before it is sent: the answer may be quick.
        log.lock().unwrap_or_else(PoisonError::into_inner).push(Ping {
            sent: Instant::now(),
            is_answered: false,
            is_late: false,
        });
        // What cannot be sent, because nobody is found who has the address, is not answered.
        let _ = socket.send(&question(to, asked));
        asked += 1;
        // Where the machine was busy there is no hurry to catch up: what counts is when a question was asked.
        let next = (PACE * asked).saturating_sub(start.elapsed()).max(PACE / 2);
        thread::sleep(next);
        // What is there now may have come right after the last look: who was busy meanwhile must not take it for late.
        take_answers(&socket, log, looked);
        looked = Instant::now();
    }
    Ok(())
}

fn take_answers(mut socket: &Socket, log: &Mutex<Vec<Ping>>, looked: Instant) {
    let mut buffer = [0; 64];
    let mut answers = Vec::new();
    loop {
        match socket.read(&mut buffer) {
            Ok(length) => answers.extend(buffer.get(..length).and_then(number)),
            // That somebody said the address cannot be reached is no answer, and another one may be behind it.
            Err(error) if error.kind() != ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    for number in answers {
        if let Some(ping) = usize::try_from(number).ok().and_then(|number| log.get_mut(number)) {
            ping.is_answered = looked.saturating_duration_since(ping.sent) <= PATIENCE;
            ping.is_late = !ping.is_answered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Run, Topology, topology::node_addresses};

    #[test]
    fn an_outage_lasts_from_the_first_question_without_an_answer_to_the_next_one_with() {
        let start = Instant::now();
        let asked = |answered: &[bool]| {
            let ping = |(number, is_answered): (u32, &bool)| Ping {
                sent: start + PACE * number,
                is_answered: *is_answered,
                is_late: false,
            };
            Asked((0..).zip(answered).map(ping).collect())
        };
        assert_eq!(asked(&[true, true]).outage(), Duration::ZERO);
        let two = asked(&[true, false, true, false, false, true, false]);
        assert_eq!((two.sent(), two.lost(), two.outage()), (7, 4, PACE * 2));
        assert_eq!(asked(&[true, false, false]).outage(), PACE * 2, "one that has not ended counts, too");
    }

    #[test]
    fn a_cable_that_is_pulled_and_put_back_is_seen_by_who_asks_in_both_families() {
        let run = Run::start().unwrap();
        let topology = Topology::build(&run, 1, 0).unwrap();
        let client = &topology.neighbour.namespace;
        for address in [node_addresses(1).v4.into(), node_addresses(1).v6.into()] {
            let pings = Pings::start(client, address).unwrap();
            assert!(pings.is_answered());
            topology.unplug("node1").unwrap();
            until("an address that does not answer", secs(10), || {
                require!(!pings.is_answered(), "it answers");
                Ok::<_, Error>(())
            })
            .unwrap();
            topology.plug("node1").unwrap();
            pings.wait_calm(Instant::now()).unwrap();
            let asked = pings.finish().unwrap();
            assert!(asked.lost() > 0 && asked.outage() > PATIENCE, "{} of {}", asked.lost(), asked.sent());
        }
    }
}
