//! What a driver tells: the status, the log, and those who wait until everything has been said.

use std::sync::Arc;

use tokio::time::{Duration, Instant};

use super::{Driver, inbox::Answer};
use crate::{speaker::ConnectionId, status::SpeakerStatus};

/// How long counts may be old while changes follow each other. To write everything down anew costs as much as a route,
/// which are many; and a timer that rings soon costs more than a route at every sleep, because the processor's own has to
/// be set for it and set back.
const COUNTS: Duration = Duration::from_secs(1);

/// Someone waits for these connections.
pub(super) struct Barrier {
    pub(super) waiting_for: Vec<ConnectionId>,
    pub(super) answer: Answer,
}

impl Driver {
    /// Publishes the status where it has changed, and lets go of barriers that nothing stands before.
    pub(super) fn tell(&mut self) {
        self.tell_at = None;
        self.told_at = Instant::now();
        let status = SpeakerStatus {
            listen_error: self.listen_error.clone(),
            bfd_error: self.bfd_error.clone(),
            ..self.speaker.status()
        };
        self.publish.send_if_modified(|published| {
            let is_changed = **published != status;
            if is_changed {
                log_errors(published, &status);
                *published = Arc::new(status);
            }
            is_changed
        });
        self.release_barriers();
    }

    /// Only routes have changed: the first change is told at once, those that follow soon enough together, but at once to
    /// who waits.
    pub(super) fn tell_soon(&mut self) {
        if !self.barriers.is_empty() {
            return self.tell();
        }
        if self.tell_at.is_none() {
            match self.told_at.elapsed() >= COUNTS {
                true => self.tell(),
                false => self.tell_at = Some(self.told_at + COUNTS),
            }
        }
    }

    fn release_barriers(&mut self) {
        if self.barriers.is_empty() {
            return;
        }
        let undrained: Vec<ConnectionId> = self.speaker.undrained().collect();
        for mut barrier in std::mem::take(&mut self.barriers) {
            if barrier.answer.is_closed() {
                continue;
            }
            barrier.waiting_for.retain(|id| undrained.contains(id));
            if barrier.waiting_for.is_empty() {
                let _ = barrier.answer.send(Ok(()));
            } else {
                self.barriers.push(barrier);
            }
        }
    }
}

/// Says once what keeps a peer from being Established, and each time that it is lost.
fn log_errors(before: &SpeakerStatus, after: &SpeakerStatus) {
    if let (true, Some(error)) = (before.listen_error != after.listen_error, &after.listen_error) {
        tracing::warn!(%error, "no router can connect: trying again");
    }
    for peer in &after.peers {
        let known = before.peers.iter().find(|known| known.name == peer.name);
        let is_news =
            known.is_none_or(|known| known.last_error != peer.last_error || known.flaps != peer.flaps);
        if let (true, Some(error)) = (is_news, &peer.last_error) {
            tracing::warn!(peer = %peer.name, state = %peer.state, %error, "BGP session");
        }
    }
}
