//! What is done to the network.

use std::{collections::BTreeSet, net::IpAddr};

use netlink::Mac;

use super::{Agent, INTERFACE, Network, What, address, mac, ms};
use crate::claim::{
    Input,
    claims::{Claims, LinkState},
};

impl Network {
    pub(in super::super) fn start_agent(&mut self, number: usize) {
        self.disturb();
        self.trace(number, "starts");
        let seed = self.chance(0..u64::MAX);
        let now = self.now;
        let leftovers: Vec<_> = self.nodes[number].kernel.keys().map(|ip| address(*ip)).collect();
        let node = &mut self.nodes[number];
        let has_left = node.is_leaving;
        (node.agent, node.is_leaving, node.wake_at) = (Agent::Running, false, None);
        node.life += 1;
        node.claims = Claims::new(&node.name, seed);
        node.claims.handle(Input::Interfaces(vec![INTERFACE]), now);
        node.claims.on_addresses(INTERFACE, &leftovers, now);
        (node.alive, node.known) = (BTreeSet::new(), BTreeSet::new());
        node.heard.clear();
        node.is_alone = false;
        self.tell_link(number);
        // Nobody is called dead or left out before one detection time has passed.
        let at = self.now + ms(600);
        self.push(at, number, What::Elect);
        if has_left {
            self.elect_elsewhere(number);
        }
        self.blame(number);
        self.look_around();
    }

    /// SIGKILL: the kernel goes on.
    pub(in super::super) fn kill_agent(&mut self, number: usize) {
        self.disturb();
        self.trace(number, "is killed");
        self.end_agent(number);
        self.note_partings();
        self.look_around();
    }

    fn end_agent(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.agent = Agent::Gone;
        node.inbox.clear();
        node.life += 1;
    }

    pub(in super::super) fn stop_agent(&mut self, number: usize) {
        self.disturb();
        self.trace(number, "is stopped");
        self.nodes[number].agent = Agent::Stopped;
        self.note_partings();
        self.look_around();
    }

    pub(in super::super) fn resume_agent(&mut self, number: usize) {
        self.disturb();
        self.trace(number, "is resumed");
        self.nodes[number].agent = Agent::Running;
        let now = self.now;
        let inbox = std::mem::take(&mut self.nodes[number].inbox);
        // Heard and told before anything is decided; what was on its way to the kernel comes to it now.
        for what in inbox {
            self.agent_takes(number, what);
        }
        self.tell_link(number);
        self.nodes[number].claims.handle_timeout(now);
        self.drain(number);
        self.blame(number);
        self.look_around();
    }

    pub(in super::super) fn power_off(&mut self, number: usize) {
        self.disturb();
        self.trace(number, "is switched off");
        self.end_agent(number);
        let node = &mut self.nodes[number];
        node.is_on = false;
        node.kernel.clear();
        self.look_around();
        self.check();
    }

    pub(in super::super) fn power_on(&mut self, number: usize) {
        self.nodes[number].is_on = true;
        self.start_agent(number);
    }

    pub(in super::super) fn set_carrier(&mut self, number: usize, has_carrier: bool) {
        self.disturb();
        self.trace(number, if has_carrier { "has its cable back" } else { "has its cable pulled" });
        self.nodes[number].has_carrier = has_carrier;
        if self.nodes[number].agent == Agent::Running {
            self.tell_link(number);
            self.drain(number);
            self.push(self.now, number, What::Elect);
        }
        self.look_around();
    }

    fn tell_link(&mut self, number: usize) {
        let now = self.now;
        let node = &mut self.nodes[number];
        let link = LinkState { mac: mac(number), is_usable: node.has_carrier };
        node.claims.on_link(INTERFACE, Some(link), now);
    }

    pub(in super::super) fn set_cut(&mut self, cut: BTreeSet<(usize, usize)>) {
        self.disturb();
        self.cut = cut;
        self.look_around();
    }

    /// SIGTERM for good.
    pub(in super::super) fn leave(&mut self, number: usize) {
        self.disturb();
        self.trace(number, "leaves");
        self.nodes[number].is_leaving = true;
        let now = self.now;
        self.nodes[number].claims.handle(Input::Leave, now);
        self.drain(number);
        self.elect_elsewhere(number);
    }

    /// Told to all at once.
    fn elect_elsewhere(&mut self, number: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != number) {
            let at = self.soon(1_000, 10_000);
            self.push(at, other, What::Elect);
        }
    }

    /// Someone on the node takes an address off its interface.
    pub(in super::super) fn take_off(&mut self, number: usize, ip: IpAddr) {
        self.disturb();
        self.trace(number, "has an address taken off");
        self.nodes[number].kernel.remove(&ip);
        self.happen(number, What::AddressGone(ip));
    }

    /// The agent has everything removed that nobody wants.
    pub(in super::super) fn forget(&mut self, ip: IpAddr) {
        self.disturb();
        self.addresses.retain(|address| *address != ip);
        self.checker.forget(ip);
        for number in 0..self.nodes.len() {
            self.push(self.now, number, What::Elect);
        }
    }

    /// A host that is no member asks for everything, on and on.
    pub(in super::super) fn make_noise(&mut self, number: usize, mac: Mac) {
        for address in self.addresses.clone() {
            self.probe_from_elsewhere(number, address, mac);
        }
        self.push(self.now + ms(7), number, What::Noise(mac));
    }

    /// Of a thousand frames so many are lost.
    pub(in super::super) fn set_loss(&mut self, per_mille: u32) {
        self.disturb();
        self.loss = per_mille;
    }
}
