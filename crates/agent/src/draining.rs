//! How far a node that is to announce nothing more has come. Routers are told first that its routes are about to go
//! (GRACEFUL_SHUTDOWN, RFC 8326 §4.2), and after a wait, in which they take other ways, that they are gone.
//!
//! Pure: `now` is an argument. Not here: why a node leaves (that is [`crate::inputs::node`]), and the end of the agent
//! itself ([`crate::shutdown`]), which drains by the same rules.

use std::time::{Duration, Instant};

/// The drain of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    wait: Duration,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Routes go out as they are.
    Serving,
    /// They are marked, and withdrawn then.
    Marked(Instant),
    /// There are none.
    Withdrawn,
}

impl Draining {
    /// Of a node that serves, and whose routers get so much time to take other ways.
    pub const fn new(wait: Duration) -> Draining {
        Draining { wait, stage: Stage::Serving }
    }

    /// Takes in whether the node is to leave, and that time has passed; returns whether anything is other than before.
    /// Where routers have not been told of any route, there is nothing to mark.
    pub fn follow(&mut self, is_leaving: bool, has_announced: bool, now: Instant) -> bool {
        let stage = match (self.stage, is_leaving) {
            (_, false) => Stage::Serving,
            (Stage::Serving, true) if has_announced && !self.wait.is_zero() => Stage::Marked(now + self.wait),
            (Stage::Serving, true) => Stage::Withdrawn,
            (Stage::Marked(until), true) if until <= now => Stage::Withdrawn,
            (stage, true) => stage,
        };
        let is_other = self.stage != stage;
        self.stage = stage;
        is_other
    }

    /// When to follow again, whatever happens until then.
    pub const fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Marked(until) => Some(until),
            Stage::Serving | Stage::Withdrawn => None,
        }
    }

    /// Whether routes, as far as there are any, are marked.
    pub const fn is_marked(&self) -> bool {
        !matches!(self.stage, Stage::Serving)
    }

    /// Whether there are to be no routes.
    pub const fn is_withdrawn(&self) -> bool {
        matches!(self.stage, Stage::Withdrawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(2);

    #[test]
    fn routes_are_marked_then_withdrawn_and_come_back_unmarked() {
        let (mut draining, start) = (Draining::new(WAIT), Instant::now());
        let state = |draining: &Draining| (draining.is_marked(), draining.is_withdrawn(), draining.due());
        assert!(!draining.follow(false, true, start));
        assert_eq!(state(&draining), (false, false, None));
        assert!(draining.follow(true, true, start));
        assert_eq!(state(&draining), (true, false, Some(start + WAIT)));
        assert!(!draining.follow(true, true, start + WAIT / 2), "the wait does not begin anew");
        assert!(draining.follow(true, true, start + WAIT));
        assert_eq!(state(&draining), (true, true, None));
        assert!(!draining.follow(true, true, start + WAIT * 9));
        assert!(draining.follow(false, true, start + WAIT * 9));
        assert_eq!(state(&draining), (false, false, None));
    }

    #[test]
    fn who_changes_its_mind_while_routes_are_marked_withdraws_nothing() {
        let (mut draining, start) = (Draining::new(WAIT), Instant::now());
        draining.follow(true, true, start);
        assert!(draining.follow(false, true, start + WAIT));
        assert!(!draining.is_marked() && draining.due().is_none());
        draining.follow(true, true, start + WAIT);
        assert_eq!(draining.due(), Some(start + WAIT * 2), "the next time has its full wait");
    }

    #[test]
    fn nothing_is_marked_that_no_router_knows_or_without_a_wait() {
        let now = Instant::now();
        for (wait, has_announced) in [(WAIT, false), (Duration::ZERO, true)] {
            let mut draining = Draining::new(wait);
            assert!(draining.follow(true, has_announced, now));
            assert!(draining.is_withdrawn(), "{wait:?} {has_announced}");
        }
    }
}
