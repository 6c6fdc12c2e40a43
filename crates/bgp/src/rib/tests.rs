//! Loc-RIB, export, Adj-RIB-Out and packing together: what a router makes of the octets is what it should have.

use std::{collections::BTreeMap, sync::Arc};

use bytes::BytesMut;
use ipnet::IpNet;
use proptest::prelude::*;

use super::{adj_rib_out::AdjRibOut, changes::Changes, loc_rib::LocRib};
use crate::{
    attributes::{Attributes, NextHop},
    config::OwnNextHops,
    export::{Export, Exporter},
    route::{ExportPolicy, Route, RouteAttributes, RouteClass},
    testing::Table,
    types::{Asn, Family},
    wire::{EncodeContext, frame},
};

const CONTEXT: EncodeContext = EncodeContext { four_octet_asn: true, max_length: frame::MAX_LENGTH };

fn exporter(policy: ExportPolicy) -> Exporter {
    Exporter {
        local_asn: Asn::new(64512).unwrap(),
        is_internal: false,
        local_address: "192.0.2.1".parse().unwrap(),
        extended_next_hop: false,
        families: Family::ALL.to_vec(),
        next_hops: OwnNextHops { ipv4: None, ipv6: Some("2001:db8::1".parse().unwrap()) },
        is_downwards: false,
        is_leaving: false,
        policy,
    }
}

fn route(prefix: IpNet, class: u32, med: Option<u32>) -> Route {
    let attributes = Arc::new(RouteAttributes { med, ..RouteAttributes::default() });
    Route { prefix, class: RouteClass(class), attributes }
}

fn host(number: u32) -> IpNet {
    let text = if number.is_multiple_of(3) {
        format!("2001:db8:1::{number:x}/128")
    } else {
        format!("10.{}.{}.{}/32", number >> 16 & 255, number >> 8 & 255, number & 255)
    };
    text.parse().unwrap()
}

/// One session, with the router at its other end.
struct Session {
    adj_rib_out: AdjRibOut,
    exporter: Exporter,
    router: Table,
}

impl Session {
    fn new(policy: ExportPolicy) -> Session {
        let adj_rib_out = AdjRibOut::new(&Family::ALL);
        Session { adj_rib_out, exporter: exporter(policy), router: Table::default() }
    }

    /// The socket takes so many octets, or a message more.
    fn flush(&mut self, loc_rib: &mut LocRib, octets: usize) -> usize {
        let mut out = BytesMut::new();
        let messages = self.adj_rib_out.flush(loc_rib, &self.exporter, &CONTEXT, true, octets, &mut out);
        assert!(out.len() < octets + CONTEXT.max_length, "{} octets for a limit of {octets}", out.len());
        self.router.read(&out);
        messages
    }

    fn flush_all(&mut self, loc_rib: &mut LocRib) -> usize {
        let messages = self.flush(loc_rib, usize::MAX / 2);
        assert!(self.adj_rib_out.is_clean(true));
        messages
    }

    /// What the router should have.
    fn view(&self, loc_rib: &LocRib) -> BTreeMap<IpNet, (NextHop, Attributes)> {
        let exported = loc_rib.routes().filter_map(|route| {
            match self.exporter.export(Family::of(&route.prefix), route.class, &route.attributes) {
                Export::Route(exported) => Some((route.prefix, (exported.next_hop, exported.attributes))),
                _ => None,
            }
        });
        exported.collect()
    }
}

#[test]
fn a_refresh_sends_all_of_that_family_again_and_nothing_else() {
    let mut loc_rib = LocRib::default();
    (0..30).for_each(|number| {
        loc_rib.set(&route(host(number), 0, None));
    });
    let mut session = Session::new(ExportPolicy::All);
    session.flush_all(&mut loc_rib);
    assert_eq!((session.router.announced, session.adj_rib_out.counts()), (30, [20, 10]));
    session.adj_rib_out.resend(Family::Ipv6Unicast, &loc_rib);
    assert_eq!(session.flush_all(&mut loc_rib), 1);
    assert_eq!((session.router.announced, session.router.withdrawn), (40, 0));
    assert_eq!(session.flush_all(&mut loc_rib), 0);
    assert_eq!(session.adj_rib_out.counts(), [20, 10]);
}

