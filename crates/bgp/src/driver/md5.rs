//! TCP MD5 signatures (RFC 2385): which key a socket uses towards which address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use socket2::{Domain, SockAddr, SockAddrStorage, SockRef};

use crate::md5::Md5Key;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: SockAddrStorage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: libc::c_int,
    key: [u8; Md5Key::MAX_OCTETS],
}

/// Has a socket sign what it sends to an address and drop what comes from there without that signature; `None`
/// ends it. On a listening socket it holds for the connections to come. There is no zone in it: the kernel tells
/// link-local addresses of several interfaces apart by VRF only, so `PeerConfig::check_set` refuses different keys there.
#[expect(unsafe_code, reason = "setsockopt with a struct, whose address and size are those of a live local")]
pub(super) fn set(socket: &SockRef<'_>, address: IpAddr, key: Option<&Md5Key>) -> io::Result<()> {
    let octets = key.map(Md5Key::octets).unwrap_or_default();
    let mut option = TcpMd5Sig {
        address: SockAddr::from(in_family_of(socket, address)?).as_storage(),
        flags: 0,
        prefix_length: 0,
        key_length: u16::try_from(octets.len()).unwrap_or(0),
        interface: 0,
        key: [0; Md5Key::MAX_OCTETS],
    };
    for (to, from) in option.key.iter_mut().zip(octets) {
        *to = *from;
    }
    let length = libc::socklen_t::try_from(size_of::<TcpMd5Sig>()).expect("a few hundred octets");
    // SAFETY: the descriptor is open, the pointer and the length describe `option`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MD5SIG,
            (&raw const option).cast(),
            length,
        )
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        // There was none to end.
        error if key.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        error => Err(io::Error::new(error.kind(), format!("cannot set the TCP MD5 key: {error}"))),
    }
}

/// An IPv6 socket that speaks IPv4, too, knows IPv4 addresses as mapped ones.
fn in_family_of(socket: &SockRef<'_>, address: IpAddr) -> io::Result<SocketAddr> {
    let address = match address.to_canonical() {
        IpAddr::V4(address) if socket.domain()? == Domain::IPV6 => address.to_ipv6_mapped().into(),
        address => address,
    };
    Ok(SocketAddr::new(address, 0))
}
