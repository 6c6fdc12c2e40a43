//! What claims want done. Executed in order; what comes of adding and removing is told back.

use std::{net::IpAddr, sync::Arc, time::Instant};

use ipnet::IpNet;
use netlink::{Addressing, Mac};

use super::{Message, Report};

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the wire who has the address.
    Probe {
        /// On this interface.
        interface: u32,
        /// The address.
        address: IpAddr,
    },
    /// Answer a probe for an address that is on its way here.
    Answer {
        /// On this interface.
        interface: u32,
        /// The address.
        address: IpAddr,
        /// Who asked.
        to: Mac,
    },
    /// Say to all that the address is here.
    Announce {
        /// On this interface.
        interface: u32,
        /// The address.
        address: IpAddr,
    },
    /// Put the address on the interface, or begin its lifetime anew; [`super::Claims::on_added`] is told.
    Add {
        /// The interface.
        interface: u32,
        /// The address with its prefix length.
        prefix: IpNet,
        /// Flags and lifetime.
        addressing: Addressing,
        /// What the decision rests on is true no longer than that: later it is not to be executed.
        not_after: Instant,
    },
    /// Take the address off the interface; [`super::Claims::on_removed`] is told.
    Remove {
        /// The interface.
        interface: u32,
        /// The address with its prefix length.
        prefix: IpNet,
    },
    /// Say something to a member.
    Send {
        /// Its name.
        to: Arc<str>,
        /// The interface on whose subnet the addresses are.
        interface: u32,
        /// What.
        message: Message,
    },
    /// Tell the owner of the claims.
    Report(Report),
}

/// Why an address was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddFailure {
    /// The decision was too old when its turn came.
    Stale,
    /// The kernel refused.
    Refused,
}
