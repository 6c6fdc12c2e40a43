//! What a speaker is told: itself and its peers. Values only; `driver` takes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::{
    bfd,
    md5::Md5Key,
    route::ExportPolicy,
    types::{Asn, Family, HoldTime, LongLivedStaleTime, RestartTime, RouterId},
};

/// The speaker as a whole.
#[derive(Clone, Debug)]
pub struct SpeakerConfig {
    /// Where to listen. Empty: nowhere unless a peer is `passive` or `listen_always` says so, then on `listen_port` of
    /// every address.
    pub listen: Vec<SocketAddr>,
    /// The port to listen on when `listen` is empty.
    pub listen_port: u16,
    /// Listens without a passive peer, too: for routers that connect themselves, whoever is first. A port that cannot
    /// be had is tried again and again, and the status says why.
    pub listen_always: bool,
    /// Seed of all jitter.
    pub seed: u64,
    /// For a program that has to load its routes first, and whose routers must not take what there is before for the
    /// whole: no End-of-RIB before the first `replace_all`, but no longer than so long after there are peers
    /// (Selection_Deferral_Timer, RFC 4724 §4.1). Routes that are announced meanwhile are told at once.
    pub await_routes: Option<Duration>,
}

impl Default for SpeakerConfig {
    /// Dials only, listens on port 179 where a peer is passive, and waits for nothing.
    fn default() -> SpeakerConfig {
        SpeakerConfig {
            listen: Vec::new(),
            listen_port: 179,
            listen_always: false,
            seed: 0,
            await_routes: None,
        }
    }
}

/// Name of a peer, unique in a speaker: what status and logs call it.
pub type PeerName = std::sync::Arc<str>;

/// One peer. Two configurations that are equal never touch a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Unique name.
    pub name: PeerName,
    /// Address; with `scope` where it is link-local.
    pub address: IpAddr,
    /// Interface index of a link-local address, else 0.
    pub scope: u32,
    /// TCP port to dial.
    pub port: u16,
    /// Address to dial from; `None` leaves it to the kernel.
    pub source_address: Option<IpAddr>,
    /// Our BGP Identifier on this session.
    pub router_id: RouterId,
    /// Our AS.
    pub local_asn: Asn,
    /// The peer's AS.
    pub peer_asn: PeerAsn,
    /// Hold Time to propose.
    pub hold_time: HoldTime,
    /// KEEPALIVE interval; `None`: a third of the negotiated hold time. Never more than that third.
    pub keepalive_time: Option<Duration>,
    /// ConnectRetryTime.
    pub connect_retry_time: Duration,
    /// Never dial.
    pub passive: bool,
    /// Families to offer, in the order of [`Family::ALL`], never empty.
    pub families: Vec<Family>,
    /// How far away the peer is.
    pub hops: Hops,
    /// Own addresses to use as next hop for the family that the session itself does not run over.
    pub next_hops: OwnNextHops,
    /// What is offered of graceful restart; `None`: nothing. A change counts from the next session, because
    /// ending one for it would cost what it is to save.
    pub graceful_restart: Option<GracefulRestartConfig>,
    /// Our role towards a peer in another AS; `None`: none is said. Towards one in our own it means nothing.
    pub role: Option<RoleConfig>,
    /// Routes go out as those of a speaker that is about to leave (RFC 8326): with GRACEFUL_SHUTDOWN, on iBGP with
    /// LOCAL_PREF 0. Changing it does not reset the session.
    pub graceful_shutdown: bool,
    /// Key of the TCP MD5 signatures (RFC 2385); `None`: unsigned. Another one is another session.
    pub md5_key: Option<Md5Key>,
    /// Watch the path with BFD; `None`: do not. Changing it does not reset the session.
    pub bfd: Option<bfd::Config>,
    /// Which routes go to this peer, and with what. Changing it does not reset the session.
    pub export: ExportPolicy,
}

impl PeerConfig {
    /// A peer with everything that has a default at its default: port 179, both families, hold time 90 s,
    /// ConnectRetryTime 120 s (RFC 4271 §10), no graceful restart, every route.
    pub fn new(
        name: impl Into<PeerName>,
        address: IpAddr,
        router_id: RouterId,
        local_asn: Asn,
        peer_asn: PeerAsn,
    ) -> PeerConfig {
        PeerConfig {
            name: name.into(),
            address,
            scope: 0,
            port: 179,
            source_address: None,
            router_id,
            local_asn,
            peer_asn,
            hold_time: HoldTime::DEFAULT,
            keepalive_time: None,
            connect_retry_time: Duration::from_secs(120),
            passive: false,
            families: Family::ALL.to_vec(),
            hops: Hops::Default,
            next_hops: OwnNextHops::default(),
            graceful_restart: None,
            role: None,
            graceful_shutdown: false,
            md5_key: None,
            bfd: None,
            export: ExportPolicy::All,
        }
    }

