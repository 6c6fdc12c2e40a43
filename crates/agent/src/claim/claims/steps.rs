//! From one state to the next: what is wanted against what is, probing, adding, removing.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use ipnet::IpNet;
use netlink::{Address, Addressing, Lifetime, Mac};

use super::{
    ADD_WITHIN, ADOPTED_FOR, ASK_AGAIN, ASKED, BACK_OFF, CARRIER_WAIT, Context, FIGHT, Kind, LATE,
    PROBE_INTERVAL, PROBE_WAIT, PROBES, STRANGER_INTERVAL,
    state::{Asker, Blocker, Burst, Claim, Held, Observed, Renewal, State},
};
use crate::claim::{Action, Elected, Wanted, action::AddFailure};

impl Context {
    /// The owner says whose it is to be.
    pub(super) fn on_wanted(&mut self, claim: &mut Claim, wanted: Option<Wanted>, now: Instant) {
        let place = |wanted: &Option<Wanted>| wanted.as_ref().map(|it| (it.interface, it.prefix));
        let is_moved = place(&claim.wanted) != place(&wanted);
        let is_other_way =
            claim.wanted.as_ref().map(|it| it.addressing) != wanted.as_ref().map(|it| it.addressing);
        claim.wanted = wanted;
        match &mut claim.state {
            State::Probing { .. } | State::Requested { .. } | State::Blocked { .. } if is_moved => {
                self.rest(claim, now);
            }
            State::Held(held) if is_other_way && !is_moved => {
                let valid = ADOPTED_FOR;
                let renewal = held.renewal.unwrap_or(Renewal {
                    at: now,
                    expires: now + valid,
                    valid,
                    is_under_way: false,
                });
                held.renewal = Some(Renewal { at: now, ..renewal });
            }
            _ => {}
        }
        self.evaluate(claim, now);
    }

    /// Brings the claim to where it should be; idempotent.
    pub(super) fn evaluate(&mut self, claim: &mut Claim, now: Instant) {
        match &claim.state {
            // Something is under way; what comes of it is evaluated.
            State::Adding { .. } | State::Removing { .. } => {}
            State::Idle => self.evaluate_idle(claim, now),
            State::Probing { .. } | State::Requested { .. } | State::Blocked { .. } => {
                let interface = claim.wanted.as_ref().map(|wanted| wanted.interface);
                if !self.is_elected(claim) || !interface.is_some_and(|index| self.is_usable(index)) {
                    self.rest(claim, now);
                } else if claim.observed.iter().any(|it| it.is_ours) {
                    claim.state = State::Idle;
                    self.evaluate_idle(claim, now);
                }
            }
            State::Held(_) => self.evaluate_held(claim, now),
        }
    }

    /// Claims nothing for the time being.
    fn rest(&mut self, claim: &mut Claim, now: Instant) {
        claim.state = State::Idle;
        (claim.due, claim.attempts, claim.is_returning) = (None, 0, false);
        (claim.contests, claim.contender) = (0, None);
        self.forget_stranger(claim);
        self.evaluate_idle(claim, now);
    }

    fn evaluate_idle(&mut self, claim: &mut Claim, now: Instant) {
        let Some(wanted) = &claim.wanted else {
            if self.is_complete && claim.observed.iter().any(|it| it.is_ours) {
                self.remove(claim, None, None);
            }
            return;
        };
        let (interface, is_elected) = (wanted.interface, self.is_elected(claim));
        let misplaced =
            |it: &Observed| it.is_ours && (it.interface, it.prefix) != (wanted.interface, wanted.prefix);
        if claim.observed.iter().any(misplaced) {
            self.remove(claim, None, None);
        } else if claim.in_place().is_some_and(|it| it.is_ours) {
            self.adopt(claim, now);
        } else if !claim.observed.is_empty() {
            // Someone else has put it on an interface of this node: not ours to touch.
            claim.due = None;
        } else if is_elected && self.is_usable(interface) {
            self.probe(claim, 0, now);
        }
    }

    /// It is on the interface already, from before.
    fn adopt(&mut self, claim: &mut Claim, now: Instant) {
        let lifetime = claim.in_place().map(|it| it.lifetime);
        let full = claim.wanted.as_ref().and_then(|wanted| Renewal::new(wanted.addressing.lifetime, now));
        // What is left of its life is the kernel's word; it is renewed at once.
        let left = lifetime.and_then(|lifetime| Renewal::new(lifetime, now));
        let expires = left.map_or(now + ADOPTED_FOR, |left| left.expires);
        let renewal = full.or(left).map(|renewal| Renewal { at: now, expires, ..renewal });
        let is_usable = claim.interface().is_some_and(|index| self.is_usable(index));
        let give_up_at = (!is_usable).then_some(now + CARRIER_WAIT);
        claim.state = State::Held(Held { give_up_at, ask_at: ask_at(claim, now), ..Held::new(renewal) });
        claim.attempts = 0;
        self.announce_soon(claim, now);
        self.introduce(claim);
    }

