//! The floor of the machine: completes the handshake, then writes octets that were encoded before.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lab::until;

use super::{BGP_PORT, Messages, connect, messages::KEEPALIVE};

/// Well below a third of any Hold Time that the other side may ask for.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// A session whose other end is a thread that writes what it is given.
#[derive(Debug)]
pub(crate) struct RawSender {
    octets: mpsc::Sender<Vec<u8>>,
}

impl RawSender {
    /// Listens on port 179 of `address` and serves one session: `first` is written as soon as it is Established,
    /// then whatever [`RawSender::write`] brings. Call it inside the speaker's namespace.
    pub(crate) fn listen(address: IpAddr, messages: Messages, first: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind(SocketAddr::new(address, BGP_PORT))
            .with_context(|| format!("listening on {address}"))?;
        let (octets, brought) = mpsc::channel();
        thread::spawn(move || {
            // A receiver that went away is noticed by the benchmark itself.
            let _ = listener.accept().and_then(|(mut stream, _)| {
                handshake(&mut stream, &messages)?;
                serve(stream, &first, &brought)
            });
        });
        Ok(Self { octets })
    }

    /// Dials a daemon instead, to feed it; again and again while the daemon refuses, as FRR does until its peers
    /// have left Idle. Call it inside the namespace that has `source`.
    pub(crate) fn dial(source: IpAddr, to: IpAddr, messages: Messages, first: Vec<u8>) -> Result<Self> {
        let stream = until(format!("a session of {source} with {to}"), Duration::from_secs(30), || {
            let mut stream = connect(source, to)?;
            handshake(&mut stream, &messages).context("handshake")?;
            anyhow::Ok(stream)
        })?;
        let (octets, brought) = mpsc::channel();
        thread::spawn(move || {
            let _ = serve(stream, &first, &brought);
        });
        Ok(Self { octets })
    }

    /// Hands over octets to be written at once.
    pub(crate) fn write(&self, octets: Vec<u8>) -> Result<()> {
        self.octets.send(octets).context("the raw sender's session has ended")
    }
}

/// OPEN and KEEPALIVE in both directions.
fn handshake(stream: &mut TcpStream, messages: &Messages) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&messages.open())?;
    // The other side's OPEN, then our KEEPALIVE, then its KEEPALIVE.
    read_message(stream)?;
    stream.write_all(&Messages::keepalive())?;
    while read_message(stream)? != KEEPALIVE {}
    Ok(())
}

fn serve(mut stream: TcpStream, first: &[u8], brought: &mpsc::Receiver<Vec<u8>>) -> std::io::Result<()> {
    stream.write_all(first)?;
    // What the other side has to say goes nowhere, but must not fill its window.
    let mut reader = stream.try_clone()?;
    thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    loop {
        match brought.recv_timeout(KEEPALIVE_EVERY) {
            Ok(octets) => stream.write_all(&octets)?,
            Err(mpsc::RecvTimeoutError::Timeout) => stream.write_all(&Messages::keepalive())?,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn read_message(stream: &mut TcpStream) -> std::io::Result<u8> {
    let mut header = [0; 19];
    stream.read_exact(&mut header)?;
    let [.., high, low, kind] = header;
    let mut body = vec![0; usize::from(u16::from_be_bytes([high, low])).saturating_sub(header.len())];
    stream.read_exact(&mut body)?;
    Ok(kind)
}
