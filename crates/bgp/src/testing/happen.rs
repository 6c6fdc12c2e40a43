//! What happens between speakers: dials that arrive, octets that are delivered, connections that are lost.

use std::net::SocketAddr;

use super::{
    DIAL_TIMEOUT, Happening, Network,
    wire::{End, Segment, Wire, WireId},
};
use crate::{
    config::PeerConfig,
    speaker::{Accepted, ConnectionId},
};

impl Network {
    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives { from, id, config } => self.arrive(from, id, &config),
            Happening::Answers { from, id, result } => self.answer(&from, id, result),
            Happening::Delivers { wire, to } => self.deliver(wire, to),
        }
    }

    /// A dial reaches the other side.
    fn arrive(&mut self, from: String, id: ConnectionId, config: &PeerConfig) {
        let target = self.nodes.iter().find(|(_, node)| node.address == config.address);
        let target = target.map(|(name, _)| name.clone()).filter(|target| !self.is_cut(&from, target));
        let Some(target) = target else {
            let result = Err("no answer within 15 s".to_owned());
            return self.plan(DIAL_TIMEOUT, Happening::Answers { from, id, result });
        };
        let delay = self.draw_delay();
        if !self.node(&target).is_listening {
            let result = Err("Connection refused".to_owned());
            return self.plan(delay, Happening::Answers { from, id, result });
        }
        let wire = self.new_wire(&from, &target);
        let source = SocketAddr::new(self.node(&from).address, 40_000);
        let (local, now) = (self.node(&target).address, self.now);
        match self.node_mut(&target).speaker.handle_accepted(source, local, now) {
            Accepted::Taken(accepted, _) => self.attach(wire, 1, &target, accepted),
            Accepted::Refused(farewell) => {
                if let Some(wire) = self.wires.get_mut(&wire) {
                    wire.ends[1].is_closed = true;
                }
                self.send(wire, 0, Segment::Octets(farewell));
                self.send(wire, 0, Segment::Fin);
            }
        }
        self.drain(&target);
        self.plan(delay, Happening::Answers { from, id, result: Ok(Some(wire)) });
    }

    fn answer(&mut self, from: &str, id: ConnectionId, result: Result<Option<WireId>, String>) {
        let (local, now) = (self.node(from).address, self.now);
        let is_wanted = self.node_mut(from).dials.remove(&id);
        let wire = result.as_ref().ok().copied().flatten();
        if let Some(wire) = wire {
            if !is_wanted {
                return self.send(wire, 1, Segment::Fin);
            }
            self.attach(wire, 0, from, id);
        }
        if is_wanted {
            self.node_mut(from).speaker.handle_dialed(id, result.map(|_| local), now);
            self.drain(from);
        }
        if let Some(wire) = wire {
            self.schedule(wire, 0);
        }
    }

    /// The next segment reaches one end of a wire.
    fn deliver(&mut self, id: WireId, to: usize) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.ends[to].is_scheduled = false;
        let nodes = [wire.ends[0].node.clone(), wire.ends[1].node.clone()];
        if self.is_cut(&nodes[0], &nodes[1]) {
            return;
        }
        let piece = usize::try_from(self.chance.next() % 3000).unwrap_or(0) + 1;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if to == 0 && wire.ends[0].connection.is_none() && !wire.ends[0].is_closed {
            // The dial has not been answered yet: what was sent behind it waits.
            return;
        }
        let Some(segment) = wire.ends[to].take(piece) else { return };
        let (receiver, sender) = (wire.ends[to].connection, wire.ends[1 - to].connection);
        let now = self.now;
        match segment {
            Segment::Octets(octets) => {
                let is_lost = wire.count(octets.len());
                if let (false, Some(receiver)) = (is_lost, receiver) {
                    wire.ends[to].table.read(&octets);
                    let offers = self.node(&nodes[to]).speaker.offers_graceful_restart(&nodes[1 - to]);
                    if let Some(helper) = self.helper_of(id, to) {
                        helper.read(id, &octets, offers, now);
                    }
                    self.node_mut(&nodes[to]).speaker.handle_received(receiver, &octets, now);
                    self.drain(&nodes[to]);
                }
                if let Some(sender) = sender {
                    self.node_mut(&nodes[1 - to]).speaker.handle_transmitted(sender, octets.len(), now);
                    self.drain(&nodes[1 - to]);
                }
                if is_lost {
                    return self.lose(id);
                }
            }
            Segment::Fin => self.hang_up(id, to, "closed by the peer"),
        }
        if self.wires.get(&id).is_some_and(Wire::is_done) {
            self.wires.remove(&id);
        }
        self.schedule(id, to);
    }

    pub(super) fn lose(&mut self, wire: WireId) {
        (0..2).for_each(|to| self.hang_up(wire, to, "connection reset"));
        self.wires.remove(&wire);
    }

    fn hang_up(&mut self, id: WireId, to: usize, reason: &str) {
        let now = self.now;
        if let Some(helper) = self.helper_of(id, to) {
            helper.on_closed(id, now);
        }
        let Some(end) = self.wires.get_mut(&id).map(|wire| &mut wire.ends[to]) else { return };
        end.is_closed = true;
        let (connection, node) = (end.connection.take(), end.node.clone());
        if let Some(connection) = connection {
            self.node_mut(&node).ends.remove(&connection);
            self.node_mut(&node).speaker.handle_closed(connection, reason, now);
            self.drain(&node);
        }
    }

    fn new_wire(&mut self, from: &str, to: &str) -> WireId {
        self.last_wire += 1;
        let lose_after = self.losses.pop();
        let wire = Wire { ends: [End::new(from), End::new(to)], lose_after };
        self.wires.insert(self.last_wire, wire);
        self.last_wire
    }

    fn attach(&mut self, wire: WireId, end: usize, name: &str, id: ConnectionId) {
        self.node_mut(name).ends.insert(id, (wire, end));
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.ends[end].connection = Some(id);
        }
    }

    pub(super) fn send(&mut self, wire: WireId, to: usize, segment: Segment) {
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.ends[to].push(segment);
        }
        self.schedule(wire, to);
    }

    /// The next segment of a direction is under way, unless one is.
    pub(super) fn schedule(&mut self, id: WireId, to: usize) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let end = &mut wire.ends[to];
        if end.is_scheduled || end.is_empty() {
            return;
        }
        end.is_scheduled = true;
        let delay = self.draw_delay();
        self.plan(delay, Happening::Delivers { wire: id, to });
    }
}
