//! The floor of the machine: completes the handshake, then writes octets that were encoded before.

use std::{
    io::{BufRead, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context as _, Result};

use super::{Arguments, Line, Verb, answer};
use crate::wire::{BGP_PORT, End, Messages, connect, discard_input, handshake};

pub(super) fn run(&Arguments { family, routes, dial, .. }: &Arguments) -> Result<()> {
    let address = End::Speaker.address(family);
    let messages = End::Speaker.messages();
    let announcement = |numbers| messages.announcement(family, address, numbers);
    let first = announcement(0..routes);
    let mut stream = if dial {
        connect(address, End::Sink.address(family))?
    } else {
        let listen = SocketAddr::new(address, BGP_PORT);
        let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
        answer("ready")?;
        listener.accept()?.0
    };
    handshake(&mut stream, &messages)?;
    stream.write_all(&first)?;
    drop(first);
    discard_input(&stream)?;
    let mut octets = Vec::new();
    let mut relayed = 0;
    let mut stdin = std::io::stdin().lock();
    let mut line = String::new();
    while stdin.read_line(&mut line)? > 0 {
        match Line::parse(&line)? {
            Line::Go if relayed > 0 => relay(&mut stdin, std::mem::take(&mut relayed), &mut stream)?,
            Line::Go => stream.write_all(&octets)?,
            Line::Prepare(verb, numbers) => {
                octets = match verb {
                    Verb::Announce | Verb::AnnounceAtOnce | Verb::AnnounceInAnyOrder => announcement(numbers),
                    Verb::Withdraw => Messages::withdrawal(family, numbers),
                };
                answer("prepared")?;
            }
            Line::Relay(octets) => {
                relayed = octets;
                answer("prepared")?;
            }
        }
        line.clear();
    }
    Ok(())
}

/// Writes as they come; a pipe holds 64 KiB.
fn relay(from: &mut impl BufRead, octets: usize, to: &mut TcpStream) -> std::io::Result<()> {
    let mut rest = from.take(octets as u64);
    let mut buffer = vec![0; 65_536];
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(()),
            some => to.write_all(buffer.get(..some).unwrap_or_default())?,
        }
    }
}
