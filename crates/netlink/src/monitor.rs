//! What changes in the kernel, as it happens: links and addresses of the links that the caller cares for, and default
//! routes, of which it is said only that they are others now.
//!
//! Everything else is dropped after a look at the first bytes, because a busy node creates and deletes hundreds
//! of veth pairs a second; other routes than default ones, of which a node may have a million, do not even reach the
//! socket. When the kernel had to drop notifications (ENOBUFS) the caller gets
//! [`Event::Resync`] and must ask for what is there.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
        socket, sockopt,
    },
};
use socket2::{SockFilter, SockRef};
use tokio::io::unix::AsyncFd;

use crate::{address::Address, link::Link};

/// Asked for; without CAP_NET_ADMIN `net.core.rmem_max` limits it.
const RECEIVE_BUFFER_OCTETS: usize = 8 * 1024 * 1024;
/// The kernel never sends a larger datagram.
const DATAGRAM_OCTETS: usize = 64 * 1024;

const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTMGRP_IPV6_ROUTE: u32 = 0x400;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

const NLMSG_HEADER_OCTETS: usize = 16;
const IFINFO_OCTETS: usize = 16;
const IFLA_IFNAME: u16 = 3;

/// A change in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address came, or changed.
    AddressAdded(Address),
    /// An address went.
    AddressRemoved(Address),
    /// A link came, or changed.
    LinkChanged(Link),
    /// A link went.
    LinkRemoved(Link),
    /// A default route came, changed or went, in whichever table.
    DefaultRoutes,
    /// Notifications were lost: everything may have changed.
    Resync,
}

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The socket could not be made.
    #[error("opening the netlink monitor: {0}")]
    Open(#[source] io::Error),
    /// The socket failed.
    #[error("reading from the netlink monitor: {0}")]
    Read(#[source] io::Error),
}

/// Notifications of links and addresses, of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<OwnedFd>,
    interest: Interest,
    buffer: Box<[u8]>,
    pending: VecDeque<Event>,
}

/// Which links matter: some by name, whether they exist or not, some by index.
#[derive(Clone, Debug, Default)]
struct Interest {
    names: BTreeSet<String>,
    indexes: BTreeSet<u32>,
}

impl Monitor {
    /// Subscribes. Only links of these names are reported until [`Monitor::watch`] adds others; the addresses
    /// of a link are reported once its index is known, by a notification or by [`Monitor::watch`].
    pub fn open(names: impl IntoIterator<Item = String>) -> Result<Monitor, MonitorError> {
        let socket = subscribed_socket().map_err(MonitorError::Open)?;
        Ok(Monitor {
            socket: registered(socket).map_err(MonitorError::Open)?,
            interest: Interest { names: names.into_iter().collect(), indexes: BTreeSet::new() },
            buffer: vec![0; DATAGRAM_OCTETS].into_boxed_slice(),
            pending: VecDeque::new(),
        })
    }

    /// Reports changes of the link with this index and of its addresses from now on.
    pub fn watch(&mut self, index: u32) {
        self.interest.indexes.insert(index);
    }

    /// The next event. Cancelling the future loses none.
    pub async fn next(&mut self) -> Result<Event, MonitorError> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            // It was empty. What has come since is read in the next turn, whether it is cleared here or not.
            self.socket.readable().await.map_err(MonitorError::Read)?.clear_ready();
        }
    }

    /// The next event that the kernel has told already.
    pub fn try_next(&mut self) -> Result<Option<Event>, MonitorError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            match receive(self.socket.get_ref(), &mut self.buffer) {
                Ok(octets) => {
                    let datagram = self.buffer.get(..octets).unwrap_or_default();
                    read_datagram(datagram, &mut self.interest, &mut self.pending);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if is_overrun(&error) => {
                    drain(self.socket.get_ref(), &mut self.buffer);
                    self.pending.push_back(Event::Resync);
                }
                Err(error) => return Err(MonitorError::Read(error)),
            }
        }
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Empties the socket after an overrun. The kernel goes on dropping, without a further word, until the queue
/// has been empty once: what happens after this, and only that, is reported again. So the caller, who looks at
/// everything after [`Event::Resync`], misses nothing.
fn drain(socket: &OwnedFd, buffer: &mut [u8]) {
    while receive(socket, buffer).is_ok_and(|octets| octets > 0) {}
}

