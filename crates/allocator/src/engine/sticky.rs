//! `stickyFor`: the addresses of a Service that goes wait for it to come back.
//!
//! A reservation is made when the last holder of an address goes, never for one that its owner has moved. It ends
//! when its time is over, when the Service is served again, when somebody publishes the address after all, and
//! when its group, or `stickyFor` of it, goes. Whoever waited for the address is woken then as by a release.

use std::{net::IpAddr, time::Duration};

use api::GoDuration;

use super::Engine;
use crate::{
    inputs::{Group, Groups, Service, ServiceKey, service::Ownership},
    reservation::{MAX_PER_GROUP, Reservation},
};

/// `stickyFor` of the group that has the address, in seconds; 0: off.
fn sticky_secs(groups: &Groups, address: IpAddr) -> i64 {
    groups.of_address(address).map_or(0, |group| secs(group.sticky_for))
}

fn secs(duration: Option<GoDuration>) -> i64 {
    let duration = duration.map_or(Duration::ZERO, |duration| duration.0);
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

impl Engine {
    /// Reserved addresses.
    pub fn reservations(&self) -> &crate::reservation::Reservations {
        &self.reservations
    }

    /// It is so late, in seconds since 1970: reservations that are over end. Who may be cured by it.
    pub fn advance_to(&mut self, now: i64) -> Vec<ServiceKey> {
        self.now = self.now.max(now);
        let mut freed = Vec::new();
        while let Some(address) = self.reservations.ended(self.now) {
            freed.extend(self.end_reservation(address));
        }
        self.cured_by_leaving(&freed, &freed)
    }

    /// When [`Engine::advance_to`] has something to do next, in seconds since 1970.
    pub fn next_deadline(&self) -> Option<i64> {
        self.reservations.next_end()
    }

    /// Addresses whose groups have other figures now because of reservations, since the last time that was asked.
    pub fn take_touched(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.touched)
    }

    /// What the status of groups says is reserved. To be told once groups and Services are known, before anything
    /// is decided.
    pub fn restore(&mut self, reservations: impl IntoIterator<Item = Reservation>) {
        for reservation in reservations {
            let address = reservation.address;
            let until = reservation.until.min(self.now.saturating_add(sticky_secs(&self.groups, address)));
            if until > self.now && !self.ledger.is_held(address) {
                self.reserve(Reservation { until, ..reservation });
            }
        }
    }

    /// Forgets a Service that is gone; what it published waits for it. Who may be cured by it.
    pub fn retire(&mut self, service: &Service) -> Vec<ServiceKey> {
        let facts = &service.facts;
        if facts.ownership != Ownership::OtherClass {
            let held = self.ledger.held_by(&service.key).iter().copied();
            let left: Vec<IpAddr> = held.filter(|address| facts.ingress.contains(address)).collect();
            self.reserve_for(&service.key, &left);
        }
        self.forget(&service.key)
    }

    /// Reserves addresses that a Service is about to leave or has just left, where nobody else is on them.
    pub(super) fn reserve_for(&mut self, service: &ServiceKey, addresses: &[IpAddr]) {
        for address in addresses {
            let stays = self.ledger.holders(*address).any(|holder| holder.service != *service);
            let secs = sticky_secs(&self.groups, *address);
            if secs > 0 && !stays {
                let until = self.now.saturating_add(secs);
                self.reserve(Reservation { address: *address, service: service.clone(), until });
            }
        }
    }

    fn reserve(&mut self, reservation: Reservation) {
        let address = reservation.address;
        self.touched.push(address);
        self.ledger.block(address);
        self.reservations.add(reservation);
        let Some(group) = self.groups.of_address(address) else { return };
        let of_group =
            || group.ranges().flat_map(|range| self.reservations.within(&range).collect::<Vec<_>>());
        if of_group().count() > MAX_PER_GROUP
            && let Some(oldest) =
                of_group().min_by_key(|reservation| (reservation.until, reservation.address))
        {
            let oldest = oldest.address;
            self.end_reservation(oldest);
        }
    }

    /// Ends a reservation. The address, if it is free because of it.
    fn end_reservation(&mut self, address: IpAddr) -> Option<IpAddr> {
        self.reservations.remove(address)?;
        self.touched.push(address);
        self.ledger.unblock(address).then_some(address)
    }

    /// A Service publishes these addresses: it has come back, and nobody else can wait for them any more. What is
    /// free because of it.
    pub(super) fn end_reservations_of(&mut self, service: &Service) -> Vec<IpAddr> {
        let ingress = &service.facts.ingress;
        if self.reservations.is_empty() || ingress.is_empty() {
            return Vec::new();
        }
        let mut ended = ingress.clone();
        if service.facts.ownership == Ownership::Ours {
            ended.extend(self.reservations.of(&service.key));
        }
        ended.into_iter().filter_map(|address| self.end_reservation(address)).collect()
    }

    /// Of addresses that have just been left: those that are free. The others are still reserved.
    pub(super) fn not_reserved(&mut self, mut freed: Vec<IpAddr>) -> Vec<IpAddr> {
        freed.retain(|address| {
            let is_reserved = self.reservations.get(*address).is_some();
            if is_reserved {
                self.ledger.block(*address);
            }
            !is_reserved
        });
        freed
    }

    /// Ends the reservations that the groups as they are now do not allow. Who may be cured by it.
    pub(super) fn review_reservations(&mut self, old: &Groups) -> Vec<ServiceKey> {
        let lasts_too_long = |reservation: &&Reservation| {
            let address = reservation.address;
            let (was, is) = (sticky_secs(old, address), sticky_secs(&self.groups, address));
            is == 0 || (is < was && reservation.until > self.now.saturating_add(is))
        };
        let ended = self.reservations.iter().filter(lasts_too_long).map(|reservation| reservation.address);
        let ended: Vec<IpAddr> = ended.collect();
        let freed: Vec<IpAddr> =
            ended.into_iter().filter_map(|address| self.end_reservation(address)).collect();
        self.cured_by_leaving(&freed, &freed)
    }

    /// The reservations of a group, by address.
    pub fn reservations_of<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Reservation> {
        let mut ranges: Vec<_> = group.ranges().collect();
        ranges.sort_unstable();
        ranges.into_iter().flat_map(|range| self.reservations.within(&range).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        apply::status_patch,
        assign::{Decision, Edge},
        engine::problem,
        group_status,
        testing::{self, groups, ip, ips, merge, object, read, service},
        waiting::Wait,
    };

    const POOL: &str = "remote: {v4pool: {pool: 192.0.2.0/30, subnet: 192.0.2.0/24, aggregation: /32}}";

    fn sticky_groups(sticky: &str) -> Groups {
        groups(&[("default", &format!("{{{POOL}, stickyFor: {sticky}}}"))])
    }

    /// At second 1000; `stickyFor` is a minute.
    fn engine() -> Engine {
        let mut engine = Engine::default();
        engine.set_groups(sticky_groups("1m"));
        engine.advance_to(1000);
        engine
    }

    /// A Service that is served, confirmed, and what it is then.
    fn served(engine: &mut Engine, name: &str, changes: &str) -> Service {
        let mut object = object(name, changes);
        let Decision::Write(write) = engine.decide(&read(&object).unwrap(), Edge::default()).decision else {
            panic!("{name} is not served")
        };
        merge(&mut object, status_patch("2", &write));
        let service = read(&object).unwrap();
        engine.sync(&service);
        service
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("ns", name)
    }

    #[test]
    fn a_service_that_comes_back_in_time_gets_its_address_and_nobody_else_meanwhile() {
        let mut engine = engine();
        let a = served(&mut engine, "a", "");
        engine.retire(&a);
        assert_eq!(engine.next_deadline(), Some(1060));
        assert_eq!(served(&mut engine, "b", "").facts.ingress, ips("192.0.2.1"));
        let asking = service("c", "metadata: {annotations: {purelb.io/addresses: 192.0.2.0}}");
        let outcome = engine.decide(&asking, Edge::default());
        let problem = problem(&outcome.decision).unwrap();
        assert_eq!(
            (problem.reason, &problem.wait),
            ("address_reserved", &Some(Wait::Address(ip("192.0.2.0"))))
        );
        assert!(problem.message.contains("1970-01-01T00:17:40Z for ns/a"), "{}", problem.message);
        engine.advance_to(1059);
        assert_eq!(served(&mut engine, "a", "").facts.ingress, ips("192.0.2.0"));
        assert!(engine.reservations().is_empty());
        assert_eq!(engine.next_deadline(), None);
    }

    #[test]
    fn a_reservation_that_is_over_frees_its_address_and_wakes_who_waits() {
        let mut engine = engine();
        let gone: Vec<Service> = ["a", "b", "c", "d"].map(|name| served(&mut engine, name, "")).into();
        gone.iter().for_each(|service| drop(engine.retire(service)));
        let asking = "metadata: {annotations: {purelb.io/addresses: 192.0.2.3}}";
        engine.decide(&service("for-room", ""), Edge::default());
        engine.decide(&service("for-the-address", asking), Edge::default());
        assert!(engine.advance_to(1059).is_empty());
        let mut woken = engine.advance_to(1060);
        woken.sort();
        woken.dedup();
        assert_eq!(woken, [key("for-room"), key("for-the-address")]);
        assert_eq!(served(&mut engine, "e", "").facts.ingress, ips("192.0.2.0"));
    }

    #[test]
    fn whoever_leaves_type_load_balancer_or_is_created_again_unseen_leaves_a_reservation() {
        for changes in [
            json!({"spec": {"type": "ClusterIP"}, "status": null}),
            json!({"metadata": {"uid": "other", "annotations": null}, "status": null}),
        ] {
            let mut engine = engine();
            let mut object = object("a", "");
            let Decision::Write(write) = engine.decide(&read(&object).unwrap(), Edge::default()).decision
            else {
                panic!("not served")
            };
            merge(&mut object, status_patch("2", &write));
            engine.sync(&read(&object).unwrap());
            merge(&mut object, changes);
            engine.sync(&read(&object).unwrap());
            assert_eq!(engine.reservations().of(&key("a")), ips("192.0.2.0"));
            assert_eq!(served(&mut engine, "b", "").facts.ingress, ips("192.0.2.1"));
            assert_eq!(served(&mut engine, "a", "").facts.ingress, ips("192.0.2.0"));
        }
    }

    #[test]
    fn a_move_and_a_shared_address_leave_no_reservation() {
        let mut engine = engine();
        let asking = "metadata: {annotations: {purelb.io/addresses: 192.0.2.2}}";
        served(&mut engine, "a", "");
        let moved = served(&mut engine, "a", asking);
        assert_eq!(moved.facts.ingress, ips("192.0.2.2"));
        assert!(engine.reservations().is_empty());
        let shared = |port: u16| {
            format!(
                "{{metadata: {{annotations: {{purelb.io/allow-shared-ip: k}}}}, spec: {{ports: [{{port: {port}}}]}}}}"
            )
        };
        let one = served(&mut engine, "one", &shared(1));
        served(&mut engine, "two", &shared(2));
        engine.retire(&one);
        assert!(engine.reservations().is_empty(), "the other is still there");
        assert_eq!(served(&mut engine, "one", &shared(1)).facts.ingress, one.facts.ingress);
    }

    #[test]
    fn a_service_that_comes_back_for_other_addresses_gives_its_reservation_up() {
        let mut engine = engine();
        let a = served(&mut engine, "a", "");
        engine.retire(&a);
        served(&mut engine, "a", "metadata: {annotations: {purelb.io/addresses: 192.0.2.3}}");
        assert!(engine.reservations().is_empty());
        assert_eq!(served(&mut engine, "b", "").facts.ingress, ips("192.0.2.0"));
    }

    #[test]
    fn lowering_or_removing_sticky_for_or_the_group_ends_reservations() {
        for (after, is_kept) in [
            (sticky_groups("1h"), true),
            (sticky_groups("1m"), true),
            (sticky_groups("10s"), false),
            (groups(&[("default", POOL)]), false),
            (Groups::default(), false),
        ] {
            let mut engine = engine();
            let a = served(&mut engine, "a", "");
            engine.retire(&a);
            engine.set_groups(after);
            assert_eq!(!engine.reservations().is_empty(), is_kept);
            engine.set_groups(sticky_groups("1m"));
            let next = served(&mut engine, "b", "").facts.ingress;
            assert_eq!(next, ips(if is_kept { "192.0.2.1" } else { "192.0.2.0" }));
        }
    }

    #[test]
    fn reservations_outlive_a_restart_in_the_status_of_their_group() {
        let mut before = engine();
        let held = served(&mut before, "held", "");
        let gone = served(&mut before, "gone", "");
        before.retire(&gone);
        let now = k8s_openapi::jiff::Timestamp::from_second(1000).unwrap();
        let status = group_status::status("default", None, &Default::default(), &before, now);
        assert_eq!((status.allocated_ipv4, status.available_ipv4), (2, Some(2)));
        let text = serde_json::to_value(&status).unwrap();
        let shown = json!([{"address": "192.0.2.1", "service": "ns/gone", "until": "1970-01-01T00:17:40Z"}]);
        assert_eq!(text["reservations"], shown);

        let mut after = Engine::default();
        after.set_groups(sticky_groups("1m"));
        after.advance_to(1030);
        after.sync(&held);
        after.restore(group_status::reservations(&serde_json::from_value(text).unwrap()));
        assert_eq!(group_status::status("default", None, &status, &after, now), status);
        assert_eq!(served(&mut after, "new", "").facts.ingress, ips("192.0.2.2"));
        assert_eq!(served(&mut after, "gone", "").facts.ingress, ips("192.0.2.1"));
    }

    #[test]
    fn what_somebody_publishes_or_what_is_over_is_not_restored() {
        let mut engine = testing::engine();
        engine.set_groups(sticky_groups("1m"));
        engine.advance_to(1000);
        served(&mut engine, "a", "");
        let reservation =
            |address: &str, until| Reservation { address: ip(address), service: key("gone"), until };
        engine.restore([
            reservation("192.0.2.0", 1030),
            reservation("192.0.2.1", 1000),
            reservation("192.0.2.2", 9999),
            reservation("10.0.0.1", 1030),
        ]);
        let left: Vec<_> = engine.reservations().iter().cloned().collect();
        assert_eq!(left, [reservation("192.0.2.2", 1060)], "no longer than the group says by now");
    }

    #[test]
    fn of_one_group_no_more_wait_than_its_status_can_hold() {
        let mut engine = Engine::default();
        let pool = "remote: {v4pool: {pool: 10.0.0.0/16, subnet: 10.0.0.0/16, aggregation: /32}}";
        engine.set_groups(groups(&[("default", &format!("{{{pool}, stickyFor: 1h}}"))]));
        for number in 0..=MAX_PER_GROUP {
            let service = served(&mut engine, &format!("s{number}"), "");
            engine.advance_to(i64::try_from(number).unwrap());
            engine.retire(&service);
        }
        assert_eq!(engine.reservations().iter().count(), MAX_PER_GROUP);
        assert!(engine.reservations().of(&key("s0")).is_empty(), "the oldest has ended");
    }
}
