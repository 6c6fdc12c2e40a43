//! One BFD session in asynchronous mode (RFC 5880 §6): its state machine, its timers and Poll Sequences.
//!
//! Not here: sockets, TTLs and which packet is for which session (`super::Sessions`). Demand mode is never asked
//! for, but honoured where the other side asks for it; the Echo function is neither offered nor used. C is always
//! clear: this BFD shares fate with the process that speaks BGP.

use std::{
    num::{NonZeroU8, NonZeroU32},
    time::Duration,
};

use super::{
    Config, MIN_INTERVAL, Report, Verdict,
    packet::{Diagnostic, Packet, State},
};
use crate::{fsm::timers::Jitter, types::Time};

/// The least Desired Min TX Interval while the session is not Up (§6.8.3), in microseconds.
const SLOW: u32 = 1_000_000;

/// A Poll Sequence (§6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    /// None runs.
    Idle,
    /// Packets are sent with P until one comes with F.
    Running,
    /// Values have changed since it began: another one follows, because an F may belong to the values before.
    RunningThenAgain,
}

/// What is known of the other side. Begins anew when nothing was heard for the Detection Time (§6.8.1).
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: Option<NonZeroU32>,
    state: State,
    /// RemoteMinRxInterval.
    min_rx: u32,
    /// The last received Desired Min TX Interval.
    desired_min_tx: u32,
    detect_mult: NonZeroU8,
    is_demand: bool,
}

impl Remote {
    const UNKNOWN: Remote = Remote {
        discriminator: None,
        state: State::Down,
        min_rx: 1,
        desired_min_tx: 0,
        detect_mult: NonZeroU8::MIN,
        is_demand: false,
    };
}

/// A session. Intervals are in microseconds.
///
/// - **In**: [`handle_received`](Session::handle_received), [`handle_timeout`](Session::handle_timeout).
/// - **Commands**: [`configure`](Session::configure), [`disable`](Session::disable).
/// - **Out**, drained after every call: [`poll_transmit`](Session::poll_transmit), then
///   [`poll_timeout`](Session::poll_timeout); [`report`](Session::report) says how it stands.
#[derive(Debug)]
pub struct Session {
    config: Config,
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    verdict: Verdict,
    remote: Remote,
    /// DesiredMinTxInterval, as it is told, and as it is used until a Poll Sequence has ended.
    desired_min_tx: u32,
    desired_min_tx_in_use: u32,
    /// RequiredMinRxInterval, likewise.
    required_min_rx: u32,
    required_min_rx_in_use: u32,
    poll: Poll,
    /// A packet with P waits for its answer.
    owes_final: bool,
    /// What is to be said differs from what was said last.
    has_news: bool,
    last_sent: Option<Time>,
    /// When the next periodic packet is due, and the interval that this was drawn for.
    next_periodic: Time,
    drawn_for: u32,
    last_received: Option<Time>,
    jitter: Jitter,
}

impl Session {
    /// A session that is Down and has heard nothing.
    pub fn new(config: Config, discriminator: NonZeroU32, seed: u64, now: Time) -> Session {
        let (desired_min_tx, required_min_rx) =
            (micros(config.transmit_interval), micros(config.receive_interval));
        let slow = desired_min_tx.max(SLOW);
        Session {
            config,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            verdict: Verdict::Unknown,
            remote: Remote::UNKNOWN,
            desired_min_tx: slow,
            desired_min_tx_in_use: slow,
            required_min_rx,
            required_min_rx_in_use: required_min_rx,
            poll: Poll::Idle,
            owes_final: false,
            has_news: false,
            last_sent: None,
            next_periodic: now,
            drawn_for: 0,
            last_received: None,
            jitter: Jitter::new(seed),
        }
    }

