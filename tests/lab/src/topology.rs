//! The little data centre: nodes and routers on one bridge, clients each behind a router of their own way in.
//!
//! ```text
//!              client            eth1 to router1, eth2 to router2, a default route over each
//!             /      \
//!        router1    router2      FRR, BIRD
//!             \      /
//!   ───────────┴────┴───────────  the nodes' network: a bridge in the fabric's namespace
//!     |        |        |      |        |
//!   node1    node2    node3  control  neighbour
//!                    (API server,     (a client on the nodes' own subnet)
//!                      allocator)
//! ```
//!
//! Every link is between namespaces of the run; the root namespace has no part in it, so the addresses can be
//! the same in every run.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{Namespace, Result, Run, command};

/// Where a host stands in a network of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4, in a /24.
    pub v4: Ipv4Addr,
    /// IPv6, in a /64.
    pub v6: Ipv6Addr,
    /// IPv6 on the link, readable instead of made from a random MAC address.
    pub link_local: Ipv6Addr,
}

impl Addresses {
    const fn new(network: u8, host: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(172, 30, network, host),
            v6: Ipv6Addr::new(0xfd00, 0x30, network as u16, 0, 0, 0, 0, host as u16),
            link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host as u16),
        }
    }

    /// The address of one family: of the same family as `like`.
    pub fn like(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4 == self.v4,
            IpAddr::V6(v6) => v6 == self.v6 || v6 == self.link_local,
        }
    }
}

/// The nodes' network.
const NODES_NETWORK: u8 = 1;
/// The first of the clients' networks, one a router.
const CLIENT_NETWORKS: u8 = 100;
const CONTROL_HOST: u8 = 250;
const NEIGHBOUR_HOST: u8 = 251;
const FIRST_NODE_HOST: u8 = 10;
/// The nftables table of blackholes.
const BLACKHOLE: &str = "lab_blackhole";

/// Addresses of node `number` (from 1) in the nodes' network.
pub const fn node_addresses(number: u8) -> Addresses {
    Addresses::new(NODES_NETWORK, FIRST_NODE_HOST + number)
}

/// Addresses of router `number` (from 1) in the nodes' network.
pub const fn router_addresses(number: u8) -> Addresses {
    Addresses::new(NODES_NETWORK, number)
}

/// Addresses of the API server's host in the nodes' network.
pub const fn control_addresses() -> Addresses {
    Addresses::new(NODES_NETWORK, CONTROL_HOST)
}

/// Addresses of the client on the nodes' network.
pub const fn neighbour_addresses() -> Addresses {
    Addresses::new(NODES_NETWORK, NEIGHBOUR_HOST)
}

/// Addresses of the client on the link to router `number` (from 1).
pub const fn client_addresses(number: u8) -> Addresses {
    Addresses::new(CLIENT_NETWORKS + number, 10)
}

const fn router_client_addresses(number: u8) -> Addresses {
    Addresses::new(CLIENT_NETWORKS + number, 1)
}

/// The nodes' network in CIDR form, IPv4 and IPv6.
pub const NODES_CIDRS: (&str, &str) = ("172.30.1.0/24", "fd00:30:1::/64");

/// One machine of the lab.
#[derive(Debug, Clone)]
pub struct Host {
    /// `node1`, `router2`, `client`, `control`.
    pub name: String,
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its addresses in the nodes' network; a client's towards the first router.
    pub addresses: Addresses,
}

/// The machines and links of one run. What runs on them is added by others.
#[derive(Debug)]
pub struct Topology {
    /// Holds the bridge; its side of every link is the plug that [`Topology::unplug`] pulls.
    pub fabric: Namespace,
    /// Where the control plane runs.
    pub control: Host,
    /// The nodes, in order.
    pub nodes: Vec<Host>,
    /// The routers' machines, in order.
    pub routers: Vec<Host>,
    /// The client, with one link to each router: `eth1` to the first and so on.
    pub client: Host,
    /// A client on the nodes' own network.
    pub neighbour: Host,
}

