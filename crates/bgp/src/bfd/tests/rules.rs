//! RFC 5880 §6.8, rule by rule. Those that need no session are tested beside `Packet::decode`.

use super::*;

fn received(from: State, packets: &[State]) -> State {
    let mut session = match from {
        State::Up => up(config(100, 100, 3), Time::ZERO),
        State::Init => {
            let mut session = session(config(100, 100, 3));
            session.handle_received(&packet(State::Down), Time::ZERO);
            session
        }
        State::Down => session(config(100, 100, 3)),
        State::AdminDown => {
            let mut session = session(config(100, 100, 3));
            session.disable();
            session
        }
    };
    assert_eq!(session.report().state, from);
    for state in packets {
        session.handle_received(&packet(*state), Time::ZERO);
    }
    session.report().state
}

#[test]
fn the_state_machine_is_the_table_of_section_6_2() {
    use State::{AdminDown, Down, Init, Up};
    for (from, rows) in [
        (Down, [(AdminDown, Down), (Down, Init), (Init, Up), (Up, Down)]),
        (Init, [(AdminDown, Down), (Down, Init), (Init, Up), (Up, Up)]),
        (Up, [(AdminDown, Down), (Down, Down), (Init, Up), (Up, Up)]),
        (AdminDown, [(AdminDown, AdminDown), (Down, AdminDown), (Init, AdminDown), (Up, AdminDown)]),
    ] {
        for (packet, to) in rows {
            assert_eq!(received(from, &[packet]), to, "{from} and a packet with {packet}");
        }
    }
}

#[test]
fn a_neighbor_that_says_down_is_diagnostic_3_and_a_failure() {
    let mut session = up(config(100, 100, 3), Time::ZERO);
    session.handle_received(&packet(State::Down), ms(1));
    let told = session.poll_transmit(ms(1)).unwrap();
    assert_eq!((told.state, told.diagnostic), (State::Down, Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN));
    assert_eq!(session.report().verdict, Verdict::Failed(Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN));
}

#[test]
fn a_neighbor_that_is_admin_down_is_diagnostic_3_and_no_failure() {
    let mut session = up(config(100, 100, 3), Time::ZERO);
    session.handle_received(&packet(State::AdminDown), ms(1));
    let told = session.poll_transmit(ms(1)).unwrap();
    assert_eq!((told.state, told.diagnostic), (State::Down, Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN));
    assert_eq!(session.report().verdict, Verdict::Disabled);
}

#[test]
fn a_neighbor_that_becomes_admin_down_after_a_failure_makes_it_none() {
    let mut session = up(config(100, 100, 3), Time::ZERO);
    session.handle_timeout(ms(300));
    assert!(matches!(session.report().verdict, Verdict::Failed(_)));
    session.handle_received(&packet(State::AdminDown), ms(400));
    assert_eq!(session.report(), Report { state: State::Down, verdict: Verdict::Disabled, obstacle: None });
}

#[test]
fn silence_for_the_detection_time_is_diagnostic_1_a_failure_and_forgets_the_neighbor() {
    // The neighbor's 3 times the greater of our 200 ms and its 100 ms.
    let mut session = up(config(100, 200, 7), ms(1000));
    let quiet = sent(&mut session, ms(1599));
    assert!(quiet.iter().all(|(_, packet)| packet.state == State::Up));
    let down = sent(&mut session, ms(1600));
    let (at, told) = down.last().unwrap();
    assert_eq!((*at, told.state), (ms(1600), State::Down));
    assert_eq!(told.diagnostic, Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);
    assert_eq!(told.your_discriminator, None, "§6.8.1: RemoteDiscr is 0 again");
    assert_eq!(session.report().verdict, Verdict::Failed(Diagnostic::CONTROL_DETECTION_TIME_EXPIRED));
}

#[test]
fn silence_in_init_goes_back_to_down_and_is_no_failure() {
    let mut session = session(config(100, 100, 3));
    session.handle_received(&packet(State::Down), Time::ZERO);
    session.handle_timeout(ms(300));
    assert_eq!(session.report(), Report { state: State::Down, verdict: Verdict::Unknown, obstacle: None });
}

