//! What live nodes say, in the loop: who is woken by it, and whom strangers on the wire concern.

use std::{net::IpAddr, time::Instant};

use api::names::event;

use super::Term;
use crate::{
    events::EventType,
    inputs::{Live, Service},
};

impl Term {
    pub(super) fn on_live(&mut self, live: Live) {
        let mut concerned: Vec<IpAddr> = self.desk.live().strangers().map(|(address, _)| address).collect();
        concerned.extend(live.strangers().map(|(address, _)| address));
        self.leases_listed = true;
        self.desk.set_live(live, Instant::now());
        self.touch_groups(&concerned);
        let live = self.desk.live();
        self.warned.retain(|(_, address, other)| {
            live.stranger(*address).is_some_and(|stranger| stranger.link_layer_address == *other)
        });
        if self.is_listed() {
            self.warn_all_of_strangers();
        }
    }

    /// Tells the holders of addresses that strangers answer for, once each.
    pub(super) fn warn_all_of_strangers(&mut self) {
        let (live, ledger) = (self.desk.live(), self.desk.ledger());
        let holders = live.strangers().flat_map(|(address, _)| ledger.holders(address));
        let holders: Vec<_> = holders.map(|holder| holder.service.clone()).collect();
        for key in holders {
            if let Some(service) = self.desk.service(&key).cloned() {
                self.warn_of_strangers(&service);
            }
        }
    }

    /// Tells a Service's owner of strangers that answer for what the Service publishes, once.
    pub(super) fn warn_of_strangers(&mut self, service: &Service) {
        if self.writer.is_none() {
            return;
        }
        for address in &service.facts.ingress {
            let Some(stranger) = self.desk.live().stranger(*address) else { continue };
            if self.warned.insert((service.key.clone(), *address, stranger.link_layer_address)) {
                let note = format!(
                    "{address} is answered for by {}, too, which is none of our nodes, as node {} reports: take it off \
                     that machine; the Service keeps it",
                    stranger.link_layer_address, stranger.node
                );
                tracing::warn!(service = %service.key, note, "address conflict");
                self.surroundings.events.service(
                    service,
                    EventType::Warning,
                    event::CONFIGURATION_WARNING,
                    note,
                );
            }
        }
    }
}