impl Topology {
    /// Builds the machines and their links.
    ///
    /// # Errors
    /// When the kernel refuses something.
    pub fn build(run: &Run, nodes: u8, routers: u8) -> Result<Self> {
        let fabric = run.namespace("fabric")?;
        fabric.ip("link add nodes type bridge\nlink set nodes up")?;
        let control = attach(run, &fabric, "control", control_addresses())?;
        let neighbour = attach(run, &fabric, "neighbour", neighbour_addresses())?;
        let routers = (1..=routers)
            .map(|number| attach(run, &fabric, &format!("router{number}"), router_addresses(number)))
            .collect::<Result<Vec<_>>>()?;
        let client = Host {
            name: "client".into(),
            namespace: run.namespace("client")?,
            addresses: client_addresses(1),
        };
        for (number, router) in (1..).zip(&routers) {
            forward(&router.namespace)?;
            link_client(&client.namespace, router, number)?;
        }
        let nodes = (1..=nodes)
            .map(|number| {
                let node = attach(run, &fabric, &format!("node{number}"), node_addresses(number))?;
                forward(&node.namespace)?;
                routes_to_clients(&node.namespace, routers.len())?;
                Ok(node)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { fabric, control, nodes, routers, client, neighbour })
    }

    /// A machine by name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        let others = [&self.control, &self.client, &self.neighbour];
        self.nodes.iter().chain(&self.routers).chain(others).find(|host| host.name == name)
    }

    /// The name of the machine that has this address in the nodes' network.
    pub fn name_of(&self, address: IpAddr) -> Option<&str> {
        let hosts = self.nodes.iter().chain(&self.routers).chain([&self.control, &self.neighbour]);
        hosts.into_iter().find(|host| host.addresses.contains(address)).map(|host| host.name.as_str())
    }

    /// Pulls the plug of a machine: its link to the nodes' network goes down at the bridge's end, which the
    /// other machines do not notice by themselves.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn unplug(&self, host: &str) -> Result<()> {
        self.fabric.ip(&format!("link set {host} down"))
    }

    /// Puts the plug back.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn plug(&self, host: &str) -> Result<()> {
        self.fabric.ip(&format!("link set {host} up"))
    }

    /// Lets everything between two machines vanish, both ways, while their links stay up.
    ///
    /// # Errors
    /// When the kernel refuses the filter.
    pub fn blackhole(&self, host: &Host, other: &Host) -> Result<()> {
        let Addresses { v4, v6, link_local } = other.addresses;
        let drop = |side: &str| format!("ip {side} {v4} drop\nip6 {side} {{ {v6}, {link_local} }} drop");
        let chain = |hook: &str, side: &str| {
            format!("chain {hook} {{ type filter hook {hook} priority -300;\n{}\n}}", drop(side))
        };
        let table = format!(
            "table inet {BLACKHOLE} {{\n{}\n{}\n{}\n}}\n",
            chain("input", "saddr"),
            chain("forward", "saddr"),
            chain("output", "daddr")
        );
        command::run_with_input(host.namespace.command("nft").args(["-f", "-"]), &table).map(|_| ())
    }

    /// Ends the [`Topology::blackhole`]s of a machine.
    ///
    /// # Errors
    /// When it has none.
    pub fn heal(&self, host: &Host) -> Result<()> {
        let words = ["delete", "table", "inet", BLACKHOLE];
        command::run(host.namespace.command("nft").args(words)).map(|_| ())
    }

    /// Names for `ip netns exec`, by machine.
    pub fn namespaces(&self) -> BTreeMap<&str, &Namespace> {
        let hosts =
            self.nodes.iter().chain(&self.routers).chain([&self.control, &self.client, &self.neighbour]);
        hosts.map(|host| (host.name.as_str(), &host.namespace)).collect()
    }
}

