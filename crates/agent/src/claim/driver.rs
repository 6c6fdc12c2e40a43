//! The task that executes what [`Claims`] decide, over netlink, ARP and Neighbor Discovery, and tells them what happens.
//! It decides nothing.
//!
//! What has been heard and what the kernel has told is handed over before a timeout is, so that a process that stood
//! still decides from what came meanwhile. Additions and removals go to the kernel in batches, and between two of them
//! the wire is listened to.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::select_all};
use ipnet::IpNet;
use netlink::{Error, Event, Heard, Link, Mac, Monitor, MonitorError, Neighbors, Netlink, Outcome, Sound};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant as Moment, sleep_until},
};

use super::{Action, Claims, Input, LinkState, Outgoing, Report, action::AddFailure};
use crate::{facts::subnets::Added, metrics::local::WireMetrics};

/// Additions or removals in one go.
const BATCH: usize = 64;
/// Frames and events taken in between two looks at the time.
const INTAKE: usize = 4096;
/// Wait before everything is looked at again after that has failed.
const RETRY: Duration = Duration::from_millis(500);

/// Why there can be no claims.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No requests to the kernel.
    #[error(transparent)]
    Netlink(#[from] Error),
    /// No news from the kernel.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
}

/// Where the driver's outputs go.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// Messages for members, to be delivered if they live.
    pub messages: mpsc::UnboundedSender<Outgoing>,
    /// What becomes of the addresses.
    pub reports: mpsc::UnboundedSender<Report>,
    /// What this process has put on interfaces, told before the kernel is: not every kernel keeps our mark.
    pub added: watch::Sender<Added>,
    /// What is counted.
    pub metrics: WireMetrics,
}

/// Claims and the sockets that they act through.
#[derive(Debug)]
pub struct Driver {
    claims: Claims,
    netlink: Netlink,
    monitor: Monitor,
    /// All interfaces of local addresses.
    interfaces: BTreeSet<u32>,
    /// Of those that are up.
    neighbors: BTreeMap<u32, Neighbors>,
    /// Where no member is heard.
    alone: BTreeSet<u32>,
    /// Of those, where nothing else has been heard since.
    sounds: BTreeMap<u32, Sound>,
    /// Additions and removals that the kernel has not been told of yet.
    pending: VecDeque<Action>,
    outputs: Outputs,
    resync_at: Option<Instant>,
    /// The address whose addition failed last, so that it is said once.
    complaint: Option<IpNet>,
}

