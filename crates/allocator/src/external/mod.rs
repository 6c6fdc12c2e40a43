//! Groups whose addresses an IPAM provider hands out: a sidecar that serves `purelb.ipam.v1` on a Unix socket.
//!
//! The decision stays pure: it reads what the provider has answered and says what it would ask ([`ask`]). What
//! the provider may have given to whom, and which call comes next, is in [`account`], and in [`books`] for the
//! providers that a group has had before, too; whether it answers at all in
//! [`provider`]; [`answer`] judges what it says; [`client`] is the one place that speaks gRPC; [`status`] is what
//! the group's status tells. The loop that carries calls and answers is `reconcile::external`.
//!
//! Guarantees:
//! - Before a provider is asked for a Service the first time, the Service's name stands in
//!   `status.externalServices` of the group; it goes when the provider has confirmed that it holds nothing for that
//!   Service any more. So a crash at any point, and a deletion while no allocator runs, leave a name from which the
//!   next term goes on releasing.
//! - When `socket` names another provider, what the one before has given stands in `status.formerProviders` before the
//!   new one is asked, and is released there as soon as no Service publishes it.
//! - Calls for one Service and group follow each other; a release whose fate is unknown is confirmed before
//!   anything is asked for anew. So no release takes away what was given after it.
//! - An address is released only when no status of ours shows it and no write is under way that may.
//!
//! Assumptions: a provider answers the same pool and Service with the same addresses, releases without complaint
//! what it has not given, and keeps its books over its own restarts.

pub mod account;
pub mod answer;
pub mod ask;
pub mod books;
pub mod client;
pub mod provider;
pub mod status;
#[cfg(test)]
mod tests;

pub use account::{Account, Action};
pub use ask::{Answer, Ask, Provided, Want};
pub use books::{Accounts, Books};

use api::PoolType;

use crate::inputs::Word;

/// `spec.external` of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Name of the provider, for people.
    pub provider: Word,
    /// Path of its Unix socket.
    pub socket: Word,
}

/// What of a spec makes a group external, and where its addresses are announced.
pub fn parse(spec: &api::ServiceGroupSpec) -> Option<(External, PoolType)> {
    let external = spec.external.as_ref()?;
    let parsed =
        External { provider: external.provider.as_str().into(), socket: external.socket.as_str().into() };
    Some((parsed, external.announce))
}