fn subscribed_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkRoute)?;
    enlarge_receive_buffer(&fd);
    SockRef::from(&fd).attach_filter(&filter())?;
    let addresses = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
    let groups = RTMGRP_LINK | addresses | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// A classic BPF program: routes whose destination has a length never reach the socket. The kernel puts each
/// notification into a datagram of its own.
fn filter() -> [SockFilter; 7] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_OCTET: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const MESSAGE_TYPE: u32 = 4;
    /// `rtm_dst_len`.
    const LENGTH: u32 = 16 + 1;

    // The program reads in network order what is in the order of this host.
    let is_route =
        |kind: u16, then, otherwise| SockFilter::new(JUMP_IF_EQUAL, then, otherwise, kind.to_be().into());
    [
        SockFilter::new(LOAD_HALF, 0, 0, MESSAGE_TYPE),
        is_route(RTM_NEWROUTE, 1, 0),
        is_route(RTM_DELROUTE, 0, 2),
        SockFilter::new(LOAD_OCTET, 0, 0, LENGTH),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[expect(unsafe_code, reason = "tokio asks the caller to vouch for the descriptor")]
fn registered(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it exists and always names the same descriptor; the `AsyncFd`
    // owns it and lends it out only by shared reference.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

fn enlarge_receive_buffer(socket: &OwnedFd) {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_OCTETS).is_ok() {
        return;
    }
    if let Err(error) = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER_OCTETS) {
        tracing::warn!(%error, "the netlink monitor keeps the default receive buffer: expect more resyncs");
    }
}

/// Appends the events of a datagram that matter. A truncated rest is ignored: the kernel does not send one.
fn read_datagram(mut datagram: &[u8], interest: &mut Interest, events: &mut VecDeque<Event>) {
    while let Some((kind, message, rest)) = split_message(datagram) {
        datagram = rest;
        // The filter of the socket lets no other routes through.
        if matches!(kind, RTM_NEWROUTE | RTM_DELROUTE) && events.back() != Some(&Event::DefaultRoutes) {
            events.push_back(Event::DefaultRoutes);
        }
        if interest.wants(kind, message) {
            events.extend(decode(message, interest));
        }
    }
}

/// Type, whole message and what follows it.
fn split_message(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(read_u32(datagram, 0)?).ok()?;
    let message = datagram.get(..length).filter(|_| length >= NLMSG_HEADER_OCTETS)?;
    let rest = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((read_u16(datagram, 4)?, message, rest))
}

impl Interest {
    /// Decides from the fixed header, and for a link from its name, before anything is decoded.
    fn wants(&self, kind: u16, message: &[u8]) -> bool {
        // Both `ifaddrmsg` and `ifinfomsg` have the interface index at octet 4.
        let Some(index) = read_u32(message, NLMSG_HEADER_OCTETS + 4) else { return false };
        match kind {
            RTM_NEWADDR | RTM_DELADDR => self.indexes.contains(&index),
            RTM_NEWLINK | RTM_DELLINK => {
                is_of_link(message)
                    && (self.indexes.contains(&index)
                        || link_name(message).is_some_and(|name| self.names.contains(name)))
            }
            _ => false,
        }
    }

    fn learn(&mut self, link: &Link) {
        if self.names.contains(&link.name) {
            self.indexes.insert(link.index);
        }
    }
}

/// Whether it tells of a link itself. What a bridge says of its ports (`AF_BRIDGE`) has the same types, and its
/// RTM_DELLINK means that the link is no port any more.
fn is_of_link(message: &[u8]) -> bool {
    message.get(NLMSG_HEADER_OCTETS).is_some_and(|family| i32::from(*family) == libc::AF_UNSPEC)
}

