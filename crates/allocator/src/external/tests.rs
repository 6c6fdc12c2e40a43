//! The pure half: which call comes next, what an answer is worth, when a provider is asked again.

use std::time::{Duration, Instant};

use api::IpFamily;
use tokio::{io::AsyncReadExt, net::UnixListener};
use tonic::{Code, Status};

use super::{
    Account, Action, Answer, Ask, External, Want,
    account::Released,
    answer::{self, Meaning, check, meaning},
    client::{Client, is_unsent},
    provider::{CONCURRENCY, Provider},
};
use crate::{
    assign::{Decision, Edge},
    engine::Engine,
    fence,
    inputs::ServiceKey,
    leader::Candidate,
    settings::{Arguments, Settings},
    testing::{groups, ip, ips, service},
};

const EXTERNAL: &str = "external: {provider: p, socket: /s, announce: remote}";

fn ask(want: Want, all: bool) -> Ask {
    Ask { group: "ext".into(), want, all, sharing_key: None }
}

fn v4() -> Ask {
    ask(Want::Families(vec![IpFamily::IPv4]), true)
}

fn given(ask: Ask, addresses: &str) -> Answer {
    Answer { ask, given: ips(addresses).to_vec(), problem: None }
}

#[test]
fn a_name_is_written_down_before_the_first_question_and_goes_after_the_confirmed_release() {
    let mut account = Account::default();
    account.wants(v4());
    assert_eq!(account.next(Some(&[]), false), Action::Record);
    assert_eq!(account.next(Some(&[]), true), Action::Allocate(v4()));
    account.on_sent();
    assert_eq!(account.next(Some(&[]), true), Action::Wait);
    assert!(account.on_answer(&given(v4(), "198.51.100.1"), true));
    assert_eq!(account.next(Some(&[]), true), Action::Wait, "not decided about yet");
    account.decided();
    assert_eq!(account.next(None, true), Action::Wait, "a write is under way");
    assert_eq!(account.next(Some(&ips("198.51.100.1")), true), Action::Wait);
    assert_eq!(account.next(Some(&[]), true), Action::Release(Released::All));
    account.on_sent();
    account.on_released(Released::All, true);
    assert_eq!(account.next(Some(&[]), true), Action::Close);
}

#[test]
fn a_release_whose_fate_is_unknown_is_confirmed_before_anything_is_asked() {
    let mut account = Account::publishing(1, &ips("198.51.100.1"));
    account.on_sent();
    account.on_released(Released::All, false);
    account.wants(v4());
    assert_eq!(account.next(Some(&[]), true), Action::Wait, "a pause");
    account.resume();
    assert_eq!(account.next(Some(&[]), true), Action::Release(Released::All));
    account.on_sent();
    account.on_released(Released::All, true);
    assert_eq!(account.next(Some(&[]), true), Action::Allocate(v4()));
}

#[test]
fn a_release_that_was_not_sent_stands_in_nobodys_way() {
    let mut account = Account::publishing(1, &ips("198.51.100.1"));
    account.on_sent();
    account.on_unsent();
    assert!(!account.is_unconfirmed());
    assert_eq!(account.next(Some(&[]), true), Action::Wait, "a pause");
    account.resume();
    assert_eq!(account.next(Some(&[]), true), Action::Release(Released::All));
    account.wants(v4());
    assert_eq!(account.next(Some(&[]), true), Action::Allocate(v4()));
}

#[tokio::test]
async fn a_call_to_a_socket_that_nobody_serves_is_known_not_to_be_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (missing, stale) = (dir.path().join("missing"), dir.path().join("stale"));
    drop(UnixListener::bind(&stale).unwrap());
    let fence = nobodys_fence();
    for path in [missing, stale] {
        let client = Client::new(&path.to_str().unwrap().into(), fence.gate().clone());
        let status = client.release("ext", "ns/web", Released::All).await.unwrap_err();
        assert!(is_unsent(&status), "{status:?}");
    }
    let heard = Status::unavailable("said by the provider");
    assert!(!is_unsent(&heard));
}

#[test]
fn what_may_have_been_given_is_released_and_what_is_published_never() {
    for (what, expected) in [
        (Account::recorded(), Action::Release(Released::All)),
        (Account::default(), Action::Close),
        (Account::publishing(1, &ips("198.51.100.1")), Action::Release(Released::All)),
    ] {
        assert_eq!(what.next(Some(&[]), true), expected);
        assert_eq!(what.next(None, true), Action::Wait);
    }
    let account = Account::publishing(1, &ips("198.51.100.1 198.51.100.2"));
    let one = Action::Release(Released::One(ip("198.51.100.1")));
    assert_eq!(account.next(Some(&ips("198.51.100.2")), true), one);
    let mut unsure = Account::default();
    unsure.wants(v4());
    unsure.on_sent();
    unsure.on_answer(&Answer { ask: v4(), given: Vec::new(), problem: None }, false);
    unsure.decided();
    assert_eq!(unsure.next(Some(&[]), true), Action::Release(Released::All), "the question may have arrived");
}