#[test]
fn until_up_packets_go_out_once_a_second_less_jitter() {
    let mut session = session(config(50, 50, 3));
    let sent = sent(&mut session, ms(60_000));
    assert!(sent.iter().all(|(_, packet)| packet.desired_min_tx == 1_000_000 && !packet.poll));
    let gaps: Vec<_> = sent.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_millis()).collect();
    assert!(gaps.iter().all(|gap| (750..=1000).contains(gap)), "{gaps:?}");
    assert_eq!(sent[0].0, Time::ZERO, "the first at once");
}

#[test]
fn each_interval_is_jittered_by_0_to_25_percent() {
    let mut session = up(config(100, 60_000, 3), Time::ZERO);
    let sent = sent(&mut session, ms(50_000));
    let gaps: Vec<_> = sent.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_micros()).collect();
    assert!(gaps.iter().all(|gap| (75_000..=100_000).contains(gap)));
    let mean = gaps.iter().sum::<u128>() / gaps.len() as u128;
    assert!((86_000..=89_000).contains(&mean), "12.5 % less on average: {mean}");
}

#[test]
fn with_detect_mult_1_each_interval_is_75_to_90_percent() {
    let mut session = up(config(100, 60_000, 1), Time::ZERO);
    let sent = sent(&mut session, ms(50_000));
    let gaps: Vec<_> = sent.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_micros()).collect();
    assert!(gaps.iter().all(|gap| (75_000..=90_000).contains(gap)));
    assert!(gaps.iter().any(|gap| *gap > 89_000) && gaps.iter().any(|gap| *gap < 76_000));
}

#[test]
fn packets_go_out_no_faster_than_the_neighbor_can_receive() {
    let mut session = up(config(50, 60_000, 3), Time::ZERO);
    session.handle_received(&Packet { required_min_rx: 400_000, ..packet(State::Up) }, Time::ZERO);
    let sent = sent(&mut session, ms(20_000));
    let gaps: Vec<_> = sent.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_millis()).collect();
    assert!(gaps.iter().all(|gap| (300..=400).contains(gap)), "{gaps:?}");
}

#[test]
fn a_shorter_interval_counts_from_the_last_packet_on() {
    let mut session = up(config(50, 60_000, 3), Time::ZERO);
    session.handle_received(&Packet { required_min_rx: 10_000_000, ..packet(State::Up) }, ms(1));
    assert!(session.poll_timeout().unwrap() >= ms(7_500), "waits for its slow neighbor");
    session.handle_received(&Packet { required_min_rx: 50_000, ..packet(State::Up) }, ms(1_000));
    assert!(session.poll_transmit(ms(1_000)).is_some(), "§6.8.3: as soon as practicable");
}

#[test]
fn a_neighbor_that_requires_nothing_is_sent_nothing_periodic() {
    let mut session = up(config(50, 60_000, 3), Time::ZERO);
    session.handle_received(&Packet { required_min_rx: 0, ..packet(State::Up) }, ms(1));
    assert!(sent(&mut session, ms(5_000)).is_empty());
    session.handle_received(&Packet { required_min_rx: 0, poll: true, ..packet(State::Up) }, ms(6_000));
    assert!(session.poll_transmit(ms(6_000)).unwrap().is_final, "but answers to its polls");
}

#[test]
fn the_passive_role_is_silent_until_it_is_spoken_to() {
    let mut session = session(Config { passive: true, ..config(100, 100, 3) });
    assert!(sent(&mut session, ms(10_000)).is_empty());
    let hello = Packet { your_discriminator: None, ..packet(State::Down) };
    session.handle_received(&hello, ms(10_000));
    let told = session.poll_transmit(ms(10_000)).unwrap();
    assert_eq!((told.state, told.your_discriminator), (State::Init, Some(number(9))));
}

#[test]
fn a_poll_is_answered_at_once_with_f_and_without_p() {
    for poll_of in [State::Down, State::Up] {
        let mut session = up(config(100, 100, 3), Time::ZERO);
        session.handle_received(&Packet { poll: true, ..packet(poll_of) }, ms(10));
        assert!(session.poll_timeout().unwrap() <= ms(10));
        let answer = session.poll_transmit(ms(10)).unwrap();
        assert!(answer.is_final && !answer.poll);
    }
}

