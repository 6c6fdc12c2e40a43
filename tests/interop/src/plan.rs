//! What a session of a cell is to be: the same words configure the router (through its template) and the speaker.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU8,
    time::Duration,
};

use bgp::{
    bfd,
    config::{GracefulRestartConfig, Hops, OwnNextHops, PeerAsn, PeerConfig, Role, RoleConfig},
    md5::Md5Key,
    types::{Asn, Family, HoldTime, RouterId},
};
use lab::{Error, Host, Result};
use nix::net::if_::if_nametoindex;

use crate::{
    link::{Link, address_of},
    template::Values,
};

/// The one peer of the speaker.
pub(crate) const PEER: &str = "router";

/// How often BFD packets go out in both directions: slow enough for a machine that runs several cells at once.
pub(crate) const BFD_INTERVAL: Duration = Duration::from_millis(200);
/// How many of them may be lost: the routers' daemons have no priority over whatever else runs.
pub(crate) const BFD_MULTIPLIER: NonZeroU8 = NonZeroU8::new(10).expect("10 is not 0");

/// Who opens the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dials {
    /// The speaker; the router waits.
    Speaker,
    /// The router; the speaker waits.
    Router,
    /// Both.
    Both,
}

/// A session to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The family that the session runs over.
    pub over: Family,
    /// What it carries.
    pub families: Vec<Family>,
    /// Our AS number.
    pub speaker_as: u32,
    /// The router's AS number; the same as ours: iBGP.
    pub router_as: u32,
    /// What the router takes for our AS number.
    pub speaker_as_at_router: u32,
    /// What we take for the router's AS number.
    pub router_as_at_speaker: u32,
    /// Who opens the connection.
    pub dials: Dials,
    /// Hold Time of both sides, in seconds.
    pub hold_secs: u16,
    /// How far the router is away.
    pub hops: Hops,
    /// The router is told to take IPv6 next hops for IPv4.
    pub extended_next_hop: bool,
    /// Both ends do graceful restart (RFC 4724), long-lived too where it says so; the times are ours.
    pub graceful_restart: Option<GracefulRestartConfig>,
    /// What we are to the router (RFC 9234); the router is the counterpart.
    pub role: Option<Role>,
    /// The router takes messages of up to 65,535 octets (RFC 8654).
    pub extended_message: bool,
    /// The router puts what it learns into its kernel and forwards.
    pub forwards: bool,
    /// Neither side is told the other's address: both learn it on the interface.
    pub unnumbered: bool,
    /// Our TCP MD5 key.
    pub md5: Option<&'static str>,
    /// The router's.
    pub router_md5: Option<&'static str>,
    /// Both sides watch the path with BFD.
    pub bfd: bool,
    /// The router takes what BFD says for a restart of ours, where it knows that our BFD dies with our process
    /// (RFC 5882 §4.3.2).
    pub bfd_shares_fate: bool,
    /// Our BGP Identifier.
    pub speaker_id: Ipv4Addr,
    /// The router's BGP Identifier.
    pub router_id: Ipv4Addr,
}

impl Default for Plan {
    /// eBGP over IPv4 with both families; we dial.
    fn default() -> Self {
        Self {
            over: Family::Ipv4Unicast,
            families: Family::ALL.to_vec(),
            speaker_as: 64512,
            router_as: 65001,
            speaker_as_at_router: 64512,
            router_as_at_speaker: 65001,
            dials: Dials::Speaker,
            hold_secs: 90,
            hops: Hops::Default,
            extended_next_hop: false,
            graceful_restart: None,
            role: None,
            extended_message: false,
            forwards: false,
            unnumbered: false,
            md5: None,
            router_md5: None,
            bfd: false,
            bfd_shares_fate: false,
            speaker_id: Ipv4Addr::new(10, 0, 0, 1),
            router_id: Ipv4Addr::new(10, 0, 0, 2),
        }
    }
}

impl Plan {
    /// The same with these AS numbers, known to both.
    #[must_use]
    pub fn with_as(self, speaker: u32, router: u32) -> Self {
        Self {
            speaker_as: speaker,
            speaker_as_at_router: speaker,
            router_as: router,
            router_as_at_speaker: router,
            ..self
        }
    }

    /// One family over a session of its own.
    pub fn single(family: Family) -> Self {
        Self { over: family, families: vec![family], ..Self::default() }
    }

    /// iBGP.
    pub fn internal() -> Self {
        Self::default().with_as(64512, 64512)
    }

    /// Whether the ends have two subnets.
    pub fn is_far(&self) -> bool {
        matches!(self.hops, Hops::Multihop(_))
    }

    /// Where an end of the session is.
    pub(crate) fn address(&self, end: &Host) -> IpAddr {
        if self.unnumbered { end.addresses.link_local.into() } else { address_of(end, self.over) }
    }