    fn evaluate_held(&mut self, claim: &mut Claim, now: Instant) {
        let Some(wanted) = &claim.wanted else { return self.remove(claim, None, None) };
        if claim.in_place().is_none() {
            return match claim.observed.iter().any(|it| it.is_ours) {
                true => self.remove(claim, None, None),
                false => self.on_lost(claim, now),
            };
        }
        if self.leave_at.is_some_and(|at| at <= now) {
            return self.remove(claim, None, None);
        }
        if let Elected::Other(winner) = &wanted.elected
            && self.members.get(winner).is_some_and(|it| it.is_alive && !it.takes_messages)
        {
            // It can't ask, nor be told.
            return self.remove(claim, None, None);
        }
        self.offer(claim);
        self.invite(claim, now);
        let rival = match &claim.state {
            State::Held(Held { rival: Some(rival), .. }) => Some(rival.name.clone()),
            _ => None,
        };
        if let Some(rival) = rival {
            self.resolve(claim, &rival, now);
        }
    }

    /// Who is to hold it is told once that it is here: it may have it, too, and neither has heard the other's frames.
    fn offer(&mut self, claim: &mut Claim) {
        let Some(wanted) = &claim.wanted else { return };
        let State::Held(held) = &mut claim.state else { return };
        let Elected::Other(winner) = &wanted.elected else {
            held.offered_to = None;
            return;
        };
        let takes_messages = self.members.get(winner).is_some_and(|member| member.takes_messages);
        if takes_messages && held.offered_to.as_ref() != Some(winner) {
            held.offered_to = Some(winner.clone());
            let (winner, interface) = (winner.clone(), wanted.interface);
            self.say(&winner, interface, Kind::Holding, claim.address);
        }
    }

    /// Who has asked for it in vain may have it now: it is told to ask again, and meanwhile the address stays.
    fn invite(&mut self, claim: &mut Claim, now: Instant) {
        if self.is_elected(claim) {
            return;
        }
        let (Some((name, at)), Some(interface)) = (claim.asked.take(), claim.interface()) else { return };
        if now < at + ASKED {
            self.say(&name, interface, Kind::Holding, claim.address);
        }
    }

    /// Asks the wire for the address.
    pub(super) fn probe(&mut self, claim: &mut Claim, sent: u8, now: Instant) {
        let Some(wanted) = &claim.wanted else { return };
        self.act(Action::Probe { interface: wanted.interface, address: claim.address });
        if let Some(contender) = claim.contender.take_if(|_| sent > 0) {
            self.answer(claim, contender);
        }
        claim.state = State::Probing { sent: sent + 1 };
        claim.due = Some(now + if sent + 1 < PROBES { PROBE_INTERVAL } else { PROBE_WAIT });
    }

    pub(super) fn on_not_sent(&mut self, claim: &mut Claim, now: Instant) {
        if matches!(claim.state, State::Probing { .. }) {
            self.block_for_a_while(claim, Blocker::Other, now);
        }
    }

    /// What is due since `at`.
    pub(super) fn on_due(&mut self, claim: &mut Claim, at: Instant, now: Instant) {
        match &claim.state {
            State::Probing { .. } if now >= at + LATE => self.probe(claim, 0, now),
            State::Probing { sent } if *sent < PROBES => self.probe(claim, *sent, now),
            State::Probing { .. } if self.hears_nothing(claim) => {
                if claim.attempts == 0 {
                    tracing::info!(address = %claim.address, "not claimed: nothing is heard on the link");
                }
                self.block_for_a_while(claim, Blocker::Silence, now);
            }
            State::Probing { .. } => self.add(claim, now),
            State::Requested { of, .. } => {
                let by = Blocker::Member(of.clone());
                self.block_for_a_while(claim, by, now);
            }
            State::Blocked { .. } => {
                claim.state = State::Idle;
                self.evaluate_idle(claim, now);
            }
            State::Removing { .. } => self.remove_again(claim),
            State::Held(_) => self.on_held_due(claim, now),
            State::Idle | State::Adding { .. } => {}
        }
    }

    /// Whether silence on the wire says nothing. What was held here a moment ago comes back all the same.
    fn hears_nothing(&self, claim: &Claim) -> bool {
        !claim.is_returning && claim.interface().is_some_and(|index| self.silent.contains(&index))
    }

    pub(super) fn on_silence_over(&mut self, claim: &mut Claim, interface: u32, now: Instant) {
        if matches!(claim.state, State::Blocked { by: Blocker::Silence })
            && claim.interface() == Some(interface)
        {
            self.rest(claim, now);
        }
    }

