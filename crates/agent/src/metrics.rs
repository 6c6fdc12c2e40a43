//! What this program counts, and what its probes answer.

pub mod local;

use std::time::{Duration, Instant};

use bgp::{
    driver::Handle,
    status::{PeerStatus, SpeakerStatus, State as SessionState},
    types::Family,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use telemetry::Probes;
use tokio::sync::watch;

use self::local::LocalMetrics;

/// How long readiness waits for sessions with peers that may be down for reasons of their own.
const READY_WITHOUT_PEERS: Duration = Duration::from_secs(30);
/// From 0.25 ms to 4 s.
const LATENCY_BUCKETS: [f64; 15] =
    [0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 4.0];

/// What the agent counts itself.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Addresses put on the interface.
    pub address_additions: Counter,
    /// Addresses taken off it.
    pub address_withdrawals: Counter,
    /// Additions and removals that the kernel refused.
    pub address_errors: Counter,
    /// Addresses on the interface.
    pub addresses: Gauge,
    /// From the arrival of a Service to its UPDATE at the sockets.
    pub service_to_wire: Histogram,
    /// From the arrival of an EndpointSlice to its UPDATE at the sockets.
    pub endpoint_to_wire: Histogram,
    /// Events that were not written, for there were too many.
    pub events_dropped: Counter,
    /// Of local pools.
    pub local: LocalMetrics,
}

impl Metrics {
    /// Registers everything under the names that users' dashboards know.
    pub fn register(registry: &mut Registry) -> Metrics {
        let histogram = || Histogram::new(LATENCY_BUCKETS);
        let mut metrics = Metrics {
            address_additions: Counter::default(),
            address_withdrawals: Counter::default(),
            address_errors: Counter::default(),
            addresses: Gauge::default(),
            service_to_wire: histogram(),
            endpoint_to_wire: histogram(),
            events_dropped: Counter::default(),
            local: LocalMetrics::default(),
        };
        // Addresses of remote and of local pools are counted together.
        let wire = &mut metrics.local.wire;
        wire.additions = metrics.address_additions.clone();
        wire.withdrawals = metrics.address_withdrawals.clone();
        wire.errors = metrics.address_errors.clone();
        metrics.local.register(registry);
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter(
            "purelb_lbnodeagent_address_additions",
            "Addresses put on interfaces",
            &metrics.address_additions,
        );
        counter(
            "purelb_lbnodeagent_address_withdrawals",
            "Addresses taken off interfaces",
            &metrics.address_withdrawals,
        );
        counter(
            "purelb_lbnodeagent_address_errors",
            "Additions and removals of addresses that the kernel refused",
            &metrics.address_errors,
        );
        counter(
            "purelb_lbnodeagent_events_dropped",
            "Events that were not written for there were too many",
            &metrics.events_dropped,
        );
        registry.register(
            "purelb_lbnodeagent_addresses",
            "Addresses of remote pools on the dummy interface",
            metrics.addresses.clone(),
        );
        registry.register(
            "purelb_service_to_wire_seconds",
            "From the arrival of a Service to its UPDATE at the sockets",
            metrics.service_to_wire.clone(),
        );
        registry.register(
            "purelb_endpoint_to_wire_seconds",
            "From the arrival of an EndpointSlice to its UPDATE at the sockets",
            metrics.endpoint_to_wire.clone(),
        );
        metrics
    }
}

/// Metrics of the speaker, read from its status when they are asked for.
#[derive(Debug)]
pub struct SpeakerCollector(pub Handle);

impl SpeakerCollector {
    fn each(
        encoder: &mut DescriptorEncoder<'_>,
        status: &SpeakerStatus,
        (name, help, kind): (&str, &str, MetricType),
        value: impl Fn(&PeerStatus) -> i64,
    ) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for peer in &status.peers {
            let label = [("peer", &*peer.name)];
            let encoder = family.encode_family(&label)?;
            match kind {
                MetricType::Counter => {
                    ConstCounter::new(value(peer).unsigned_abs()).encode(encoder)?;
                }
                _ => ConstGauge::new(value(peer)).encode(encoder)?,
            }
        }
        Ok(())
    }
}

