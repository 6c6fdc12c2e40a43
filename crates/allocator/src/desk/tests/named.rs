//! Counterexamples that random histories have found, and histories that were thought of.

use std::slice;

use super::{
    histories::run,
    spec::Spec,
    world::{
        Fate::{self, AnswerLost, Answered, Broken, Conflict, Lost, Refused},
        Step::{
            self, Answer, Apply, Decide, Delete, Groups, List, Pauses, Provide, Send, Share, Touch, Watch,
        },
        World, key,
    },
};
use crate::testing;

const PLAIN: Spec = Spec {
    cluster_ip: false,
    families: super::spec::Families::V4,
    addresses: None,
    group: None,
    key: None,
    ports: 1,
    local: false,
    allow_local: None,
    re_evaluate: None,
    multi_pool: None,
};

/// Made, seen, decided about and written.
fn served(name: usize, spec: Spec) -> Vec<Step> {
    vec![Apply(name, spec), Watch(9), Decide, Decide, Send(name, Answered), Answer(name), Watch(9)]
}

fn check(parts: &[&[Step]]) {
    run(&parts.concat()).unwrap();
}

#[test]
fn what_an_unanswered_second_request_may_publish_stays_reserved_until_it_is_seen() {
    let shared = Spec { key: Some("k"), local: true, ..PLAIN };
    check(&[
        &[Apply(0, shared), Watch(9), Decide, Send(0, AnswerLost), Answer(0)],
        // The watch shows what the first of the two requests has done, not yet the second.
        &[Watch(1), Send(0, Answered), Answer(0)],
        &served(1, PLAIN),
    ]);
}

#[test]
fn a_service_that_is_made_again_while_its_write_finds_nothing_is_not_lost() {
    check(&[
        &[Apply(0, PLAIN), Watch(9), Decide, Delete(0), Send(0, Answered)],
        &[Apply(0, PLAIN), Watch(9), Answer(0)],
    ]);
}

#[test]
fn a_service_that_a_list_lacks_while_its_write_is_answered_gives_its_address_back() {
    check(&[&[Apply(0, PLAIN), Watch(9), Decide, Send(0, Answered), Delete(0), List, Answer(0)]]);
}

#[test]
fn whoever_has_its_turn_and_goes_leaves_it_to_the_next() {
    check(&[
        &served(0, PLAIN),
        &served(1, PLAIN),
        &served(2, PLAIN),
        &[Apply(3, PLAIN), Apply(4, PLAIN), Watch(9), Decide, Decide],
        &[Delete(0), Delete(3), Watch(9)],
    ]);
}

#[test]
fn a_port_that_is_freed_on_a_shared_address_wakes_who_asks_for_that_address() {
    let shared = Spec { key: Some("k"), addresses: Some("192.0.2.1"), ..PLAIN };
    check(&[
        &served(0, shared),
        &served(1, Spec { ports: 2, ..shared }),
        &[Apply(2, shared), Watch(9), Decide],
        &served(
            0,
            Spec {
                key: None,
                addresses: Some("192.0.2.2,fd00:1::1"),
                families: super::spec::Families::Prefer,
                ..PLAIN
            },
        ),
    ]);
}

#[test]
fn whoever_waits_for_room_is_served_when_somebody_has_an_address_to_share() {
    let shared = Spec { key: Some("k"), ports: 2, ..PLAIN };
    check(&[
        &served(0, PLAIN),
        &served(1, PLAIN),
        &served(2, PLAIN),
        &[Apply(3, shared), Watch(9), Decide],
        &served(0, Spec { key: Some("k"), ..PLAIN }),
    ]);
}

#[test]
fn a_wake_up_during_a_write_is_not_forgotten() {
    let shared = Spec { key: Some("k"), ..PLAIN };
    check(&[
        &served(0, shared),
        &[Apply(1, Spec { ports: 2, ..shared }), Watch(9), Decide],
        // The older one takes the port of the younger while that one is being written.
        &[Apply(0, Spec { ports: 3, ..shared }), Watch(9), Decide, Send(1, Answered), Answer(1)],
    ]);
}

