//! Claims to the addresses of local pools: one node of a subnet holds each address, and answers for it on the wire.
//!
//! [`Claims`] decides (pure: facts and the time go in, actions come out), [`driver`] executes over `netlink` and feeds
//! it. Who should hold an address is the election's business and is told here ([`Wanted`]); who lives is the
//! heartbeats'. The words are those of RFC 5227: probe, announce, defend.
//!
//! What is promised: an address is put on the interface only after the wire was asked for it or its holder has given
//! it up, and it is not given up before somebody takes it over, as long as it is wanted at all. So while the members
//! of a subnet hear each other nobody answers twice and nobody answers not, whatever each of them believes at the time.
//!
//! A node that hears nothing at all, though others are registered on its subnet, takes no address: it could not hear that
//! it has a holder, nor be of use as one.
//!
//! Where frames are lost at random two may take the same address; they find out by what they announce and say: a holder
//! tells whoever is elected instead that it has the address, so that not even the loss of each other's frames hides it.

pub mod action;
pub mod claims;
pub mod driver;
pub mod message;

use std::{net::IpAddr, sync::Arc, time::Duration};

use api::lb_node_agent::GarpConfig;
use ipnet::IpNet;
use netlink::{Addressing, Mac};

pub use action::Action;
pub use claims::{CARRIER_WAIT, Claims, LinkState};
pub use driver::{Driver, DriverError, Outputs};
pub use message::Message;

/// An address of a local pool that is on one of this node's subnets, whoever is to hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Index of the interface whose subnet it is in.
    pub interface: u32,
    /// The address with the prefix length that it has there.
    pub prefix: IpNet,
    /// Flags and lifetime. With `no_dad` the wire is not asked once more when the address is here; the kernel never does,
    /// because it would not use the address before a second or two have passed.
    pub addressing: Addressing,
    /// How it is made known.
    pub announcing: Announcing,
    /// Who is to hold it.
    pub elected: Elected,
}

/// Who is to hold an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elected {
    /// This node.
    Us,
    /// The node of this name. Where this node holds the address, it keeps it until that one asks for it.
    Other(Arc<str>),
}

/// How an address that has come to this node is made known: `garpConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcing {
    /// Whether anything is said unasked.
    pub enabled: bool,
    /// From the address being on the interface to the burst; one announcement more is sent at once.
    pub initial_delay: Duration,
    /// How many the burst has.
    pub count: u8,
    /// Between two.
    pub interval: Duration,
    /// Each only if the kernel has the address, the link has a carrier and the election is still ours.
    pub verify_before_send: bool,
    /// Once more each so often, with jitter, as long as the address is held.
    pub refresh: Option<Duration>,
}

impl From<&GarpConfig> for Announcing {
    fn from(config: &GarpConfig) -> Announcing {
        Announcing {
            enabled: config.enabled,
            initial_delay: config.initial_delay.0,
            count: config.count,
            interval: config.interval.0,
            verify_before_send: config.verify_before_send,
            refresh: None,
        }
    }
}

impl Default for Announcing {
    fn default() -> Announcing {
        Announcing::from(&GarpConfig::default())
    }
}

/// Another node on a subnet of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Arc<str>,
    /// Link-layer addresses of its interfaces on our subnets, as far as they are known; those of a dead member, too.
    pub macs: Vec<Mac>,
    /// Whether it lives, also when it is about to leave.
    pub is_alive: bool,
    /// Whether messages reach it: without heartbeats they do not.
    pub takes_messages: bool,
}

/// What the owner of the claims tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// All addresses of local pools on this node's subnets. Until the first of these nothing that an earlier run left
    /// is removed; afterwards what is not in it is removed at once.
    WantedAll(Vec<Wanted>),
    /// One of them has come or changed, or is wanted no more.
    Wanted(IpAddr, Option<Wanted>),
    /// Indexes of all interfaces of local addresses. What carries our mark there is ours.
    Interfaces(Vec<u32>),
    /// All other members.
    Members(Vec<Member>),
    /// The interfaces on which there are other members, and none of them is heard. It may be that they are all dead, or
    /// that this node hears nothing; as long as no frame at all comes in there, it claims nothing.
    Alone(Vec<u32>),
    /// The payload of a member's message.
    Payload {
        /// Its name.
        from: Arc<str>,
        /// As encoded.
        octets: Vec<u8>,
    },
    /// This node leaves for good: what it holds goes to those that ask for it, and after a while goes anyway.
    Leave,
}

/// A message for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its name.
    pub to: Arc<str>,
    /// The interface on whose subnet the addresses are.
    pub interface: u32,
    /// The encoded message, at most [`message::LIMIT`] octets.
    pub octets: Vec<u8>,
}

/// What has become of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// This node holds it: the kernel has it and answers for it.
    Held(IpAddr),
    /// This node holds it no more.
    Released(IpAddr),
    /// Someone who is no member answers for it: not claimed.
    Conflict(IpAddr, Mac),
    /// The member of this name answers for it and says that it does not hold it: not claimed.
    Unheld(IpAddr, Arc<str>),
    /// Nobody does any more.
    ConflictEnded(IpAddr),
}