fn link_name(message: &[u8]) -> Option<&str> {
    let mut attributes = message.get(NLMSG_HEADER_OCTETS + IFINFO_OCTETS..)?;
    loop {
        let length = usize::from(read_u16(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if read_u16(attributes, 2)? == IFLA_IFNAME {
            let name = value.split(|octet| *octet == 0).next()?;
            return std::str::from_utf8(name).ok();
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn decode(message: &[u8], interest: &mut Interest) -> Option<Event> {
    let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
        Ok(message) => message,
        Err(error) => {
            tracing::debug!(%error, "a notification that can't be decoded: looking at everything instead");
            return Some(Event::Resync);
        }
    };
    let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
    match message {
        RouteNetlinkMessage::NewAddress(address) => Address::from_message(address).map(Event::AddressAdded),
        RouteNetlinkMessage::DelAddress(address) => Address::from_message(address).map(Event::AddressRemoved),
        RouteNetlinkMessage::NewLink(link) => {
            let link = Link::from_message(link)?;
            interest.learn(&link);
            Some(Event::LinkChanged(link))
        }
        RouteNetlinkMessage::DelLink(link) => {
            let link = Link::from_message(link)?;
            interest.indexes.remove(&link.index);
            Some(Event::LinkRemoved(link))
        }
        _ => None,
    }
}

fn read_u16(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(octets.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn read_u32(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(octets.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkMessage},
    };
    use proptest::prelude::*;

    use super::*;

    fn octets(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut octets = vec![0; message.buffer_len().next_multiple_of(4)];
        message.serialize(&mut octets);
        octets
    }

    fn address(index: u32) -> Vec<u8> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 32;
        message.attributes.push(AddressAttribute::Local("192.0.2.1".parse().unwrap()));
        octets(RouteNetlinkMessage::DelAddress(message))
    }

    fn link(index: u32, name: &str) -> Vec<u8> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Mtu(1500));
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        octets(RouteNetlinkMessage::NewLink(message))
    }

    fn read(datagram: &[u8], interest: &mut Interest) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        read_datagram(datagram, interest, &mut events);
        events
    }

    fn interest() -> Interest {
        Interest { names: ["kube-lb0".to_owned()].into(), indexes: [7].into() }
    }

    #[test]
    fn only_links_and_addresses_of_interest_are_decoded() {
        let datagram = [address(8), link(8, "veth12"), address(7)].concat();
        let events = read(&datagram, &mut interest());
        assert_eq!(events.len(), 1);
        assert!(matches!(events[0], Event::AddressRemoved(address) if address.index == 7), "{events:?}");
    }

    #[test]
    fn a_link_of_interest_that_is_created_anew_brings_its_addresses_into_view() {
        let datagram = [link(9, "kube-lb0"), address(9)].concat();
        let events = read(&datagram, &mut interest());
        assert_eq!(events.len(), 2, "{events:?}");
    }

    #[test]
    fn a_port_that_leaves_a_bridge_is_a_link_as_before() {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.header.index = 7;
        message.attributes.push(LinkAttribute::IfName("eth0".to_owned()));
        let datagram = [octets(RouteNetlinkMessage::DelLink(message)), address(7)].concat();
        let events = read(&datagram, &mut interest());
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(matches!(events[0], Event::AddressRemoved(address) if address.index == 7), "{events:?}");
    }

    proptest! {
        #[test]
        fn no_datagram_panics(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&octets, &mut interest());
        }

        #[test]
        fn no_damaged_notification_panics(at in 0usize..60, octet in any::<u8>()) {
            let mut datagram = [link(7, "kube-lb0"), address(7)].concat();
            let at = at % datagram.len();
            datagram[at] = octet;
            read(&datagram, &mut interest());
        }
    }
}