#[test]
fn who_comes_to_a_shared_address_after_an_edit_there_leaves_it_and_not_who_was_there() {
    let shared = Spec { key: Some("k"), ..PLAIN };
    // The one who comes is the younger, or the older that was of another type until then.
    let older = [Apply(0, Spec { cluster_ip: true, ..PLAIN }), Touch(0), Touch(0), Touch(0), Touch(0)];
    for (first, there, comes) in [(&[][..], 0, 1), (&older[..], 1, 0)] {
        let edit = Share(there, Some("k"), 3);
        let beside = [Apply(comes, Spec { ports: 2, ..shared }), Watch(9), Decide];
        let written = [Send(comes, Answered), Answer(comes), Watch(9)];
        for between in [&[][..], &[Watch(9), Decide], &[Watch(9), Decide, Touch(there), Watch(9), Decide]] {
            let before = [first, &served(there, shared), &beside, slice::from_ref(&edit)].concat();
            let history = [&before, between, &written[..]].concat();
            run(&history).unwrap();
            let mut world = World::new();
            history.iter().for_each(|step| world.run(step));
            world.settle();
            let kept = world.read[&there].facts.ingress.to_vec();
            assert_eq!(kept, testing::ips("192.0.2.1").to_vec(), "s{there} was there before s{comes}");
        }
    }
}

#[test]
fn whoever_shares_an_address_keeps_it_when_an_older_one_takes_its_port() {
    let shared = Spec { key: Some("k"), ..PLAIN };
    check(&[
        &served(0, shared),
        &served(1, Spec { ports: 2, ..shared }),
        &[Share(0, Some("k"), 3), Watch(9), Decide, Decide, Decide],
    ]);
}

#[test]
fn a_lost_request_is_repeated_whatever_else_happens() {
    let fates: [Fate; 2] = [Lost, AnswerLost];
    for fate in fates {
        check(&[
            &[Apply(0, PLAIN), Watch(9), Decide, Send(0, fate), Answer(0), Groups(2)],
            &[Apply(0, Spec { local: true, ..PLAIN }), Watch(9)],
        ]);
    }
}

#[test]
fn what_a_lost_request_may_publish_is_free_again_once_it_can_arrive_no_more() {
    let named = Spec { group: Some("v4only"), ..PLAIN };
    check(&[
        &[Apply(1, named), Watch(9), Decide, Send(1, Lost), Answer(1), Groups(3)],
        &[Send(1, Conflict), Answer(1), Pauses, Pauses, Decide],
    ]);
}

#[test]
fn whoever_is_refused_two_addresses_does_not_ask_for_ever() {
    let external = Spec { group: Some("ext"), ..PLAIN };
    let require = Spec { families: super::spec::Families::Require, ..external };
    check(&[&[Apply(0, external), Apply(1, external), Apply(2, require)]]);
}

#[test]
fn a_provider_whose_answer_is_lost_is_asked_again() {
    let require = Spec { families: super::spec::Families::Require, group: Some("ext"), ..PLAIN };
    check(&[&[Apply(1, require), Watch(1), Decide, Provide(1, false), Provide(1, false)]]);
}

