//! A little data centre out of Linux network namespaces: nodes, real routers, a client, and the programs under
//! test on them. The demo, the end-to-end tests and the benchmarks run in it.
//!
//! It is no emulation: the kernels' routing, the routers' daemons and the traffic are real. It is no cluster
//! either: there is no kubelet and no kube-proxy; [`pods`](crate::pods) stand for what those would run.
//!
//! Everything of a run is removed when its [`Run`] is dropped, on panic and on a signal.

pub mod answers;
mod capture;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod data_centre;
pub mod demo;
mod error;
pub mod faults;
pub mod helpers;
mod kubectl;
mod namespace;
pub mod pings;
pub mod pods;
pub mod process;
pub mod router;
pub mod run;
pub mod topology;
pub mod traffic;
mod wait;

pub use capture::{Capture, Captured};
pub use cluster::Cluster;
pub use control_plane::ControlPlane;
pub use data_centre::DataCentre;
pub use error::{Error, Result};
pub use kubectl::Kubectl;
pub use namespace::Namespace;
pub use pings::Pings;
pub use process::Process;
pub use router::{Router, RouterConfig};
pub use run::Run;
pub use topology::{Addresses, Host, Topology};
pub use wait::{PATIENCE, secs, until};
