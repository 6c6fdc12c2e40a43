//! Where one claim stands.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netlink::{Address, Lifetime, Mac};

use crate::claim::Wanted;

/// What is known of one address.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) address: IpAddr,
    /// Whose it is to be; `None`: nobody's any more, or nobody has said yet.
    pub(super) wanted: Option<Wanted>,
    pub(super) state: State,
    /// Where the kernel has it.
    pub(super) observed: Vec<Observed>,
    /// When it has to be looked at; the same moment is among the timers.
    pub(super) due: Option<Instant>,
    /// How often in a row it could not be claimed.
    pub(super) attempts: u32,
    /// The owner has been told that it is held.
    pub(super) is_told: bool,
    /// It was held, someone took it off, and it is on its way back.
    pub(super) is_returning: bool,
    /// When it was last lost so, to slow down a fight.
    pub(super) lost_at: Option<Instant>,
    /// A stranger that answers for it, since when, and whether the owner has been told.
    pub(super) stranger: Option<Stranger>,
    /// How often probes of unknown hosts have made us begin again.
    pub(super) contests: u8,
    /// One of them that is to make way, and to be told so unless somebody answers meanwhile.
    pub(super) contender: Option<Mac>,
    /// A member that has asked for it and did not get it, and when.
    pub(super) asked: Option<(Arc<str>, Instant)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stranger {
    pub(super) mac: Mac,
    /// It is a member that says that it does not hold the address.
    pub(super) is_member: bool,
    pub(super) since: Instant,
    pub(super) is_reported: bool,
}

/// An address as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) interface: u32,
    pub(super) prefix: IpNet,
    /// It has our mark, or we have added it.
    pub(super) is_ours: bool,
    pub(super) is_tentative: bool,
    pub(super) is_duplicate: bool,
    pub(super) lifetime: Lifetime,
}

impl Observed {
    pub(super) fn new(address: &Address, is_ours: bool) -> Observed {
        Observed {
            interface: address.index,
            prefix: address.prefix,
            is_ours: is_ours || address.is_marked(),
            is_tentative: address.flags.is_tentative,
            is_duplicate: address.flags.is_duplicate,
            lifetime: address.lifetime,
        }
    }

    /// Whether it answers on the wire.
    pub(super) const fn is_usable(&self) -> bool {
        !self.is_tentative && !self.is_duplicate
    }
}

#[derive(Debug)]
pub(super) enum State {
    /// Not here and not on its way.
    Idle,
    /// The wire has been asked so many times; what is due is to ask again, or to decide.
    Probing { sent: u8 },
    /// A live member answered and was asked to give it up.
    Requested {
        /// Its name.
        of: Arc<str>,
        /// The number of the request.
        number: u32,
        /// Someone else has answered, too.
        has_others: bool,
    },
    /// Someone else has it, or would like it, or the kernel refused: the wire is asked again when it is due.
    Blocked { by: Blocker },
    /// Decided: the kernel has been told to put it on the interface.
    Adding {
        /// Someone answered after all.
        answered: Option<Mac>,
    },
    /// On the interface.
    Held(Held),
    /// The kernel has been told to take it off these interfaces.
    Removing {
        /// Who waits for it.
        tell: Option<Asker>,
        /// Who then has it; `None`: it is decided anew.
        then: Option<Blocker>,
    },
}

/// A member to which an address is released, and the number of its request; of who has not asked
/// [`crate::claim::message::NO_REQUEST`].
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) name: Arc<str>,
    pub(super) number: u32,
}

/// Who is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blocker {
    /// A member, alive or not.
    Member(Arc<str>),
    /// Who is no member.
    Stranger(Mac),
    /// Nothing at all is heard.
    Silence,
    /// The kernel, or nobody in particular.
    Other,
}

/// What is to be done for an address that is held, and when.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) burst: Burst,
    pub(super) renewal: Option<Renewal>,
    /// Another member that holds it, too.
    pub(super) rival: Option<Rival>,
    /// It was defended against someone who cannot be asked (RFC 5227 §2.4).
    pub(super) defence: Option<Defence>,
    /// The winner that has been told that the address is here.
    pub(super) offered_to: Option<Arc<str>>,
    /// Without carrier until then it is given up.
    pub(super) give_up_at: Option<Instant>,
    /// When the wire is asked once more, and when it was.
    pub(super) ask_at: Option<Instant>,
    pub(super) asked_at: Option<Instant>,
}

