//! Linux links, addresses and routes over rtnetlink(7), a monitor of what changes them, the router at the other end
//! of a link, and who on a link has an address (ARP, Neighbor Discovery).
//!
//! It knows neither Kubernetes nor what an address is for: callers say which link, which prefix, and get a
//! typed error that names the step and the object. It keeps no state: what is there is asked of the kernel.
//!
//! Guarantees
//! - A dump that the kernel marks as interrupted is never returned as if it were whole ([`Error::Interrupted`]).
//! - Adding what is there and deleting what is gone are successes, told apart from the real change.
//! - An address is deleted by its exact local address, prefix length and link, never by less.
//! - What was created here carries [`PROTOCOL`] as its mark.
//!
//! Assumptions: CAP_NET_ADMIN, and CAP_NET_RAW for [`Neighbors`], [`Sound`] and [`RouterDiscovery`]; everything happens in the
//! network namespace of the thread that opened it.

mod address;
mod connection;
mod error;
mod link;
mod mac;
mod monitor;
mod neighbors;
mod route;
mod router;

pub use address::{Address, AddressFlags, Addressing, Lifetime, Outcome};
pub use connection::Netlink;
pub use error::{Error, Step};
pub use link::{DummyKind, Link};
pub use mac::Mac;
pub use monitor::{Event, Monitor, MonitorError};
pub use neighbors::{Heard, Kind, Neighbors, Sound, frame};
pub use route::DefaultRoute;
pub use router::RouterDiscovery;

/// The mark of what this software put into the kernel: `IFA_PROTO` of addresses and `rtm_protocol` of routes.
/// Not among the numbers that the kernel or a known routing daemon uses (`/etc/iproute2/rt_protos`).
pub const PROTOCOL: u8 = 112;
