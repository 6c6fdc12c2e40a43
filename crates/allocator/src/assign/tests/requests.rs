//! Addresses and groups that the owner asks for, on new and on live Services, and one fresh evaluation.

use super::*;

#[test]
fn addresses_are_read_leniently_and_understood_strictly() {
    let dual = "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack";
    for (addresses, expected) in [
        ("192.0.2.2,fd00:1::5", Some("192.0.2.2 fd00:1::5")),
        ("fd00:1::5,192.0.2.2", Some("192.0.2.2 fd00:1::5")),
        ("  192.0.2.2 ,  fd00:1::5 ", Some("192.0.2.2 fd00:1::5")),
        ("FD00:0001:0::0005", Some("fd00:1::5")),
        // Nothing but blanks is nothing asked for.
        ("  ", Some("192.0.2.0 fd00:1::")),
        ("192.0.2.2,192.0.2.2", None),
        ("192.0.2.2,192.0.2.3", None),
        ("192.0.2.2 fd00:1::5", None),
        ("192.0.2.2;fd00:1::5", None),
        ("192.0.2.2/32", None),
        ("192.0.2.256", None),
        ("::ffff:192.0.2.2", None),
        (",", None),
        ("192.0.2.2,fd00:1::5,192.0.2.3", None),
    ] {
        let text = format!(
            "{{metadata: {{annotations: {{purelb.io/addresses: '{addresses}'}}}}, spec: {{{dual}}}}}"
        );
        let decision = decide(&mut engine(), &service("a", &text));
        match expected {
            Some(expected) => assert_eq!(written(decision).ingress, Some(ips(expected)), "{addresses}"),
            None => drop(refused(decision)),
        }
    }
}

#[test]
fn network_and_broadcast_address_of_a_local_subnet_are_for_nobody() {
    let mut engine = Engine::default();
    engine.set_groups(groups(&[("default", "local: {v4pool: {pool: 192.0.2.0/29, subnet: 192.0.2.0/29}}")]));
    for (address, what) in [("192.0.2.0", "network address"), ("192.0.2.7", "broadcast address")] {
        for group in ["", ", purelb.io/service-group: default"] {
            let text = format!("metadata: {{annotations: {{purelb.io/addresses: {address}{group}}}}}");
            let problem = refused(decide(&mut engine, &service("a", &text)));
            assert_eq!(problem.reason, "address_outside");
            for part in [what, "192.0.2.0/29", "192.0.2.1-192.0.2.6"] {
                assert!(problem.message.contains(part), "{part} is not in {}", problem.message);
            }
        }
    }
    for number in 1..=6 {
        let write = written(decide(&mut engine, &service(&format!("s{number}"), "")));
        assert_eq!(write.ingress, Some(ips(&format!("192.0.2.{number}"))));
    }
    assert_eq!(refused(decide(&mut engine, &service("last", ""))).reason, "exhausted");
}

#[test]
fn removing_the_annotation_that_we_wrote_changes_nothing_but_brings_it_back() {
    let removed = "metadata: {annotations: {purelb.io/service-group: null}}";
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", removed)));
    assert_eq!(write.ingress, None);
    assert_eq!(value(&write, SERVICE_GROUP), Some("default"));
    assert_eq!(write.notes[..], []);
}

#[test]
fn addresses_that_are_no_longer_asked_for_are_kept() {
    // The annotation was there and is gone: the owner gives nothing up by that.
    let service = held("a", "192.0.2.3", "default", "remote", "");
    assert_eq!(decide(&mut engine(), &service), Decision::Keep);
}

#[test]
fn a_move_publishes_the_new_address_and_only_then_frees_the_old_one() {
    let mut engine = engine();
    let changes = "metadata: {annotations: {purelb.io/service-group: v4only}}";
    let moving = held("a", "192.0.2.0", "default", "remote", changes);
    let write = written(decide(&mut engine, &moving));
    // One patch replaces the one by the other, so that the Service is never without.
    assert_eq!(write.ingress, Some(ips("203.0.113.0")));
    // Until it is confirmed nobody else comes to either.
    assert_eq!(written(decide(&mut engine, &service("b", ""))).ingress, Some(ips("192.0.2.1")));
    let moved = held("a", "203.0.113.0", "v4only", "remote", "");
    engine.sync(&moved);
    assert_eq!(written(decide(&mut engine, &service("c", ""))).ingress, Some(ips("192.0.2.0")));
}