#[test]
fn while_a_peer_takes_nothing_nothing_is_looked_at_and_requests_do_not_add_up() {
    let mut loc_rib = LocRib::default();
    let mut session = Session::new(ExportPolicy::All);
    (0..2000).for_each(|number| {
        loc_rib.set(&route(host(number * 3 + 1), 0, None));
    });
    session.flush_all(&mut loc_rib);
    session.adj_rib_out.refresh(Family::Ipv4Unicast, true);
    session.flush(&mut loc_rib, 1);
    let staged = format!("{:?}", session.adj_rib_out.staged);
    session.adj_rib_out.mark_all(&loc_rib);
    for request in 0..1000 {
        session.adj_rib_out.refresh(Family::Ipv4Unicast, true);
        let mut out = BytesMut::new();
        session.adj_rib_out.flush(&mut loc_rib, &session.exporter, &CONTEXT, true, 0, &mut out);
        assert!(out.is_empty(), "{} octets after {request} requests", out.len());
    }
    assert_eq!(format!("{:?}", session.adj_rib_out.staged), staged);
    session.flush_all(&mut loc_rib);
    // The first table, the refresh that was under way, and one for all that was asked for since.
    assert_eq!(session.router.announced, 3 * 2000);
    session.adj_rib_out.refresh(Family::Ipv4Unicast, false);
    session.adj_rib_out.refresh(Family::Ipv4Unicast, false);
    session.flush_all(&mut loc_rib);
    assert_eq!(session.router.announced, 4 * 2000, "without marks, too");
}

#[test]
fn withdrawals_go_first_and_routes_of_equal_attributes_share_messages() {
    let mut loc_rib = LocRib::default();
    let mut session = Session::new(ExportPolicy::All);
    // Attributes alternate from prefix to prefix, and still one message each carries them.
    (0..400).for_each(|number| {
        loc_rib.set(&route(host(number * 3 + 1), number % 4, Some(number % 4)));
    });
    assert_eq!(session.flush_all(&mut loc_rib), 4 + 2, "and two End-of-RIB");
    for number in 0..400 {
        let prefix = host(number * 3 + 1);
        let place =
            if number < 200 { loc_rib.unset(&prefix) } else { loc_rib.set(&route(prefix, 0, Some(9))) };
        let (block, members) = place.unwrap();
        session.adj_rib_out.mark(block, members);
    }
    let mut out = BytesMut::new();
    session.adj_rib_out.flush(&mut loc_rib, &session.exporter, &CONTEXT, true, 1, &mut out);
    session.router.read(&out);
    assert_eq!((session.router.withdrawn, session.router.announced), (200, 400), "the first is a withdrawal");
    assert_eq!(session.flush_all(&mut loc_rib), 1);
    assert_eq!(session.router.routes, session.view(&loc_rib));
}

#[test]
fn a_table_taken_in_small_pieces_is_packed_as_well_as_in_one() {
    let mut loc_rib = LocRib::default();
    (0..9000).for_each(|number| {
        loc_rib.set(&route(host(number), 0, None));
    });
    let mut whole = Session::new(ExportPolicy::All);
    let mut pieces = Session::new(ExportPolicy::All);
    let messages = whole.flush_all(&mut loc_rib);
    let mut in_pieces = 0;
    while !pieces.adj_rib_out.is_clean(true) {
        in_pieces += pieces.flush(&mut loc_rib, 100);
    }
    assert_eq!(in_pieces, messages);
    assert_eq!(pieces.router.routes, whole.router.routes);
}

#[test]
fn an_ended_session_leaves_nothing_behind_in_the_loc_rib() {
    let mut loc_rib = LocRib::default();
    // A block each.
    let far = |number: u32| route(host(number * 3 * 64), 0, None);
    (0..10).for_each(|number| assert!(loc_rib.set(&far(number)).is_some()));
    let mut session = Session::new(ExportPolicy::All);
    session.flush_all(&mut loc_rib);
    loc_rib.replace_all(&[], |_, _| {});
    assert_eq!(loc_rib.end(), 10);
    session.adj_rib_out.release(&mut loc_rib);
    (10..20).for_each(|number| assert!(loc_rib.set(&far(number)).is_some()));
    assert_eq!(loc_rib.end(), 10, "every block is used again");
}

/// One thing that happens to the tables.
#[derive(Clone, Debug)]
enum Step {
    Announce(u32, u32, Option<u32>),
    Withdraw(u32),
    /// Many at once; `None` withdraws.
    Changes(Vec<(u32, Option<u32>)>),
    ReplaceAll(Vec<(u32, u32)>),
    Policy(Option<Vec<(u32, Option<u32>)>>),
    NextHop(bool),
    Refresh(Family),
    Flush(usize),
    Restart,
}

/// Neighbours, of both families, in a few blocks, which come and go.
fn number() -> impl Strategy<Value = u32> {
    (0u32..5, 0u32..12).prop_map(|(far, near)| far * 3 * 64 + near)
}

