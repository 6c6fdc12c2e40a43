//! Whether anything at all arrives on a link, from whomever and whatever it is: a link that carries frames out and none
//! in looks to the kernel like any other.

use std::io;

use tokio::io::unix::AsyncFd;

use super::socket::{self, EVERY_ETHERTYPE, PacketSocket};

/// Octets of a frame that are looked at: that it is there is all.
const ENOUGH: usize = 1;

/// Listens on one link for any frame of others. Under traffic it costs what the traffic is: to be closed with the first.
#[derive(Debug)]
pub struct Sound(AsyncFd<PacketSocket>);

impl Sound {
    /// Begins to listen on the link with this index, in the network namespace of the calling thread and inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// There is no such link, or CAP_NET_RAW is missing.
    pub fn open(index: u32) -> io::Result<Sound> {
        Ok(Sound(socket::registered(PacketSocket::open(index, EVERY_ETHERTYPE)?)?))
    }

    /// Whether a frame has come that was not told of yet.
    ///
    /// # Errors
    /// The link went down or away.
    pub fn try_hear(&self) -> io::Result<bool> {
        Ok(self.0.get_ref().receive(&mut [0; ENOUGH])?.is_some())
    }

    /// Waits for a frame. Safe to cancel.
    ///
    /// # Errors
    /// As [`Sound::try_hear`].
    pub async fn hear(&self) -> io::Result<()> {
        while !self.try_hear()? {
            self.0.readable().await?.clear_ready();
        }
        Ok(())
    }
}
