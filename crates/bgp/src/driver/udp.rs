//! UDP for BFD: what receives on a port with TTL and interface of every packet, and what a session sends from
//! (RFC 5881 §4, §5; RFC 5883 §5).

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use ipnet::IpNet;
use nix::{
    cmsg_space,
    ifaddrs::getifaddrs,
    net::if_::{if_indextoname, if_nametoindex},
    sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, recvmsg, setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::tcp::with_scope;
use crate::bfd::{Datagram, FIRST_SOURCE_PORT, Path, TTL, Target};

/// CS6 (RFC 4594 §3.3: routing protocols) in the place of the traffic class.
const TRAFFIC_CLASS: u32 = 0xc0;

/// How many source ports are tried.
const PORT_ATTEMPTS: u16 = 64;

/// More than any BFD packet has.
const OCTETS: usize = 256;

/// A port that packets come to, for one family.
#[derive(Debug)]
pub(super) struct Inbound {
    socket: Socket,
    port: u16,
}

impl Inbound {
    /// Binds a port on every address. No other program shares it: it would get packets that are ours.
    pub(super) fn bind(is_v6: bool, port: u16) -> io::Result<Inbound> {
        let address: IpAddr = if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let address = SocketAddr::new(address, port);
        let bind = || {
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            if is_v6 {
                socket.set_only_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            } else {
                setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let socket = bind().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("cannot receive BFD on {address}: {error}"))
        })?;
        Ok(Inbound { socket, port })
    }

    /// Hands over the next datagram; `false` where there is none. One that the kernel reports an error for, or
    /// whose sender it does not say, is passed over.
    pub(super) fn receive(&self, mut take: impl FnMut(&Datagram<'_>)) -> bool {
        let mut octets = [0; OCTETS];
        let mut control = cmsg_space!(libc::c_int, libc::in6_pktinfo);
        let mut slices = [IoSliceMut::new(&mut octets)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        );
        let (from, ttl, interface, length) = match received {
            Err(nix::errno::Errno::EAGAIN) => return false,
            Err(_) => return true,
            Ok(message) => {
                let Some(from) = message.address.and_then(address) else { return true };
                let (ttl, interface) = ancillary(&message);
                (from, ttl, interface, message.bytes)
            }
        };
        let payload = octets.get(..length).unwrap_or_default();
        take(&Datagram { from, interface, ttl, port: self.port, payload });
        true
    }
}

impl AsFd for Inbound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(storage: SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
}

/// The TTL, and the interface that the packet came in on (0: not said).
fn ancillary<S>(message: &RecvMsg<'_, '_, S>) -> (Option<u8>, u32) {
    let (mut ttl, mut interface) = (None, 0);
    for control in message.cmsgs().into_iter().flatten() {
        match control {
            ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) => {
                ttl = u8::try_from(hops).ok();
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => interface = info.ipi6_ifindex,
            _ => {}
        }
    }
    (ttl, interface)
}

/// What one session sends from: a source port of its own, for as long as the session lives.
#[derive(Debug)]
pub(super) struct Outbound {
    socket: Socket,
    link: u32,
}

impl Outbound {
    /// Opens it towards a target. `seed` chooses among the source ports.
    pub(super) fn open(target: &Target, seed: u32) -> io::Result<Outbound> {
        let remote = with_scope(target.address, target.config.path.port(), target.scope);
        let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if remote.is_ipv4() {
            socket.set_ttl_v4(TTL.into())?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        } else {
            socket.set_unicast_hops_v6(TTL.into())?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
        let link = match target.config.path {
            Path::SingleHop if target.scope == 0 => connected_link(remote, target.source_address),
            Path::SingleHop | Path::Multihop { .. } => target.scope,
        };
        if link != 0 {
            let name = if_indextoname(link)?;
            match socket.bind_device(Some(name.as_bytes())) {
                // Kernels before 5.7 want a capability for it; then what comes in is looked at all the same.
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
        }
        let unspecified: IpAddr =
            if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let local = target.source_address.unwrap_or(unspecified);
        bind_source_port(&socket, local, target.scope, seed)?;
        socket.connect(&remote.into())?;
        Ok(Outbound { socket, link })
    }

    /// Index of the interface that it is bound to; 0: none.
    pub(super) const fn link(&self) -> u32 {
        self.link
    }

    /// Sends a packet.
    pub(super) fn send(&self, octets: &[u8]) -> io::Result<()> {
        self.socket.send(octets).map(drop)
    }
}

/// RFC 5881 §3: a single hop is one interface. Index of the one that the other side is on: whose subnet has its address;
/// of several, the one that the kernel would send from. 0 where there is none, as with a peer behind a host route.
fn connected_link(remote: SocketAddr, source: Option<IpAddr>) -> u32 {
    let Ok(addresses) = getifaddrs() else { return 0 };
    let near: Vec<(String, IpAddr)> = addresses
        .filter_map(|entry| {
            let own = address(entry.address?)?;
            let subnet = IpNet::with_netmask(own, address(entry.netmask?)?).ok()?;
            let is_near = entry.destination.and_then(address) == Some(remote.ip())
                || subnet.contains(&remote.ip()) && subnet.prefix_len() < subnet.max_prefix_len();
            is_near.then_some((entry.interface_name, own))
        })
        .collect();
    let chosen = || source.or_else(|| preferred_source(remote).ok());
    let is_one = near.iter().all(|(name, _)| near.first().is_some_and(|(first, _)| first == name));
    let link = match near.first() {
        Some(first) if is_one => Some(first),
        _ => chosen().and_then(|own| near.iter().find(|(_, address)| *address == own)),
    };
    link.and_then(|(name, _)| if_nametoindex(name.as_str()).ok()).unwrap_or(0)
}

/// What the kernel would send from.
fn preferred_source(remote: SocketAddr) -> io::Result<IpAddr> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&remote.into())?;
    let local = socket.local_addr()?.as_socket();
    local.map(|local| local.ip()).ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// RFC 5881 §4: 49152 to 65535, and no other session's.
fn bind_source_port(socket: &Socket, local: IpAddr, scope: u32, seed: u32) -> io::Result<()> {
    let ports = u32::from(u16::MAX - FIRST_SOURCE_PORT) + 1;
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for attempt in 0..PORT_ATTEMPTS {
        let offset = seed.wrapping_add(u32::from(attempt)) % ports;
        let port = FIRST_SOURCE_PORT + u16::try_from(offset).unwrap_or(0);
        match socket.bind(&with_scope(local, port, scope).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            bound => return bound,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::Config;

    #[test]
    fn a_single_hop_is_bound_to_the_link_whose_subnet_has_the_peer_and_several_hops_to_none() {
        let loopback = if_nametoindex("lo").unwrap();
        let open = |address: &str, path| {
            let target = Target {
                name: "router".into(),
                address: address.parse().unwrap(),
                scope: 0,
                source_address: None,
                config: Config { path, ..Config::default() },
            };
            Outbound::open(&target, 7).unwrap()
        };
        let near = open("127.0.0.9", Path::SingleHop);
        assert_eq!(near.link(), loopback);
        assert_eq!(near.socket.device().unwrap().as_deref(), Some(&b"lo"[..]));
        // ::1/128 is an address, and no subnet that others could be in.
        for (address, path) in [("127.0.0.9", Path::Multihop { min_ttl: 254 }), ("::1", Path::SingleHop)] {
            let far = open(address, path);
            assert_eq!((far.link(), far.socket.device().unwrap()), (0, None), "{address}");
        }
    }
}
