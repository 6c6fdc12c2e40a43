//! Whole subnets in memory, and the rules one by one.

mod network;
mod schedules;
