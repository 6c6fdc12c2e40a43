//! What this node should hold and announce. Pure: values in, values out, no clock, no I/O.
//!
//! [`service`] decides for one Service; [`node`] merges the Services' plans, counted by holder, so that a change
//! of one costs O(1). Every decision carries its reason, and logs, events and `lbnodeagent plan` print the same.

pub mod local;
pub mod node;
pub mod service;
pub mod traits;

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::Serialize;

use crate::inputs::{node::Leaving, overrides::Unreadable};
use traits::Traits;

/// What one Service wants of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServicePlan {
    /// Addresses to hold, each with its prefix length.
    pub addresses: Vec<IpNet>,
    /// Those of `addresses` whose prefix is announced.
    pub routes: Vec<IpNet>,
    /// Addresses of local pools that are on a subnet of this node, whoever is to hold them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub local: Vec<LocalAddress>,
    /// What decides with which attributes routes are announced.
    #[serde(skip)]
    pub traits: Arc<Traits>,
    /// Why.
    pub decision: Decision,
    /// What its owner should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

impl ServicePlan {
    /// Nothing, and why.
    pub fn skip(reason: Reason) -> ServicePlan {
        ServicePlan {
            addresses: Vec::new(),
            routes: Vec::new(),
            local: Vec::new(),
            traits: Arc::default(),
            decision: Decision::Skip(reason),
            warnings: Vec::new(),
        }
    }

    /// Whether it has no address of a local pool on a subnet of this node.
    pub const fn has_no_local(&self) -> bool {
        self.local.is_empty()
    }

    /// The addresses of local pools that this node is to hold.
    pub fn elected(&self) -> impl Iterator<Item = &LocalAddress> {
        self.local.iter().filter(|local| local.is_elected())
    }
}

/// An address of a local pool on a subnet of this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalAddress {
    /// The address, with the prefix length that it has on the interface.
    pub address: IpNet,
    /// The interface whose subnet it is in.
    pub interface: Arc<str>,
    /// Index of the interface.
    #[serde(skip)]
    pub index: u32,
    /// IPv6: no duplicate address detection.
    #[serde(skip)]
    pub no_dad: bool,
    /// The node that is to hold it, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<Arc<str>>,
}

impl LocalAddress {
    /// Whether this node is to hold it.
    pub const fn is_elected(&self) -> bool {
        self.other.is_none()
    }

    /// The address itself.
    pub fn addr(&self) -> IpAddr {
        self.address.addr()
    }
}

/// The decision on one Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// Addresses held, routes announced.
    Announce,
    /// Addresses held, no route announced.
    Hold(Reason),
    /// Neither.
    Skip(Reason),
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Announce => f.write_str("announce"),
            Decision::Hold(reason) => write!(f, "hold: {reason}"),
            Decision::Skip(reason) => write!(f, "skip: {reason}"),
        }
    }
}

/// Why a Service is not, or not fully, announced from this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The node is to announce nothing.
    NodeLeaving(Leaving),
    /// Local pool, and another node was elected.
    NotElected {
        /// That node.
        winner: Arc<str>,
    },
    /// Local pool, and the address is on no subnet of the interfaces that the LBNodeAgent selects.
    NoSubnet,
    /// Local pool, and no node that is on the subnet can serve it.
    NoCandidate,
    /// Local pool, and the address is the node's own.
    OwnAddress,
    /// Policy Local, and no endpoint on this node takes packets.
    NoLocalEndpoint,
    /// Policy Local, and the endpoints on this node only finish what they have.
    EndpointsTerminating,
    /// Policy Local, and kube-proxy does not forward yet.
    WaitingForKubeProxy,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotElected { winner } => {
                return write!(f, "another node of the subnet is elected to announce the address: {winner}");
            }
            Reason::NodeLeaving(why) => return write!(f, "{why}"),
            Reason::NoSubnet => {
                "the address is on no subnet of this node's interfaces that LBNodeAgent selects (localInterface, \
                 interfaces), or they have no carrier"
            }
            Reason::NoCandidate => "no node on the address's subnet can announce it",
            Reason::OwnAddress => "the address is this node's own: take it out of the pool",
            Reason::NoLocalEndpoint => "externalTrafficPolicy is Local and no endpoint is ready on this node",
            Reason::EndpointsTerminating => {
                "externalTrafficPolicy is Local and the last endpoints on this node are terminating"
            }
            Reason::WaitingForKubeProxy => {
                "externalTrafficPolicy is Local and kube-proxy does not report endpoints on this node yet"
            }
        })
    }
}

/// Something that works, but hardly as meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Warning {
    /// The prefix is aggregated, and policy is Local: the aggregate is refused, a host route takes its place.
    LocalAggregate(IpNet),
    /// No pool of the Service's group has the address: it is announced with the prefix length that it had, else as a host
    /// route.
    OutsidePools(IpNet),
    /// The address is in use by this node itself.
    OwnAddress(IpNet),
    /// An annotation about routes cannot be read.
    Unreadable(Unreadable),
    /// No BGPPeer allows the annotation.
    Forbidden(&'static str),
    /// Annotations about routes, on a Service whose addresses have none.
    WithoutRoutes(Vec<&'static str>),
    /// The annotation names a BGPPeer that there is not.
    UnknownPeer(String),
    /// The annotation names only BGPPeers that there are not.
    NobodyNamed(String),
}

impl Warning {
    /// Whether it is about the Service and the cluster, so that every node would say the same: then it is told once.
    pub const fn is_of_cluster(&self) -> bool {
        !matches!(self, Warning::OwnAddress(_))
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::LocalAggregate(address) => write!(
                f,
                "{} is announced as {} and not as {}: externalTrafficPolicy is Local, and the aggregate of its pool would \
                 draw packets to nodes without endpoints; aggregation /32 and /128, or externalTrafficPolicy Cluster, \
                 say what is meant",
                address.addr(),
                IpNet::from(address.addr()),
                address.trunc(),
            ),
            Warning::OutsidePools(address) => write!(
                f,
                "{} is in no pool of its ServiceGroup any more: it is announced as {address}",
                address.addr()
            ),
            Warning::OwnAddress(address) => {
                write!(f, "{} is not announced: {}", address.addr(), Reason::OwnAddress)
            }
            Warning::Unreadable(unreadable) => {
                write!(f, "{unreadable}; the annotation is left out of account")
            }
            Warning::Forbidden(annotation) => write!(
                f,
                "{annotation} is left out of account: no BGPPeer lists it for this Service under \
                 spec.advertisements[].allowServiceOverrides"
            ),
            Warning::WithoutRoutes(annotations) => write!(
                f,
                "{}: left out of account, since this is about routes and addresses of a local pool have none: remove it, \
                 or take a remote ServiceGroup",
                annotations.join(", ")
            ),
            Warning::UnknownPeer(name) => {
                write!(f, "{}: there is no BGPPeer {name}", api::names::annotation::BGP_PEERS)
            }
            Warning::NobodyNamed(names) => write!(
                f,
                "{}: there is no BGPPeer of the names {names}, so its routes go to no BGPPeer that heeds the annotation: \
                 name one that there is, or remove the annotation",
                api::names::annotation::BGP_PEERS
            ),
        }
    }
}
