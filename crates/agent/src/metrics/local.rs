//! What is counted of local pools: the election, the addresses on the wire, and the heartbeats. The names are those that
//! PureLB's users know, as far as PureLB has them.

use std::{net::IpAddr, sync::Arc, time::Duration};

use heartbeat::{Dropped, Standing, driver::Observation};
use ipnet::IpNet;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use tokio::sync::watch;

use crate::{election::Electorate, key::ObjectKey, liveness::Liveness};

/// From 5 ms to 10 s: a probe alone takes 50 ms, and a detection half a second.
const FAILOVER_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From 0.1 ms to 1 s: beyond half a second the others take this node for dead.
const LATENESS_BUCKETS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// Label of what is counted a Service.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ServiceLabel {
    service: String,
}

/// Label of what is counted a subnet.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SubnetLabel {
    subnet: String,
}

/// Label of where the configuration of this node's interfaces is from.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StateLabel {
    state: &'static str,
}

/// Labels of an address that this node announces.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct AnnouncedLabels {
    service: String,
    node: String,
    ip: String,
}

/// Where the configuration of this node's interfaces is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorState {
    /// An LBNodeAgent.
    Configured,
    /// No LBNodeAgent says anything: the interface of the default route serves.
    Default,
    /// There are LBNodeAgents, and none is for this node: it has no part in local pools.
    Deselected,
    /// The LBNodeAgent for this node is refused.
    Invalid,
}

impl SelectorState {
    const ALL: [(SelectorState, &'static str); 4] = [
        (SelectorState::Configured, "configured"),
        (SelectorState::Default, "default"),
        (SelectorState::Deselected, "deselected"),
        (SelectorState::Invalid, "invalid"),
    ];
}

/// Labels of datagrams that were not taken.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DropLabels {
    subnet: String,
    reason: &'static str,
}

/// What is counted of local pools.
#[derive(Clone, Debug)]
pub struct LocalMetrics {
    /// 1 while this node's Lease is renewed.
    pub lease_healthy: Gauge,
    /// Writes of the Lease that were confirmed.
    pub lease_renewals: Counter,
    /// Those that were not.
    pub lease_renewal_failures: Counter,
    /// Nodes that stand for election.
    member_count: Gauge,
    /// Subnets of all of them.
    subnet_count: Gauge,
    /// Subnets that this node serves.
    local_subnet_count: Gauge,
    winner_changes: Family<ServiceLabel, Counter>,
    announced: Family<AnnouncedLabels, Gauge>,
    selector_state: Family<StateLabel, Gauge>,
    /// Addresses that this node was elected for, each time that it was not before.
    pub election_wins: Counter,
    /// Addresses that another was elected for, each time that it was not so before.
    pub election_losses: Counter,
    /// Addresses of local pools that this node holds.
    pub held: Gauge,
    /// Addresses for which a stranger answers.
    pub conflicts: Gauge,
    /// From a holder's end being known here to this node answering for the address.
    failover: Histogram,
    /// Of what is said on the wire.
    pub wire: WireMetrics,
    /// Of heartbeats.
    pub heartbeats: HeartbeatMetrics,
}

/// What is counted of addresses on interfaces, and of what is said of them.
#[derive(Clone, Debug, Default)]
pub struct WireMetrics {
    /// Addresses put on an interface.
    pub additions: Counter,
    /// Addresses taken off.
    pub withdrawals: Counter,
    /// Additions and removals that the kernel refused.
    pub errors: Counter,
    /// Lifetimes begun anew.
    pub renewals: Counter,
    /// Those that the kernel refused.
    pub renewal_errors: Counter,
    garp_sent: Counter,
    garp_errors: Counter,
    na_sent: Counter,
    na_errors: Counter,
}

/// What is counted of heartbeats.
#[derive(Clone, Debug)]
pub struct HeartbeatMetrics {
    received: Family<SubnetLabel, Counter>,
    sent: Family<SubnetLabel, Counter>,
    dropped: Family<DropLabels, Counter>,
    lateness: Histogram,
}

