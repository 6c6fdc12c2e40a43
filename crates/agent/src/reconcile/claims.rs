//! Local pools: the plan goes to the claims, and what these say goes to events, annotations and the node's Lease.

use std::time::Instant;

use super::Reconciler;
use crate::{
    claim::Report,
    holdings::News,
    key::ObjectKey,
    plan::{LocalAddress, ServicePlan},
};

impl Reconciler {
    /// What the claims say.
    pub(super) fn on_report(&mut self, report: Report) {
        tracing::info!(?report, "claim");
        if self.holdings.on_report(&report, self.world.local_pools()) {
            let conflicts = self.holdings.conflicts();
            self.outputs.metrics.local.conflicts.set(conflicts.len().try_into().unwrap_or(i64::MAX));
            self.outputs.conflicts.send_replace(conflicts);
        }
        self.outputs.metrics.local.held.set(self.holdings.held().try_into().unwrap_or(i64::MAX));
        if let Report::Held(address) = report
            && let Some(took) = self.takeovers.end(address, Instant::now())
        {
            self.outputs.metrics.local.on_failover(took);
        }
        let (Report::Conflict(address, _) | Report::Unheld(address, _)) = report else { return };
        for key in self.world.local_pools().users(address) {
            let uid = self.world.service(key).map(|service| service.uid.clone());
            match &report {
                Report::Conflict(_, mac) => self.outputs.events.stranger(key, uid, address, *mac),
                Report::Unheld(_, member) => self.outputs.events.unheld(key, uid, address, member),
                _ => {}
            }
        }
    }

    /// Who is elected for the addresses of a Service may be another: that is counted.
    pub(super) fn count_elections(&mut self, key: &ObjectKey, old: &[LocalAddress]) {
        let plan = self.planner.plan().service(key);
        let new = plan.map(|plan| plan.local.as_slice()).unwrap_or_default();
        let (metrics, pools) = (&self.outputs.metrics.local, self.world.local_pools());
        for local in new {
            let address = local.addr();
            let before = old.iter().find(|before| before.addr() == address);
            if before.map(|before| &before.other) == Some(&local.other) {
                continue;
            }
            if before.is_some() {
                metrics.on_winner_change(key);
            }
            match (&local.other, before.and_then(|before| before.other.as_ref())) {
                (None, before) => {
                    metrics.election_wins.inc();
                    // One that goes on standing for election has only been outdone.
                    if before.is_some_and(|node| !pools.is_candidate(node, address)) {
                        self.takeovers.begin(address, self.arrived_at);
                    }
                }
                (Some(_), None) => {
                    metrics.election_losses.inc();
                    self.takeovers.forget(address);
                }
                (Some(_), Some(_)) => {}
            }
        }
        let is_gone = |before: &&LocalAddress| !new.iter().any(|local| local.addr() == before.addr());
        old.iter().filter(is_gone).for_each(|before| self.takeovers.forget(before.addr()));
        if plan.is_none_or(ServicePlan::has_no_local) {
            metrics.forget_service(key);
        }
    }

    /// Tells the claims what the plan has become, and others what has come of it.
    pub(super) fn tell_claims(&mut self) {
        let (plan, pools) = (self.planner.plan(), self.world.local_pools());
        for input in self.holdings.take_inputs(plan, pools) {
            // Without the claims nothing is held; that they have ended is said where they end.
            let _ = self.claims.inputs.send(input);
        }
        let news = self.holdings.take_news(self.planner.plan(), self.world.local_pools());
        news.into_iter().for_each(|news| self.tell_news(news));
    }

    fn tell_news(&self, news: News) {
        let plan = self.planner.plan().service(&news.service);
        let uid = self.world.service(&news.service).map(|service| service.uid.clone());
        self.outputs.events.local(&news, uid, plan.map(|plan| &plan.decision));
        let (metrics, node) = (&self.outputs.metrics.local, &self.settings.node_name);
        for (address, interface) in &news.gained {
            metrics.set_announced(&news.service, node, *address, true);
            tracing::info!(event = "electionWon", service = %news.service, %address, %interface, "announced");
        }
        for address in &news.lost {
            metrics.set_announced(&news.service, node, *address, false);
            tracing::info!(event = "withdrawAddress", service = %news.service, %address, "withdrawn");
        }
        if let Some(announcement) = news.announcement {
            let _ = self.outputs.announcements.send(announcement);
        }
    }
}
