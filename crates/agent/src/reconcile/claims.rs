//! Local pools: the plan goes to the claims, and what these say goes to events, annotations and the node's Lease.

use super::Reconciler;
use crate::{claim::Report, holdings::News};

impl Reconciler {
    /// What the claims say.
    pub(super) fn on_report(&mut self, report: Report) {
        tracing::info!(?report, "claim");
        if self.holdings.on_report(&report, self.world.local_pools()) {
            self.outputs.conflicts.send_replace(self.holdings.conflicts());
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
        if let Some(announcement) = news.announcement {
            let _ = self.outputs.announcements.send(announcement);
        }
    }
}