#[test]
fn an_answer_to_an_outdated_question_is_no_answer_and_goes_back() {
    let mut account = Account::default();
    account.wants(v4());
    account.on_sent();
    let exact = ask(Want::Addresses(ips("198.51.100.9").to_vec()), true);
    account.wants(exact.clone());
    assert!(!account.on_answer(&given(v4(), "198.51.100.1"), true));
    assert_eq!(account.next(Some(&[]), true), Action::Allocate(exact.clone()));
    account.on_sent();
    assert!(account.on_answer(&given(exact, "198.51.100.9"), true));
    account.decided();
    let superfluous = Action::Release(Released::One(ip("198.51.100.1")));
    assert_eq!(account.next(Some(&ips("198.51.100.9")), true), superfluous);
}

#[test]
fn only_answers_that_fit_the_question_and_harm_nobody_are_taken() {
    let accepted =
        groups(&[("own", "remote: {v4pool: {pool: 192.0.2.0/24, subnet: 192.0.2.0/24, aggregation: /32}}")]);
    let both = || Want::Families(vec![IpFamily::IPv4, IpFamily::IPv6]);
    let exact = |text: &str| Want::Addresses(ips(text).to_vec());
    for (want, all, held, answered, expected) in [
        (both(), true, "", "198.51.100.1 2001:db8::1", Ok("198.51.100.1 2001:db8::1")),
        (both(), false, "", "198.51.100.1", Ok("198.51.100.1")),
        (both(), true, "", "198.51.100.1", Err("no IPv6 address")),
        (both(), false, "", "", Err("nothing")),
        // Named again though it is held: no matter.
        (
            Want::Families(vec![IpFamily::IPv6]),
            true,
            "198.51.100.1",
            "198.51.100.1 2001:db8::1",
            Ok("2001:db8::1"),
        ),
        (
            Want::Families(vec![IpFamily::IPv6]),
            true,
            "",
            "198.51.100.1 2001:db8::1",
            Err("no family that was asked"),
        ),
        (exact("198.51.100.1"), true, "", "198.51.100.1", Ok("198.51.100.1")),
        (exact("198.51.100.1"), true, "", "198.51.100.2", Err("198.51.100.1 was asked for")),
        (exact("198.51.100.1"), true, "", "198.51.100.1 198.51.100.2", Err("not asked for")),
        (both(), false, "", "::ffff:198.51.100.1", Err("no Service can have")),
        (both(), false, "", "fe80::1", Err("no Service can have")),
        (both(), false, "", "ff02::1", Err("no Service can have")),
        (both(), false, "", "255.255.255.255", Err("no Service can have")),
        (both(), false, "", "192.0.2.1", Err("ServiceGroup own")),
    ] {
        let answered: Vec<String> = answered.split_whitespace().map(str::to_owned).collect();
        match (check(&ask(want.clone(), all), &answered, &ips(held), &accepted), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(&found[..], ips(expected), "{want:?}"),
            (Err(found), Err(part)) => assert!(found.contains(part), "{found}, expected {part}"),
            (found, _) => panic!("{want:?} {answered:?}: {found:?}"),
        }
    }
}

#[test]
fn status_codes_mean_one_of_three_things() {
    assert_eq!(meaning(Code::ResourceExhausted), Meaning::Exhausted);
    for code in [Code::InvalidArgument, Code::NotFound, Code::AlreadyExists, Code::FailedPrecondition] {
        assert_eq!(meaning(code), Meaning::Refused);
    }
    for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Internal, Code::Unknown] {
        assert_eq!(meaning(code), Meaning::Unwell);
    }
    let external = External { provider: "p".into(), socket: "/s".into() };
    let silent = answer::problem(&v4(), &external, &Status::new(Code::Unauthenticated, ""));
    assert!(silent.message.ends_with("refuses: Unauthenticated"), "{}", silent.message);
}

