//! The node agent: addresses on this node's interface, routes in the speaker inside it.
//!
//! ```text
//! API server ─watch→ stores ─changes→ world ─┐
//!                                            ├→ planner → plan (pure) → apply/{addresses,routes}
//! kernel (interface), kube-proxy ─────facts──┘
//! ```
//!
//! One task ([`reconcile`]) owns everything that is decided from; watchers, the kernel's monitor and the probes of
//! kube-proxy send it observations; writers of status objects, events and metrics get values from it.

pub mod advertising;
pub mod apply;
pub mod claim;
pub mod draining;
pub mod election;
pub mod facts;
pub mod holdings;
pub mod inputs;
pub mod interface;
pub mod key;
pub mod lease;
pub mod liveness;
pub mod local_pools;
pub mod members;
pub mod metrics;
pub mod neighbourhood;
pub mod peers;
pub mod plan;
pub mod planner;
pub mod reconcile;
pub mod replay;
pub mod settings;
pub mod shutdown;
pub mod stores;
pub mod succession;
pub mod takeovers;
pub mod world;