impl Driver {
    /// Opens the sockets to the kernel, in the network namespace of the calling thread and inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open(node: &str, seed: u64, outputs: Outputs) -> Result<Driver, DriverError> {
        Ok(Driver {
            claims: Claims::new(node, seed),
            netlink: Netlink::open()?,
            monitor: Monitor::open([])?,
            interfaces: BTreeSet::new(),
            neighbors: BTreeMap::new(),
            alone: BTreeSet::new(),
            sounds: BTreeMap::new(),
            pending: VecDeque::new(),
            outputs,
            resync_at: None,
            complaint: None,
        })
    }

    /// Runs until everything is handed over after [`Input::Leave`], or until nobody can say any more what is wanted:
    /// then the addresses stay for the agent that follows, as long as they live.
    ///
    /// # Errors
    /// The kernel tells no news any more.
    pub async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) -> Result<(), DriverError> {
        loop {
            self.take_in(&mut inputs).await?;
            self.follow_time().await;
            self.execute();
            self.tell_kernel().await;
            // What has come of it may have to be told, and if it is the last thing.
            self.execute();
            if self.claims.has_left() {
                return Ok(());
            }
            if !self.pending.is_empty() {
                continue;
            }
            let wake_at = [self.claims.poll_timeout(), self.resync_at].into_iter().flatten().min();
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.on_input(input).await,
                    None => return Ok(()),
                },
                event = self.monitor.next() => self.on_event(event?),
                (index, heard) = heard_on_any(&mut self.neighbors) => self.on_heard(index, heard),
                (index, heard) = sound_on_any(&self.sounds) => self.on_sound(index, heard),
                () = sleep_until(Moment::from_std(wake_at.unwrap_or_else(Instant::now))), if wake_at.is_some() => {}
            }
        }
    }

    /// Takes everything that is there, without waiting: the kernel's news, the wire, then the owner's.
    async fn take_in(&mut self, inputs: &mut mpsc::UnboundedReceiver<Input>) -> Result<(), DriverError> {
        for _ in 0..INTAKE {
            let Some(event) = self.monitor.try_next()? else { break };
            self.on_event(event);
        }
        let indexes: Vec<_> = self.neighbors.keys().copied().collect();
        for index in indexes {
            for _ in 0..INTAKE {
                match self.neighbors.get_mut(&index).map(Neighbors::try_next) {
                    Some(Ok(Some(heard))) => self.on_heard(index, Ok(heard)),
                    Some(Err(error)) => self.on_heard(index, Err(error)),
                    Some(Ok(None)) | None => break,
                }
            }
        }
        let heard = self.sounds.iter().filter_map(|(index, sound)| match sound.try_hear() {
            Ok(false) => None,
            Ok(true) => Some((*index, Ok(()))),
            Err(error) => Some((*index, Err(error))),
        });
        let heard: Vec<_> = heard.collect();
        heard.into_iter().for_each(|(index, heard)| self.on_sound(index, heard));
        for _ in 0..INTAKE {
            let Ok(input) = inputs.try_recv() else { break };
            self.on_input(input).await;
        }
        Ok(())
    }

    async fn follow_time(&mut self) {
        let now = Instant::now();
        if self.resync_at.is_some_and(|at| at <= now) {
            self.resync_at = None;
            if let Err(error) = self.resync().await {
                tracing::warn!(%error, "interfaces of local addresses could not be listed, trying again");
                self.resync_at = Some(Instant::now() + RETRY);
            }
        }
        let now = Instant::now();
        if self.claims.poll_timeout().is_some_and(|at| at <= now) {
            self.claims.handle_timeout(now);
        }
    }

    async fn on_input(&mut self, input: Input) {
        let interfaces: Option<BTreeSet<u32>> = match &input {
            Input::Interfaces(indexes) => Some(indexes.iter().copied().collect()),
            _ => None,
        };
        let alone: Option<BTreeSet<u32>> = match &input {
            Input::Alone(indexes) => Some(indexes.iter().copied().collect()),
            _ => None,
        };
        self.claims.handle(input, Instant::now());
        if let Some(alone) = alone {
            self.listen(alone);
        }
        if let Some(interfaces) = interfaces.filter(|interfaces| *interfaces != self.interfaces) {
            interfaces.iter().for_each(|index| self.monitor.watch(*index));
            self.neighbors.retain(|index, _| interfaces.contains(index));
            self.interfaces = interfaces;
            self.resync_at = Some(Instant::now());
            self.follow_time().await;
        }
    }

    /// Listens for any frame where no member is heard.
    fn listen(&mut self, alone: BTreeSet<u32>) {
        self.sounds.retain(|index, _| alone.contains(index));
        let begun: Vec<u32> = alone.difference(&self.alone).copied().collect();
        self.alone = alone;
        for index in begun {
            tracing::info!(interface = index, "no other node is heard: nothing is claimed until anything is");
            match Sound::open(index) {
                Ok(sound) => _ = self.sounds.insert(index, sound),
                Err(error) => self.on_sound(index, Err(error)),
            }
        }
    }

    /// Who cannot listen knows no better than who hears.
    fn on_sound(&mut self, index: u32, heard: std::io::Result<()>) {
        match heard {
            Ok(()) => tracing::info!(interface = index, "the wire is heard, though no other node"),
            Err(error) => tracing::warn!(interface = index, %error, "cannot tell whether the wire is heard"),
        }
        self.sounds.remove(&index);
        self.claims.on_sound(index, Instant::now());
    }

    /// Looks at everything anew. Addresses before links: what is there is known before anything is claimed.
    async fn resync(&mut self) -> Result<(), Error> {
        let links = self.netlink.links().await?;
        let addresses = self.netlink.addresses(None).await?;
        let now = Instant::now();
        for index in self.interfaces.clone() {
            let of_link: Vec<_> = addresses.iter().filter(|it| it.index == index).copied().collect();
            self.claims.on_addresses(index, &of_link, now);
            match links.iter().find(|link| link.index == index) {
                Some(link) => self.on_link(link),
                None => self.on_link_gone(index),
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::AddressAdded(it) if self.interfaces.contains(&it.index) => {
                self.claims.on_address(&it, now);
            }
            Event::AddressRemoved(it) if self.interfaces.contains(&it.index) => {
                self.outputs.added.send_if_modified(|added| added.remove(&(it.index, it.prefix)));
                self.claims.on_address_removed(&it, now);
            }
            Event::LinkChanged(link) if self.interfaces.contains(&link.index) => self.on_link(&link),
            Event::LinkRemoved(link) if self.interfaces.contains(&link.index) => {
                self.on_link_gone(link.index);
            }
            Event::Resync => self.resync_at = Some(now),
            _ => {}
        }
    }

    fn on_link(&mut self, link: &Link) {
        let is_same = |neighbors: &Neighbors| link.hardware_address == Some(neighbors.mac());
        if !self.neighbors.get(&link.index).is_some_and(is_same) {
            match Neighbors::open(link.index) {
                Ok(neighbors) => _ = self.neighbors.insert(link.index, neighbors),
                Err(error) => {
                    tracing::warn!(interface = %link.name, %error, "no local address can be claimed there");
                    self.neighbors.remove(&link.index);
                    self.resync_at = Some(Instant::now() + RETRY);
                }
            }
        }
        let is_usable = link.is_up && link.has_carrier && self.neighbors.contains_key(&link.index);
        let state = LinkState { mac: link.hardware_address.unwrap_or(Mac([0; 6])), is_usable };
        self.claims.on_link(link.index, Some(state), Instant::now());
    }

    fn on_link_gone(&mut self, index: u32) {
        self.neighbors.remove(&index);
        self.claims.on_link(index, None, Instant::now());
    }

    fn on_heard(&mut self, index: u32, heard: std::io::Result<Heard>) {
        match heard {
            Ok(heard) => self.claims.on_heard(index, &heard, Instant::now()),
            // Its link is down: the monitor tells of it, too, and when it is up again.
            Err(error) if error.raw_os_error() == Some(ENETDOWN) => {}
            Err(error) => {
                tracing::warn!(interface = index, %error, "listening to the wire anew");
                self.neighbors.remove(&index);
                self.resync_at = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Does what can be done without waiting, and notes what the kernel has to be told.
    fn execute(&mut self) {
        while let Some(action) = self.claims.poll_action() {
            match action {
                Action::Probe { interface, address } => {
                    let sent = self.neighbors.get(&interface).map(|neighbors| neighbors.probe(address));
                    tracing::debug!(%address, "asks the wire");
                    if !matches!(sent, Some(Ok(()))) {
                        tracing::debug!(%address, ?sent, "a probe was not sent");
                        self.claims.on_not_sent(address, Instant::now());
                    }
                }
                Action::Answer { interface, address, to } => {
                    let sent = self.neighbors.get_mut(&interface).map(|it| it.answer(address, to));
                    tracing::debug!(%address, prober = %to, ?sent, "a probe was answered for an address to come");
                }
                Action::Announce { interface, address } => {
                    let sent = self.neighbors.get_mut(&interface).map(|it| it.announce(address));
                    let is_sent = matches!(sent, Some(Ok(())));
                    self.outputs.metrics.on_announcement(address.is_ipv4(), is_sent);
                    if !is_sent {
                        tracing::debug!(%address, ?sent, "an announcement was not sent, trying again");
                        self.claims.on_not_announced(address, Instant::now());
                    }
                }
                Action::Send { to, interface, message } => {
                    tracing::debug!(%to, ?message, "tells");
                    for octets in message.encode() {
                        let outgoing = Outgoing { to: to.clone(), interface, octets };
                        if self.outputs.messages.send(outgoing).is_err() {
                            tracing::debug!(%to, "a message about addresses was not sent");
                        }
                    }
                }
                Action::Report(report) => self.report(report),
                Action::Add { .. } | Action::Remove { .. } => self.pending.push_back(action),
            }
        }
    }

    fn report(&self, report: Report) {
        match &report {
            Report::Held(address) => tracing::info!(%address, "address held"),
            Report::Released(address) => tracing::info!(%address, "address released"),
            Report::Conflict(address, mac) => {
                tracing::warn!(%address, %mac, "not claimed: another host answers for the address");
            }
            Report::Unheld(address, member) => tracing::warn!(
                %address,
                %member,
                "not claimed: the node answers for the address, and its agent says that it does not hold it: kube-proxy \
                 in mode IPVS needs strictARP"
            ),
            Report::ConflictEnded(address) => tracing::info!(%address, "no other host answers any more"),
        }
        // Nobody may be interested any more, at the end.
        _ = self.outputs.reports.send(report);
    }

    /// Tells the kernel of a few additions or removals that are alike, and the claims what came of them.
    async fn tell_kernel(&mut self) {
        match self.pending.front().cloned() {
            Some(Action::Add { .. }) => self.add_some().await,
            Some(Action::Remove { interface, .. }) => {
                let is_like =
                    |it: &Action| matches!(it, Action::Remove { interface: i, .. } if *i == interface);
                let prefixes: Vec<_> =
                    self.take_alike(is_like).into_iter().map(|(prefix, _)| prefix).collect();
                let results = self.netlink.delete_addresses(interface, &prefixes).await;
                let metrics = &self.outputs.metrics;
                for (prefix, result) in prefixes.into_iter().zip(results) {
                    if matches!(result, Ok(Outcome::Changed)) {
                        metrics.withdrawals.inc();
                    }
                    let error = result.err();
                    if let Some(error) = &error {
                        metrics.errors.inc();
                        tracing::warn!(%error, "a local address stays for now, trying again");
                    }
                    self.claims.on_removed(interface, prefix, error.is_none(), Instant::now());
                }
            }
            _ => {}
        }
    }

    async fn add_some(&mut self) {
        let Some(Action::Add { interface, addressing, .. }) = self.pending.front().cloned() else { return };
        let is_like = |it: &Action| matches!(it, Action::Add { interface: i, addressing: a, .. } if (*i, *a) == (interface, addressing));
        let now = Instant::now();
        let (fresh, stale): (Vec<_>, Vec<_>) = self
            .take_alike(is_like)
            .into_iter()
            .partition(|(_, not_after)| not_after.is_none_or(|at| now <= at));
        for (prefix, _) in stale {
            tracing::debug!(%prefix, "a decision was too old when its turn came");
            self.claims.on_added(interface, prefix, Err(AddFailure::Stale), now);
        }
        let prefixes: Vec<_> = fresh.into_iter().map(|(prefix, _)| prefix).collect();
        let ours = || prefixes.iter().map(|prefix| (interface, *prefix));
        let new: Vec<_> = ours().filter(|it| !self.outputs.added.borrow().contains(it)).collect();
        self.outputs.added.send_modify(|added| added.extend(ours()));
        let results = self.netlink.add_addresses(interface, &prefixes, addressing).await;
        for (prefix, result) in prefixes.into_iter().zip(results) {
            if result.is_err() && new.contains(&(interface, prefix)) {
                self.outputs.added.send_modify(|added| _ = added.remove(&(interface, prefix)));
            }
            self.count_addition(prefix, &result);
            let result = result.map(drop).map_err(|error| {
                if self.complaint.replace(prefix) != Some(prefix) {
                    tracing::warn!(%error, "a local address could not be added, trying again");
                }
                AddFailure::Refused
            });
            self.claims.on_added(interface, prefix, result, Instant::now());
        }
    }

    /// The same request puts an address on the interface and begins its lifetime anew.
    fn count_addition(&self, prefix: IpNet, result: &Result<Outcome, Error>) {
        let metrics = &self.outputs.metrics;
        match (self.claims.is_held(prefix.addr()), result) {
            (true, Ok(_)) => metrics.renewals.inc(),
            (true, Err(_)) => metrics.renewal_errors.inc(),
            (false, Ok(_)) => metrics.additions.inc(),
            (false, Err(_)) => metrics.errors.inc(),
        };
    }

    /// Takes those from the front that are alike, up to a batch: what is to be added or removed, and until when.
    fn take_alike(&mut self, is_alike: impl Fn(&Action) -> bool) -> Vec<(IpNet, Option<Instant>)> {
        let count = self.pending.iter().take(BATCH).take_while(|action| is_alike(action)).count();
        let what = |action| match action {
            Action::Add { prefix, not_after, .. } => Some((prefix, Some(not_after))),
            Action::Remove { prefix, .. } => Some((prefix, None)),
            _ => None,
        };
        self.pending.drain(..count).filter_map(what).collect()
    }
}

const ENETDOWN: i32 = 100;

/// What is heard next on any link; never, without any.
async fn heard_on_any(neighbors: &mut BTreeMap<u32, Neighbors>) -> (u32, std::io::Result<Heard>) {
    if neighbors.is_empty() {
        return std::future::pending().await;
    }
    let all = neighbors.iter_mut().map(|(index, it)| Box::pin(it.next().map(|heard| (*index, heard))));
    select_all(all).await.0
}

/// The first link on which anything comes in; never, without any.
async fn sound_on_any(sounds: &BTreeMap<u32, Sound>) -> (u32, std::io::Result<()>) {
    if sounds.is_empty() {
        return std::future::pending().await;
    }
    let all = sounds.iter().map(|(index, it)| Box::pin(it.hear().map(|heard| (*index, heard))));
    select_all(all).await.0
}
