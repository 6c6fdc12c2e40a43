//! The desk against a model of the API server: random histories, and the counterexamples that they have found.

mod histories;
mod invariants;
mod named;
mod provider;
mod spec;
mod world;
