//! Payloads: each arrives once and in order, or its sender is told.

use std::collections::BTreeSet;

use super::*;
use heartbeat::{MAX_PAYLOAD, SendError};

/// What a node was given of another, as numbers.
fn payloads(told: &[Event], from: usize) -> Vec<u64> {
    let of = format!("node-{from}");
    told.iter()
        .filter_map(|event| match event {
            Event::Payload { from, octets } if **from == *of => {
                Some(u64::from_be_bytes(octets[..8].try_into().unwrap()))
            }
            _ => None,
        })
        .collect()
}

fn number(number: u64, octets: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(octets.max(8), 7);
    payload
}

#[test]
fn a_payload_needs_no_more_than_the_way() {
    let mut net = settled(1, 3);
    let payload = number(1, MAX_PAYLOAD);
    net.with(0, |group, now| group.send("node-1", &payload, now)).unwrap();
    net.run_for(Duration::from_micros(501));
    assert_eq!(payloads(&events(&mut net, 1), 0), [1]);
    net.run_for(millis(2));
    assert!(net.group(0).is_everything_told());
}

#[test]
fn with_loss_and_reordering_all_arrive_once_and_in_order() {
    for seed in 0..5 {
        let mut net = settled(seed, 4);
        net.set_loss(300);
        net.set_delay(50, 20_000);
        let mut sent = 0;
        for _ in 0..50 {
            for _ in 0..net.below(6) {
                let octets = net.below(MAX_PAYLOAD as u64) as usize;
                let payload = number(sent, octets);
                net.with(0, |group, now| group.send("node-1", &payload, now)).unwrap();
                sent += 1;
            }
            let wait = net.below(60);
            net.run_for(millis(wait));
        }
        net.run_for(millis(20_000));
        assert!(net.group(0).is_everything_told());
        let told = events(&mut net, 1);
        assert_eq!(payloads(&told, 0), (0..sent).collect::<Vec<_>>());
    }
}

#[test]
fn whatever_happens_to_the_receiver_a_payload_arrives_at_most_once_and_if_not_its_sender_is_told() {
    for seed in 0..10 {
        let mut net = settled(seed, 3);
        net.set_loss(200);
        let (mut ids, mut sent) = (Vec::new(), 0);
        for _ in 0..60 {
            let payload = number(sent, 50);
            if let Ok(id) = net.with(0, |group, now| group.send("node-1", &payload, now)) {
                ids.push((id, sent));
                sent += 1;
            }
            match net.below(12) {
                0 => net.start(1),
                1 => net.kill(1),
                2 => net.part(&[0, 2], &[1]),
                3 => net.heal(),
                _ => {}
            }
            let wait = net.below(200);
            net.run_for(millis(wait));
        }
        net.heal();
        net.run_for(millis(10_000));
        let arrived = payloads(&events(&mut net, 1), 0);
        let arrived_once: BTreeSet<u64> = arrived.iter().copied().collect();
        assert_eq!(arrived.len(), arrived_once.len(), "none twice: {arrived:?}");
        let told = events(&mut net, 0);
        for (id, number) in ids {
            let is_told = told.iter().any(|it| matches!(it, Event::Undelivered { id: of, .. } if *of == id));
            assert!(arrived_once.contains(&number) || is_told, "{number} is lost and nobody says so");
        }
        assert!(net.group(0).is_everything_told());
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let mut net = settled(1, 3);
    let mut send = |to: &str, octets: usize| net.with(0, |group, now| group.send(to, &vec![0; octets], now));
    assert_eq!(send("node-9", 1), Err(SendError::Unknown("node-9".to_owned())));
    assert_eq!(send("node-0", 1), Err(SendError::Unknown("node-0".to_owned())), "not to oneself");
    assert_eq!(send("node-1", MAX_PAYLOAD + 1), Err(SendError::Long(MAX_PAYLOAD + 1)));
    assert!(send("node-1", 0).is_ok());
    net.kill(2);
    let full = (0..300).find_map(|_| net.with(0, |group, now| group.send("node-2", &[1], now)).err());
    assert_eq!(full, Some(SendError::Full("node-2".to_owned())));
    net.run_for(millis(700));
    let dead = net.with(0, |group, now| group.send("node-2", &[1], now));
    assert_eq!(dead, Err(SendError::Dead("node-2".to_owned())));
    let told = events(&mut net, 0);
    assert_eq!(told.iter().filter(|event| matches!(event, Event::Undelivered { .. })).count(), 256);
}
