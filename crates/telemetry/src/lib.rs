//! What every program of ours shows of itself: its log, whose filter can be changed while it runs ([`log`]); the
//! server of `/metrics`, `/healthz`, `/readyz` and `/log-filter` ([`serve`]); and the figures of its process under
//! the names that Prometheus clients agree on ([`process`]).
//!
//! Not what a program counts: its metrics are its own.

pub mod log;
pub mod process;
pub mod serve;

pub use log::{LogFilter, LogFormat};
pub use serve::{Probes, serve};
