//! What is done for an address as long as it is held: announcements, renewal, and what a lost carrier means.

use std::time::{Duration, Instant};

use rand::Rng;

use super::{
    CARRIER_WAIT, Context, Kind, RIVAL_FORGOTTEN, RIVAL_INTERVAL,
    state::{Burst, Claim, Held, Observed, Renewal, State},
    steps::on_kernel,
};
use crate::claim::{Action, Announcing, Member, action::AddFailure};

/// A renewal that the kernel refuses is tried again so often.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

/// Nobody's cache forgets faster.
const LEAST_REFRESH: Duration = Duration::from_secs(1);

impl Context {
    pub(super) fn on_held_due(&mut self, claim: &mut Claim, now: Instant) {
        let State::Held(held) = &mut claim.state else { return };
        if held.give_up_at.is_some_and(|at| at <= now) {
            return self.remove(claim, None, None);
        }
        held.rival.take_if(|rival| rival.heard_at + RIVAL_FORGOTTEN <= now);
        let rival = held.rival.clone().filter(|rival| rival.told_at + RIVAL_INTERVAL <= now);
        self.renew(claim, now);
        self.ask_again(claim, now);
        self.announce(claim, now);
        if let Some(rival) = rival {
            self.resolve(claim, &rival.name, now);
        }
    }

    /// A host that was slow, or whose frames were lost, may have it, too.
    fn ask_again(&mut self, claim: &mut Claim, now: Instant) {
        let is_usable = claim.interface().is_some_and(|index| self.is_usable(index));
        let (State::Held(held), Some(wanted)) = (&mut claim.state, &claim.wanted) else { return };
        if held.ask_at.take_if(|at| *at <= now).is_some() && is_usable {
            held.asked_at = Some(now);
            let interface = wanted.interface;
            self.act(Action::Probe { interface, address: claim.address });
        }
    }

    fn renew(&mut self, claim: &mut Claim, now: Instant) {
        let (State::Held(held), Some(wanted)) = (&mut claim.state, &claim.wanted) else { return };
        let Some(renewal) = held.renewal.as_mut().filter(|it| it.at <= now && !it.is_under_way) else {
            return;
        };
        if !renewal.is_in_time(now) {
            // Too late: the kernel removes it, if it has not yet, and then the wire is asked.
            held.renewal = None;
            return;
        }
        renewal.is_under_way = true;
        let not_after = renewal.expires;
        let (interface, prefix, addressing) = (wanted.interface, wanted.prefix, wanted.addressing);
        self.act(Action::Add { interface, prefix, addressing: on_kernel(addressing), not_after });
    }

    pub(super) fn on_renewed(&mut self, claim: &mut Claim, result: Result<(), AddFailure>, now: Instant) {
        let lifetime = claim.wanted.as_ref().map(|wanted| wanted.addressing.lifetime);
        let State::Held(Held { renewal: slot @ Some(_), .. }) = &mut claim.state else { return };
        match (result, lifetime) {
            (Ok(()), Some(lifetime)) => *slot = Renewal::new(lifetime, now),
            (Err(AddFailure::Stale), _) => *slot = None,
            _ => {
                *slot = slot.map(|it| Renewal { at: now + RENEW_AGAIN, is_under_way: false, ..it });
            }
        }
    }

    /// Sends the announcement that is due, if any, and plans the next.
    fn announce(&mut self, claim: &mut Claim, now: Instant) {
        let Some(wanted) = &claim.wanted else { return };
        let (interface, announcing) = (wanted.interface, wanted.announcing);
        let is_ours = !announcing.verify_before_send || self.is_elected(claim);
        let is_usable = claim.in_place().is_some_and(Observed::is_usable) && self.is_usable(interface);
        let State::Held(held) = &mut claim.state else { return };
        if held.burst.next.is_none_or(|at| at > now) {
            return;
        }
        if !held.burst.is_reserved {
            let turn = self.pacer.reserve(now);
            held.burst.is_reserved = true;
            held.burst.next = Some(turn);
            if turn > now {
                return;
            }
        }
        // What can't be used yet is announced when it can: the kernel tells.
        if is_usable && is_ours {
            self.actions.push_back(Action::Announce { interface, address: claim.address });
        }
        let jitter = self.random.random_range(0.9..1.1);
        held.burst = after(held.burst, &announcing, jitter, now);
    }

    /// Someone has to be told again, once, that it is here.
    pub(super) fn announce_again(&mut self, claim: &mut Claim, now: Instant) {
        let Some(announcing) = claim.wanted.as_ref().map(|wanted| wanted.announcing) else { return };
        if let State::Held(held) = &mut claim.state
            && announcing.enabled
        {
            held.burst.left = held.burst.left.max(1);
            (held.burst.next, held.burst.is_reserved) = (Some(now), false);
        }
    }

    /// The announcement that was just to be sent was not.
    pub(super) const fn on_not_announced(claim: &mut Claim, again_at: Instant) {
        if let State::Held(held) = &mut claim.state {
            held.burst.left = held.burst.left.saturating_add(1);
            (held.burst.next, held.burst.is_reserved) = (Some(again_at), false);
        }
    }

    /// Members who have come back, or come, are told what is held here: they may hold it, too.
    pub(super) fn greet(&mut self, claim: &mut Claim, back: &[Member], is_heal: bool, now: Instant) {
        let Some(interface) = claim.interface().filter(|_| claim.is_committed()) else { return };
        for member in back {
            self.say(&member.name, interface, Kind::Holding, claim.address);
        }
        if is_heal {
            self.announce_again(claim, now);
        }
    }

    /// All members are told what is held here.
    pub(super) fn introduce(&mut self, claim: &Claim) {
        let Some(interface) = claim.interface() else { return };
        let alive = self.members.values().filter(|member| member.is_alive).map(|member| member.name.clone());
        for name in alive.collect::<Vec<_>>() {
            self.say(&name, interface, Kind::Holding, claim.address);
        }
    }

    /// The link can be used, or cannot.
    pub(super) fn on_carrier(&mut self, claim: &mut Claim, is_usable: bool, now: Instant) {
        if let State::Held(held) = &mut claim.state {
            held.give_up_at = (!is_usable).then_some(now + CARRIER_WAIT);
            if is_usable {
                self.announce_soon(claim, now);
            }
        }
        self.evaluate(claim, now);
    }
}

/// The announcements to come after one.
fn after(burst: Burst, announcing: &Announcing, jitter: f64, now: Instant) -> Burst {
    let (left, pause) = match burst {
        Burst { is_first: true, left, .. } => (left, Some(announcing.initial_delay)),
        Burst { left, .. } => (left.saturating_sub(1), Some(announcing.interval)),
    };
    let pause = match left {
        0 => announcing.refresh.map(|refresh| refresh.max(LEAST_REFRESH).mul_f64(jitter)),
        _ => pause,
    };
    Burst { left, next: pause.map(|pause| now + pause), is_reserved: false, is_first: false }
}
