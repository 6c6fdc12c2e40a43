//! Whole subnets in memory, and the rules one by one.

mod announcing;
mod conflicts;
mod network;
mod one;
mod rules;
mod schedules;
