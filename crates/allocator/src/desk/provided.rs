//! What the desk has to do with IPAM providers: it takes their answers, and says what comes next for an account.

use std::net::IpAddr;

use super::Desk;
use crate::{
    external::{Account, Action, Answer},
    inputs::ServiceKey,
};

impl Desk {
    /// What came of [`super::Effect::Ask`]: the Service is decided about again.
    pub fn on_provided(&mut self, service: &ServiceKey, answer: Answer) {
        if self.entries.get(service).is_some() {
            self.engine.answer(service, answer);
            self.dirty.push(service.clone());
        }
    }

    /// What a Service publishes of a group.
    pub fn published(&self, service: &ServiceKey, group: &str) -> &[IpAddr] {
        let facts = self.entries.get(service).map(|entry| &entry.service.facts);
        let facts = facts.filter(|facts| facts.brand.allocated_from.as_deref() == Some(group));
        facts.map_or(&[], |facts| &facts.ingress)
    }

    /// What comes next for the account of a Service at the provider of a group. `is_recorded`: its name stands in
    /// the group's status.
    pub fn next_action(
        &self,
        service: &ServiceKey,
        group: &str,
        account: &mut Account,
        is_recorded: bool,
    ) -> Action {
        let published = self.published(service, group);
        account.publishes(published);
        if self.entries.get(service).is_none() {
            account.wants_nothing();
            account.decided();
        }
        let mut kept = published.to_vec();
        kept.extend(self.may_publish(service).filter(|address| account.given().contains(address)));
        account.next(self.is_settled(service).then_some(&kept), is_recorded)
    }

    /// The same at a provider that the group has had before: what else the Service has of the group, it has from
    /// another.
    pub fn next_action_at_former(&self, service: &ServiceKey, group: &str, account: &mut Account) -> Action {
        if self.entries.get(service).is_none() {
            account.decided();
        }
        let published = self.published(service, group).iter().copied().chain(self.may_publish(service));
        let kept: Vec<IpAddr> = published.filter(|address| account.given().contains(address)).collect();
        account.next(self.is_settled(service).then_some(&kept), true)
    }

    /// Whether what is known of a Service is what there is: it is decided about, no write is under way, none came
    /// too late.
    fn is_settled(&self, service: &ServiceKey) -> bool {
        let entry = self.entries.get(service);
        !self.dirty.contains(service) && entry.is_none_or(|entry| !entry.in_flight && entry.behind.is_none())
    }

    /// What a Service does not publish yet, and may by a write of ours.
    fn may_publish(&self, service: &ServiceKey) -> impl Iterator<Item = IpAddr> {
        let published = self.entries.get(service).map_or(&[][..], |entry| &entry.service.facts.ingress);
        self.ledger().held_by(service).iter().copied().filter(move |address| !published.contains(address))
    }
}
