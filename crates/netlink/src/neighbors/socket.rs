//! A packet socket (packet(7)) on one link, for one protocol.

use std::{
    io::{self, Read},
    os::fd::{AsRawFd, RawFd},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::frame::ETHERTYPE_IPV6;
use crate::mac::Mac;

/// Asked for, so that the answers to the probes of a thousand addresses fit; without CAP_NET_ADMIN
/// `net.core.rmem_max` limits it.
const RECEIVE_BUFFER_OCTETS: usize = 2 * 1024 * 1024;

/// In the place of an EtherType: frames of each (`ETH_P_ALL`).
pub(super) const EVERY_ETHERTYPE: u16 = 0x0003;

/// Whole frames of one EtherType.
#[derive(Debug)]
pub(super) struct PacketSocket(Socket);

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl PacketSocket {
    pub(super) fn open(index: u32, ethertype: u16) -> io::Result<PacketSocket> {
        // With protocol 0 nothing is received before the filter is there and the link is chosen.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_OCTETS).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER_OCTETS)?;
        }
        socket.attach_filter(&filter(ethertype))?;
        socket.bind(&link_address(index, ethertype)?)?;
        Ok(PacketSocket(socket))
    }

    /// The address of the link that it is bound to.
    pub(super) fn hardware_address(&self) -> io::Result<Mac> {
        let bound = read_link_address(self.0.local_addr()?)?;
        let [a, b, c, d, e, f, ..] = bound.sll_addr;
        if bound.sll_hatype == libc::ARPHRD_ETHER && bound.sll_halen == 6 {
            return Ok(Mac([a, b, c, d, e, f]));
        }
        let index = bound.sll_ifindex;
        let text = format!("link {index} is no Ethernet: neither ARP nor Neighbor Discovery is spoken there");
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
    }

    /// The length of the frame that is in the buffer now; `None`: there is none at the time.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match (&self.0).read(buffer) {
                Ok(octets) => return Ok(Some(octets)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[expect(unsafe_code, reason = "tokio asks the caller to vouch for the descriptor")]
pub(super) fn registered(socket: PacketSocket) -> io::Result<AsyncFd<PacketSocket>> {
    let interest = tokio::io::Interest::READABLE;
    // SAFETY: a `Socket` is open for as long as it exists and always names the same descriptor; the `AsyncFd` owns
    // it and lends it out only by shared reference.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}

#[expect(unsafe_code, reason = "socket addresses of this family have no safe constructor")]
fn link_address(index: u32, ethertype: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large and aligned enough for any socket address, and all of its octets are set.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small constant");
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index;
    let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("some twenty octets");
    // SAFETY: the family and the length are those of the address that has been written.
    Ok(unsafe { SockAddr::new(storage, length) })
}

#[expect(unsafe_code, reason = "socket addresses of this family have no safe reader")]
fn read_link_address(address: SockAddr) -> io::Result<libc::sockaddr_ll> {
    if i32::from(address.family()) != libc::AF_PACKET {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut storage = address.as_storage();
    // SAFETY: the family says what it is, and what the kernel has left out of the storage is 0.
    Ok(*unsafe { storage.view_as() })
}

/// A classic BPF program. What is not for this link never reaches the socket: what this node itself sends, unicast to
/// others, and frames of VLANs on top of the link, which the kernel counts with the latter (and frees of their tag).
/// Nor do IPv6 packets but Neighbor Solicitations and Advertisements. Of every EtherType, all that arrives passes,
/// whomever it is for.
fn filter(ethertype: u16) -> Vec<SockFilter> {
    const LOAD_OCTET: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`, not an octet of the packet but what the kernel knows of it.
    const PACKET_TYPE: u32 = 0xffff_f000 + 4;
    /// Less is for this host, or for all, or for a group.
    const PACKET_OTHERHOST: u32 = 3;
    /// This host has sent it.
    const PACKET_OUTGOING: u32 = 4;
    /// Behind the Ethernet header: IPv6's next header, and the type of the ICMPv6 message.
    const NEXT_HEADER: u32 = 14 + 6;
    const ICMPV6_TYPE: u32 = 14 + 40;

    // How many instructions to skip where it is so, and where not.
    let jump = |code, value, then, otherwise| SockFilter::new(code, then, otherwise, value);
    let load = |from| SockFilter::new(LOAD_OCTET, 0, 0, from);
    let (pass, refuse) = (SockFilter::new(RETURN, 0, 0, 0xffff), SockFilter::new(RETURN, 0, 0, 0));
    if ethertype == EVERY_ETHERTYPE {
        return vec![load(PACKET_TYPE), jump(JUMP_IF_EQUAL, PACKET_OUTGOING, 1, 0), pass, refuse];
    }
    let of_ipv6 = if ethertype == ETHERTYPE_IPV6 { 5 } else { 0 };
    let mut program = vec![load(PACKET_TYPE), jump(JUMP_IF_AT_LEAST, PACKET_OTHERHOST, 1 + of_ipv6, 0)];
    if ethertype == ETHERTYPE_IPV6 {
        program.extend([load(NEXT_HEADER), jump(JUMP_IF_EQUAL, 58, 0, 4)]);
        program.extend([load(ICMPV6_TYPE), jump(JUMP_IF_EQUAL, 135, 1, 0), jump(JUMP_IF_EQUAL, 136, 0, 1)]);
    }
    program.extend([pass, refuse]);
    program
}
