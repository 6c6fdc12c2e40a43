//! What happens to a subnet, and that nobody answers twice and nobody answers not.

use std::{collections::BTreeSet, time::Duration};

use netlink::Mac;

use super::network::{Agent, Network, ms};

/// The random schedules that each test runs; the seed of one that fails is in its message. More of them:
/// `SCHEDULES=1000..2000`.
fn schedules() -> std::ops::Range<u64> {
    let given = std::env::var("SCHEDULES").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    range.map_or(0..12, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

/// Nodes that have found their order.
fn running(nodes: usize, addresses: usize, seed: u64) -> Network {
    let mut network = Network::new(nodes, addresses, seed);
    network.run_for(ms(2_000));
    network.assert_in_order();
    network.count_from_here();
    network
}

fn all_cuts(network: &Network, side: &BTreeSet<usize>, both_ways: bool) -> BTreeSet<(usize, usize)> {
    let mut cut = BTreeSet::new();
    for a in side {
        for b in (0..network.nodes()).filter(|b| !side.contains(b)) {
            cut.insert((*a, b));
            if both_ways {
                cut.insert((b, *a));
            }
        }
    }
    cut
}

#[test]
fn nodes_that_start_together_share_the_addresses_and_each_has_one_holder() {
    for seed in schedules() {
        let mut network = running(5, 12, seed);
        network.run_for(Duration::from_secs(60));
        network.assert_in_order();
        assert!(network.outages() == 0, "seed {seed}: renewed in time");
    }
}

#[test]
fn the_addresses_of_a_node_that_dies_are_held_by_others_within_a_second() {
    for seed in schedules() {
        let mut network = running(5, 12, seed);
        let victim = network.chance(0..5);
        network.power_off(victim);
        network.run_for(ms(1_000));
        network.assert_in_order();
        assert!(network.longest_outage() <= ms(1_000), "seed {seed}: {:?}", network.longest_outage());
        let after = network.chance(0..30_000);
        network.run_for(ms(after));
        network.count_from_here();
        network.power_on(victim);
        network.run_for(ms(3_000));
        network.assert_in_order();
        assert!(
            network.longest_outage() <= ms(50),
            "seed {seed}: {:?} as it came back",
            network.longest_outage()
        );
    }
}

#[test]
fn a_host_that_probes_for_everything_keeps_nobody_from_the_addresses() {
    for seed in schedules() {
        let mut network = running(3, 8, seed);
        // Before and after the members' own.
        let mac = if seed % 2 == 0 { Mac([0, 0, 0, 0, 0, 1]) } else { Mac([6, 0, 0, 0, 0, 1]) };
        (0..3).for_each(|node| network.make_noise(node, mac));
        let victim = network.chance(0..3);
        network.power_off(victim);
        network.run_for(ms(1_000));
        network.assert_in_order();
        network.count_from_here();
        network.power_on(victim);
        network.run_for(ms(2_500));
        network.assert_in_order();
        assert!(
            network.longest_outage() <= ms(50),
            "seed {seed}: {:?} as it came back",
            network.longest_outage()
        );
    }
}

#[test]
fn a_node_that_leaves_hands_over_within_50_ms_and_keeps_nothing() {
    for seed in schedules() {
        let mut network = running(4, 12, seed);
        let leaver = network.chance(0..4);
        network.leave(leaver);
        network.run_for(ms(2_100));
        assert!(network.has_left(leaver) && network.held_by(leaver).is_empty(), "seed {seed}");
        network.assert_in_order();
        assert!(network.longest_outage() <= ms(50), "seed {seed}: {:?}", network.longest_outage());
    }
}

#[test]
fn a_stopped_agent_whose_kernel_answers_is_not_interfered_with_and_its_return_neither() {
    for seed in schedules() {
        let mut network = running(4, 12, seed);
        let victim = network.chance(0..4);
        network.stop_agent(victim);
        let held = network.held_by(victim);
        network.run_for(ms(5_000));
        assert_eq!(network.held_by(victim), held, "seed {seed}");
        assert!(network.outages() == 0, "seed {seed}");
        // Its addresses expire some time, or it comes back before, or just then.
        let until = network.chance(0..20_000);
        network.run_for(ms(until));
        network.resume_agent(victim);
        network.run_for(ms(4_000));
        network.assert_in_order();
        assert!(network.longest_outage() <= ms(1_200), "seed {seed}: {:?}", network.longest_outage());
    }
}

#[test]
fn an_agent_that_is_killed_is_followed_by_one_that_adopts_what_it_finds() {
    for seed in schedules() {
        let mut network = running(4, 12, seed);
        let victim = network.chance(0..4);
        network.kill_agent(victim);
        let down = network.chance(0..5_000);
        network.run_for(ms(down));
        network.start_agent(victim);
        network.run_for(ms(3_000));
        network.assert_in_order();
        assert!(network.longest_outage() <= ms(50), "seed {seed}: {:?}", network.longest_outage());
    }
}

#[test]
fn after_an_l2_partition_heals_one_holder_is_left_within_a_second() {
    for seed in schedules() {
        let mut network = running(5, 12, seed);
        let side: BTreeSet<usize> = (0..5).filter(|_| network.chance(0..2) == 0).collect();
        let both_ways = network.chance(0..2) == 0;
        let cut = all_cuts(&network, &side, both_ways);
        network.set_cut(cut);
        let apart = network.chance(0..10_000);
        network.run_for(ms(apart));
        let healed = network.now;
        network.set_cut(BTreeSet::new());
        network.run_for(ms(1_000));
        network.assert_in_order();
        network.run_for(ms(2_000));
        network.assert_in_order();
        if apart > 1_000 && both_ways && !side.is_empty() && side.len() < 5 {
            let again = network.announcements.iter().filter(|(at, ..)| *at >= healed).count();
            assert!(again > 0, "seed {seed}: nobody was told again");
        }
    }
}

#[test]
fn a_node_that_hears_nothing_takes_nothing_from_those_who_are_heard() {
    for seed in schedules() {
        let mut network = running(4, 12, seed);
        let victim = network.chance(0..4);
        let held = network.held_by(victim);
        let begun = network.now;
        let others = (0..4).filter(|other| *other != victim);
        network.set_cut(others.map(|other| (other, victim)).collect());
        let deaf = network.chance(600..8_000);
        network.run_for(ms(deaf));
        let of_others = network
            .announcements
            .iter()
            .filter(|(at, node, address)| *at >= begun && *node == victim && !held.contains(address));
        assert_eq!(of_others.count(), 0, "seed {seed}: they are held by others, which it cannot hear");
        assert!(network.held_by(victim).iter().all(|address| held.contains(address)), "seed {seed}");
        network.set_cut(BTreeSet::new());
        network.run_for(ms(2_000));
        network.assert_in_order();
    }
}

#[test]
fn a_node_whose_cable_is_pulled_is_replaced_and_has_nothing_when_it_comes_back() {
    for seed in schedules() {
        let mut network = running(4, 12, seed);
        let victim = network.chance(0..4);
        network.set_carrier(victim, false);
        let away = network.chance(1..3_000);
        network.run_for(ms(away));
        // The checker looks from the first moment on.
        network.set_carrier(victim, true);
        network.run_for(ms(2_500));
        network.assert_in_order();
        assert!(network.longest_outage() <= ms(1_000), "seed {seed}: {:?}", network.longest_outage());
    }
}

#[test]
fn an_address_that_someone_takes_off_is_back_within_100_ms() {
    for seed in schedules() {
        let mut network = running(3, 6, seed);
        for ip in network.addresses() {
            let holder = network.holders(ip)[0];
            network.take_off(holder, ip);
            network.run_for(ms(100));
            assert_eq!(network.holders(ip), [holder], "seed {seed}");
        }
    }
}

#[test]
fn an_address_that_nobody_wants_any_more_is_gone_at_once() {
    let mut network = running(3, 6, 1);
    for ip in network.addresses() {
        network.forget(ip);
        network.run_for(ms(10));
        assert!(network.holders(ip).is_empty());
    }
}

#[test]
fn whatever_happens_in_whatever_order_there_is_one_holder_at_most() {
    for seed in schedules() {
        let mut network = running(5, 8, 1_000 + seed);
        for _ in 0..30 {
            disturb(&mut network);
            let pause = network.chance(0..1_500);
            network.run_for(ms(pause));
        }
        settle(&mut network, ms(3_000));
    }
}

#[test]
fn whatever_happens_to_the_wire_too_those_that_reach_each_other_have_one_holder_at_most() {
    for seed in schedules() {
        let mut network = running(5, 8, 2_000_000 + seed);
        for _ in 0..30 {
            match network.chance(0..3) {
                0 => disturb_wire(&mut network),
                _ => disturb(&mut network),
            }
            let pause = network.chance(0..1_500);
            network.run_for(ms(pause));
        }
        settle(&mut network, ms(3_000));
    }
}

#[test]
fn where_frames_are_lost_two_holders_find_out_within_a_second_and_a_half() {
    for seed in schedules() {
        let mut network = running(4, 8, 3_000_000 + seed);
        network.allow_doubles_for(ms(1_500));
        network.set_loss(100);
        for _ in 0..10 {
            disturb(&mut network);
            let pause = network.chance(0..3_000);
            network.run_for(ms(pause));
        }
        network.set_loss(0);
        settle(&mut network, ms(3_000));
    }
}

/// All are brought back; then it must be quiet and in order.
fn settle(network: &mut Network, time: Duration) {
    network.set_cut(BTreeSet::new());
    for node in 0..network.nodes() {
        if !network.has_carrier(node) {
            network.set_carrier(node, true);
        }
        match network.agent(node) {
            Agent::Running if network.is_leaving(node) => {
                network.kill_agent(node);
                network.start_agent(node);
            }
            Agent::Running => {}
            Agent::Stopped => network.resume_agent(node),
            Agent::Gone => network.power_on(node),
        }
    }
    network.run_for(time);
    network.assert_in_order();
    network.count_from_here();
    network.run_for(ms(30_000));
    network.assert_in_order();
    assert_eq!(network.outages(), 0, "renewed in time");
}

/// Something that leaves the wire whole.
fn disturb(network: &mut Network) {
    let node = network.chance(0..network.nodes());
    match (network.agent(node), network.chance(0..6)) {
        (Agent::Running, _) if network.is_leaving(node) => network.kill_agent(node),
        (Agent::Running, 0) => network.power_off(node),
        (Agent::Running, 1) => network.kill_agent(node),
        (Agent::Running, 2) => network.stop_agent(node),
        (Agent::Running, 3) => network.leave(node),
        (Agent::Running, _) => {
            if let Some(ip) = network.held_by(node).first().copied() {
                network.take_off(node, ip);
            }
        }
        (Agent::Stopped, 0) => network.kill_agent(node),
        (Agent::Stopped, _) => network.resume_agent(node),
        (Agent::Gone, _) => network.power_on(node),
    }
}

/// A cable, or some of what goes between nodes, in one direction or in both.
fn disturb_wire(network: &mut Network) {
    let node = network.chance(0..network.nodes());
    match network.chance(0..4) {
        0 => network.set_carrier(node, !network.has_carrier(node)),
        1 => network.set_cut(BTreeSet::new()),
        way => {
            let side: BTreeSet<usize> = (0..network.nodes()).filter(|_| network.chance(0..2) == 0).collect();
            let cut = all_cuts(network, &side, way == 2);
            network.set_cut(cut);
        }
    }
}
