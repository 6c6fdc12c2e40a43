//! What others say of an address, on the wire and in messages.

use std::{sync::Arc, time::Instant};

use netlink::{Heard, Kind as HeardKind, Mac};

use super::{
    ASK_WAIT, BACK_OFF, CONTESTS, Context, DEFEND_GRACE, DEFEND_INTERVAL, Kind, RELEASE_WAIT, RIVAL_INTERVAL,
    STRANGER_AFTER, STRANGER_INTERVAL,
    state::{Asker, Blocker, Claim, Defence, Held, Observed, Rival, State, Stranger},
};
use crate::claim::{Action, Elected, Member, Report, message::NO_REQUEST};

impl Context {
    pub(super) fn on_heard(&mut self, claim: &mut Claim, heard: &Heard, now: Instant) {
        match (&mut claim.state, heard.kind) {
            (State::Probing { .. }, HeardKind::Answer | HeardKind::Announcement) => {
                self.on_answer(claim, heard.mac, now);
            }
            (State::Probing { .. } | State::Requested { .. }, HeardKind::Probe) => {
                self.contest(claim, heard.mac, now);
            }
            (State::Requested { of, has_others, .. }, HeardKind::Answer | HeardKind::Announcement) => {
                *has_others |= self.by_mac.get(&heard.mac) != Some(of);
            }
            (State::Adding { answered }, HeardKind::Answer | HeardKind::Announcement) => {
                *answered = Some(heard.mac);
            }
            (State::Adding { .. }, HeardKind::Probe) => self.answer(claim, heard.mac),
            (State::Held(_), HeardKind::Probe) => self.on_probe_for_held(claim, heard.mac, now),
            (State::Held(_), _) => self.on_conflict(claim, heard.mac, now),
            (State::Idle | State::Blocked { .. } | State::Removing { .. }, _) => {}
        }
    }

    /// Someone answered while the wire was asked.
    pub(super) fn on_answer(&mut self, claim: &mut Claim, mac: Mac, now: Instant) {
        match self.member_of(mac) {
            Some(Member { name, is_alive: true, takes_messages: true, .. }) => {
                let name = name.clone();
                self.request(claim, name, now);
            }
            Some(Member { name, is_alive, .. }) => {
                let (by, is_alive) = (Blocker::Member(name.clone()), *is_alive);
                match is_alive {
                    true => self.block_for_a_while(claim, by, now),
                    // It is served. How long it will be is the lifetime's business.
                    false => self.block(claim, by, BACK_OFF.1, now),
                }
            }
            None => self.on_stranger(claim, mac, now),
        }
    }

    /// Asks a member to give it up.
    pub(super) fn request(&mut self, claim: &mut Claim, of: Arc<str>, now: Instant) {
        let Some(interface) = claim.interface() else { return };
        // Asked once more: what it releases because of the first time, which may be on its way, is an answer to both.
        let (number, has_others) = match &claim.state {
            State::Requested { of: before, number, has_others } if *before == of => (*number, *has_others),
            _ => (self.request, false),
        };
        self.say(&of, interface, Kind::Request(number), claim.address);
        claim.state = State::Requested { of, number, has_others };
        claim.due = Some(now + RELEASE_WAIT);
    }

    /// Someone answers who is no member: one who becomes a member in a moment, or a stranger.
    fn on_stranger(&mut self, claim: &mut Claim, mac: Mac, now: Instant) {
        let known = claim.stranger.filter(|stranger| stranger.mac == mac);
        if known.is_none() {
            self.forget_stranger(claim);
        }
        let stranger = known.unwrap_or(Stranger { mac, is_member: false, since: now, is_reported: false });
        self.look_at_stranger(claim, stranger, None, now);
        match claim.stranger.is_some_and(|stranger| stranger.is_reported) {
            true => self.block(claim, Blocker::Stranger(mac), STRANGER_INTERVAL, now),
            false => self.block_for_a_while(claim, Blocker::Stranger(mac), now),
        }
    }

    /// A member does not hold what was asked of it: it has given it up meanwhile, or never had it. One that goes on
    /// answering for it on the wire does so without its agent, as where kube-proxy has put all addresses of Services
    /// on an interface of each node (mode IPVS without strictARP).
    pub(super) fn on_denied(&mut self, claim: &mut Claim, from: &Arc<str>, now: Instant) {
        match &claim.state {
            State::Requested { of, .. } if of == from => {}
            _ => return self.on_released(claim, from, NO_REQUEST, now),
        }
        let mac = self.members.get(from).and_then(|member| member.macs.first().copied());
        // There may be many of them.
        let known = claim.stranger.filter(|stranger| stranger.is_member);
        let (Some(mac), Some(stranger)) = (mac, known) else {
            self.forget_stranger(claim);
            claim.stranger = mac.map(|mac| Stranger { mac, is_member: true, since: now, is_reported: false });
            return self.probe(claim, 0, now);
        };
        self.look_at_stranger(claim, Stranger { mac, ..stranger }, Some(from), now);
        let by = Blocker::Member(from.clone());
        match claim.stranger.is_some_and(|stranger| stranger.is_reported) {
            true => self.block(claim, by, STRANGER_INTERVAL, now),
            false => self.block_for_a_while(claim, by, now),
        }
    }

