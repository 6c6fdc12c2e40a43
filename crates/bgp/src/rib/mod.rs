//! The Loc-RIB.

pub mod loc_rib;

mod intern;
mod slot_set;

/// A route's place in the Loc-RIB. It stays the same while the route exists or any peer still has it.
pub(crate) type Slot = u32;
