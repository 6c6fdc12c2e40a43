//! A group on a UDP socket: feeds it what arrives and the time, sends what it has to send. No decision in here.

mod priority;

use std::{
    fmt, io,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

pub use priority::prioritise;

use crate::{
    config::{Config, Local},
    group::{Event, Group},
    time::Time,
    wire::{Dropped, MAX_OCTETS},
};

/// Heartbeats prove that the segment carries them: no router is to pass one on.
const TTL: u32 = 1;

/// CS6 (RFC 4594 §3.3: network control) in the place of the traffic class.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Octets that the kernel keeps for us: whoever comes back from a pause reads what it has missed.
const RECEIVE_BUFFER: usize = 512 * 1024;

/// How many datagrams are read before the timers have their turn.
const ROUND: usize = 256;

/// Of the time that a full round has taken, how often that passes before the next one. The thread goes before others,
/// and whoever can send to it must not have a processor by that; what comes meanwhile waits in the kernel, or is lost.
const REST: u32 = 3;
const LONGEST_REST: Duration = Duration::from_millis(20);

/// What happens on the socket, for those who count.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// A datagram was taken.
    Received,
    /// A datagram was not.
    Dropped(&'a Dropped),
    /// A datagram was given to the kernel.
    Sent,
    /// Something was due, and its turn came so much later.
    Late(Duration),
}

/// A group, its socket and its clock.
pub struct Endpoint {
    socket: UdpSocket,
    group: Group,
    origin: Instant,
    buffer: Box<[u8]>,
    /// Nothing is read before that.
    rest_until: Instant,
    observe: Box<dyn FnMut(Observation<'_>) + Send>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("group", &self.group).finish_non_exhaustive()
    }
}

/// A number for [`Local::boot`]: the wall clock, in microseconds.
pub fn boot() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Endpoint {
    /// Binds [`Local::address`], with port 0 any port, and begins a group there. Needs a tokio runtime with I/O and
    /// time.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound: it is not this node's, or another program has the port.
    pub fn open(config: Config, local: Local, seed: u64) -> io::Result<Endpoint> {
        let socket = bind(local.address)?;
        let local = Local { address: socket.local_addr()?, ..local };
        let origin = Instant::now();
        let group = Group::new(config, local, Time::ZERO, seed);
        // One more octet than there may be: what fills it is too long.
        let buffer = vec![0; MAX_OCTETS + 1].into();
        Ok(Endpoint { socket, group, origin, buffer, rest_until: origin, observe: Box::new(|_| {}) })
    }

    /// The same, and `observe` is told what happens on the socket.
    #[must_use]
    pub fn observed_by(self, observe: Box<dyn FnMut(Observation<'_>) + Send>) -> Endpoint {
        Endpoint { observe, ..self }
    }

    /// The address and port that it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.group.local().address
    }

    /// The group, to be looked at.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Since when no member was heard, or, where none was yet, since when there are some.
    pub fn silence(&self) -> Duration {
        self.now().since(self.group.heard_anybody())
    }

    /// Gives the group a command. What follows from it happens with the next call of [`Endpoint::next`].
    pub fn command<T>(&mut self, command: impl FnOnce(&mut Group, Time) -> T) -> T {
        let now = self.now();
        command(&mut self.group, now)
    }

    /// Runs the group until there is an event. Nothing is lost where the future is dropped before that.
    pub async fn next(&mut self) -> Event {
        loop {
            self.send();
            if let Some(event) = self.group.poll_event() {
                return event;
            }
            self.wait().await;
            // Datagrams before timers: one that waited while we were late is no silence.
            self.receive();
            let now = self.now();
            if let Some(at) = self.group.poll_timeout().filter(|at| *at <= now) {
                (self.observe)(Observation::Late(now.since(at)));
                self.group.handle_timeout(now);
            }
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// Until there is something to read or to do. Timers have no turn in a rest: what waits to be read may be what they
    /// would miss.
    async fn wait(&self) {
        if Instant::now() < self.rest_until {
            return tokio::time::sleep_until(self.rest_until.into()).await;
        }
        let Some(timeout) = self.group.poll_timeout() else {
            let _ = self.socket.readable().await;
            return;
        };
        let at = self.origin + Duration::from_micros(timeout.as_micros());
        tokio::select! {
            _ = self.socket.readable() => {}
            () = tokio::time::sleep_until(at.into()) => {}
        }
    }

    fn receive(&mut self) {
        let start = Instant::now();
        for _ in 0..ROUND {
            let (length, from) = match self.socket.try_recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(group = self.group.local().group, %error, "heartbeat not received");
                    continue;
                }
            };
            let now = self.now();
            let octets = self.buffer.get(..length).unwrap_or_default();
            match self.group.handle_datagram(from, octets, now) {
                Ok(()) => (self.observe)(Observation::Received),
                Err(reason) => {
                    tracing::trace!(group = self.group.local().group, %from, %reason, "heartbeat dropped");
                    (self.observe)(Observation::Dropped(&reason));
                }
            }
        }
        let end = Instant::now();
        // More, if this process stood still meanwhile, is not to be made up for.
        self.rest_until = end + ((end - start) * REST).min(LONGEST_REST);
    }

    /// Straight to the kernel. What does not fit into its buffer is lost, as it may be on the way.
    fn send(&mut self) {
        while let Some((to, octets)) = self.group.poll_transmit() {
            match SockRef::from(&self.socket).send_to(&octets, &to.into()) {
                Ok(_) => (self.observe)(Observation::Sent),
                Err(error) => {
                    tracing::trace!(group = self.group.local().group, %to, %error, "heartbeat not sent");
                }
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if address.is_ipv4() {
            socket.set_ttl_v4(TTL)?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        } else {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(TTL)?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    bind().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("cannot send and receive heartbeats on {address}: {error}"))
    })
}