impl Default for LocalMetrics {
    fn default() -> LocalMetrics {
        LocalMetrics {
            lease_healthy: Gauge::default(),
            lease_renewals: Counter::default(),
            lease_renewal_failures: Counter::default(),
            member_count: Gauge::default(),
            subnet_count: Gauge::default(),
            local_subnet_count: Gauge::default(),
            winner_changes: Family::default(),
            announced: Family::default(),
            selector_state: Family::default(),
            election_wins: Counter::default(),
            election_losses: Counter::default(),
            held: Gauge::default(),
            conflicts: Gauge::default(),
            failover: Histogram::new(FAILOVER_BUCKETS),
            wire: WireMetrics::default(),
            heartbeats: HeartbeatMetrics::default(),
        }
    }
}

impl Default for HeartbeatMetrics {
    fn default() -> HeartbeatMetrics {
        HeartbeatMetrics {
            received: Family::default(),
            sent: Family::default(),
            dropped: Family::default(),
            lateness: Histogram::new(LATENESS_BUCKETS),
        }
    }
}

impl LocalMetrics {
    /// Registers everything but what is counted of remote pools, too.
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("purelb_election_lease_healthy", "1 while this node's Lease is renewed", &self.lease_healthy);
        gauge("purelb_election_member_count", "Nodes that stand for election", &self.member_count);
        gauge(
            "purelb_election_subnet_count",
            "Subnets of all nodes that stand for election",
            &self.subnet_count,
        );
        gauge(
            "purelb_election_local_subnet_count",
            "Subnets that this node serves",
            &self.local_subnet_count,
        );
        gauge(
            "purelb_lbnodeagent_local_addresses",
            "Addresses of local pools that this node holds",
            &self.held,
        );
        gauge(
            "purelb_lbnodeagent_address_conflicts",
            "Addresses of local pools for which a machine answers that is none of our nodes",
            &self.conflicts,
        );
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("purelb_election_lease_renewals", "Renewals of this node's Lease", &self.lease_renewals);
        counter(
            "purelb_election_lease_renewal_failures",
            "Attempts to renew this node's Lease that the API server did not confirm",
            &self.lease_renewal_failures,
        );
        counter(
            "purelb_lbnodeagent_election_wins",
            "Addresses that this node was elected for, each time anew",
            &self.election_wins,
        );
        counter(
            "purelb_lbnodeagent_election_losses",
            "Addresses on subnets of this node that another was elected for, each time anew",
            &self.election_losses,
        );
        let wire = &self.wire;
        counter(
            "purelb_lbnodeagent_address_renewals",
            "Lifetimes of local addresses begun anew",
            &wire.renewals,
        );
        counter(
            "purelb_lbnodeagent_address_renewal_errors",
            "Renewals of local addresses that the kernel refused",
            &wire.renewal_errors,
        );
        counter("purelb_lbnodeagent_garp_sent", "Gratuitous ARP packets sent", &wire.garp_sent);
        counter(
            "purelb_lbnodeagent_garp_errors",
            "Gratuitous ARPs that could not be sent",
            &wire.garp_errors,
        );
        counter("purelb_lbnodeagent_na_sent", "Unsolicited Neighbor Advertisements sent", &wire.na_sent);
        counter(
            "purelb_lbnodeagent_na_errors",
            "Unsolicited Neighbor Advertisements that could not be sent",
            &wire.na_errors,
        );
        registry.register(
            "purelb_election_winner_changes",
            "How often another node was elected for an address of the Service on a subnet of this node",
            self.winner_changes.clone(),
        );
        registry.register(
            "purelb_lbnodeagent_announced",
            "1 for each address of a local pool that this node answers for, by Service",
            self.announced.clone(),
        );
        registry.register(
            "purelb_lbnodeagent_selector_state",
            "1 for where the configuration of this node's interfaces is from: configured (by an LBNodeAgent), default (none \
             says anything), deselected (none is for this node: no part in local pools), invalid (it is refused)",
            self.selector_state.clone(),
        );
        registry.register(
            "purelb_failover_seconds",
            "From when it was known here that the node that had an address is gone or leaves until this node answers for it",
            self.failover.clone(),
        );
        self.heartbeats.register(registry);
    }

    /// Who stands for election now.
    pub fn set_electorate(&self, node: &str, electorate: &Electorate) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let all: std::collections::BTreeSet<&IpNet> = electorate.values().flatten().collect();
        self.member_count.set(count(electorate.len()));
        self.subnet_count.set(count(all.len()));
        self.local_subnet_count.set(count(electorate.get(node).map_or(0, std::collections::BTreeSet::len)));
    }

    /// Where the configuration of this node's interfaces is from now.
    pub fn set_selector_state(&self, now: SelectorState) {
        for (is, state) in SelectorState::ALL {
            self.selector_state.get_or_create(&StateLabel { state }).set(i64::from(is == now));
        }
    }

    /// The node answers for the address of the Service from now on, or no more.
    pub fn set_announced(&self, service: &ObjectKey, node: &str, address: IpAddr, is_announced: bool) {
        let labels =
            AnnouncedLabels { service: service.to_string(), node: node.to_owned(), ip: address.to_string() };
        if is_announced {
            self.announced.get_or_create(&labels).set(1);
        } else {
            self.announced.remove(&labels);
        }
    }

    /// Another node was elected for an address of the Service.
    pub fn on_winner_change(&self, service: &ObjectKey) {
        self.winner_changes.get_or_create(&ServiceLabel { service: service.to_string() }).inc();
    }

    /// The Service is gone, and its series with it.
    pub fn forget_service(&self, service: &ObjectKey) {
        self.winner_changes.remove(&ServiceLabel { service: service.to_string() });
    }

    /// An address is answered for here so long after its holder's end was known.
    pub fn on_failover(&self, took: Duration) {
        self.failover.observe(took.as_secs_f64());
    }
}

