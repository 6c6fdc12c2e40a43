//! Groups on a simulated segment: what is promised, with loss, cuts, partitions, deaths and pauses. Every test prints
//! its seeds.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod cost;
mod deaths;
mod faults;
mod loss;
mod messages;
mod trust;

use std::time::Duration;

use heartbeat::{
    Event,
    testing::{Network, millis},
};

/// Five missed heartbeats, and the others asked.
const DETECTION: Duration = Duration::from_millis(500);
const CONFIRMATION: Duration = Duration::from_millis(50);

/// A group whose members all know each other.
fn settled(seed: u64, count: usize) -> Network {
    println!("seed {seed}, {count} members");
    let mut net = Network::new(seed, count);
    let all: Vec<_> = (0..count).collect();
    let took = net.run_until(millis(5_000), |net| net.are_alive(&all));
    assert!(took.is_some(), "they do not find each other");
    // Whatever the beginning has left under way.
    net.run_for(millis(1_500));
    assert!(net.are_alive(&all));
    net.forget_past();
    net
}

/// All but one.
fn others(net: &Network, without: usize) -> Vec<usize> {
    net.running().into_iter().filter(|node| *node != without).collect()
}

fn events(net: &mut Network, node: usize) -> Vec<Event> {
    std::mem::take(&mut net.node(node).events).into_iter().map(|(_, event)| event).collect()
}
