//! The IPAM controller: Services of type LoadBalancer get addresses from ServiceGroups.
//!
//! The way through: [`stores`] turns watches into small values ([`inputs`]); [`assign`] decides, purely, one
//! Service at a time, from the accepted groups and the [`ledger`]; [`engine`] reserves what was decided;
//! [`desk`] knows what is under way; [`apply`] writes it in one request; [`reconcile`] is the loop that owns all
//! of it. The truth is in the
//! Services' status: the ledger is rebuilt from there before the first decision. Only the holder of a Lease
//! decides ([`leader`]).

pub mod apply;
pub mod assign;
pub mod desk;
pub mod engine;
pub mod events;
pub mod external;
pub mod fence;
pub mod group_status;
pub mod inputs;
pub mod leader;
pub mod ledger;
pub mod memory;
pub mod metrics;
pub mod pool;
pub mod reconcile;
pub mod reservation;
mod run;
pub mod select;
pub mod settings;
pub mod stores;
#[cfg(test)]
mod testing;
pub mod waiting;

pub use run::run;
