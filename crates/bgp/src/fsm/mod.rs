//! The finite state machine of RFC 4271 §8 for one TCP connection, from the moment it is up: OpenSent,
//! OpenConfirm and Established. Idle, Connect and Active are states of a peer that has no connection (`peer`).
//!
//! Sans-IO: events and the time go in, octets to send and an outcome come out.

pub(crate) mod connection;
mod endings;
pub(crate) mod event;
mod octets;
pub(crate) mod state;
pub(crate) mod timers;