#[test]
fn a_provider_that_fails_is_left_alone_ever_longer_and_then_serves_the_oldest_first() {
    let mut now = Instant::now();
    let mut provider = Provider::default();
    for created in [3, 1, 2] {
        provider.enqueue((created, "ext".into(), ServiceKey::new("ns", "web")));
    }
    assert_eq!(provider.next_turn().unwrap().0, 1);
    provider.on_sent();
    assert!(provider.on_done(Some("gone".into()), now, 1.0));
    assert_eq!(provider.failure(), Some("gone"));
    assert_eq!(provider.next_turn(), None);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let due = provider.next_probe().unwrap();
        pauses.push(due - now);
        assert!(!provider.begins_probe(due - Duration::from_millis(1)));
        now = due;
        assert!(provider.begins_probe(now) && !provider.begins_probe(now));
        assert!(!provider.on_stats(Some("gone".into()), now, 1.0));
    }
    assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
    assert_eq!((pauses[0], pauses[8]), (Duration::from_millis(250), Duration::from_secs(30)));
    now = provider.next_probe().unwrap();
    assert!(provider.begins_probe(now) && provider.on_stats(None, now, 1.0));
    assert_eq!(provider.next_turn().unwrap().0, 2);
    for _ in 0..CONCURRENCY {
        provider.on_sent();
    }
    assert_eq!(provider.next_turn(), None, "enough is under way");
}

#[test]
fn who_is_refused_asks_again_after_five_minutes_while_the_provider_answers() {
    let (mut provider, start) = (Provider::default(), Instant::now());
    let at = |secs| start + Duration::from_secs(secs);
    assert!(!provider.retries_refused(at(0)));
    assert!(!provider.retries_refused(at(299)));
    assert!(provider.retries_refused(at(300)));
    assert!(!provider.retries_refused(at(301)));
    provider.on_sent();
    provider.on_done(Some("gone".into()), at(302), 1.0);
    assert!(!provider.retries_refused(at(700)), "it is probed before anybody asks");
    assert!(provider.on_stats(None, at(700), 1.0));
    assert!(!provider.retries_refused(at(701)), "everybody has just asked");
    assert!(provider.retries_refused(at(1001)));
}

#[test]
fn the_decision_asks_and_goes_on_with_the_answer() {
    let mut engine = Engine::default();
    engine.set_groups(groups(&[("default", EXTERNAL)]));
    let web = service("web", "spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}");
    let Decision::Ask(asked) = engine.decide(&web, Edge::default()).decision else { panic!("not asked") };
    assert_eq!((&asked.want, asked.all), (&Want::Families(vec![IpFamily::IPv4, IpFamily::IPv6]), false));
    engine.answer(&web.key, Answer { ask: asked, given: ips("198.51.100.1").to_vec(), problem: None });
    let Decision::Write(write) = engine.decide(&web, Edge::default()).decision else { panic!("not written") };
    assert_eq!(write.ingress, Some(ips("198.51.100.1")));
    // What another holds is not taken, whatever the provider says.
    let other = service("other", "");
    let Decision::Ask(asked) = engine.decide(&other, Edge::default()).decision else { panic!("not asked") };
    engine.answer(&other.key, Answer { ask: asked, given: ips("198.51.100.1").to_vec(), problem: None });
    let Decision::Refuse(problem) = engine.decide(&other, Edge::default()).decision else {
        panic!("not refused")
    };
    assert_eq!(problem.reason, "address_in_use");
    // Very addresses are asked of the group that serves the Service, if they are in no pool of ours.
    let exact = service("exact", "metadata: {annotations: {purelb.io/addresses: 198.51.100.9}}");
    let Decision::Ask(asked) = engine.decide(&exact, Edge::default()).decision else { panic!("not asked") };
    assert_eq!(asked.want, Want::Addresses(ips("198.51.100.9").to_vec()));
}

/// A fence that nobody may pass.
fn nobodys_fence() -> fence::Fence {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let settings = Settings::load(&Arguments::default()).unwrap();
    let client = kube::Client::try_from(config.clone()).unwrap();
    let (_candidate, tenure) = Candidate::new(client, &settings, "nobody's".to_owned());
    fence::transport(&config, tenure, Duration::from_secs(1)).unwrap().1
}

#[tokio::test]
async fn without_the_right_to_write_not_one_octet_reaches_a_provider() {
    let fence = nobodys_fence();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ipam.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = Client::new(&path.to_str().unwrap().into(), fence.gate().clone());
    let heard = async {
        let mut octets = Vec::new();
        listener.accept().await.unwrap().0.read_to_end(&mut octets).await.unwrap();
        octets
    };
    let (answer, heard) = tokio::join!(client.release("ext", "ns/web", Released::All), heard);
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the right to write is over"));
    assert_eq!(heard, [0_u8; 0]);
}
