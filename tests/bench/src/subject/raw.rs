//! The floor of the machine: completes the handshake, then writes octets that were encoded before.

use std::{
    io::{BufRead, Write},
    net::{SocketAddr, TcpListener},
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
    for line in std::io::stdin().lock().lines() {
        match Line::parse(&line?)? {
            Line::Go => stream.write_all(&octets)?,
            Line::Prepare(verb, numbers) => {
                octets = match verb {
                    Verb::Announce | Verb::AnnounceAtOnce => announcement(numbers),
                    Verb::Withdraw => Messages::withdrawal(family, numbers),
                };
                answer("prepared")?;
            }
        }
    }
    Ok(())
}