impl Collector for SpeakerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let status = self.0.watch_status().borrow().clone();
        let now = self.0.now();
        let encoder = &mut encoder;
        let gauge = |name, help| (name, help, MetricType::Gauge);
        let counter = |name, help| (name, help, MetricType::Counter);
        Self::each(
            encoder,
            &status,
            gauge("purelb_bgp_session_state", "State of the session: 0 Idle to 5 Established"),
            |peer| peer.state as i64,
        )?;
        Self::each(
            encoder,
            &status,
            gauge("purelb_bgp_session_established_seconds", "Since when the session is Established"),
            |peer| match peer.state {
                SessionState::Established => now.since(peer.since).as_secs().try_into().unwrap_or(i64::MAX),
                _ => 0,
            },
        )?;
        Self::each(
            encoder,
            &status,
            counter("purelb_bgp_session_flaps", "How often an Established session was lost"),
            |peer| peer.flaps.try_into().unwrap_or(i64::MAX),
        )?;
        Self::each(encoder, &status, counter("purelb_bgp_updates_sent", "UPDATE messages sent"), |peer| {
            peer.updates_sent.try_into().unwrap_or(i64::MAX)
        })?;
        let mut notifications = encoder.encode_descriptor(
            "purelb_bgp_notifications",
            "NOTIFICATION messages, by direction (sent, received) and error code (RFC 4271: 4 hold timer expired, 6 cease)",
            None,
            MetricType::Counter,
        )?;
        for peer in &status.peers {
            let told = &peer.notifications;
            for (direction, counts) in [("sent", &told.sent), ("received", &told.received)] {
                for (code, count) in counts {
                    let code = code.to_string();
                    let labels = [("peer", &*peer.name), ("direction", direction), ("code", code.as_str())];
                    ConstCounter::new(*count).encode(notifications.encode_family(&labels)?)?;
                }
            }
        }
        let mut bfd = encoder.encode_descriptor(
            "purelb_bfd_session_state",
            "State of the BFD session: 0 AdminDown, 1 Down, 2 Init, 3 Up; absent where there is none",
            None,
            MetricType::Gauge,
        )?;
        for peer in &status.peers {
            if let Some(state) = peer.bfd {
                let label = [("peer", &*peer.name)];
                ConstGauge::new(state as i64).encode(bfd.encode_family(&label)?)?;
            }
        }
        let mut advertised = encoder.encode_descriptor(
            "purelb_bgp_prefixes_advertised",
            "Prefixes that the peer has been sent",
            None,
            MetricType::Gauge,
        )?;
        for peer in &status.peers {
            for (family, count) in Family::ALL.into_iter().zip(peer.advertised) {
                let family = family.to_string();
                let labels = [("peer", &*peer.name), ("family", family.as_str())];
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                ConstGauge::new(count).encode(advertised.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// The sessions that are not up, or whose router has not the whole table yet: until then the next agent of a rollout
/// may not be replaced.
fn waiting(status: &SpeakerStatus) -> Vec<String> {
    let progress = |peer: &PeerStatus| match peer.state {
        SessionState::Established if peer.end_of_rib_sent => None,
        SessionState::Established => Some(format!("{} is not told everything yet", peer.name)),
        state => Some(format!("{} is {state}", peer.name)),
    };
    status.peers.iter().filter_map(progress).collect()
}

/// Answers the probes of Kubernetes.
#[derive(Debug)]
pub struct Health {
    /// Since when the plan is applied.
    pub applied_at: watch::Receiver<Option<Instant>>,
    /// Whose sessions are waited for.
    pub speaker: Handle,
}

impl Probes for Health {
    /// What the agent cannot do by itself after a new start it cannot do now: it is alive while it answers.
    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        let Some(applied_at) = *self.applied_at.borrow() else {
            return Err("the plan is not applied yet".to_owned());
        };
        let waiting = waiting(&self.speaker.watch_status().borrow());
        if waiting.is_empty() || applied_at.elapsed() >= READY_WITHOUT_PEERS {
            return Ok(());
        }
        Err(format!("waiting for sessions: {}", waiting.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use bgp::types::{Asn, RouterId, Time};

    use super::*;

    #[test]
    fn a_session_is_waited_for_until_its_router_has_had_end_of_rib() {
        let peer = |state, end_of_rib_sent| PeerStatus {
            name: "tor1".into(),
            address: [192, 0, 2, 1].into(),
            local_asn: Asn::new(64512).unwrap(),
            local_router_id: RouterId::new([10, 0, 0, 7].into()).unwrap(),
            peer_asn: None,
            peer_router_id: None,
            state,
            since: Time::from_micros(0),
            families: Vec::new(),
            advertised: [0, 0],
            received: [0, 0],
            unsendable: [0, 0],
            unsendable_reason: None,
            hold_time: None,
            graceful_restart: false,
            bfd: None,
            bfd_obstacle: None,
            end_of_rib_sent,
            last_error: None,
            flaps: 0,
            updates_sent: 0,
            notifications: Default::default(),
        };
        for (state, end_of_rib_sent, expected) in [
            (SessionState::Active, false, Some("tor1 is Active")),
            (SessionState::Established, false, Some("tor1 is not told everything yet")),
            (SessionState::Established, true, None),
        ] {
            let status = SpeakerStatus { peers: vec![peer(state, end_of_rib_sent)], ..Default::default() };
            assert_eq!(waiting(&status).first().map(String::as_str), expected);
        }
    }
}