    /// The AS_PATH that the router is to see.
    pub fn as_path(&self) -> Vec<u32> {
        if self.speaker_as == self.router_as { Vec::new() } else { vec![self.speaker_as] }
    }

    /// The next hop that the router is to see for a family.
    pub fn next_hop(&self, link: &Link, family: Family) -> IpAddr {
        let is_over_ipv6 = self.over == Family::Ipv6Unicast;
        let shown = if is_over_ipv6 && self.extended_next_hop { self.over } else { family };
        address_of(&link.speaker, shown)
    }

    /// The speaker's side.
    pub(crate) fn peer(&self, link: &Link) -> Result<PeerConfig> {
        let asn = |value| Asn::new(value).ok_or_else(|| Error::unmet("AS 0 in a plan"));
        let router_id =
            RouterId::new(self.speaker_id).ok_or_else(|| Error::unmet("router ID 0 in a plan"))?;
        let hold_time = HoldTime::new(self.hold_secs).ok_or_else(|| Error::unmet("a hold time of 1 or 2"))?;
        let address = self.address(&link.router);
        let peer_asn = match self.unnumbered {
            true => PeerAsn::External,
            false => PeerAsn::Exactly(asn(self.router_as_at_speaker)?),
        };
        let index = || link.speaker.namespace.enter(|| if_nametoindex(link.interface()));
        let scope = match self.unnumbered {
            true => index()?.map_err(|error| Error::parse("the speaker's interface", error))?,
            false => 0,
        };
        let own = link.speaker.addresses;
        let md5_key = self.md5.map(|key| Md5Key::new(key.as_bytes())).transpose();
        let path = match self.hops {
            // RFC 5883 asks for no TTL of 255, and BIRD sends with the kernel's 64.
            Hops::Multihop(_) => bfd::Path::Multihop { min_ttl: 60 },
            _ => bfd::Path::SingleHop,
        };
        let bfd = bfd::Config {
            transmit_interval: BFD_INTERVAL,
            receive_interval: BFD_INTERVAL,
            detect_mult: BFD_MULTIPLIER,
            path,
            ..bfd::Config::default()
        };
        Ok(PeerConfig {
            md5_key: md5_key.map_err(|error| Error::parse("a plan's MD5 key", error))?,
            bfd: self.bfd.then_some(bfd),
            scope,
            hold_time,
            connect_retry_time: Duration::from_secs(1),
            passive: self.dials == Dials::Router,
            families: self.families.clone(),
            hops: self.hops,
            next_hops: OwnNextHops { ipv4: Some(own.v4), ipv6: Some(own.v6) },
            graceful_restart: self.graceful_restart,
            role: self.role.map(|role| RoleConfig { role, is_strict: true }),
            ..PeerConfig::new(PEER, address, router_id, asn(self.speaker_as)?, peer_asn)
        })
    }

    /// What templates may name.
    pub(crate) fn values(&self, link: &Link) -> Values {
        let mut values = Values::default();
        let speaker = self.address(&link.speaker);
        values.text("speaker", speaker);
        values.text(
            "neighbor",
            if self.unnumbered { link.interface().to_owned() } else { speaker.to_string() },
        );
        values.flag("unnumbered", self.unnumbered);
        values.text("router", address_of(&link.router, self.over));
        values.text("speaker_as", self.speaker_as_at_router);
        values.text("router_as", self.router_as);
        values.text("router_id", self.router_id);
        values.text("hold_secs", self.hold_secs);
        values.text("keepalive_secs", self.hold_secs / 3);
        if let Hops::Multihop(hops) = self.hops {
            values.text("hops", hops);
        }
        values.text("interface", link.interface());
        values.text("password", self.router_md5.unwrap_or_default());
        values.flag("password", self.router_md5.is_some());
        values.text("bfd_millis", BFD_INTERVAL.as_millis());
        values.text("bfd_multiplier", BFD_MULTIPLIER);
        values.flag("bfd", self.bfd);
        values.flag("bfd_shares_fate", self.bfd_shares_fate);
        values.flag("ipv4", self.families.contains(&Family::Ipv4Unicast));
        values.flag("ipv6", self.families.contains(&Family::Ipv6Unicast));
        values.flag("passive", self.dials == Dials::Speaker);
        values.flag("listening", self.dials != Dials::Router);
        values.flag("multihop", self.is_far());
        values.flag("ttl_security", matches!(self.hops, Hops::TtlSecurity(_)));
        values.flag("extended_next_hop", self.extended_next_hop);
        if let Some(role) = self.role {
            values.text("role", role.counterpart());
        }
        values.flag("role", self.role.is_some());
        values.flag("extended_message", self.extended_message);
        values.flag("graceful_restart", self.graceful_restart.is_some());
        values.flag("long_lived", self.graceful_restart.is_some_and(|offered| offered.long_lived.is_some()));
        values.flag("forwards", self.forwards);
        values
    }
}