/// A machine on the bridge, with `eth0` in its own namespace and the peer named after it in the fabric's.
fn attach(run: &Run, fabric: &Namespace, name: &str, addresses: Addresses) -> Result<Host> {
    let namespace = run.namespace(name)?;
    fabric.ip(&format!(
        "link add {name} type veth peer name eth0 netns {}\nlink set {name} master nodes up",
        namespace.name()
    ))?;
    namespace.ip(&format!("{}\nlink set eth0 up", assign("eth0", addresses)))?;
    Ok(Host { name: name.to_owned(), namespace, addresses })
}

fn assign(interface: &str, Addresses { v4, v6, link_local }: Addresses) -> String {
    format!(
        "link set {interface} addrgenmode none\naddress add {v4}/24 dev {interface}\naddress add {v6}/64 dev \
         {interface} nodad\naddress add {link_local}/64 dev {interface} nodad"
    )
}

fn link_client(client: &Namespace, router: &Host, number: u8) -> Result<()> {
    let (near, far) = (client_addresses(number), router_client_addresses(number));
    let interface = format!("eth{number}");
    router.namespace.ip(&format!(
        "link add client type veth peer name {interface} netns {}\n{}\nlink set client up",
        client.name(),
        assign("client", far)
    ))?;
    // One default route a link: a socket bound to an interface uses the route over it, the others the first.
    client.ip(&format!(
        "{}\nlink set {interface} up\nroute add default via {} dev {interface} metric {number}\nroute add default \
         via {} dev {interface} metric {number}",
        assign(&interface, near),
        far.v4,
        far.v6
    ))
}

/// The way back: replies to a client go to the router that it is behind.
fn routes_to_clients(node: &Namespace, routers: usize) -> Result<()> {
    for number in (1..).take(routers) {
        let (client, router) = (client_addresses(number), router_addresses(number));
        node.ip(&format!(
            "route add {}/24 via {}\nroute add {}/64 via {}",
            Ipv4Addr::from(u32::from(client.v4) & !0xff),
            router.v4,
            Ipv6Addr::from(u128::from(client.v6) & !u128::from(u64::MAX)),
            router.v6
        ))?;
    }
    Ok(())
}

/// A machine that forwards, and spreads connections (not just address pairs) over equal paths.
fn forward(namespace: &Namespace) -> Result<()> {
    let settings = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.fib_multipath_hash_policy", "1"),
        ("net.ipv6.fib_multipath_hash_policy", "1"),
    ];
    settings.iter().try_for_each(|(key, value)| namespace.sysctl(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::run;

    #[test]
    fn every_machine_reaches_its_neighbours_in_both_families() {
        let run_ = Run::start().unwrap();
        let topology = Topology::build(&run_, 2, 2).unwrap();
        let ping = |from: &str, to: IpAddr| {
            let from = topology.host(from).unwrap();
            run(from.namespace.command("ping").args(["-c1", "-W1", &to.to_string()])).map(drop)
        };
        for to in [node_addresses(2), router_addresses(1), router_addresses(2), control_addresses()] {
            ping("node1", to.v4.into()).unwrap();
            ping("node1", to.v6.into()).unwrap();
        }
        for number in [1, 2] {
            // There and back again, through each router.
            ping("node2", client_addresses(number).v4.into()).unwrap();
            ping("node2", client_addresses(number).v6.into()).unwrap();
        }
        topology.unplug("node1").unwrap();
        assert!(ping("node2", node_addresses(1).v4.into()).is_err());
        topology.plug("node1").unwrap();
        ping("node2", node_addresses(1).v4.into()).unwrap();
        let (one, two) = (&topology.nodes[0], &topology.nodes[1]);
        topology.blackhole(one, two).unwrap();
        assert!(ping("node2", node_addresses(1).v4.into()).is_err());
        assert!(ping("node1", node_addresses(2).v6.into()).is_err());
        ping("node1", router_addresses(1).v4.into()).unwrap();
        topology.heal(one).unwrap();
        ping("node2", node_addresses(1).v4.into()).unwrap();
        assert_eq!(topology.name_of(node_addresses(2).v6.into()), Some("node2"));
    }
}
