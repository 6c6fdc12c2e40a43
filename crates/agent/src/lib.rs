//! The node agent: addresses on this node's interface, routes in the speaker inside it.
//!
//! ```text
//! API server ─watch→ stores ─changes─┐
//!                                    ├→ inputs → plan (pure) → apply/{addresses,routes,status}
//! kernel, kube-proxy ─────────facts──┘
//! ```
//!
//! One task ([`reconcile`]) owns everything that is decided from; watchers, the kernel's monitor and the probes of
//! kube-proxy send it observations; writers of status objects, events and metrics get values from it.

pub mod inputs;
pub mod key;
pub mod plan;
