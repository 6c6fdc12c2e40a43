//! What local pools run on: the members, their heartbeats, the claims to addresses, and who tells whom. Started
//! together, and ended in the order that leaves no address without an answer.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    claim::{self, Driver, DriverError},
    facts::{
        nodes::{self, Listeners, Sources},
        subnets::{Added, NodeFacts},
    },
    liveness::{Channels, Heartbeats, Liveness},
    members::{self, Roster},
    metrics::local::LocalMetrics,
    reconcile::Claims,
    settings::Settings,
    stores::Stamped,
    world::Input,
};

/// How long the others may take to ask for what this node holds when it leaves.
const HAND_OVER: Duration = Duration::from_secs(3);

/// Everything that runs for local pools beside the loop.
#[derive(Debug)]
pub struct Neighbourhood {
    claims: mpsc::UnboundedSender<claim::Input>,
    driver: Option<JoinHandle<Result<(), DriverError>>>,
    heartbeats: Option<Heartbeats>,
    roster: watch::Receiver<Option<Arc<Roster>>>,
    liveness: watch::Receiver<Arc<Liveness>>,
}

/// What it is told.
#[derive(Debug)]
pub struct Observed {
    /// This node's interfaces and subnets.
    pub facts: watch::Receiver<Option<NodeFacts>>,
    /// When the plan was applied for the first time: since then this node can take addresses.
    pub applied_at: watch::Receiver<Option<Instant>>,
    /// What is counted.
    pub metrics: LocalMetrics,
}

impl Neighbourhood {
    /// Starts everything, and tells the loop of the other nodes by `changes`, and who observes the interfaces by `added`
    /// what is put on them.
    ///
    /// # Errors
    /// The kernel gives no sockets, or the settings of heartbeats cannot work.
    pub fn start(
        settings: &Settings,
        client: Client,
        observed: Observed,
        changes: mpsc::Sender<Stamped<Input>>,
        added: watch::Sender<Added>,
    ) -> anyhow::Result<(Neighbourhood, Claims)> {
        let node: Arc<str> = settings.node_name.as_str().into();
        let (roster, known_roster) = watch::channel(None);
        tokio::spawn(members::run(Api::<Lease>::namespaced(client, &settings.namespace), roster));

        let (messages, outgoing) = mpsc::unbounded_channel();
        let (payloads, incoming) = mpsc::unbounded_channel();
        let config = settings.heartbeats()?;
        let heartbeat_port = config.is_some().then_some(settings.heartbeat_port);
        let channels = Channels {
            facts: observed.facts.clone(),
            roster: known_roster.clone(),
            applied_at: observed.applied_at,
            outgoing,
            incoming: payloads,
            metrics: observed.metrics.heartbeats,
        };
        let heartbeats = config.map(|config| Heartbeats::start(node.clone(), config, channels));
        let heartbeats = heartbeats.transpose().context("starting heartbeats")?;

        let (reporter, reports) = mpsc::unbounded_channel();
        let outputs = claim::Outputs { messages, reports: reporter, added, metrics: observed.metrics.wire };
        let driver = Driver::open(&node, rand::random(), outputs).context("claiming local addresses")?;
        let (claims, inputs) = mpsc::unbounded_channel();
        let driver = tokio::spawn(driver.run(inputs));

        // Without heartbeats nothing is ever heard.
        let silence = || watch::channel(Arc::default()).1;
        let liveness = heartbeats.as_ref().map_or_else(silence, Heartbeats::liveness);
        let roster = known_roster.clone();
        let sources =
            Sources { facts: observed.facts, roster: known_roster, liveness: liveness.clone(), incoming };
        tokio::spawn(nodes::tell(node, sources, Listeners { changes, claims: claims.clone() }));
        let ends = Claims { inputs: claims.clone(), reports, heartbeat_port };
        Ok((Neighbourhood { claims, driver: Some(driver), heartbeats, roster, liveness }, ends))
    }

    /// Which nodes hold a Lease, and whether it is good.
    pub fn roster(&self) -> watch::Receiver<Option<Arc<Roster>>> {
        self.roster.clone()
    }

    /// Who is heard; for ever empty without heartbeats.
    pub fn liveness(&self) -> watch::Receiver<Arc<Liveness>> {
        self.liveness.clone()
    }

    /// Waits for ever, unless the claims or the heartbeats fail.
    pub async fn failed(&mut self) -> anyhow::Error {
        let silence = async {
            match &self.heartbeats {
                Some(heartbeats) => heartbeats.ended().await,
                None => pending().await,
            }
        };
        let Some(driver) = &mut self.driver else { return pending().await };
        let ended = tokio::select! {
            ended = driver => ended,
            () = silence => return anyhow::anyhow!("the thread of heartbeats has ended"),
        };
        self.driver = None;
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("claims to local addresses have ended"),
            Ok(Err(error)) => anyhow::Error::new(error).context("claims to local addresses have ended"),
            Err(error) => anyhow::Error::new(error).context("claims to local addresses have ended"),
        }
    }

    /// Ends it for good: gives what this node holds to those who ask for it, removes the rest, and ends when the others
    /// know what they have been told.
    pub async fn leave(mut self) {
        // First: who hears that this node leaves asks at once, and is not to be refused.
        let _ = self.claims.send(claim::Input::Leave);
        if let Some(heartbeats) = &self.heartbeats {
            heartbeats.leave().await;
        }
        if let Some(driver) = self.driver.take()
            && timeout(HAND_OVER, driver).await.is_err()
        {
            tracing::warn!("local addresses stay for as long as they live: not all could be handed over");
        }
        // Who waits for the last word would have to find out on the wire that the address is free.
        if let Some(heartbeats) = &self.heartbeats {
            heartbeats.leave().await;
        }
    }

    /// Ends it for another agent to follow: addresses stay where they are.
    pub fn keep(mut self) {
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
    }
}