/// Everything that owners are told, but for what is told with a write that is confirmed.
fn told(parts: &[&[Step]]) -> Vec<String> {
    let mut world = World::new();
    parts.concat().iter().for_each(|step| world.run(step));
    assert!(world.told.iter().all(|(service, _)| *service == key(0)), "{:?}", world.told);
    world.told.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn multi_pool_on_a_service_that_has_addresses_is_told_to_wait_for_re_evaluate_once() {
    const ASKS: Spec = Spec { multi_pool: Some("true"), ..PLAIN };
    let two_pools = [Groups(5)];
    let edited = |spec| [Apply(0, spec), Watch(9), Decide, Touch(0), Watch(9), Decide];
    let texts = told(&[&two_pools, &served(0, PLAIN), &edited(ASKS)]);
    assert!(
        matches!(&texts[..], [text] if text.contains("purelb.io/re-evaluate: \\\"true\\\"")),
        "{texts:?}"
    );
    // A group that excludes it is the answer.
    let texts = told(&[&[Groups(12)], &served(0, PLAIN), &edited(ASKS)]);
    assert!(matches!(&texts[..], [text] if text.contains("mutually exclusive")), "{texts:?}");
    // Not where it is evaluated anyway, where there is only one pool, or where it is as it was.
    let evaluated = Spec { re_evaluate: Some("true"), ..ASKS };
    assert_eq!(told(&[&two_pools, &served(0, PLAIN), &edited(evaluated)]), [""; 0]);
    assert_eq!(told(&[&served(0, PLAIN), &edited(ASKS)]), [""; 0]);
    assert_eq!(told(&[&two_pools, &served(0, ASKS), &edited(Spec { ports: 2, ..ASKS })]), [""; 0]);
}

#[test]
fn a_policy_that_was_reset_is_told_of_even_where_the_write_after_it_comes_too_late() {
    let local = Spec { key: Some("k"), local: true, ..PLAIN };
    let first = [Apply(0, local), Watch(9), Decide, Send(0, AnswerLost), Answer(0), Touch(0)];
    let texts =
        told(&[&first, &[Send(0, Answered), Answer(0), Watch(9), Decide, Send(0, Answered), Answer(0)]]);
    assert!(matches!(&texts[..], [text] if text.contains("only with Cluster")), "{texts:?}");
}

#[test]
fn a_write_that_the_api_server_refuses_is_told_of_once() {
    let again = [Pauses, Decide, Send(0, Refused), Answer(0)];
    let texts = told(&[&[Apply(0, PLAIN), Watch(9), Decide, Send(0, Refused), Answer(0)], &again, &again]);
    assert!(matches!(&texts[..], [text] if text.contains("refuses") && text.contains("no")), "{texts:?}");
}

#[test]
fn a_refusal_after_a_conflict_is_told_of() {
    let refused = [Pauses, Pauses, Decide, Send(0, Refused), Answer(0)];
    let texts =
        told(&[&[Apply(0, PLAIN), Watch(9), Decide, Send(0, Conflict), Answer(0)], &refused, &refused]);
    assert!(matches!(&texts[..], [text] if text.contains("refuses")), "{texts:?}");
}

#[test]
fn a_write_that_is_answered_with_errors_again_and_again_is_told_of_once() {
    let attempt = [Send(0, Broken), Answer(0)];
    let steps: Vec<Step> = std::iter::repeat_n(attempt, 20).flatten().collect();
    let texts = told(&[&[Apply(0, PLAIN), Watch(9), Decide], &steps, &[Send(0, Answered), Answer(0)]]);
    assert!(matches!(&texts[..], [text] if text.contains("no quorum")), "{texts:?}");
    assert_eq!(told(&[&[Apply(0, PLAIN), Watch(9), Decide], &steps[..8]]), [""; 0], "not after a few");
}

#[test]
fn what_the_api_server_drops_with_the_type_is_told_as_released() {
    let texts = told(&[&served(0, PLAIN), &[Apply(0, Spec { cluster_ip: true, ..PLAIN }), Watch(9)]]);
    assert_eq!(texts, ["Released([192.0.2.1], Ended)"]);
}

#[test]
fn what_a_write_that_came_too_late_would_have_published_waits_for_nobody() {
    let late = [Apply(0, PLAIN), Watch(9), Apply(0, PLAIN), Decide, Send(0, Answered), Answer(0)];
    // The group has stickyFor when it is decided, or only afterwards.
    check(&[&[Groups(7)], &late, &[Watch(9), Delete(0), Watch(9)]]);
    check(&[&late, &[Groups(7), Watch(9), Delete(0), Watch(9)]]);
}

#[test]
fn annotations_that_do_not_count_are_told_of_once_with_what_would() {
    let spec = Spec { allow_local: Some("ture"), re_evaluate: Some("yes"), ..PLAIN };
    let edited = Spec { ports: 2, ..spec };
    let texts = told(&[&served(0, spec), &[Apply(0, edited), Touch(0), Watch(9), Decide]]);
    let parts = [("re-evaluate", "yes"), ("allow-local", "ture")];
    assert_eq!(texts.len(), parts.len(), "{texts:?}");
    for (text, (name, value)) in texts.iter().zip(parts) {
        assert!(text.contains(name) && text.contains(value) && text.contains("expected"), "{text}");
    }
}

#[test]
fn annotations_of_purelb_without_effect_are_named_with_what_to_use_instead() {
    for (name, part) in [("skip-ipv6-dad", "spec.local"), ("node-affinity", "externalTrafficPolicy: Local")] {
        let changes = format!("metadata: {{annotations: {{purelb.io/{name}: 'x'}}}}");
        let service = testing::service("web", &changes);
        let [text] = service.facts.requests.odd_values() else { panic!("{service:?}") };
        assert!(text.contains(name) && text.contains("no effect") && text.contains(part), "{text}");
    }
    assert_eq!(testing::service("web", "").facts.requests.odd_values(), [""; 0]);
}