    /// Nobody has it: it is ours.
    pub(super) fn add(&mut self, claim: &mut Claim, now: Instant) {
        let Some(wanted) = &claim.wanted else { return };
        let (interface, prefix, addressing) = (wanted.interface, wanted.prefix, wanted.addressing);
        self.act(Action::Add {
            interface,
            prefix,
            addressing: on_kernel(addressing),
            not_after: now + ADD_WITHIN,
        });
        claim.state = State::Adding { answered: None };
        claim.due = None;
        self.forget_stranger(claim);
    }

    /// What came of adding it in this place.
    pub(super) fn on_added(
        &mut self,
        claim: &mut Claim,
        place: (u32, IpNet),
        result: Result<(), AddFailure>,
        now: Instant,
    ) {
        match &claim.state {
            State::Adding { answered } => {
                let answered = *answered;
                claim.state = State::Idle;
                match result {
                    Ok(()) => self.hold(claim, place, answered, now),
                    Err(AddFailure::Stale) => self.evaluate(claim, now),
                    Err(AddFailure::Refused) => self.block_for_a_while(claim, Blocker::Other, now),
                }
            }
            State::Held(_) => self.on_renewed(claim, result, now),
            _ if result.is_ok() => self.evaluate(claim, now),
            _ => {}
        }
    }

    /// It is on the interface now.
    fn hold(
        &mut self,
        claim: &mut Claim,
        (interface, prefix): (u32, IpNet),
        answered: Option<Mac>,
        now: Instant,
    ) {
        let addressing = claim.wanted.as_ref().map(|wanted| wanted.addressing);
        let lifetime = addressing.map_or(Lifetime::Permanent, |addressing| addressing.lifetime);
        let known = claim.observed.iter_mut().find(|it| (it.interface, it.prefix) == (interface, prefix));
        match known {
            Some(known) => known.is_ours = true,
            None => claim.observed.push(Observed {
                interface,
                prefix,
                is_ours: true,
                // If it is after all, the kernel says so.
                is_tentative: false,
                is_duplicate: false,
                lifetime,
            }),
        }
        claim.state =
            State::Held(Held { ask_at: ask_at(claim, now), ..Held::new(Renewal::new(lifetime, now)) });
        (claim.attempts, claim.is_returning, claim.contests) = (0, false, 0);
        self.announce_soon(claim, now);
        match answered.map(|mac| self.member_of(mac).map(|member| (member.name.clone(), member.is_alive))) {
            None => self.evaluate(claim, now),
            Some(Some((_, true))) => {
                answered.into_iter().for_each(|mac| self.on_conflict(claim, mac, now));
                self.evaluate(claim, now);
            }
            // Whoever it is had it before, and cannot be asked.
            Some(Some((name, false))) => self.remove(claim, None, Some(Blocker::Member(name))),
            Some(None) => self.remove(claim, None, Some(Blocker::Other)),
        }
    }

    /// Takes it off every interface that has it from us, and then tells `tell`.
    pub(super) fn remove(&mut self, claim: &mut Claim, tell: Option<Asker>, then: Option<Blocker>) {
        for it in claim.observed.iter().filter(|it| it.is_ours) {
            self.actions.push_back(Action::Remove { interface: it.interface, prefix: it.prefix });
        }
        claim.state = State::Removing { tell, then };
        (claim.due, claim.asked) = (None, None);
    }

    fn remove_again(&mut self, claim: &Claim) {
        for it in claim.observed.iter().filter(|it| it.is_ours) {
            self.actions.push_back(Action::Remove { interface: it.interface, prefix: it.prefix });
        }
    }

    pub(super) fn on_removed(
        &mut self,
        claim: &mut Claim,
        interface: u32,
        prefix: IpNet,
        is_done: bool,
        now: Instant,
    ) {
        if is_done {
            claim.observed.retain(|it| (it.interface, it.prefix) != (interface, prefix));
        } else if matches!(claim.state, State::Removing { .. }) {
            claim.attempts = claim.attempts.saturating_add(1);
            claim.due = Some(now + self.back_off(claim.attempts));
        }
        self.on_lost(claim, now);
    }

