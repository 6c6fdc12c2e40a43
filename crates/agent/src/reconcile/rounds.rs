//! What a round does: the difference between plan and kernel, between plan and speaker, in their order.

use std::{sync::Arc, time::Instant};

use bgp::route::{Route, RouteAttributes, RouteClass};
use ipnet::IpNet;
use tokio::time::sleep_until;

use super::{Phase, Reconciler};
use crate::{
    apply::routes::Changes,
    facts::subnets::Membership,
    inputs::{bgp_peer::Surroundings, node_agent::Selection, secret::Known},
    peers,
};

/// Addresses in one round: a few milliseconds of the kernel's time.
const ROUND: usize = 256;

impl Reconciler {
    /// One round.
    pub(super) async fn work(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if std::mem::take(&mut self.dummy_dirty) {
            self.apply_agent_config(now)?;
        }
        if self.interface.next_due().is_some_and(|at| at <= now) {
            self.interface.on_time(now).await;
        }
        match self.phase {
            Phase::Listing => {}
            Phase::FirstPlan => self.first_plan(now).await?,
            Phase::Running => self.round(now).await?,
        }
        Ok(())
    }

    fn apply_agent_config(&mut self, now: Instant) -> anyhow::Result<()> {
        let (mut config, refusal) = self.world.agent_config(&self.settings.dummy_interface);
        if self.world.is_agent_config_known() {
            let state = self.world.selector_state(refusal.is_some());
            self.outputs.metrics.local.set_selector_state(state);
        }
        if let Some(refusal) = refusal {
            tracing::warn!(
                %refusal,
                "LBNodeAgent refused: what the last good one said holds, and before there was one no local address goes \
                 on any interface"
            );
        }
        config.local.announcing.refresh = self.settings.garp_refresh();
        self.tell_membership(config.selection, &config.dummy.interface);
        self.holdings.set_config(config.local);
        self.interface.reconfigure(config.dummy, now)?;
        if self.phase == Phase::Running {
            self.interface.addresses.touch_all(self.planner.plan());
        }
        Ok(())
    }

    fn tell_membership(&self, selection: Selection, dummy_interface: &str) {
        // Interfaces that a list still to come may exclude are not told of.
        let Some(node) = self.world.node().filter(|_| self.world.is_agent_config_known()) else { return };
        let membership = Some(Membership {
            node: node.name.clone(),
            node_uid: node.uid.clone(),
            selection,
            dummy_interface: dummy_interface.to_owned(),
            agent: self.world.node_agent().map(|(key, _)| key.name().to_owned()),
            is_excluded: node.leaving().is_some(),
            heartbeat_port: self.claims.heartbeat_port,
        });
        self.outputs.membership.send_if_modified(|told| {
            let is_news = *told != membership;
            if is_news {
                *told = membership;
            }
            is_news
        });
    }

    /// Addresses first, all of them; then the whole table at once; then the peers.
    async fn first_plan(&mut self, now: Instant) -> anyhow::Result<()> {
        if !self.interface.is_up() {
            // Not an error of ours to die of: the routers are told nothing that this node could not serve.
            let due = self.interface.next_due().unwrap_or(now);
            sleep_until(due.into()).await;
            return Ok(());
        }
        let batch = self.interface.addresses.take(self.planner.plan(), ROUND);
        self.interface.remove(&batch.conflicts, now).await;
        self.interface.add(&batch.add, now).await;
        if !self.interface.addresses.is_idle() {
            return Ok(());
        }
        if self.asking > 0 {
            // The first table is whole: a router must not forget what the last agent told it, for want of an answer.
            if let Some(key) = self.forwards.1.recv().await {
                self.on_forwards(&key);
            }
            return Ok(());
        }
        self.routes.adopt_blackholes(self.interface.blackholes().await);
        self.routes.touch_all(self.planner.plan());
        let changes = self.take_routes();
        self.add_blackholes(&changes.add_blackholes).await;
        let table: Vec<Route> =
            changes.announce.iter().map(|(prefix, class)| route(*prefix, *class)).collect();
        tracing::info!(
            addresses = self.interface.addresses.len(),
            routes = table.len(),
            "first plan applied"
        );
        // Routers keep what the last agent told them: the packets it attracts find their addresses here. Where none
        // were kept, as after a boot of the node, they must not.
        let kept = self.interface.addresses.kept_families();
        if !kept.is_empty() {
            tracing::info!(?kept, "addresses of an earlier run are adopted: BGP restarts gracefully");
            self.speaker.restarted(kept).await?;
        }
        self.speaker.replace_all(table).await?;
        self.remove_blackholes(&changes.remove_blackholes).await;
        self.phase = Phase::Running;
        self.interface.addresses.touch_all(self.planner.plan());
        self.tell_peers().await?;
        self.outputs.applied_at.send_replace(Some(Instant::now()));
        Ok(())
    }

