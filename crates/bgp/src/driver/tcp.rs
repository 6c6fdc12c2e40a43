//! TCP: dialling, listening, and connections that are written to as far as their sockets take it.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time,
};

use super::{md5, options};
use crate::{config::PeerConfig, md5::Md5Key};

/// How long a dial may take; ConnectRetryTimer may end it before.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection may take for its last words.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How many connections wait to be accepted; the kernel may keep fewer.
const BACKLOG: i32 = 1024;

/// Opens a connection. The error is in words.
pub(super) async fn dial(peer: &PeerConfig) -> Result<TcpStream, String> {
    let remote = with_scope(peer.address, peer.port, peer.scope);
    let connect = async {
        let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        options::apply(&socket, peer)?;
        if let Some(source) = peer.source_address {
            socket.bind(with_scope(source, 0, peer.scope)).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot dial from source address {source}: {error}"))
            })?;
        }
        let stream = socket.connect(remote).await?;
        options::apply_when_connected(&stream, peer)?;
        io::Result::Ok(stream)
    };
    match time::timeout(DIAL_TIMEOUT, connect).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(peer.silence(DIAL_TIMEOUT)),
    }
}

pub(super) fn with_scope(address: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            SocketAddrV6::new(address, port, 0, scope).into()
        }
        address => SocketAddr::new(address, port),
    }
}

/// Our end of a connection.
pub(super) fn local_address(stream: &TcpStream) -> Result<IpAddr, String> {
    stream.local_addr().map(|local| local.ip().to_canonical()).map_err(|error| error.to_string())
}

/// A connection with what its socket has still to take.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    queue: VecDeque<Bytes>,
}

/// What a connection is ready for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Connection {
        Connection { stream, queue: VecDeque::new() }
    }

    /// Makes of a connection that someone has opened one of this peer.
    pub(super) fn apply_options(&self, peer: &PeerConfig) -> io::Result<()> {
        options::apply(&self.stream, peer)?;
        options::apply_when_connected(&self.stream, peer)
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queue.push_back(bytes);
        }
    }

    /// Writes as much as the socket takes now, and returns how much that was.
    pub(super) fn write(&mut self) -> io::Result<usize> {
        let mut written = 0;
        while let Some(bytes) = self.queue.front_mut() {
            match self.stream.try_write(bytes) {
                Ok(count) => {
                    written += count;
                    bytes.advance(count);
                    if bytes.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Reads once; `None` where there is nothing yet, 0 at the end of the stream.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.stream.try_read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads what the kernel has, whether the runtime has heard of it or not; the end of the stream, and errors, are for
    /// [`Connection::read`].
    pub(super) fn read_at_once(&self, buffer: &mut [u8]) -> Option<usize> {
        let read = (&*SockRef::from(&self.stream)).read(buffer);
        read.ok().filter(|count| *count > 0)
    }

    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Option<Ready> {
        let read = self.stream.poll_read_ready(context).is_ready();
        let write = !self.queue.is_empty() && self.stream.poll_write_ready(context).is_ready();
        (read || write).then_some(Ready { read, write })
    }

    /// Sends what is left and closes, so that the peer can read it: what it has sent meanwhile is read too,
    /// because closing over unread octets would reset the connection and take our last words with it.
    pub(super) async fn farewell(mut self, last: Bytes) {
        self.push(last);
        let finish = async {
            while let Some(bytes) = self.queue.pop_front() {
                self.stream.write_all(&bytes).await?;
            }
            self.stream.shutdown().await?;
            let mut rest = [0; 4096];
            while self.stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // The peer is told or it is not: the session is over either way.
        let _ = time::timeout(FAREWELL_TIMEOUT, finish).await;
    }
}

/// The sockets that peers can connect to.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    sockets: Vec<TcpListener>,
    /// What they expect signed, and with what.
    keys: BTreeMap<IpAddr, Md5Key>,
}

impl Listeners {
    /// Listens on all of these addresses or on none.
    pub(super) fn bind(addresses: &[SocketAddr]) -> io::Result<Listeners> {
        // An IPv6 wildcard takes IPv4 too, unless IPv4 is listened on by itself.
        let only_v6 = addresses.iter().any(SocketAddr::is_ipv4);
        addresses
            .iter()
            .map(|address| bind(*address, only_v6))
            .collect::<io::Result<_>>()
            .map(|sockets| Listeners { sockets, keys: BTreeMap::new() })
    }

    /// Listens on a port of every address, IPv4 alone where the host has no IPv6.
    pub(super) fn bind_any(port: u16) -> io::Result<Listeners> {
        let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Listeners::bind(&[any_v6]).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            _ => Listeners::bind(&[any_v4]),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// The same with these as the only addresses that have to sign what they send, with these keys.
    pub(super) fn signed(mut self, keys: BTreeMap<IpAddr, Md5Key>) -> io::Result<Listeners> {
        let gone =
            self.keys.keys().filter(|address| !keys.contains_key(address)).map(|address| (*address, None));
        let changed = keys.iter().filter(|(address, key)| self.keys.get(address) != Some(key));
        let changes = gone.chain(changed.map(|(address, key)| (*address, Some(key))));
        for (address, key) in changes {
            for socket in self.sockets.iter().filter(|socket| is_for(socket, address)) {
                md5::set(&SockRef::from(socket), address, key)?;
            }
        }
        self.keys = keys;
        Ok(self)
    }

    pub(super) fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The next connection that someone has opened, or why there is none: one that has failed while it was accepted, or
    /// no more files. The sockets have the first say in turns.
    pub(super) fn poll_accept(
        &self,
        turn: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.sockets.len();
        let mut in_turn = self.sockets.iter().cycle().skip(turn % count.max(1)).take(count);
        let accepted = in_turn.find_map(|listener| match listener.poll_accept(context) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        accepted.map_or(Poll::Pending, Poll::Ready)
    }
}

/// Whether connections from this address can come to a socket.
fn is_for(listener: &TcpListener, address: IpAddr) -> bool {
    listener.local_addr().is_ok_and(|local| local.is_ipv6() || address.to_canonical().is_ipv4())
}

fn bind(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        options::apply_to_listener(&socket, address.ip())?;
        if address.is_ipv6() {
            socket.set_only_v6(only_v6)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::PeerAsn,
        types::{Asn, HoldTime, RouterId},
    };

    #[tokio::test]
    async fn what_stays_unacknowledged_for_a_third_more_than_the_hold_time_ends_a_connection_of_either_end() {
        let router_id = RouterId::new(Ipv4Addr::new(10, 0, 0, 1)).unwrap();
        let asn = Asn::new(64512).unwrap();
        for (hold_secs, expected) in [(3, 4), (90, 120), (240, 320), (0, 120)] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut peer = PeerConfig::new("router", address.ip(), router_id, asn, PeerAsn::External);
            (peer.port, peer.hold_time) = (address.port(), HoldTime::new(hold_secs).unwrap());
            let dialed = dial(&peer).await.unwrap();
            let accepted = Connection::new(listener.accept().await.unwrap().0);
            accepted.apply_options(&peer).unwrap();
            for stream in [&dialed, &accepted.stream] {
                let timeout = SockRef::from(stream).tcp_user_timeout().unwrap();
                assert_eq!(timeout, Some(Duration::from_secs(expected)), "hold time {hold_secs} s");
            }
        }
    }
}