/// Against a stranger, or a member that does not live as far as is known here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defence {
    /// When it began.
    pub(super) since: Instant,
    /// When it was last said that the address is here.
    pub(super) said_at: Instant,
}

/// A member that holds what is held here.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    pub(super) name: Arc<str>,
    /// When it was last heard of.
    pub(super) heard_at: Instant,
    /// When it was last told that the address is held here.
    pub(super) told_at: Instant,
}

/// The announcements to come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Burst {
    /// How many of the burst.
    pub(super) left: u8,
    /// When.
    pub(super) next: Option<Instant>,
    /// Whether that moment is the pacer's.
    pub(super) is_reserved: bool,
    /// It has not been announced at all yet.
    pub(super) is_first: bool,
}

/// Lifetimes have to be begun anew in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    pub(super) at: Instant,
    /// When the kernel removes it.
    pub(super) expires: Instant,
    pub(super) valid: Duration,
    /// The kernel has been told, and has not said yet what came of it.
    pub(super) is_under_way: bool,
}

impl Renewal {
    /// As long as that before the end the kernel may already have removed it.
    const MARGIN: Duration = Duration::from_secs(2);

    pub(super) fn new(lifetime: Lifetime, now: Instant) -> Option<Renewal> {
        match lifetime {
            Lifetime::Permanent => None,
            Lifetime::Limited { valid_secs, .. } => {
                let valid = Duration::from_secs(valid_secs.into());
                Some(Renewal { at: now + valid / 2, expires: now + valid, valid, is_under_way: false })
            }
        }
    }

    /// Whether adding it now only begins its lifetime anew. Later it might put back what has expired meanwhile and
    /// has another holder.
    pub(super) fn is_in_time(&self, now: Instant) -> bool {
        now + Renewal::MARGIN.min(self.valid / 4) < self.expires
    }
}

impl Held {
    pub(super) fn new(renewal: Option<Renewal>) -> Held {
        Held {
            burst: Burst::default(),
            renewal,
            rival: None,
            defence: None,
            offered_to: None,
            give_up_at: None,
            ask_at: None,
            asked_at: None,
        }
    }

    /// When the first of its things is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let renewal = self.renewal.filter(|renewal| !renewal.is_under_way).map(|renewal| renewal.at);
        let rival = self.rival.as_ref().map(|rival| rival.told_at + super::RIVAL_INTERVAL);
        [self.burst.next, renewal, rival, self.give_up_at, self.ask_at].into_iter().flatten().min()
    }
}

impl Claim {
    pub(super) const fn new(address: IpAddr) -> Claim {
        Claim {
            address,
            wanted: None,
            state: State::Idle,
            observed: Vec::new(),
            due: None,
            attempts: 0,
            is_told: false,
            is_returning: false,
            lost_at: None,
            stranger: None,
            contests: 0,
            contender: None,
            asked: None,
        }
    }

    /// Nothing is known of it any more.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_none() && self.observed.is_empty() && matches!(self.state, State::Idle)
    }

    /// As the kernel has it where it is wanted.
    pub(super) fn in_place(&self) -> Option<&Observed> {
        let wanted = self.wanted.as_ref()?;
        self.observed.iter().find(|it| it.interface == wanted.interface && it.prefix == wanted.prefix)
    }

    /// The interface that it is spoken for on.
    pub(super) fn interface(&self) -> Option<u32> {
        let of_observed = || self.observed.iter().find(|it| it.is_ours).map(|it| it.interface);
        self.wanted.as_ref().map(|wanted| wanted.interface).or_else(of_observed)
    }

    /// Whether it is on its way or here, so that nobody else may take it.
    pub(super) const fn is_committed(&self) -> bool {
        matches!(self.state, State::Adding { .. } | State::Held(_))
    }
}