    /// The kernel has it on one interface less.
    pub(super) fn on_lost(&mut self, claim: &mut Claim, now: Instant) {
        if claim.observed.iter().any(|it| it.is_ours) {
            return;
        }
        match &mut claim.state {
            State::Removing { tell, then } => {
                let (tell, then) = (tell.take(), then.take());
                (claim.state, claim.due) = (State::Idle, None);
                if let (Some(to), Some(interface)) = (tell, claim.interface()) {
                    self.say(&to.name, interface, Kind::Released(to.number), claim.address);
                }
                match then {
                    Some(by @ Blocker::Stranger(_)) if self.is_elected(claim) => {
                        self.block(claim, by, STRANGER_INTERVAL, now);
                    }
                    Some(by) if self.is_elected(claim) => self.block(claim, by, BACK_OFF.1, now),
                    _ => self.rest(claim, now),
                }
            }
            State::Held(_) => {
                claim.state = State::Idle;
                claim.due = None;
                let is_fight = claim.lost_at.is_some_and(|at| now < at + FIGHT);
                claim.lost_at = Some(now);
                claim.is_returning = true;
                claim.attempts = if is_fight { claim.attempts.saturating_add(1) } else { 0 };
                match is_fight && self.is_elected(claim) {
                    true => self.block_for_a_while(claim, Blocker::Other, now),
                    // Asked for first: it may have expired while this process stood still, and be another's.
                    false => self.evaluate(claim, now),
                }
            }
            _ => self.evaluate(claim, now),
        }
    }

    /// The kernel has it, or has changed its mind about it.
    pub(super) fn on_observed(&mut self, claim: &mut Claim, address: &Address, now: Instant) {
        let place = claim.wanted.as_ref().map(|wanted| (wanted.interface, wanted.prefix));
        let is_adding =
            matches!(claim.state, State::Adding { .. }) && place == Some((address.index, address.prefix));
        let known =
            claim.observed.iter().position(|it| (it.interface, it.prefix) == (address.index, address.prefix));
        let was_ours = known.and_then(|at| claim.observed.get(at)).is_some_and(|it| it.is_ours);
        let observed = Observed::new(address, was_ours || is_adding);
        let was_usable = claim.in_place().is_some_and(Observed::is_usable);
        match known.and_then(|at| claim.observed.get_mut(at)) {
            Some(known) => *known = observed,
            None => claim.observed.push(observed),
        }
        if matches!(claim.state, State::Held(_)) {
            match claim.in_place() {
                // RFC 4862 §5.4.5: someone else has it.
                Some(it) if it.is_duplicate && it.is_ours => {
                    return self.remove(claim, None, Some(Blocker::Other));
                }
                Some(it) if it.is_usable() && !was_usable => self.announce_soon(claim, now),
                _ => {}
            }
        }
        self.evaluate(claim, now);
    }

    /// Whether it matters to the claim that these members are others than before.
    pub(super) fn is_concerned(&self, claim: &Claim, changed: &BTreeSet<Arc<str>>) -> bool {
        let is_to_hold = match claim.wanted.as_ref().map(|wanted| &wanted.elected) {
            Some(Elected::Other(winner)) => changed.contains(winner),
            _ => false,
        };
        is_to_hold
            || match &claim.state {
                State::Blocked { by: Blocker::Member(name) } | State::Requested { of: name, .. } => {
                    changed.contains(name)
                }
                State::Blocked { by: Blocker::Stranger(mac) } => self.member_of(*mac).is_some(),
                State::Held(held) => held.rival.as_ref().is_some_and(|rival| changed.contains(&rival.name)),
                _ => false,
            }
    }

    /// Who lives, or who is who, is another matter than before for these members.
    pub(super) fn on_members(&mut self, claim: &mut Claim, changed: &BTreeSet<Arc<str>>, now: Instant) {
        let in_the_way = match &claim.state {
            State::Blocked { by: Blocker::Member(name) } => changed.contains(name),
            State::Requested { of, .. } => !self.members.get(of).is_some_and(|member| member.takes_messages),
            State::Blocked { by: Blocker::Stranger(mac) } => self.member_of(*mac).is_some(),
            _ => false,
        };
        if in_the_way {
            claim.attempts = 0;
            self.rest(claim, now);
        }
        if let State::Held(held) = &mut claim.state {
            held.rival.take_if(|rival| self.members.get(&rival.name).is_none_or(|member| !member.is_alive));
        }
        self.evaluate(claim, now);
    }

    /// The first announcement is sent at once, the burst of the configuration follows.
    pub(super) fn announce_soon(&mut self, claim: &mut Claim, now: Instant) {
        let announcing = claim.wanted.as_ref().map(|wanted| wanted.announcing);
        if let (State::Held(held), Some(announcing)) = (&mut claim.state, announcing) {
            let burst = Burst { left: announcing.count, next: Some(now), is_reserved: true, is_first: true };
            held.burst = if announcing.enabled { burst } else { Burst::default() };
        }
    }
}

/// The wire has been asked already, and will be once more: the kernel need not do it before the address can be used.
pub(super) const fn on_kernel(addressing: Addressing) -> Addressing {
    Addressing { no_dad: true, ..addressing }
}

/// When the wire is asked once more for an address that is here.
fn ask_at(claim: &Claim, now: Instant) -> Option<Instant> {
    claim.wanted.as_ref().filter(|wanted| !wanted.addressing.no_dad).map(|_| now + ASK_AGAIN)
}
