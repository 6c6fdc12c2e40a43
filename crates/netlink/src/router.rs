//! The router at the other end of a link, learnt from its Router Advertisements (RFC 4861 §4.2), and ours to it: how
//! two ends of an unnumbered BGP session find each other's link-local address.
//!
//! What is advertised makes nobody a default router and gives nobody an address: Router Lifetime 0, no prefix, no
//! flag. Nobody waits for a router's next advertisement, which may be half an hour away: it is asked for (Router
//! Solicitation, §6.3.7). Meant for links with one router on them; where another one is heard, the one that is known is
//! asked for, too, and stays if it answers.

use std::{
    io::{self, IoSliceMut},
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::{
    cmsg_space,
    net::if_::if_nametoindex,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

/// RFC 4861 §10: between two solicitations, and how many.
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);
const SOLICITATION_COUNT: u32 = 3;

/// A router that has been asked for so long without an answer makes room for another.
const SILENCE: Duration = Duration::from_secs(10);

/// Between two advertisements of ours; the first ones come faster (RFC 4861 §6.2.4).
const INTERVAL: Duration = Duration::from_secs(10);
const INITIAL_INTERVAL: Duration = Duration::from_secs(1);
const INITIAL_COUNT: u32 = 3;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// RFC 4861 §6.1: packets with another have been forwarded.
const HOP_LIMIT: u8 = 255;

/// A Router Advertisement that says nothing but who sends it; the kernel adds the checksum.
const ADVERTISEMENT: [u8; 16] = [ROUTER_ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Asks for the advertisements of others; the kernel adds the checksum.
const SOLICITATION: [u8; 8] = [ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Advertisement(Ipv6Addr),
    Solicitation,
    /// Nothing for us.
    Other,
}

/// Listens on a link and advertises on it.
#[derive(Debug)]
pub struct RouterDiscovery {
    socket: AsyncFd<Socket>,
    index: u32,
    choice: Choice,
    sent: u32,
    next: Instant,
    solicitations: u32,
    solicit_at: Option<Instant>,
}

/// Which of the routers that are heard is the one.
#[derive(Debug, Default)]
struct Choice {
    known: Option<Ipv6Addr>,
    /// Another one has been heard since then, and the known one has not.
    doubted_since: Option<Instant>,
}

/// What hearing a router comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// It is the one that is known.
    Known,
    /// It is the one now.
    New,
    /// There is another one, of which it is not known for sure that it lives.
    Rival,
    /// The same, and that one has just been asked for.
    Waiting,
}

impl Choice {
    fn hear(&mut self, from: Ipv6Addr, now: Instant) -> Heard {
        match (self.known, self.doubted_since) {
            (Some(known), _) if known == from => {
                self.doubted_since = None;
                return Heard::Known;
            }
            (Some(_), None) => {
                self.doubted_since = Some(now);
                return Heard::Rival;
            }
            (Some(_), Some(since)) if now - since < SILENCE => return Heard::Waiting,
            _ => {}
        }
        *self = Choice { known: Some(from), doubted_since: None };
        Heard::New
    }
}

impl RouterDiscovery {
    /// Begins on an interface of the calling thread's network namespace. Wants CAP_NET_RAW.
    pub fn open(interface: &str) -> io::Result<RouterDiscovery> {
        let index = if_nametoindex(interface)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_nonblocking(true)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        let socket = registered(socket)?;
        let now = Instant::now();
        let (choice, solicit_at) = (Choice::default(), Some(now));
        Ok(RouterDiscovery { socket, index, choice, sent: 0, next: now, solicitations: 1, solicit_at })
    }

    /// The router's address, each time that it is another one. An error means that the interface is gone or down:
    /// open it again later. Safe to cancel.
    pub async fn changed(&mut self) -> io::Result<Ipv6Addr> {
        loop {
            tokio::select! {
                message = read(&self.socket) => match message? {
                    Message::Advertisement(from) => match self.choice.hear(from, Instant::now()) {
                        Heard::New => {
                            self.solicit_at = None;
                            // It wants to know us, too.
                            self.advertise()?;
                            return Ok(from);
                        }
                        Heard::Known => self.solicit_at = None,
                        // Both answer, so that the rival is heard again, too.
                        Heard::Rival => {
                            self.solicitations = 0;
                            self.solicit_at = Some(Instant::now());
                        }
                        Heard::Waiting => {}
                    },
                    Message::Solicitation => self.advertise()?,
                    Message::Other => {}
                },
                () = sleep_until(self.next) => self.advertise()?,
                () = sleep_until(self.solicit_at.unwrap_or(self.next)), if self.solicit_at.is_some() => {
                    self.solicit()?;
                }
            }
        }
    }

    /// RFC 4861 §6.3.7. One more than §10 has: the last of them comes when a router that is doubted has been silent.
    fn solicit(&mut self) -> io::Result<()> {
        self.solicitations += 1;
        let is_last = self.solicitations > SOLICITATION_COUNT;
        self.solicit_at = (!is_last).then(|| Instant::now() + SOLICITATION_INTERVAL);
        self.send(&SOLICITATION, ALL_ROUTERS)
    }

    fn advertise(&mut self) -> io::Result<()> {
        self.sent = self.sent.saturating_add(1);
        let pause = if self.sent <= INITIAL_COUNT { INITIAL_INTERVAL } else { INTERVAL };
        self.next = Instant::now() + pause;
        self.send(&ADVERTISEMENT, ALL_NODES)
    }

    fn send(&self, message: &[u8], to: Ipv6Addr) -> io::Result<()> {
        let to = SocketAddrV6::new(to, 0, 0, self.index);
        match self.socket.get_ref().send_to(message, &to.into()) {
            // Its own address may not be usable yet, or its queue be full: the next one is soon.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::WouldBlock) =>
            {
                Ok(())
            }
            sent => sent.map(drop),
        }
    }
}

#[expect(unsafe_code, reason = "tokio asks the caller to vouch for the descriptor")]
fn registered(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` is open for as long as it exists and always names the same descriptor; the `AsyncFd` owns
    // it and lends it out only by shared reference.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}

async fn read(socket: &AsyncFd<Socket>) -> io::Result<Message> {
    loop {
        let mut guard = socket.readable().await?;
        if let Ok(message) = guard.try_io(|socket| receive(socket.get_ref())) {
            return message;
        }
    }
}

fn receive(socket: &Socket) -> io::Result<Message> {
    let mut octets = [0; 64];
    let mut control = cmsg_space!(libc::c_int);
    let mut slices = [IoSliceMut::new(&mut octets)];
    let message =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let hop_limit = message.cmsgs().into_iter().flatten().find_map(|control| match control {
        ControlMessageOwned::Ipv6HopLimit(hops) => u8::try_from(hops).ok(),
        _ => None,
    });
    let (from, length) = (message.address.map(|address| address.ip()), message.bytes);
    Ok(understand(octets.get(..length).unwrap_or_default(), from, hop_limit))
}

/// The checks of RFC 4861 §6.1; the kernel has checked the checksum.
fn understand(octets: &[u8], from: Option<Ipv6Addr>, hop_limit: Option<u8>) -> Message {
    if hop_limit != Some(HOP_LIMIT) {
        return Message::Other;
    }
    match (octets, from) {
        ([ROUTER_ADVERTISEMENT, 0, rest @ ..], Some(from))
            if rest.len() + 2 >= ADVERTISEMENT.len() && from.is_unicast_link_local() =>
        {
            Message::Advertisement(from)
        }
        ([ROUTER_SOLICITATION, 0, rest @ ..], _) if rest.len() >= 6 => Message::Solicitation,
        _ => Message::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    #[test]
    fn an_advertisement_is_taken_from_a_link_local_address_that_nobody_has_forwarded() {
        let understand = |octets, from, hops| understand(octets, Some(from), Some(hops));
        assert_eq!(understand(&ADVERTISEMENT, ROUTER, 255), Message::Advertisement(ROUTER));
        assert_eq!(understand(&ADVERTISEMENT, ROUTER, 254), Message::Other);
        assert_eq!(understand(&ADVERTISEMENT[..15], ROUTER, 255), Message::Other, "too short");
        let global = "2001:db8::1".parse().unwrap();
        assert_eq!(understand(&ADVERTISEMENT, global, 255), Message::Other);
        assert_eq!(understand(&[133, 0, 0, 0, 0, 0, 0, 0], ROUTER, 255), Message::Solicitation);
        assert_eq!(understand(&[134, 1], ROUTER, 255), Message::Other);
    }

    #[test]
    fn another_router_is_taken_only_where_the_known_one_does_not_answer_for_long() {
        let rival: Ipv6Addr = "fe80::2".parse().unwrap();
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut choice = Choice::default();
        for (from, secs, expected) in [
            (ROUTER, 0, Heard::New),
            (ROUTER, 600, Heard::Known),
            // Both live, and advertise every ten minutes.
            (rival, 900, Heard::Rival),
            (rival, 901, Heard::Waiting),
            (ROUTER, 901, Heard::Known),
            (rival, 1500, Heard::Rival),
            // Now the first one is gone.
            (rival, 1504, Heard::Waiting),
            (rival, 1512, Heard::New),
            (rival, 1513, Heard::Known),
        ] {
            assert_eq!(choice.hear(from, at(secs)), expected, "at {secs} s");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_understood_or_passed_over(
            octets in proptest::collection::vec(any::<u8>(), 0..64),
            hops in any::<Option<u8>>(),
        ) {
            understand(&octets, Some(ROUTER), hops);
        }
    }
}