    /// Reports it once it has answered for long enough.
    fn look_at_stranger(
        &mut self,
        claim: &mut Claim,
        mut stranger: Stranger,
        member: Option<&Arc<str>>,
        now: Instant,
    ) {
        if !stranger.is_reported && now >= stranger.since + STRANGER_AFTER {
            stranger.is_reported = true;
            let report = match member {
                Some(name) => Report::Unheld(claim.address, name.clone()),
                None => Report::Conflict(claim.address, stranger.mac),
            };
            self.act(Action::Report(report));
        }
        claim.stranger = Some(stranger);
    }

    pub(super) fn forget_stranger(&mut self, claim: &mut Claim) {
        if claim.stranger.take().is_some_and(|stranger| stranger.is_reported) {
            self.act(Action::Report(Report::ConflictEnded(claim.address)));
        }
    }

    /// Someone else would like to have it at the same time (RFC 5227 §2.1.1). Of two the one whose link-layer address
    /// comes first goes on and says so, as if it had the address already; the other makes way. A host that is not known as
    /// a member is told when nobody has answered the first question by the time of the second.
    ///
    /// Deviation: a host that is not known as a member makes us begin again a few times, for as many probes as a member
    /// has that is not known yet, but does not keep us from the address by probing alone: switches and monitors probe
    /// for addresses that they do not want. If it takes it, it answers.
    fn contest(&mut self, claim: &mut Claim, mac: Mac, now: Instant) {
        let ours = claim.interface().and_then(|index| self.links.get(&index)).map(|link| link.mac);
        let member = self.member_of(mac).map(|member| member.name.clone());
        if ours.is_some_and(|ours| ours < mac) {
            match (&claim.state, member) {
                // A client, maybe, and a holder's answer to both is on its way.
                (State::Probing { sent: 0..2 }, None) => claim.contender = Some(mac),
                // The holder answers it.
                (State::Requested { .. }, None) => {}
                _ => self.answer(claim, mac),
            }
            return;
        }
        match member {
            Some(name) => self.block_for_a_while(claim, Blocker::Member(name), now),
            None if claim.contests < CONTESTS && matches!(claim.state, State::Probing { .. }) => {
                claim.contests += 1;
                self.probe(claim, 0, now);
            }
            None => {}
        }
    }

    pub(super) fn answer(&mut self, claim: &Claim, to: Mac) {
        if let Some(interface) = claim.interface() {
            self.act(Action::Answer { interface, address: claim.address, to });
        }
    }

    /// The kernel answers, unless it cannot yet.
    fn on_probe_for_held(&mut self, claim: &mut Claim, mac: Mac, now: Instant) {
        let prober = self.member_of(mac).map(|member| (member.name.clone(), member.takes_messages));
        if !claim.observed.iter().any(Observed::is_usable) {
            self.answer(claim, mac);
        }
        // Who cannot send a request asks so.
        if let Some((name, false)) = prober {
            self.on_request(claim, &name, NO_REQUEST, now);
        }
    }

    /// A member asks for it.
    pub(super) fn on_request(&mut self, claim: &mut Claim, from: &Arc<str>, number: u32, now: Instant) {
        let asker = Asker { name: from.clone(), number };
        let is_given = !self.is_elected(claim);
        match &mut claim.state {
            State::Held(_) if is_given => self.remove(claim, Some(asker), None),
            State::Held(_) | State::Adding { .. } => claim.asked = Some((from.clone(), now)),
            State::Removing { tell, .. } => {
                if tell.as_ref().is_none_or(|tell| tell.name == *from) {
                    *tell = Some(asker);
                }
            }
            _ if claim.observed.iter().any(|it| it.is_ours) => {}
            _ => {
                if let Some(interface) = claim.interface() {
                    self.say(from, interface, Kind::Released(NO_REQUEST), claim.address);
                }
            }
        }
    }

    /// A member holds it no more, because we have asked by the request of this number.
    pub(super) fn on_released(&mut self, claim: &mut Claim, from: &Arc<str>, number: u32, now: Instant) {
        match &mut claim.state {
            State::Requested { of, number: asked, has_others } if of == from && *asked == number => {
                // What was said while this process stood still may have another holder by now.
                let is_late = claim.due.is_none_or(|due| due < now);
                match *has_others || is_late {
                    true => self.probe(claim, 0, now),
                    false => self.add(claim, now),
                }
            }
            State::Blocked { by: Blocker::Member(name) } if name == from => {
                claim.state = State::Idle;
                self.evaluate(claim, now);
            }
            State::Held(Held { rival: rival @ Some(_), .. }) => {
                let is_rival = rival.take_if(|rival| rival.name == *from).is_some();
                // Some have heard the other one last.
                is_rival.then(|| self.announce_soon(claim, now));
            }
            _ => {}
        }
    }

