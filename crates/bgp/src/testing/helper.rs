//! A router that keeps routes over a restart of the speaker that told it (RFC 4724 §4.2, RFC 8538 §4): what the
//! receiving speaker of the RFCs has in its table at any moment. It only listens; the speaker beside it does the
//! talking.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::BytesMut;
use ipnet::IpNet;

use super::{table::router, wire::WireId};
use crate::{
    capabilities::GracefulRestart,
    message::{RefreshSubtype, RouteRefresh, Update},
    notification::{CEASE_HARD_RESET, Code},
    types::{Family, Time},
    wire::{self, Received, frame, update::inspect},
};

/// What is under way on one connection.
#[derive(Debug, Default)]
struct Incoming {
    octets: BytesMut,
    restart: Option<GracefulRestart>,
    is_opened: bool,
}

/// The table of one router, over all connections with one speaker.
#[derive(Debug, Default)]
pub struct Helper {
    incoming: BTreeMap<WireId, Incoming>,
    /// The connection whose session is up, and what was said of restarts on it.
    session: Option<(WireId, Option<GracefulRestart>)>,
    routes: BTreeSet<IpNet>,
    stale: BTreeSet<IpNet>,
    /// When what is stale is dropped.
    until: Option<Time>,
    /// Whether the router itself offers graceful restart, and sets the N bit.
    offers: Option<bool>,
    /// What a refresh that has begun (RFC 7313) has not brought again.
    refreshing: BTreeSet<IpNet>,
    /// Refreshes that have ended.
    pub refreshes: usize,
    /// OPENs that had the Restart State bit.
    pub restarts_seen: usize,
}

impl Helper {
    /// What it forwards to the speaker at this moment.
    pub fn routes(&self, now: Time) -> BTreeSet<IpNet> {
        self.routes.union(&self.stale(now)).copied().collect()
    }

    /// What it has from before a restart and has not heard again.
    pub fn stale(&self, now: Time) -> BTreeSet<IpNet> {
        if self.until.is_some_and(|until| until <= now) { BTreeSet::new() } else { self.stale.clone() }
    }

    /// Octets of the speaker.
    pub(super) fn read(&mut self, id: WireId, octets: &[u8], offers: Option<bool>, now: Time) {
        self.offers = offers;
        self.pass(now);
        self.incoming.entry(id).or_default().octets.extend_from_slice(octets);
        while let Some(message) = self.incoming.get_mut(&id).and_then(|incoming| next(&mut incoming.octets)) {
            self.message(id, &message, now);
        }
    }

    /// The router itself ends a connection, with these last words.
    pub(super) fn on_ended_here(&mut self, id: WireId, farewell: &[u8], now: Time) {
        let is_session = self.session.as_ref().is_some_and(|(session, _)| *session == id);
        let mut octets = BytesMut::from(farewell);
        while let Some(message) = next(&mut octets) {
            if let (true, Ok(Received::Notification(sent))) = (is_session, wire::decode(&message, &router()))
            {
                self.notification(sent.code(), now);
            }
        }
        self.on_closed(id, now);
    }

    /// A connection is over.
    pub(super) fn on_closed(&mut self, id: WireId, now: Time) {
        self.pass(now);
        self.incoming.remove(&id);
        if self.session.as_ref().is_some_and(|(session, _)| *session == id) {
            self.end(true, now);
        }
    }

