//! BFD on sockets: an operating system thread of its own, before all others where the kernel allows it, so that
//! neither a busy program nor a busy machine makes it late. No decision in here; it tells the speaker's task how
//! sessions stand, and that only when it changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    io::{self, Read, Write},
    net::IpAddr,
    num::NonZeroU32,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::mpsc as threads,
    thread,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    clock::Clock,
    udp::{Inbound, Outbound},
};
use crate::{
    bfd::{Report, Sessions, State, Target},
    config::PeerName,
    types::Time,
};

/// How long until a port is tried again that could not be bound.
const BIND_RETRY: Duration = Duration::from_secs(5);

/// How long a session that is not Up sends the way that was found for it: then another one may have to be taken.
const WAY: Duration = Duration::from_secs(5);

/// How many datagrams are read before the timers have their turn.
const ROUND: usize = 1024;

/// The priority among real-time threads: above ordinary work, below the kernel's own.
const REAL_TIME_PRIORITY: libc::c_int = 10;

/// What is left where the kernel does not allow that.
const NICE: libc::c_int = -15;

/// What the thread tells.
#[derive(Debug)]
pub(super) enum News {
    /// A session stands like this now.
    Report(PeerName, Report),
    /// Why nothing can be received, or that it can again.
    Trouble(Option<String>),
}

#[derive(Debug)]
enum Command {
    Targets(Vec<Target>, BTreeMap<PeerName, (IpAddr, u32)>),
    /// Tell every peer that this is no failure, then answer.
    ShutDown(oneshot::Sender<()>),
}

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Bfd {
    commands: threads::Sender<Command>,
    wake: UnixStream,
}

impl Bfd {
    /// Starts the thread.
    pub(super) fn start(seed: u64, clock: Clock, news: mpsc::UnboundedSender<News>) -> io::Result<Bfd> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (commands, received) = threads::channel();
        let worker = Worker {
            clock,
            sessions: Sessions::new(seed),
            commands: received,
            woken,
            news,
            wanted: BTreeSet::new(),
            inbound: HashMap::new(),
            outbound: HashMap::new(),
            bind_again: None,
            leaving: None,
        };
        thread::Builder::new().name("bfd".to_owned()).spawn(move || {
            prioritise();
            worker.run();
        })?;
        Ok(Bfd { commands, wake })
    }

    /// Makes these the only peers that are watched, and says which others there are.
    pub(super) fn set_targets(&self, targets: Vec<Target>, unwatched: BTreeMap<PeerName, (IpAddr, u32)>) {
        self.tell(Command::Targets(targets, unwatched));
    }

    /// Tells every peer that this is no failure; the answer comes when they have heard it, or would have noticed
    /// the silence by now.
    pub(super) fn shut_down(&self) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        self.tell(Command::ShutDown(done));
        answer
    }

    fn tell(&self, command: Command) {
        // A thread that is gone has nothing to do any more; a full pipe wakes it as well.
        let _ = self.commands.send(command);
        let _ = (&self.wake).write(&[1]);
    }
}

/// The thread's own state.
struct Worker {
    clock: Clock,
    sessions: Sessions,
    commands: threads::Receiver<Command>,
    woken: UnixStream,
    news: mpsc::UnboundedSender<News>,
    /// Ports, by whether they are IPv6.
    wanted: BTreeSet<(bool, u16)>,
    inbound: HashMap<(bool, u16), Inbound>,
    /// With when its way was found.
    outbound: HashMap<NonZeroU32, (Outbound, Time)>,
    bind_again: Option<Time>,
    leaving: Option<oneshot::Sender<()>>,
}

impl Worker {
    fn run(mut self) {
        loop {
            self.settle();
            if self.sessions.is_empty()
                && let Some(done) = self.leaving.take()
            {
                let _ = done.send(());
                return;
            }
            self.wait();
            if !self.take_commands() {
                return;
            }
            // Packets before timers: one that waited while we were late is no silence.
            self.receive();
            self.sessions.handle_timeout(self.clock.now());
        }
    }

    /// Sleeps until there is something to read or a time has come.
    fn wait(&self) {
        let next = self.sessions.poll_timeout().into_iter().chain(self.bind_again).min();
        let timeout = next.map(|at| TimeSpec::from_duration(at.since(self.clock.now())));
        let mut descriptors: Vec<PollFd<'_>> = std::iter::once(self.woken.as_fd())
            .chain(self.inbound.values().map(AsFd::as_fd))
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        // Interrupted or not: everything is looked at.
        let _ = ppoll(&mut descriptors, timeout, None);
    }

