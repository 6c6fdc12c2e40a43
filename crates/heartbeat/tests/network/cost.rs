//! What it costs: the same in a group of any size.

use super::*;

/// The bar: 100 kbit/s a node, in both directions together, with UDP, IP and Ethernet around the datagrams.
const MOST_BITS: u64 = 100_000;

#[test]
fn a_node_of_a_hundred_sends_no_more_than_one_of_five() {
    let rate = |count: usize| {
        let mut net = settled(1, count);
        let secs = 6;
        net.run_for(Duration::from_secs(secs));
        let sent: Vec<_> = (0..count).map(|node| (net.node(node).sent, net.node(node).sent_octets)).collect();
        let most = sent.iter().map(|(_, octets)| *octets).max().unwrap() * 8 / secs;
        let mean = sent.iter().map(|(_, octets)| *octets).sum::<u64>() * 8 / secs / count as u64;
        let datagrams = sent.iter().map(|(count, _)| *count).max().unwrap() / secs;
        println!("{count}: {datagrams} datagrams/s, {mean} bit/s a node, at most {most}");
        (most, mean)
    };
    let (small, large) = (rate(5), rate(100));
    assert!(large.0 * 2 < MOST_BITS, "as much is received as sent: {} bit/s", large.0);
    assert!(large.1 < small.1 * 5 / 4, "{} bit/s in a group of 100, {} in one of 5", large.1, small.1);
}

#[test]
fn members_that_stay_dead_cost_as_little_as_living_ones() {
    let mut net = settled(1, 40);
    (20..40).for_each(|node| net.kill(node));
    net.run_for(millis(5_000));
    net.forget_past();
    net.run_for(millis(10_000));
    let most = (0..20).map(|node| net.node(node).sent_octets * 8 / 10).max().unwrap();
    println!("{most} bit/s");
    assert!(most * 2 < MOST_BITS, "{most} bit/s");
}

#[test]
fn a_death_costs_a_few_datagrams_a_member() {
    let mut net = settled(1, 60);
    net.run_for(millis(1_000));
    let before: u64 = (0..60).map(|node| net.node(node).sent).sum();
    net.run_for(millis(1_000));
    let quiet = (0..60).map(|node| net.node(node).sent).sum::<u64>() - before;
    net.kill(0);
    net.run_for(millis(1_000));
    let with_death = (0..60).map(|node| net.node(node).sent).sum::<u64>() - before - quiet;
    println!("{quiet} a second, {with_death} with a death");
    // Three watchers tell 58 others, who acknowledge it.
    assert!(with_death < quiet + 3 * 58 * 3, "{quiet} and {with_death}");
}