fn step() -> impl Strategy<Value = Step> {
    let med = || prop::option::of(0u32..3);
    prop_oneof![
        6 => (number(), 0u32..3, med()).prop_map(|(number, class, med)| Step::Announce(number, class, med)),
        3 => number().prop_map(Step::Withdraw),
        2 => prop::collection::vec((number(), prop::option::of(0u32..3)), 0..40).prop_map(Step::Changes),
        1 => prop::collection::vec((number(), 0u32..3), 0..40).prop_map(Step::ReplaceAll),
        1 => prop::option::of(prop::collection::vec((0u32..3, med()), 0..3)).prop_map(Step::Policy),
        1 => any::<bool>().prop_map(Step::NextHop),
        1 => prop::sample::select(&Family::ALL[..]).prop_map(Step::Refresh),
        4 => (0usize..600).prop_map(Step::Flush),
        1 => Just(Step::Restart),
    ]
}

fn policy(classes: Option<Vec<(u32, Option<u32>)>>) -> ExportPolicy {
    let Some(classes) = classes else { return ExportPolicy::All };
    let added = |med| RouteAttributes { med, ..RouteAttributes::default() };
    ExportPolicy::Classes(classes.into_iter().map(|(class, med)| (RouteClass(class), added(med))).collect())
}

fn take(step: Step, loc_rib: &mut LocRib, session: &mut Session) {
    let rib = &mut session.adj_rib_out;
    match step {
        Step::Announce(number, class, med) => {
            if let Some((block, members)) = loc_rib.set(&route(host(number), class, med)) {
                rib.mark(block, members);
            }
        }
        Step::Withdraw(number) => {
            if let Some((block, members)) = loc_rib.unset(&host(number)) {
                rib.mark(block, members);
            }
        }
        Step::Changes(many) => {
            let mut changes = Changes::default();
            for (number, class) in many {
                match class {
                    Some(class) => changes.announce(&route(host(number), class, None)),
                    None => changes.withdraw(&host(number)),
                }
            }
            loc_rib.apply(&changes, |block, members| rib.mark(block, members));
        }
        Step::ReplaceAll(routes) => {
            let routes: Vec<_> =
                routes.into_iter().map(|(number, class)| route(host(number), class, None)).collect();
            loc_rib.replace_all(&routes, |block, members| rib.mark(block, members));
        }
        Step::Policy(classes) => {
            session.exporter.policy = policy(classes);
            rib.mark_all(loc_rib);
        }
        Step::NextHop(is_known) => {
            session.exporter.next_hops.ipv6 = is_known.then(|| "2001:db8::2".parse().unwrap());
            rib.mark_all(loc_rib);
        }
        Step::Refresh(family) => rib.resend(family, loc_rib),
        Step::Flush(octets) => {
            session.flush(loc_rib, octets);
        }
        Step::Restart => {
            let next = Session { exporter: session.exporter.clone(), ..Session::new(ExportPolicy::All) };
            std::mem::replace(session, next).adj_rib_out.release(loc_rib);
        }
    }
}

proptest! {
    #[test]
    fn a_router_has_what_the_loc_rib_holds_whatever_has_happened(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut loc_rib = LocRib::default();
        let mut session = Session::new(ExportPolicy::All);
        for step in steps {
            take(step, &mut loc_rib, &mut session);
        }
        session.flush_all(&mut loc_rib);
        let view = session.view(&loc_rib);
        prop_assert_eq!(&session.router.routes, &view);
        prop_assert_eq!(session.router.withdrawn_unknown, 0);
        let told = session.adj_rib_out.counts().iter().sum::<usize>();
        prop_assert_eq!(told, view.len());
        prop_assert_eq!(session.adj_rib_out.flush(&mut loc_rib, &session.exporter, &CONTEXT, true, 1, &mut BytesMut::new()), 0);
        // Another session that begins now is told the same.
        let mut fresh = Session { exporter: session.exporter.clone(), ..Session::new(ExportPolicy::All) };
        fresh.flush_all(&mut loc_rib);
        prop_assert_eq!(&fresh.router.routes, &view);
        prop_assert_eq!(fresh.adj_rib_out.unsendable(), session.adj_rib_out.unsendable());
        // And nothing is held once both have gone.
        session.adj_rib_out.release(&mut loc_rib);
        fresh.adj_rib_out.release(&mut loc_rib);
        let end = loc_rib.end();
        loc_rib.replace_all(&[], |_, _| {});
        (0..end).for_each(|number| { loc_rib.set(&route(host((number + 100) * 3 * 64), 0, None)); });
        prop_assert_eq!(loc_rib.end(), end);
    }
}
