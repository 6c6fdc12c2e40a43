//! The routing tables of a speaker that only announces: the Loc-RIB holds our own routes, an Adj-RIB-Out
//! per session remembers what its peer has been told and which routes have to be looked at again.
//!
//! There is no Adj-RIB-In: received routes are counted and dropped.
//!
//! Routes are kept in blocks of 64 neighbouring prefixes, here and per session: neighbours mostly share everything, and
//! then 64 of them are found, compared and remembered like one.

pub(crate) mod adj_rib_out;
pub mod changes;
pub mod loc_rib;

mod block;
mod ids;
mod index;
mod intern;
mod member_set;
mod pack;
mod refresh;
#[cfg(test)]
mod tests;
