//! Two ends in a network that loses, delays and reorders packets, or carries them one way only: virtual time, all
//! of it from a printed seed.

use super::*;

const ENDS: usize = 2;

struct Network {
    now: Time,
    chance: Jitter,
    ends: [Session; ENDS],
    /// To whom, when; in the order of sending where the times are equal.
    under_way: BTreeMap<(Time, u64), (usize, Packet)>,
    sent: u64,
    /// Of 1000 packets.
    loss: u64,
    delay: (u64, u64),
    /// Whether a packet may overtake the one before.
    reorders: bool,
    /// When the last packet to each end arrives.
    last_arrival: [Time; ENDS],
    /// Whether packets to this end are carried.
    carries_to: [bool; ENDS],
    /// Every verdict that an end came to, with the time.
    verdicts: Vec<(Time, usize, Report)>,
}

impl Network {
    fn new(seed: u64, configs: [Config; ENDS]) -> Network {
        let mut chance = Jitter::new(seed);
        let [first, second] = configs;
        let ends = [
            Session::new(first, number(101), chance.next(), Time::ZERO),
            Session::new(second, number(202), chance.next(), Time::ZERO),
        ];
        Network {
            now: Time::ZERO,
            chance,
            ends,
            under_way: BTreeMap::new(),
            sent: 0,
            loss: 0,
            delay: (50, 500),
            reorders: false,
            last_arrival: [Time::ZERO; ENDS],
            carries_to: [true; ENDS],
            verdicts: Vec::new(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.chance.next() % limit.max(1)
    }

    fn run_to(&mut self, end: Time) {
        loop {
            let timeouts = (0..ENDS).filter_map(|end| Some((self.ends[end].poll_timeout()?, end)));
            let timeout = timeouts.min();
            let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
            match (timeout, arrival) {
                (Some((at, who)), arrival) if at <= end && arrival.is_none_or(|other| at < other) => {
                    self.now = self.now.max(at);
                    self.ends[who].handle_timeout(self.now);
                    self.drain(who);
                }
                (_, Some(at)) if at <= end => {
                    let (_, (to, packet)) = self.under_way.pop_first().unwrap();
                    self.now = self.now.max(at);
                    self.ends[to].handle_received(&packet, self.now);
                    self.drain(to);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn drain(&mut self, from: usize) {
        let report = self.ends[from].report();
        let before =
            self.verdicts.iter().rev().find(|(_, who, _)| *who == from).map(|(_, _, report)| *report);
        if before != Some(report) {
            self.verdicts.push((self.now, from, report));
        }
        let mut burst = 0;
        while let Some(packet) = self.ends[from].poll_transmit(self.now) {
            burst += 1;
            assert!(burst <= 3, "it does not end to send");
            let to = 1 - from;
            self.sent += 1;
            if !self.carries_to[to] || self.below(1000) < self.loss {
                continue;
            }
            let (least, most) = self.delay;
            let delay = Duration::from_micros(least + self.below(most - least));
            // As it came over a wire, not as a value.
            let packet = Packet::decode(&packet.encode()).unwrap();
            let at = self.now + delay;
            let at = if self.reorders { at } else { at.max(self.last_arrival[to]) };
            self.last_arrival[to] = at;
            self.under_way.insert((at, self.sent), (to, packet));
        }
    }

    fn are_up(&self) -> bool {
        self.ends.iter().all(|end| end.report().state == State::Up)
    }

    fn failures(&self) -> Vec<(Time, usize)> {
        let failed = |report: &Report| matches!(report.verdict, Verdict::Failed(_));
        self.verdicts
            .iter()
            .filter(|(_, _, report)| report.state == State::Down && failed(report))
            .map(|(at, who, _)| (*at, *who))
            .collect()
    }
}

fn random_config(chance: &mut Jitter) -> Config {
    let mut draw = |choices: &[u64]| choices[(chance.next() % choices.len() as u64) as usize];
    let detect_mult = draw(&[1, 2, 3, 5]) as u8;
    config(draw(&[10, 50, 300, 1500]), draw(&[10, 50, 300, 1500]), detect_mult)
}

#[test]
fn two_ends_come_up_whatever_their_values_and_stay_up_without_loss() {
    for seed in 0..16 {
        println!("seed {seed}");
        let mut chance = Jitter::new(seed);
        let mut configs = [random_config(&mut chance), random_config(&mut chance)];
        configs[0].passive = seed % 3 == 0;
        let mut net = Network::new(seed, configs);
        net.run_to(ms(3_000));
        assert!(net.are_up(), "{:?}", net.verdicts);
        net.run_to(ms(60_000));
        assert_eq!(net.failures(), [], "no false alarm");
    }
}

#[test]
fn a_cut_is_noticed_by_both_ends_within_their_detection_time_and_healing_brings_them_up() {
    for seed in 0..16 {
        println!("seed {seed}");
        let mut net = Network::new(seed, [config(50, 50, 3), config(50, 50, 3)]);
        net.run_to(ms(5_000));
        let cut = net.now;
        net.carries_to = [false; 2];
        net.run_to(ms(9_000));
        let failures = net.failures();
        assert_eq!(failures.len(), 2, "{failures:?}");
        for (at, _) in failures {
            let after = at.since(cut).as_micros();
            assert!((100_000..=150_500).contains(&after), "3 × 50 ms less a packet: {after}");
        }
        net.carries_to = [true; 2];
        net.run_to(ms(12_000));
        assert!(net.are_up(), "{:?}", net.verdicts);
    }
}

#[test]
fn a_path_that_works_one_way_brings_both_ends_down() {
    for seed in 0..16 {
        println!("seed {seed}");
        let mut net = Network::new(seed, [config(50, 50, 3), config(300, 100, 4)]);
        net.run_to(ms(10_000));
        assert!(net.are_up());
        let deaf = (seed % 2) as usize;
        net.carries_to[deaf] = false;
        net.run_to(ms(40_000));
        assert_eq!(net.failures().len(), 2, "the deaf one says it to the other: {:?}", net.verdicts);
        assert!(net.ends.iter().all(|end| end.report().state != State::Up));
    }
}

#[test]
fn with_loss_and_reordering_it_converges_once_the_network_is_good_again() {
    for seed in 0..16 {
        println!("seed {seed}");
        let mut chance = Jitter::new(seed);
        let configs = [random_config(&mut chance), random_config(&mut chance)];
        let mut net = Network::new(seed, configs);
        net.loss = 100 + net.below(800);
        (net.delay, net.reorders) = ((50, 200_000), true);
        net.run_to(ms(20_000));
        let [first, second] = [random_config(&mut chance), random_config(&mut chance)];
        net.ends[0].configure(first);
        net.ends[1].configure(second);
        net.run_to(ms(40_000));
        (net.loss, net.delay, net.reorders) = (0, (50, 500), false);
        net.run_to(ms(60_000));
        assert!(net.are_up(), "{:?}", net.verdicts);
        let failures = net.failures().len();
        net.run_to(ms(90_000));
        assert_eq!(net.failures().len(), failures, "it stays up");
    }
}

#[test]
fn changing_the_values_of_a_session_that_is_up_is_no_failure() {
    for seed in 0..16 {
        println!("seed {seed}");
        let mut chance = Jitter::new(seed);
        let configs = [random_config(&mut chance), random_config(&mut chance)];
        let mut net = Network::new(seed, configs);
        net.run_to(ms(10_000));
        for round in 0..20 {
            let who = net.below(2) as usize;
            let changed = random_config(&mut chance);
            net.ends[who].configure(changed);
            net.drain(who);
            let pause = net.below(5_000);
            net.run_to(ms(10_000 + round * 5_000 + pause));
        }
        net.run_to(ms(130_000));
        assert_eq!(net.failures(), [], "{:?}", net.verdicts);
        assert!(net.are_up());
    }
}

#[test]
fn an_end_that_starts_again_comes_up_anew_and_the_other_notices() {
    for seed in 0..16 {
        println!("seed {seed}");
        let mut net = Network::new(seed, [config(50, 50, 3), config(50, 50, 3)]);
        net.run_to(ms(5_000));
        net.ends[1] = Session::new(config(50, 50, 3), number(303), seed, net.now);
        net.run_to(ms(10_000));
        assert!(net.are_up(), "{:?}", net.verdicts);
        assert_eq!(net.failures().iter().filter(|(_, who)| *who == 0).count(), 1, "{:?}", net.verdicts);
    }
}

#[test]
fn a_disabled_end_is_no_failure_to_the_other() {
    for seed in 0..16 {
        println!("seed {seed}");
        let mut net = Network::new(seed, [config(50, 50, 3), config(300, 300, 3)]);
        net.loss = 100;
        net.run_to(ms(10_000));
        if !net.are_up() || !net.failures().is_empty() {
            continue;
        }
        net.ends[0].disable();
        net.drain(0);
        net.run_to(ms(20_000));
        assert_eq!(net.failures(), [], "{:?}", net.verdicts);
        assert_eq!(
            net.ends[1].report(),
            Report { state: State::Down, verdict: Verdict::Disabled, obstacle: None }
        );
    }
}