    /// Our name for the session: the other side's Your Discriminator.
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// How it stands.
    pub fn report(&self) -> Report {
        Report { state: self.state, verdict: self.verdict, obstacle: None }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the other side says that it is not Up: nothing that we leave off can look like a failure to it.
    pub fn is_remote_down(&self) -> bool {
        self.remote.state != State::Up
    }

    /// How long the other side may hear nothing before it takes us for dead.
    pub fn remote_detection_time(&self) -> Duration {
        let micros = u64::from(self.transmit_interval()) * u64::from(self.config.detect_mult.get());
        Duration::from_micros(micros)
    }

    /// Other values; the session goes on (§6.8.3).
    pub fn configure(&mut self, config: Config) {
        self.config = config;
        self.has_news = true;
        self.apply_intervals();
    }

    /// Administrative control (§6.8.16): the other side is told that this is no failure.
    ///
    /// Deviation: the packets keep their interval, although §6.8.3 makes a session that is not Up send once a
    /// second. One of them may be lost, and a session is kept for a Detection Time only once it is disabled.
    pub fn disable(&mut self) {
        let interval = self.desired_min_tx_in_use;
        self.enter(State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN);
        self.desired_min_tx_in_use = interval;
    }

    /// A packet of this session has arrived: §6.8.6 from "Set bfd.RemoteDiscr" on, in its order.
    pub fn handle_received(&mut self, packet: &Packet, now: Time) {
        self.remote = Remote {
            discriminator: Some(packet.my_discriminator),
            state: packet.state,
            min_rx: packet.required_min_rx,
            desired_min_tx: packet.desired_min_tx,
            detect_mult: packet.detect_mult,
            is_demand: packet.demand,
        };
        if packet.is_final {
            self.end_poll();
        }
        if self.state == State::AdminDown {
            return;
        }
        self.step(packet.state);
        self.owes_final |= packet.poll;
        self.last_received = Some(now);
        self.redraw();
    }

    /// The state machine of §6.2, as §6.8.6 writes it.
    fn step(&mut self, received: State) {
        match (self.state, received) {
            (State::Down, State::AdminDown) => self.verdict = Verdict::Disabled,
            (_, State::AdminDown) => self.enter(State::Down, Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN),
            (State::Down, State::Down) => self.enter(State::Init, Diagnostic::NONE),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(State::Up, Diagnostic::NONE);
            }
            (State::Up, State::Down) => self.enter(State::Down, Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN),
            _ => {}
        }
    }

    /// Time has passed: nothing was heard for the Detection Time (§6.8.4, §6.8.1).
    pub fn handle_timeout(&mut self, now: Time) {
        if self.detection_expires().is_none_or(|at| at > now) {
            return;
        }
        self.last_received = None;
        if self.state != State::AdminDown {
            // It has said nothing more: what it said last is no reason why it is silent now.
            self.remote = Remote::UNKNOWN;
            if matches!(self.state, State::Init | State::Up) {
                self.enter(State::Down, Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);
            }
        }
        self.redraw();
    }

