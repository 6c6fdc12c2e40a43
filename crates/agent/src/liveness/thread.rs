//! The thread of heartbeats: a current-thread runtime, one group a subnet, and what they are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures::future::select_all;
use heartbeat::{
    Config, Event, Local, Name, Standing,
    driver::{Endpoint, boot, prioritise},
};
use ipnet::IpNet;
use netlink::Mac;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{Channels, Incoming, Liveness};
use crate::{
    claim::Outgoing,
    facts::subnets::NodeFacts,
    members::{Member, Roster},
};

/// How long until an address is tried again that could not be bound: one that has just come is not usable yet.
const BIND_RETRY: Duration = Duration::from_millis(500);

/// How often it is seen whether all know that this node leaves.
const LOOK: Duration = Duration::from_millis(2);

/// Starts it.
pub(super) fn start(
    node: Arc<str>,
    config: Config,
    channels: Channels,
    leaving: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    tell: watch::Sender<Arc<Liveness>>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Worker {
        node,
        config,
        channels,
        leaving,
        tell,
        seats: BTreeMap::new(),
        refused: BTreeSet::new(),
        retry_at: None,
        waiting: Vec::new(),
        is_leaving: false,
    };
    std::thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
        match prioritise() {
            Ok(class) => tracing::info!(class, "heartbeats run on a thread of their own"),
            Err(error) => tracing::warn!(
                %error,
                "heartbeats run without priority, so a busy machine can make this node look dead: CAP_SYS_NICE would \
                 allow it"
            ),
        }
        let tell = worker.tell.clone();
        runtime.block_on(worker.run());
        // Without heartbeats the Leases have to do.
        tell.send_replace(Arc::default());
    })?;
    Ok(())
}

/// Where this node sits in a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    interface: u32,
    mac: Mac,
    address: SocketAddr,
}

struct Seat {
    place: Place,
    endpoint: Endpoint,
    /// Who was registered when the first members were known; `None` before.
    founders: Option<BTreeSet<Name>>,
}

struct Worker {
    node: Arc<str>,
    config: Config,
    channels: Channels,
    leaving: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    tell: watch::Sender<Arc<Liveness>>,
    seats: BTreeMap<IpNet, Seat>,
    /// Addresses that could not be bound, for which that was said.
    refused: BTreeSet<SocketAddr>,
    retry_at: Option<Instant>,
    /// Who wants to know when all others know that this node leaves.
    waiting: Vec<oneshot::Sender<()>>,
    is_leaving: bool,
}

