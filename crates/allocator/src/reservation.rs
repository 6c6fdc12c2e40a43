//! Addresses that wait for a Service to come back: `stickyFor` of ServiceGroups.
//!
//! Not the books of who holds what: an address is reserved for a Service that is gone, until a set second. The
//! clock is the caller's.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use foldhash::fast::RandomState;

use crate::inputs::{Group, ServiceKey, Word};

/// How many addresses of one group may be reserved: they are written to its status. Beyond that the oldest ends.
pub const MAX_PER_GROUP: usize = 500;

/// An address that waits for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Which address.
    pub address: IpAddr,
    /// For whom.
    pub service: ServiceKey,
    /// Seconds since 1970; from then on it is nobody's.
    pub until: i64,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Reservations {
    by_address: HashMap<IpAddr, Kept, RandomState>,
    by_service: HashMap<ServiceKey, Vec<IpAddr>, RandomState>,
    /// Group → when they end.
    by_group: HashMap<Word, BTreeSet<(i64, IpAddr)>, RandomState>,
}

/// One of them, and the group that has the address.
#[derive(Clone, Debug)]
struct Kept {
    reservation: Reservation,
    group: Word,
}

impl Reservations {
    /// Adds one for an address of the group, in the place of another for the same address.
    pub fn add(&mut self, reservation: Reservation, group: &Group) {
        let address = reservation.address;
        self.remove(address);
        self.add_to_group(&group.name, (reservation.until, address));
        self.by_service.entry(reservation.service.clone()).or_default().push(address);
        self.by_address.insert(address, Kept { reservation, group: group.name.clone() });
    }

    fn add_to_group(&mut self, group: &Word, end: (i64, IpAddr)) {
        match self.by_group.get_mut(group) {
            Some(ends) => ends.insert(end),
            None => self.by_group.entry(group.clone()).or_default().insert(end),
        };
    }

    /// Ends one.
    pub fn remove(&mut self, address: IpAddr) -> Option<Reservation> {
        if self.by_address.is_empty() {
            return None;
        }
        let Kept { reservation, group } = self.by_address.remove(&address)?;
        if let Some(ends) = self.by_group.get_mut(&group) {
            ends.remove(&(reservation.until, address));
        }
        if let Some(addresses) = self.by_service.get_mut(&reservation.service) {
            addresses.retain(|known| *known != address);
            if addresses.is_empty() {
                self.by_service.remove(&reservation.service);
            }
        }
        Some(reservation)
    }

    /// The one for this address.
    pub fn get(&self, address: IpAddr) -> Option<&Reservation> {
        self.by_address.get(&address).map(|kept| &kept.reservation)
    }

    /// The addresses that wait for this Service, in the order in which it left them.
    pub fn of(&self, service: &ServiceKey) -> &[IpAddr] {
        self.by_service.get(service).map_or(&[], Vec::as_slice)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// All, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Reservation> {
        let mut all: Vec<&Reservation> = self.by_address.values().map(|kept| &kept.reservation).collect();
        all.sort_unstable_by_key(|reservation| reservation.address);
        all.into_iter()
    }

    /// Those for addresses of the group, by address.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = &Reservation> {
        let ends = self.by_group.get(group).into_iter().flatten();
        let addresses: BTreeSet<IpAddr> = ends.map(|(_, address)| *address).collect();
        addresses.into_iter().filter_map(|address| self.get(address))
    }

    /// The first one to end of a group that has more than [`MAX_PER_GROUP`].
    pub fn surplus(&self, group: &str) -> Option<IpAddr> {
        let ends = self.by_group.get(group).filter(|ends| ends.len() > MAX_PER_GROUP)?;
        ends.first().map(|(_, address)| *address)
    }

    /// The groups are others: `group_of` has an address now. One whose address is in no group stays as it is.
    pub fn regroup<'a>(&mut self, group_of: impl Fn(IpAddr) -> Option<&'a Arc<Group>>) {
        self.by_group.clear();
        let mut ends = Vec::with_capacity(self.by_address.len());
        for (address, kept) in &mut self.by_address {
            if let Some(group) = group_of(*address) {
                kept.group = group.name.clone();
            }
            ends.push((kept.group.clone(), (kept.reservation.until, *address)));
        }
        ends.iter().for_each(|(group, end)| self.add_to_group(group, *end));
    }

    fn first(&self) -> Option<(i64, IpAddr)> {
        self.by_group.values().filter_map(BTreeSet::first).min().copied()
    }

    /// The first one that has ended by now.
    pub fn ended(&self, now: i64) -> Option<IpAddr> {
        self.first().filter(|(until, _)| *until <= now).map(|(_, address)| address)
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<i64> {
        self.first().map(|(until, _)| until)
    }
}