    /// When to call `handle_timeout` or `poll_transmit` next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let now = self.owes_final || self.has_news && self.may_speak();
        let transmit = match now {
            true => Some(self.last_sent.unwrap_or(self.next_periodic)),
            false => self.sends_periodically().then_some(self.next_periodic),
        };
        transmit.into_iter().chain(self.detection_expires()).min()
    }

    /// The next packet to send (§6.8.7).
    pub fn poll_transmit(&mut self, now: Time) -> Option<Packet> {
        if std::mem::take(&mut self.owes_final) {
            return Some(Packet { poll: false, is_final: true, ..self.packet() });
        }
        let is_due = self.sends_periodically() && self.next_periodic <= now;
        let is_news = std::mem::take(&mut self.has_news) && self.may_speak();
        if !is_due && !is_news {
            return None;
        }
        self.last_sent = Some(now);
        self.draw(now);
        Some(self.packet())
    }

    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.poll != Poll::Idle,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            detect_mult: self.config.detect_mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.desired_min_tx,
            required_min_rx: self.required_min_rx,
            required_min_echo_rx: 0,
        }
    }

    /// The Passive role speaks when it is spoken to.
    fn may_speak(&self) -> bool {
        !self.config.passive || self.remote.discriminator.is_some()
    }

    fn sends_periodically(&self) -> bool {
        let is_asked_not_to = self.remote.is_demand
            && self.state == State::Up
            && self.remote.state == State::Up
            && self.poll == Poll::Idle;
        self.may_speak() && self.remote.min_rx != 0 && !is_asked_not_to
    }

    /// The one door between states.
    fn enter(&mut self, state: State, diagnostic: Diagnostic) {
        let was_up = self.state == State::Up;
        self.state = state;
        self.diagnostic = diagnostic;
        self.has_news = true;
        self.verdict = match state {
            State::Up => Verdict::Works,
            State::AdminDown => Verdict::Disabled,
            // RFC 5882 §4.2: AdminDown on the other side is no failure of the path.
            State::Down if self.remote.state == State::AdminDown => Verdict::Disabled,
            State::Down if was_up => Verdict::Failed(diagnostic),
            State::Down | State::Init => self.verdict,
        };
        if state != State::Up {
            self.poll = Poll::Idle;
        }
        self.apply_intervals();
    }

    /// What the intervals are to be now, with a Poll Sequence where they change (§6.8.3).
    ///
    /// Deviation: none is run before the session is Up. The other side takes the values from any packet, and
    /// until then it need not know the session that is to answer.
    fn apply_intervals(&mut self) {
        let is_up = self.state == State::Up;
        let least = if is_up { 0 } else { SLOW };
        let desired_min_tx = micros(self.config.transmit_interval).max(least);
        let required_min_rx = micros(self.config.receive_interval);
        let is_changed = (desired_min_tx, required_min_rx) != (self.desired_min_tx, self.required_min_rx);
        (self.desired_min_tx, self.required_min_rx) = (desired_min_tx, required_min_rx);
        // Slower sending, and the expectation of faster reception, wait until the other side knows.
        if !is_up || desired_min_tx < self.desired_min_tx_in_use {
            self.desired_min_tx_in_use = desired_min_tx;
        }
        if !is_up || required_min_rx > self.required_min_rx_in_use {
            self.required_min_rx_in_use = required_min_rx;
        }
        if is_up && is_changed {
            self.has_news = true;
            self.poll = match self.poll {
                Poll::Idle => Poll::Running,
                Poll::Running | Poll::RunningThenAgain => Poll::RunningThenAgain,
            };
        }
        self.redraw();
    }

    fn end_poll(&mut self) {
        match self.poll {
            Poll::Idle => {}
            Poll::Running => {
                self.poll = Poll::Idle;
                self.desired_min_tx_in_use = self.desired_min_tx;
                self.required_min_rx_in_use = self.required_min_rx;
            }
            Poll::RunningThenAgain => {
                self.poll = Poll::Running;
                self.has_news = true;
            }
        }
    }

    /// The negotiated transmit interval (§6.8.2).
    fn transmit_interval(&self) -> u32 {
        self.desired_min_tx_in_use.max(self.remote.min_rx)
    }

    /// When the Detection Time is over (§6.8.4): the other side's Detect Mult times the interval at which it
    /// sends. `None` where nothing was heard yet.
    fn detection_expires(&self) -> Option<Time> {
        let interval = self.required_min_rx_in_use.max(self.remote.desired_min_tx);
        let micros = u64::from(interval) * u64::from(self.remote.detect_mult.get());
        self.last_received.map(|at| at + Duration::from_micros(micros))
    }

    /// The interval may have changed: a shorter one counts from the last packet on (§6.8.3).
    fn redraw(&mut self) {
        if let (Some(at), true) = (self.last_sent, self.transmit_interval() != self.drawn_for) {
            self.draw(at);
        }
    }

    /// Draws when the next periodic packet is due: 0 to 25 % before the interval is over, 10 to 25 % where
    /// Detect Mult is 1, as the loss of none is allowed then (§6.8.7).
    fn draw(&mut self, since: Time) {
        let interval = self.transmit_interval();
        self.drawn_for = interval;
        let most = if self.config.detect_mult == NonZeroU8::MIN { 900 } else { 1000 };
        let permille = 750 + self.jitter.next() % (most - 750 + 1);
        self.next_periodic = since + Duration::from_micros(u64::from(interval) * permille / 1000);
    }
}

/// Never so short that sending is all that is done.
fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.max(MIN_INTERVAL).as_micros()).unwrap_or(u32::MAX)
}
