//! What goes wrong on a subnet beside a pulled cable: halves that no longer hear each other, a machine that hears but
//! is not heard, and single kinds of packets that vanish.

use crate::{Host, Result, Topology, command};

/// The bridge of the machines that are cut off.
const ISLAND: &str = "island";
/// The nftables table of what a machine does not get out.
const MUTED: &str = "lab_muted";

/// What of a machine does not reach the others, while it hears all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Muted {
    /// Nothing reaches them.
    Everything,
    /// Its UDP datagrams to this port do not.
    Udp(u16),
}

impl Topology {
    /// Splits the nodes' network: these machines hear each other and nobody else, the others likewise. Every link
    /// stays up.
    ///
    /// # Errors
    /// When there is no such machine, or they are split already.
    pub fn split(&self, island: &[&str]) -> Result<()> {
        let moves = island.iter().map(|host| format!("link set {host} master {ISLAND}\n"));
        let moves: String = moves.collect();
        self.fabric.ip(&format!("link add {ISLAND} type bridge\nlink set {ISLAND} up\n{moves}"))
    }

    /// Brings the machines of a [`Topology::split`] back.
    ///
    /// # Errors
    /// When there is no such machine, or nothing was split.
    pub fn rejoin(&self, island: &[&str]) -> Result<()> {
        let moves = island.iter().map(|host| format!("link set {host} master nodes\n"));
        let moves: String = moves.collect();
        self.fabric.ip(&format!("{moves}link del {ISLAND}"))
    }

    /// Lets what a machine sends vanish on its way out.
    ///
    /// # Errors
    /// When the kernel refuses the filter.
    pub fn mute(&self, host: &Host, what: Muted) -> Result<()> {
        let table = match what {
            Muted::Everything => format!(
                "table netdev {MUTED} {{\nchain out {{ type filter hook egress device eth0 priority 0; policy drop; }}\n}}\n"
            ),
            Muted::Udp(port) => format!(
                "table netdev {MUTED} {{\nchain out {{ type filter hook egress device eth0 priority 0; udp dport {port} \
                 drop; }}\n}}\n"
            ),
        };
        command::run_with_input(host.namespace.command("nft").args(["-f", "-"]), &table).map(drop)
    }

    /// Lets what is sent to a machine vanish before it arrives: it is heard, and hears nothing. Its link stays up.
    ///
    /// # Errors
    /// When the kernel refuses the filter.
    pub fn deafen(&self, host: &Host) -> Result<()> {
        let name = &host.name;
        let table = format!(
            "table netdev deaf_{name} {{\nchain out {{ type filter hook egress device {name} priority 0; policy drop; }}\n}}\n"
        );
        command::run_with_input(self.fabric.command("nft").args(["-f", "-"]), &table).map(drop)
    }

    /// Ends the [`Topology::deafen`] of a machine.
    ///
    /// # Errors
    /// When it was not deaf.
    pub fn undeafen(&self, host: &Host) -> Result<()> {
        let table = format!("deaf_{}", host.name);
        command::run(self.fabric.command("nft").args(["delete", "table", "netdev", &table])).map(drop)
    }

    /// Ends the [`Topology::mute`] of a machine.
    ///
    /// # Errors
    /// When it was not muted.
    pub fn unmute(&self, host: &Host) -> Result<()> {
        let words = ["delete", "table", "netdev", MUTED];
        command::run(host.namespace.command("nft").args(words)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Run, topology::node_addresses};

    #[test]
    fn halves_of_a_split_network_hear_only_themselves_and_a_muted_machine_is_not_heard() {
        let run = Run::start().unwrap();
        let topology = Topology::build(&run, 3, 0).unwrap();
        let reaches = |from: usize, to: u8| {
            let ping = ["-c1", "-W1", &node_addresses(to).v4.to_string()].map(str::to_owned);
            command::run(topology.nodes[from - 1].namespace.command("ping").args(ping)).is_ok()
        };
        topology.split(&["node1", "node2"]).unwrap();
        assert!(reaches(1, 2) && !reaches(1, 3));
        topology.rejoin(&["node1", "node2"]).unwrap();
        assert!(reaches(1, 3));
        topology.mute(&topology.nodes[0], Muted::Udp(7)).unwrap();
        assert!(reaches(3, 1));
        topology.unmute(&topology.nodes[0]).unwrap();
        topology.mute(&topology.nodes[0], Muted::Everything).unwrap();
        assert!(!reaches(3, 1) && reaches(3, 2));
        topology.unmute(&topology.nodes[0]).unwrap();
        assert!(reaches(3, 1));
        topology.deafen(&topology.nodes[0]).unwrap();
        assert!(!reaches(3, 1) && reaches(3, 2));
        topology.undeafen(&topology.nodes[0]).unwrap();
        assert!(reaches(3, 1));
    }
}