    /// Whether these can be the peers of one speaker.
    pub fn check_set(peers: &[PeerConfig]) -> Result<(), PeerSetError> {
        let mut names = BTreeSet::new();
        let mut addresses = BTreeMap::new();
        for peer in peers {
            if !names.insert(&peer.name) {
                return Err(PeerSetError::Name(PeerName::clone(&peer.name)));
            }
            if peer.families.is_empty() {
                return Err(PeerSetError::Families(PeerName::clone(&peer.name)));
            }
            let address = peer.address.to_canonical();
            if let Some(first) = addresses.insert((address, peer.scope), &peer.name) {
                let (first, second) = (PeerName::clone(first), PeerName::clone(&peer.name));
                return Err(PeerSetError::Address { first, second, address });
            }
        }
        for (index, second) in peers.iter().enumerate() {
            let others = peers.get(..index).unwrap_or_default();
            if let Some(first) = others.iter().find(|first| first.contradicts_key_of(second)) {
                let address = second.address;
                let (first, second) = (PeerName::clone(&first.name), PeerName::clone(&second.name));
                return Err(PeerSetError::Md5Key { first, second, address });
            }
        }
        Ok(())
    }

    /// Whether the kernel cannot tell which of both signs how: it knows keys by address, and link-local addresses of
    /// several interfaces apart by VRF only (`TCP_MD5SIG_FLAG_IFINDEX`).
    pub fn contradicts_key_of(&self, other: &PeerConfig) -> bool {
        self.address.to_canonical() == other.address.to_canonical() && self.md5_key != other.md5_key
    }

    /// Whether a session under this configuration cannot go on under the other. The hold time counts from the next
    /// session and the keepalive time from the next KEEPALIVE; what is exported, and whether we dial, change under the
    /// session.
    pub fn needs_reset(&self, other: &PeerConfig) -> bool {
        let kept = PeerConfig {
            hold_time: other.hold_time,
            keepalive_time: other.keepalive_time,
            connect_retry_time: other.connect_retry_time,
            passive: other.passive,
            next_hops: other.next_hops,
            graceful_restart: other.graceful_restart,
            graceful_shutdown: other.graceful_shutdown,
            bfd: other.bfd.clone(),
            export: other.export.clone(),
            ..self.clone()
        };
        kept != *other
    }

    /// Whether a connection from there is this peer's. Link-local addresses are compared with their zone.
    pub(crate) fn is_at(&self, from: SocketAddr) -> bool {
        let scope = match from {
            SocketAddr::V6(from) if from.ip().is_unicast_link_local() => from.scope_id(),
            _ => self.scope,
        };
        self.address.to_canonical() == from.ip().to_canonical() && self.scope == scope
    }

    /// That nothing answers, in words.
    pub(crate) fn silence(&self, waited: Duration) -> String {
        let secs = waited.as_secs_f64();
        let hint = match self.md5_key {
            Some(_) => {
                ", which is also what a router looks like whose TCP MD5 password is another one or none"
            }
            None => "",
        };
        format!("no answer within {secs:.0} s{hint}")
    }

    /// What BFD is to watch for this peer.
    pub(crate) fn bfd_target(&self) -> Option<bfd::Target> {
        Some(bfd::Target {
            name: PeerName::clone(&self.name),
            address: self.address,
            scope: self.scope,
            source_address: self.source_address,
            config: self.bfd.clone()?,
        })
    }

    /// Whether the peer is in another AS.
    pub fn is_external(&self) -> bool {
        match self.peer_asn {
            PeerAsn::Exactly(asn) => asn != self.local_asn,
            PeerAsn::Internal => false,
            PeerAsn::External => true,
        }
    }

    /// The TTLs that follow from how far away the peer is.
    pub fn ttl(&self) -> Ttl {
        match self.hops {
            Hops::Default if self.is_external() => Ttl { send: Some(1), accept: None },
            Hops::Default => Ttl::default(),
            Hops::Multihop(hops) => Ttl { send: Some(hops), accept: None },
            // RFC 5082 §3: a peer one hop away is seen with 255.
            Hops::TtlSecurity(hops) => Ttl { send: Some(255), accept: Some(255 - hops.saturating_sub(1)) },
        }
    }
}

/// The TTLs of a session (IPv6: hop limits); `None` leaves the kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ttl {
    /// What is sent.
    pub send: Option<u8>,
    /// The smallest that is accepted.
    pub accept: Option<u8>,
}

