//! Who has an address, asked and said on the wire of one Ethernet link: ARP (RFC 826, RFC 5227) and Neighbor Discovery
//! (RFC 4861 §7.2, RFC 4862 §5.4) over packet sockets, past the kernel's own tables.
//!
//! It decides nothing: it asks, announces, and tells what others say. What it sends does not come back to it, nor
//! does anything else that this link's address has sent. Frames of VLANs on top of the link are not the link's.
//!
//! Guarantees: a filter in the kernel passes ARP, Neighbor Solicitations and Advertisements only, so that the traffic
//! of the link costs nothing here; the sockets close with the value. Assumptions: CAP_NET_RAW; it is opened in the
//! link's network namespace.

mod arp;
pub mod frame;
mod ndp;
mod socket;
mod sound;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::io::unix::AsyncFd;

use crate::mac::Mac;
use socket::PacketSocket;
pub use sound::Sound;

/// The largest frame that is read whole: what is longer is no ARP packet, and no advertisement of an address.
const FRAME_OCTETS: usize = 1514;

/// How long it is believed whether the node is a router.
const ROUTER_AGE: Duration = Duration::from_secs(1);

/// Something that was heard about who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heard {
    /// The address.
    pub address: IpAddr,
    /// Who said it.
    pub mac: Mac,
    /// What was said.
    pub kind: Kind,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An answer to somebody's question: the address is there.
    Answer,
    /// Told to all, unasked: the address is there. The answer to an IPv6 probe looks like this, too, because the
    /// prober has no address that it could go to.
    Announcement,
    /// The address is asked for by someone who would like to have it.
    Probe,
}

/// Asks and tells on one link who has an address.
#[derive(Debug)]
pub struct Neighbors {
    index: u32,
    mac: Mac,
    arp: AsyncFd<PacketSocket>,
    nd: AsyncFd<PacketSocket>,
    buffer: Box<[u8]>,
    /// Path of the link's forwarding switch, whether it was on, and when that was read.
    router: (String, bool, Option<Instant>),
}

impl Neighbors {
    /// Opens the sockets on the link with this index, in the network namespace of the calling thread and inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// There is no such link, it is no Ethernet, or CAP_NET_RAW is missing.
    pub fn open(index: u32) -> io::Result<Neighbors> {
        let arp = PacketSocket::open(index, frame::ETHERTYPE_ARP)?;
        let nd = PacketSocket::open(index, frame::ETHERTYPE_IPV6)?;
        let mac = arp.hardware_address()?;
        let name = nix::net::if_::if_indextoname(index)?;
        // Shows the namespace of the thread that reads it.
        let path = format!("/proc/sys/net/ipv6/conf/{}/forwarding", name.to_string_lossy());
        Ok(Neighbors {
            index,
            mac,
            arp: socket::registered(arp)?,
            nd: socket::registered(nd)?,
            buffer: vec![0; FRAME_OCTETS].into_boxed_slice(),
            router: (path, false, None),
        })
    }

    /// Index of the link.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The link's address as it was when this was opened: where it has changed since, open it anew.
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// Tells all that this link has the address: an ARP announcement in request and in reply form, or an unsolicited
    /// Neighbor Advertisement.
    ///
    /// # Errors
    /// The link is down or gone, or its queue is full.
    pub fn announce(&mut self, address: IpAddr) -> io::Result<()> {
        let is_router = address.is_ipv6() && self.is_router();
        for frame in frame::announcements(self.mac, address, is_router) {
            self.send(address, &frame)?;
        }
        Ok(())
    }

    /// Asks who has the address, without claiming it.
    ///
    /// # Errors
    /// As [`Neighbors::announce`].
    pub fn probe(&self, address: IpAddr) -> io::Result<()> {
        self.send(address, &frame::probe(self.mac, address))
    }

    /// Answers a probe by `prober` for an address that is about to be on this link: as the kernel will from then on.
    ///
    /// # Errors
    /// As [`Neighbors::announce`].
    pub fn answer(&mut self, address: IpAddr, prober: Mac) -> io::Result<()> {
        let is_router = address.is_ipv6() && self.is_router();
        self.send(address, &frame::answer(self.mac, address, prober, is_router))
    }

    /// What is heard next. Safe to cancel.
    ///
    /// # Errors
    /// The link went down or away: try again, or open it anew.
    pub async fn next(&mut self) -> io::Result<Heard> {
        loop {
            if let Some(heard) = self.try_next()? {
                return Ok(heard);
            }
            // Both were empty. What has come since is read in the next turn, whether it is cleared here or not.
            tokio::select! {
                ready = self.arp.readable() => ready?.clear_ready(),
                ready = self.nd.readable() => ready?.clear_ready(),
            }
        }
    }

    /// What has been heard and not been read yet.
    ///
    /// # Errors
    /// As [`Neighbors::next`].
    pub fn try_next(&mut self) -> io::Result<Option<Heard>> {
        for socket in [self.arp.get_ref(), self.nd.get_ref()] {
            while let Some(octets) = socket.receive(&mut self.buffer)? {
                let frame = self.buffer.get(..octets).unwrap_or_default();
                if let Some(heard) = frame::read(frame).filter(|heard| heard.mac != self.mac) {
                    return Ok(Some(heard));
                }
            }
        }
        Ok(None)
    }

    fn send(&self, address: IpAddr, frame: &[u8]) -> io::Result<()> {
        match address {
            IpAddr::V4(_) => self.arp.get_ref().send(frame),
            IpAddr::V6(_) => self.nd.get_ref().send(frame),
        }
    }

    /// Whether the node forwards IPv6 packets of this link: what its kernel says in its own advertisements.
    fn is_router(&mut self) -> bool {
        let (path, is_router, read_at) = &mut self.router;
        if read_at.is_none_or(|at| at.elapsed() >= ROUTER_AGE) {
            *is_router = fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
            *read_at = Some(Instant::now());
        }
        *is_router
    }
}
