//! Cuts, one-way loss and partitions.

use super::*;
use heartbeat::Name;

#[test]
fn a_cut_between_two_is_no_death_while_others_hear_both() {
    for (seed, count) in [(1, 3), (2, 4), (3, 12)] {
        for is_both in [false, true] {
            let mut net = settled(seed, count);
            for to in 1..3.min(count) {
                net.cut(0, to);
                if is_both {
                    net.cut(to, 0);
                }
                // With three members one has to be left.
                if count == 3 {
                    break;
                }
            }
            net.run_for(millis(10_000));
            assert_eq!(net.deaths(), [], "{count} members, both ways: {is_both}");
            net.heal();
            net.run_for(millis(1_000));
            assert!(net.are_alive(&net.running()));
        }
    }
}

#[test]
fn a_member_that_cannot_send_is_dead_to_all_and_knows_it() {
    for (seed, count) in [(1, 2), (2, 3), (3, 12)] {
        let mut net = settled(seed, count);
        (1..count).for_each(|to| net.cut(0, to));
        net.run_for(millis(700));
        for node in 1..count {
            assert!(net.is_dead_to(node, 0));
        }
        assert!(events(&mut net, 0).contains(&Event::CalledDead));
        assert!((1..count).all(|node| net.state(0, node).is_alive()));
        net.heal();
        net.run_for(millis(1_000));
        assert!(net.are_alive(&net.running()));
    }
}

#[test]
fn a_member_that_hears_nobody_is_not_ready_to_the_others_and_has_nobody_dead_to_them() {
    for (seed, count) in [(1, 3), (2, 5), (3, 12)] {
        let mut net = settled(seed, count);
        for node in 0..count {
            net.with(node, |group, now| group.set_ready(true, now));
        }
        net.run_for(millis(100));
        net.forget_past();
        (1..count).for_each(|from| net.cut(from, 0));
        net.run_for(millis(700));
        assert!(net.group(0).is_alone());
        for node in 1..count {
            let state = net.state(node, 0);
            assert!(state.is_alive() && !state.is_ready, "{node}: {state:?}");
        }
        net.run_for(millis(10_000));
        // Once nobody lives for it, it has no one to send heartbeats to, and is as good as dead.
        let of_others = |(_, who, whom): &(_, usize, Name)| *who != 0 && **whom != *"node-0";
        assert!(!net.deaths().iter().any(of_others), "only to itself: {:?}", net.deaths());
        net.heal();
        net.run_for(millis(2_000));
        assert!(net.are_alive(&net.running()) && !net.group(0).is_alone());
        assert!((1..count).all(|node| net.state(node, 0).is_ready));
    }
}

#[test]
fn whoever_hears_nobody_doubts_itself_for_a_second_detection_time() {
    for (seed, count) in [(1, 3), (2, 5), (3, 12)] {
        let mut net = settled(seed, count);
        (1..count).for_each(|from| net.cut(from, 0));
        net.run_for(DETECTION * 2 - millis(200));
        net.heal();
        net.run_for(millis(2_000));
        assert_eq!(net.deaths(), [], "{count} members");
        assert!(net.are_alive(&net.running()));
    }
}

#[test]
fn after_a_partition_each_side_is_whole_and_healing_unites_them_within_a_second() {
    for (seed, count, left) in [(1, 2, 1), (2, 3, 1), (3, 5, 2), (4, 12, 6), (5, 40, 20), (6, 40, 3)] {
        let mut net = settled(seed, count);
        let (one, other): (Vec<usize>, Vec<usize>) = (0..count).partition(|node| *node < left);
        net.part(&one, &other);
        net.run_for(millis(2_000));
        for (own, far) in [(&one, &other), (&other, &one)] {
            assert!(net.are_alive(own), "{count} members");
            assert!(own.iter().all(|node| far.iter().all(|far| net.is_dead_to(*node, *far))));
        }
        net.run_for(millis(5_000));
        net.forget_past();
        net.heal();
        let all = net.running();
        let took = net.run_until(millis(1_500), |net| net.are_alive(&all));
        println!("united after {took:?}");
        assert!(took.is_some_and(|took| took <= millis(1_000)), "{count} members: {took:?}");
        net.run_for(millis(3_000));
        assert!(net.are_alive(&all));
        assert_eq!(net.deaths(), []);
    }
}

#[test]
fn random_faults_end_in_agreement_once_they_are_over() {
    for seed in 0..10 {
        println!("seed {seed}");
        let mut net = Network::new(seed, 2 + (seed as usize * 5) % 23);
        let count = net.count() as u64;
        for _ in 0..30 {
            let node = net.below(count) as usize;
            let other = net.below(count) as usize;
            let is_running = net.running().contains(&node);
            match net.below(8) {
                0 if is_running => net.kill(node),
                1 if is_running => net.pause(node),
                2 if is_running => net.resume(node),
                0..=2 => net.start(node),
                3 => net.cut(node, other),
                4 => net.part(&[node], &[other]),
                5 => net.heal(),
                6 => {
                    let loss = net.below(600);
                    net.set_loss(loss);
                }
                _ => {
                    let most = 500 + net.below(100_000);
                    net.set_delay(50, most);
                }
            }
            let wait = net.below(900);
            net.run_for(millis(wait));
        }
        net.heal();
        net.set_loss(0);
        net.set_delay(50, 500);
        let running = net.running();
        running.iter().for_each(|node| net.resume(*node));
        net.run_for(millis(6_000));
        assert!(net.are_alive(&running));
        for dead in (0..net.count()).filter(|node| !running.contains(node)) {
            assert!(running.iter().all(|node| net.is_dead_to(*node, dead)), "{dead} is gone");
        }
        net.forget_past();
        net.run_for(millis(5_000));
        assert_eq!(net.deaths(), []);
    }
}