#[test]
fn a_session_that_comes_up_polls_until_it_is_answered() {
    let mut session = session(config(100, 100, 3));
    session.handle_received(&packet(State::Init), ms(0));
    for at in [0, 100, 200] {
        session.handle_received(&packet(State::Up), ms(at));
        let told = session.poll_transmit(ms(at)).unwrap();
        assert!(told.poll && told.desired_min_tx == 100_000, "at {at} ms: {told:?}");
    }
    session.handle_received(&Packet { is_final: true, ..packet(State::Up) }, ms(210));
    assert!(sent(&mut session, ms(400)).iter().all(|(_, packet)| !packet.poll));
}

#[test]
fn slower_sending_waits_for_the_end_of_its_poll() {
    let mut session = up(config(100, 60_000, 3), Time::ZERO);
    session.configure(config(2_000, 60_000, 3));
    let polls = sent(&mut session, ms(1_000));
    assert!(polls.len() >= 10, "the old interval: {}", polls.len());
    assert!(polls.iter().all(|(_, packet)| packet.poll && packet.desired_min_tx == 2_000_000));
    session.handle_received(&Packet { is_final: true, ..packet(State::Up) }, ms(1_000));
    let after = sent(&mut session, ms(5_000));
    assert!(after.len() <= 3 && after.iter().all(|(_, packet)| !packet.poll), "{after:?}");
}

#[test]
fn expecting_faster_reception_waits_for_the_end_of_its_poll() {
    let mut session = up(config(100, 1_000, 3), Time::ZERO);
    session.configure(config(100, 100, 3));
    session.handle_received(&packet(State::Up), ms(10));
    sent(&mut session, ms(2_900));
    assert_eq!(session.report().state, State::Up, "3 × the old second");
    session.handle_received(&Packet { is_final: true, ..packet(State::Up) }, ms(2_900));
    sent(&mut session, ms(3_199));
    assert_eq!(session.report().state, State::Up);
    sent(&mut session, ms(3_200));
    assert_eq!(session.report().state, State::Down, "3 × the new 100 ms");
}

#[test]
fn a_change_during_a_poll_is_followed_by_a_poll_of_its_own() {
    let mut session = up(config(100, 60_000, 3), Time::ZERO);
    session.configure(config(200, 60_000, 3));
    session.configure(config(400, 60_000, 3));
    let answer = Packet { is_final: true, ..packet(State::Up) };
    session.handle_received(&answer, ms(10));
    assert!(session.poll_transmit(ms(10)).unwrap().poll, "the F may answer the values before");
    session.handle_received(&answer, ms(20));
    assert!(sent(&mut session, ms(1_000)).iter().all(|(_, packet)| !packet.poll));
}

#[test]
fn demand_mode_of_the_neighbor_stops_periodic_packets_but_not_polls() {
    let mut session = up(config(100, 60_000, 3), Time::ZERO);
    session.handle_received(&Packet { demand: true, ..packet(State::Up) }, ms(1));
    assert!(sent(&mut session, ms(1_000)).is_empty());
    session.configure(config(200, 60_000, 3));
    assert!(sent(&mut session, ms(1_500)).iter().all(|(_, packet)| packet.poll));
    session.handle_received(&Packet { demand: true, is_final: true, ..packet(State::Up) }, ms(1_500));
    assert!(sent(&mut session, ms(3_000)).is_empty());
}

#[test]
fn a_disabled_session_discards_packets_and_says_why() {
    let mut session = up(config(100, 100, 3), Time::ZERO);
    session.disable();
    session.handle_received(&Packet { poll: true, ..packet(State::Up) }, ms(1));
    let told = session.poll_transmit(ms(1)).unwrap();
    assert_eq!((told.state, told.diagnostic), (State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN));
    assert!(!told.is_final && told.desired_min_tx >= 1_000_000);
    assert!(!session.is_remote_down());
    session.handle_received(&packet(State::Down), ms(2));
    assert!(session.is_remote_down());
    assert_eq!(
        session.report(),
        Report { state: State::AdminDown, verdict: Verdict::Disabled, obstacle: None }
    );
}

#[test]
fn neither_echo_nor_demand_nor_independence_is_offered() {
    let mut session = up(config(100, 60_000, 3), Time::ZERO);
    for (_, packet) in sent(&mut session, ms(2_000)) {
        assert_eq!(packet.required_min_echo_rx, 0);
        assert!(!packet.demand && !packet.control_plane_independent);
    }
}
