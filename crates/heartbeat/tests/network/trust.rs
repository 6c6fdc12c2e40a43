//! Who may be believed: nothing that is forged, of another group or heard before changes anything.

use super::*;
use heartbeat::{
    Dropped, Group, Local,
    testing::{SUBNET, config},
};

/// Everything that a group is.
fn everything(group: &Group) -> String {
    format!("{group:?}")
}

#[test]
fn what_was_heard_before_changes_nothing() {
    for seed in 0..3 {
        let mut net = settled(seed, 4);
        net.recorder = 400;
        net.run_for(millis(2_000));
        let recorded = std::mem::take(&mut net.recorded);
        assert!(recorded.len() > 100);
        for (from, to, octets) in recorded {
            let address = net.address(from);
            net.with(to, |group, now| {
                let before = everything(group);
                let result = group.handle_datagram(address, &octets, now);
                assert_eq!(result, Err(Dropped::Replayed));
                assert_eq!(everything(group), before);
            });
        }
    }
}

#[test]
fn what_was_touched_or_goes_elsewhere_changes_nothing() {
    let mut net = settled(1, 4);
    net.recorder = 60;
    // They do not arrive, so that they are new to whoever gets them.
    net.set_loss(1000);
    net.run_for(millis(200));
    let recorded = std::mem::take(&mut net.recorded);
    for (from, to, octets) in recorded {
        let address = net.address(from);
        let elsewhere = (0..4).find(|node| *node != from && *node != to).unwrap();
        let mut offer = |node: usize, address, octets: &[u8]| {
            net.with(node, |group, now| {
                let before = everything(group);
                let result = group.handle_datagram(address, octets, now);
                assert!(result.is_err(), "{result:?}");
                assert_eq!(everything(group), before);
                result.unwrap_err()
            })
        };
        assert_eq!(offer(elsewhere, address, &octets), Dropped::Tag, "it was for another");
        assert!(matches!(offer(from, address, &octets), Dropped::Stranger(_)), "reflected");
        assert!(matches!(offer(to, "198.51.100.1:7934".parse().unwrap(), &octets), Dropped::Source(_)));
        for place in 0..octets.len() {
            let mut touched = octets.to_vec();
            touched[place] ^= 0x10;
            offer(to, address, &touched);
            offer(to, address, &octets[..place]);
        }
    }
}

#[test]
fn another_group_or_key_is_not_heard() {
    let mut net = settled(1, 2);
    let members = net.members();
    for (group, key, expected) in [
        ("192.0.3.0/24", "a key for the tests", Dropped::Group),
        (SUBNET, "another key for the tests", Dropped::Tag),
    ] {
        let keys = heartbeat::Keys::parse(key.as_bytes()).unwrap();
        let other = heartbeat::Config::new(millis(100), 5, keys).unwrap();
        let local = Local { group: group.to_owned(), ..net.group(1).local().clone() };
        let mut stranger = Group::new(other, local, net.now(), 3);
        stranger.set_members(&members, net.now());
        let (_, octets) = stranger.poll_transmit().unwrap();
        let address = net.address(1);
        net.with(0, |group, now| {
            let before = everything(group);
            assert_eq!(group.handle_datagram(address, &octets, now), Err(expected));
            assert_eq!(everything(group), before);
        });
    }
}

#[test]
fn a_recording_keeps_nobody_alive_not_even_for_one_who_has_forgotten_it() {
    for (seed, is_restarted) in [(1, false), (2, true)] {
        let mut net = settled(seed, 3);
        net.recorder = 2_000;
        net.run_for(millis(5_000));
        let recorded: Vec<_> = net.recorded.drain(..).filter(|(from, ..)| *from == 2).collect();
        let all = net.members();
        net.kill(2);
        if is_restarted {
            (0..2).for_each(|node| net.start(node));
        } else {
            let without = all.iter().filter(|(name, _)| ***name != *"node-2");
            let without = without.map(|(name, address)| (name.clone(), *address)).collect();
            for node in 0..2 {
                net.with(node, |group, now| group.set_members(&without, now));
                net.with(node, |group, now| group.set_members(&all, now));
            }
        }
        let address = net.address(2);
        for (_, to, octets) in &recorded {
            net.with(*to, |group, now| group.handle_datagram(address, octets, now).unwrap_err());
            net.run_for(millis(5));
        }
        assert!(net.is_dead_to(0, 2) && net.is_dead_to(1, 2), "restarted: {is_restarted}");
    }
}

#[test]
fn a_key_is_changed_without_a_death_by_way_of_two() {
    let keys = |text: &str| heartbeat::Keys::parse(text.as_bytes()).unwrap();
    let config = |text: &str| heartbeat::Config::new(millis(100), 5, keys(text)).unwrap();
    let (old, new) = ("the old key, as it was", "the new key, as it is to be");
    let mut net = Network::with_config(1, 3, config(old));
    net.run_for(millis(1_000));
    let steps = [format!("{old}\n{new}"), format!("{new}\n{old}"), new.to_owned()];
    for step in &steps {
        net.set_config(config(step));
        for node in 0..3 {
            net.start(node);
            net.run_for(millis(1_000));
        }
    }
    assert_eq!(net.deaths(), []);
    assert!(net.are_alive(&net.running()));
}

#[test]
fn whoever_has_other_settings_is_judged_by_its_own() {
    let keys = heartbeat::Keys::parse(b"a key for the tests").unwrap();
    let mut net = Network::with_config(1, 3, config());
    net.set_config(heartbeat::Config::new(millis(1_000), 3, keys).unwrap());
    net.start(2);
    net.run_for(millis(2_000));
    net.forget_past();
    net.run_for(millis(30_000));
    assert_eq!(net.deaths(), [], "a heartbeat a second is enough for it");
    net.kill(2);
    net.run_for(millis(2_400));
    assert!(!net.is_dead_to(0, 2));
    net.run_for(millis(700));
    assert!(net.is_dead_to(0, 2));
}
