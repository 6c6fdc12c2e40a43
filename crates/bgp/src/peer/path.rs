//! What BFD says of the path to a peer, and what BGP makes of it (RFC 5882 §3.2, §4).
//!
//! A session may be Established before BFD is Up: whether the router speaks BFD at all is not known until it
//! does, and many begin only then. Once BFD was Up its failure ends the session at once and keeps it down until
//! BFD is Up again; but not for ever, for the same reason.
//!
//! Graceful restart (RFC 5882 §4.3): our BFD shares fate with our control plane (C is clear), and a failure that
//! comes while the router does not restart has to be told as one (§4.3.2.2): its routes are not to be kept. A
//! restart of ours is announced by AdminDown before, which is no failure to the router.

use std::time::Duration;

use super::{Acquire, Ids, Peer};
use crate::{
    bfd::{Report, State, Verdict},
    fsm::timers::Timer,
    notification::{self as codes, Notification},
    types::Time,
};

/// The shortest time that a session is kept down for want of BFD: longer than BFD takes to come up on a path that
/// works again, where both sides send once a second.
const MIN_HOLD_DOWN: Duration = Duration::from_secs(10);

/// What is known of the path.
#[derive(Debug, Default)]
pub(super) struct Path {
    report: Option<Report>,
    /// IdleHoldTimer runs because BFD has failed.
    pub(super) is_held_down: bool,
}

impl Path {
    pub(super) fn state(&self) -> Option<State> {
        self.report.map(|report| report.state)
    }

    /// What keeps BFD from coming up, in words.
    pub(super) fn obstacle(&self) -> Option<String> {
        let reason = self.report.filter(|report| report.state != State::Up)?.obstacle?;
        Some(format!("BFD packets of the peer are dropped: {reason}"))
    }
}

impl Peer {
    /// BFD says something new.
    pub(crate) fn handle_bfd(&mut self, report: Report, ids: &mut Ids, now: Time) {
        let before = self.path.report.replace(report);
        match report.verdict {
            Verdict::Failed(_) if before.is_some_and(|it| it.verdict == report.verdict) => {}
            Verdict::Failed(diagnostic) => self.fail(&format!("BFD down: {diagnostic}"), now),
            Verdict::Works | Verdict::Disabled => self.release(ids, now),
            Verdict::Unknown => {}
        }
    }

    /// Nobody watches the path any more.
    pub(super) fn forget_path(&mut self, ids: &mut Ids, now: Time) {
        self.path.report = None;
        self.release(ids, now);
    }

    fn fail(&mut self, reason: &str, now: Time) {
        let is_stopped = self.acquire == Acquire::Idle
            && !self.timers.is_running(Timer::IdleHold)
            && self.connections.iter().all(Option::is_none);
        if is_stopped {
            return;
        }
        self.stop(&Notification::new(codes::CEASE_BFD_DOWN), now);
        // Behind the end of the session, which forgets earlier losses where it was stable.
        let time = self.idle_hold_time().max(MIN_HOLD_DOWN);
        self.history.on_reason(reason.to_owned());
        self.timers.start(Timer::IdleHold, now + time);
        self.path.is_held_down = true;
    }

    fn release(&mut self, ids: &mut Ids, now: Time) {
        if std::mem::take(&mut self.path.is_held_down) && self.timers.is_running(Timer::IdleHold) {
            self.start(ids, now);
        }
    }
}
