//! A speaker on sockets: one tokio task owns the [`Speaker`], feeds it what happens and does what it says. Not
//! one protocol word in here, and no decision but how long a socket may take.
//!
//! Every socket is non-blocking and is written to by the task itself, so a change goes from the call to the
//! wire without another hand-over, and a peer that does not read holds up nobody.

use std::{collections::HashMap, future::poll_fn, io, net::SocketAddr, sync::Arc};

use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet, yield_now},
    time::{Duration, Instant, timeout},
};

use crate::{
    config::{ShutdownMode, SpeakerConfig},
    rate::RateLimit,
    speaker::{ConnectionId, Event, Speaker},
    status::{SpeakerStatus, State},
    types::Time,
};

mod alarm;
mod bfd;
mod clock;
mod handle;
mod inbox;
mod listening;
mod md5;
mod options;
mod sockets;
mod tcp;
mod telling;
mod udp;

use alarm::Alarm;
use bfd::{Bfd, News};
use clock::Clock;
pub use handle::{Error, Handle};
pub use inbox::Done;
use inbox::{Answer, Batch, Command, Receiver};
use sockets::Sockets;
use tcp::{Connection, Listeners, Ready};
use telling::Barrier;

/// How much is read from one peer before the others have their turn.
const READ_OCTETS: usize = 64 * 1024;

/// How many connections are accepted at once, whoever opens them, and how often one more: refusing strangers must not be
/// all that is done. Those beyond wait in the kernel, which keeps few.
const ACCEPT_BURST: u32 = 256;
const ACCEPT_INTERVAL: Duration = Duration::from_micros(100);

/// So much is made and written in no time.
const QUICK_OCTETS: usize = 4096;

/// How long peers may take to hear that BFD ends on purpose.
const FAREWELL_OF_BFD: Duration = Duration::from_secs(2);

/// Starts a speaker on the current tokio runtime. Fails where an address of `config.listen` cannot be bound.
pub fn spawn(config: SpeakerConfig) -> io::Result<Handle> {
    let clock = Clock::start();
    let (sender, inbox) = inbox::inbox();
    let (publish, status) = watch::channel(Arc::new(SpeakerStatus::default()));
    let (bfd_tells, bfd_told) = mpsc::unbounded_channel();
    let listeners = Listeners::bind(&config.listen)?;
    let handle = Handle::new(sender, status, clock, listeners.local_addresses());
    let driver = Driver {
        clock,
        speaker: Speaker::new(&config),
        inbox,
        publish,
        connections: HashMap::new(),
        dials: JoinSet::new(),
        dialling: HashMap::new(),
        farewells: JoinSet::new(),
        listeners,
        accepting: RateLimit::new(ACCEPT_BURST, ACCEPT_INTERVAL),
        turn: 0,
        listen_retry: None,
        listen_error: None,
        are_keys_new: false,
        bfd: None,
        bfd_tells,
        bfd_told,
        bfd_error: None,
        config,
        barriers: Vec::new(),
        tell_at: None,
        told_at: Instant::now(),
        alarm: Alarm::default(),
        buffer: vec![0; READ_OCTETS],
    };
    tokio::spawn(driver.run());
    Ok(handle)
}

/// The task's own state.
struct Driver {
    config: SpeakerConfig,
    clock: Clock,
    speaker: Speaker,
    inbox: Receiver,
    publish: watch::Sender<Arc<SpeakerStatus>>,
    connections: HashMap<ConnectionId, Connection>,
    dials: JoinSet<(ConnectionId, Result<TcpStream, String>)>,
    dialling: HashMap<ConnectionId, AbortHandle>,
    farewells: JoinSet<()>,
    listeners: Listeners,
    accepting: RateLimit,
    /// Whose turn it is among sockets.
    turn: usize,
    listen_retry: Option<Instant>,
    listen_error: Option<String>,
    /// The listeners do not expect the signatures of the peers that there are.
    are_keys_new: bool,
    /// Where some peer is watched.
    bfd: Option<Bfd>,
    bfd_tells: mpsc::UnboundedSender<News>,
    bfd_told: mpsc::UnboundedReceiver<News>,
    bfd_error: Option<String>,
    barriers: Vec<Barrier>,
    /// When counts that have changed are told at the latest.
    tell_at: Option<Instant>,
    /// When everything was told last.
    told_at: Instant,
    alarm: Alarm,
    buffer: Vec<u8>,
}

/// What woke the task.
enum Wake {
    /// `None`: no handle is left.
    Commands(Option<Batch>),
    Sockets(Vec<(ConnectionId, Ready)>),
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    Dialed(ConnectionId, Result<TcpStream, String>),
    /// One that nobody wants the result of.
    DialAborted,
    Bfd(News),
    Timeout,
    /// Nothing but that the time has come to look again: connections are accepted again, counts are to be told, or the
    /// alarm rang early.
    Again,
}