impl Worker {
    /// Until the handle is dropped. Those who tell it what is so may end before: the agent that leaves for good ends them
    /// first, and needs its messages most then.
    async fn run(mut self) {
        self.sit_down();
        loop {
            let due = self.next_due();
            tokio::select! {
                (subnet, event) = next(&mut self.seats) => self.on_event(subnet, event),
                Ok(()) = self.channels.facts.changed() => self.sit_down(),
                Ok(()) = self.channels.roster.changed() => self.set_members(),
                Ok(()) = self.channels.applied_at.changed() => self.set_ready(),
                Some(message) = self.channels.outgoing.recv() => self.send(&message),
                asked = self.leaving.recv() => match asked {
                    Some(done) => self.leave(done),
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if self.retry_at.is_some_and(|at| at <= Instant::now()) {
                        self.sit_down();
                    }
                }
            }
            self.answer_leaving();
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let look = (!self.waiting.is_empty()).then(|| Instant::now() + LOOK);
        [self.retry_at, look].into_iter().flatten().min()
    }

    /// Opens groups on the subnets that have come, and closes those that are gone.
    fn sit_down(&mut self) {
        self.retry_at = None;
        let facts = self.channels.facts.borrow_and_update().clone();
        let places = facts.as_ref().map(places).unwrap_or_default();
        self.seats.retain(|subnet, seat| {
            let is_kept = places.get(subnet) == Some(&seat.place);
            if !is_kept {
                self.channels.metrics.forget(subnet);
            }
            is_kept
        });
        for (subnet, place) in places {
            if self.seats.contains_key(&subnet) {
                continue;
            }
            let local = Local {
                group: subnet.to_string(),
                name: Name::clone(&self.node),
                address: place.address,
                mac: place.mac.0,
                boot: boot(),
            };
            match Endpoint::open(self.config.clone(), local, rand::random()) {
                Ok(endpoint) => {
                    tracing::info!(%subnet, address = %place.address, "heartbeats");
                    let endpoint = endpoint.observed_by(self.channels.metrics.observer(&subnet));
                    self.refused.remove(&place.address);
                    self.seats.insert(subnet, Seat { place, endpoint, founders: None });
                }
                Err(error) => {
                    if self.refused.insert(place.address) {
                        tracing::warn!(%subnet, %error, "no heartbeats there, trying again");
                    }
                    self.retry_at = Some(Instant::now() + BIND_RETRY);
                }
            }
        }
        self.set_ready();
        self.set_members();
        if self.is_leaving {
            self.each(heartbeat::Group::leave);
        }
    }

    fn set_members(&mut self) {
        let roster = self.channels.roster.borrow_and_update().clone();
        // Before all Leases are listed nobody is known.
        let Some(roster) = roster else { return self.publish() };
        for (subnet, seat) in &mut self.seats {
            let members = members(&roster, subnet);
            let founders = seat.founders.get_or_insert_with(|| members.keys().cloned().collect());
            // Whoever goes and comes again is as new as others.
            founders.retain(|name| members.contains_key(name));
            seat.endpoint.command(|group, now| group.set_members(&members, now));
        }
        self.publish();
    }

    fn set_ready(&mut self) {
        let is_ready = self.channels.applied_at.borrow_and_update().is_some();
        self.each(|group, now| group.set_ready(is_ready, now));
    }

    fn leave(&mut self, done: oneshot::Sender<()>) {
        self.is_leaving = true;
        self.waiting.push(done);
        self.each(heartbeat::Group::leave);
        // What was said before is among what they are to know.
        while let Ok(message) = self.channels.outgoing.try_recv() {
            self.send(&message);
        }
    }

    fn answer_leaving(&mut self) {
        if self.is_leaving && self.seats.values().all(|seat| seat.endpoint.group().is_everything_told()) {
            for done in self.waiting.drain(..) {
                // Nobody waits any more where it took too long.
                let _ = done.send(());
            }
        }
    }

    fn each(&mut self, command: impl Fn(&mut heartbeat::Group, heartbeat::Time)) {
        self.seats.values_mut().for_each(|seat| seat.endpoint.command(&command));
    }

    /// By the first group of the interface in which the node is alive.
    fn send(&mut self, message: &Outgoing) {
        let is_way = |seat: &&mut Seat| {
            let state = seat.endpoint.group().state(&message.to);
            seat.place.interface == message.interface && state.is_some_and(|state| state.is_alive())
        };
        let Some(seat) = self.seats.values_mut().find(is_way) else {
            tracing::debug!(to = %message.to, "no way for a message: the node does not live on that interface");
            return;
        };
        let sent = seat.endpoint.command(|group, now| group.send(&message.to, &message.octets, now));
        if let Err(error) = sent {
            tracing::warn!(%error, "a message to another node is dropped");
        }
    }

    fn on_event(&mut self, subnet: IpNet, event: Event) {
        match event {
            Event::Payload { from, octets } => {
                // Nobody listens any more where the agent ends.
                let _ = self.channels.incoming.send(Incoming { from, octets });
                return;
            }
            Event::Undelivered { to, .. } => {
                tracing::debug!(%subnet, %to, "a message was not acknowledged");
                return;
            }
            Event::CalledDead => tracing::warn!(%subnet, "other nodes held this one dead for a while"),
            Event::Dead { name } => tracing::info!(%subnet, node = %name, "dead"),
            Event::Leaving { name } => tracing::info!(%subnet, node = %name, "leaving"),
            Event::Suspected { name } => tracing::debug!(%subnet, node = %name, "silent, asking the others"),
            Event::Alive { name, is_ready, .. } => {
                tracing::info!(%subnet, node = %name, is_ready, "alive");
            }
        }
        self.publish();
    }

    fn publish(&self) {
        let members = |seat: &Seat| {
            let members = seat.endpoint.group().members();
            members.map(|(name, state)| (Name::clone(name), state)).collect()
        };
        let members: BTreeMap<_, _> =
            self.seats.iter().map(|(subnet, seat)| (*subnet, members(seat))).collect();
        let awaited = self.seats.iter().flat_map(|(subnet, seat)| {
            let is_unheard = |name: &&Name| {
                seat.endpoint.group().state(name).is_some_and(|state| state.standing == Standing::Unknown)
            };
            let founders = seat.founders.iter().flatten().filter(is_unheard);
            founders.map(|name| (*subnet, Name::clone(name)))
        });
        let settled = self.seats.iter().filter(|(_, seat)| seat.founders.is_some());
        let settled = settled.map(|(subnet, _)| *subnet).collect();
        let patience = self.config.detection_time() / 2;
        let is_alone = |seat: &Seat| {
            seat.endpoint.silence() >= patience && seat.endpoint.group().members().next().is_some()
        };
        let alone = self.seats.iter().filter(|(_, seat)| is_alone(seat));
        let alone = alone.map(|(subnet, _)| *subnet).collect();
        let now = Liveness { awaited: awaited.collect(), settled, alone, members };
        self.tell.send_if_modified(|told| {
            let is_news = **told != now;
            if is_news {
                *told = Arc::new(now);
            }
            is_news
        });
    }
}

/// The next event of any group; for ever without any.
async fn next(seats: &mut BTreeMap<IpNet, Seat>) -> (IpNet, Event) {
    if seats.is_empty() {
        return std::future::pending().await;
    }
    let events =
        seats.iter_mut().map(|(subnet, seat)| Box::pin(async move { (*subnet, seat.endpoint.next().await) }));
    select_all(events).await.0
}

/// The subnets on which this node hears heartbeats.
fn places(facts: &NodeFacts) -> BTreeMap<IpNet, Place> {
    let mut places = BTreeMap::new();
    for interface in &facts.interfaces {
        for (subnet, own) in &interface.subnets {
            let address = facts.heartbeats.iter().find(|address| address.ip() == *own);
            if let (Some(address), Some(mac)) = (address, interface.mac) {
                let place = Place { interface: interface.index, mac, address: *address };
                places.entry(*subnet).or_insert(place);
            }
        }
    }
    places
}

/// Who is a member there: nodes that hear heartbeats at an address in it, and are on the subnet by their Lease, or on
/// none at all: those that are to announce nothing give what they hold to those who ask.
fn members(roster: &Roster, subnet: &IpNet) -> BTreeMap<Name, SocketAddr> {
    let is_there = |member: &Member| member.subnets.contains(subnet) || member.subnets.is_empty();
    let there = roster.iter().filter(|(_, member)| is_there(member));
    there
        .filter_map(|(name, member)| {
            let address = member.heartbeats.iter().find(|address| subnet.contains(&address.ip()))?;
            Some((Name::clone(name), *address))
        })
        .collect()
}