    /// A member holds it. If we do, too, one of us is wrong.
    pub(super) fn on_holding(&mut self, claim: &mut Claim, from: &Arc<str>, now: Instant) {
        let is_known = self.members.contains_key(from);
        match &mut claim.state {
            State::Held(_) if is_known => {
                self.hear_of(claim, from, now);
                self.resolve(claim, from, now);
            }
            // It did not give it up; now it may.
            State::Blocked { by: Blocker::Member(name) } | State::Requested { of: name, .. }
                if name == from =>
            {
                self.request(claim, from.clone(), now);
            }
            State::Requested { has_others, .. } => *has_others = true,
            // Its answer is on the way, or lost.
            State::Probing { .. } if is_known => self.request(claim, from.clone(), now),
            State::Adding { .. } => {
                let mac = self.members.get(from).and_then(|member| member.macs.first().copied());
                if let (State::Adding { answered }, Some(mac)) = (&mut claim.state, mac) {
                    *answered = Some(mac);
                }
            }
            _ => {}
        }
    }

    /// Remembers that a member holds it, too.
    fn hear_of(&self, claim: &mut Claim, name: &Arc<str>, now: Instant) {
        if let State::Held(held) = &mut claim.state {
            let known = held.rival.take().filter(|rival| rival.name == *name);
            // Not told yet.
            let told_at = known.map_or(now - RIVAL_INTERVAL, |rival| rival.told_at);
            held.rival = Some(Rival { name: name.clone(), heard_at: now, told_at });
        }
    }

    /// Another answers for an address that is held here.
    pub(super) fn on_conflict(&mut self, claim: &mut Claim, mac: Mac, now: Instant) {
        let State::Held(held) = &claim.state else { return };
        let was_asked = held.asked_at.is_some_and(|at| now < at + ASK_WAIT);
        match self.member_of(mac).map(|member| (member.name.clone(), member.is_alive)) {
            Some((name, true)) => {
                self.hear_of(claim, &name, now);
                self.resolve(claim, &name, now);
            }
            // It had the address already when it was asked.
            Some((name, false)) if was_asked => self.remove(claim, None, Some(Blocker::Member(name))),
            None if was_asked => self.remove(claim, None, Some(Blocker::Other)),
            Some((name, false)) => self.defend(claim, Blocker::Member(name), now),
            None => self.defend(claim, Blocker::Stranger(mac), now),
        }
    }

    /// RFC 5227 §2.4 (b): said once that the address is here; who insists within ten seconds has it.
    ///
    /// Deviation: insisting begins a second after that. Both frames of one announcement are one word, and members that
    /// do not know each other yet do so by then. A member that does not live for us, as after a partition until
    /// heartbeats are heard again, is told again and again, and of the two the one whose name comes later gives up.
    fn defend(&mut self, claim: &mut Claim, against: Blocker, now: Instant) {
        let State::Held(held) = &mut claim.state else { return };
        let Some(defence) = held.defence.filter(|it| now < it.since + DEFEND_INTERVAL) else {
            held.defence = Some(Defence { since: now, said_at: now });
            return self.announce_again(claim, now);
        };
        let does_insist = now >= defence.since + DEFEND_GRACE;
        match &against {
            Blocker::Member(name) if !does_insist || self.name < *name => {
                if now >= defence.said_at + RIVAL_INTERVAL {
                    held.defence = Some(Defence { said_at: now, ..defence });
                    self.announce_again(claim, now);
                }
            }
            _ if !does_insist => {}
            _ => self.yield_to(claim, against, now),
        }
    }

    fn yield_to(&mut self, claim: &mut Claim, other: Blocker, now: Instant) {
        tracing::warn!(address = %claim.address, by = ?other, "given up: another answers for it and insists");
        if let Blocker::Stranger(mac) = other {
            claim.stranger = Some(Stranger { mac, is_member: false, since: now, is_reported: true });
            self.act(Action::Report(Report::Conflict(claim.address, mac)));
        }
        self.remove(claim, None, Some(other));
    }

    /// This node and a member hold the same: the election's winner keeps it, or, if it is neither, the one whose name
    /// comes first; a node that leaves never. Said again and again until the other gives it up or the election is another.
    pub(super) fn resolve(&mut self, claim: &mut Claim, rival: &Arc<str>, now: Instant) {
        let is_kept = match claim.wanted.as_ref().map(|wanted| &wanted.elected) {
            // Who leaves has nothing to keep.
            _ if self.leave_at.is_some() => false,
            Some(Elected::Us) => true,
            Some(Elected::Other(winner)) if winner == rival => false,
            _ => self.name < *rival,
        };
        if !is_kept {
            let tell = Asker { name: rival.clone(), number: NO_REQUEST };
            return self.remove(claim, Some(tell), None);
        }
        let address = claim.address;
        let Some(interface) = claim.interface() else { return };
        let State::Held(Held { rival: Some(known), .. }) = &mut claim.state else { return };
        if known.told_at + RIVAL_INTERVAL <= now {
            known.told_at = now;
            self.say(rival, interface, Kind::Holding, address);
            self.announce_again(claim, now);
        }
    }
}