#[test]
fn of_two_addresses_only_the_one_that_changed_moves() {
    let changes = "{metadata: {annotations: {purelb.io/addresses: '192.0.2.1,fd00:1::9'}}, \
                   spec: {ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}}";
    let write =
        written(decide(&mut engine(), &held("a", "192.0.2.3 fd00:1::9", "default", "remote", changes)));
    assert_eq!(write.ingress, Some(ips("192.0.2.1 fd00:1::9")));
    assert_eq!(
        write.notes[..],
        [Note::Assigned(ips("192.0.2.1"), "default".into()), Note::Released(ips("192.0.2.3"), Why::Asked)]
    );
}

#[test]
fn pinning_one_family_of_a_live_dual_stack_service_keeps_what_it_has_of_the_other() {
    let pinned = |address: &str, policy: &str| {
        format!(
            "{{metadata: {{annotations: {{purelb.io/addresses: '{address}'}}}}, \
             spec: {{ipFamilies: [IPv4, IPv6], ipFamilyPolicy: {policy}}}}}"
        )
    };
    let live = |changes: &str| held("a", "192.0.2.3 fd00:1::9", "default", "remote", changes);
    let prefer = "PreferDualStack";
    assert_eq!(decide(&mut engine(), &live(&pinned("192.0.2.3", prefer))), Decision::Keep);
    for (address, expected, released) in
        [("192.0.2.1", "192.0.2.1 fd00:1::9", "192.0.2.3"), ("fd00:1::5", "192.0.2.3 fd00:1::5", "fd00:1::9")]
    {
        let mut engine = engine();
        let write = written(decide(&mut engine, &live(&pinned(address, prefer))));
        assert_eq!(write.ingress, Some(ips(expected)));
        let notes =
            [Note::Assigned(ips(address), "default".into()), Note::Released(ips(released), Why::Asked)];
        assert_eq!(write.notes[..], notes);
        let after = held("a", expected, "default", "remote", &pinned(address, prefer));
        assert_eq!(decide(&mut engine, &after), Decision::Keep, "it stays so");
    }
    // What is in no pool of its group any more stays, too.
    let old = held("a", "192.0.2.3 fd00:99::9", "default", "remote", &pinned("192.0.2.1", prefer));
    assert_eq!(written(decide(&mut engine(), &old)).ingress, Some(ips("192.0.2.1 fd00:99::9")));
    // Where the other family is of another group it cannot stay, and a new Service has none: their owners are told.
    let moved = written(decide(&mut engine(), &live(&pinned("203.0.113.3", prefer))));
    assert_eq!(moved.ingress, Some(ips("203.0.113.3")));
    let new = written(decide(&mut engine(), &service("b", &pinned("192.0.2.2", prefer))));
    for write in [moved, new] {
        let is_told = |note: &Note| matches!(note, Note::Warning(text) if text.contains("no IPv6 address"));
        assert!(write.notes.iter().any(is_told), "{:?}", write.notes);
    }
    // The policy wants both: one is not enough to ask for, and nothing is taken away.
    let problem = refused(decide(&mut engine(), &live(&pinned("192.0.2.1", "RequireDualStack"))));
    assert_eq!(problem.reason, "address_family");
}

#[test]
fn re_evaluate_is_one_shot_even_where_nothing_changes_or_nothing_can_be_had() {
    let again = "purelb.io/re-evaluate: 'true'";
    let same = format!("metadata: {{annotations: {{{again}}}}}");
    let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", &same)));
    assert_eq!((&write.ingress, write.annotations.len()), (&None, 1));
    assert!(is_removed(&write, RE_EVALUATE));
    for asked in ["purelb.io/addresses: banana", "purelb.io/service-group: nope"] {
        let changes = format!("metadata: {{annotations: {{{again}, {asked}}}}}");
        let write = written(decide(&mut engine(), &held("a", "192.0.2.3", "default", "remote", &changes)));
        assert!(is_removed(&write, RE_EVALUATE), "{asked}");
        assert_eq!(write.ingress, None, "{asked}");
        assert!(write.problem.is_some(), "{asked}");
    }
    let asked = format!("metadata: {{annotations: {{{again}, purelb.io/addresses: 10.9.9.9}}}}");
    let write = written(decide(&mut engine(), &held("a", "10.9.9.9", "default", "remote", &asked)));
    assert!(is_removed(&write, RE_EVALUATE));
    assert!(
        matches!(&write.notes[..], [Note::Warning(text)] if text.contains("no pool")),
        "{:?}",
        write.notes
    );
    for value in ["'false'", "'yes'", "''"] {
        let changes = format!("metadata: {{annotations: {{purelb.io/re-evaluate: {value}}}}}");
        let service = held("a", "192.0.2.3", "default", "remote", &changes);
        assert_eq!(decide(&mut engine(), &service), Decision::Keep, "{value}");
    }
}
