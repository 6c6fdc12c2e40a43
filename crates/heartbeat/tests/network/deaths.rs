//! Starting, dying, leaving, and coming back.

use super::*;
use heartbeat::Standing;

#[test]
fn members_find_each_other_within_the_time_that_greetings_take() {
    for (seed, count) in [(1, 2), (2, 3), (3, 10), (4, 40)] {
        println!("seed {seed}");
        let mut net = Network::new(seed, count);
        let all: Vec<_> = (0..count).collect();
        // One greeting each 10 ms, and some for the way.
        let most = millis(20 + 10 * count as u64);
        assert!(net.run_until(most, |net| net.are_alive(&all)).is_some());
        assert_eq!(net.deaths(), [], "nobody is called dead who only starts");
    }
}

#[test]
fn a_killed_member_is_dead_to_all_within_the_detection_and_confirmation_time() {
    for (seed, count) in [(1, 2), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 8), (8, 20), (9, 50)] {
        let mut net = settled(seed, count);
        let wait = net.below(100);
        net.run_for(millis(wait));
        let victim = net.below(count as u64) as usize;
        let name = net.name(victim);
        net.kill(victim);
        let killed = net.now();
        net.run_for(DETECTION + CONFIRMATION + millis(10));
        for node in others(&net, victim) {
            assert!(net.is_dead_to(node, victim), "{node} of {count} does not know it");
        }
        let deaths = net.deaths();
        assert_eq!(deaths.len(), count - 1, "nobody else is dead: {deaths:?}");
        for (at, who, whom) in deaths {
            let after = at.since(killed);
            assert_eq!(whom, name);
            // The last heartbeat was sent at most an interval before.
            assert!(after >= DETECTION - millis(101), "{who} after {after:?}");
        }
    }
}

#[test]
fn in_the_middle_a_death_is_known_450_ms_after_it() {
    let mut all = Vec::new();
    for seed in 0..40 {
        let mut net = settled(seed, 3);
        let wait = net.below(100);
        net.run_for(millis(wait));
        net.kill(2);
        let took = net.run_until(millis(1_000), |net| net.is_dead_to(0, 2) && net.is_dead_to(1, 2)).unwrap();
        all.push(took);
    }
    all.sort_unstable();
    println!("{all:?}");
    assert!(all[20] <= millis(470) && all[39] <= millis(510), "median {:?}, most {:?}", all[20], all[39]);
}

#[test]
fn one_that_says_it_leaves_is_leaving_for_all_and_is_dead_once_it_is_gone() {
    for (seed, count) in [(1, 2), (2, 3), (3, 9), (4, 30)] {
        let mut net = settled(seed, count);
        net.set_loss(if seed % 2 == 0 { 100 } else { 0 });
        net.with(0, |group, now| group.leave(now));
        let told = net.run_until(millis(1_000), |net| net.group(0).is_everything_told());
        assert!(told.is_some(), "it cannot know when to end");
        let name = net.name(0);
        for node in 1..count {
            assert!(net.state(node, 0).is_leaving && net.state(node, 0).is_alive());
            assert_eq!(events(&mut net, node), [Event::Leaving { name: name.clone() }]);
        }
        net.set_loss(0);
        net.kill(0);
        net.run_for(millis(600));
        for node in 1..count {
            assert!(net.is_dead_to(node, 0));
        }
    }
}

#[test]
fn readiness_is_known_to_all_at_once() {
    let mut net = settled(1, 30);
    net.with(7, |group, now| group.set_ready(true, now));
    net.run_for(millis(2));
    for node in others(&net, 7) {
        assert!(net.state(node, 7).is_ready);
        let expected = Event::Alive { name: net.name(7), mac: [2, 0, 0, 0, 0, 7], is_ready: true };
        assert_eq!(events(&mut net, node), [expected]);
    }
    net.with(7, |group, now| group.set_ready(false, now));
    net.run_for(millis(2));
    assert!(others(&net, 7).iter().all(|node| !net.state(*node, 7).is_ready));
}

#[test]
fn a_process_that_follows_another_at_once_is_no_death_and_is_told_once() {
    for (seed, count) in [(1, 2), (2, 3), (3, 20)] {
        let mut net = settled(seed, count);
        net.start(1);
        net.run_for(millis(2_000));
        assert_eq!(net.deaths(), []);
        for node in others(&net, 1) {
            let expected = Event::Alive { name: net.name(1), mac: [2, 0, 0, 0, 0, 1], is_ready: false };
            assert_eq!(events(&mut net, node), [expected]);
        }
        assert!(net.are_alive(&net.running()));
    }
}

