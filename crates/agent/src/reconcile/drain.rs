//! A node that leaves and stays alive: its routes are marked, then withdrawn, then its addresses go; and all of it back.

use std::time::Instant;

use super::{Phase, Reconciler};
use crate::inputs::node::NodeInput;

impl Reconciler {
    /// Follows what is known of the node, and the time.
    pub(super) fn drain(&mut self, now: Instant) {
        let leaving = self.world.node().and_then(NodeInput::leaving);
        let has_announced = self.phase == Phase::Running;
        let was_withdrawn = self.draining.is_withdrawn();
        if !self.draining.follow(leaving.is_some(), has_announced, now) {
            return;
        }
        self.marks_dirty = true;
        let is_withdrawn = self.draining.is_withdrawn();
        match leaving {
            None => tracing::info!("this node announces again"),
            Some(why) if is_withdrawn => tracing::info!(%why, "this node announces nothing any more"),
            Some(why) => {
                let wait = self.settings.drain_wait;
                tracing::info!(%why, %wait, "routes are marked as about to leave (RFC 8326)");
            }
        }
        if was_withdrawn == is_withdrawn {
            return;
        }
        self.planner.set_withdrawn(is_withdrawn);
        if self.phase != Phase::Listing {
            for key in self.world.service_keys() {
                self.replan(&key, None);
            }
        }
    }
}