    /// `false` where nobody can command any more.
    fn take_commands(&mut self) -> bool {
        let mut rest = [0; 64];
        while matches!((&self.woken).read(&mut rest), Ok(count) if count > 0) {}
        loop {
            match self.commands.try_recv() {
                Ok(Command::Targets(targets, unwatched)) => {
                    self.sessions.replace_targets(targets, &unwatched, self.clock.now());
                    self.wanted = self.sessions.ports();
                    self.bind_again = Some(self.clock.now());
                }
                Ok(Command::ShutDown(done)) => {
                    self.sessions.set_targets(Vec::new(), self.clock.now());
                    self.leaving = Some(done);
                }
                Err(threads::TryRecvError::Empty) => return true,
                Err(threads::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn receive(&mut self) {
        let (sessions, clock) = (&mut self.sessions, self.clock);
        for inbound in self.inbound.values() {
            let mut take = |datagram: &crate::bfd::Datagram<'_>| {
                if let Err(reason) = sessions.handle_datagram(datagram, clock.now()) {
                    tracing::debug!(from = %datagram.from, %reason, "BFD packet dropped");
                }
            };
            (0..ROUND).take_while(|_| inbound.receive(&mut take)).count();
        }
    }

    fn settle(&mut self) {
        if self.bind_again.is_some_and(|at| at <= self.clock.now()) {
            self.bind();
        }
        while let Some((name, report)) = self.sessions.poll_report() {
            // Nobody listens any more where the speaker has ended.
            let _ = self.news.send(News::Report(name, report));
        }
        self.transmit();
        self.outbound.retain(|session, _| self.sessions.has(*session));
    }

    fn transmit(&mut self) {
        let now = self.clock.now();
        let mut links = Vec::new();
        while let Some(transmit) = self.sessions.poll_transmit(now) {
            let octets = transmit.packet.encode();
            if transmit.packet.state != State::Up {
                self.outbound
                    .retain(|session, (_, since)| *session != transmit.session || now.since(*since) < WAY);
            }
            let sent = match self.outbound.entry(transmit.session) {
                Entry::Occupied(known) => known.get().0.send(&octets),
                Entry::Vacant(free) => {
                    Outbound::open(transmit.target, transmit.session.get()).and_then(|outbound| {
                        links.push((transmit.session, outbound.link()));
                        free.insert((outbound, now)).0.send(&octets)
                    })
                }
            };
            match sent {
                Ok(()) => {}
                // The other side does not listen yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    tracing::debug!(peer = %transmit.target.name, %error, "BFD packet not sent");
                    // Its route or address may be gone: the next packet looks for another.
                    self.outbound.remove(&transmit.session);
                }
            }
        }
        for (session, link) in links {
            self.sessions.set_link(session, link);
        }
    }

    /// Makes the ports bound what they should be.
    fn bind(&mut self) {
        self.bind_again = None;
        self.inbound.retain(|port, _| self.wanted.contains(port));
        let mut trouble = None;
        for (is_v6, port) in &self.wanted {
            if self.inbound.contains_key(&(*is_v6, *port)) {
                continue;
            }
            match Inbound::bind(*is_v6, *port) {
                Ok(inbound) => {
                    self.inbound.insert((*is_v6, *port), inbound);
                }
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        if trouble.is_some() {
            self.bind_again = Some(self.clock.now() + BIND_RETRY);
        }
        let _ = self.news.send(News::Trouble(trouble));
    }
}

/// Puts the calling thread before ordinary ones.
fn prioritise() {
    let is_real_time = set_real_time();
    match is_real_time.or_else(|_| set_nice()) {
        Ok(class) => tracing::info!(class, "BFD runs on a thread of its own"),
        Err(error) => tracing::warn!(
            %error,
            "BFD runs without priority, so a busy machine can make it late: CAP_SYS_NICE would allow it"
        ),
    }
}

#[expect(unsafe_code, reason = "sched_setscheduler of this thread, with a live local")]
fn set_real_time() -> io::Result<&'static str> {
    let parameter = libc::sched_param { sched_priority: REAL_TIME_PRIORITY };
    // SAFETY: the pointer is to `parameter`, which outlives the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    if result == 0 { Ok("SCHED_FIFO") } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "setpriority and prctl of this thread, without pointers")]
fn set_nice() -> io::Result<&'static str> {
    // SAFETY: no pointers; in Linux 0 is the calling thread. The slack only makes waking more exact.
    let result = unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE)
    };
    if result == 0 { Ok("nice -15") } else { Err(io::Error::last_os_error()) }
}
