//! Who fills a daemon's table: a second session that writes octets which were encoded before.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lab::until;

use super::{Messages, connect, messages::KEEPALIVE};

/// Well below a third of any Hold Time that the other side may ask for.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// A session whose end on our side is a thread that writes what it is given.
#[derive(Debug)]
pub(crate) struct Feeder {
    octets: mpsc::Sender<Vec<u8>>,
}

impl Feeder {
    /// Dials a daemon, again and again while it refuses, as FRR does until its peers have left Idle, and writes
    /// `first`. Call it inside the namespace that has `source`.
    pub(crate) fn dial(source: IpAddr, to: IpAddr, messages: Messages, first: Vec<u8>) -> Result<Self> {
        let mut stream = until(format!("a session of {source} with {to}"), Duration::from_secs(30), || {
            let mut stream = connect(source, to)?;
            handshake(&mut stream, &messages).context("handshake")?;
            anyhow::Ok(stream)
        })?;
        discard_input(&stream)?;
        let (octets, brought) = mpsc::channel();
        thread::spawn(move || {
            // A daemon that went away is noticed by the benchmark itself.
            let _ = stream.write_all(&first).and_then(|()| serve(stream, &brought));
        });
        Ok(Self { octets })
    }

    /// Hands over octets to be written at once.
    pub(crate) fn write(&self, octets: Vec<u8>) -> Result<()> {
        self.octets.send(octets).context("the feeder's session has ended")
    }
}

/// A session whose end on our side writes the same octets over and over, as fast as they are taken, until it is
/// dropped.
#[derive(Debug)]
pub(crate) struct Flood {
    is_over: Arc<AtomicBool>,
}

impl Flood {
    /// Dials a speaker that is ready. Call it inside the namespace that has `source`.
    pub(crate) fn dial(source: IpAddr, to: IpAddr, messages: &Messages, octets: Vec<u8>) -> Result<Self> {
        let mut stream = connect(source, to)?;
        handshake(&mut stream, messages).context("handshake")?;
        discard_input(&stream)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        thread::spawn(move || while !until.load(Ordering::Relaxed) && stream.write_all(&octets).is_ok() {});
        Ok(Self { is_over })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn serve(mut stream: TcpStream, brought: &mpsc::Receiver<Vec<u8>>) -> std::io::Result<()> {
    loop {
        match brought.recv_timeout(KEEPALIVE_EVERY) {
            Ok(octets) => stream.write_all(&octets)?,
            Err(mpsc::RecvTimeoutError::Timeout) => stream.write_all(&Messages::keepalive())?,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// OPEN and KEEPALIVE in both directions: when it returns, the session is Established on both sides.
pub(crate) fn handshake(stream: &mut TcpStream, messages: &Messages) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&messages.open())?;
    // The other side's OPEN, then our KEEPALIVE, then its KEEPALIVE.
    read_message(stream)?;
    stream.write_all(&Messages::keepalive())?;
    while read_message(stream)? != KEEPALIVE {}
    Ok(())
}

/// What the other side has to say goes nowhere, but must not fill its window.
pub(crate) fn discard_input(stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = stream.try_clone()?;
    thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    Ok(())
}

fn read_message(stream: &mut TcpStream) -> std::io::Result<u8> {
    let mut header = [0; 19];
    stream.read_exact(&mut header)?;
    let [.., high, low, kind] = header;
    let mut body = vec![0; usize::from(u16::from_be_bytes([high, low])).saturating_sub(header.len())];
    stream.read_exact(&mut body)?;
    Ok(kind)
}
