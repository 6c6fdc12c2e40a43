//! A speaker on sockets: one tokio task owns the [`Speaker`], feeds it and does what it says.

use std::{io, sync::Arc};

use tokio::sync::{mpsc, watch};

use crate::{config::SpeakerConfig, speaker::Speaker};

mod clock;
mod handle;

pub use handle::{Error, Handle};

/// Starts a speaker on the current tokio runtime. Fails where an address of `config.listen` cannot be bound.
pub fn spawn(config: SpeakerConfig) -> io::Result<Handle> {
    let clock = clock::Clock::start();
    let mut speaker = Speaker::new(&config);
    let (commands, mut received) = mpsc::unbounded_channel();
    let (publish, status) = watch::channel(Arc::new(speaker.status()));
    tokio::spawn(async move {
        while let Some(command) = received.recv().await {
            match command {
                handle::Command::Announce(routes, done) => {
                    speaker.announce(&routes);
                    let _ = done.send(());
                }
                handle::Command::Withdraw(prefixes, done) => {
                    speaker.withdraw(&prefixes);
                    let _ = done.send(());
                }
                handle::Command::ReplaceAll(routes, done) => {
                    speaker.replace_all(&routes);
                    let _ = done.send(());
                }
                handle::Command::SetPeers(peers, done) => {
                    let _ = done.send(speaker.set_peers(peers, clock.now()));
                }
                handle::Command::Barrier(done) => {
                    let _ = done.send(());
                }
                handle::Command::Shutdown(_, done) => {
                    let _ = done.send(());
                    break;
                }
            }
            publish.send_replace(Arc::new(speaker.status()));
        }
    });
    Ok(Handle::new(commands, status, clock))
}