impl Driver {
    async fn run(mut self) {
        let mut end = None;
        self.settle();
        // A speaker that drains goes on until it has.
        while !self.speaker.is_stopped() {
            match self.wake().await {
                Wake::Commands(batch) => match self.on_commands(batch) {
                    // What they come to is on its way.
                    None => continue,
                    Some((mode, answer)) => {
                        self.speaker.stop(&mode, self.clock.now());
                        end = answer;
                    }
                },
                Wake::Sockets(ready) => {
                    for (id, ready) in ready {
                        self.on_ready(id, ready);
                    }
                    self.settle();
                    // A router that sends without a pause must not keep the program's other tasks waiting, nor those
                    // of their sockets that only the runtime looks at.
                    yield_now().await;
                    continue;
                }
                // Whoever has many connections refused costs the peers nothing.
                Wake::Accepted(accepted) => {
                    if !self.on_accepted(accepted) {
                        // Whoever has many connections refused costs the peers nothing.
                        continue;
                    }
                }
                Wake::Again => {
                    if self.tell_at.is_some_and(|at| at <= Instant::now()) {
                        self.tell();
                    }
                    continue;
                }
                Wake::DialAborted => continue,
                Wake::Dialed(id, result) => self.on_dialed(id, result),
                Wake::Bfd(news) => self.on_bfd(news),
                Wake::Timeout => {
                    self.read_what_waits();
                    self.speaker.handle_timeout(self.clock.now());
                }
            }
            self.settle();
        }
        self.listeners = Listeners::default();
        let unwatched = self.bfd.as_ref().map(Bfd::shut_down);
        while self.farewells.join_next().await.is_some() {}
        if let Some(unwatched) = unwatched {
            let _ = timeout(FAREWELL_OF_BFD, unwatched).await;
        }
        let _ = end.map(|answer: Answer| answer.send(Ok(())));
    }

    async fn wake(&mut self) -> Wake {
        let core = self.speaker.poll_timeout().map(|time| self.clock.instant(time));
        let deadline = core.into_iter().chain(self.listen_retry).min();
        let now = self.clock.now();
        let accepts_again = match self.listeners.is_empty() {
            true => now,
            false => self.accepting.opens(now),
        };
        let accepting = (accepts_again > now).then(|| self.clock.instant(accepts_again));
        self.alarm.set(deadline.into_iter().chain(accepting).chain(self.tell_at).min());
        self.turn = self.turn.wrapping_add(1);
        let sockets = Sockets {
            connections: &self.connections,
            listeners: (accepts_again <= now).then_some(&self.listeners),
            turn: self.turn,
        };
        tokio::select! {
            batch = poll_fn(|context| self.inbox.poll_take(context)) => Wake::Commands(batch),
            wake = poll_fn(|context| sockets.poll(context)) => wake,
            Some(news) = self.bfd_told.recv() => Wake::Bfd(news),
            // Any result, or one that is passed over here would hide those that come after it.
            Some(ended) = self.dials.join_next() => match ended {
                Ok((id, result)) => Wake::Dialed(id, result),
                Err(_) => Wake::DialAborted,
            },
            () = poll_fn(|context| self.alarm.poll(context)) => match deadline {
                Some(deadline) if deadline <= Instant::now() => Wake::Timeout,
                _ => Wake::Again,
            },
        }
    }

    /// Everything that is wanted already is done before anything is sent: the last word wins.
    fn on_commands(&mut self, batch: Option<Batch>) -> Option<(ShutdownMode, Option<Answer>)> {
        let Some(batch) = batch else { return Some((ShutdownMode::Restart, None)) };
        let number = batch.number();
        let only_routes = batch.commands.iter().all(|command| matches!(command, Command::Change(_)));
        let mut answers = Vec::new();
        let mut end = None;
        for command in batch.commands {
            match command {
                Command::Change(changes) => self.speaker.apply(&changes),
                Command::ReplaceAll(routes) => self.speaker.replace_all(&routes),
                Command::Restarted(kept) => self.speaker.restarted(&kept, self.clock.now()),
                Command::SetPeers(peers, answer) => {
                    let result = self.speaker.set_peers(peers, self.clock.now());
                    self.are_keys_new = true;
                    self.watch_paths();
                    answers.push((answer, result));
                }
                Command::Barrier(answer) => {
                    let waiting_for = self.speaker.undrained().collect();
                    self.barriers.push(Barrier { waiting_for, answer });
                }
                Command::Shutdown(mode, answer) => {
                    end = Some((mode, Some(answer)));
                    break;
                }
            }
        }
        if only_routes {
            self.transmit();
            self.tell_soon();
        } else {
            self.settle();
        }
        self.inbox.done(number);
        for (answer, result) in answers {
            // Whoever does not wait for the answer does not get it.
            let _ = answer.send(result);
        }
        end
    }

