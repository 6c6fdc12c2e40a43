//! When addresses and routes come to the kernel of a namespace: rtnetlink notifications, with the time at which
//! `recv` returned them.
//!
//! It reads only what the benchmarks need: the address of `RTM_NEWADDR`, the destination of a host route of
//! `RTM_NEWROUTE`.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use lab::Namespace;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
        socket, sockopt,
    },
};

const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTMGRP_IPV6_ROUTE: u32 = 0x400;

const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const HEADER_OCTETS: usize = 16;
/// `struct ifaddrmsg` and `struct rtmsg`.
const IFADDRMSG_OCTETS: usize = 8;
const RTMSG_OCTETS: usize = 12;
/// `IFA_ADDRESS` and `RTA_DST` are the same number.
const ADDRESS_ATTRIBUTE: u16 = 1;
const RECEIVE_BUFFER_OCTETS: usize = 16 << 20;
const DATAGRAM_OCTETS: usize = 1 << 16;

/// Which notifications to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Addresses of interfaces.
    Addresses,
    /// Routes to single addresses.
    HostRoutes,
}

/// Tells `report` of every address or host route that comes to the namespace's kernel, from now until `report`
/// returns false.
pub(crate) fn watch(
    namespace: &Namespace,
    kind: Kind,
    mut report: impl FnMut(IpAddr, Instant) -> bool + Send + 'static,
) -> Result<()> {
    let socket = namespace.enter(|| subscribe(kind))?.context("subscribing to rtnetlink notifications")?;
    thread::spawn(move || {
        let mut buffer = vec![0; DATAGRAM_OCTETS];
        loop {
            let octets = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(octets) => octets,
                // Lost notifications show as a benchmark that waits in vain.
                Err(Errno::EINTR | Errno::ENOBUFS) => continue,
                Err(_) => return,
            };
            let at = Instant::now();
            let found = addresses(buffer.get(..octets).unwrap_or_default(), kind);
            if !found.into_iter().all(|address| report(address, at)) {
                return;
            }
        }
    });
    Ok(())
}

fn subscribe(kind: Kind) -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_OCTETS)?;
    let groups = match kind {
        Kind::Addresses => RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
        Kind::HostRoutes => RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE,
    };
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

fn addresses(mut datagram: &[u8], kind: Kind) -> Vec<IpAddr> {
    let mut found = Vec::new();
    while let Some(length) = datagram.first_chunk::<4>().map(|octets| u32::from_ne_bytes(*octets) as usize) {
        let Some(message) = datagram.get(..length).filter(|message| message.len() >= HEADER_OCTETS) else {
            break;
        };
        found.extend(address(message, kind));
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn address(message: &[u8], kind: Kind) -> Option<IpAddr> {
    let message_type = u16::from_ne_bytes([*message.get(4)?, *message.get(5)?]);
    let body = message.get(HEADER_OCTETS..)?;
    let prefix_length = *body.get(1)?;
    let attributes = match (kind, message_type) {
        (Kind::Addresses, RTM_NEWADDR) => body.get(IFADDRMSG_OCTETS..)?,
        (Kind::HostRoutes, RTM_NEWROUTE) => body.get(RTMSG_OCTETS..)?,
        _ => return None,
    };
    let address = attribute(attributes, ADDRESS_ATTRIBUTE)?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        _ => return None,
    };
    let is_host = prefix_length == if address.is_ipv4() { 32 } else { 128 };
    (kind == Kind::Addresses || is_host).then_some(address)
}

fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes([*attributes.first()?, *attributes.get(1)?]));
        let kind = u16::from_ne_bytes([*attributes.get(2)?, *attributes.get(3)?]);
        if kind == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn addresses_and_host_routes_of_a_namespace_are_reported_in_both_families() {
        let run = lab::Run::start().unwrap();
        let namespace = run.namespace("watched").unwrap();
        let (sender, events) = mpsc::channel();
        for kind in [Kind::Addresses, Kind::HostRoutes] {
            let sender = sender.clone();
            watch(&namespace, kind, move |address, at| sender.send((kind, address, at)).is_ok()).unwrap();
        }
        namespace
            .ip("address add 192.0.2.1/32 dev lo\naddress add 2001:db8::1/128 dev lo nodad\nroute add 198.51.100.0/24 \
                 dev lo\nroute add 198.51.100.1/32 dev lo\nroute add 2001:db8:1::1/128 dev lo")
            .unwrap();
        let mut missing = vec![
            (Kind::Addresses, "192.0.2.1"),
            (Kind::Addresses, "2001:db8::1"),
            (Kind::HostRoutes, "198.51.100.1"),
            (Kind::HostRoutes, "2001:db8:1::1"),
        ];
        while !missing.is_empty() {
            let (kind, address, _) = events.recv_timeout(Duration::from_secs(5)).unwrap();
            assert_ne!(address.to_string(), "198.51.100.0", "a prefix is no host route");
            missing.retain(|expected| *expected != (kind, address.to_string().as_str()));
        }
    }
}
