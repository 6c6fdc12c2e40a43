//! The routing tables of a speaker that only announces: the Loc-RIB holds our own routes, an Adj-RIB-Out
//! per session remembers what its peer has been told and which routes have to be looked at again.
//!
//! There is no Adj-RIB-In: received routes are counted and dropped.
//!
//! Routes are named by their slot in the Loc-RIB, a small number, so that what a session remembers of a
//! route is four octets and one bit.

pub(crate) mod adj_rib_out;
pub mod changes;
pub mod loc_rib;

mod index;
mod intern;
mod pack;
mod refresh;
mod slot_set;
#[cfg(test)]
mod tests;

/// A route's place in the Loc-RIB. It stays the same while the route exists or any peer still has it.
pub(crate) type Slot = u32;
