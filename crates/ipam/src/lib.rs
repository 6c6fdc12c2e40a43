//! The contract between the allocator and an IPAM provider, gRPC package `purelb.ipam.v1`, as Rust types.
//!
//! `generated.rs` is made from `proto/ipam.proto` and checked in, so that no build needs a protobuf compiler; a
//! test fails where the two differ, and writes the file anew with `IPAM_WRITE=1`. The client is always there, the
//! server behind the feature `server`. No socket, no policy: those are the programs'.

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "made by a program")]
#[rustfmt::skip]
mod generated;

pub use generated::*;

/// The socket of a provider that names no other.
pub const DEFAULT_SOCKET: &str = "/var/run/purelb/ipam.sock";