impl WireMetrics {
    /// An address was announced: for IPv4 in request and in reply form.
    pub fn on_announcement(&self, is_ipv4: bool, is_sent: bool) {
        match (is_ipv4, is_sent) {
            (true, true) => self.garp_sent.inc_by(2),
            (true, false) => self.garp_errors.inc(),
            (false, true) => self.na_sent.inc(),
            (false, false) => self.na_errors.inc(),
        };
    }
}

impl HeartbeatMetrics {
    fn register(&self, registry: &mut Registry) {
        let sums = [
            ("purelb_heartbeat_received", "Heartbeats that were believed", &self.received),
            ("purelb_heartbeat_sent", "Heartbeats sent", &self.sent),
        ];
        for (name, help, family) in sums {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "purelb_heartbeat_dropped",
            "Datagrams on the port of heartbeats that were not believed, and why",
            self.dropped.clone(),
        );
        registry.register(
            "purelb_heartbeat_lateness_seconds",
            "How late this node's heartbeats were, against when they were due",
            self.lateness.clone(),
        );
    }

    /// Who counts what happens on the socket of a subnet.
    pub fn observer(&self, subnet: &IpNet) -> Box<dyn FnMut(Observation<'_>) + Send> {
        let label = SubnetLabel { subnet: subnet.to_string() };
        let received = self.received.get_or_create_owned(&label);
        let sent = self.sent.get_or_create_owned(&label);
        let (dropped, lateness, subnet) = (self.dropped.clone(), self.lateness.clone(), label.subnet);
        Box::new(move |observation| match observation {
            Observation::Received => _ = received.inc(),
            Observation::Sent => _ = sent.inc(),
            Observation::Late(by) => lateness.observe(by.as_secs_f64()),
            Observation::Dropped(why) => {
                let labels = DropLabels { subnet: subnet.clone(), reason: word(why) };
                dropped.get_or_create(&labels).inc();
            }
        })
    }

    /// The subnet is no subnet of this node any more.
    pub fn forget(&self, subnet: &IpNet) {
        let label = SubnetLabel { subnet: subnet.to_string() };
        self.received.remove(&label);
        self.sent.remove(&label);
        for reason in REASONS {
            self.dropped.remove(&DropLabels { subnet: label.subnet.clone(), reason });
        }
    }
}

const REASONS: [&str; 10] = [
    "malformed",
    "version",
    "group",
    "unknown_member",
    "source",
    "tag",
    "parts",
    "other_process",
    "old_process",
    "replayed",
];