#[test]
fn one_that_was_dead_comes_back_alive_to_all() {
    for (seed, count) in [(1, 2), (2, 3), (3, 20)] {
        let mut net = settled(seed, count);
        net.kill(0);
        net.run_for(millis(3_000));
        net.start(0);
        let all = net.running();
        let took = net.run_until(millis(1_000), |net| net.are_alive(&all)).unwrap();
        println!("{took:?}");
        assert!(took <= millis(10 * count as u64 + 20), "{took:?}");
    }
}

#[test]
fn a_stopped_process_dies_and_takes_nobody_with_it_when_it_goes_on() {
    for (seed, count, pause) in [(1, 2, 10_000), (2, 3, 1_000), (3, 3, 60_000), (4, 12, 5_000)] {
        let mut net = settled(seed, count);
        net.pause(0);
        net.run_for(millis(pause));
        for node in 1..count {
            assert!(net.is_dead_to(node, 0));
        }
        net.forget_past();
        net.resume(0);
        let all = net.running();
        let took = net.run_until(millis(1_000), |net| net.are_alive(&all)).unwrap();
        assert!(took <= millis(150), "{took:?}");
        net.run_for(millis(2_000));
        assert!(net.are_alive(&all));
        assert_eq!(net.deaths(), [], "it holds nobody dead because it stood still");
        assert!(events(&mut net, 0).contains(&Event::CalledDead), "it knows that it was held dead");
    }
}

#[test]
fn a_machine_that_was_suspended_suspects_nobody_for_what_it_has_missed() {
    for (seed, count) in [(1, 2), (2, 3), (3, 12)] {
        let mut net = settled(seed, count);
        let others = others(&net, 0);
        // Nothing is kept for it, as a socket keeps for a stopped process.
        net.part(&[0], &others);
        net.pause(0);
        net.run_for(millis(30_000));
        net.heal();
        net.resume(0);
        net.run_for(millis(2_000));
        assert!(net.are_alive(&net.running()));
        let told = events(&mut net, 0);
        let is_doubt = |event: &Event| matches!(event, Event::Suspected { .. } | Event::Dead { .. });
        assert!(!told.iter().any(is_doubt), "{told:?}");
    }
}

#[test]
fn short_pauses_are_not_even_a_suspicion() {
    let mut net = settled(1, 5);
    for _ in 0..20 {
        net.pause(0);
        net.run_for(millis(300));
        net.resume(0);
        net.run_for(millis(700));
    }
    for node in 0..5 {
        assert_eq!(events(&mut net, node), []);
    }
}

#[test]
fn most_of_a_group_may_die_at_once() {
    for (seed, count, survivors) in [(1, 3, 1), (2, 4, 2), (3, 20, 3), (4, 40, 20)] {
        let mut net = settled(seed, count);
        (survivors..count).for_each(|node| net.kill(node));
        // One generation of watchers after the other; one that hears nobody waits twice as long.
        net.run_for(millis(2_500));
        for node in 0..survivors {
            for dead in survivors..count {
                assert!(net.is_dead_to(node, dead), "{dead} to {node} of {count}");
            }
        }
        assert!(net.are_alive(&net.running()));
    }
}

#[test]
fn a_member_that_was_never_heard_is_unknown_then_dead_and_never_told_as_alive() {
    let mut net = Network::new(1, 3);
    net.kill(2);
    net.run_for(millis(400));
    assert_eq!(net.state(0, 2).standing, Standing::Unknown);
    net.run_for(millis(400));
    assert!(net.is_dead_to(0, 2) && net.is_dead_to(1, 2));
    let told = events(&mut net, 0);
    assert_eq!(told.iter().filter(|event| matches!(event, Event::Alive { .. })).count(), 1, "{told:?}");
}

#[test]
fn members_come_and_go_by_the_registry() {
    let mut net = settled(1, 6);
    let all = net.members();
    let mut fewer = all.clone();
    fewer.remove(&net.name(5));
    for node in 0..5 {
        net.with(node, |group, now| group.set_members(&fewer, now));
    }
    net.run_for(millis(1_000));
    assert_eq!(net.group(0).state("node-5"), None);
    assert_eq!(net.group(0).members().count(), 4);
    for node in 0..5 {
        net.with(node, |group, now| group.set_members(&all, now));
    }
    net.run_for(millis(1_000));
    assert!(net.are_alive(&net.running()));
    let told = events(&mut net, 0);
    assert!(!told.iter().any(|event| matches!(event, Event::Dead { .. })), "{told:?}");
}