    /// Addresses → routes → withdrawals → removal of addresses.
    async fn round(&mut self, now: Instant) -> anyhow::Result<()> {
        self.tell_claims();
        let are_marks_new = std::mem::take(&mut self.marks_dirty);
        let are_peers_new = (std::mem::take(&mut self.peers_dirty) && self.resolve_peers()) || are_marks_new;
        let batch = self.interface.addresses.take(self.planner.plan(), ROUND);
        if !batch.conflicts.is_empty() {
            self.interface.remove(&batch.conflicts, now).await;
        }
        if !batch.add.is_empty() {
            self.interface.add(&batch.add, now).await;
            // One that could not be put back must not attract packets any longer.
            batch.add.iter().for_each(|address| self.routes.touch(*address));
        }
        let changes = self.take_routes();
        self.add_blackholes(&changes.add_blackholes).await;
        // A policy knows a class before routes come in it.
        if self.routes.classes().take_changed() || are_peers_new {
            self.tell_peers().await?;
        }
        if !changes.announce.is_empty() {
            let routes = changes.announce.iter().map(|(prefix, class)| route(*prefix, *class));
            self.speaker.announce(routes.collect::<Vec<_>>()).await?;
        }
        self.routes.classes().forget_unused();
        if !changes.withdraw.is_empty() {
            self.speaker.withdraw(changes.withdraw).await?;
        }
        self.remove_blackholes(&changes.remove_blackholes).await;
        if !batch.remove.is_empty() {
            self.interface.remove(&batch.remove, now).await;
        }
        if self.interface.addresses.is_idle() {
            self.interface.clean_former().await;
            self.measure();
            self.tell();
        }
        Ok(())
    }

    async fn add_blackholes(&mut self, prefixes: &[IpNet]) {
        if !prefixes.is_empty() {
            for prefix in self.interface.add_blackholes(prefixes).await {
                self.routes.on_blackhole(prefix, true);
            }
        }
    }

    async fn remove_blackholes(&mut self, prefixes: &[IpNet]) {
        if !prefixes.is_empty() {
            for prefix in self.interface.remove_blackholes(prefixes).await {
                self.routes.on_blackhole(prefix, false);
            }
        }
    }

    fn take_routes(&mut self) -> Changes {
        self.routes.take(self.planner.plan(), &self.interface.addresses, self.planner.advertising())
    }

    /// Reads the peers; whether they are others than before. Where they choose by something else, every Service is
    /// planned again.
    pub(super) fn resolve_peers(&mut self) -> bool {
        let Some(node) = self.world.node() else { return false };
        let surroundings = Surroundings {
            interface_index: &|name| nix::net::if_::if_nametoindex(name).ok(),
            router: &|interface| self.world.router(interface),
            password: &|name| self.world.secret(name).key(name).map(Some),
        };
        let is_unread = |secret: &str| matches!(self.world.secret(secret), Known::NotYet);
        let specs = self.world.peers();
        let set = peers::resolve(node, &specs, surroundings).among(self.world.all_peers());
        let set = set.keeping(&self.peers, &specs, is_unread);
        if *self.peers == set {
            return false;
        }
        for peer in &set.peers {
            if let Err(refusal) = &peer.config {
                tracing::warn!(peer = %peer.name, %refusal, "BGPPeer refused");
            }
        }
        self.peers = Arc::new(set);
        if self.planner.set_advertising(self.peers.advertising()) {
            for key in self.world.service_keys() {
                self.replan(&key, None);
            }
            self.routes.touch_all(self.planner.plan());
        }
        true
    }

    async fn tell_peers(&mut self) -> anyhow::Result<()> {
        let is_leaving = self.draining.is_marked();
        let configs = self.peers.configs(self.planner.advertising(), self.routes.classes(), is_leaving);
        if **self.outputs.peers.borrow() != *self.peers {
            let names: Vec<_> = configs.iter().map(|peer| &*peer.name).collect();
            tracing::info!(peers = ?names, "peers set");
        }
        self.speaker.set_peers(configs).await?;
        self.outputs.peers.send_if_modified(|told| {
            let is_new = **told != *self.peers;
            *told = self.peers.clone();
            is_new
        });
        Ok(())
    }

    /// The time from arrivals to when the sockets have taken what they caused is noted.
    fn measure(&mut self) {
        for arrival in self.arrivals.drain(..) {
            // Nobody measures any more where the speaker has ended.
            let _ = self.latency.send(arrival);
        }
    }
}

fn route(prefix: IpNet, class: RouteClass) -> Route {
    Route { prefix, class, attributes: plain_attributes() }
}

/// One set of attributes for all routes: shared, so that it costs nothing a route.
fn plain_attributes() -> Arc<RouteAttributes> {
    static PLAIN: std::sync::LazyLock<Arc<RouteAttributes>> = std::sync::LazyLock::new(Arc::default);
    PLAIN.clone()
}