/// A word for why a datagram was dropped.
const fn word(why: &Dropped) -> &'static str {
    match why {
        Dropped::Short(_) => "malformed",
        Dropped::Version(_) => "version",
        Dropped::Group => "group",
        Dropped::Stranger(_) => "unknown_member",
        Dropped::Source(_) => "source",
        Dropped::Tag => "tag",
        Dropped::Parts => "parts",
        Dropped::Echo => "other_process",
        Dropped::Boot => "old_process",
        Dropped::Replayed => "replayed",
    }
}

/// How the other nodes stand, read when it is asked for.
#[derive(Debug)]
pub struct LivenessCollector(pub watch::Receiver<Arc<Liveness>>);

impl Collector for LivenessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let liveness = self.0.borrow().clone();
        let mut family = encoder.encode_descriptor(
            "purelb_heartbeat_members",
            "Other nodes of the subnet by what their heartbeats say of them: alive, suspected, dead, or unknown (not heard yet)",
            None,
            MetricType::Gauge,
        )?;
        for (subnet, members) in liveness.subnets() {
            let subnet = subnet.to_string();
            for (standing, name) in STANDINGS {
                let count = members.values().filter(|state| state.standing == standing).count();
                let labels = [("subnet", subnet.as_str()), ("standing", name)];
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

const STANDINGS: [(Standing, &str); 4] = [
    (Standing::Alive, "alive"),
    (Standing::Suspected, "suspected"),
    (Standing::Dead, "dead"),
    (Standing::Unknown, "unknown"),
];

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_series_goes_with_what_it_is_about() {
        let (metrics, mut registry) = (LocalMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let key = ObjectKey::new("default", "web");
        metrics.on_winner_change(&key);
        let subnet = "192.0.2.0/24".parse().unwrap();
        let mut observe = metrics.heartbeats.observer(&subnet);
        observe(Observation::Received);
        for why in [Dropped::Tag, Dropped::Short(3), Dropped::Version(9), Dropped::Echo, Dropped::Group] {
            observe(Observation::Dropped(&why));
        }
        let before = text(&registry);
        for line in [
            "purelb_election_winner_changes_total{service=\"default/web\"} 1",
            "purelb_heartbeat_received_total{subnet=\"192.0.2.0/24\"} 1",
            "purelb_heartbeat_dropped_total{subnet=\"192.0.2.0/24\",reason=\"tag\"} 1",
        ] {
            assert!(before.contains(line), "{line}: {before}");
        }
        metrics.forget_service(&key);
        metrics.heartbeats.forget(&subnet);
        let after = text(&registry);
        assert!(!after.contains("default/web") && !after.contains("192.0.2.0/24"), "{after}");
    }

    #[test]
    fn a_gratuitous_arp_is_two_packets_and_an_advertisement_one() {
        let wire = WireMetrics::default();
        [(true, true), (false, true), (true, false), (false, false)]
            .into_iter()
            .for_each(|(is_ipv4, is_sent)| wire.on_announcement(is_ipv4, is_sent));
        let counts = [&wire.garp_sent, &wire.na_sent, &wire.garp_errors, &wire.na_errors].map(Counter::get);
        assert_eq!(counts, [2, 1, 1, 1]);
    }

    #[test]
    fn subnets_are_counted_once_and_this_node_s_own_apart() {
        let metrics = LocalMetrics::default();
        let subnets = |all: &[&str]| all.iter().map(|it| it.parse().unwrap()).collect();
        let electorate = [
            ("n1".into(), subnets(&["192.0.2.0/24"])),
            ("n2".into(), subnets(&["192.0.2.0/24", "fd00:1::/64"])),
        ];
        metrics.set_electorate("n1", &electorate.into());
        let counts = [&metrics.member_count, &metrics.subnet_count, &metrics.local_subnet_count];
        assert_eq!(counts.map(Gauge::get), [2, 2, 1]);
        metrics.set_electorate("n1", &Electorate::new());
        assert_eq!(metrics.local_subnet_count.get(), 0);
    }
}
