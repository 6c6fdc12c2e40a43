//! Addresses that wait for a Service to come back: `stickyFor` of ServiceGroups.
//!
//! Not the books of who holds what: an address is reserved for a Service that is gone, until a set second. The
//! clock is the caller's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use api::AddressRange;
use foldhash::fast::RandomState;

use crate::inputs::ServiceKey;

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
    by_address: BTreeMap<IpAddr, Reservation>,
    by_service: HashMap<ServiceKey, Vec<IpAddr>, RandomState>,
    by_end: BTreeSet<(i64, IpAddr)>,
}

impl Reservations {
    /// Adds one, in the place of another for the same address.
    pub fn add(&mut self, reservation: Reservation) {
        let address = reservation.address;
        self.remove(address);
        self.by_end.insert((reservation.until, address));
        self.by_service.entry(reservation.service.clone()).or_default().push(address);
        self.by_address.insert(address, reservation);
    }

    /// Ends one.
    pub fn remove(&mut self, address: IpAddr) -> Option<Reservation> {
        let reservation = self.by_address.remove(&address)?;
        self.by_end.remove(&(reservation.until, address));
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
        if self.by_address.is_empty() { None } else { self.by_address.get(&address) }
    }

    /// The addresses that wait for this Service, in the order in which it left them.
    pub fn of(&self, service: &ServiceKey) -> &[IpAddr] {
        if self.by_service.is_empty() {
            return &[];
        }
        self.by_service.get(service).map_or(&[], Vec::as_slice)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// All, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Reservation> {
        self.by_address.values()
    }

    /// Those for addresses of a range.
    pub fn within(&self, range: &AddressRange) -> impl Iterator<Item = &Reservation> {
        self.by_address.range(range.first()..=range.last()).map(|(_, reservation)| reservation)
    }

    /// The first one that has ended by now.
    pub fn ended(&self, now: i64) -> Option<IpAddr> {
        self.by_end.first().filter(|(until, _)| *until <= now).map(|(_, address)| *address)
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<i64> {
        self.by_end.first().map(|(until, _)| *until)
    }
}