    fn on_ready(&mut self, id: ConnectionId, ready: Ready) {
        if ready.write {
            self.write(id, self.clock.now());
        }
        if !ready.read {
            return;
        }
        self.read(id);
    }

    /// Reads once. Whether the connection is still there.
    fn read(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        match connection.read(&mut self.buffer) {
            Ok(None) => {}
            Ok(Some(0)) => self.on_lost(id, "closed by the peer"),
            Ok(Some(count)) => {
                let octets = self.buffer.get(..count).unwrap_or_default();
                self.speaker.handle_received(id, octets, self.clock.now());
                return true;
            }
            Err(error) => self.on_lost(id, &error.to_string()),
        }
        false
    }

    /// Octets before timers: what came while we were late is no silence. Once a connection will do, for one message is.
    fn read_what_waits(&mut self) {
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(connection) = self.connections.get(&id) else { continue };
            if let Some(count) = connection.read_at_once(&mut self.buffer) {
                let octets = self.buffer.get(..count).unwrap_or_default();
                self.speaker.handle_received(id, octets, self.clock.now());
            }
        }
    }

    fn on_lost(&mut self, id: ConnectionId, reason: &str) {
        if self.connections.remove(&id).is_some() {
            self.speaker.handle_closed(id, reason, self.clock.now());
        }
    }

    fn on_dialed(&mut self, id: ConnectionId, result: Result<TcpStream, String>) {
        self.dialling.remove(&id);
        let result = result.and_then(|stream| {
            let local = tcp::local_address(&stream)?;
            self.connections.insert(id, Connection::new(stream));
            Ok(local)
        });
        self.speaker.handle_dialed(id, result, self.clock.now());
    }

    /// Has BFD watch the peers that want it, from the first one on.
    fn watch_paths(&mut self) {
        let targets = self.speaker.bfd_targets();
        if self.bfd.is_none() && !targets.is_empty() {
            match Bfd::start(self.config.seed, self.clock, self.bfd_tells.clone()) {
                Ok(bfd) => self.bfd = Some(bfd),
                Err(error) => self.bfd_error = Some(format!("cannot start BFD: {error}")),
            }
        }
        if let Some(bfd) = &self.bfd {
            bfd.set_targets(targets, self.speaker.unwatched_peers());
        }
    }

    fn on_bfd(&mut self, news: News) {
        match news {
            News::Report(peer, report) => {
                tracing::info!(%peer, state = %report.state, "BFD session");
                self.speaker.handle_bfd(&peer, report, self.clock.now());
            }
            News::Trouble(trouble) => self.bfd_error = trouble,
        }
    }

    /// Does everything that the speaker wants, and tells what came of it.
    fn settle(&mut self) {
        self.transmit();
        while self.farewells.try_join_next().is_some() {}
        self.listen();
        self.tell();
    }

    /// Sends what there is to say, as far as sockets take it.
    fn transmit(&mut self) {
        // Read once for what is quick: on a virtual machine the clock is a tenth of what a change takes.
        let mut now = self.clock.now();
        loop {
            while let Some(event) = self.speaker.poll_event() {
                self.on_event(event);
            }
            let Some(transmit) = self.speaker.poll_transmit(now) else { break };
            let is_quick = transmit.bytes.len() <= QUICK_OCTETS;
            if let Some(connection) = self.connections.get_mut(&transmit.connection) {
                connection.push(transmit.bytes);
                self.write(transmit.connection, now);
            }
            if !is_quick {
                now = self.clock.now();
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Dial(id, peer) => {
                let dial = async move { (id, tcp::dial(&peer).await) };
                self.dialling.insert(id, self.dials.spawn(dial));
            }
            Event::Abort(id) => {
                if let Some(dial) = self.dialling.remove(&id) {
                    dial.abort();
                }
            }
            Event::Close(id, last) => {
                if let Some(connection) = self.connections.remove(&id) {
                    self.farewells.spawn(connection.farewell(last));
                }
            }
            // Attempts come and go every few seconds while a router is away: they are not news.
            Event::Changed(peer, state) if state != State::Established => {
                tracing::debug!(%peer, %state, "BGP session");
            }
            Event::Changed(peer, state) => tracing::info!(%peer, %state, "BGP session"),
            Event::RoutesOverdue => {
                tracing::warn!(
                    "the routes are not complete in time: peers are told that what there is is all"
                );
            }
        }
    }

    fn write(&mut self, id: ConnectionId, now: Time) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match connection.write() {
            Ok(0) => {}
            Ok(written) => self.speaker.handle_transmitted(id, written, now),
            Err(error) => {
                // What the peer said before it closed says more than a broken pipe.
                while self.read(id) {}
                self.on_lost(id, &error.to_string());
            }
        }
    }
}
