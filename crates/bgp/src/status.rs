//! What a speaker says of its sessions: the source of status objects, metrics and logs.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    bfd,
    config::PeerName,
    types::{Asn, Family, HoldTime, RouterId, Time},
};

/// Every peer, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerStatus {
    /// One entry a configured peer.
    pub peers: Vec<PeerStatus>,
    /// Routes in the Loc-RIB, by family (index: position in [`Family::ALL`]).
    pub loc_rib: [usize; 2],
    /// Why passive peers cannot connect: what the kernel says to our listening.
    pub listen_error: Option<String>,
    /// Why no BFD session can come up: what the kernel says to our receiving.
    pub bfd_error: Option<String>,
}

/// State of the FSM (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the RFC's own names")]
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// NOTIFICATIONs, by error code (RFC 4271 §4.5): how many, on all connections since the peer was set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    /// By us.
    pub sent: BTreeMap<u8, u64>,
    /// By the peer.
    pub received: BTreeMap<u8, u64>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// As configured.
    pub name: PeerName,
    /// As configured.
    pub address: IpAddr,
    /// Our AS.
    pub local_asn: Asn,
    /// Our BGP Identifier on this session.
    pub local_router_id: RouterId,
    /// The peer's AS, as configured or as learnt.
    pub peer_asn: Option<Asn>,
    /// The peer's BGP Identifier, once learnt.
    pub peer_router_id: Option<RouterId>,
    /// The furthest state among the connections of this peer.
    pub state: State,
    /// When `state` was entered.
    pub since: Time,
    /// Families of the session; empty unless Established.
    pub families: Vec<Family>,
    /// Prefixes that the peer has been sent and not withdrawn, by family.
    pub advertised: [usize; 2],
    /// Prefixes that the peer has announced to us on this session, counted and dropped, by family.
    pub received: [usize; 2],
    /// Routes not sent for want of a next hop, by family, with the reason in words where there are any.
    pub unsendable: [usize; 2],
    /// The reason for `unsendable`.
    pub unsendable_reason: Option<String>,
    /// Negotiated hold time.
    pub hold_time: Option<HoldTime>,
    /// Graceful restart was negotiated.
    pub graceful_restart: bool,
    /// State of the BFD session, where there is one.
    pub bfd: Option<bfd::State>,
    /// What keeps it from coming up, where something does.
    pub bfd_obstacle: Option<String>,
    /// End-of-RIB of every family has been handed to the socket.
    pub end_of_rib_sent: bool,
    /// The last error, in words: a NOTIFICATION sent or received, or what TCP said. It stays when the session is
    /// up again, as the reason why it was not.
    pub last_error: Option<String>,
    /// How often an Established session was lost.
    pub flaps: u64,
    /// UPDATE messages sent.
    pub updates_sent: u64,
    /// NOTIFICATIONs of either side.
    pub notifications: Notifications,
}
