//! Random loss. At 20 % a watcher misses five heartbeats of a member about every 300 s; that it does, that neither of
//! two other watchers has heard it of late, or answers, and that none of ten probes comes back, is less than 1e-8 a
//! heartbeat: with 100 members one false alarm in ten hours or more. Two members have nobody to ask, and less than 1e-6.
//! These tests are long enough to see it if one of these safeguards is missing, and too short to see it otherwise.

use super::*;

#[test]
fn a_fifth_of_all_datagrams_lost_kills_nobody() {
    for (seed, count, secs) in [(1, 2, 300), (2, 2, 300), (3, 3, 200), (4, 5, 120), (5, 16, 60), (6, 60, 8)] {
        let mut net = settled(seed, count);
        net.set_loss(200);
        net.run_for(Duration::from_secs(secs));
        let suspected = (0..count).flat_map(|node| events(&mut net, node));
        let suspected: Vec<_> = suspected.collect();
        let is_death = |event: &&Event| matches!(event, Event::Dead { .. } | Event::CalledDead);
        assert_eq!(suspected.iter().filter(is_death).count(), 0, "{count} members: {suspected:?}");
        println!("{count} members, {secs} s: {} events", suspected.len());
    }
}

#[test]
fn deaths_are_found_and_told_with_a_fifth_lost() {
    for (seed, count) in [(1, 3), (2, 5), (3, 16), (4, 40)] {
        let mut net = settled(seed, count);
        net.set_loss(200);
        net.run_for(millis(1_000));
        net.kill(0);
        net.run_for(DETECTION + CONFIRMATION);
        let known = (1..count).filter(|node| net.is_dead_to(*node, 0)).count();
        assert!(known > 0, "at least the watchers know");
        net.run_for(millis(100));
        let known = (1..count).filter(|node| net.is_dead_to(*node, 0)).count();
        assert_eq!(known, count - 1, "one more interval, and all do");
        assert_eq!(net.deaths().len(), count - 1);
    }
}

#[test]
fn whoever_is_held_dead_wrongly_is_alive_again_with_a_higher_incarnation() {
    for seed in 0..6 {
        let mut net = settled(seed, 6);
        // For a moment nobody hears it.
        (1..6).for_each(|to| net.cut(0, to));
        let took = net.run_until(millis(1_000), |net| (1..6).all(|node| net.is_dead_to(node, 0)));
        assert!(took.is_some());
        net.heal();
        net.set_loss(200);
        let all = net.running();
        let took = net.run_until(millis(1_000), |net| net.are_alive(&all)).unwrap();
        println!("{took:?}");
        assert!(took <= millis(400), "{took:?}");
        assert!(events(&mut net, 0).contains(&Event::CalledDead));
    }
}