    /// Time has passed.
    pub(super) fn pass(&mut self, now: Time) {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
            self.stale.clear();
        }
    }

    fn message(&mut self, id: WireId, message: &[u8], now: Time) {
        match wire::decode(message, &router()).expect("messages are sent without faults") {
            Received::Open(open) => {
                let incoming = self.incoming.entry(id).or_default();
                incoming.restart = open.capabilities.graceful_restart;
                incoming.is_opened = true;
                let restarts = incoming.restart.as_ref().is_some_and(|restart| restart.restarting);
                self.restarts_seen += usize::from(restarts);
            }
            Received::Keepalive => self.establish(id, now),
            Received::Notification(notification)
                if self.session.as_ref().is_some_and(|(session, _)| *session == id) =>
            {
                self.notification(notification.code(), now);
            }
            Received::Update(_) => {
                for update in inspect::update(message, &router()).expect("UPDATEs are sent without faults") {
                    self.update(update);
                }
            }
            Received::RouteRefresh(refresh) => self.refresh(refresh),
            Received::Notification(_) => {}
        }
    }

    /// One that ends the session, from either side (RFC 8538 §4).
    fn notification(&mut self, code: Code, now: Time) {
        let both = |theirs: &GracefulRestart| theirs.notification && self.offers == Some(true);
        let is_graceful = self.session.as_ref().and_then(|(_, theirs)| theirs.as_ref()).is_some_and(both);
        self.end(is_graceful && code != CEASE_HARD_RESET, now);
    }

    /// The first KEEPALIVE behind an OPEN.
    fn establish(&mut self, id: WireId, now: Time) {
        let Some(incoming) = self.incoming.get_mut(&id).filter(|incoming| incoming.is_opened) else { return };
        incoming.is_opened = false;
        let restart = incoming.restart.take();
        if self.session.is_some() {
            // A new session takes the old one for lost.
            self.end(true, now);
        }
        self.until = None;
        // RFC 4724 §4.2: families that are not kept, or not named, are dropped at once.
        let is_kept = |family: Family| {
            restart.as_ref().is_some_and(|restart| restart.families.contains(&(family, true)))
        };
        self.stale.retain(|prefix| is_kept(Family::of(prefix)));
        self.session = Some((id, restart));
    }

    fn update(&mut self, update: Update) {
        match update {
            Update::Reach { nlri, .. } => {
                for prefix in nlri {
                    self.stale.remove(&prefix);
                    self.refreshing.remove(&prefix);
                    self.routes.insert(prefix);
                }
            }
            Update::Unreach { nlri, .. } => {
                for prefix in nlri {
                    self.stale.remove(&prefix);
                    self.routes.remove(&prefix);
                }
            }
            Update::EndOfRib(family) => self.stale.retain(|prefix| Family::of(prefix) != family),
        }
    }

    /// RFC 7313 §4.2.
    fn refresh(&mut self, refresh: RouteRefresh) {
        let family = Family::from_afi_safi(refresh.afi, refresh.safi).expect("only what is spoken");
        let is_of = |prefix: &&IpNet| Family::of(prefix) == family;
        let pending: Vec<IpNet> = self.refreshing.iter().filter(is_of).copied().collect();
        match refresh.subtype {
            RefreshSubtype::Begin => self.refreshing.extend(self.routes.iter().filter(is_of)),
            RefreshSubtype::End => {
                self.refreshes += 1;
                for prefix in pending {
                    self.refreshing.remove(&prefix);
                    self.routes.remove(&prefix);
                }
            }
            // Asked by a test in the name of the other end.
            RefreshSubtype::Request | RefreshSubtype::Unknown(_) => {}
        }
    }

    /// The session is over; what the other end has told stays where both have said that it may.
    fn end(&mut self, is_graceful: bool, now: Time) {
        let restart = self.session.take().and_then(|(_, restart)| restart).filter(|_| self.offers.is_some());
        let routes = std::mem::take(&mut self.routes);
        self.refreshing.clear();
        let Some(restart) = restart.filter(|_| is_graceful) else { return self.stale.clear() };
        let is_kept = |family| restart.families.iter().any(|(kept, _)| *kept == family);
        // What was stale already is dropped: twice in a row is too much (RFC 4724 §4.2).
        self.stale = routes.into_iter().filter(|prefix| is_kept(Family::of(prefix))).collect();
        self.until = Some(now + Duration::from_secs(u64::from(restart.restart_time_secs)));
    }
}

fn next(octets: &mut BytesMut) -> Option<BytesMut> {
    let length = frame::next(octets, frame::MAX_EXTENDED_LENGTH).expect("whole messages are sent")?;
    Some(octets.split_to(length))
}
