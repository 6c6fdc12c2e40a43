//! What the desk has to do with IPAM providers: it takes their answers, and says what a Service may have of them.

use std::net::IpAddr;

use super::Desk;
use crate::{external::Answer, inputs::ServiceKey};

impl Desk {
    /// What came of [`super::Effect::Ask`]: the Service is decided about again.
    pub fn on_provided(&mut self, service: &ServiceKey, answer: Answer) {
        if self.entries.contains_key(service) {
            self.engine.answer(service, answer);
            self.dirty.push(service.clone());
        }
    }

    /// Whether what is known of a Service is what there is: it is decided about, no write is under way, none came
    /// too late.
    pub fn is_settled(&self, service: &ServiceKey) -> bool {
        let entry = self.entries.get(service);
        !self.dirty.queued.contains(service)
            && entry.is_none_or(|entry| !entry.in_flight && entry.behind.is_none())
    }

    /// What a Service does not publish yet, and may by a write of ours.
    pub fn may_publish(&self, service: &ServiceKey) -> impl Iterator<Item = IpAddr> {
        let published = self.entries.get(service).map_or(&[][..], |entry| &entry.service.facts.ingress);
        self.ledger().held_by(service).iter().copied().filter(move |address| !published.contains(address))
    }
}
