//! Objects of the API server, read once and turned into small values: one file a kind. What cannot be used is
//! refused as a value that says why.

pub mod advertisement;
pub mod bfd;
pub mod bgp_peer;
pub mod daemon_set;
pub mod endpoints;
pub mod group;
pub mod lease;
pub mod node;
pub mod node_agent;
pub mod overrides;
pub mod secret;
pub mod service;
