//! Appliers: desired and observed make changes, a short loop executes them. Order in every round: addresses are
//! added, routes announced, routes withdrawn, addresses removed.

pub mod addresses;
pub mod announcing;
pub mod events;
pub mod node_lease;
pub mod node_status;
pub mod peer_status;
pub mod reach;
pub mod routes;
