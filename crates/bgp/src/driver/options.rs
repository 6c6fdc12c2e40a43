//! Socket options of a BGP connection.

use std::{io, net::IpAddr, os::fd::AsRawFd, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use super::md5;
use crate::config::PeerConfig;

/// How long the kernel tries to get octets acknowledged where there is no hold timer.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Sets what a connection to this peer needs: no delay, the TTL to send with and the smallest to accept, the key of
/// its signatures. Before `connect`, so that the first packet has it already.
pub(super) fn apply(socket: &impl std::os::fd::AsFd, peer: &PeerConfig) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // An UPDATE must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    // A session without a hold timer still notices a peer that is gone.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
    let is_v6 = peer.address.to_canonical().is_ipv6();
    let ttl = peer.ttl();
    if let Some(send) = ttl.send {
        if is_v6 {
            socket.set_unicast_hops_v6(u32::from(send))?;
        } else {
            socket.set_ttl_v4(u32::from(send))?;
        }
    }
    if let Some(accept) = ttl.accept {
        set_min_ttl(&socket, is_v6, accept)?;
    }
    match &peer.md5_key {
        // Also where a listener has accepted it: it may have done so before it had the key.
        Some(key) => md5::set(&socket, peer.address, Some(key)),
        None => Ok(()),
    }
}

/// Limits how long octets may stay unacknowledged before the kernel gives the connection up (RFC 5482): a third longer
/// than the hold time that we propose, which is no less than what is negotiated. By then the hold timers of both ends
/// have expired, and had the first word. Behind `connect`, which has a limit of its own.
pub(super) fn apply_when_connected(socket: &impl std::os::fd::AsFd, peer: &PeerConfig) -> io::Result<()> {
    let hold = peer.hold_time.duration();
    let timeout = hold.map_or(USER_TIMEOUT, |hold| hold + hold / 3);
    SockRef::from(socket).set_tcp_user_timeout(Some(timeout))
}

/// What answers to strangers: they may sit behind RFC 5082, which wants 255 from the first packet on.
pub(super) fn apply_to_listener(socket: &socket2::Socket, address: IpAddr) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_unicast_hops_v6(255)?;
    }
    // An IPv6 socket that takes IPv4 too answers there with this one.
    match socket.set_ttl_v4(255) {
        Err(error) if address.is_ipv4() => Err(error),
        _ => Ok(()),
    }
}

/// IP_MINTTL and IPV6_MINHOPCOUNT (RFC 5082 §3), which no safe wrapper offers.
#[expect(unsafe_code, reason = "setsockopt with an int, whose address and size are those of a live local")]
fn set_min_ttl(socket: &SockRef<'_>, is_v6: bool, ttl: u8) -> io::Result<()> {
    let (level, name) = if is_v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT)
    } else {
        (libc::IPPROTO_IP, libc::IP_MINTTL)
    };
    let value = libc::c_int::from(ttl);
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("four octets");
    // SAFETY: the descriptor is open, the pointer and the length describe `value`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
