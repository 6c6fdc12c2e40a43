//! `stickyFor`: the addresses of a Service that goes wait for it to come back.
//!
//! A reservation is made when the last holder of an address goes, never for one that its owner has moved. It ends
//! when its time is over, when the Service is served again, when somebody publishes the address after all, and
//! when its group, or `stickyFor` of it, goes. Whoever waited for the address is woken then as by a release.

#[cfg(test)]
mod tests;

use std::{net::IpAddr, time::Duration};

use api::GoDuration;

use super::Engine;
use crate::{
    inputs::{Group, Groups, Service, ServiceKey, service::Ownership},
    reservation::Reservation,
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
        let mut freed = Vec::new();
        if facts.ownership != Ownership::OtherClass {
            let held = self.ledger.held_by(&service.key).iter().copied();
            let left: Vec<IpAddr> = held.filter(|address| facts.ingress.contains(address)).collect();
            freed = self.reserve_for(&service.key, &left);
        }
        let mut woken = self.forget(&service.key);
        woken.extend(self.cured_by_leaving(&freed, &freed));
        woken
    }

    /// Reserves addresses that a Service is about to leave or has just left, where nobody else is on them. What is
    /// free because more are reserved of a group than its status can hold.
    pub(super) fn reserve_for(&mut self, service: &ServiceKey, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut freed = Vec::new();
        for address in addresses {
            let stays = self.ledger.holders(*address).any(|holder| holder.service != *service);
            let secs = sticky_secs(&self.groups, *address);
            if secs > 0 && !stays {
                let until = self.now.saturating_add(secs);
                let reservation = Reservation { address: *address, service: service.clone(), until };
                freed.extend(self.reserve(reservation));
            }
        }
        freed
    }

    /// The address that is free because of it: of the oldest reservation of the group, if there are too many.
    fn reserve(&mut self, reservation: Reservation) -> Option<IpAddr> {
        let address = reservation.address;
        let group = self.groups.of_address(address)?;
        self.touched.push(address);
        self.ledger.block(address);
        self.reservations.add(reservation, group);
        let oldest = self.reservations.surplus(&group.name)?;
        self.end_reservation(oldest)
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
        let mut ended: Vec<IpAddr> =
            ingress.iter().copied().filter(|address| self.reservations.get(*address).is_some()).collect();
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
        self.reservations.regroup(|address| self.groups.of_address(address));
        let freed: Vec<IpAddr> =
            ended.into_iter().filter_map(|address| self.end_reservation(address)).collect();
        self.cured_by_leaving(&freed, &freed)
    }

    /// The reservations of a group, by address.
    pub fn reservations_of<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Reservation> {
        self.reservations.of_group(&group.name)
    }
}