/// Why a set of peers cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerSetError {
    /// Names identify peers.
    #[error("two peers are named {0:?}: every peer needs a name of its own")]
    Name(PeerName),
    /// Who connects is told by its address.
    #[error("peers {first:?} and {second:?} have the same address {address}: one session runs to an address")]
    #[expect(missing_docs, reason = "the message names them")]
    Address { first: PeerName, second: PeerName, address: IpAddr },
    /// Whoever connects from there would have to sign in two ways.
    #[error(
        "peers {first:?} and {second:?} have the same link-local address {address} on different interfaces and \
         different TCP MD5 passwords, which the kernel cannot tell apart: give both the same one, or the routers \
         different link-local addresses"
    )]
    #[expect(missing_docs, reason = "the message names them")]
    Md5Key { first: PeerName, second: PeerName, address: IpAddr },
    /// A session without a family carries nothing.
    #[error("peer {0:?} has no address family: list ipv4-unicast, ipv6-unicast or both")]
    Families(PeerName),
}

/// What AS the peer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAsn {
    /// Exactly this one.
    Exactly(Asn),
    /// Ours: iBGP with whatever AS we have.
    Internal,
    /// Any but ours.
    External,
}

/// How far away a peer may be: what TTL is sent and accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// eBGP: directly connected, TTL 1 is sent. iBGP: the kernel's TTL.
    Default,
    /// So many hops away; TTL of that value is sent.
    Multihop(u8),
    /// RFC 5082: TTL 255 is sent and packets from further than so many hops are dropped by the kernel.
    TtlSecurity(u8),
}

/// This node's own addresses, to be a next hop where the session's local address is of the other family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnNextHops {
    /// Global IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Global IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// What is offered of graceful restart (RFC 4724, with the N bit of RFC 8538).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestartConfig {
    /// How long the peer keeps our routes while we are away.
    pub restart_time: RestartTime,
    /// How long it keeps them beyond that, for want of better ones (RFC 9494); `None`: not offered.
    pub long_lived: Option<LongLivedStaleTime>,
    /// It also keeps them when the session ends by the hold timer or a NOTIFICATION that is no Hard Reset (RFC 8538).
    /// Then nothing but BFD tells the peer that this node has died.
    pub notification: bool,
}

impl Default for GracefulRestartConfig {
    /// Two minutes and no longer, NOTIFICATIONs included.
    fn default() -> GracefulRestartConfig {
        GracefulRestartConfig { restart_time: RestartTime::DEFAULT, long_lived: None, notification: true }
    }
}

/// Our BGP Role towards a peer (RFC 9234 §4.1), by its value on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We are its provider.
    Provider = 0,
    /// We are a route server to it.
    RouteServer = 1,
    /// We are a client of it, a route server.
    RouteServerClient = 2,
    /// We are its customer.
    Customer = 3,
    /// We are its peer.
    Peer = 4,
}

impl Role {
    /// The role that the other side must have (RFC 9234 §4.2).
    pub const fn counterpart(self) -> Role {
        match self {
            Role::Provider => Role::Customer,
            Role::RouteServer => Role::RouteServerClient,
            Role::RouteServerClient => Role::RouteServer,
            Role::Customer => Role::Provider,
            Role::Peer => Role::Peer,
        }
    }

    /// The role of a value on the wire.
    pub const fn from_value(value: u8) -> Option<Role> {
        Some(match value {
            0 => Role::Provider,
            1 => Role::RouteServer,
            2 => Role::RouteServerClient,
            3 => Role::Customer,
            4 => Role::Peer,
            _ => return None,
        })
    }

    /// RFC 9234 §5: routes that go out to a customer, a peer or a route server's client say that they may only go on
    /// to customers.
    pub const fn is_downwards(self) -> bool {
        matches!(self, Role::Provider | Role::RouteServer | Role::Peer)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Provider => "provider",
            Role::RouteServer => "route server",
            Role::RouteServerClient => "route server client",
            Role::Customer => "customer",
            Role::Peer => "peer",
        })
    }
}

/// Our role towards a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleConfig {
    /// What we are to it.
    pub role: Role,
    /// A peer that says no role of its own is refused (RFC 9234 §4.2, strict mode).
    pub is_strict: bool,
}

/// How a speaker ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// For good: Cease/Administrative Shutdown with this text (RFC 9003), inside a Hard Reset where the peer would
    /// keep our routes otherwise (RFC 8538 §3).
    Administrative(String),
    /// For good, without a gap for whoever has another way (RFC 8326): routes are marked as about to leave, and when
    /// routers have had time to take others it ends as by `Administrative`.
    Drain {
        /// For the peers' operators.
        text: String,
        /// How long routers have.
        wait: Duration,
    },
    /// To come back, with the routes kept by every peer that can: Cease/Administrative Reset where the peer takes
    /// it gracefully (RFC 8538) or knows no graceful restart at all, else TCP is closed without a word.
    Restart,
}
