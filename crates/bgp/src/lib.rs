//! A BGP speaker that announces.
//!
//! The core is sans-IO: bytes, commands and the time go in, bytes, events and the next timeout come out; it
//! opens no socket, reads no clock and draws no random number that it was not seeded for. The feature `driver`
//! adds the loop that gives it sockets and a clock; the feature `testing` gives it an in-memory wire and
//! virtual time instead.
//!
//! Received routes are counted and dropped, so memory does not grow with what a router sends.

pub mod attributes;
pub mod bfd;
pub mod capabilities;
pub mod community;
pub mod config;
#[cfg(feature = "driver")]
pub mod driver;
mod export;
mod fsm;
pub mod md5;
pub mod message;
pub mod notification;
mod peer;
mod rate;
pub mod rib;
pub mod route;
pub mod speaker;
pub mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod types;
pub mod wire;
